/* Masks, unions and tables against brute force over every (head, token, block), for chunks and masks that start and end anywhere. */
#include "kernels/attn_case.h"

#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { DIM = 16, SEQ = 1, LAYER = 1, FULL_MASK = 100 };

typedef struct table_case {
    uint32_t hq, hkv, page;
    uint32_t pos, n, after; /* the chunk, and tokens that the cache holds past it */
    uint32_t first, n_mask; /* tokens of the chunk that the mask covers */
    unsigned keep;          /* percent of the blocks in the mask */
    const char *what;
} table_case;

static const table_case cases[] = {
    { 4, 2, 32, 128, 64, 0, 0, 64, 30, "everything divides" },
    { 6, 2, 32, 100, 77, 0, 0, 77, 20, "nothing divides" },
    { 12, 2, 64, 301, 130, 50, 0, 130, 15, "GQA 6, the cache goes on" },
    { 3, 3, 128, 0, 300, 0, 0, 300, 40, "first chunk, MHA" },
    { 8, 1, 32, 517, 1, 0, 0, 1, 30, "one token, MQA" },
    { 6, 3, 64, 130, 250, 7, 0, 170, 10, "the mask ends before the chunk" },
    { 6, 3, 64, 130, 250, 0, 100, 150, 10, "the mask begins after the chunk" },
    { 4, 2, 32, 40, 200, 64, 50, 3, 30, "three tokens inside a block" },
    { 4, 2, 32, 40, 200, 0, 23, 66, 0, "an empty mask" },
    { 4, 2, 32, 40, 200, 0, 0, 200, FULL_MASK, "a full mask" },
    { 2, 1, 32, 2300, 90, 0, 0, 90, 5, "two words of blocks" },
    { 8, 4, 32, 300, 500, 0, 0, 500, 25, "many Q blocks" },
    { 4, 4, 32, 4033, 70, 0, 30, 40, 2, "three words of blocks" },
};
enum { N_CASES = sizeof cases / sizeof *cases };

typedef struct world {
    const table_case *c;
    ca_cache *cache;
    ca_chunk chunk;
    ca_workspace ws;
    uint32_t nk, n_mask_blocks, first_qblock, n_qblocks; /* blocks of the chunk; of the mask */
    bool *want;                                          /* [hq][n_qblocks][n_mask_blocks]: the mask */
} world;

#define FAIL(w, ...)                                                                                                               \
    do {                                                                                                                           \
        char text_[160];                                                                                                           \
        (void)snprintf(text_, sizeof text_, __VA_ARGS__);                                                                          \
        fail_msg("h%u:%u page %u chunk [%u, +%u) mask [%u, +%u) (%s): %s", (w)->c->hq, (w)->c->hkv, (w)->c->page, (w)->c->pos,     \
                 (w)->c->n, (w)->c->first, (w)->c->n_mask, (w)->c->what, text_);                                                   \
    } while (0)

/* Two sequences of two layers, appended in turns and then shuffled: page ids say nothing about positions. */
static ca_cache *shuffled_cache(const table_case *c)
{
    const ca_kern *kern = NULL;
    must(ca_kern_choose("scalar", &kern), "kern");
    const uint32_t len = c->pos + c->n + c->after;
    const ca_cache_opt opt = { .n_layers = 2,
                               .n_kv_heads = c->hkv,
                               .head_dim = DIM,
                               .page_tokens = c->page,
                               .max_seqs = 2,
                               .capacity_tokens = (uint64_t)2 * len,
                               .kern = kern };
    ca_cache *cache = NULL;
    must(ca_cache_create(&opt, &cache), "cache");
    const size_t width = (size_t)c->hkv * DIM;
    float *zeros = calloc(90 * width, sizeof *zeros);
    for (uint32_t at = 0; at < len; at += ca_min_u32(90, len - at))
        for (uint32_t i = 0; i < 4; i++)
            must(
                ca_cache_append(cache, i / 2, i % 2, &(ca_kv){ .k = zeros, .v = zeros, .stride = width }, ca_min_u32(90, len - at)),
                "append");
    free(zeros);
    uint64_t seed = 1;
    uint32_t n = 0;
    (void)ca_cache_pages(cache, 0, 0, 0, &n);
    for (uint32_t i = 0; i < 4 * n; i++) {
        const uint64_t x = mix64(&seed), y = mix64(&seed);
        const uint32_t *a = ca_cache_pages(cache, x & 1, x >> 1 & 1, (uint32_t)(x >> 8) % c->hkv, &n);
        const uint32_t *b = ca_cache_pages(cache, y & 1, y >> 1 & 1, (uint32_t)(y >> 8) % c->hkv, &n);
        must(ca_cache_swap_pages(cache, a[(uint32_t)(x >> 32) % n], b[(uint32_t)(y >> 32) % n]), "swap");
    }
    return cache;
}

