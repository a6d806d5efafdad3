/* The pieces between matrix products, of every kernel set, against double precision; and the list of kernel sets itself. */
#include "kern_list.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "kern/kern.h"

enum { MAX_N = 1536, CANARY = 0x5a };

/* Every tail of a vector, and the widths of a real model. */
static const size_t long_lengths[] = { 127, 576, 1536 };
enum { N_LENGTHS = 70 + sizeof long_lengths / sizeof *long_lengths };

static size_t length_of(size_t i)
{
    return i < 70 ? i + 1 : long_lengths[i - 70];
}

/* Output of a kernel: n elements of the set's type at an odd element, canaries around them. */
typedef struct output {
    union {
        float f32[MAX_N + 64];
        uint16_t bf16[MAX_N + 64];
        unsigned char bytes[4 * (MAX_N + 64)];
    } u;
    size_t elt;
} output;

static void *output_reset(output *o, const ca_kern *kern)
{
    o->elt = kern->flow == CA_BF16 ? 2 : 4;
    memset(&o->u, CANARY, sizeof o->u);
    return o->u.bytes + o->elt;
}

static float output_value(const output *o, size_t i)
{
    return o->elt == 2 ? ca_bf16_to_f32(o->u.bf16[i + 1]) : o->u.f32[i + 1];
}

static void check_canaries(const output *o, size_t n, const char *kern, const char *what)
{
    for (size_t i = 0; i < sizeof o->u; i++)
        if ((i < o->elt || i >= o->elt * (n + 1)) && o->u.bytes[i] != CANARY)
            fail_msg("%s %s of %zu values writes byte %zu", kern, what, n, i);
}

/* Within `relative` of want in fp32, then rounded once to the set's type (bf16: half a unit is up to 2^-8). */
static void check_values(const output *o, const double *want, const double *relative, size_t n, const char *kern, const char *what)
{
    check_canaries(o, n, kern, what);
    for (size_t i = 0; i < n; i++) {
        const double got = (double)output_value(o, i), bound = fabs(want[i]) * (relative[i] + (o->elt == 2 ? 0.00390625 : 0.0));
        if (!(fabs(got - want[i]) <= bound + 1e-36))
            fail_msg("%s %s of %zu values: value %zu is %.9g, not %.9g", kern, what, n, i, got, want[i]);
    }
}

static void rmsnorm(void **state)
{
    (void)state;
    static const float eps[] = { 1e-5F, 1.0F };
    const kern_list kerns = usable_kerns();
    for (size_t i = 0; i < kerns.n * N_LENGTHS; i++) {
        const ca_kern *kern = kerns.kern[i / N_LENGTHS];
        const size_t n = length_of(i % N_LENGTHS);
        float *x = random_values(n + 1, i % 3 ? 3.0F : 0.01F, i), *w = random_values(n + 1, 1.0F, i + 1);
        double want[MAX_N], relative[MAX_N], sum = 0.0;
        static output o;
        for (size_t j = 1; j <= n; j++) {
            x[j] *= 1.0037F; /* more bits than bf16 has */
            w[j] = w[j] * 1.0037F + 1.0F;
            sum += (double)x[j] * (double)x[j];
        }
        for (size_t j = 0; j < n; j++) {
            want[j] = (double)x[j + 1] / sqrt(sum / (double)n + (double)eps[i % 2]) * (double)w[j + 1];
            relative[j] = 3e-6; /* an fp32 sum of 1,536 squares, half of its error */
        }
        kern->rmsnorm(x + 1, w + 1, eps[i % 2], n, output_reset(&o, kern));
        check_values(&o, want, relative, n, kern->name, "rmsnorm");
        free(x);
        free(w);
    }
}

