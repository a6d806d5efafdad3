/* Attention with products of integers: against its definition (attn_int8.h) in plain C, against exact attention, and the properties that
 * hold to the bit. */
#include "attn_case.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "kern/attn_int8.h"

static const attn_shape shapes[] = {
    /* q_len kv_len hq hkv dim page  what it covers */
    { 128, 384, 4, 1, 128, 128, "everything divides" },
    { 67, 395, 14, 2, 128, 128, "nothing divides, GQA 7" },
    { 100, 333, 9, 3, 64, 128, "SmolLM2 heads" },
    { 3, 3, 4, 1, 64, 64, "first tokens, one partial page" },
    { 77, 200, 6, 2, 80, 64, "head_dim 80: a V panel of one vector" },
    { 50, 301, 4, 4, 96, 128, "head_dim 96: a V panel of two vectors" },
    { 40, 260, 4, 2, 112, 64, "head_dim 112: a V panel of three vectors" },
    { 33, 300, 4, 1, 256, 128, "head_dim 256, MQA" },
    { 65, 97, 2, 1, 16, 64, "smallest head" },
    { 200, 700, 4, 1, 64, 64, "several jobs, a group that ends early" },
    { 130, 641, 1, 1, 64, 128, "one token in the last page" },
    { 70, 333, 4, 2, 64, 32, "pages of 32, which panels of 64 do not fit" },
};

static const char *const isas[] = { "amxbf16", "avx512bf16", "avx512mixed", "avx512", "avx2mixed",
                                    "avx2",    "neonbf16",   "neonmixed",   "neon" };

enum { N_ISAS = sizeof isas / sizeof *isas };

static const float scale = 0.12F;

/* NULL where this machine lacks the set, or has no integers for it. */
static const ca_kern *usable(const char *isa, uint32_t page)
{
    const ca_kern *kern = NULL;
    if (ca_kern_choose(isa, &kern) == CA_OK && ca_kern_int8_attention_name(kern, page)) return kern;
    print_message("[  SKIPPED ] %s, pages of %u: no attention of integers here\n", isa, page);
    return NULL;
}

/* The best set of floats that has it. */
static const ca_kern *best(void)
{
    const ca_kern *kern = usable("avx512", 64);
    if (!kern) kern = usable("avx2", 64);
    return kern ? kern : usable("neon", 64);
}

typedef enum rows { DENSE, WINDOW, COMPACT, BLOCK_SPARSE, N_ROWS } rows;

static ca_table build(attn_data *d, rows of, unsigned keep_percent)
{
    ca_table t;
    ca_mask m;
    uint64_t seed = 5;
    d->ws.used = 0;
    must(ca_table_create(d->cache, &d->chunk, &d->ws, &t), "table");
    if (of == DENSE) must(ca_table_add_dense(d->cache, 0, d->shape.q_len, &t), "dense");
    if (of == WINDOW) must(ca_table_add_window(d->cache, 0, d->shape.q_len, 75, &t), "window");
    if (of <= WINDOW) return t;
    must(ca_mask_create(d->cache, &d->chunk, 0, d->shape.q_len, &d->ws, &m), "mask");
    for (uint32_t h = 0; h < m.n_heads; h++)
        for (uint32_t i = 0; i < m.n_qblocks; i++)
            for (uint32_t j = 0; j <= m.first_qblock + i; j++)
                if (j == m.first_qblock + i || mix64(&seed) % 100 < keep_percent)
                    m.bits[((size_t)h * m.n_qblocks + i) * m.words + j / 64] |= UINT64_C(1) << (j % 64);
    const ca_table_opt opt = { 0 };
    if (of == COMPACT)
        must(ca_table_add_compact(d->cache, &m, &opt, &t), "compact");
    else
        must(ca_table_add_block_sparse(d->cache, &m, &t), "block_sparse");
    return t;
}

