/* Every kernel set and executor against the double-precision oracle, over shapes where nothing divides, and the properties that
 * hold to the bit. */
#include "attn_case.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const attn_shape shapes[] = {
    /* q_len kv_len hq hkv dim page  what it covers */
    { 128, 384, 4, 1, 128, 128, "everything divides" },
    { 67, 395, 14, 2, 128, 128, "nothing divides, GQA 7" },
    { 100, 333, 9, 3, 64, 128, "SmolLM2 heads" },
    { 1, 64, 8, 8, 64, 64, "decode, MHA" },
    { 1, 517, 9, 3, 64, 128, "decode, GQA 3" },
    { 1, 2500, 9, 3, 64, 128, "decode in three parts" },
    { 1, 1100, 8, 1, 96, 32, "decode in two parts, the last of three small pages" },
    { 1, 17000, 2, 1, 16, 64, "decode in as many parts as there are" },
    { 3, 3, 4, 1, 64, 32, "first tokens, one partial page" },
    { 77, 200, 6, 2, 80, 64, "head_dim 80: a V panel of one vector" },
    { 50, 301, 4, 4, 96, 32, "head_dim 96: a V panel of two vectors" },
    { 40, 260, 4, 2, 112, 64, "head_dim 112: a V panel of three vectors" },
    { 33, 300, 4, 1, 256, 128, "head_dim 256, MQA" },
    { 65, 97, 2, 1, 16, 32, "smallest head" },
    { 257, 257, 1, 1, 64, 128, "whole prompt in one chunk" },
    { 300, 1100, 4, 1, 64, 64, "several jobs of several blocks" },
    { 210, 610, 3, 1, 128, 32, "the same over small pages" },
};

static const char *const isas[] = { "amxbf16", "avx512bf16", "avx512mixed", "avx512", "avx2mixed",
                                    "avx2",    "neonbf16",   "neonmixed",   "neon",   "scalar" };

/* bf16: P is rounded to 8 bits and the output of the exact softmax is fp32: 2^-9 per probability, averaged. */
static double bound(const ca_kern *kern)
{
    return ca_kern_dtype(kern) == CA_BF16 ? 4e-3 : 3e-6;
}

typedef enum executor {
    DENSE,
    BLOCK_SPARSE,
    COMPACT,
    COMPACT_SUB,
    DENSE_TAIL,
    WINDOW,
    NARROW_WINDOW,
    HIDDEN_PAGES, /* a window, and rows that list the pages before it nevertheless */
    ALL_WINDOW,
    N_EXECUTORS
} executor;

/* A random causal mask with the diagonal in, as a selector would give. */
static void random_mask(const ca_mask *m, uint64_t seed, unsigned keep_percent)
{
    for (uint32_t h = 0; h < m->n_heads; h++)
        for (uint32_t i = 0; i < m->n_qblocks; i++)
            for (uint32_t j = 0; j <= m->first_qblock + i; j++)
                if (j == m->first_qblock + i || mix64(&seed) % 100 < keep_percent)
                    m->bits[((size_t)h * m->n_qblocks + i) * m->words + j / 64] |= UINT64_C(1) << (j % 64);
}

static ca_table build(attn_data *d, executor ex, unsigned keep_percent)
{
    ca_table t;
    ca_mask m;
    d->ws.used = 0;
    must(ca_table_create(d->cache, &d->chunk, &d->ws, &t), "table");
    const uint32_t tail = ex == DENSE_TAIL ? d->shape.q_len / 3 : 0;
    if (ex == DENSE || ex == HIDDEN_PAGES) {
        must(ca_table_add_dense(d->cache, 0, d->shape.q_len, &t), "dense");
        for (uint32_t r = 0; r < t.n_rows && ex == HIDDEN_PAGES; r++) t.rows[r].window = 75;
        return t;
    }
    if (ex >= WINDOW) {
        const uint32_t window = ex == WINDOW ? 75 : ex == NARROW_WINDOW ? 7 : d->shape.kv_len;
        must(ca_table_add_window(d->cache, 0, d->shape.q_len, window, &t), "window");
        return t;
    }
    must(ca_mask_create(d->cache, &d->chunk, 0, d->shape.q_len - tail, &d->ws, &m), "mask");
    random_mask(&m, 5, keep_percent);
    const ca_table_opt opt = { .heads_per_row = ex == COMPACT_SUB ? 1 : 0 };
    if (ex == BLOCK_SPARSE)
        must(ca_table_add_block_sparse(d->cache, &m, &t), "block_sparse");
    else
        must(ca_table_add_compact(d->cache, &m, &opt, &t), "compact");
    must(ca_table_add_dense(d->cache, d->shape.q_len - tail, tail, &t), "tail");
    return t;
}

