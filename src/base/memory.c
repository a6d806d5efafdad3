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

/* What a control group's limit leaves; its idle file cache makes room. */
static uint64_t group_rest(void)
{
    const uint64_t used = number_of("/sys/fs/cgroup/memory.current"),
                   idle = line_of("/sys/fs/cgroup/memory.stat", "inactive_file ");
    return rest(number_of("/sys/fs/cgroup/memory.max"), idle < used ? used - idle : used);
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
