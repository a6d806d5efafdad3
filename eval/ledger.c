#include "ledger.h"

#include "cli/file.h"
#include "cli/message.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_ROOM = 1024, SHOWN = 60, BLOCK = 1 << 16 };

#define ENDS ((off_t)32 << 20) /* bytes hashed at either end of a large file */

/* FOLDER/NAME with an ending; false when too long. */
static bool join(const char *folder, const char *name, const char *ending, char path[PATH_ROOM])
{
    const int n = snprintf(path, PATH_ROOM, "%s/%s%s", folder, name, ending);
    return n > 0 && n < PATH_ROOM;
}

/* The folders that lead to path, which itself is not made. */
static int make_folders(const char *path)
{
    char part[PATH_ROOM];
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        if (mkdir(part, 0777) != 0 && errno != EEXIST) return fail("%s: the folder cannot be made (%s)", part, strerror(errno));
    }
    return EXIT_DONE;
}

static int write_all(int file, const char *bytes, size_t size)
{
    while (size > 0) {
        const ssize_t n = write(file, bytes, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        bytes += n;
        size -= (size_t)n;
    }
    return fdatasync(file) == 0 || errno == EINVAL ? 0 : errno; /* EINVAL: a pipe or device has no disk behind it */
}

/* Through a second file that takes the place of the first: a reader sees the old one or the new one. taken: NULL replaces what is there;
 * else a manifest that another process has made by now is left, and *taken is true. */
static int write_manifest(const char *path, const json_t *settings, bool *taken)
{
    struct file_result result;
    char *text = json_dumps(settings, JSON_INDENT(2));
    if (!text) return fail("%s: no memory to write it", path);
    int error = file_begin(&result, path) ? 0 : errno;
    if (error == 0) {
        error = write_all(fileno(result.file), text, strlen(text));
        const bool may_link = error == 0 && taken && result.part;
        const bool linked = may_link && link(result.part, path) == 0;
        if (taken) *taken = may_link && !linked && errno == EEXIST;
        const bool done = error != 0 || linked || (taken && *taken); /* else, as on disks that have no links, it is renamed */
        if (!file_end(&result, !done)) error = errno;
    }
    free(text);
    return error == 0 ? EXIT_DONE : fail("%s: cannot be written (%s)", path, strerror(error));
}

/* A value as a message shows it. */
static void show(const json_t *value, char text[SHOWN])
{
    char *dumped = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    const int n = snprintf(text, SHOWN, "%s", dumped ? dumped : "not given");
    if (n >= SHOWN) memcpy(text + SHOWN - 4, "...", 4);
    free(dumped);
}

/* The first key in which two objects differ; NULL when there is none. may_lack: a key that only one of them has is no difference. */
static const char *first_difference(json_t *old, json_t *new, bool may_lack)
{
    json_t *const both[] = { new, old };
    for (int i = 0; i < 2; i++) {
        const char *key;
        json_t *value;
        json_object_foreach(both[i], key, value)
        {
            const json_t *a = json_object_get(old, key), *b = json_object_get(new, key);
            if (a && b ? !json_equal(a, b) : !may_lack) return key;
        }
    }
    return NULL;
}

/* What is compared as a whole. */
static json_t *fixed_part(const json_t *settings)
{
    json_t *fixed = json_copy((json_t *)(uintptr_t)settings); /* is not changed */
    if (fixed) json_object_del(fixed, "note");
    if (fixed) json_object_del(fixed, "inputs");
    return fixed;
}

static int compare(const char *path, json_t *old, json_t *new)
{
    json_t *const was_all = fixed_part(old), *const is_all = fixed_part(new);
    json_t *a = json_object_get(old, "inputs"), *b = json_object_get(new, "inputs");
    const char *key = was_all && is_all ? first_difference(was_all, is_all, false) : NULL, *inner = NULL;
    int code = was_all && is_all ? EXIT_DONE : fail("%s: no memory to compare it", path);
    if (!key && a && b) inner = first_difference(a, b, true);
    if (code == EXIT_DONE && (key || inner)) {
        char was[SHOWN], is[SHOWN];
        if (key) a = json_object_get(old, key), b = json_object_get(new, key);
        if (key && json_is_object(a) && json_is_object(b)) inner = first_difference(a, b, false);
        show(inner ? json_object_get(a, inner) : a, was);
        show(inner ? json_object_get(b, inner) : b, is);
        code = fail("%s: %s%s%s was %s and is now %s: results of different settings do not go into one folder, choose another",
                    path, key ? key : "inputs", inner ? "." : "", inner ? inner : "", was, is);
    }
    json_decref(was_all);
    json_decref(is_all);
    return code;
}

/* What a note or the inputs say is added to what they said before. */
static int update(const char *path, json_t *old, const json_t *settings)
{
    static const char *const growing[] = { "note", "inputs" };
    bool same = true;
    for (size_t i = 0; i < sizeof growing / sizeof *growing; i++) {
        json_t *added = json_object_get(settings, growing[i]);
        if (!added) continue;
        json_t *merged = json_deep_copy(json_object_get(old, growing[i]));
        if (!merged) merged = json_object();
        if (!merged || json_object_update_recursive(merged, added) != 0) {
            json_decref(merged);
            return fail("%s: no memory for what it says", path);
        }
        same = same && json_equal(merged, json_object_get(old, growing[i]));
        json_object_set_new(old, growing[i], merged);
    }
    return same ? EXIT_DONE : write_manifest(path, old, NULL);
}

int ledger_begin(const char *folder, const json_t *settings)
{
    char path[PATH_ROOM];
    json_error_t error;
    if (!join(folder, "manifest", ".json", path)) return fail("%s: too long a path", folder);
    int code = make_folders(path);
    if (code != EXIT_DONE) return code;
    if (access(path, F_OK) != 0) {
        bool taken = false;
        code = write_manifest(path, settings, &taken);
        if (code != EXIT_DONE || !taken) return code;
    }
    json_t *old = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(old)) {
        json_decref(old);
        return fail("%s: line %d: %s: not a manifest, choose another folder", path, old ? 1 : error.line,
                    old ? "not an object" : error.text);
    }
    json_t *new = json_deep_copy(settings);
    code = new ? compare(path, old, new) : fail("%s: no memory to compare it", path);
    json_decref(new);
    if (code == EXIT_DONE) code = update(path, old, settings);
    json_decref(old);
    return code;
}

