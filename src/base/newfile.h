/* A file that appears whole or not at all: written under another name beside its own, then renamed. */
#ifndef CA_BASE_NEWFILE_H
#define CA_BASE_NEWFILE_H

#include <stdio.h>

#include "base/error.h"

/* A new file beside path, "PATH.PID-N.tmp", which no other writer has, with the permissions that the user's mask gives. Its name and *file
 * are the caller's. CA_E_IO says why it cannot be created. */
ca_status ca_newfile_open(const char *path, char **temporary, FILE **file);

/* Closes the file and renames it to path, replacing a file that is there; removes it when that fails or when written, what became of its
 * bytes, is an error. Frees temporary. */
ca_status ca_newfile_close(const char *path, char *temporary, FILE *file, ca_status written);

#endif