static void swiglu(void **state)
{
    (void)state;
    static const float special[] = { 0.0F, -0.0F, 80.0F, -80.0F, 1000.0F, -1000.0F, 1e30F, -1e30F, 1e-20F };
    const kern_list kerns = usable_kerns();
    for (size_t i = 0; i < kerns.n * N_LENGTHS; i++) {
        const ca_kern *kern = kerns.kern[i / N_LENGTHS];
        const size_t n = length_of(i % N_LENGTHS);
        float *gate = random_values(n + 1, 6.0F, i), *up = random_values(n + 1, 2.0F, i + 1);
        double want[MAX_N], relative[MAX_N];
        static output o;
        for (size_t j = 1; j <= n; j++) {
            gate[j] = (j + i) % 5 == 0 ? special[(j + i) / 5 % 9] : gate[j] * 1.0037F;
            up[j] *= 1.0037F;
        }
        for (size_t j = 0; j < n; j++) {
            const double g = (double)gate[j + 1];
            want[j] = g / (1.0 + exp(-g)) * (double)up[j + 1];
            relative[j] = 5e-7 + 1.2e-7 * fmin(fabs(g), 100.0); /* the exponent is rounded to 24 bits */
        }
        kern->swiglu(gate + 1, up + 1, n, output_reset(&o, kern));
        for (size_t j = 0; j < n; j++) { /* exp(-g) past the largest float may be taken for 2^127 */
            const double got = (double)output_value(&o, j);
            if (fabs(want[j]) < 1e-36 && fabs(got) <= 1e-38 * fabs((double)gate[j + 1] * (double)up[j + 1])) want[j] = got;
        }
        check_values(&o, want, relative, n, kern->name, "swiglu");
        free(gate);
        free(up);
    }
}

/* The exponent -2 u is rounded to 24 bits, like swiglu's; where it is below -80 the value is nearly 0 and only its size is checked. */
static void geglu(void **state)
{
    (void)state;
    static const float special[] = { 0.0F, -0.0F, 12.0F, -4.0F, 1000.0F, 1e9F, 3e-6F, -1e-20F };
    const kern_list kerns = usable_kerns();
    for (size_t i = 0; i < kerns.n * N_LENGTHS; i++) {
        const ca_kern *kern = kerns.kern[i / N_LENGTHS];
        const size_t n = length_of(i % N_LENGTHS);
        float *gate = random_values(n + 1, 6.0F, i), *up = random_values(n + 1, 2.0F, i + 1);
        double want[MAX_N], relative[MAX_N];
        static output o;
        for (size_t j = 1; j <= n; j++)
            if ((j + i) % 5 == 0) gate[j] = special[(j + i) / 5 % 8];
        for (size_t j = 0; j < n; j++) {
            const double g = (double)gate[j + 1], u = sqrt(2.0 / 3.14159265358979324) * (g + 0.044715 * g * g * g);
            want[j] = g / (1.0 + exp(-2.0 * u)) * (double)up[j + 1];
            relative[j] = 5e-7 + 2.4e-7 * fmin(fabs(2.0 * u), 100.0);
        }
        kern->geglu(gate + 1, up + 1, n, output_reset(&o, kern));
        for (size_t j = 0; j < n; j++) {
            const double got = (double)output_value(&o, j);
            if (fabs(want[j]) < 1e-34 && fabs(got) < 1e-33) want[j] = got;
        }
        check_values(&o, want, relative, n, kern->name, "geglu");
        free(gate);
        free(up);
    }
    float gate[35], up[35];
    static output o;
    for (size_t i = 0; i < kerns.n; i++) {
        for (size_t j = 0; j < 35; j++) {
            gate[j] = j % 3 == 0 ? NAN : j % 3 == 1 ? INFINITY : -50.0F;
            up[j] = 1.0F;
        }
        kerns.kern[i]->geglu(gate, up, 35, output_reset(&o, kerns.kern[i]));
        for (size_t j = 0; j < 35; j++) {
            const float got = output_value(&o, j);
            if (j % 3 == 0 ? !isnan(got) : j % 3 == 1 ? got != INFINITY : !(fabsf(got) < 1e-30F))
                fail_msg("%s geglu: gate %g at %zu gives %g", kerns.kern[i]->name, (double)gate[j], j, (double)got);
        }
    }
}

