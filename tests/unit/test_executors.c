/* The checks (a) to (h) of spec/attention.md 12 for every kernel set and shapes where nothing divides: what must be equal is equal to
 * the bit, and everything else follows a double-precision softmax over the visible keys of its definition. (g), batches, is in
 * test_batch.c. */
#include "unit/select_case.h"

#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const select_case cases[] = {
    /* q_len kv_len hq hkv dim page */
    { { 45, 371, 6, 2, 80, 32, "nothing divides" }, 0, 0, 0 }, { { 130, 391, 3, 1, 96, 64, "the cache goes on" }, 45, 0, 0 },
    { { 100, 420, 6, 2, 80, 128, "pages of 128" }, 0, 0, 0 },  { { 64, 256, 4, 2, 64, 32, "everything divides" }, 0, 0, 0 },
    { { 70, 300, 6, 1, 96, 64, "group of 6" }, 20, 0, 0 },
};
enum { N_CASES = sizeof cases / sizeof *cases };

/* bf16 sets round probabilities and queries' products to 8 bits; see tests/kernels/test_attend.c. */
static double bound(const ca_kern *kern)
{
    return ca_kern_dtype(kern) == CA_BF16 ? 4e-3 : 3e-6;
}

static attn_data data_of(const select_case *c, const ca_kern *kern)
{
    attn_data d = attn_data_create(c->shape, kern, 0, 0, 0.7F);
    const ca_cache_opt opt = { .n_layers = 1,
                               .n_kv_heads = c->shape.hkv,
                               .head_dim = c->shape.dim,
                               .page_tokens = c->shape.page,
                               .max_seqs = 1,
                               .capacity_tokens = c->shape.kv_len,
                               .summaries = CA_SUMMARY_MEAN_K | CA_SUMMARY_NORM_K,
                               .gather_tokens = c->shape.kv_len,
                               .kern = kern };
    d.chunk.pos = c->shape.kv_len - c->after - c->shape.q_len;
    lean(d.k, c->shape.kv_len, c->shape.hkv, c->shape.dim, 0, c->shape.page, 100);
    lean(d.q, c->shape.q_len, c->shape.hq, c->shape.dim, d.chunk.pos, c->shape.page, 900000);
    ca_cache_destroy(d.cache);
    must(ca_cache_create(&opt, &d.cache), "cache");
    must(ca_cache_append(d.cache, 0, 0, &(ca_kv){ .k = d.k, .v = d.v, .stride = d.kv_stride }, c->shape.kv_len), "append");
    return d;
}

typedef enum executor { DENSE, BLOCK_SPARSE, COMPACT, COMPACT_1, COMPACT_G, FINER, AUTO, AUTO_COARSE, QUOKA, N_EXECUTORS } executor;

static const char *const names[] = { "dense", "block_sparse", "compactattn", "heads_per_row 1", "heads_per_row G", "two Q blocks",
                                     "auto",  "auto, coarse", "quoka" };

typedef struct method {
    ca_select_opt select;
    executor ex;
} method;

/* Gathered tokens for tokens [first, +n) of the chunk, as a session asks for them. */
static void add_quoka(attn_data *d, const ca_select_opt *select, uint32_t first, uint32_t n, ca_table *t)
{
    const uint32_t cap = d->shape.kv_len, hkv = d->shape.hkv, page_cap = cap / d->shape.page + 1;
    uint32_t *tokens = malloc((size_t)hkv * cap * sizeof *tokens), *pages = malloc((size_t)hkv * page_cap * sizeof *pages);
    uint32_t *counts = malloc(hkv * sizeof *counts), n_tokens = 0;
    ca_chunk chunk = d->chunk;
    chunk.pos += first;
    chunk.n_tokens = n;
    const ca_queries q = { .q = d->q + first * d->q_stride, .stride = d->q_stride };
    must(ca_select_tokens(d->cache, select, &chunk, &q, &d->ws, tokens, &n_tokens, NULL), "quoka");
    for (uint32_t kv = 0; kv < hkv; kv++) {
        counts[kv] = (n_tokens + d->shape.page - 1) / d->shape.page;
        must(ca_cache_gather(d->cache, 0, 0, kv, tokens + (size_t)kv * cap, n_tokens, pages + (size_t)kv * page_cap), "gather");
    }
    must(ca_table_add_gathered(d->cache, first, n, pages, page_cap, counts, t), "gathered");
    free(tokens);
    free(pages);
    free(counts);
}

