/* Packed matrix products against sums in double precision, over shapes where nothing divides; those on integers against their own
 * definition, too, and one implementation against the other. */
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

static const struct gemm_case {
    uint32_t m, k, n;
    const char *covers;
} cases[] = {
    { 1, 576, 960, "decode" },
    { 1, 1536, 576, "decode, long sum" },
    { 1, 1, 1, "smallest" },
    { 2, 7, 5, "odd sum length" },
    { 7, 33, 65, "one past every block" },
    { 33, 100, 193, "one past a packing panel's multiple" },
    { 64, 576, 1000, "several packing panels, last one short" },
    { 129, 48, 17, "nothing divides" },
    { 300, 192, 320, "more rows than one block" },
};

/* Values in (-1, 1); the same sequence in every run. */
static float next_value(uint32_t *state)
{
    *state = *state * 1664525U + 1013904223U;
    return (float)(int32_t)*state * 0x1p-31F;
}

static float round_to(ca_dtype type, float v)
{
    return type == CA_BF16 ? ca_bf16_to_f32(ca_f32_to_bf16(v)) : v;
}

typedef struct matrix {
    const float *rows;
    uint32_t k;
} matrix;

static void give_rows(const void *user, uint32_t first, uint32_t count, float *out)
{
    const matrix *w = user;
    memcpy(out, w->rows + (size_t)first * w->k, (size_t)count * w->k * sizeof *out);
}

/* |error| <= (k + 3) * 2^-24 * sum |a b|: the bound of any order of k fp32 additions, plus one for the sum into C. */
static void check_products(const struct gemm_case *c, ca_dtype type, const float *a, const float *w, float before, const float *got)
{
    for (uint32_t i = 0; i < c->m; i++) {
        for (uint32_t j = 0; j < c->n; j++) {
            double sum = (double)before;
            double size = fabs(sum);
            for (uint32_t p = 0; p < c->k; p++) {
                const double term = (double)a[(size_t)i * c->k + p] * (double)round_to(type, w[(size_t)j * c->k + p]);
                sum += term;
                size += fabs(term);
            }
            const double value = (double)got[(size_t)i * c->n + j];
            const double bound = ((double)c->k + 3.0) * 0x1p-24 * size;
            if (!(fabs(value - sum) <= bound))
                fail_msg("m %u k %u n %u %s (%s): [%u][%u] is %.9g, expected %.9g +- %.2g", c->m, c->k, c->n,
                         type == CA_BF16 ? "bf16" : "f32", c->covers, i, j, value, sum, bound);
        }
    }
}

static void run_case(const ca_gemm_engine *engine, ca_dtype type, const struct gemm_case *c)
{
    const size_t a_len = (size_t)c->m * c->k;
    const size_t w_len = (size_t)c->n * c->k;
    const size_t c_len = (size_t)c->m * c->n;
    float *a = malloc(a_len * sizeof *a);
    uint16_t *a16 = malloc(a_len * sizeof *a16);
    float *w = malloc(w_len * sizeof *w);
    float *out = malloc(c_len * sizeof *out);
    assert_true(a != NULL && a16 != NULL && w != NULL && out != NULL);
    uint32_t state = c->m * 7919U + c->k * 31U + c->n;
    for (size_t i = 0; i < a_len; i++) {
        a[i] = round_to(type, next_value(&state));
        a16[i] = ca_f32_to_bf16(a[i]);
    }
    for (size_t i = 0; i < w_len; i++) w[i] = next_value(&state);

    ca_gemm_weight *weight = NULL;
    ca_gemm_runner *runner = NULL;
    const matrix rows = { w, c->k };
    const ca_gemm_source source = { &rows, give_rows };
    assert_int_equal(ca_gemm_pack(engine, false, c->k, c->n, &source, &weight), CA_OK);
    assert_int_equal(ca_gemm_runner_create(engine, &runner), CA_OK);
    assert_true(ca_gemm_weight_bytes(weight) >= w_len * (type == CA_BF16 ? 2 : 4));
    const void *input = type == CA_BF16 ? (const void *)a16 : (const void *)a;

    for (size_t i = 0; i < c_len; i++) out[i] = NAN; /* plain products must not read C */
    assert_int_equal(ca_gemm_run(runner, weight, input, c->m, out, false), CA_OK);
    check_products(c, type, a, w, 0.0F, out);
    for (size_t i = 0; i < c_len; i++) out[i] = 0.75F;
    assert_int_equal(ca_gemm_run(runner, weight, input, c->m, out, true), CA_OK);
    check_products(c, type, a, w, 0.75F, out);
    assert_true(ca_gemm_counted(runner).flop == 4.0 * c->m * c->k * c->n);

    ca_gemm_runner_destroy(runner);
    ca_gemm_weight_destroy(weight);
    free(out);
    free(w);
    free(a16);
    free(a);
}

