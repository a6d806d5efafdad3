/* The folder that --out names: made and tried before any work is done, then filled file by file. */
#ifndef CLI_FOLDER_H
#define CLI_FOLDER_H

#include "file.h"
#include "report/table.h"

#include <stdbool.h>

enum { FOLDER_PATH = 1024 };

bool folder_is_there(const char *path);

/* Makes the folder and tries whether a file of that name can be written in it. Returns an exit code. */
int folder_prepare(const char *folder, const char *name);

/* folder/name; false when that is too long. */
bool folder_path(const char *folder, const char *name, char path[FOLDER_PATH]);

/* Says which file of the results cannot be written, and why. Returns EXIT_FAILED. */
int folder_cannot_write(const char *folder, const char *name, const char *why);

/* A file of the results that takes the place of an older one when it is whole. Both say what is wrong; nothing is left to end when
 * folder_begin fails, folder_end returns an exit code. */
bool folder_begin(struct file_result *result, const char *folder, const char *name, char path[FOLDER_PATH]);
int folder_end(struct file_result *result, const char *folder, const char *name, bool keep);

/* Writes a table in one of its forms (table_write_csv, ..). Returns an exit code. */
int folder_write_table(const char *folder, const char *name, const struct table *table,
                       void (*write)(const struct table *table, FILE *out));

#endif