/* Infinite gates and NaN go through, in vectors and in tails. */
static void swiglu_not_finite(void **state)
{
    (void)state;
    const kern_list kerns = usable_kerns();
    for (size_t i = 0; i < kerns.n * 35; i++) {
        const ca_kern *kern = kerns.kern[i / 35];
        float gate[35], up[35];
        const size_t n = i % 35 + 1;
        static output o;
        for (size_t j = 0; j < n; j++) {
            gate[j] = j % 2 ? NAN : INFINITY;
            up[j] = j % 4 ? 0.5F : -0.5F;
        }
        kern->swiglu(gate, up, n, output_reset(&o, kern));
        for (size_t j = 0; j < n; j++) {
            const float got = output_value(&o, j), want = j % 4 ? INFINITY : -INFINITY;
            if (j % 2 ? !isnan(got) : got != want)
                fail_msg("%s swiglu of %zu values: gate %g at %zu gives %g", kern->name, n, (double)gate[j], j, (double)got);
        }
    }
}

static void rope(void **state)
{
    (void)state;
    const kern_list kerns = usable_kerns();
    for (size_t i = 0; i < kerns.n * 16 * 3; i++) {
        const ca_kern *kern = kerns.kern[i / 48];
        const uint32_t dim = (uint32_t)(i % 16 + 1) * 16, half = dim / 2, n_heads = (uint32_t)(i / 16 % 3) * 4 + 1;
        const size_t n = (size_t)n_heads * dim;
        float *x = random_values(n + 2, 2.0F, i), *before = malloc((n + 2) * sizeof *before), cos_sin[256];
        for (size_t j = 0; j < n + 2; j++) x[j] *= 1.0037F;
        memcpy(before, x, (n + 2) * sizeof *x);
        for (uint32_t d = 0; d < half; d++) {
            const double angle = 3.7 + 11.0 * d;
            cos_sin[d] = (float)cos(angle);
            cos_sin[half + d] = (float)sin(angle);
        }
        kern->rope(x + 1, n_heads, dim, cos_sin);
        for (size_t j = 0; j < n; j++) {
            const size_t d = j % dim, low = j - d + d % half + 1;
            const double c = (double)cos_sin[d % half], s = (double)cos_sin[half + d % half];
            const double a = (double)before[low], b = (double)before[low + half];
            const double want = d < half ? a * c - b * s : b * c + a * s;
            const double bound = 2e-7 * (d < half ? fabs(a * c) + fabs(b * s) : fabs(b * c) + fabs(a * s)); /* three roundings */
            if (!(fabs((double)x[j + 1] - want) <= bound))
                fail_msg("%s rope, %u heads of %u: value %zu is %.9g, not %.9g", kern->name, n_heads, dim, j, (double)x[j + 1],
                         want);
        }
        assert_memory_equal(&x[0], &before[0], 4);
        assert_memory_equal(&x[n + 1], &before[n + 1], 4);
        free(x);
        free(before);
    }
}

static float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

/* The nearest of the two bf16 values around x, the even one in the middle. Infinity is one step above the largest. */
static uint32_t nearest_bf16(float x)
{
    const uint32_t low = bits_of(x) >> 16, rest = bits_of(x) & 0xffffU;
    return rest > 0x8000U || (rest == 0x8000U && low % 2 == 1) ? low + 1 : low;
}

static const uint32_t special_bits[] = {
    0x00000000U, 0x80000000U,                           /* zeros */
    0x7f800000U, 0xff800000U,                           /* infinities */
    0x7fc00000U, 0xffc00001U, 0x7f800001U, 0xff80ffffU, /* NaNs, quiet and signaling, payload in the low half only */
    0x7f7fffffU, 0xff7fffffU, 0x7f7f7fffU,              /* the largest floats, above and below the last bf16 */
    0x3f808000U, 0x3f818000U, 0xbf808000U, 0xbf818000U, /* ties: to even */
    0x3f808001U, 0x3f807fffU,                           /* just beside a tie */
    0x3fffffffU, 0x00800000U, 0x00ffffffU,              /* carry into the exponent, smallest normals */
};
enum { N_SPECIAL = sizeof special_bits / sizeof *special_bits };