static const ca_kern *kern_of(const char *isa)
{
    const ca_kern *kern = NULL;
    assert_int_equal(ca_kern_choose(isa, &kern), CA_OK);
    return kern;
}

static void products_equal_double_sums(const ca_kern *kern)
{
    const ca_dtype type = ca_kern_dtype(kern);
    ca_gemm_engine *engine = NULL;
    assert_int_equal(ca_gemm_engine_create(kern, &engine), CA_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) run_case(engine, type, &cases[i]);
    ca_gemm_engine_destroy(engine);
}

static void test_f32(void **state)
{
    (void)state;
    products_equal_double_sums(kern_of("scalar"));
}

static void test_bf16(void **state)
{
    (void)state;
    const ca_kern *kern = kern_of(NULL);
    if (ca_kern_dtype(kern) != CA_BF16) skip(); /* this CPU has no bf16 products, and none are asked for there */
    products_equal_double_sums(kern);
}

/* ---- int8 ---- */

static const struct gemm_case int8_cases[] = {
    { 1, 576, 960, "decode" },
    { 1, 1, 1, "smallest" },
    { 3, 5, 63, "an inner dimension that pads" },
    { 8, 512, 64, "one group, one panel" },
    { 7, 513, 65, "one past a group and a panel" },
    { 5, 1030, 130, "several groups, the last one shorter" },
    { 3, 65, 64, "one past a block that is turned" },
    { 195, 100, 129, "one past a unit of rows" },
    { 400, 576, 64, "several units, none whole" },
};

/* A of a set's type. */
typedef struct input {
    float *f32; /* its values */
    void *data; /* as the set takes them */
} input;

static input make_input(ca_dtype type, size_t n, uint32_t seed)
{
    input in = { malloc(n * sizeof *in.f32), malloc(n * 4) };
    assert_true(in.f32 != NULL && in.data != NULL);
    for (size_t i = 0; i < n; i++) {
        in.f32[i] = round_to(type, next_value(&seed) * (i % 97 == 5 ? 9.0F : 1.0F));
        if (type == CA_BF16)
            ((uint16_t *)in.data)[i] = ca_f32_to_bf16(in.f32[i]);
        else
            ((float *)in.data)[i] = in.f32[i];
    }
    return in;
}

static void free_input(input in)
{
    free(in.f32);
    free(in.data);
}

/* A group as both sides are turned: y[i] = sum over j of (-1)^(bits that i and j share) x[j] / 8 in every whole block of 64. */
static void turn(const float *x, uint32_t n, double *y)
{
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t block = i / 64 * 64;
        y[i] = block + 64 <= n ? 0.0 : (double)x[i];
        for (uint32_t j = block; j < block + 64 && block + 64 <= n; j++)
            y[i] += (__builtin_parity((i - block) & (j - block)) ? -1.0 : 1.0) * (double)x[j] / 8.0;
    }
}

static double largest(const double *x, size_t n)
{
    double top = 0.0;
    for (size_t i = 0; i < n; i++) top = fmax(top, fabs(x[i]));
    return top;
}

/* One element by the definition in int8.h, in double precision. loose: where a value lies so near to the middle between two integers
 * that fp32 may take the other one, half a step is allowed to it. */
static double int8_element(const float *a, const float *w, uint32_t k, double *loose)
{
    const uint32_t width = ca_int8_group(k);
    double sum = 0.0;
    *loose = 0.0;
    for (uint32_t at = 0; at < k; at += width) {
        const uint32_t n = ca_min_u32(width, k - at);
        double ta[CA_INT8_GROUP], tw[CA_INT8_GROUP];
        turn(a + at, n, ta);
        turn(w + at, n, tw);
        const double sa = largest(ta, n) / 127.0, sw = largest(tw, n) / 127.0;
        for (uint32_t p = 0; p < n && sa > 0.0 && sw > 0.0; p++) {
            const double x = ta[p] / sa, y = tw[p] / sw;
            sum += sa * sw * nearbyint(x) * nearbyint(y);
            if (fabs(fabs(x - nearbyint(x)) - 0.5) < 2e-4) *loose += sa * sw * fabs(nearbyint(y));
            if (fabs(fabs(y - nearbyint(y)) - 0.5) < 2e-4) *loose += sa * sw * fabs(nearbyint(x));
        }
    }
    return sum;
}

