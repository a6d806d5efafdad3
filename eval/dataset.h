/* Rows of a RULER data file (spec: evaluation, B10 and B12): JSON lines with index, input, outputs, length. */
#ifndef EVAL_DATASET_H
#define EVAL_DATASET_H

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

#endif