static void convert(void **state)
{
    (void)state;
    const kern_list kerns = usable_kerns();
    for (size_t i = 0; i < kerns.n * N_LENGTHS; i++) {
        const ca_kern *kern = kerns.kern[i / N_LENGTHS];
        const size_t n = length_of(i % N_LENGTHS);
        float *x = malloc((n + 1) * sizeof *x);
        uint64_t seed = i;
        static output o;
        for (size_t j = 1; j <= n; j++) {
            const uint64_t r = mix64(&seed); /* any finite number but subnormal ones: hardware flushes those to zero */
            const uint32_t any = ((uint32_t)r & 0x807fffffU) | ((uint32_t)(r >> 32) % 254 + 1) << 23;
            x[j] = from_bits((j + i) % 3 == 0 ? special_bits[(j + i) / 3 % N_SPECIAL] : any);
        }
        kern->convert(x + 1, n, output_reset(&o, kern));
        check_canaries(&o, n, kern->name, "convert");
        for (size_t j = 0; j < n; j++) {
            const float got = output_value(&o, j);
            const uint32_t want = kern->flow == CA_BF16 ? nearest_bf16(x[j + 1]) << 16 : bits_of(x[j + 1]);
            if (isnan(x[j + 1]) && kern->flow == CA_BF16 ? !isnan(got) : bits_of(got) != want)
                fail_msg("%s convert of %zu values: %08x at %zu becomes %08x", kern->name, n, bits_of(x[j + 1]), j, bits_of(got));
        }
        free(x);
    }
}

/* One choice, the best that is usable below the cap, and a reason for every other. */
static void check_reports(const char *cap, size_t first)
{
    ca_kern_report r[CA_KERN_REPORTS];
    const ca_kern *kern = NULL;
    const size_t n = ca_kern_reports(cap, r, CA_KERN_REPORTS);
    const ca_status st = ca_kern_choose(cap, &kern);
    size_t n_chosen = 0;
    bool better = false;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(r[i].chosen, r[i].why[0] == 0);
        if (r[i].chosen) {
            if (i < first || !r[i].usable || better) fail_msg("cap %s: '%s' is chosen", cap ? cap : "NULL", r[i].name);
            assert_int_equal(st, CA_OK);
            assert_string_equal(ca_kern_name(kern), r[i].name);
            n_chosen++;
        }
        const bool slow = r[i].usable && strstr(r[i].why, "half the rate");
        if (slow && (first > 0 || strcmp(r[i].name, "avx512bf16") != 0)) fail_msg("cap %s: '%s' is slow", cap, r[i].name);
        better = better || (i >= first && r[i].usable && !slow);
    }
    assert_int_equal(n_chosen, st == CA_OK);
}

static bool cpuinfo_has(const char *word)
{
    FILE *in = fopen("/proc/cpuinfo", "r");
    char line[8192];
    bool found = false;
    while (in && !found && fgets(line, sizeof line, in)) found = strstr(line, word) != NULL;
    if (in) (void)fclose(in);
    return found;
}

static void choosing(void **state)
{
    (void)state;
    static const char *const names[] = { "amxbf16", "avx512bf16", "avx512mixed", "avx512", "avx2mixed",
                                         "avx2",    "neonbf16",   "neonmixed",   "neon",   "scalar" };
    enum { N_NAMES = sizeof names / sizeof *names };
    ca_kern_report r[CA_KERN_REPORTS];
    const size_t n = ca_kern_reports(NULL, r, CA_KERN_REPORTS);
    assert_int_equal(n, N_NAMES);
    check_reports(NULL, 0);
    check_reports("auto", 0);
    for (size_t i = 0; i < n; i++) {
        const ca_kern *kern = NULL;
        assert_string_equal(r[i].name, names[i]);
        check_reports(names[i], i);
        const ca_status st = ca_kern_choose(names[i], &kern);
        assert_int_equal(st, r[i].usable ? CA_OK : CA_E_UNSUPPORTED);
        if (st != CA_OK) continue;
        assert_string_equal(ca_kern_name(kern), names[i]);
        assert_int_equal(ca_kern_dtype(kern), strstr(names[i], "bf16") || strstr(names[i], "mixed") ? CA_BF16 : CA_F32);
        assert_int_equal(ca_kern_flow_dtype(kern), strstr(names[i], "bf16") ? CA_BF16 : CA_F32);
    }
    assert_true(r[n - 1].usable); /* the reference runs everywhere */

    const ca_kern *kern = NULL;
    const char *best = getenv("CA_TEST_BEST_ISA"); /* where the CPU is known, the set that must be chosen */
    if (best) {
        must(ca_kern_choose(NULL, &kern), "best");
        assert_string_equal(ca_kern_name(kern), best);
        kern = NULL;
    }
    /* Passed over where it is slow, and there only; by its name it runs all the same. */
    const bool slow = (ca_cpu_features() & CA_CPU_SLOW_BF16) != 0;
    if (ca_kern_choose("avx512bf16", &kern) == CA_OK) {
        assert_string_equal(ca_kern_name(kern), "avx512bf16");
        assert_int_equal(cpuinfo_has("GenuineIntel") && cpuinfo_has("avx512_fp16"), slow);
        must(ca_kern_choose("auto", &kern), "auto");
        if (!r[0].usable) assert_string_equal(ca_kern_name(kern), slow ? "avx512mixed" : "avx512bf16");
        kern = NULL;
    }
    static const char *const unknown[] = { "sse9", "", "AVX2", "avx51" };
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(ca_kern_choose(unknown[i], &kern), CA_E_ARG);
        assert_non_null(strstr(ca_last_error(), unknown[i]));
        assert_null(kern);
        check_reports(unknown[i], n);
    }
    memset(r, CANARY, sizeof r); /* writes no more than is asked for, and still counts all */
    assert_int_equal(ca_kern_reports(NULL, r, 1), N_NAMES);
    for (size_t i = 0; i < sizeof r[1]; i++) assert_int_equal(((const unsigned char *)&r[1])[i], CANARY);
}