/* The table of a method; *mask is valid until the next build. */
static ca_table build(attn_data *d, const method *how, ca_mask *mask)
{
    ca_table t;
    ca_cost cost;
    const uint32_t group = d->shape.hq / d->shape.hkv, n = d->shape.q_len;
    const ca_queries q = queries_of(d);
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    ca_cost_defaults(kern, CA_ATTENTION_NATIVE, &cost);
    d->ws.used = 0;
    must(ca_table_create(d->cache, &d->chunk, &d->ws, &t), "table");
    if (how->ex != DENSE && how->ex != QUOKA) {
        must(ca_mask_create(d->cache, &d->chunk, 0, n, &d->ws, mask), "mask");
        must(ca_select(d->cache, &how->select, &d->chunk, &q, &d->ws, mask, NULL), "select");
    }
    switch (how->ex) {
    case DENSE: must(ca_table_add_dense(d->cache, 0, n, &t), "dense"); break;
    case QUOKA: add_quoka(d, &how->select, 0, n, &t); break;
    case BLOCK_SPARSE: must(ca_table_add_block_sparse(d->cache, mask, &t), "block_sparse"); break;
    case AUTO: must(ca_table_add_auto(d->cache, mask, &cost, &(ca_worth){ .whole = 2.0F }, NULL, &t), "auto"); break;
    case AUTO_COARSE: must(ca_table_add_auto(d->cache, mask, &cost, &(ca_worth){ 1e6F, 1e6F, 2.0F }, NULL, &t), "auto"); break;
    default: {
        const ca_table_opt opt = { how->ex == COMPACT_1 ? 1 : how->ex == COMPACT_G ? group : 0, how->ex == FINER ? 2 : 0 };
        must(ca_table_add_compact(d->cache, mask, &opt, &t), "compactattn");
    }
    }
    return t;
}

static float scale_of(const attn_data *d)
{
    return 1.0F / sqrtf((float)d->shape.dim);
}

static float *attend(attn_data *d, const ca_table *t)
{
    float *o = new_output(d);
    must(ca_attend(d->cache, t, scale_of(d), d->q, d->q_stride, o, d->q_stride, CA_F32, 1, &d->ws), "attend");
    return o;
}

static float *run(attn_data *d, const method *how, ca_mask *mask)
{
    const ca_table t = build(d, how, mask);
    return attend(d, &t);
}

static void check_bits(const attn_data *d, const ca_kern *kern, const char *what, const float *a, const float *b)
{
    if (memcmp(a, b, (size_t)d->shape.q_len * d->q_stride * sizeof *a) != 0)
        fail_msg("%s, %s: %s", ca_kern_name(kern), d->shape.what, what);
}

static ca_select_opt flashprefill(float alpha, uint32_t sink, uint32_t window)
{
    return (ca_select_opt){ .selector = CA_SELECT_FLASHPREFILL,
                            .flashprefill = { .alpha = alpha, .sink = sink, .window = window } };
}

static ca_select_opt quoka(float query_ratio, float kv_ratio)
{
    return (ca_select_opt){ .selector = CA_SELECT_QUOKA, .quoka = { query_ratio, kv_ratio } };
}

/* Calls body with every (case, kernel set). */
static void for_all(void (*body)(attn_data *d, const ca_kern *kern))
{
    const kern_list kerns = usable_kerns();
    for (size_t n = 0; n < N_CASES * kerns.n; n++) {
        attn_data d = data_of(&cases[n / kerns.n], kerns.kern[n % kerns.n]);
        body(&d, kerns.kern[n % kerns.n]);
        attn_data_destroy(&d);
    }
}