static float *attend(attn_data *d, const ca_table *t, int n_threads)
{
    float *o = new_output(d);
    must(ca_attend(d->cache, t, 0.3F, d->q, d->q_stride, o, d->q_stride, CA_F32, n_threads, &d->ws), "attend");
    return o;
}

static const ca_kern *usable(const char *isa)
{
    const ca_kern *kern = NULL;
    if (ca_kern_choose(isa, &kern) == CA_OK) return kern;
    print_message("[  SKIPPED ] %s: %s\n", isa, ca_last_error());
    return NULL;
}

/* Every value fits in bf16, so one oracle serves all kernel sets. */
static void against_oracle(void **state)
{
    (void)state;
    const ca_kern *plain = NULL;
    must(ca_kern_choose("scalar", &plain), "scalar");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        attn_data ref = attn_data_create(shapes[i], plain, 0, 37, 1.0F);
        float *want[N_EXECUTORS];
        for (executor ex = DENSE; ex < N_EXECUTORS; ex++) {
            const ca_table t = build(&ref, ex, 40);
            want[ex] = new_output(&ref);
            must(ca_attend_oracle(ref.cache, &t, 0.3F, ref.q, ref.q_stride, want[ex], ref.q_stride), "oracle");
        }
        for (size_t a = 0; a < sizeof isas / sizeof *isas; a++) {
            const ca_kern *kern = usable(isas[a]);
            if (!kern) continue;
            attn_data d = attn_data_create(shapes[i], kern, 0, 37, 1.0F);
            for (executor ex = DENSE; ex < N_EXECUTORS; ex++) {
                const ca_table t = build(&d, ex, 40);
                float *o = attend(&d, &t, 2);
                const double err = relative_error(o, want[ex], (size_t)d.shape.q_len * d.q_stride);
                if (!(err <= bound(kern)))
                    fail_msg("%s executor %d, q%u kv%u h%u:%u d%u p%u (%s): relative error %g > %g", isas[a], (int)ex,
                             shapes[i].q_len, shapes[i].kv_len, shapes[i].hq, shapes[i].hkv, shapes[i].dim, shapes[i].page,
                             shapes[i].what, err, bound(kern));
                free(o);
            }
            attn_data_destroy(&d);
        }
        for (executor ex = DENSE; ex < N_EXECUTORS; ex++) free(want[ex]);
        attn_data_destroy(&ref);
    }
}

static void check_bits(const char *isa, const char *what, const attn_shape *s, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], 4) != 0)
            fail_msg("%s q%u kv%u h%u:%u d%u p%u: %s: value %zu is %.9g, not %.9g", isa, s->q_len, s->kv_len, s->hq, s->hkv, s->dim,
                     s->page, what, i, (double)a[i], (double)b[i]);
}

/* Swaps pages around until the ids of every head are out of order. */
static void shuffle_pages(const attn_data *d)
{
    uint64_t seed = 3;
    uint32_t n = 0;
    (void)ca_cache_pages(d->cache, 0, 0, 0, &n);
    for (uint32_t i = 0; i < 4 * n * d->shape.hkv; i++) {
        const uint32_t h1 = (uint32_t)(mix64(&seed) % d->shape.hkv), h2 = (uint32_t)(mix64(&seed) % d->shape.hkv);
        const uint32_t j1 = (uint32_t)(mix64(&seed) % n), j2 = (uint32_t)(mix64(&seed) % n);
        must(ca_cache_swap_pages(d->cache, ca_cache_pages(d->cache, 0, 0, h1, &n)[j1], ca_cache_pages(d->cache, 0, 0, h2, &n)[j2]),
             "swap");
    }
}