static void peaks(void **state)
{
    (void)state;
    const kern_list kerns = usable_kerns();
    for (size_t i = 0; i < kerns.n; i++) {
        const double flops = kerns.kern[i]->peak(1000);
        assert_true(flops >= 1000.0);
        assert_true(kerns.kern[i]->peak(3000) == 3.0 * flops);
        for (int threads = 1; threads <= 2; threads++) {
            const double peak = ca_kern_peak_gflops(kerns.kern[i], threads, 2);
            if (!(peak > 0.01 && peak < 1e6)) fail_msg("%s peak with %d threads: %g GFLOP/s", kerns.kern[i]->name, threads, peak);
        }
    }
}

static void bandwidth(void **state)
{
    (void)state;
    double rate = -1;
    for (int threads = 1; threads <= 2; threads++) {
        assert_int_equal(ca_memory_bandwidth(threads, 2, &rate), CA_OK);
        if (!(rate > 0.01 && rate < 1e5)) fail_msg("%d threads read %g GB/s", threads, rate);
    }
    rate = -1;
    assert_int_equal(ca_memory_bandwidth(0, 2, &rate), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "0 threads"));
    assert_int_equal(ca_memory_bandwidth(1, 0, &rate), CA_E_ARG);
    assert_true(rate == -1);
}

static void cpu_text(void **state)
{
    (void)state;
    char text[256], small[4];
    ca_cpu_name(text, sizeof text);
    assert_true(strlen(text) > 0 && strlen(text) < sizeof text - 1);
    ca_cpu_name(small, sizeof small);
    assert_true(strlen(small) < sizeof small && strncmp(small, text, strlen(small)) == 0);
    ca_cpu_flags(text, sizeof text);
    ca_kern_report r[CA_KERN_REPORTS];
    (void)ca_kern_reports(NULL, r, CA_KERN_REPORTS);
    static const char *const needed[] = { "amx_bf16", "avx512_bf16", "avx512f", "avx512f", "avx2",
                                          "avx2",     "asimd bf16",  "asimd",   "asimd" };
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) assert_int_equal(strstr(text, needed[i]) != NULL, r[i].usable);
    ca_cpu_flags(small, sizeof small);
    assert_true(strlen(small) < sizeof small && strncmp(small, text, strlen(small)) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rmsnorm),  cmocka_unit_test(swiglu),    cmocka_unit_test(geglu),    cmocka_unit_test(swiglu_not_finite),
        cmocka_unit_test(rope),     cmocka_unit_test(convert),   cmocka_unit_test(choosing), cmocka_unit_test(peaks),
        cmocka_unit_test(cpu_text), cmocka_unit_test(bandwidth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
