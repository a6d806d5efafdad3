#include "folder.h"

#include "message.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int folder_cannot_write(const char *folder, const char *name, const char *why)
{
    return fail("%s/%s: cannot be written (%s): choose another folder with --out", folder, name, why);
}

bool folder_path(const char *folder, const char *name, char path[FOLDER_PATH])
{
    const int n = snprintf(path, FOLDER_PATH, "%s/%s", folder, name);
    return n > 0 && n < FOLDER_PATH;
}

int folder_prepare(const char *folder, const char *name)
{
    char path[FOLDER_PATH];
    if (!folder_path(folder, name, path)) return folder_cannot_write(folder, name, "the path is too long");
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return fail("%s: the folder cannot be made (%s): choose another with --out", folder, strerror(errno));
    const int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) return folder_cannot_write(folder, name, strerror(errno));
    close(file);
    return EXIT_DONE;
}

int folder_write_table(const char *folder, const char *name, const struct table *table,
                       void (*write)(const struct table *table, FILE *out))
{
    char path[FOLDER_PATH];
    FILE *out = folder_path(folder, name, path) ? fopen(path, "w") : NULL;
    if (!out) return folder_cannot_write(folder, name, strerror(errno));
    write(table, out);
    const bool written = !ferror(out), closed = fclose(out) == 0;
    return written && closed ? EXIT_DONE : folder_cannot_write(folder, name, strerror(errno));
}
