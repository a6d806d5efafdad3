#include <compactattn/cpu.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* The number behind a key at the start of a line; UINT64_MAX when there is no such line. */
static uint64_t line_of(const char *path, const char *key)
{
    char line[128];
    uint64_t number = UINT64_MAX;
    FILE *in = fopen(path, "r");
    while (in && fgets(line, sizeof line, in))
        if (strncmp(line, key, strlen(key)) == 0) number = strtoull(line + strlen(key), NULL, 10);
    if (in) (void)fclose(in);
    return number;
}

static uint64_t kib_of(const char *path, const char *key)
{
    const uint64_t kib = line_of(path, key);
    return kib > UINT64_MAX / 1024 ? UINT64_MAX : kib * 1024;
}

/* The number that a file holds; UINT64_MAX when there is no such file, or it says "max". */
static uint64_t number_of(const char *path)
{
    char line[64] = "";
    FILE *in = fopen(path, "r");
    const bool read = in && fgets(line, sizeof line, in);
    if (in) (void)fclose(in);
    return read && line[0] >= '0' && line[0] <= '9' ? strtoull(line, NULL, 10) : UINT64_MAX;
}

/* Of a limit, of which `used` is taken. */
static uint64_t rest(uint64_t limit, uint64_t used)
{
    return limit == UINT64_MAX || used == UINT64_MAX ? UINT64_MAX : limit > used ? limit - used : 0;
}

/* The files of a control group, in its second and its first version. */
typedef struct group_files {
    const char *mark, *root; /* before the group's path in /proc/self/cgroup; where groups are mounted */
    const char *limit, *used, *idle[2];
} group_files;

static const group_files versions[] = {
    { "0::", "/sys/fs/cgroup", "memory.max", "memory.current", { "inactive_file ", "active_file " } },
    { ":memory:",
      "/sys/fs/cgroup/memory",
      "memory.limit_in_bytes",
      "memory.usage_in_bytes",
      { "total_inactive_file ", "total_active_file " } },
};

/* What the limit of one group leaves; its file cache makes room. */
static uint64_t one_group_rest(const group_files *files, const char *group)
{
    char path[1024];
    (void)snprintf(path, sizeof path, "%s%s/%s", files->root, group, files->limit);
    const uint64_t limit = number_of(path);
    (void)snprintf(path, sizeof path, "%s%s/%s", files->root, group, files->used);
    uint64_t used = number_of(path);
    (void)snprintf(path, sizeof path, "%s%s/memory.stat", files->root, group);
    for (size_t i = 0; i < 2 && used != UINT64_MAX; i++) {
        const uint64_t idle = line_of(path, files->idle[i]);
        if (idle != UINT64_MAX) used = idle < used ? used - idle : 0;
    }
    return rest(limit, used);
}

/* The least of what the limits of the process' control group and of those around it leave. In a container the path is the host's, and
 * only the group at the root is there. */
static uint64_t group_rest(void)
{
    uint64_t least = UINT64_MAX;
    char line[512];
    FILE *in = fopen("/proc/self/cgroup", "r");
    while (in && fgets(line, sizeof line, in)) {
        for (size_t v = 0; v < sizeof versions / sizeof *versions; v++) {
            char *at = strstr(line, versions[v].mark);
            if (at == NULL || (v == 0 && at != line)) continue;
            char *group = at + strlen(versions[v].mark);
            group[strcspn(group, "\n")] = '\0';
            for (char *end; (end = strrchr(group, '/')) != NULL; *end = '\0') {
                const uint64_t left = one_group_rest(&versions[v], strcmp(group, "/") == 0 ? "" : group);
                if (left < least) least = left;
            }
            const uint64_t root = one_group_rest(&versions[v], "");
            if (root < least) least = root;
        }
    }
    if (in) (void)fclose(in);
    return least;
}

/* What the limit of the process' addresses (ulimit -v) leaves. */
static uint64_t address_rest(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return rest(limit.rlim_cur, kib_of("/proc/self/status", "VmSize:"));
}

uint64_t ca_memory_available(void)
{
    const uint64_t machine = kib_of("/proc/meminfo", "MemAvailable:"), group = group_rest(), addresses = address_rest();
    const uint64_t least = machine < group ? machine : group;
    return least < addresses ? least : addresses;
}