static void exact_properties(void **state)
{
    (void)state;
    for (size_t a = 0; a < sizeof isas / sizeof *isas; a++) {
        const ca_kern *kern = usable(isas[a]);
        for (size_t i = 0; kern && i < sizeof shapes / sizeof *shapes; i++) {
            const attn_shape *s = &shapes[i];
            attn_data d = attn_data_create(*s, kern, 0, 0, 1.0F);
            const size_t n = (size_t)s->q_len * d.q_stride;
            ca_table t = build(&d, DENSE, 0);
            float *dense = attend(&d, &t, 1);

            for (executor ex = BLOCK_SPARSE; ex < N_EXECUTORS; ex++) {
                if (ex >= WINDOW && ex != ALL_WINDOW) continue; /* never the whole past */
                t = build(&d, ex, 100);
                float *full = attend(&d, &t, 2);
                check_bits(isas[a], "a full table is not dense", s, full, dense, n);
                free(full);
            }
            t = build(&d, DENSE, 0);
            float *o = attend(&d, &t, 3);
            check_bits(isas[a], "three threads are not one", s, o, dense, n);
            free(o);

            shuffle_pages(&d);
            t = build(&d, DENSE, 0);
            o = attend(&d, &t, 2);
            check_bits(isas[a], "permuted pages", s, o, dense, n);
            free(o);
            attn_data_destroy(&d);

            /* Tokens that came in other pieces, and queries asked one part at a time: the same. */
            d = attn_data_create(*s, kern, 0, 29, 1.0F);
            o = new_output(&d);
            for (uint32_t at = 0; at < s->q_len; at += 19) {
                ca_chunk part = d.chunk;
                part.pos += at;
                part.n_tokens = ca_min_u32(19, s->q_len - at);
                d.ws.used = 0;
                must(ca_table_create(d.cache, &part, &d.ws, &t), "table");
                must(ca_table_add_dense(d.cache, 0, part.n_tokens, &t), "dense");
                must(ca_attend(d.cache, &t, 0.3F, d.q + at * d.q_stride, d.q_stride, o + at * d.q_stride, d.q_stride, CA_F32, 2,
                               &d.ws),
                     "attend");
            }
            check_bits(isas[a], "queries in parts", s, o, dense, n);
            free(o);
            free(dense);
            attn_data_destroy(&d);
        }
    }
}

/* Large, rising and falling scores: the reference of the online softmax moves up and stays there. */
static void extreme_scores(void **state)
{
    (void)state;
    const attn_shape s = { 70, 700, 4, 2, 64, 64, "extreme scores" };
    for (size_t a = 0; a < sizeof isas / sizeof *isas; a++) {
        const ca_kern *kern = usable(isas[a]);
        for (unsigned rising = 0; kern && rising < 2; rising++) {
            attn_data d = attn_data_create(s, kern, 0, 0, 8.0F);
            must(ca_cache_truncate(d.cache, 0, 0), "truncate");
            for (uint32_t t = 0; t < s.kv_len; t++)
                for (size_t i = 0; i < d.kv_stride; i++) {
                    const float f = (float)(rising ? t : s.kv_len - t) / 100.0F;
                    d.k[t * d.kv_stride + i] = ca_bf16_to_f32(ca_f32_to_bf16(d.k[t * d.kv_stride + i] * f));
                }
            must(ca_cache_append(d.cache, 0, 0, &(ca_kv){ .k = d.k, .v = d.v, .stride = d.kv_stride }, s.kv_len), "append");
            const ca_table t = build(&d, DENSE, 0);
            float *o = attend(&d, &t, 2), *want = new_output(&d);
            must(ca_attend_oracle(d.cache, &t, 0.3F, d.q, d.q_stride, want, d.q_stride), "oracle");
            const double err = relative_error(o, want, (size_t)s.q_len * d.q_stride);
            /* Scores of some thousands: fp32 rounding of a score is up to 2^-13, of a probability about 1e-3. */
            if (!(err <= (ca_kern_dtype(kern) == CA_BF16 ? 6e-3 : 1e-3)))
                fail_msg("%s, %s scores: relative error %g", isas[a], rising ? "rising" : "falling", err);
            free(o);
            free(want);
            attn_data_destroy(&d);
        }
    }
}

static void bf16_output_is_rounded_f32(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        attn_data d = attn_data_create(shapes[s], kern, 0, 0, 1.0F);
        const ca_table t = build(&d, DENSE, 0);
        const size_t n = (size_t)d.shape.q_len * d.q_stride;
        float *o = attend(&d, &t, 1);
        uint16_t *b = malloc(n * sizeof *b);
        must(ca_attend(d.cache, &t, 0.3F, d.q, d.q_stride, b, d.q_stride, CA_BF16, 1, &d.ws), "attend");
        for (size_t i = 0; i < n; i++) assert_int_equal(b[i], ca_f32_to_bf16(o[i]));
        free(o);
        free(b);
        attn_data_destroy(&d);
    }
}

/* A workspace of the size that was asked for is enough where every row has one token: those of two Q blocks, and those of a dense run
 * before and behind them. Such rows are added up in parts, whose sums take memory. */