static float *attend(attn_data *d, const ca_table *t, int n_threads)
{
    float *o = new_output(d);
    must(ca_attend_as(d->cache, CA_ATTENTION_INT8, t, scale, d->q, d->q_stride, o, d->q_stride, CA_F32, n_threads, &d->ws),
         "attend");
    return o;
}

/* ---- the definition, straight from attn_int8.h; keys and values as they were given, which bf16 has, too ---- */

static float largest(const float *x, size_t n, size_t stride)
{
    float top = 0.0F;
    for (size_t i = 0; i < n; i++) top = fmaxf(top, fabsf(x[i * stride]));
    return top;
}

static double rounded(float x, float top)
{
    return top > 0.0F ? rint((double)x * (127.0 / (double)top)) : 0.0;
}

/* 255 * 2^-z */
static double power(double z)
{
    const uint32_t fine = z * 2048 < 32767 ? (uint32_t)rint(z * 2048) : 32767, f = fine * 32 % 65536, c1 = 11022, c2 = 2850;
    return (double)(((((1U << 14) - (f * (c1 - (f * c2 >> 16)) >> 16)) >> (fine / 2048)) * 510 + (1U << 14)) >> 15);
}

/* One query vector of a row; panel: tokens of a panel of keys. */
static void define(const attn_data *d, uint32_t panel, const ca_row *row, const uint32_t *blocks, uint32_t token, uint32_t head,
                   float *o)
{
    enum { GROUP = CA_ATTN_INT8_GROUP, MAX_PANEL = 64, MAX_DIM = 256 };
    const uint32_t dim = d->shape.dim, bs = d->shape.page, step = GROUP / bs, pos = d->chunk.pos + token;
    const float *q = d->q + token * d->q_stride + (size_t)head * dim;
    const size_t at_head = (size_t)row->kv_head * dim;
    const float q_top = largest(q, dim, 1);
    double sum[MAX_DIM] = { 0 }, l = 0, m = -INFINITY, mu[MAX_DIM] = { 0 };
    const uint32_t first_len = ca_min_u32(bs, d->shape.kv_len - blocks[0] * bs);
    for (uint32_t t = 0; t < first_len; t++)
        for (uint32_t i = 0; i < dim; i++) mu[i] += (double)d->k[(blocks[0] * bs + t) * d->kv_stride + at_head + i] / first_len;
    for (uint32_t g = 0; g < row->n_pages; g += step) {
        const uint32_t n = ca_min_u32(step, row->n_pages - g);
        double e = -INFINITY, p[GROUP], refs[GROUP];
        for (uint32_t s = 0; s < n * bs; s += panel) {
            double scores[MAX_PANEL], top = -INFINITY;
            for (uint32_t c = 0; c < panel; c++) {
                const uint32_t t = blocks[g + (s + c) / bs] * bs + (s + c) % bs;
                scores[c] = -INFINITY;
                if (t > pos || t >= d->shape.kv_len || (row->window > 0 && t + row->window <= pos)) continue;
                float k[MAX_DIM];
                double dot = 0;
                for (uint32_t i = 0; i < dim; i++) k[i] = d->k[t * d->kv_stride + at_head + i] - (float)mu[i];
                const float k_top = largest(k, dim, 1);
                for (uint32_t i = 0; i < dim; i++) dot += rounded(q[i], q_top) * rounded(k[i], k_top);
                scores[c] = dot * (double)q_top * (double)k_top / (127.0 * 127.0) * (double)scale * 1.4426950408889634;
                top = fmax(top, scores[c]);
            }
            e = fmax(e, ceil(top));
            for (uint32_t c = 0; c < panel; c++) {
                p[s + c] = isinf(scores[c]) ? 0.0 : power(e - scores[c]);
                refs[s + c] = e; /* what p is a multiple of */
            }
        }
        if (isinf(e)) continue;
        const double before = isinf(m) ? 0.0 : exp2(m - fmax(m, e));
        m = fmax(m, e);
        l *= before;
        for (uint32_t i = 0; i < dim; i++) sum[i] *= before;
        for (uint32_t i = 0; i < dim; i++) {
            float v_top = 0.0F;
            for (uint32_t s = 0; s < n * bs; s++) {
                const uint32_t t = blocks[g + s / bs] * bs + s % bs;
                if (t < d->shape.kv_len) v_top = fmaxf(v_top, fabsf(d->v[t * d->kv_stride + at_head + i]));
            }
            for (uint32_t s = 0; s < n * bs; s++) {
                if (p[s] == 0.0) continue;
                const uint32_t t = blocks[g + s / bs] * bs + s % bs;
                sum[i] += p[s] * exp2(refs[s] - m) * rounded(d->v[t * d->kv_stride + at_head + i], v_top) * (double)v_top / 127.0;
            }
        }
        for (uint32_t s = 0; s < n * bs; s++)
            if (p[s] > 0.0) l += p[s] * exp2(refs[s] - m);
    }
    for (uint32_t i = 0; i < dim; i++) o[i] = l > 0 ? (float)(sum[i] / l) : 0.0F;
}