static world world_create(const table_case *c)
{
    world w = { .c = c, .cache = shuffled_cache(c) };
    const uint32_t mask_pos = c->pos + c->first, mask_end = mask_pos + c->n_mask;
    w.chunk = (ca_chunk){ .seq = SEQ, .layer = LAYER, .pos = c->pos, .n_tokens = c->n, .n_heads = c->hq };
    w.nk = (c->pos + c->n - 1) / c->page + 1;
    w.n_mask_blocks = (mask_end - 1) / c->page + 1;
    w.first_qblock = mask_pos / c->page;
    w.n_qblocks = w.n_mask_blocks - w.first_qblock;
    w.want = calloc((size_t)c->hq * w.n_qblocks * w.n_mask_blocks, sizeof *w.want);
    uint64_t seed = c->pos + 7;
    for (uint32_t r = 0; r < c->hq * w.n_qblocks; r++) /* some rows stay empty, the diagonal may be out */
        for (uint32_t j = 0; j <= w.first_qblock + r % w.n_qblocks; j++)
            w.want[(size_t)r * w.n_mask_blocks + j] = mix64(&seed) % 100 < c->keep;
    w.ws.size = ca_table_ws_bytes(w.cache, c->hq, c->n, c->pos + c->n);
    w.ws.base = aligned_alloc(64, ca_align_up(w.ws.size, 64));
    return w;
}

static void world_destroy(world *w)
{
    ca_cache_destroy(w->cache);
    free(w->want);
    free(w->ws.base);
}

static bool wanted(const world *w, uint32_t head, uint32_t i, uint32_t j)
{
    return w->want[((size_t)head * w->n_qblocks + i) * w->n_mask_blocks + j];
}

static bool bit(const uint64_t *bits, uint32_t j)
{
    return bits[j / 64] >> (j % 64) & 1;
}

static ca_mask mask_of(world *w)
{
    ca_mask m;
    must(ca_mask_create(w->cache, &w->chunk, w->c->first, w->c->n_mask, &w->ws, &m), "mask");
    for (uint32_t h = 0; h < m.n_heads; h++)
        for (uint32_t i = 0; i < m.n_qblocks; i++)
            for (uint32_t j = 0; j < m.n_kblocks; j++)
                if (wanted(w, h, i, j)) m.bits[((size_t)h * m.n_qblocks + i) * m.words + j / 64] |= UINT64_C(1) << (j % 64);
    return m;
}

static void masks(void **state)
{
    (void)state;
    for (size_t n = 0; n < N_CASES; n++) {
        world w = world_create(&cases[n]);
        memset(w.ws.base, 0xff, w.ws.size);
        ca_mask m;
        must(ca_mask_create(w.cache, &w.chunk, w.c->first, w.c->n_mask, &w.ws, &m), "mask");
        if (m.n_heads != w.c->hq || m.n_qblocks != w.n_qblocks || m.n_kblocks != w.n_mask_blocks ||
            m.words != (w.n_mask_blocks + 63) / 64 || m.first_qblock != w.first_qblock || m.first_token != w.c->pos + w.c->first ||
            m.n_tokens != w.c->n_mask)
            FAIL(&w, "mask of %u x %u blocks from Q block %u", m.n_qblocks, m.n_kblocks, m.first_qblock);
        for (size_t i = 0; i < (size_t)m.n_heads * m.n_qblocks * m.words; i++)
            if (m.bits[i]) FAIL(&w, "word %zu of a new mask is not zero", i);
        world_destroy(&w);
    }
}

static bool in_rows(const world *w, uint32_t head, uint32_t n_heads, uint32_t qblock, uint32_t end, uint32_t j)
{
    for (uint32_t h = head; h < head + n_heads; h++)
        for (uint32_t i = qblock; i < end; i++)
            if (wanted(w, h, i, j)) return true;
    return false;
}

