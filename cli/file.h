/* Whole files in memory. */
#ifndef CLI_FILE_H
#define CLI_FILE_H

#include <stdbool.h>
#include <stddef.h>

enum { FILE_WHY = 160 }; /* as NPY_WHY */

/* Reads a file ("-" or NULL = standard input) up to 1 GiB. *data is malloc'ed, with a NUL after its *size bytes.
 * False: why says the reason in one line, without the path. */
bool file_read(const char *path, char **data, size_t *size, char why[FILE_WHY]);

/* A file that belongs to the program: name in data/ of the current directory, beside the build folder or under share/ of the
 * installation. Writes the first path that can be read; false when there is none. */
bool file_find_data(const char *name, char *path, size_t cap);

#endif
