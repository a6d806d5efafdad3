#include "base/newfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

ca_status ca_newfile_open(const char *path, char **temporary, FILE **file)
{
    enum { SUFFIX = 32, ATTEMPTS = 100 };
    char *real = realpath(path, NULL); /* a link stays, and what it leads to is replaced */
    const char *place = real ? real : path;
    const size_t cap = strlen(place) + SUFFIX;
    *temporary = malloc(cap);
    if (!*temporary) {
        free(real);
        return ca_fail(CA_E_MEMORY, "%s: no memory to write it", path);
    }
    int fd = -1;
    for (int i = 0; i < ATTEMPTS && fd < 0 && (i == 0 || errno == EEXIST); i++) {
        (void)snprintf(*temporary, cap, "%s.%ld-%d.tmp", place, (long)getpid(), i);
        fd = open(*temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    }
    *file = fd < 0 ? NULL : fdopen(fd, "wb");
    const int error = errno;
    free(real);
    if (*file) return CA_OK;
    if (fd >= 0) {
        (void)close(fd);
        (void)unlink(*temporary);
    }
    free(*temporary);
    return ca_fail(CA_E_IO, "%s: cannot be created: %s", path, strerror(error));
}

ca_status ca_newfile_close(const char *path, char *temporary, FILE *file, ca_status written)
{
    ca_status st = written;
    if (fclose(file) != 0 && st == CA_OK) st = ca_fail(CA_E_IO, "%s: cannot be written: %s", path, strerror(errno));
    char *real = realpath(path, NULL);
    if (st == CA_OK && rename(temporary, real ? real : path) != 0)
        st = ca_fail(CA_E_IO, "%s: cannot be renamed into place: %s", path, strerror(errno));
    free(real);
    if (st != CA_OK) (void)unlink(temporary);
    free(temporary);
    return st;
}
