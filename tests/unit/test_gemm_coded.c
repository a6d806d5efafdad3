/* Products with weights in codes: the weights are the floats of their format to the bit, the sums those of double precision, for every
 * format and every kernel set that has such products. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../kernels/kern_list.h"
#include "kern/kern.h"
#include "load/quant.h"
#include "model/gemm_coded.h"

enum { MAX_PARTS = 3, K = 768 };

/* A weight of up to three formats, one after the other. */
typedef struct parts {
    ca_block_type type[MAX_PARTS];
    uint32_t rows[MAX_PARTS];
    uint8_t *blocks[MAX_PARTS];
    uint32_t n;
    uint64_t seed;
} parts;

static uint32_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(*state >> 33);
}

static size_t row_bytes(const ca_block_format *format)
{
    return (size_t)K / format->n_elems * format->n_bytes;
}

static const void *give_blocks(const void *user, uint32_t row, const ca_block_format **format)
{
    const parts *p = user;
    uint32_t i = 0;
    while (row >= p->rows[i]) row -= p->rows[i++];
    *format = ca_block_format_of(p->type[i]);
    return p->blocks[i] + row * row_bytes(*format);
}

static void give_rows(const void *user, uint32_t first, uint32_t count, float *out)
{
    for (uint32_t i = 0; i < count; i++) {
        const ca_block_format *format = NULL;
        const void *blocks = give_blocks(user, first + i, &format);
        ca_block_floats(format, blocks, K / format->n_elems, out + (size_t)i * K);
    }
}

static bool sane(const ca_block_format *format, const uint8_t *block)
{
    ca_block_codes codes;
    float one = 0;
    bool yes = true;
    if (format->codes == NULL) {
        ca_block_floats(format, block, 1, &one);
        return fabsf(one) < 1e6F;
    }
    format->codes(block, &codes);
    for (uint32_t g = 0; g < format->n_elems / format->group; g++)
        yes = yes && fabsf(codes.scale[g]) < 1e6F && (!format->has_offsets || fabsf(codes.offset[g]) < 1e6F);
    return yes;
}

/* Any bits that give no infinity, no NaN and no sum beyond floats. */
static void make(parts *p)
{
    for (uint32_t i = 0; i < MAX_PARTS && p->rows[i] > 0; i++) {
        const ca_block_format *format = ca_block_format_of(p->type[i]);
        const size_t bytes = p->rows[i] * row_bytes(format);
        p->n += p->rows[i];
        p->blocks[i] = malloc(bytes);
        assert_non_null(p->blocks[i]);
        for (uint8_t *block = p->blocks[i]; block < p->blocks[i] + bytes; block += format->n_bytes) {
            do
                for (uint32_t j = 0; j < format->n_bytes; j++) block[j] = (uint8_t)draw(&p->seed);
            while (!sane(format, block));
        }
    }
}

static void drop(const parts *p)
{
    for (uint32_t i = 0; i < MAX_PARTS; i++) free(p->blocks[i]);
}

/* n floats that bf16 holds, in the set's type. */
static const void *typed(const ca_kern *kern, const float *a, size_t n, uint16_t *room)
{
    for (size_t i = 0; i < n && kern->flow == CA_BF16; i++) room[i] = ca_f32_to_bf16(a[i]);
    return kern->flow == CA_BF16 ? (const void *)room : a;
}

/* A weight as the set's products see it; those of pairs take denormal numbers for zero. */
static float as_seen(const ca_kern *kern, float w)
{
    if (kern->flow != CA_BF16) return w;
    return fabsf(w) < 0x1p-126F ? 0.0F : ca_bf16_to_f32(ca_f32_to_bf16(w));
}

/* Rows of zeros but for a 1: every weight by itself. Zeros of both signs count as equal. */
static void weights_are_equal(const ca_kern *kern, const ca_coded_weight *weight, const float *rows)
{
    enum { M = 7 };
    float *a = calloc((size_t)M * K, sizeof *a), *c = malloc((size_t)M * weight->n * sizeof *c);
    uint16_t *room = malloc((size_t)M * K * sizeof *room);
    assert_true(a != NULL && c != NULL && room != NULL);
    for (uint32_t first = 0; first < K; first += M) {
        const uint32_t m = ca_min_u32(M, K - first); /* once in registers alone, else with panels of floats */
        memset(a, 0, (size_t)M * K * sizeof *a);
        for (uint32_t r = 0; r < m; r++) a[(size_t)r * K + first + r] = 1.0F;
        ca_coded_weight_run(kern, weight, typed(kern, a, (size_t)M * K, room), m, c, false);
        for (uint32_t r = 0; r < m; r++)
            for (uint32_t j = 0; j < weight->n; j++) {
                const float expected = as_seen(kern, rows[(size_t)j * K + first + r]);
                if (c[(size_t)r * weight->n + j] != expected)
                    fail_msg("%s: [%u][%u] is %.9g, not %.9g", kern->name, first + r, j, (double)c[(size_t)r * weight->n + j],
                             (double)expected);
            }
    }
    free(room);
    free(c);
    free(a);
}

