/* How fast the memory can be read: what attention of few queries is measured by. */
#include <omp.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <compactattn/cpu.h>

#include "base/arith.h"
#include "base/error.h"

enum { LINE = 64, AHEAD = 2048 };
#define MIB ((size_t)1 << 20)

typedef uint64_t lane __attribute__((vector_size(16))); /* a register of every CPU that is built for */
enum { LANES = LINE / sizeof(lane) };
typedef struct line {
    lane at[LANES];
} line;

/* Sum of n lines; each is asked for that many lines before it is read. One stream for a thread: several ones at distances that are a
 * power of two can be half as fast. */
static inline uint64_t sum_lines(const line *lines, size_t n, size_t ahead)
{
    lane sum[LANES] = { { 0 } };
    for (size_t i = 0; i < n; i++) {
        if (ahead > 0) __builtin_prefetch(&lines[i + ahead < n ? i + ahead : i]);
        for (size_t l = 0; l < LANES; l++) sum[l] += lines[i].at[l];
    }
    for (size_t l = 1; l < LANES; l++) sum[0] += sum[l];
    return sum[0][0] + sum[0][1];
}

static uint64_t read_lines(const line *lines, size_t n, bool asks)
{
    return asks ? sum_lines(lines, n, AHEAD / LINE) : sum_lines(lines, n, 0);
}

/* Lines of a thread. All together are more than the caches hold, and at most half of what the system has left. */
static size_t thread_lines(size_t n_threads)
{
    size_t bytes = 256 * MIB;
    if (bytes < n_threads * 32 * MIB)
        bytes = n_threads * 32 * MIB; /* where several caches share the work, each has a few MiB a thread */
#ifdef _SC_LEVEL3_CACHE_SIZE
    const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (cache > 0 && bytes < 2 * (size_t)cache) bytes = 2 * (size_t)cache;
#endif
    const uint64_t most = ca_memory_available() / 2;
    if (bytes > most) bytes = (size_t)most;
    return bytes / LINE / n_threads;
}

ca_status ca_memory_bandwidth(int n_threads, int rounds, double *gb_per_s)
{
    if (n_threads < 1 || rounds < 1) return ca_fail(CA_E_ARG, "memory bandwidth: %d threads, %d rounds", n_threads, rounds);
    const size_t n = thread_lines((size_t)n_threads), bytes = n * (size_t)n_threads * LINE;
    line *lines = n > 0 ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
    if (lines == MAP_FAILED) return ca_fail(CA_E_MEMORY, "memory bandwidth: no memory for %zu bytes to read", bytes);
    (void)madvise(lines, bytes, MADV_HUGEPAGE); /* as KV pages are mapped */
#pragma omp parallel for schedule(static, 1) num_threads(n_threads)
    for (int i = 0; i < n_threads; i++) memset(lines + (size_t)i * n, 1, n * LINE); /* who writes a page first has it near */
    double best = 0;
    for (int r = 0; r < rounds; r++) {
        uint64_t sum = 0;
        const double start = omp_get_wtime();
#pragma omp parallel for schedule(static, 1) num_threads(n_threads) reduction(+ : sum)
        for (int i = 0; i < n_threads; i++) sum += read_lines(lines + (size_t)i * n, n, r % 2 != 0);
        const double rate = (double)bytes / (omp_get_wtime() - start) * 1e-9;
        volatile uint64_t sink = sum; /* so that it is read at all */
        (void)sink;
        if (rate > best) best = rate;
    }
    (void)munmap(lines, bytes);
    *gb_per_s = best;
    return CA_OK;
}