static void one_token_rows(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    for (uint32_t dense = 0; dense < 2; dense++) {
        const uint32_t n = 2 + 2 * dense, kv_len = 16384 + 1 + dense; /* the mask's tokens are the last of a page and the next */
        attn_data d = attn_data_create((attn_shape){ n, kv_len, 4, 1, 256, 128, "rows of one token" }, kern, 0, 0, 1.0F);
        ca_table t;
        ca_mask m;
        must(ca_table_create(d.cache, &d.chunk, &d.ws, &t), "table");
        must(ca_mask_create(d.cache, &d.chunk, dense, 2, &d.ws, &m), "mask");
        assert_int_equal(m.n_qblocks, 2);
        memset(m.bits, 0xff, (size_t)m.n_heads * m.n_qblocks * m.words * sizeof *m.bits);
        must(ca_table_add_block_sparse(d.cache, &m, &t), "block_sparse");
        must(ca_table_add_dense(d.cache, 0, dense, &t), "dense");
        must(ca_table_add_dense(d.cache, 2 + dense, dense, &t), "dense");
        ca_workspace ws = { .size = ca_attend_ws_bytes(d.cache, 4, n, 1) };
        ws.base = aligned_alloc(64, ca_align_up(ws.size, 64));
        float *o = new_output(&d), *want = new_output(&d);
        must(ca_attend(d.cache, &t, 0.3F, d.q, d.q_stride, o, d.q_stride, CA_F32, 1, &ws), "attend");
        must(ca_attend_oracle(d.cache, &t, 0.3F, d.q, d.q_stride, want, d.q_stride), "oracle");
        assert_true(relative_error(o, want, n * d.q_stride) < 1e-2);
        free(o);
        free(want);
        free(ws.base);
        attn_data_destroy(&d);
    }
}

static void bad_calls(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose("scalar", &kern), "kern");
    attn_data d = attn_data_create((attn_shape){ 3, 3, 4, 1, 64, 32, "bad calls" }, kern, 0, 0, 1.0F);
    ca_table t = build(&d, DENSE, 0);
    float o[3 * 4 * 64];
    assert_int_equal(ca_attend(d.cache, &t, 0.0F, d.q, d.q_stride, o, d.q_stride, CA_F32, 1, &d.ws), CA_E_ARG);
    assert_int_equal(ca_attend(d.cache, &t, 1.0F, d.q, 5, o, d.q_stride, CA_F32, 1, &d.ws), CA_E_SHAPE);
    assert_int_equal(ca_attend(d.cache, &t, 1.0F, d.q, d.q_stride, o, d.q_stride, CA_F32, 0, &d.ws), CA_E_ARG);
    const uint32_t page = t.pages[0];
    t.pages[0] = 1000000;
    assert_int_equal(ca_attend(d.cache, &t, 1.0F, d.q, d.q_stride, o, d.q_stride, CA_F32, 1, &d.ws), CA_E_ARG);
    t.pages[0] = page;
    t.rows[0].n_tokens = 4;
    assert_int_equal(ca_attend(d.cache, &t, 1.0F, d.q, d.q_stride, o, d.q_stride, CA_F32, 1, &d.ws), CA_E_SHAPE);
    t.rows[0].n_tokens = 3;
    ca_workspace small = d.ws;
    small.size = small.used + 64;
    assert_int_equal(ca_attend(d.cache, &t, 1.0F, d.q, d.q_stride, o, d.q_stride, CA_F32, 1, &small), CA_E_WORKSPACE);
    assert_non_null(strstr(ca_last_error(), "bytes of workspace needed"));
    for (small.size = small.used; small.size < d.ws.size; small.size += 64) { /* a failure takes nothing */
        const ca_status st = ca_attend(d.cache, &t, 1.0F, d.q, d.q_stride, o, d.q_stride, CA_F32, 1, &small);
        assert_int_equal(small.used, d.ws.used);
        if (st == CA_OK) break;
        assert_int_equal(st, CA_E_WORKSPACE);
    }
    assert_true(small.size < d.ws.size);
    assert_int_equal(ca_kern_choose("sse9", &kern), CA_E_ARG);
    attn_data_destroy(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_oracle), cmocka_unit_test(exact_properties),
        cmocka_unit_test(extreme_scores), cmocka_unit_test(bf16_output_is_rounded_f32),
        cmocka_unit_test(one_token_rows), cmocka_unit_test(bad_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
