/* Several sequences in one call, check (g) of spec/attention.md 12: rows of chunks of any length and place share a table, and each
 * token's result is that of a call of its own, to the bit. And gathered tokens: what ca_cache_gather copies is what was there. */
#include "unit/select_case.h"

#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { HQ = 6, HKV = 2, DIM = 80, MAX_SEQS = 3 };

typedef struct part {
    uint32_t seq, pos, n, len; /* the chunk, and tokens that its sequence holds */
} part;

static const part parts[] = { { 0, 301, 77, 378 }, { 2, 64, 130, 210 }, { 1, 0, 45, 45 }, { 2, 33, 31, 210 } };
enum { N_PARTS = sizeof parts / sizeof *parts, N_TOKENS = 77 + 130 + 45 + 31, MAX_LEN = 378 };

typedef struct world {
    ca_cache *cache;
    float *k, *v, *q; /* k, v: of all sequences; q: of all chunks, in order */
    size_t kv_stride, q_stride;
    ca_chunk chunks[N_PARTS];
    ca_workspace ws;
    float scale;
} world;

static world world_create(const ca_kern *kern, uint32_t page)
{
    world w = { .kv_stride = (size_t)HKV * DIM, .q_stride = (size_t)HQ * DIM, .scale = 0.11F };
    const ca_cache_opt opt = { .n_layers = 2,
                               .n_kv_heads = HKV,
                               .head_dim = DIM,
                               .page_tokens = page,
                               .max_seqs = MAX_SEQS,
                               .capacity_tokens = 1000,
                               .summaries = CA_SUMMARY_MEAN_K | CA_SUMMARY_NORM_K,
                               .gather_tokens = MAX_LEN,
                               .kern = kern };
    w.k = random_values(MAX_SEQS * MAX_LEN * w.kv_stride, 1.0F, 21);
    w.v = random_values(MAX_SEQS * MAX_LEN * w.kv_stride, 1.0F, 22);
    w.q = random_values(N_TOKENS * w.q_stride, 0.7F, 23);
    lean(w.k, MAX_SEQS * MAX_LEN, HKV, DIM, 0, page, 5);
    lean(w.q, N_TOKENS, HQ, DIM, 0, page, 6);
    must(ca_cache_create(&opt, &w.cache), "cache");
    static const uint32_t lens[MAX_SEQS] = { 378, 45, 210 };
    for (uint32_t at = 0; at < MAX_LEN; at += 50) /* in turns, so that pages of the sequences mix */
        for (uint32_t seq = 0; seq < MAX_SEQS; seq++) {
            const size_t first = (seq * (size_t)MAX_LEN + at) * w.kv_stride;
            if (at < lens[seq])
                must(ca_cache_append(w.cache, seq, 1, &(ca_kv){ .k = w.k + first, .v = w.v + first, .stride = w.kv_stride },
                                     ca_min_u32(50, lens[seq] - at)),
                     "append");
        }
    const ca_select_opt quoka = { .selector = CA_SELECT_QUOKA, .quoka = { 0.25F, 0.3F } };
    uint32_t first = 0;
    for (size_t i = 0; i < N_PARTS; i++) {
        w.chunks[i] = (ca_chunk){ .seq = parts[i].seq, .layer = 1, .pos = parts[i].pos, .n_tokens = parts[i].n, .n_heads = HQ };
        w.chunks[i].first = first;
        first += parts[i].n;
        w.ws.size += 2 * ca_table_ws_bytes(w.cache, HQ, parts[i].n, parts[i].len) + ca_attend_ws_bytes(w.cache, HQ, parts[i].n, 2) +
                     ca_select_ws_bytes(w.cache, &quoka, HQ, parts[i].n, parts[i].len) + 4096;
    }
    w.ws.base = aligned_alloc(64, ca_align_up(w.ws.size, 64));
    return w;
}

static void world_destroy(world *w)
{
    ca_cache_destroy(w->cache);
    free(w->k);
    free(w->v);
    free(w->q);
    free(w->ws.base);
}