/* (a) alpha 0 is dense; (c) 0 and G heads per row are the same; (d) a ratio of 1 makes quoka dense. */
static void same_as_dense(attn_data *d, const ca_kern *kern)
{
    ca_mask m;
    float *dense = run(d, &(method){ .ex = DENSE }, &m);
    for (executor ex = BLOCK_SPARSE; ex < N_EXECUTORS; ex++) {
        float *o = run(d, &(method){ ex == QUOKA ? quoka(0.25F, 1.0F) : flashprefill(0.0F, 0, 1), ex }, &m);
        check_bits(d, kern, names[ex], o, dense);
        free(o);
    }
    /* quoka for the tokens behind a dense prefix of any length reads every key once, too. */
    for (uint32_t first = 1; first < d->shape.q_len; first += 23) {
        ca_table t;
        ca_table_count count;
        const ca_select_opt select = quoka(0.5F, 1.0F);
        d->ws.used = 0;
        must(ca_table_create(d->cache, &d->chunk, &d->ws, &t), "table");
        must(ca_table_add_dense(d->cache, 0, first, &t), "dense");
        add_quoka(d, &select, first, d->shape.q_len - first, &t);
        ca_table_measure(d->cache, &t, &count);
        assert_true(count.past_pairs == count.past_pairs_dense);
        float *o = attend(d, &t);
        check_bits(d, kern, "quoka behind a dense prefix", o, dense);
        free(o);
    }
    free(dense);
}

static void full_is_dense(void **state)
{
    (void)state;
    for_all(same_as_dense);
}

typedef bool (*visible_fn)(const attn_data *d, const ca_mask *m, uint32_t h, uint32_t pos, uint32_t k);

/* Softmax over the visible keys with k <= pos, from the arrays, for every seventh token; the others are copied from got. */
static float *by_definition(const attn_data *d, const ca_mask *m, visible_fn visible, const float *got)
{
    const uint32_t dim = d->shape.dim, group = d->shape.hq / d->shape.hkv;
    float *o = new_output(d);
    double *p = malloc(d->shape.kv_len * sizeof *p);
    memcpy(o, got, (size_t)d->shape.q_len * d->q_stride * sizeof *o);
    for (uint32_t i = 0; i < d->shape.q_len; i += 7)
        for (uint32_t h = 0; h < d->shape.hq; h++) {
            const uint32_t pos = d->chunk.pos + i;
            const float *q = d->q + i * d->q_stride + (size_t)h * dim;
            double top = -INFINITY, sum = 0.0, acc[256] = { 0 };
            for (uint32_t k = 0; k <= pos; k++) {
                const float *key = d->k + k * d->kv_stride + (size_t)(h / group) * dim;
                p[k] = -INFINITY;
                if (!visible(d, m, h, pos, k)) continue;
                p[k] = 0.0;
                for (uint32_t e = 0; e < dim; e++) p[k] += (double)q[e] * (double)key[e];
                p[k] /= sqrt(dim);
                top = fmax(top, p[k]);
            }
            for (uint32_t k = 0; k <= pos; k++) {
                const float *value = d->v + k * d->kv_stride + (size_t)(h / group) * dim;
                const double e = isfinite(p[k]) ? exp(p[k] - top) : 0.0;
                sum += e;
                for (uint32_t x = 0; x < dim; x++) acc[x] += e * (double)value[x];
            }
            for (uint32_t x = 0; x < dim; x++) o[i * d->q_stride + (size_t)h * dim + x] = (float)(acc[x] / sum);
        }
    free(p);
    return o;
}

static bool in_own_page(const attn_data *d, const ca_mask *m, uint32_t h, uint32_t pos, uint32_t k)
{
    (void)m, (void)h;
    return k / d->shape.page == pos / d->shape.page;
}

/* The current chunk is open from the page of its first token on. */
static bool in_chunk(const attn_data *d, const ca_mask *m, uint32_t h, uint32_t pos, uint32_t k)
{
    (void)m, (void)h, (void)pos;
    return k / d->shape.page >= d->chunk.pos / d->shape.page;
}

static bool in_row(const attn_data *d, const ca_mask *m, uint32_t h, uint32_t pos, uint32_t k)
{
    const uint32_t i = pos / d->shape.page - m->first_qblock;
    return bit(m->bits + ((size_t)h * m->n_qblocks + i) * m->words, k / d->shape.page);
}