static bool in_union(const world *w, uint32_t head, uint32_t n_heads, uint32_t j)
{
    return in_rows(w, head, n_heads, 0, w->n_qblocks, j);
}

static void check_union(const world *w, const ca_mask *m, const uint64_t *bits, uint32_t per_row, const char *what)
{
    for (uint32_t r = 0; r < m->n_heads / per_row; r++)
        for (uint32_t j = 0; j < m->words * 64; j++) {
            const bool want = j < w->n_mask_blocks && (j >= w->first_qblock || in_union(w, r * per_row, per_row, j));
            if (bit(bits + (size_t)r * m->words, j) != want)
                FAIL(w, "%s union, %u heads a row, row %u: block %u must be %d", what, per_row, r, j, want);
        }
}

static void unions(void **state)
{
    (void)state;
    for (size_t n = 0; n < N_CASES; n++) {
        world w = world_create(&cases[n]);
        const ca_mask m = mask_of(&w);
        uint64_t *q = malloc((size_t)m.n_heads * m.words * 8), *g = malloc((size_t)m.n_heads * m.words * 8);
        for (uint32_t per_row = 1; per_row <= w.c->hq / w.c->hkv; per_row++) {
            if (w.c->hq / w.c->hkv % per_row != 0) continue;
            memset(q, 0xaa, (size_t)m.n_heads * m.words * 8);
            memset(g, 0xaa, (size_t)m.n_heads * m.words * 8);
            ca_mask_union(&m, per_row, q, g);
            check_union(&w, &m, q, 1, "Q block");
            check_union(&w, &m, g, per_row, "group");
        }
        ca_mask_union(&m, 1, q, NULL); /* either may be left out */
        ca_mask_union(&m, 1, NULL, g);
        free(q);
        free(g);
        world_destroy(&w);
    }
}

/* A mask from memory: any non-zero byte is a block, what lies in the future is dropped, and other dims are refused. */
static void masks_from_memory(void **state)
{
    (void)state;
    for (size_t n = 0; n < N_CASES; n++) {
        world w = world_create(&cases[n]);
        ca_mask m;
        must(ca_mask_create(w.cache, &w.chunk, w.c->first, w.c->n_mask, &w.ws, &m), "mask");
        const size_t n_blocks = (size_t)m.n_heads * m.n_qblocks * m.n_kblocks, n_words = (size_t)m.n_heads * m.n_qblocks * m.words;
        uint8_t *blocks = malloc(n_blocks);
        uint64_t seed = 9;
        for (size_t i = 0; i < n_blocks; i++) blocks[i] = mix64(&seed) % 3 ? 0 : (uint8_t)(1 + mix64(&seed) % 255);
        memset(m.bits, 0xff, n_words * sizeof *m.bits); /* what was there is replaced */
        must(ca_mask_set(&m, blocks, m.n_heads, m.n_qblocks, m.n_kblocks), "set");
        for (uint32_t r = 0; r < m.n_heads * m.n_qblocks; r++)
            for (uint32_t j = 0; j < m.words * 64; j++) {
                const bool want = j <= w.first_qblock + r % m.n_qblocks && blocks[(size_t)r * m.n_kblocks + j] != 0;
                if (bit(m.bits + (size_t)r * m.words, j) != want) FAIL(&w, "row %u block %u must be %d", r, j, want);
            }
        assert_int_equal(ca_mask_set(&m, blocks, m.n_heads + 1, m.n_qblocks, m.n_kblocks), CA_E_SHAPE);
        assert_int_equal(ca_mask_set(&m, blocks, m.n_heads, m.n_qblocks + 1, m.n_kblocks), CA_E_SHAPE);
        assert_int_equal(ca_mask_set(&m, blocks, m.n_heads, m.n_qblocks, m.n_kblocks - 1), CA_E_SHAPE);
        assert_non_null(strstr(ca_last_error(), "blocks were given"));
        free(blocks);
        world_destroy(&w);
    }
}

