#include "tune.h"

#include "file.h"
#include "message.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_BYTES = 1024 };

/* The folder, then the file in it. */
static bool folder_path(char *path, size_t cap)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (cache && *cache)
        n = snprintf(path, cap, "%s/compactattn", cache);
    else if (home && *home)
        n = snprintf(path, cap, "%s/.cache/compactattn", home);
    return n > 0 && (size_t)n < cap;
}

bool tune_path(char *path, size_t cap)
{
    if (!folder_path(path, cap)) return false;
    const size_t n = strlen(path);
    return (size_t)snprintf(path + n, cap - n, "/cost.json") < cap - n;
}

/* "CPU name, kernel set", and ", int8 attention" where it is meant. */
static void make_key(const ca_kern *kern, ca_attention attention, char key[256])
{
    char cpu[128];
    ca_cpu_name(cpu, sizeof cpu);
    snprintf(key, 256, "%s, %s%s", cpu, ca_kern_name(kern), attention == CA_ATTENTION_INT8 ? ", int8 attention" : "");
}

static bool read_number(const json_t *entry, const char *key, double *out)
{
    *out = json_number_value(json_object_get(entry, key));
    return isfinite(*out) && *out >= 0.0;
}

bool tune_cost(const ca_kern *kern, ca_attention attention, ca_cost *out)
{
    char path[PATH_BYTES], key[256];
    ca_cost_defaults(kern, attention, out);
    ca_cost cost = *out;
    if (!tune_path(path, sizeof path)) return false;
    make_key(kern, attention, key);
    json_t *all = json_load_file(path, 0, NULL);
    const json_t *entry = json_object_get(all, key);
    const bool good = entry && read_number(entry, "flop", &cost.flop) && read_number(entry, "page_byte", &cost.page_byte) &&
                      read_number(entry, "job", &cost.job) && cost.flop > 0.0;
    if (good) *out = cost;
    json_decref(all);
    return good;
}

/* mkdir -p of the folder of the file; the last folder only needs to exist afterwards. */
static void make_folders(const char *path)
{
    char part[PATH_BYTES];
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        (void)mkdir(part, 0777);
    }
}

int tune_save(const ca_kern *kern, ca_attention attention, const ca_cost *cost)
{
    struct file_result result;
    char path[PATH_BYTES], key[256];
    if (!tune_path(path, sizeof path)) return fail("neither XDG_CACHE_HOME nor HOME is set: nowhere to keep the measurement");
    make_key(kern, attention, key);
    make_folders(path);
    json_t *all = json_load_file(path, 0, NULL);
    if (!json_is_object(all)) {
        json_decref(all);
        all = json_object();
    }
    json_object_set_new(all, key, json_pack("{s:f, s:f, s:f}", "flop", cost->flop, "page_byte", cost->page_byte, "job", cost->job));
    const bool written = file_begin(&result, path) &&
                         file_end(&result, json_dumpf(all, result.file, JSON_INDENT(2) | JSON_SORT_KEYS) == 0);
    json_decref(all);
    return written ? EXIT_DONE : fail("%s: %s", path, strerror(errno));
}