static bool in_union(const attn_data *d, const ca_mask *m, uint32_t first, uint32_t n, uint32_t k)
{
    for (uint32_t r = first * m->n_qblocks; r < (first + n) * m->n_qblocks; r++)
        if (bit(m->bits + (size_t)r * m->words, k / d->shape.page)) return true;
    return in_chunk(d, m, 0, 0, k);
}

static bool in_head_union(const attn_data *d, const ca_mask *m, uint32_t h, uint32_t pos, uint32_t k)
{
    (void)pos;
    return in_union(d, m, h, 1, k);
}

static bool in_group_union(const attn_data *d, const ca_mask *m, uint32_t h, uint32_t pos, uint32_t k)
{
    const uint32_t group = d->shape.hq / d->shape.hkv;
    (void)pos;
    return in_union(d, m, h / group * group, group, k);
}

/* (b) alpha above 1 without sink and with one page of window; (c) and (f) masks of the selector's own. */
static void follows_definition(attn_data *d, const ca_kern *kern)
{
    static const struct {
        executor ex;
        float alpha;
        visible_fn visible;
    } rules[] = { { BLOCK_SPARSE, 2.0F, in_own_page }, { COMPACT, 2.0F, in_chunk },       { BLOCK_SPARSE, 0.3F, in_row },
                  { COMPACT_1, 0.3F, in_head_union },  { COMPACT, 0.3F, in_group_union }, { COMPACT_G, 0.3F, in_group_union } };
    const size_t n = (size_t)d->shape.q_len * d->q_stride;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        ca_mask m;
        float *o = run(d, &(method){ flashprefill(rules[i].alpha, 0, d->shape.page), rules[i].ex }, &m);
        float *want = by_definition(d, &m, rules[i].visible, o);
        const double err = relative_error(o, want, n) * sqrt(7.0);
        if (!(err <= bound(kern)))
            fail_msg("%s, %s: %s at alpha %g: relative error %g", ca_kern_name(kern), d->shape.what, names[rules[i].ex],
                     (double)rules[i].alpha, err);
        free(o);
        free(want);
    }
}

static void definitions(void **state)
{
    (void)state;
    for_all(follows_definition);
}

static ca_select_opt usual(executor ex)
{
    return ex == QUOKA ? quoka(0.25F, 0.3F) : flashprefill(0.3F, 33, 40);
}

/* (f), for executors that definitions() does not cover; the oracle is slow, so once per type of page. */
static void follows_oracle(attn_data *d, const ca_kern *kern)
{
    static const executor some[] = { FINER, AUTO, QUOKA };
    if (strcmp(ca_kern_name(kern), "avx512") == 0 || strcmp(ca_kern_name(kern), "avx2") == 0 ||
        strcmp(ca_kern_name(kern), "avx2mixed") == 0)
        return;
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        const executor ex = some[i];
        ca_mask m;
        const ca_table t = build(d, &(method){ usual(ex), ex }, &m);
        float *o = attend(d, &t), *want = new_output(d);
        must(ca_attend_oracle(d->cache, &t, scale_of(d), d->q, d->q_stride, want, d->q_stride), "oracle");
        const double err = relative_error(o, want, (size_t)d->shape.q_len * d->q_stride);
        if (!(err <= bound(kern))) fail_msg("%s, %s: %s: relative error %g", ca_kern_name(kern), d->shape.what, names[ex], err);
        free(o);
        free(want);
    }
}

static void ragged_equals_oracle(void **state)
{
    (void)state;
    for_all(follows_oracle);
}

static void shuffle_pages(const attn_data *d)
{
    uint64_t seed = 3;
    for (unsigned i = 0; i < 60; i++) {
        uint32_t n = 0;
        const uint32_t *a = ca_cache_pages(d->cache, 0, 0, (uint32_t)(mix64(&seed) % d->shape.hkv), &n);
        const uint32_t *b = ca_cache_pages(d->cache, 0, 0, (uint32_t)(mix64(&seed) % d->shape.hkv), &n);
        must(ca_cache_swap_pages(d->cache, a[mix64(&seed) % n], b[mix64(&seed) % n]), "swap");
    }
}