/* Pairs of a mask by looking at every (head, token, past key). */
static void mask_counts(void **state)
{
    (void)state;
    for (size_t n = 0; n < N_CASES; n++) {
        world w = world_create(&cases[n]);
        const ca_mask m = mask_of(&w);
        for (uint32_t per_row = 1; per_row <= w.c->hq / w.c->hkv; per_row++) {
            ca_mask_count want = { 0 }, got;
            if (w.c->hq / w.c->hkv % per_row != 0) continue;
            for (uint32_t h = 0; h < w.c->hq; h++)
                for (uint32_t j = 0; j * w.c->page < w.c->pos; j++) {
                    const uint64_t keys = ca_min_u32(w.c->page, w.c->pos - j * w.c->page); /* of the block that are past */
                    for (uint32_t i = 0; i < w.c->n_mask; i++)
                        if (wanted(&w, h, (w.c->pos + w.c->first + i) / w.c->page - w.first_qblock, j)) want.asked += keys;
                    if (in_union(&w, h, 1, j)) want.q_union += keys * w.c->n_mask;
                    if (in_union(&w, h / per_row * per_row, per_row, j)) want.g_union += keys * w.c->n_mask;
                    want.dense += keys * w.c->n_mask;
                }
            ca_mask_measure(w.cache, &w.chunk, &m, per_row, &got);
            if (memcmp(&want, &got, sizeof want) != 0)
                FAIL(&w, "%u heads a row: asked %llu, unions %llu, %llu of %llu", per_row, (unsigned long long)got.asked,
                     (unsigned long long)got.q_union, (unsigned long long)got.g_union, (unsigned long long)got.dense);
            assert_true(got.asked <= got.q_union && got.q_union <= got.g_union && got.g_union <= got.dense);
        }
        for (uint32_t per_row = 0; per_row <= w.c->hq + 1; per_row++) {
            ca_mask_count got;
            if (per_row > 0 && w.c->hq % per_row == 0) continue;
            ca_mask_measure(w.cache, &w.chunk, &m, per_row, &got); /* rows that would end behind the last head */
            assert_true(got.asked == 0 && got.q_union == 0 && got.g_union == 0);
        }
        world_destroy(&w);
    }
}

/* How often each (head, token) is computed, and which blocks it reads. */
typedef struct reads {
    uint8_t *blocks; /* [hq][n][nk] */
    uint8_t *rows;   /* [hq][n] */
} reads;

/* Row r stays in its bounds, and its pages ascend and belong to its sequence, layer and KV head. */
static void check_row(const world *w, const ca_table *t, uint32_t r)
{
    const ca_row *row = &t->rows[r];
    const uint32_t group = w->c->hq / w->c->hkv;
    if (row->n_heads == 0 || row->kv_head >= w->c->hkv || row->head / group != row->kv_head ||
        (row->head + row->n_heads - 1) / group != row->kv_head)
        FAIL(w, "row %u: heads [%u, +%u) of KV head %u", r, row->head, row->n_heads, row->kv_head);
    if (row->n_tokens == 0 || row->token + row->n_tokens > w->c->n)
        FAIL(w, "row %u: tokens [%u, +%u)", r, row->token, row->n_tokens);
    if (row->first_page + row->n_pages > t->n_pages) FAIL(w, "row %u: pages [%u, +%u)", r, row->first_page, row->n_pages);
    uint32_t n = 0;
    const uint32_t *ids = ca_cache_pages(w->cache, SEQ, LAYER, row->kv_head, &n);
    for (uint32_t i = 0; i < row->n_pages; i++) {
        const uint32_t *page = &t->pages[row->first_page + i], j = ca_page_pos(w->cache, *page) / w->c->page;
        if (j >= w->nk || ids[j] != *page) FAIL(w, "row %u: page %u is not block %u of the sequence", r, *page, j);
        if (i > 0 && ca_page_pos(w->cache, page[-1]) >= j * w->c->page) FAIL(w, "row %u: pages do not ascend at %u", r, i);
    }
}

static reads reads_of(const world *w, const ca_table *t)
{
    const reads all = { calloc((size_t)w->c->hq * w->c->n * w->nk, 1), calloc((size_t)w->c->hq * w->c->n, 1) };
    for (uint32_t r = 0; r < t->n_rows; r++) {
        const ca_row *row = &t->rows[r];
        check_row(w, t, r);
        for (uint32_t h = row->head; h < row->head + row->n_heads; h++)
            for (uint32_t i = row->token; i < row->token + row->n_tokens; i++) {
                const size_t at = (size_t)h * w->c->n + i;
                all.rows[at]++;
                for (uint32_t p = 0; p < row->n_pages; p++)
                    all.blocks[at * w->nk + ca_page_pos(w->cache, t->pages[row->first_page + p]) / w->c->page]++;
            }
    }
    return all;
}

