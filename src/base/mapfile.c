#include "base/mapfile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static ca_status map_fd(int fd, const char *path, ca_mapfile *out)
{
    struct stat st;
    if (fstat(fd, &st) != 0) return ca_fail(CA_E_IO, "%s: cannot be examined: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode)) return ca_fail(CA_E_IO, "%s: is a directory, a file was expected", path);
    if (!S_ISREG(st.st_mode)) return ca_fail(CA_E_IO, "%s: is not a regular file", path);
    if (st.st_size <= 0) return ca_fail(CA_E_IO, "%s: is empty", path);
    const size_t size = (size_t)st.st_size;
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) return ca_fail(CA_E_IO, "%s: cannot be mapped (%zu bytes): %s", path, size, strerror(errno));
    *out = (ca_mapfile){ .data = data, .size = size };
    return CA_OK;
}

ca_status ca_mapfile_open(const char *path, ca_mapfile *out)
{
    *out = (ca_mapfile){ 0 };
    if (!path) return ca_fail(CA_E_ARG, "mapfile: path is NULL");
    /* O_NONBLOCK: opening a pipe must fail below, not wait for its writer. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return ca_fail(CA_E_IO, "%s: cannot be opened: %s", path, strerror(errno));
    const ca_status st = map_fd(fd, path, out);
    (void)close(fd);
    return st;
}

void ca_mapfile_close(ca_mapfile *map)
{
    if (map->data) (void)munmap((void *)(uintptr_t)map->data, map->size);
    *map = (ca_mapfile){ 0 };
}

void ca_mapfile_release(const void *data, size_t size)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = ((uintptr_t)data + page - 1) / page * page;
    const uintptr_t to = ((uintptr_t)data + size) / page * page;
    if (to > from) (void)madvise((void *)from, to - from, MADV_DONTNEED); /* a hint: failure costs memory only */
}
