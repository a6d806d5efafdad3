/* Packed matrix products against sums in double precision, over shapes where nothing divides. */
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
    const ca_gemm_source source = { &rows, give_rows, NULL };
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
    const ca_dtype type = ca_kern_flow_dtype(kern);
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
    const ca_kern *kern = NULL;
    if (ca_kern_choose("avx512bf16", &kern) != CA_OK) kern = kern_of(NULL); /* by name: auto may pass over it */
    if (ca_kern_flow_dtype(kern) != CA_BF16) skip(); /* this CPU has no bf16 products, and none are asked for there */
    products_equal_double_sums(kern);
}

/* Keys and values are bf16 there, weights and activations are not. */
static void test_mixed(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    if (ca_kern_choose("avx2mixed", &kern) != CA_OK) skip();
    products_equal_double_sums(kern);
}

/* An int8 weight goes through the same calls, and gives what tests/unit/test_int8.c checks. */
static void test_int8(void **state)
{
    (void)state;
    enum { M = 9, K = 100, N = 70 };
    float w[N * K], a[M * K], got[M * N], expected[M * N];
    uint32_t seed = 11;
    for (size_t i = 0; i < N * K; i++) w[i] = next_value(&seed);
    for (size_t i = 0; i < M * K; i++) a[i] = next_value(&seed);
    const ca_kern *kern = kern_of("scalar");
    const matrix rows = { w, K };
    const ca_gemm_source source = { &rows, give_rows, NULL };
    ca_gemm_engine *engine = NULL;
    ca_gemm_weight *weight = NULL;
    ca_gemm_runner *runner = NULL;
    ca_int8_weight same;
    size_t bytes = 0;
    assert_int_equal(ca_gemm_engine_create(kern, &engine), CA_OK);
    assert_int_equal(ca_gemm_pack(engine, true, K, N, &source, &weight), CA_OK);
    assert_int_equal(ca_gemm_packed_bytes(engine, true, K, N, &source, &bytes), CA_OK);
    assert_int_equal(ca_gemm_weight_bytes(weight), bytes);
    assert_int_equal(ca_gemm_weight_n(weight), N);
    assert_int_equal(ca_gemm_runner_create(engine, &runner), CA_OK);
    assert_int_equal(ca_int8_weight_create(K, N, &same), CA_OK);
    ca_int8_weight_pack(&same, 0, N, w);
    void *scratch = aligned_alloc(64, ca_align_up(ca_int8_scratch_bytes(K, M), 64));
    assert_non_null(scratch);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        for (size_t i = 0; i < M * N; i++) got[i] = expected[i] = 0.75F;
        assert_int_equal(ca_gemm_run(runner, weight, a, M, got, accumulate), CA_OK);
        ca_int8_weight_run(kern, &ca_int8_portable, &same, a, M, expected, accumulate, scratch);
        assert_memory_equal(got, expected, sizeof got);
    }
    assert_true(ca_gemm_counted(runner).flop == 4.0 * M * K * N);
    free(scratch);
    ca_int8_weight_destroy(&same);
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
    const ca_gemm_source source = { &rows, give_rows, NULL };
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
    const ca_gemm_source source = { &rows, give_rows, NULL };
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
        cmocka_unit_test(test_f32),  cmocka_unit_test(test_bf16),       cmocka_unit_test(test_mixed),
        cmocka_unit_test(test_int8), cmocka_unit_test(test_many_plans), cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