typedef enum executor { DENSE, BLOCK_SPARSE, COMPACT } executor;

/* What token i (of the chunk) of head h must read of block j, from the definitions. Rows of per_row heads and qblocks Q blocks. */
static bool must_read(const world *w, executor ex, uint32_t per_row, uint32_t qblocks, uint32_t h, uint32_t i, uint32_t j)
{
    const uint32_t end = w->c->pos + w->c->first + w->c->n_mask, qblock = (w->c->pos + i) / w->c->page - w->first_qblock;
    if (ex == DENSE) return j * w->c->page < end;
    if (j >= w->n_mask_blocks) return false;
    if (ex == BLOCK_SPARSE) return wanted(w, h, qblock, j);
    const uint32_t first = qblock / qblocks * qblocks, last = ca_min_u32(first + qblocks, w->n_qblocks);
    if (j >= w->first_qblock + last) return false;
    return (j + 1) * w->c->page > w->c->pos || in_rows(w, h / per_row * per_row, per_row, first, last, j);
}

/* The table covers the mask's tokens once each, and reads what it must. */
static void check_reads(const world *w, const ca_table *t, executor ex, uint32_t per_row, uint32_t qblocks)
{
    static const char *const names[] = { "dense", "block_sparse", "compactattn" };
    const reads got = reads_of(w, t);
    for (uint32_t h = 0; h < w->c->hq; h++)
        for (uint32_t i = 0; i < w->c->n; i++) {
            const bool inside = i >= w->c->first && i < w->c->first + w->c->n_mask;
            const size_t at = (size_t)h * w->c->n + i;
            if (got.rows[at] != inside) FAIL(w, "%s/%u: head %u token %u is in %u rows", names[ex], per_row, h, i, got.rows[at]);
            if (i > w->c->first && (w->c->pos + i) % w->c->page != 0 && i != w->c->first + w->c->n_mask) {
                /* The same Q block as the token before. */
                if (memcmp(&got.blocks[at * w->nk], &got.blocks[(at - 1) * w->nk], w->nk) != 0)
                    FAIL(w, "%s/%u: head %u token %u reads other blocks than the token before", names[ex], per_row, h, i);
                continue;
            }
            for (uint32_t j = 0; j < w->nk; j++)
                if (got.blocks[at * w->nk + j] != (inside && must_read(w, ex, per_row, qblocks, h, i, j)))
                    FAIL(w, "%s/%u: head %u token %u reads block %u %u times", names[ex], per_row, h, i, j,
                         got.blocks[at * w->nk + j]);
        }
    free(got.blocks);
    free(got.rows);
}

/* Pairs by looking at every (token, key). */
static void check_count(const world *w, const ca_table *t)
{
    ca_table_count want = { 0 }, got;
    for (uint32_t r = 0; r < t->n_rows; r++) {
        const ca_row *row = &t->rows[r];
        for (uint32_t i = 0; i < row->n_tokens; i++) {
            const uint64_t q = w->c->pos + row->token + i;
            uint64_t seen = 0, past = 0;
            for (uint32_t p = 0; p < row->n_pages; p++) {
                const uint32_t page = t->pages[row->first_page + p], pos = ca_page_pos(w->cache, page);
                for (uint64_t k = pos; k < pos + ca_page_len(w->cache, page); k++) {
                    seen += k <= q;
                    past += k < w->c->pos;
                }
            }
            want.pairs += seen * row->n_heads;
            want.past_pairs += past * row->n_heads;
            want.pairs_dense += (q + 1) * row->n_heads;
            want.past_pairs_dense += (uint64_t)w->c->pos * row->n_heads;
        }
    }
    ca_table_measure(w->cache, t, &got);
    if (memcmp(&want, &got, sizeof want) != 0)
        FAIL(w, "pairs %llu of %llu, past %llu of %llu; must be %llu of %llu, %llu of %llu", (unsigned long long)got.pairs,
             (unsigned long long)got.pairs_dense, (unsigned long long)got.past_pairs, (unsigned long long)got.past_pairs_dense,
             (unsigned long long)want.pairs, (unsigned long long)want.pairs_dense, (unsigned long long)want.past_pairs,
             (unsigned long long)want.past_pairs_dense);
}