/* Block numbers of a row's pages. */
static void row_blocks(const attn_data *d, const ca_table *t, const ca_row *row, uint32_t *blocks)
{
    uint32_t n = 0;
    const uint32_t *held = ca_cache_pages(d->cache, 0, 0, row->kv_head, &n);
    for (uint32_t i = 0; i < row->n_pages; i++)
        for (uint32_t j = 0; j < n; j++)
            if (held[j] == t->pages[row->first_page + i]) blocks[i] = j;
}

static float *definition(const attn_data *d, uint32_t panel, const ca_table *t)
{
    uint32_t blocks[64];
    float *o = new_output(d);
    for (uint32_t r = 0; r < t->n_rows; r++) {
        const ca_row *row = &t->rows[r];
        row_blocks(d, t, row, blocks);
        for (uint32_t token = row->token; token < row->token + row->n_tokens; token++)
            for (uint32_t head = row->head; head < row->head + row->n_heads; head++)
                define(d, panel, row, blocks, token, head, o + token * d->q_stride + (size_t)head * d->shape.dim);
    }
    return o;
}

/* Scores are floats: a probability may come out a step higher or lower. */
static void check_error(const attn_data *d, const char *isa, rows of, const float *o, const float *want, const float *exact)
{
    const size_t n = (size_t)d->shape.q_len * d->q_stride;
    const double err = relative_error(o, want, n), whole = relative_error(o, exact, n);
    if (!(err <= 3e-3) || !(whole <= 3e-2))
        fail_msg("%s rows %d, %s: relative error %g to the definition, %g to exact attention", isa, (int)of, d->shape.what, err,
                 whole);
}

static void against_definition(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        float *want[N_ROWS] = { NULL }, *exact[N_ROWS] = { NULL };
        uint32_t panel = 0; /* of want */
        for (size_t a = 0; a < N_ISAS; a++) {
            const ca_kern *kern = usable(isas[a], shapes[i].page);
            if (!kern) continue;
            attn_data d = attn_data_create(shapes[i], kern, 0, 37, 1.0F);
            for (rows of = DENSE; of < N_ROWS; of++) {
                const ca_table t = build(&d, of, 40);
                if (kern->k_panel != panel) {
                    free(want[of]);
                    want[of] = definition(&d, kern->k_panel, &t);
                }
                if (!exact[of]) {
                    exact[of] = new_output(&d);
                    must(ca_attend_oracle(d.cache, &t, scale, d.q, d.q_stride, exact[of], d.q_stride), "oracle");
                }
                float *o = attend(&d, &t, 2);
                check_error(&d, isas[a], of, o, want[of], exact[of]);
                free(o);
            }
            panel = kern->k_panel;
            attn_data_destroy(&d);
        }
        for (rows of = DENSE; of < N_ROWS; of++) free(want[of]), free(exact[of]);
    }
}

