#include "kern/kern.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kern/sets.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#define ON_X86(x) (x)
#else
#define ON_X86(x) NULL
#endif
#if defined(__aarch64__)
#include <sys/auxv.h>
#define ON_ARM(x) (x)
#else
#define ON_ARM(x) NULL
#endif

/* Best first. A name is known on every machine, so that a cap means the same everywhere; a set that this build lacks is NULL. Where
 * the CPU has one of the slow flags, a set that fits is taken only when it is named: a later one is faster. */
static const struct {
    const char *name;
    const ca_kern *kern;
    uint32_t slow_flags;
    const char *why_slow;
} sets[] = {
    { "amxbf16", ON_X86(&ca_kern_amxbf16), 0, "" },
    { "avx512bf16", ON_X86(&ca_kern_avx512bf16), CA_CPU_SLOW_BF16, "this CPU runs its vdpbf16ps at half the rate of fma" },
    { "avx512mixed", ON_X86(&ca_kern_avx512mixed), 0, "" },
    { "avx512", ON_X86(&ca_kern_avx512), 0, "" },
    { "avx2mixed", ON_X86(&ca_kern_avx2mixed), 0, "" },
    { "avx2", ON_X86(&ca_kern_avx2), 0, "" },
    { "neonbf16", ON_ARM(&ca_kern_neonbf16), 0, "" },
    { "neonmixed", ON_ARM(&ca_kern_neonmixed), 0, "" },
    { "neon", ON_ARM(&ca_kern_neon), 0, "" },
    { "scalar", &ca_kern_scalar, 0, "" },
};
enum { N_SETS = sizeof sets / sizeof sets[0] };
_Static_assert((int)N_SETS <= (int)CA_KERN_REPORTS, "every set has a report");

static const struct {
    uint32_t bit;
    const char *name;
} flags[] = {
    { CA_CPU_AVX2_FMA, "avx2+fma" }, { CA_CPU_AVX512, "avx512f+bw+dq+vl" }, { CA_CPU_AVX512_BF16, "avx512_bf16" },
    { CA_CPU_NEON, "asimd" },        { CA_CPU_NEON_BF16, "bf16" },          { CA_CPU_AVX512_VNNI, "avx512_vnni" },
    { CA_CPU_NEON_DOT, "asimddp" },  { CA_CPU_AMX_BF16, "amx_bf16" },       { CA_CPU_AMX_INT8, "amx_int8" },
    { CA_CPU_AVX_VNNI, "avx_vnni" }, { CA_CPU_NEON_I8MM, "i8mm" },
};
enum { N_FLAGS = sizeof flags / sizeof flags[0] };

#if defined(__x86_64__) && defined(__linux__)
/* Linux gives tiles to a process that asks for them; then all its threads have them. */
static bool have_tiles(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static uint32_t tile_features(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & (1U << 24)) || !have_tiles()) return 0;
    return ((d & (1U << 22)) != 0 ? CA_CPU_AMX_BF16 : 0U) | ((d & (1U << 25)) != 0 ? CA_CPU_AMX_INT8 : 0U);
}
#else
#define tile_features() 0U
#endif

#if defined(__x86_64__)
/* Intel's cores since Golden Cove (the first with half-precision AVX-512) start a vdpbf16ps every second cycle and two fma in each:
 * their bf16 products are meant for AMX, which a virtual machine may lack. */
static bool slow_bf16(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0, vendor = 0;
    return __get_cpuid(0, &a, &vendor, &c, &d) && vendor == signature_INTEL_ebx && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           (d & (1U << 23));
}
#endif

uint32_t ca_cpu_features(void)
{
    uint32_t f = 0;
#if defined(__x86_64__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    __builtin_cpu_init(); /* checks that the system saves the registers, too */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C))
        f |= CA_CPU_AVX2_FMA;
    if ((f & CA_CPU_AVX2_FMA) && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1U << 4))) f |= CA_CPU_AVX_VNNI;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        f |= CA_CPU_AVX512;
        if (__builtin_cpu_supports("avx512vnni")) f |= CA_CPU_AVX512_VNNI;
        if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1U << 5)))
            f |= CA_CPU_AVX512_BF16 | (slow_bf16() ? CA_CPU_SLOW_BF16 : 0U);
        f |= tile_features();
    }
#elif defined(__aarch64__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMD) f |= CA_CPU_NEON;
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) f |= CA_CPU_NEON_DOT;
    if (getauxval(AT_HWCAP2) & HWCAP2_BF16) f |= CA_CPU_NEON_BF16;
    if (getauxval(AT_HWCAP2) & HWCAP2_I8MM) f |= CA_CPU_NEON_I8MM;
#endif
    return f;
}

static bool is_auto(const char *isa)
{
    return !isa || strcmp(isa, "auto") == 0;
}

/* Index in sets of the cap, or N_SETS for an unknown name. */
static size_t first_allowed(const char *isa)
{
    size_t i = 0;
    if (is_auto(isa)) return 0;
    while (i < N_SETS && strcmp(isa, sets[i].name) != 0) i++;
    return i;
}

