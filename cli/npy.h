/* Arrays in NumPy's .npy format: token ids in, logits out. */
#ifndef CLI_NPY_H
#define CLI_NPY_H

#include "file.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { NPY_WHY = 160 };

/* Reads a one-dimensional array of uint32, int32, uint64 or int64, little-endian, format version 1 or 2, from the bytes of a file;
 * every value must fit uint32. *ids is malloc'ed with *n_ids entries. False: why says what is wrong, in one line. */
bool npy_parse_ids(const unsigned char *bytes, size_t size, uint32_t **ids, size_t *n_ids, char why[NPY_WHY]);

/* A float32 array [n_rows][n_columns] that is written row by row. */
struct npy_writer {
    struct file_result result;
    size_t n_columns, rows_left;
};

/* Each returns false with errno set when the file cannot be created or written; npy_finish also when rows are missing (EINVAL): then a
 * file that was there before is there still. npy_finish must follow a successful npy_create in any case: it closes the file. */
bool npy_create(struct npy_writer *writer, const char *path, size_t n_rows, size_t n_columns);
bool npy_write_row(struct npy_writer *writer, const float *row);
bool npy_finish(struct npy_writer *writer);

#endif
