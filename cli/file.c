#include "file.h"

#include "message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_BYTES ((size_t)1 << 30)

static bool refuse(char why[FILE_WHY], const char *reason)
{
    snprintf(why, FILE_WHY, "%s", reason);
    return false;
}

static bool read_stream(FILE *in, char **data, size_t *size, char why[FILE_WHY])
{
    size_t cap = 1 << 16, n = 0;
    char *buffer = malloc(cap);
    while (buffer) {
        n += fread(buffer + n, 1, cap - 1 - n, in);
        if (n < cap - 1) break;
        char *grown = cap > MAX_BYTES ? NULL : realloc(buffer, 2 * cap);
        if (!grown) {
            free(buffer);
            return refuse(why, cap > MAX_BYTES ? "longer than 1 GiB" : "too long for the memory");
        }
        buffer = grown;
        cap *= 2;
    }
    if (!buffer) return refuse(why, "too long for the memory");
    if (ferror(in)) {
        const int error = errno;
        free(buffer);
        return refuse(why, strerror(error));
    }
    buffer[n] = '\0';
    *data = buffer;
    *size = n;
    return true;
}

bool file_read(const char *path, char **data, size_t *size, char why[FILE_WHY])
{
    const bool from_stdin = !path || strcmp(path, "-") == 0;
    FILE *in = from_stdin ? stdin : fopen(path, "rb");
    if (!in) return refuse(why, strerror(errno));
    const bool ok = read_stream(in, data, size, why);
    if (!from_stdin) fclose(in);
    return ok;
}

int file_check_target(const char *path, bool devices)
{
    struct stat about;
    char folder[1024];
    const char *slash = strrchr(path, '/');
    const size_t n = !slash ? 0 : slash == path ? 1 : (size_t)(slash - path);
    if (stat(path, &about) == 0) {
        if (S_ISDIR(about.st_mode) || (!devices && !S_ISREG(about.st_mode))) return fail("%s: is no regular file", path);
        if (access(path, W_OK) != 0) return fail("%s: %s", path, strerror(errno));
        if (!S_ISREG(about.st_mode)) return EXIT_DONE;
    }
    if (n >= sizeof folder) return fail("%s: too long a path", path);
    snprintf(folder, sizeof folder, "%.*s", (int)n, n > 0 ? path : "");
    const bool there = access(n > 0 ? folder : ".", W_OK | X_OK) == 0;
    return there ? EXIT_DONE : fail("%s: no file can be made there (%s)", path, strerror(errno));
}

/* Names of the system's, as /dev/stdout, stay what they are, whatever they lead to. */
static bool is_replaced(const char *path)
{
    struct stat about;
    const bool system = strncmp(path, "/dev/", 5) == 0 || strncmp(path, "/proc/", 6) == 0;
    return !system && (stat(path, &about) != 0 || S_ISREG(about.st_mode));
}

bool file_begin(struct file_result *result, const char *path)
{
    const bool replace = is_replaced(path);
    char *real = realpath(path, NULL); /* a link stays, and what it leads to is replaced */
    *result = (struct file_result){ .path = real ? real : strdup(path) };
    const size_t room = result->path ? strlen(result->path) + 32 : 0;
    if (replace && result->path) result->part = malloc(room);
    if (result->part) snprintf(result->part, room, "%s.%ld.part", result->path, (long)getpid());
    if (replace ? result->part != NULL : result->path != NULL) result->file = fopen(replace ? result->part : path, "wb");
    const int error = errno;
    if (!result->file) {
        free(result->part);
        free(result->path);
    }
    errno = error;
    return result->file != NULL;
}

bool file_end(struct file_result *result, bool keep)
{
    const bool written = !ferror(result->file);
    const bool closed = fclose(result->file) == 0;
    bool kept = keep && written && closed;
    if (kept && result->part) kept = rename(result->part, result->path) == 0;
    const int error = errno;
    if (!kept && result->part) (void)remove(result->part);
    free(result->part);
    free(result->path);
    errno = error;
    return kept || !keep;
}

bool file_is_folder(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

bool file_is_same(const char *a, const char *b)
{
    struct stat first, second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

bool file_find_data(const char *name, char *path, size_t cap)
{
    char program[1024] = "";
    const ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    program[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(program, '/');
    if (slash) *slash = '\0';
    const char *const places[][2] = { { "data", "" }, { program, "/../data" }, { program, "/../share/compactattn" } };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const int length = snprintf(path, cap, "%s%s/%s", places[i][0], places[i][1], name);
        if (length > 0 && (size_t)length < cap && access(path, R_OK) == 0) return true;
    }
    return false;
}
