/* Runs a fuzz harness over every file of the folders given, without libFuzzer: the corpus as a regression test. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    FILE *const file = fopen(path, "rb");
    if (!file) return -1;
    uint8_t *data = NULL;
    long size = -1;
    if (fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) >= 0 && fseek(file, 0, SEEK_SET) == 0)
        data = malloc(size > 0 ? (size_t)size : 1);
    const int ok = data && fread(data, 1, (size_t)size, file) == (size_t)size;
    (void)fclose(file);
    if (ok) (void)LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
    return ok ? 0 : -1;
}

/* Number of files replayed; negative after a file that cannot be read. */
static long replay_folder(const char *folder)
{
    DIR *const dir = opendir(folder);
    if (!dir) return -1;
    long count = 0;
    for (const struct dirent *entry = readdir(dir); entry && count >= 0; entry = readdir(dir)) {
        if (entry->d_name[0] == '.') continue;
        char path[4096];
        const int len = snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        const int failed = len < 0 || (size_t)len >= sizeof path || replay_file(path) != 0;
        if (failed) (void)fprintf(stderr, "replay: cannot read %s/%s\n", folder, entry->d_name);
        count = failed ? -1 : count + 1;
    }
    (void)closedir(dir);
    return count;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const long count = replay_folder(argv[i]);
        if (count <= 0) {
            (void)fprintf(stderr, "replay: %s has no readable corpus\n", argv[i]);
            return 1;
        }
        (void)printf("replay: %ld files of %s\n", count, argv[i]);
    }
    return argc > 1 ? 0 : 1;
}