int ledger_lock(const char *folder, const char *name)
{
    char path[PATH_ROOM];
    const int n = snprintf(path, sizeof path, "%s/.%s.lock", folder, name);
    if (n < 0 || n >= PATH_ROOM) return fail("%s: too long a path", folder);
    const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) return fail("%s: %s", path, strerror(errno));
    if (flock(file, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return EXIT_DONE; /* or the disk knows no locks */
    (void)close(file);
    return fail("%s: another process is answering there: wait for it, or choose another folder", folder);
}

int ledger_read(const char *folder, const char *name, json_t **rows)
{
    char path[PATH_ROOM], why[FILE_WHY], *text = NULL;
    size_t size = 0;
    json_error_t error;
    *rows = NULL;
    if (!join(folder, name, ".jsonl", path)) return fail("%s/%s: too long a path", folder, name);
    json_t *all = json_array();
    if (!all) return fail("%s: no memory for its rows", path);
    if (access(path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR)) {
        *rows = all;
        return EXIT_DONE;
    }
    int code = file_read(path, &text, &size, why) ? EXIT_DONE : fail("%s: %s", path, why);
    size_t line = 0;
    for (const char *at = text, *end; code == EXIT_DONE && (end = memchr(at, '\n', size - (size_t)(at - text))); at = end + 1) {
        json_t *row = json_loadb(at, (size_t)(end - at), JSON_REJECT_DUPLICATES, &error);
        line++;
        if (!row)
            code = fail("%s: line %zu: %s: remove the line to have it done again", path, line, error.text);
        else if (json_array_append_new(all, row) != 0)
            code = fail("%s: no memory for its rows", path);
    }
    free(text);
    if (code == EXIT_DONE)
        *rows = all;
    else
        json_decref(all);
    return code;
}

/* Cuts off what follows the last line's end. *size = the length then. */
static int cut_unfinished(int file, off_t *size)
{
    char block[512];
    const off_t whole = lseek(file, 0, SEEK_END);
    off_t end = whole;
    if (whole < 0) return errno;
    while (end > 0) {
        const off_t start = end > (off_t)sizeof block ? end - (off_t)sizeof block : 0;
        ssize_t n = pread(file, block, (size_t)(end - start), start);
        if (n != end - start) return n < 0 ? errno : EIO;
        while (n > 0 && block[n - 1] != '\n') n--;
        end = start + n;
        if (n > 0) break;
    }
    *size = end;
    return end == whole || ftruncate(file, end) == 0 ? 0 : errno;
}

static int append_text(const char *path, char *text)
{
    off_t size = 0;
    const size_t length = strlen(text);
    const int file = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    int error = file >= 0 ? cut_unfinished(file, &size) : errno;
    if (error == 0) {
        text[length] = '\n'; /* the terminator's place: the line goes out in one write */
        error = write_all(file, text, length + 1);
        if (error != 0 && ftruncate(file, size) != 0) error = errno;
    }
    if (file >= 0 && close(file) != 0 && error == 0) error = errno;
    return error == 0 ? EXIT_DONE : fail("%s: cannot be written (%s)", path, strerror(error));
}

int ledger_append(const char *folder, const char *name, json_t *row)
{
    char path[PATH_ROOM];
    const bool fits = join(folder, name, ".jsonl", path);
    char *text = fits ? json_dumps(row, JSON_COMPACT) : NULL;
    json_decref(row);
    int code = text ? make_folders(path) : fail("%s/%s: %s", folder, name, fits ? "no memory for a row" : "too long a path");
    if (code == EXIT_DONE) code = append_text(path, text);
    free(text);
    return code;
}

static int hash_range(int file, const char *path, off_t from, off_t to, struct sha256_ctx *context)
{
    unsigned char *block = malloc(BLOCK);
    int code = block ? EXIT_DONE : fail("%s: no memory to read it", path);
    while (code == EXIT_DONE && from < to) {
        const size_t want = to - from < BLOCK ? (size_t)(to - from) : BLOCK;
        const ssize_t n = pread(file, block, want, from);
        if (n > 0) sha256_update(context, (size_t)n, block);
        if (n <= 0) code = fail("%s: %s", path, n < 0 ? strerror(errno) : "is being changed");
        from += n > 0 ? n : 0;
    }
    free(block);
    return code;
}

/* Adds a file's bytes; of a large one its size and its ends, and sets *ends. */
static int hash_file(const char *path, struct sha256_ctx *context, bool *ends)
{
    struct stat about;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &about) != 0 || !S_ISREG(about.st_mode)) {
        const int error = file < 0 ? errno : EINVAL;
        if (file >= 0) close(file);
        return fail("%s: %s", path, error == EINVAL ? "not a file" : strerror(error));
    }
    int code;
    if (about.st_size > 2 * ENDS) {
        char size[32];
        const int n = snprintf(size, sizeof size, "%lld:", (long long)about.st_size);
        *ends = true;
        sha256_update(context, (size_t)n, (const unsigned char *)size);
        code = hash_range(file, path, 0, ENDS, context);
        if (code == EXIT_DONE) code = hash_range(file, path, about.st_size - ENDS, about.st_size, context);
    } else {
        code = hash_range(file, path, 0, about.st_size, context);
    }
    close(file);
    return code;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int hash_folder(const char *folder, struct sha256_ctx *context, bool *ends)
{
    struct dirent **entries = NULL;
    char path[PATH_ROOM];
    struct stat about;
    const int n = scandir(folder, &entries, NULL, by_name);
    int code = n >= 0 ? EXIT_DONE : fail("%s: %s", folder, strerror(errno));
    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name;
        const bool fits = join(folder, name, "", path);
        if (code == EXIT_DONE && !fits) code = fail("%s/%s: too long a path", folder, name);
        if (code == EXIT_DONE && stat(path, &about) == 0 && S_ISREG(about.st_mode)) {
            sha256_update(context, strlen(name) + 1, (const unsigned char *)name);
            code = hash_file(path, context, ends);
        }
        free(entries[i]);
    }
    free(entries);
    return code;
}

static void finish_hash(struct sha256_ctx *context, bool ends, char hex[LEDGER_HASH])
{
    unsigned char digest[SHA256_DIGEST_SIZE];
    sha256_digest(context, sizeof digest, digest);
    size_t at = (size_t)snprintf(hex, LEDGER_HASH, "%s:", ends ? "sha256-ends" : "sha256");
    for (size_t i = 0; i < sizeof digest; i++, at += 2) snprintf(hex + at, LEDGER_HASH - at, "%02x", (unsigned)digest[i]);
}

int ledger_hash(const char *path, char hex[LEDGER_HASH])
{
    struct sha256_ctx context;
    struct stat about;
    bool ends = false;
    sha256_init(&context);
    if (stat(path, &about) != 0) return fail("%s: %s", path, strerror(errno));
    const int code = S_ISDIR(about.st_mode) ? hash_folder(path, &context, &ends) : hash_file(path, &context, &ends);
    if (code == EXIT_DONE) finish_hash(&context, ends, hex);
    return code;
}

void ledger_hash_bytes(const void *bytes, size_t size, char hex[LEDGER_HASH])
{
    struct sha256_ctx context;
    sha256_init(&context);
    sha256_update(&context, size, bytes);
    finish_hash(&context, false, hex);
}