static ca_table table_of(world *w)
{
    ca_table t;
    must(ca_table_create(w->cache, &w->chunk, &w->ws, &t), "table");
    assert_int_equal(t.n_rows, 0);
    assert_int_equal(t.n_pages, 0);
    return t;
}

static void executors(void **state)
{
    (void)state;
    for (size_t n = 0; n < N_CASES; n++) {
        world w = world_create(&cases[n]);
        const uint32_t group = w.c->hq / w.c->hkv;
        const ca_mask m = mask_of(&w);
        const size_t mark = w.ws.used;

        ca_table t = table_of(&w);
        must(ca_table_add_dense(w.cache, w.c->first, w.c->n_mask, &t), "dense");
        assert_int_equal(t.n_rows, w.c->hkv);
        check_reads(&w, &t, DENSE, group, 1);
        check_count(&w, &t);

        w.ws.used = mark;
        t = table_of(&w);
        must(ca_table_add_block_sparse(w.cache, &m, &t), "block_sparse");
        assert_int_equal(t.n_rows, w.c->hq * m.n_qblocks);
        check_reads(&w, &t, BLOCK_SPARSE, 1, 1);
        check_count(&w, &t);

        for (uint32_t per_row = 0; per_row <= group; per_row++) {
            if (per_row && group % per_row != 0) continue;
            for (uint32_t qblocks = 0; qblocks < 5; qblocks++) {
                const uint32_t heads = per_row ? per_row : group, span = qblocks ? qblocks : m.n_qblocks;
                w.ws.used = mark;
                t = table_of(&w);
                must(ca_table_add_compact(w.cache, &m, &(ca_table_opt){ per_row, qblocks }, &t), "compactattn");
                assert_int_equal(t.n_rows, w.c->hq / heads * ((m.n_qblocks + span - 1) / span));
                check_reads(&w, &t, COMPACT, heads, span);
                check_count(&w, &t);
            }
        }
        world_destroy(&w);
    }
}

/* One builder of Q blocks and two of whole runs, in the workspace that ca_table_ws_bytes gives: rows add up in one table. */
static void builders_append(void **state)
{
    (void)state;
    for (size_t n = 0; n < N_CASES; n++) {
        world w = world_create(&cases[n]);
        const ca_mask m = mask_of(&w);
        ca_table t = table_of(&w);
        must(ca_table_add_compact(w.cache, &m, &(ca_table_opt){ .heads_per_row = 1 }, &t), "compactattn");
        must(ca_table_add_block_sparse(w.cache, &m, &t), "block_sparse");
        must(ca_table_add_dense(w.cache, 0, w.c->n, &t), "dense");
        assert_int_equal(t.n_rows, w.c->hq * (1 + m.n_qblocks) + w.c->hkv);
        for (uint32_t r = 0; r < t.n_rows; r++) check_row(&w, &t, r);
        check_count(&w, &t);
        assert_true(w.ws.used <= w.ws.size);

        /* Compactattn reads all that block_sparse reads. */
        const uint32_t n_sparse = w.c->hq * m.n_qblocks;
        for (uint32_t r = w.c->hq; r < w.c->hq + n_sparse; r++) {
            const ca_row *sparse = &t.rows[r], *compact = &t.rows[sparse->head];
            for (uint32_t i = 0, k = 0; i < sparse->n_pages; i++) {
                while (k < compact->n_pages && t.pages[compact->first_page + k] != t.pages[sparse->first_page + i]) k++;
                if (k == compact->n_pages) FAIL(&w, "compactattn does not read page %u of block_sparse row %u", i, r);
            }
        }

        /* Rows that do not fit are refused, and nothing is half added. */
        ca_status st = CA_OK;
        uint32_t n_rows = 0;
        for (unsigned i = 0; i < 100 && st == CA_OK; i++) {
            n_rows = t.n_rows;
            st = ca_table_add_block_sparse(w.cache, &m, &t);
        }
        assert_int_equal(st, CA_E_WORKSPACE);
        assert_true(t.n_rows >= n_rows && t.n_rows <= t.max_rows && t.n_pages <= t.max_pages);
        for (uint32_t r = 0; r < t.n_rows; r++) check_row(&w, &t, r);
        world_destroy(&w);
    }
}

