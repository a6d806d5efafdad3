/* Integer products against their definition in double precision (kern/int8.h), for every kernel set and every implementation, over
 * shapes where nothing divides; all implementations give the same bits, whatever the threads and the rows beside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include <compactattn/cpu.h>

#include "base/arith.h"
#include "model/gemm_int8.h"

static const struct product_case {
    uint32_t m, k, n;
    const char *covers;
} cases[] = {
    { 1, 576, 960, "decode" },
    { 1, 1, 1, "smallest" },
    { 3, 5, 63, "an inner dimension that pads" },
    { 8, 512, 64, "one group, one panel" },
    { 7, 513, 65, "one past a group and a panel" },
    { 5, 1030, 130, "several groups, the last one shorter" },
    { 3, 65, 64, "one past a block that is turned" },
    { 195, 100, 129, "one past a unit of rows" },
    { 400, 192, 64, "several units, none whole" },
    { 77, 640, 100, "whole inner steps of tiles, rows and columns that are not" },
};
enum { N_CASES = sizeof cases / sizeof *cases, MAX_SETS = 16, STEPS = 127 };

/* Values in (-1, 1); the same sequence in every run. */
static float next_value(uint32_t *state)
{
    *state = *state * 1664525U + 1013904223U;
    return (float)(int32_t)*state * 0x1p-31F;
}

static void *take(size_t bytes)
{
    void *p = aligned_alloc(64, ca_align_up(bytes, 64));
    assert_non_null(p);
    return p;
}

/* Rows by definition. near: a step where a value lies so close to the middle between two integers that fp32 may take the other one. */
typedef struct cut {
    double *value, *near;
} cut;

/* y[i] = sum over j of (-1)^(bits that i and j share) x[j] / 8 in every whole block of 64. */
static void turn(const float *x, uint32_t n, double *y)
{
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t block = i / 64 * 64;
        const bool whole = block + 64 <= n;
        y[i] = whole ? 0.0 : (double)x[i];
        for (uint32_t j = block; whole && j < block + 64; j++)
            y[i] += (__builtin_parity((i - block) & (j - block)) ? -1.0 : 1.0) * (double)x[j] / 8.0;
    }
}

static cut cut_rows(const float *x, uint32_t m, uint32_t k)
{
    const size_t bytes = (size_t)m * k * sizeof(double);
    cut c = { take(bytes), take(bytes) };
    for (uint32_t i = 0; i < m; i++) {
        for (uint32_t at = 0; at < k; at += ca_int8_group(k)) {
            const uint32_t n = ca_min_u32(ca_int8_group(k), k - at);
            const size_t first = (size_t)i * k + at;
            double top = 0.0;
            turn(x + first, n, c.value + first);
            for (size_t p = first; p < first + n; p++) top = fmax(top, fabs(c.value[p]));
            for (size_t p = first; p < first + n; p++) {
                const double q = top > 0.0 ? c.value[p] / top * STEPS : 0.0;
                c.value[p] = nearbyint(q) * top / STEPS;
                c.near[p] = fabs(fabs(q - nearbyint(q)) - 0.5) < 2e-4 ? top / STEPS : 0.0;
            }
        }
    }
    return c;
}

static void free_cut(cut c)
{
    free(c.value);
    free(c.near);
}

static void check(const struct product_case *p, const char *who, cut a, cut w, float before, const float *got)
{
    for (uint32_t i = 0; i < p->m; i++)
        for (uint32_t j = 0; j < p->n; j++) {
            double sum = (double)before, bound = 0.0, size = 1.0;
            for (size_t x = (size_t)i * p->k, y = (size_t)j * p->k; x < (size_t)(i + 1) * p->k; x++, y++) {
                sum += a.value[x] * w.value[y];
                size += fabs(a.value[x] * w.value[y]);
                bound += a.near[x] * fabs(w.value[y]) + w.near[y] * fabs(a.value[x]) + a.near[x] * w.near[y];
            }
            bound += size * 0x1p-19;
            const double value = (double)got[(size_t)i * p->n + j];
            if (!(fabs(value - sum) <= bound))
                fail_msg("m %u k %u n %u (%s, %s): [%u][%u] is %.9g, expected %.9g +- %.2g", p->m, p->k, p->n, p->covers, who, i, j,
                         value, sum, bound);
        }
}

static const ca_kern *kern_of(const char *isa)
{
    const ca_kern *kern = NULL;
    assert_int_equal(ca_kern_choose(isa, &kern), CA_OK);
    return kern;
}

