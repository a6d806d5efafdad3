#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t ca_available_bytes(void)
{
    FILE *f = fopen("/proc/meminfo", "r");
    if (f == NULL) return UINT64_MAX;
    static const char key[] = "MemAvailable:";
    char line[128];
    uint64_t kib = UINT64_MAX / 1024;
    while (fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, sizeof key - 1) == 0) kib = strtoull(line + sizeof key - 1, NULL, 10);
    (void)fclose(f);
    return kib * 1024;
}