/* A full mask gives the page lists of dense attention, whoever builds it. */
static void full_mask_is_dense(void **state)
{
    (void)state;
    for (size_t n = 0; n < N_CASES; n++) {
        table_case c = cases[n];
        c.keep = FULL_MASK;
        c.first = 0;
        c.n_mask = c.n;
        world w = world_create(&c);
        const ca_mask m = mask_of(&w);
        ca_table t = table_of(&w);
        must(ca_table_add_dense(w.cache, 0, c.n, &t), "dense");
        must(ca_table_add_compact(w.cache, &m, &(ca_table_opt){ 0 }, &t), "compactattn");
        for (uint32_t kv = 0; kv < c.hkv; kv++) {
            const ca_row *a = &t.rows[kv], *b = &t.rows[c.hkv + kv];
            assert_int_equal(a->n_pages, b->n_pages);
            assert_memory_equal(&t.pages[a->first_page], &t.pages[b->first_page], a->n_pages * sizeof *t.pages);
        }
        ca_table_count count;
        ca_table_measure(w.cache, &t, &count);
        assert_true(count.pairs == count.pairs_dense);
        assert_true(count.past_pairs == count.past_pairs_dense);
        world_destroy(&w);
    }
}

#define CHUNK(SEQ_, LAYER_, POS, N, HEADS)                                                                                         \
    {                                                                                                                              \
        .seq = (SEQ_), .layer = (LAYER_), .pos = (POS), .n_tokens = (N), .n_heads = (HEADS)                                        \
    }

static void bad_shapes(void **state)
{
    (void)state;
    world w = world_create(&cases[6]); /* 250 tokens from 130 on, 6 heads over 3 */
    const struct {
        ca_chunk chunk;
        uint32_t first, n;
        ca_status status;
        const char *message;
    } bad[] = {
        { CHUNK(2, 1, 130, 250, 6), 0, 250, CA_E_ARG, "sequence 2" },
        { CHUNK(1, 2, 130, 250, 6), 0, 250, CA_E_ARG, "layer 2" },
        { CHUNK(1, 1, 130, 250, 0), 0, 250, CA_E_SHAPE, "0 query heads" },
        { CHUNK(1, 1, 130, 250, 7), 0, 250, CA_E_SHAPE, "7 query heads" },
        { CHUNK(1, 1, 130, 0, 6), 0, 1, CA_E_SHAPE, "not inside" },
        { CHUNK(1, 1, 130, 251, 6), 0, 250, CA_E_SHAPE, "not inside" },
        { CHUNK(1, 1, UINT32_MAX, 2, 6), 0, 1, CA_E_SHAPE, "not inside" },
        { CHUNK(1, 1, 130, 250, 6), 0, 0, CA_E_SHAPE, "tokens [0, +0)" },
        { CHUNK(1, 1, 130, 250, 6), 1, 250, CA_E_SHAPE, "tokens [1, +250)" },
        { CHUNK(1, 1, 130, 250, 6), UINT32_MAX, 2, CA_E_SHAPE, "of a chunk of 250" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ca_mask m;
        ca_table t;
        w.ws.used = 0;
        if (ca_mask_create(w.cache, &bad[i].chunk, bad[i].first, bad[i].n, &w.ws, &m) != bad[i].status ||
            !strstr(ca_last_error(), bad[i].message))
            fail_msg("mask, case %zu ('%s'): '%s'", i, bad[i].message, ca_last_error());
        if (i < 7 &&
            (ca_table_create(w.cache, &bad[i].chunk, &w.ws, &t) != bad[i].status || !strstr(ca_last_error(), bad[i].message)))
            fail_msg("table, case %zu ('%s'): '%s'", i, bad[i].message, ca_last_error());
        if (w.ws.used != 0) fail_msg("case %zu took workspace", i);
    }
    ca_table t = table_of(&w);
    assert_int_equal(ca_table_add_dense(w.cache, 1, 250, &t), CA_E_SHAPE);
    assert_int_equal(ca_table_add_dense(w.cache, UINT32_MAX, 2, &t), CA_E_SHAPE);
    assert_int_equal(ca_table_add_dense(w.cache, 7, 0, &t), CA_OK); /* an empty tail */
    assert_int_equal(t.n_rows, 0);
    t.n_pages = UINT32_MAX - 5; /* rows name their pages by 32 bits */
    t.max_pages = SIZE_MAX;
    assert_int_equal(ca_table_add_dense(w.cache, 0, 250, &t), CA_E_UNSUPPORTED);
    assert_non_null(strstr(ca_last_error(), "larger pages"));
    world_destroy(&w);
}

/* A mask made for other heads, tokens or pages is refused by both builders. */
static void foreign_masks(void **state)
{
    (void)state;
    world w = world_create(&cases[5]); /* 250 tokens from 130 on, and 7 more, 6 heads over 3, pages of 64 */
    table_case c32 = cases[5];
    c32.page = 32;
    world other = world_create(&c32);
    const struct {
        world *w;
        ca_chunk chunk;
        uint32_t first, n;
        const char *what;
    } foreign[] = {
        { &w, CHUNK(1, 1, 130, 250, 3), 0, 250, "fewer heads" },
        { &w, CHUNK(1, 1, 130, 250, 12), 0, 250, "more heads" },
        { &w, CHUNK(1, 1, 129, 250, 6), 0, 250, "begins before the chunk" },
        { &w, CHUNK(1, 1, 131, 256, 6), 0, 256, "ends after the chunk" },
        { &w, CHUNK(1, 1, 0, 130, 6), 0, 130, "the chunk before" },
        { &other, CHUNK(1, 1, 130, 250, 6), 0, 250, "smaller pages" },
    };
    ca_workspace ws = { .size = (size_t)1 << 20 };
    ws.base = aligned_alloc(64, ws.size);
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        ca_mask m;
        w.ws.used = ws.used = 0;
        ca_table t = table_of(&w);
        must(ca_mask_create(foreign[i].w->cache, &foreign[i].chunk, foreign[i].first, foreign[i].n, &ws, &m), "mask");
        if (ca_table_add_block_sparse(w.cache, &m, &t) != CA_E_SHAPE ||
            ca_table_add_compact(w.cache, &m, &(ca_table_opt){ 0 }, &t) != CA_E_SHAPE)
            fail_msg("a mask of %s is taken", foreign[i].what);
        assert_int_equal(t.n_rows, 0);
    }
    w.ws.used = 0;
    const ca_mask m = mask_of(&w);
    ca_table t = table_of(&w);
    assert_int_equal(ca_table_add_compact(w.cache, &m, &(ca_table_opt){ .heads_per_row = 3 }, &t), CA_E_ARG); /* of a group of 2 */
    assert_non_null(strstr(ca_last_error(), "heads_per_row 3"));
    free(ws.base);
    world_destroy(&w);
    world_destroy(&other);
}