/* (e) */
static void survives_shuffle(attn_data *d, const ca_kern *kern)
{
    float *before[N_EXECUTORS];
    ca_mask m;
    for (executor ex = DENSE; ex < N_EXECUTORS; ex++) before[ex] = run(d, &(method){ usual(ex), ex }, &m);
    uint32_t n = 0;
    const uint32_t first = ca_cache_pages(d->cache, 0, 0, 0, &n)[0];
    shuffle_pages(d);
    assert_true(first != ca_cache_pages(d->cache, 0, 0, 0, &n)[0]);
    for (executor ex = DENSE; ex < N_EXECUTORS; ex++) {
        float *o = run(d, &(method){ usual(ex), ex }, &m);
        check_bits(d, kern, names[ex], o, before[ex]);
        free(o);
        free(before[ex]);
    }
}

static void pages_may_move(void **state)
{
    (void)state;
    for_all(survives_shuffle);
}

/* Pages that a table reads for (token, head): u8 [q_len][hq][blocks], and that it has them in one row only. */
static uint8_t *reads_of(const attn_data *d, const ca_table *t, uint32_t n_blocks)
{
    uint8_t *all = calloc((size_t)d->shape.q_len * d->shape.hq * (n_blocks + 1), 1);
    for (uint32_t r = 0; r < t->n_rows; r++) {
        const ca_row *row = &t->rows[r];
        for (uint32_t i = 0; i < row->n_tokens * row->n_heads; i++) {
            uint8_t *at = all +
                          ((size_t)(row->token + i / row->n_heads) * d->shape.hq + row->head + i % row->n_heads) * (n_blocks + 1);
            if (at[n_blocks]++ > 0)
                fail_msg("%s: row %u: token %u, head %u are there twice", d->shape.what, r, row->token, row->head);
            for (uint32_t p = 0; p < row->n_pages; p++) at[ca_page_pos(d->cache, t->pages[row->first_page + p]) / d->shape.page]++;
        }
    }
    for (size_t i = 0; i < (size_t)d->shape.q_len * d->shape.hq; i++) assert_int_equal(all[i * (n_blocks + 1) + n_blocks], 1);
    return all;
}

/* (h): unions of more heads or Q blocks read more, and all read what block_sparse reads. */
static void unions_grow(attn_data *d, const ca_kern *kern)
{
    static const executor chain[][2] = {
        { BLOCK_SPARSE, FINER }, { BLOCK_SPARSE, COMPACT_1 }, { FINER, COMPACT }, { COMPACT_1, COMPACT }, { BLOCK_SPARSE, AUTO }
    };
    const uint32_t nb = d->shape.kv_len / d->shape.page + 1;
    size_t more = 0;
    for (size_t c = 0; c < sizeof chain / sizeof *chain; c++) {
        ca_mask m;
        ca_table t = build(d, &(method){ flashprefill(0.3F, 0, 1), chain[c][0] }, &m);
        uint8_t *small = reads_of(d, &t, nb);
        t = build(d, &(method){ flashprefill(0.3F, 0, 1), chain[c][1] }, &m);
        uint8_t *large = reads_of(d, &t, nb);
        for (size_t i = 0; i < (size_t)d->shape.q_len * d->shape.hq * (nb + 1); i++) {
            if (small[i] > large[i])
                fail_msg("%s: %s does not read what %s reads", d->shape.what, names[chain[c][1]], names[chain[c][0]]);
            more += large[i] > small[i];
        }
        free(small);
        free(large);
    }
    assert_true(more > 0);
    (void)kern;
}

static void supersets(void **state)
{
    (void)state;
    for_all(unions_grow);
}

int main(void)
{
    omp_set_num_threads(1); /* the cases are tiny: threads would only wait for each other */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_is_dense),  cmocka_unit_test(definitions), cmocka_unit_test(ragged_equals_oracle),
        cmocka_unit_test(pages_may_move), cmocka_unit_test(supersets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