static void run_int8_case(const ca_kern *kern, const struct gemm_case *c)
{
    const size_t w_len = (size_t)c->n * c->k, c_len = (size_t)c->m * c->n;
    const input a = make_input(ca_kern_dtype(kern), (size_t)c->m * c->k, c->m * 7919U + c->k * 31U + c->n);
    const input w = make_input(CA_F32, w_len, c->n * 7U + c->k);
    float *out = malloc(c_len * sizeof *out), *more = malloc(c_len * sizeof *more);
    assert_true(out != NULL && more != NULL);
    ca_gemm_engine *engine = NULL;
    ca_gemm_weight *weight = NULL;
    ca_gemm_runner *runner = NULL;
    const matrix rows = { w.f32, c->k };
    size_t bytes = 0;
    assert_int_equal(ca_gemm_engine_create(kern, &engine), CA_OK);
    assert_int_equal(ca_gemm_pack(engine, true, c->k, c->n, &(ca_gemm_source){ &rows, give_rows }, &weight), CA_OK);
    assert_int_equal(ca_gemm_packed_bytes(engine, true, c->k, c->n, &bytes), CA_OK);
    assert_int_equal(ca_gemm_weight_bytes(weight), bytes);
    assert_int_equal(ca_gemm_weight_n(weight), c->n);
    assert_int_equal(ca_gemm_runner_create(engine, &runner), CA_OK);
    for (size_t i = 0; i < c_len; i++) out[i] = NAN;
    for (size_t i = 0; i < c_len; i++) more[i] = 0.75F;
    assert_int_equal(ca_gemm_run(runner, weight, a.data, c->m, out, false), CA_OK);
    assert_int_equal(ca_gemm_run(runner, weight, a.data, c->m, more, true), CA_OK);
    for (uint32_t i = 0; i < c->m; i++)
        for (uint32_t j = 0; j < c->n; j++) {
            double loose;
            const double expected = int8_element(a.f32 + (size_t)i * c->k, w.f32 + (size_t)j * c->k, c->k, &loose);
            const double bound = loose + (c->k * 9.0 * 9.0 + 1.0) * 0x1p-21; /* no value is above 9 */
            const size_t at = (size_t)i * c->n + j;
            if (!(fabs((double)out[at] - expected) <= bound && fabs((double)more[at] - 0.75 - expected) <= bound))
                fail_msg("int8 m %u k %u n %u (%s, %s): [%u][%u] is %.9g and %.9g, expected %.9g +- %.2g", c->m, c->k, c->n,
                         c->covers, ca_kern_name(kern), i, j, (double)out[at], (double)more[at] - 0.75, expected, bound);
        }
    /* A row does not depend on the others, nor on the threads. */
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    const uint32_t last = c->m - 1;
    const size_t row_bytes = (size_t)c->k * (ca_kern_dtype(kern) == CA_BF16 ? 2 : 4);
    assert_int_equal(ca_gemm_run(runner, weight, (const unsigned char *)a.data + last * row_bytes, 1, more, false), CA_OK);
    omp_set_num_threads(threads);
    assert_memory_equal(more, out + (size_t)last * c->n, c->n * sizeof *more);

    ca_gemm_runner_destroy(runner);
    ca_gemm_weight_destroy(weight);
    ca_gemm_engine_destroy(engine);
    free(more);
    free(out);
    free_input(w);
    free_input(a);
}

static void test_int8(void **state)
{
    (void)state;
    ca_kern_report sets[16];
    const size_t n = ca_kern_reports(NULL, sets, 16);
    for (size_t s = 0; s < n; s++) {
        if (!sets[s].usable) continue;
        ca_gemm_engine *engine = NULL;
        const ca_status st = ca_gemm_engine_create(kern_of(sets[s].name), &engine); /* oneDNN may lack the set's type */
        ca_gemm_engine_destroy(engine);
        for (size_t i = 0; st == CA_OK && i < sizeof int8_cases / sizeof *int8_cases; i++)
            run_int8_case(kern_of(sets[s].name), &int8_cases[i]);
    }
}

/* The portable products and those of this CPU give the same bits, also where 6 does not divide the rows. */
static void test_int8_same_bits(void **state)
{
    (void)state;
    const ca_int8 *best = ca_int8_choose(kern_of(NULL));
    if (best == &ca_int8_portable) skip();
    enum { K = 700, N = 100, M = 17 };
    static float rows[N * K], a[M * K], got[2][M * N];
    uint32_t seed = 3;
    for (size_t i = 0; i < N * K; i++) rows[i] = next_value(&seed);
    for (size_t i = 0; i < M * K; i++) a[i] = next_value(&seed);
    ca_int8_weight weight;
    assert_int_equal(ca_int8_weight_create(K, N, &weight), CA_OK);
    ca_int8_weight_pack(&weight, 0, 33, rows);
    ca_int8_weight_pack(&weight, 33, N - 33, rows + (size_t)33 * K);
    void *scratch = aligned_alloc(64, ca_align_up(ca_int8_scratch_bytes(K, M), 64));
    assert_non_null(scratch);
    for (uint32_t m = 1; m <= M; m++) {
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            memset(got, 0, sizeof got);
            ca_int8_weight_run(kern_of("scalar"), best, &weight, a, m, got[0], accumulate, scratch);
            ca_int8_weight_run(kern_of("scalar"), &ca_int8_portable, &weight, a, m, got[1], accumulate, scratch);
            assert_memory_equal(got[0], got[1], sizeof got[0]);
        }
    }
    free(scratch);
    ca_int8_weight_destroy(&weight);
}