/* Rows of the table's chunk, each chunk by another builder; where shift is set the queries are found at the chunk's first. */
static void add_rows(world *w, size_t which, const ca_chunk *chunk, ca_table *t)
{
    const ca_select_opt flash = { .selector = CA_SELECT_FLASHPREFILL, .flashprefill = { .alpha = 0.4F, .window = 1 } };
    const ca_queries q = { .q = w->q + w->chunks[which].first * w->q_stride, .stride = w->q_stride };
    ca_mask m;
    must(ca_mask_create(w->cache, chunk, 0, chunk->n_tokens, &w->ws, &m), "mask");
    must(ca_select(w->cache, &flash, chunk, &q, &w->ws, &m, NULL), "select");
    switch (which % 4) {
    case 0: must(ca_table_add_compact(w->cache, &m, &(ca_table_opt){ 0 }, t), "compactattn"); break;
    case 1: must(ca_table_add_block_sparse(w->cache, &m, t), "block_sparse"); break;
    case 2: must(ca_table_add_dense(w->cache, 0, chunk->n_tokens, t), "dense"); break;
    default: must(ca_table_add_compact(w->cache, &m, &(ca_table_opt){ 1, 1 }, t), "fine rows");
    }
}

static float *new_values(size_t n)
{
    float *o = malloc(n * sizeof *o);
    for (size_t i = 0; i < n; i++) o[i] = NAN;
    return o;
}

static void batch_equals_single(void **state)
{
    (void)state;
    static const uint32_t pages[] = { 32, 64, 128 };
    const kern_list kerns = usable_kerns();
    for (size_t n = 0; n < kerns.n * 3; n++) {
        world w = world_create(kerns.kern[n / 3], pages[n % 3]);
        float *together = new_values(N_TOKENS * w.q_stride), *oracle = new_values(N_TOKENS * w.q_stride);
        ca_table t;
        must(ca_table_create_batch(w.cache, w.chunks, N_PARTS, &w.ws, &t), "batch");
        assert_int_equal(t.n_tokens, N_TOKENS);
        for (size_t i = 0; i < N_PARTS; i++) {
            if (i > 0) must(ca_table_next_chunk(w.cache, &w.chunks[i], &t), "next");
            add_rows(&w, i, &w.chunks[i], &t);
        }
        must(ca_attend(w.cache, &t, w.scale, w.q, w.q_stride, together, w.q_stride, CA_F32, 2, &w.ws), "attend");
        must(ca_attend_oracle(w.cache, &t, w.scale, w.q, w.q_stride, oracle, w.q_stride), "oracle");
        const double err = relative_error(together, oracle, N_TOKENS * w.q_stride);
        if (!(err <= (ca_kern_dtype(kerns.kern[n / 3]) == CA_BF16 ? 4e-3 : 3e-6)))
            fail_msg("%s: relative error %g", ca_kern_name(kerns.kern[n / 3]), err);
        for (size_t i = 0; i < N_PARTS; i++) {
            ca_chunk alone = w.chunks[i];
            const size_t at = alone.first * w.q_stride, count = alone.n_tokens * w.q_stride;
            float *o = new_values(count);
            alone.first = 0;
            w.ws.used = 0;
            must(ca_table_create(w.cache, &alone, &w.ws, &t), "table");
            add_rows(&w, i, &alone, &t);
            must(ca_attend(w.cache, &t, w.scale, w.q + at, w.q_stride, o, w.q_stride, CA_F32, 1, &w.ws), "attend");
            if (memcmp(o, together + at, count * sizeof *o) != 0)
                fail_msg("%s, pages of %u: chunk %zu differs from a call of its own", ca_kern_name(kerns.kern[n / 3]), pages[n % 3],
                         i);
            free(o);
        }
        free(together);
        free(oracle);
        world_destroy(&w);
    }
}