static void small_workspace(void **state)
{
    (void)state;
    world w = world_create(&cases[2]);
    ca_mask m;
    ca_table t;
    must(ca_mask_create(w.cache, &w.chunk, 0, w.c->n, &w.ws, &m), "mask");
    const size_t mask_bytes = w.ws.used;
    must(ca_table_create(w.cache, &w.chunk, &w.ws, &t), "table");
    const size_t both = w.ws.used;
    for (size_t size = 0; size <= both; size += 64) {
        ca_workspace ws = { .base = w.ws.base, .size = size };
        assert_int_equal(ca_mask_create(w.cache, &w.chunk, 0, w.c->n, &ws, &m), size < mask_bytes ? CA_E_WORKSPACE : CA_OK);
        if (size < mask_bytes) {
            assert_non_null(strstr(ca_last_error(), "bytes of workspace needed"));
            continue;
        }
        assert_int_equal(ca_table_create(w.cache, &w.chunk, &ws, &t), size < both ? CA_E_WORKSPACE : CA_OK);
        assert_int_equal(ws.used, size < both ? mask_bytes : both); /* a failure takes nothing */
    }
    world_destroy(&w);
}

int main(void)
{
    omp_set_num_threads(1); /* the cases are tiny: threads would only wait for each other */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks),
        cmocka_unit_test(unions),
        cmocka_unit_test(masks_from_memory),
        cmocka_unit_test(mask_counts),
        cmocka_unit_test(executors),
        cmocka_unit_test(builders_append),
        cmocka_unit_test(bad_shapes),
        cmocka_unit_test(foreign_masks),
        cmocka_unit_test(small_workspace),
        cmocka_unit_test(full_mask_is_dense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