static void check_bits(const char *what, const attn_data *d, float *a, const float *b)
{
    const size_t n = (size_t)d->shape.q_len * d->q_stride;
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], 4) != 0)
            fail_msg("%s: %s: value %zu is %.9g, not %.9g", d->shape.what, what, i, (double)a[i], (double)b[i]);
    free(a);
}

static void exact_properties(void **state)
{
    (void)state;
    for (size_t a = 0; a < N_ISAS; a++) {
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            const ca_kern *kern = usable(isas[a], shapes[i].page);
            if (!kern) continue;
            attn_data d = attn_data_create(shapes[i], kern, 0, 0, 1.0F);
            ca_table t = build(&d, DENSE, 0);
            float *dense = attend(&d, &t, 1);
            check_bits("three threads are not one", &d, attend(&d, &t, 3), dense);
            t = build(&d, COMPACT, 100);
            check_bits("a full table is not dense", &d, attend(&d, &t, 2), dense);

            t = build(&d, DENSE, 0);
            uint16_t *halves = malloc((size_t)d.shape.q_len * d.q_stride * sizeof *halves);
            must(ca_attend_as(d.cache, CA_ATTENTION_INT8, &t, scale, d.q, d.q_stride, halves, d.q_stride, CA_BF16, 1, &d.ws),
                 "attend");
            for (size_t j = 0; j < d.shape.q_len * d.q_stride; j++) assert_int_equal(halves[j], ca_f32_to_bf16(dense[j]));
            free(halves);

            uint32_t n = 0;
            const uint32_t *pages = ca_cache_pages(d.cache, 0, 0, 0, &n);
            for (uint32_t j = 0; j + 1 < n; j++) must(ca_cache_swap_pages(d.cache, pages[j], pages[n - 1]), "swap");
            t = build(&d, DENSE, 0);
            check_bits("permuted pages", &d, attend(&d, &t, 2), dense);
            free(dense);
            attn_data_destroy(&d);
        }
    }
}

/* A cache with other keys than attn_data_create gave it. */
static void refill(attn_data *d)
{
    must(ca_cache_truncate(d->cache, 0, 0), "truncate");
    must(ca_cache_append(d->cache, 0, 0, &(ca_kv){ .k = d->k, .v = d->v, .stride = d->kv_stride }, d->shape.kv_len), "append");
}

static double error_to_exact(attn_data *d)
{
    const ca_table t = build(d, DENSE, 0);
    float *o = attend(d, &t, 2), *exact = new_output(d);
    must(ca_attend_oracle(d->cache, &t, scale, d->q, d->q_stride, exact, d->q_stride), "oracle");
    const double err = relative_error(o, exact, (size_t)d->shape.q_len * d->q_stride);
    free(o), free(exact);
    return err;
}

/* Keys of some models have a few dims with a large value that all tokens share: it must not take the steps from the others. */
static void shared_bias(void **state)
{
    (void)state;
    const ca_kern *kern = best();
    if (!kern) skip();
    attn_data d = attn_data_create((attn_shape){ 70, 700, 4, 2, 64, 64, "bias" }, kern, 0, 0, 1.0F);
    const double without = error_to_exact(&d);
    for (uint32_t t = 0; t < d.shape.kv_len; t++)
        for (size_t i = 0; i < d.kv_stride; i += 21) d.k[t * d.kv_stride + i] += i % 2 ? 300.0F : -200.0F;
    refill(&d);
    const double with = error_to_exact(&d);
    if (!(with <= 1.3 * without)) fail_msg("a bias in the keys takes the error from %g to %g", without, with);
    attn_data_destroy(&d);
}

/* Scores that rise or fall by hundreds of log2 units: the reference moves in every panel, the sums of old ones vanish, nothing
 * overflows. One key takes it all: its value is the result. */