static void sums_are_close(const ca_kern *kern, const ca_coded_weight *weight, const float *rows)
{
    enum { M = 401 };
    const uint32_t n = weight->n, counts[] = { M, 1, 2, 3, 4, 5, 9, 193 };
    float *a = malloc((size_t)M * K * sizeof *a), *all = malloc((size_t)M * n * sizeof *all),
          *c = malloc((size_t)M * n * sizeof *c);
    uint16_t *room = malloc((size_t)M * K * sizeof *room);
    assert_true(a != NULL && all != NULL && c != NULL && room != NULL);
    uint64_t seed = 3;
    for (size_t i = 0; i < (size_t)M * K; i++) a[i] = as_seen(kern, (float)(int32_t)(draw(&seed) - (1U << 30)) * 0x1p-30F);
    const void *as = typed(kern, a, (size_t)M * K, room);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const uint32_t m = counts[i];
        for (size_t at = 0; at < (size_t)m * n; at++) c[at] = NAN; /* a plain product does not read C */
        ca_coded_weight_run(kern, weight, as, m, c, false);
        if (i == 0) memcpy(all, c, (size_t)m * n * sizeof *c);
        assert_memory_equal(all, c, (size_t)m * n * sizeof *c); /* a row's bits do not depend on how many there are */
    }
    for (size_t at = 0; at < (size_t)M * n; at++) c[at] = 0.75F;
    ca_coded_weight_run(kern, weight, as, M, c, true);
    for (uint32_t r = 0; r < M; r += 57) {
        for (uint32_t j = 0; j < n; j++) {
            double sum = 0, size = 1;
            for (uint32_t p = 0; p < K; p++) {
                const double term = (double)a[(size_t)r * K + p] * (double)as_seen(kern, rows[(size_t)j * K + p]);
                sum += term;
                size += fabs(term);
            }
            const double bound = (K + 3.0) * 0x1p-24 * size, got = (double)all[(size_t)r * n + j];
            const double added = (double)c[(size_t)r * n + j] - 0.75;
            if (!(fabs(got - sum) <= bound && fabs(added - sum) <= bound))
                fail_msg("%s: row %u column %u is %.9g and %.9g, expected %.9g +- %.2g", kern->name, r, j, got, added, sum, bound);
        }
    }
    free(room);
    free(c);
    free(all);
    free(a);
}

/* What models call keeps a weight that fits in this way, in memory and in bits. Where oneDNN has no products of bf16 pairs (on ARM64), no
 * model runs with such a set. */
static void through_the_engine(const ca_kern *kern, const ca_coded_weight *same, const ca_gemm_source *source)
{
    enum { M = 5 };
    ca_gemm_engine *engine = NULL;
    const ca_status made = ca_gemm_engine_create(kern, &engine);
    if (made == CA_E_UNSUPPORTED && strcmp(kern->name, "neonbf16") == 0) return;
    assert_int_equal(made, CA_OK);
    ca_gemm_weight *weight = NULL;
    ca_gemm_runner *runner = NULL;
    size_t bytes = 0;
    float *a = malloc((size_t)M * K * sizeof *a), *c = malloc((size_t)M * same->n * sizeof *c),
          *d = malloc((size_t)M * same->n * sizeof *d);
    uint16_t *room = malloc((size_t)M * K * sizeof *room);
    assert_true(a != NULL && c != NULL && d != NULL && room != NULL);
    for (size_t i = 0; i < (size_t)M * K; i++) a[i] = (float)(i % 17) - 8.0F;
    const void *as = typed(kern, a, (size_t)M * K, room);
    assert_int_equal(ca_gemm_packed_bytes(engine, false, K, same->n, source, &bytes), CA_OK);
    assert_int_equal(ca_gemm_pack(engine, false, K, same->n, source, &weight), CA_OK);
    assert_int_equal(ca_gemm_runner_create(engine, &runner), CA_OK);
    assert_int_equal(bytes, same->bytes);
    assert_int_equal(ca_gemm_weight_bytes(weight), same->bytes);
    assert_int_equal(ca_gemm_run(runner, weight, as, M, c, false), CA_OK);
    ca_coded_weight_run(kern, same, as, M, d, false);
    assert_memory_equal(c, d, (size_t)M * same->n * sizeof *c);
    ca_gemm_runner_destroy(runner);
    ca_gemm_weight_destroy(weight);
    ca_gemm_engine_destroy(engine);
    free(room);
    free(d);
    free(c);
    free(a);
}

