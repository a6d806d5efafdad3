#include "table.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct cell {
    char *shown; /* for people */
    char *raw;   /* for programs */
};

struct table {
    const struct table_column *columns;
    size_t n_columns, n_rows, max_rows;
    struct cell *cells; /* [n_rows][n_columns] */
    size_t widths[];    /* [n_columns] on a terminal */
};

/* Columns that a terminal uses for a UTF-8 text; a byte that is not UTF-8 counts one. */
static size_t display_width(const char *text)
{
    size_t width = 0;
    for (const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)text; *at;) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t n = utf8proc_iterate(at, -1, &c);
        width += n > 0 ? (size_t)utf8proc_charwidth(c) : 1;
        at += n > 0 ? n : 1;
    }
    return width;
}

static void widen(struct table *table, size_t column, const char *text)
{
    const size_t width = display_width(text);
    if (table->widths[column] < width) table->widths[column] = width;
}

struct table *table_create(const struct table_column *columns, size_t n_columns)
{
    struct table *table = calloc(1, sizeof *table + n_columns * sizeof *table->widths);
    if (!table) return NULL;
    table->columns = columns;
    table->n_columns = n_columns;
    for (size_t c = 0; c < n_columns; c++) widen(table, c, columns[c].title);
    return table;
}

static void free_cells(struct cell *cells, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(cells[i].shown);
        free(cells[i].raw);
    }
}

void table_free(struct table *table)
{
    if (!table) return;
    free_cells(table->cells, table->n_rows * table->n_columns);
    free(table->cells);
    free(table);
}

/* Control characters would break the rows: newline, return and tab get their C names, the others become "?". */
static char *escape_controls(const char *text)
{
    char *out = malloc(2 * strlen(text) + 1), *to = out;
    for (const char *from = text; out && *from; from++) {
        const unsigned char c = (unsigned char)*from;
        if (c == '\n' || c == '\r' || c == '\t') {
            *to++ = '\\';
            *to++ = c == '\n' ? 'n' : c == '\r' ? 'r' : 't';
        } else {
            *to++ = c < 0x20 || c == 0x7f ? '?' : *from;
        }
    }
    if (out) *to = '\0';
    return out;
}

static struct cell format_cell(const struct table_column *column, const struct table_cell *in)
{
    if (column->decimals < 0) {
        const char *text = in->text ? in->text : "";
        return (struct cell){ escape_controls(text), strdup(text) };
    }
    if (isnan(in->number)) return (struct cell){ strdup("-"), strdup("") };
    char shown[384], raw[32];
    snprintf(shown, sizeof shown, "%.*f%.16s", column->decimals, in->number, column->unit ? column->unit : "");
    snprintf(raw, sizeof raw, "%.9g", in->number);
    return (struct cell){ strdup(shown), strdup(raw) };
}

bool table_add(struct table *table, const struct table_cell *cells)
{
    const size_t n = table->n_columns;
    if (table->n_rows == table->max_rows) {
        const size_t max_rows = table->max_rows ? 2 * table->max_rows : 16;
        struct cell *grown = max_rows > SIZE_MAX / sizeof *grown / n ? NULL : realloc(table->cells, max_rows * n * sizeof *grown);
        if (!grown) return false;
        table->cells = grown;
        table->max_rows = max_rows;
    }
    struct cell *row = table->cells + table->n_rows * n;
    for (size_t c = 0; c < n; c++) {
        row[c] = format_cell(&table->columns[c], &cells[c]);
        if (!row[c].shown || !row[c].raw) {
            free_cells(row, c + 1);
            return false;
        }
    }
    for (size_t c = 0; c < n; c++) widen(table, c, row[c].shown);
    table->n_rows++;
    return true;
}

static void pad(FILE *out, size_t n, char c)
{
    while (n-- > 0) putc(c, out);
}

static const char *shown_at(const struct table *table, size_t row, size_t column) /* row 0 = titles */
{
    return row == 0 ? table->columns[column].title : table->cells[(row - 1) * table->n_columns + column].shown;
}

static void write_text_row(const struct table *table, size_t row, FILE *out)
{
    for (size_t c = 0; c < table->n_columns; c++) {
        const char *text = shown_at(table, row, c);
        const size_t blank = table->widths[c] - display_width(text);
        const bool left = table->columns[c].decimals < 0, last = c + 1 == table->n_columns;
        pad(out, left ? 0 : blank, ' ');
        fputs(text, out);
        pad(out, last ? 0 : (left ? blank : 0) + 2, ' ');
    }
    putc('\n', out);
}

void table_write_text(const struct table *table, FILE *out)
{
    size_t total = 2 * (table->n_columns - 1);
    for (size_t c = 0; c < table->n_columns; c++) total += table->widths[c];
    write_text_row(table, 0, out);
    pad(out, total, '-');
    putc('\n', out);
    for (size_t r = 1; r <= table->n_rows; r++) write_text_row(table, r, out);
}

void table_write_markdown(const struct table *table, FILE *out)
{
    for (size_t r = 0; r <= table->n_rows; r++) {
        for (size_t c = 0; c < table->n_columns; c++) {
            fputs("| ", out);
            for (const char *text = shown_at(table, r, c); *text; text++) {
                if (*text == '|') putc('\\', out);
                putc(*text, out);
            }
            putc(' ', out);
        }
        fputs("|\n", out);
        for (size_t c = 0; r == 0 && c < table->n_columns; c++) fputs(table->columns[c].decimals < 0 ? "| --- " : "| ---: ", out);
        if (r == 0) fputs("|\n", out);
    }
}

static void write_csv_field(const char *text, FILE *out)
{
    if (!text[strcspn(text, "\",\r\n")]) {
        fputs(text, out);
        return;
    }
    putc('"', out);
    for (; *text; text++) {
        if (*text == '"') putc('"', out);
        putc(*text, out);
    }
    putc('"', out);
}

void table_write_csv(const struct table *table, FILE *out)
{
    for (size_t r = 0; r <= table->n_rows; r++) {
        for (size_t c = 0; c < table->n_columns; c++) {
            if (c) putc(',', out);
            write_csv_field(r == 0 ? table->columns[c].key : table->cells[(r - 1) * table->n_columns + c].raw, out);
        }
        putc('\n', out);
    }
}
