#include "folder.h"

#include "file.h"
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

bool folder_is_there(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

int folder_prepare(const char *folder, const char *name)
{
    char path[FOLDER_PATH];
    if (!folder_path(folder, name, path)) return folder_cannot_write(folder, name, "the path is too long");
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return fail("%s: the folder cannot be made (%s): choose another with --out", folder, strerror(errno));
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    const bool new = file >= 0;
    if (!new &&errno == EEXIST) file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0) return folder_cannot_write(folder, name, strerror(errno));
    close(file);
    if (new) (void)unlink(path); /* an empty file would look like a result */
    return EXIT_DONE;
}

bool folder_begin(struct file_result *result, const char *folder, const char *name, char path[FOLDER_PATH])
{
    const bool fits = folder_path(folder, name, path);
    if (fits && file_begin(result, path)) return true;
    (void)folder_cannot_write(folder, name, fits ? strerror(errno) : "the path is too long");
    return false;
}

int folder_end(struct file_result *result, const char *folder, const char *name, bool keep)
{
    return file_end(result, keep) ? EXIT_DONE : folder_cannot_write(folder, name, strerror(errno));
}

int folder_write_table(const char *folder, const char *name, const struct table *table,
                       void (*write)(const struct table *table, FILE *out))
{
    char path[FOLDER_PATH];
    struct file_result result;
    if (!folder_begin(&result, folder, name, path)) return EXIT_FAILED;
    write(table, result.file);
    return folder_end(&result, folder, name, true);
}