static void bad_batches(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    world w = world_create(kern, 64);
    ca_table t;
    ca_chunk c[2] = { w.chunks[0], w.chunks[1] };
    assert_int_equal(ca_table_create_batch(w.cache, c, 0, &w.ws, &t), CA_E_ARG);
    c[1].layer = 0;
    assert_int_not_equal(ca_table_create_batch(w.cache, c, 2, &w.ws, &t), CA_OK); /* layer 0 is empty, too */
    c[1] = w.chunks[1];
    c[1].n_heads = 4;
    assert_int_equal(ca_table_create_batch(w.cache, c, 2, &w.ws, &t), CA_E_SHAPE);
    assert_non_null(strstr(ca_last_error(), "chunk 1 of a batch"));
    c[1] = w.chunks[1];
    c[1].first = UINT32_MAX - 5;
    assert_int_equal(ca_table_create_batch(w.cache, c, 2, &w.ws, &t), CA_E_SHAPE);
    c[1] = w.chunks[1];
    c[1].n_tokens = 1000;
    assert_int_equal(ca_table_create_batch(w.cache, c, 2, &w.ws, &t), CA_E_SHAPE);
    assert_int_equal(w.ws.used, 0);
    must(ca_table_create_batch(w.cache, w.chunks, 2, &w.ws, &t), "batch");
    assert_int_equal(ca_table_next_chunk(w.cache, &w.chunks[2], &t), CA_E_SHAPE); /* its tokens lie behind the arrays */
    assert_non_null(strstr(ca_last_error(), "not those of a chunk"));
    ca_chunk other = w.chunks[1];
    other.n_heads = 12;
    assert_int_equal(ca_table_next_chunk(w.cache, &other, &t), CA_E_SHAPE);
    assert_int_equal(t.chunk.seq, w.chunks[0].seq);
    ca_workspace small = { .base = w.ws.base, .size = 256 };
    assert_int_equal(ca_table_create_batch(w.cache, w.chunks, 2, &small, &t), CA_E_WORKSPACE);
    world_destroy(&w);
}

/* Tokens of sequence 0 in ascending order: about one of `every`. */
static uint32_t some_tokens(uint32_t every, uint64_t seed, uint32_t *out)
{
    uint32_t n = 0;
    for (uint32_t t = 0; t < MAX_LEN; t++)
        if (mix64(&seed) % every == 0) out[n++] = t;
    return n;
}

static void check_gathered(const world *w, uint32_t page, uint32_t kv, const uint32_t *tokens, uint32_t n, const uint32_t *pages)
{
    float k[128 * DIM], v[128 * DIM], want_k[128 * DIM], want_v[128 * DIM];
    for (uint32_t p = 0, at = 0; at < n; p++, at += page) {
        const uint32_t count = ca_min_u32(page, n - at);
        must(ca_page_read(w->cache, pages[p], k, v), "read");
        memset(want_k, 0, sizeof want_k);
        memset(want_v, 0, sizeof want_v);
        for (uint32_t i = 0; i < count; i++) { /* values fit in bf16: nothing is rounded */
            const size_t from = tokens[at + i] * w->kv_stride + (size_t)kv * DIM;
            memcpy(want_k + (size_t)i * DIM, w->k + from, DIM * sizeof *k);
            memcpy(want_v + (size_t)i * DIM, w->v + from, DIM * sizeof *v);
        }
        assert_int_equal(ca_page_len(w->cache, pages[p]), count);
        if (memcmp(k, want_k, (size_t)page * DIM * sizeof *k) != 0 || memcmp(v, want_v, (size_t)page * DIM * sizeof *v) != 0)
            fail_msg("page %u of %u gathered tokens is not what was there", p, n);
    }
}

static void gathered_tokens(void **state)
{
    (void)state;
    static const uint32_t page_sizes[] = { 32, 64, 128 }, every[] = { 1, 2, 3, 7, 50, 100000 };
    const kern_list kerns = usable_kerns();
    for (size_t n = 0; n < kerns.n * 3; n++) {
        const uint32_t page = page_sizes[n % 3];
        world w = world_create(kerns.kern[n / 3], page);
        uint32_t tokens[HKV][MAX_LEN], count[HKV], pages[HKV][MAX_LEN / 32 + 1];
        for (size_t e = 0; e < sizeof every / sizeof *every; e++) {
            for (uint32_t kv = 0; kv < HKV; kv++) {
                count[kv] = some_tokens(every[e], 40 + kv, tokens[kv]);
                must(ca_cache_gather(w.cache, 0, 1, kv, tokens[kv], count[kv], pages[kv]), "gather");
            }
            for (uint32_t kv = 0; kv < HKV; kv++) check_gathered(&w, page, kv, tokens[kv], count[kv], pages[kv]);
        }
        const uint32_t last[] = { MAX_LEN - 1 }; /* a shorter list leaves nothing of a longer one */
        must(ca_cache_gather(w.cache, 0, 1, 1, last, 1, pages[1]), "gather");
        check_gathered(&w, page, 1, last, 1, pages[1]);
        world_destroy(&w);
    }
}