static void extreme_scores(void **state)
{
    (void)state;
    const ca_kern *kern = best();
    if (!kern) skip();
    for (unsigned rising = 0; rising < 2; rising++) {
        attn_data d = attn_data_create((attn_shape){ 7, 700, 2, 1, 64, 128, "extreme scores" }, kern, 0, 0, 1.0F);
        for (uint32_t t = 0; t < d.shape.kv_len; t++)
            for (uint32_t i = 0; i < 64; i++) d.k[t * d.kv_stride + i] = i == 5 ? (float)(rising ? t : d.shape.kv_len - t) : 0.0F;
        for (uint32_t t = 0; t < d.shape.q_len; t++)
            for (size_t i = 0; i < d.q_stride; i++) d.q[t * d.q_stride + i] = i % 64 == 5 ? 100.0F : 0.0F;
        refill(&d);
        const ca_table t = build(&d, DENSE, 0);
        float *o = attend(&d, &t, 2);
        for (uint32_t q = 0; q < d.shape.q_len; q++)
            for (size_t i = 0; i < d.q_stride; i++) {
                const uint32_t key = rising ? d.chunk.pos + q : 0;
                const float want = d.v[key * d.kv_stride + i % 64];
                if (!(fabsf(o[q * d.q_stride + i] - want) <= 0.04F))
                    fail_msg("%s scores: query %u dim %zu is %g, not %g", rising ? "rising" : "falling", q, i,
                             (double)o[q * d.q_stride + i], (double)want);
            }
        free(o);
        attn_data_destroy(&d);
    }
}

/* Scores of 2^12 to 2^23 log2 units, whose rounding is larger than a step of a probability: some key always weighs, and those far below
 * it never do. */
static void large_scores(void **state)
{
    (void)state;
    static const struct {
        float amplitude;
        bool opposed; /* keys of A and values of 1, and keys of -A and values of -1, in turn; else random keys, and values of 1 */
    } cases[] = { { 243.0F, false }, { 729.0F, false }, { 320.0F, true }, { 640.0F, true } };
    enum { N_CASES = sizeof cases / sizeof *cases };
    for (size_t i = 0; i < N_ISAS * N_CASES; i++) {
        const char *isa = isas[i / N_CASES];
        const float amplitude = cases[i % N_CASES].amplitude;
        const bool opposed = cases[i % N_CASES].opposed;
        const ca_kern *kern = usable(isa, 64);
        if (!kern) continue;
        attn_data d = attn_data_create((attn_shape){ 64, 512, 2, 1, 128, 64, "large scores" }, kern, 0, 0, 1.0F);
        for (uint32_t t = 0; t < d.shape.kv_len; t++)
            for (uint32_t e = 0; e < 128; e++) {
                float *k = &d.k[t * d.kv_stride + e];
                *k = opposed ? (t % 2 ? -amplitude : amplitude) : amplitude * *k;
                d.v[t * d.kv_stride + e] = opposed && t % 2 ? -1.0F : 1.0F;
            }
        for (size_t e = 0; e < d.shape.q_len * d.q_stride; e++) d.q[e] = opposed ? amplitude : amplitude * d.q[e];
        refill(&d);
        const ca_table t = build(&d, DENSE, 0);
        float *o = attend(&d, &t, 2);
        for (size_t e = 0; e < d.shape.q_len * d.q_stride; e++)
            if (!(fabsf(o[e] - 1.0F) <= 0.02F))
                fail_msg("%s, %s keys of %g: value %zu is %g, not 1", isa, opposed ? "opposed" : "random", (double)amplitude, e,
                         (double)o[e]);
        free(o);
        attn_data_destroy(&d);
    }
}