static bool fits(size_t i, uint32_t features)
{
    return sets[i].kern && (sets[i].kern->cpu_flags & ~features) == 0;
}

static bool takes(const char *isa, size_t i, uint32_t features)
{
    return fits(i, features) && !(is_auto(isa) && (sets[i].slow_flags & features) != 0);
}

ca_status ca_kern_choose(const char *isa, const ca_kern **out)
{
    const size_t first = first_allowed(isa);
    if (first == N_SETS)
        return ca_fail(CA_E_ARG, "unknown instruction set '%s': see `compactattn doctor` for those there are", isa);
    const uint32_t features = ca_cpu_features();
    if (!is_auto(isa) && !fits(first, features))
        return ca_fail(CA_E_UNSUPPORTED, "this CPU or build cannot run '%s': see `compactattn doctor`", isa);
    for (size_t i = first; i < N_SETS; i++)
        if (takes(isa, i, features)) {
            *out = sets[i].kern;
            return CA_OK;
        }
    return ca_fail(CA_E_UNSUPPORTED, "no kernel set fits this CPU");
}

size_t ca_kern_reports(const char *isa, ca_kern_report *out, size_t max)
{
    const uint32_t features = ca_cpu_features();
    const size_t first = first_allowed(isa);
    bool found = !is_auto(isa) && (first == N_SETS || !fits(first, features)); /* ca_kern_choose refuses such a cap */
    for (size_t i = 0; i < N_SETS && i < max; i++) {
        ca_kern_report *r = &out[i];
        *r = (ca_kern_report){ .name = sets[i].name, .usable = fits(i, features) };
        r->chosen = !found && i >= first && takes(isa, i, features);
        found = found || r->chosen;
        if (r->chosen) continue;
        if (!sets[i].kern) {
            (void)snprintf(r->why, sizeof r->why, "not in a build for this processor");
        } else if (!r->usable) {
            size_t at = (size_t)snprintf(r->why, sizeof r->why, "the CPU or the system lacks");
            for (size_t f = 0; f < N_FLAGS; f++)
                if (sets[i].kern->cpu_flags & ~features & flags[f].bit)
                    at += (size_t)snprintf(r->why + at, sizeof r->why - at, " %s", flags[f].name);
        } else if (i < first) {
            (void)snprintf(r->why, sizeof r->why, "above the cap '%s'", isa);
        } else if (!found) {
            (void)snprintf(r->why, sizeof r->why, "%s", sets[i].why_slow);
        } else {
            (void)snprintf(r->why, sizeof r->why, "a better one fits");
        }
    }
    return N_SETS;
}

const char *ca_kern_name(const ca_kern *kern)
{
    return kern->name;
}

ca_dtype ca_kern_dtype(const ca_kern *kern)
{
    return kern->type;
}

ca_dtype ca_kern_flow_dtype(const ca_kern *kern)
{
    return kern->flow;
}

void ca_cpu_name(char *buf, size_t len)
{
    char brand[49] = "unknown CPU";
#if defined(__x86_64__)
    unsigned regs[12];
    if ((unsigned)__get_cpuid_max(0x80000000U, NULL) >= 0x80000004U) {
        for (unsigned i = 0; i < 3; i++)
            (void)__get_cpuid(0x80000002U + i, &regs[i * 4], &regs[i * 4 + 1], &regs[i * 4 + 2], &regs[i * 4 + 3]);
        memcpy(brand, regs, 48);
        brand[48] = 0;
    }
#endif
    size_t n = strlen(brand);
    while (n > 0 && brand[n - 1] == ' ') brand[--n] = 0;
    (void)snprintf(buf, len, "%s", brand);
}

void ca_cpu_flags(char *buf, size_t len)
{
    const uint32_t features = ca_cpu_features();
    size_t at = 0;
    if (len > 0) buf[0] = 0;
    for (size_t f = 0; f < N_FLAGS; f++)
        if ((features & flags[f].bit) && at < len) at += (size_t)snprintf(buf + at, len - at, "%s%s", at ? " " : "", flags[f].name);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double ca_kern_peak_gflops(const ca_kern *kern, int n_threads, int rounds)
{
    /* Enough iterations for about a millisecond on one thread. */
    uint64_t iters = 1000;
    for (double s = 0; s < 1e-3 && iters < (UINT64_C(1) << 40); iters *= 2) {
        const double t = now();
        (void)kern->peak(iters);
        s = now() - t;
        if (s >= 1e-3) break;
    }
    double best = 0;
    for (int i = 0; i < rounds; i++) {
        double flops = 0, t0 = 0, t1 = 0;
#pragma omp parallel num_threads(n_threads) reduction(+ : flops)
        {
#pragma omp barrier
#pragma omp master
            t0 = now();
            flops += kern->peak(iters * 4);
#pragma omp barrier
#pragma omp master
            t1 = now();
        }
        const double g = flops / (t1 - t0) * 1e-9;
        if (g > best) best = g;
    }
    return best;
}
