/* A whole file mapped read-only. */
#ifndef CA_BASE_MAPFILE_H
#define CA_BASE_MAPFILE_H

#include "base/error.h"

typedef struct ca_mapfile {
    const void *data; /* page aligned; NULL when nothing is mapped */
    size_t size;
} ca_mapfile;

/* Maps path. CA_E_IO names the path and why: missing, not permitted, not a regular file, empty. The map shows later changes of the
 * file, so a file in use must be replaced (renamed over), not rewritten; one that is cut short while mapped raises SIGBUS. */
ca_status ca_mapfile_open(const char *path, ca_mapfile *out);
/* Unmaps; a zeroed map is fine. */
void ca_mapfile_close(ca_mapfile *map);
/* Bytes of a map that will not be read soon: they need not stay in memory. They are read from the file again when they are. */
void ca_mapfile_release(const void *data, size_t size);

#endif
