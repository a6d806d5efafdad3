/* Whole files in memory, and files that are results. */
#ifndef CLI_FILE_H
#define CLI_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { FILE_WHY = 160 }; /* as NPY_WHY */

/* Reads a file ("-" or NULL = standard input) up to 1 GiB. *data is malloc'ed, with a NUL after its *size bytes.
 * False: why says the reason in one line, without the path. */
bool file_read(const char *path, char **data, size_t *size, char why[FILE_WHY]);

/* Before long work: that a file can be made at path, or a regular one replaced; devices: or a device or pipe written. Prints why not;
 * returns an exit code. */
int file_check_target(const char *path, bool devices);

/* A result that takes the place of an older one when it is whole. What is no regular file (a device, a pipe) is written as it is. */
struct file_result {
    FILE *file;
    char *path; /* what links lead to */
    char *part; /* the file that is written, of this process; NULL: path itself */
};

/* False, with errno, when it cannot be opened. */
bool file_begin(struct file_result *result, const char *path);
/* Closes the file. keep: it becomes the result; else nothing is left of it. False, with errno, when it could not be kept; then, too. */
bool file_end(struct file_result *result, bool keep);

bool file_is_folder(const char *path);
/* Whether both are names of one file that is there. */
bool file_is_same(const char *a, const char *b);

/* A file that belongs to the program: name in data/ of the current directory, beside the build folder or under share/ of the
 * installation. Writes the first path that can be read; false when there is none. */
bool file_find_data(const char *name, char *path, size_t cap);

#endif