static void check(parts p)
{
    make(&p);
    const ca_gemm_source source = { &p, give_rows, give_blocks };
    float *rows = malloc((size_t)p.n * K * sizeof *rows);
    assert_non_null(rows);
    give_rows(&p, 0, p.n, rows);
    const kern_list list = usable_kerns();
    for (size_t i = 0; i < list.n; i++) {
        assert_true((list.kern[i]->coded != NULL) == ca_coded_fits(list.kern[i], K, p.n, &source));
        assert_false(ca_coded_fits(list.kern[i], K + 16, p.n, &source));
        if (list.kern[i]->coded == NULL) continue;
        ca_coded_weight weight;
        assert_int_equal(ca_coded_weight_pack(K, p.n, &source, &weight), CA_OK);
        assert_int_equal(weight.bytes, ca_coded_weight_bytes(K, p.n, &source));
        weights_are_equal(list.kern[i], &weight, rows);
        through_the_engine(list.kern[i], &weight, &source);
        sums_are_close(list.kern[i], &weight, rows);
        ca_coded_weight_destroy(&weight);
    }
    free(rows);
    drop(&p);
}

static const ca_block_type coded_types[] = { CA_BLOCK_Q4_0,   CA_BLOCK_Q4_1,  CA_BLOCK_Q5_0, CA_BLOCK_Q5_1, CA_BLOCK_Q8_0,
                                             CA_BLOCK_Q2_K,   CA_BLOCK_Q3_K,  CA_BLOCK_Q4_K, CA_BLOCK_Q5_K, CA_BLOCK_Q6_K,
                                             CA_BLOCK_IQ4_NL, CA_BLOCK_MXFP4, CA_BLOCK_BF16, CA_BLOCK_F16 };

static void every_format(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof coded_types / sizeof *coded_types; i++)
        check((parts){ .type = { coded_types[i] }, .rows = { 70 }, .seed = i });
}

/* Panels whose columns differ in bits, groups, zeros, and in having offsets. */
static void several_formats(void **state)
{
    (void)state;
    check((parts){ .type = { CA_BLOCK_Q4_K, CA_BLOCK_Q4_K, CA_BLOCK_Q6_K }, .rows = { 30, 20, 90 } });
    check((parts){ .type = { CA_BLOCK_Q4_0, CA_BLOCK_Q8_0 }, .rows = { 33, 64 } });
    check((parts){ .type = { CA_BLOCK_Q3_K, CA_BLOCK_Q4_1, CA_BLOCK_Q4_0 }, .rows = { 16, 16, 16 } });
}

/* What a weight takes: codes of 4 or 8 bits, and 4 or 8 bytes for every 16 or 32 of them. */
static void sizes(void **state)
{
    (void)state;
    static const struct {
        ca_block_type type;
        uint32_t eighths; /* bits of an element, times 8 */
    } expected[] = {
        { CA_BLOCK_Q4_0, 40 }, { CA_BLOCK_Q4_1, 48 }, { CA_BLOCK_Q4_K, 48 }, { CA_BLOCK_Q8_0, 72 }, { CA_BLOCK_Q6_K, 80 }
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        parts p = { .type = { expected[i].type }, .rows = { 128 } };
        make(&p);
        const ca_gemm_source source = { &p, give_rows, give_blocks };
        assert_int_equal(ca_coded_weight_bytes(K, 128, &source), (size_t)K * 128 * expected[i].eighths / 64);
        drop(&p);
    }
}

/* Floats, numbers beside integers, and sources without blocks are not kept this way. */
static void only_codes(void **state)
{
    (void)state;
    static uint8_t blocks[(size_t)K * 4 * 2];
    const parts p = { .type = { CA_BLOCK_F32 }, .rows = { 2 }, .blocks = { blocks }, .n = 2 };
    const parts two = { .type = { CA_BLOCK_F16, CA_BLOCK_Q8_0 }, .rows = { 1, 1 }, .blocks = { blocks, blocks }, .n = 2 };
    const ca_gemm_source both = { &two, give_rows, give_blocks };
    const ca_gemm_source plain = { &p, give_rows, give_blocks }, none = { &p, give_rows, NULL };
    const kern_list list = usable_kerns();
    for (size_t i = 0; i < list.n; i++) {
        assert_false(ca_coded_fits(list.kern[i], K, 2, &plain));
        assert_false(ca_coded_fits(list.kern[i], K, 2, &none));
        assert_false(ca_coded_fits(list.kern[i], K, 2, &both));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format),
        cmocka_unit_test(several_formats),
        cmocka_unit_test(sizes),
        cmocka_unit_test(only_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