/* All implementations with one set's rounding: near the definition, and the same bits. */
static void run_case(const ca_kern *kern, const struct product_case *p)
{
    const size_t a_len = (size_t)p->m * p->k, w_len = (size_t)p->n * p->k, c_len = (size_t)p->m * p->n;
    const bool bf16 = ca_kern_flow_dtype(kern) == CA_BF16;
    float *a = take(a_len * 4), *w = take(w_len * 4), *out[2] = { take(c_len * 4), take(c_len * 4) }, *first = NULL;
    uint16_t *a16 = take(a_len * 2);
    void *scratch = take(ca_int8_scratch_bytes(p->k, p->m));
    uint32_t seed = p->m * 7919U + p->k * 31U + p->n;
    for (size_t i = 0; i < a_len; i++) {
        a[i] = next_value(&seed) * (i % 97 == 5 ? 9.0F : 1.0F);
        a16[i] = ca_f32_to_bf16(a[i]);
        if (bf16) a[i] = ca_bf16_to_f32(a16[i]);
    }
    for (size_t i = 0; i < w_len; i++) w[i] = next_value(&seed);
    const void *input = bf16 ? (const void *)a16 : (const void *)a;
    const cut ca = cut_rows(a, p->m, p->k), cw = cut_rows(w, p->n, p->k);

    ca_int8_weight weight;
    assert_int_equal(ca_int8_weight_create(p->k, p->n, &weight), CA_OK);
    const uint32_t half = p->n / 2;
    ca_int8_weight_pack(&weight, 0, half, w);
    ca_int8_weight_pack(&weight, half, p->n - half, w + (size_t)half * p->k);
    const ca_int8 *one = NULL;
    for (size_t i = 0; (one = ca_int8_at(i)) != NULL; i++) {
        for (size_t c = 0; c < c_len; c++) out[0][c] = NAN; /* plain products must not read C */
        for (size_t c = 0; c < c_len; c++) out[1][c] = 0.75F;
        ca_int8_weight_run(kern, one, &weight, input, p->m, out[0], false, scratch);
        ca_int8_weight_run(kern, one, &weight, input, p->m, out[1], true, scratch);
        if (i == 0) {
            check(p, one->name, ca, cw, 0.0F, out[0]);
            check(p, one->name, ca, cw, 0.75F, out[1]);
            first = take(2 * c_len * 4);
            memcpy(first, out[0], c_len * 4);
            memcpy(first + c_len, out[1], c_len * 4);
        }
        if (memcmp(first, out[0], c_len * 4) != 0 || memcmp(first + c_len, out[1], c_len * 4) != 0)
            fail_msg("m %u k %u n %u (%s): %s gives other bits", p->m, p->k, p->n, p->covers, one->name);
        const int threads = omp_get_max_threads();
        const uint32_t last = p->m - 1;
        omp_set_num_threads(1);
        ca_int8_weight_run(kern, one, &weight, (const unsigned char *)input + (size_t)last * p->k * (bf16 ? 2 : 4), 1, out[0],
                           false, scratch);
        omp_set_num_threads(threads);
        assert_memory_equal(out[0], first + (size_t)last * p->n, p->n * 4);
    }
    ca_int8_weight_destroy(&weight);
    free_cut(ca);
    free_cut(cw);
    void *const taken[] = { a, a16, w, out[0], out[1], first, scratch };
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) free(taken[i]);
}

static void test_definition(void **state)
{
    (void)state;
    ca_kern_report sets[MAX_SETS];
    const size_t n = ca_kern_reports(NULL, sets, MAX_SETS);
    for (size_t i = 0; ca_int8_at(i) != NULL; i++) print_message("%s\n", ca_int8_at(i)->name);
    for (size_t s = 0; s < n; s++)
        for (size_t i = 0; sets[s].usable && i < N_CASES; i++) run_case(kern_of(sets[s].name), &cases[i]);
}

/* Every number of rows up to three tiles. */
static void test_rows(void **state)
{
    (void)state;
    for (uint32_t m = 1; m <= 18; m++) run_case(kern_of("scalar"), &(struct product_case){ m, 30, 70, "rows" });
}

/* Zeros, values too small to divide by, infinities and NaN stay within their rows, their columns. */
static void test_odd_values(void **state)
{
    (void)state;
    enum { K = 40, N = 70, M = 8 };
    float w[N * K], a[M * K], out[M * N];
    for (size_t i = 0; i < N * K; i++) w[i] = 1.0F;
    for (size_t i = 0; i < M * K; i++) a[i] = 1.0F;
    for (size_t p = 0; p < K; p++) {
        a[1 * K + p] = 0.0F;
        a[2 * K + p] = 1e-38F;
        a[3 * K + p] = -127.0F;
        w[5 * K + p] = 0.0F;
    }
    a[4 * K + 7] = INFINITY;
    a[5 * K + 39] = NAN;
    w[66 * K + 3] = NAN;
    ca_int8_weight weight;
    void *scratch = take(ca_int8_scratch_bytes(K, M));
    assert_int_equal(ca_int8_weight_create(K, N, &weight), CA_OK);
    ca_int8_weight_pack(&weight, 0, N, w);
    const ca_kern *kern = kern_of("scalar");
    ca_int8_weight_run(kern, ca_int8_choose(kern), &weight, a, M, out, false, scratch);
    for (uint32_t i = 0; i < M; i++)
        for (uint32_t j = 0; j < N; j++) {
            const float v = out[i * N + j];
            if (i == 4 || i == 5 || j == 66)
                assert_true(isnan(v));
            else if (i == 1 || i == 2 || j == 5)
                assert_true(v == 0.0F);
            else
                assert_true(fabsf(v - (i == 3 ? -127.0F * K : (float)K)) <= 1e-5F * fabsf(v));
        }
    ca_int8_weight_destroy(&weight);
    free(scratch);
}

/* A cap of the kernels caps the integer products. */
static void test_choice(void **state)
{
    (void)state;
    assert_string_equal(ca_kern_int8_name(kern_of("scalar")), "portable");
    assert_ptr_equal(ca_int8_choose(kern_of(NULL)), ca_int8_at(0));
    const ca_kern *avx2 = NULL;
    if (ca_kern_choose("avx2", &avx2) == CA_OK) {
        const char *name = ca_kern_int8_name(avx2); /* AVX-VNNI where the CPU has it, but nothing of AVX-512 */
        assert_true(strcmp(name, "avx2") == 0 || strcmp(name, "avxvnni") == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_odd_values),
        cmocka_unit_test(test_choice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