/* Queries, keys and values of zeros; a query that is no number spoils its own row alone. */
static void zeros_and_nan(void **state)
{
    (void)state;
    const ca_kern *kern = best();
    if (!kern) skip();
    attn_data d = attn_data_create((attn_shape){ 40, 300, 4, 2, 64, 64, "zeros" }, kern, 0, 0, 1.0F);
    memset(d.q, 0, d.shape.q_len * d.q_stride * sizeof *d.q);
    assert_true(error_to_exact(&d) < 1e-2); /* the mean of the values */
    d.q[3 * d.q_stride + 64 + 7] = NAN;
    d.q[5 * d.q_stride + 9] = INFINITY;
    const ca_table t = build(&d, DENSE, 0);
    float *o = attend(&d, &t, 2);
    for (uint32_t q = 0; q < d.shape.q_len; q++)
        for (size_t i = 0; i < d.q_stride; i++)
            assert_int_equal(isnan(o[q * d.q_stride + i]), (q == 3 && i / 64 == 1) || (q == 5 && i / 64 == 0));
    free(o);
    memset(d.k, 0, d.shape.kv_len * d.kv_stride * sizeof *d.k);
    memset(d.v, 0, d.shape.kv_len * d.kv_stride * sizeof *d.v);
    memset(d.q, 0, d.shape.q_len * d.q_stride * sizeof *d.q);
    refill(&d);
    o = attend(&d, &t, 1);
    for (size_t i = 0; i < d.shape.q_len * d.q_stride; i++) assert_true(o[i] == 0.0F);
    free(o);
    attn_data_destroy(&d);
}

/* Decode runs natively; what has no integers says so; the cost model knows the larger jobs. */
static void where_it_runs(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    ca_cost cost;
    must(ca_kern_choose("scalar", &kern), "scalar");
    attn_data d = attn_data_create((attn_shape){ 3, 70, 4, 1, 64, 64, "scalar" }, kern, 0, 0, 1.0F);
    ca_table t = build(&d, DENSE, 0);
    float *o = new_output(&d);
    assert_null(ca_kern_int8_attention_name(kern, 64));
    assert_int_equal(ca_attend_as(d.cache, CA_ATTENTION_INT8, &t, scale, d.q, d.q_stride, o, d.q_stride, CA_F32, 1, &d.ws),
                     CA_E_UNSUPPORTED);
    assert_non_null(strstr(ca_last_error(), "scalar"));
    assert_int_equal(ca_attend_as(d.cache, (ca_attention)7, &t, scale, d.q, d.q_stride, o, d.q_stride, CA_F32, 1, &d.ws), CA_E_ARG);
    assert_int_equal(ca_cost_measure(kern, CA_ATTENTION_INT8, 1, &cost), CA_E_UNSUPPORTED);
    free(o);
    attn_data_destroy(&d);
    kern = usable("avx512", 64);
    if (kern) assert_null(ca_kern_int8_attention_name(kern, 32));
    kern = best();
    if (!kern) skip();
    assert_null(ca_kern_int8_attention_name(kern, 0));
    assert_null(ca_kern_int8_attention_name(kern, 512));
    d = attn_data_create((attn_shape){ 1, 517, 9, 3, 64, 128, "decode" }, kern, 0, 0, 1.0F);
    t = build(&d, DENSE, 0);
    float *native = new_output(&d);
    must(ca_attend(d.cache, &t, scale, d.q, d.q_stride, native, d.q_stride, CA_F32, 1, &d.ws), "attend");
    check_bits("decode", &d, attend(&d, &t, 2), native);
    free(native);
    attn_data_destroy(&d);
    ca_cost plain;
    ca_cost_defaults(kern, CA_ATTENTION_NATIVE, &plain);
    ca_cost_defaults(kern, CA_ATTENTION_INT8, &cost);
    assert_true(cost.vectors > plain.vectors && cost.page_byte > plain.page_byte);
    must(ca_cost_measure(kern, CA_ATTENTION_INT8, 1, &cost), "measure");
    assert_true(cost.flop > 0.0 && cost.vectors > plain.vectors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_definition), cmocka_unit_test(exact_properties), cmocka_unit_test(shared_bias),
        cmocka_unit_test(extreme_scores),     cmocka_unit_test(large_scores),     cmocka_unit_test(zeros_and_nan),
        cmocka_unit_test(where_it_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
