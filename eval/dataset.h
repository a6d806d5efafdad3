/* Rows of a RULER data file (spec: evaluation, B10 and B12): JSON lines with index, input, outputs, length. */
#ifndef EVAL_DATASET_H
#define EVAL_DATASET_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct dataset_row {
    size_t index; /* 0-based; of the line where the file's own is no sample number (upstream's niah files) */
    char *input;  /* the whole prompt: upstream's answer_prefix is appended */
    char **outputs;
    size_t n_outputs;
    size_t length; /* prompt tokens + budget as the generator counted them; 0 = not said */
};

struct dataset {
    struct dataset_row *rows;
    size_t n_rows;
    size_t n_bad; /* lines left out, each named on standard error with file and line */
};

/* Reads FILE. A line that cannot be used is told and left out; a file without a usable line is an error. Returns an exit code. */
int dataset_read(const char *path, struct dataset *out);
void dataset_free(struct dataset *dataset);

/* Reads a file of one JSON object a line. take gets each, with its line counted from 1, and returns NULL, or why it cannot be used (text
 * that lives until the next call). Such a line is told on standard error, left out and counted in *n_bad, and so is one that is no JSON
 * object. Returns an exit code: only a file that cannot be read is an error. */
int dataset_lines(const char *path, const char *(*take)(void *user, size_t line, const json_t *row), void *user, size_t *n_bad);

/* Indexes of rows that were taken; seen is a JSON object. dataset_remember is false when memory is short. */
bool dataset_knows(const json_t *seen, size_t index);
bool dataset_remember(json_t *seen, size_t index);

/* The key's array of strings, at least one; malloc'ed pointers to the row's own text. False when it is something else. */
bool dataset_strings(const json_t *row, const char *key, const char ***out, size_t *n);

#endif
