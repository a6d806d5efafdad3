/* One set of rows, written as aligned text, as Markdown or as CSV. */
#ifndef REPORT_TABLE_H
#define REPORT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* decimals >= 0: a column of numbers, right-aligned, shown with that many decimals and the unit. Below 0: a column of text. */
struct table_column {
    const char *title; /* heading for people */
    const char *key;   /* heading of the CSV file */
    int decimals;
    const char *unit; /* put after each number for people ("x"); may be NULL */
};

/* A cell of a text column uses text (NULL = empty), one of a number column uses number (NaN = not applicable). */
struct table_cell {
    const char *text;
    double number;
};

struct table;

/* n_columns >= 1; columns are borrowed and must outlive the table. NULL when memory is short. table_free takes NULL. */
struct table *table_create(const struct table_column *columns, size_t n_columns);
void table_free(struct table *table);

/* Adds one row of n_columns cells (copied). False when memory is short: the table is then as before. */
bool table_add(struct table *table, const struct table_cell *cells);

/* Write the table. Text: control characters escaped, columns padded to their width on a terminal. Markdown: "|" escaped.
 * CSV: RFC 4180, numbers in full precision without units. Errors are left in the stream (ferror). */
void table_write_text(const struct table *table, FILE *out);
void table_write_markdown(const struct table *table, FILE *out);
void table_write_csv(const struct table *table, FILE *out);

#endif