/* Zeros, values too small to divide by, infinities and NaN stay within their rows, their columns. */
static void test_int8_odd_values(void **state)
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
    ca_gemm_engine *engine = NULL;
    ca_gemm_weight *weight = NULL;
    ca_gemm_runner *runner = NULL;
    const matrix rows = { w, K };
    assert_int_equal(ca_gemm_engine_create(kern_of("scalar"), &engine), CA_OK);
    assert_int_equal(ca_gemm_pack(engine, true, K, N, &(ca_gemm_source){ &rows, give_rows }, &weight), CA_OK);
    assert_int_equal(ca_gemm_runner_create(engine, &runner), CA_OK);
    assert_int_equal(ca_gemm_run(runner, weight, a, M, out, false), CA_OK);
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
    ca_gemm_runner_destroy(runner);
    ca_gemm_weight_destroy(weight);
    ca_gemm_engine_destroy(engine);
}

/* More shapes than the runner keeps, twice, with a changing thread count. */
static void test_many_plans(void **state)
{
    (void)state;
    enum { K = 40, N = 24, MAX_M = CA_GEMM_PLANS + 5 };
    float w[N * K];
    float a[MAX_M * K];
    uint32_t seed = 5;
    for (size_t i = 0; i < N * K; i++) w[i] = next_value(&seed);
    for (size_t i = 0; i < MAX_M * K; i++) a[i] = next_value(&seed);
    ca_gemm_engine *engine = NULL;
    ca_gemm_weight *weight = NULL;
    ca_gemm_runner *runner = NULL;
    const matrix rows = { w, K };
    const ca_gemm_source source = { &rows, give_rows };
    assert_int_equal(ca_gemm_engine_create(kern_of("scalar"), &engine), CA_OK);
    assert_int_equal(ca_gemm_pack(engine, false, K, N, &source, &weight), CA_OK);
    assert_int_equal(ca_gemm_runner_create(engine, &runner), CA_OK);
    const int threads = omp_get_max_threads();
    for (int pass = 0; pass < 2; pass++) {
        omp_set_num_threads(pass == 0 ? threads : 1);
        for (uint32_t m = 1; m <= MAX_M; m++) {
            const struct gemm_case c = { m, K, N, "many shapes" };
            float out[MAX_M * N];
            assert_int_equal(ca_gemm_run(runner, weight, a, m, out, false), CA_OK);
            check_products(&c, CA_F32, a, w, 0.0F, out);
        }
    }
    omp_set_num_threads(threads);
    ca_gemm_runner_destroy(runner);
    ca_gemm_weight_destroy(weight);
    ca_gemm_engine_destroy(engine);
}

static void test_refuses(void **state)
{
    (void)state;
    ca_gemm_engine *engine = NULL;
    ca_gemm_weight *weight = NULL;
    ca_gemm_runner *runner = NULL;
    const float value = 2.0F;
    float out = 0.0F;
    const matrix rows = { &value, 1 };
    const ca_gemm_source source = { &rows, give_rows };
    assert_int_equal(ca_gemm_engine_create(kern_of("scalar"), &engine), CA_OK);
    assert_int_equal(ca_gemm_pack(engine, false, 0, 4, &source, &weight), CA_E_ARG);
    assert_null(weight);
    assert_int_equal(ca_gemm_pack(engine, false, 1, 1, &source, &weight), CA_OK);
    assert_int_equal(ca_gemm_runner_create(engine, &runner), CA_OK);
    assert_int_equal(ca_gemm_run(runner, weight, &value, 0, &out, false), CA_E_ARG);
    assert_int_equal(ca_gemm_run(runner, weight, &value, 1, &out, false), CA_OK);
    assert_true(out == 4.0F);
    ca_gemm_runner_destroy(runner);
    ca_gemm_weight_destroy(weight);
    ca_gemm_engine_destroy(engine);
    ca_gemm_runner_destroy(NULL);
    ca_gemm_weight_destroy(NULL);
    ca_gemm_engine_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_int8),
        cmocka_unit_test(test_int8_same_bits),
        cmocka_unit_test(test_int8_odd_values),
        cmocka_unit_test(test_many_plans),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