static void bad_gathers(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    world w = world_create(kern, 64);
    static const struct {
        uint32_t seq, layer, kv, tokens[3], n;
        ca_status status;
        const char *says;
    } bad[] = {
        { 0, 1, 0, { 5, 5, 6 }, 3, CA_E_ARG, "token 5 at 1" },
        { 0, 1, 0, { 5, 7, 6 }, 3, CA_E_ARG, "must ascend" },
        { 0, 1, 0, { 5, 377, 378 }, 3, CA_E_ARG, "token 378 at 2" },
        { 1, 1, 0, { 45 }, 1, CA_E_ARG, "below 45" },
        { 0, 0, 0, { 0 }, 1, CA_E_ARG, "below 0" },
        { 3, 1, 0, { 0 }, 1, CA_E_ARG, "sequence 3" },
        { 0, 2, 0, { 0 }, 1, CA_E_ARG, "layer 2" },
        { 0, 1, 2, { 0 }, 1, CA_E_ARG, "KV head 2" },
        { 0, 1, 0, { 0 }, 1000, CA_E_FULL, "1000 tokens" },
    };
    uint32_t pages[MAX_LEN];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint32_t many[1000] = { 0 };
        memcpy(many, bad[i].tokens, sizeof bad[i].tokens);
        if (ca_cache_gather(w.cache, bad[i].seq, bad[i].layer, bad[i].kv, many, bad[i].n, pages) != bad[i].status ||
            !strstr(ca_last_error(), bad[i].says))
            fail_msg("case %zu ('%s'): '%s'", i, bad[i].says, ca_last_error());
    }
    uint32_t n = 0;
    const uint32_t token = 3, in_use = ca_cache_pages(w.cache, 0, 1, 0, &n)[0];
    must(ca_cache_gather(w.cache, 0, 1, 0, &token, 1, pages), "gather");
    assert_int_equal(ca_cache_swap_pages(w.cache, pages[0], in_use), CA_E_ARG); /* scratch stays where it is */
    world_destroy(&w);

    const ca_cache_opt none = {
        .n_layers = 1, .n_kv_heads = 1, .head_dim = 16, .page_tokens = 32, .max_seqs = 1, .capacity_tokens = 64, .kern = kern
    };
    ca_cache_opt large = none;
    ca_cache *cache = NULL;
    large.gather_tokens = 65;
    assert_int_equal(ca_cache_create(&large, &cache), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "gather_tokens 65"));
    must(ca_cache_create(&none, &cache), "cache");
    const float zeros[5 * 16] = { 0 };
    must(ca_cache_append(cache, 0, 0, &(ca_kv){ .k = zeros, .v = zeros, .stride = 16 }, 5), "append");
    assert_int_equal(ca_cache_gather(cache, 0, 0, 0, &token, 1, pages), CA_E_FULL);
    assert_non_null(strstr(ca_last_error(), "created for 0"));
    assert_int_equal(ca_cache_gather(cache, 0, 0, 0, &token, 0, pages), CA_OK); /* nothing to gather */
    ca_cache_destroy(cache);

    const uint32_t tokens[] = { 1, 3, 4 };
    large.gather_tokens = 2;
    must(ca_cache_create(&large, &cache), "cache");
    must(ca_cache_append(cache, 0, 0, &(ca_kv){ .k = zeros, .v = zeros, .stride = 16 }, 5), "append");
    must(ca_cache_gather(cache, 0, 0, 0, tokens, 2, pages), "gather"); /* as many as it was created for */
    assert_int_equal(ca_cache_gather(cache, 0, 0, 0, tokens, 3, pages), CA_E_FULL);
    ca_cache_destroy(cache);
}

/* More gathered pages than the past has are refused. */
static void too_many_gathered(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    world w = world_create(kern, 64);
    const uint32_t pages[HKV * 8] = { 0 }, fits[HKV] = { 4, 4 }, many[HKV] = { 4, 5 };
    ca_table t;
    must(ca_table_create(w.cache, &w.chunks[0], &w.ws, &t), "table"); /* 301 tokens before it: 4 whole pages */
    assert_int_equal(ca_table_add_gathered(w.cache, 0, 78, pages, 8, fits, &t), CA_E_SHAPE);
    assert_int_equal(ca_table_add_gathered(w.cache, 0, 77, pages, 8, many, &t), CA_E_SHAPE);
    assert_non_null(strstr(ca_last_error(), "5 gathered pages, the past has 4"));
    world_destroy(&w);
}

int main(void)
{
    omp_set_num_threads(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batch_equals_single), cmocka_unit_test(bad_batches),       cmocka_unit_test(gathered_tokens),
        cmocka_unit_test(bad_gathers),         cmocka_unit_test(too_many_gathered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
