/* Block mask -> unions -> rows of page ids. Formulas: spec/attention.md 4.1. */
#include <string.h>

#include "select/mask.h"

/* Q blocks that n_tokens tokens can touch: one more when they do not start on the grid. */
static uint32_t max_qblocks(const ca_cache *cache, uint32_t n_tokens)
{
    return ca_ceil_div(n_tokens, cache->opt.page_tokens) + 1;
}

size_t ca_table_ws_bytes(const ca_cache *cache, uint32_t n_heads, uint32_t n_tokens, uint32_t kv_tokens)
{
    const size_t nk = ca_ceil_div(kv_tokens, cache->opt.page_tokens), nq = max_qblocks(cache, n_tokens);
    const size_t mask = n_heads * nq * ca_mask_words((uint32_t)nk) * 8;
    const size_t rows = n_heads * (nq + 2) * sizeof(ca_row);
    const size_t pages = n_heads * (nq + 2) * nk * sizeof(uint32_t);
    return mask + rows + pages + n_heads * ca_mask_words((uint32_t)nk) * 8 * 2 + 5 * 64;
}

ca_status ca_table_create(const ca_cache *cache, const ca_chunk *chunk, ca_workspace *ws, ca_table *out)
{
    CA_TRY(ca_chunk_check(cache, chunk));
    const uint32_t nq = max_qblocks(cache, chunk->n_tokens);
    const size_t nk = ca_ceil_div(chunk->pos + chunk->n_tokens, cache->opt.page_tokens);
    *out =
        (ca_table){ .chunk = *chunk, .max_rows = chunk->n_heads * (nq + 2), .max_pages = chunk->n_heads * (size_t)(nq + 2) * nk };
    void *rows = NULL, *pages = NULL;
    CA_TRY(ca_ws_take(ws, "table rows", out->max_rows, sizeof(ca_row), &rows));
    CA_TRY(ca_ws_take(ws, "table pages", out->max_pages, sizeof(uint32_t), &pages));
    out->rows = rows;
    out->pages = pages;
    return CA_OK;
}

/* Appends a row that reads the blocks of `bits` (NULL = all) below n_blocks. */
static ca_status add_row(const ca_cache *cache, ca_table *table, ca_row row, const uint64_t *bits, uint32_t n_blocks)
{
    if (table->n_rows == table->max_rows || table->n_pages + n_blocks > table->max_pages)
        return ca_fail(CA_E_WORKSPACE, "table: row %u does not fit: every builder may be called once", table->n_rows);
    const uint32_t *ids = ca_cache_head(cache, table->chunk.seq, table->chunk.layer, row.kv_head)->pages;
    uint32_t *list = table->pages + table->n_pages;
    uint32_t n = 0;
    if (!bits) {
        memcpy(list, ids, (size_t)n_blocks * sizeof *ids);
        n = n_blocks;
    } else {
        for (uint32_t w = 0; w < ca_mask_words(n_blocks); w++)
            for (uint64_t left = bits[w]; left; left &= left - 1) {
                const uint32_t j = w * 64 + (uint32_t)__builtin_ctzll(left);
                if (j < n_blocks) list[n++] = ids[j];
            }
    }
    row.first_page = (uint32_t)table->n_pages;
    row.n_pages = n;
    table->rows[table->n_rows++] = row;
    table->n_pages += n;
    return CA_OK;
}

ca_status ca_table_add_dense(const ca_cache *cache, uint32_t first, uint32_t n, ca_table *table)
{
    const ca_chunk *c = &table->chunk;
    if (n == 0) return CA_OK;
    if ((uint64_t)first + n > c->n_tokens)
        return ca_fail(CA_E_SHAPE, "table: tokens [%u, +%u) of a chunk of %u", first, n, c->n_tokens);
    const uint32_t group = c->n_heads / cache->opt.n_kv_heads;
    const uint32_t n_blocks = ca_ceil_div(c->pos + first + n, cache->opt.page_tokens);
    for (uint32_t kv = 0; kv < cache->opt.n_kv_heads; kv++)
        CA_TRY(add_row(cache, table, (ca_row){ .kv_head = kv, .head = kv * group, .n_heads = group, .token = first, .n_tokens = n },
                       NULL, n_blocks));
    return CA_OK;
}

/* OR over the rows [qblock, qblock + n_qblocks) of heads [head, head + n_heads), into out[words]. */
static void union_of(const ca_mask *m, uint32_t head, uint32_t n_heads, uint32_t qblock, uint32_t n_qblocks, uint64_t *out)
{
    memset(out, 0, (size_t)m->words * 8);
    for (uint32_t h = head; h < head + n_heads; h++)
        for (uint32_t i = qblock; i < qblock + n_qblocks; i++) {
            const uint64_t *bits = m->bits + ((size_t)h * m->n_qblocks + i) * m->words;
            for (uint32_t w = 0; w < m->words; w++) out[w] |= bits[w];
        }
}

/* Sets the bits [first, end): blocks that hold tokens of the current chunk. */
static void open_blocks(uint64_t *bits, uint32_t first, uint32_t end)
{
    for (uint32_t j = first; j < end; j++) bits[j / 64] |= UINT64_C(1) << (j % 64);
}

void ca_mask_union(const ca_mask *mask, uint32_t heads_per_row, uint64_t *q_union, uint64_t *g_union)
{
    for (uint32_t h = 0; q_union && h < mask->n_heads; h++) {
        union_of(mask, h, 1, 0, mask->n_qblocks, q_union + (size_t)h * mask->words);
        open_blocks(q_union + (size_t)h * mask->words, mask->first_qblock, mask->n_kblocks);
    }
    for (uint32_t r = 0; g_union && heads_per_row && r < mask->n_heads / heads_per_row; r++) {
        union_of(mask, r * heads_per_row, heads_per_row, 0, mask->n_qblocks, g_union + (size_t)r * mask->words);
        open_blocks(g_union + (size_t)r * mask->words, mask->first_qblock, mask->n_kblocks);
    }
}

/* Rows of `heads` query heads x `qblocks` Q blocks. With open, the chunk's own blocks are always in. */
static ca_status add_rows(const ca_cache *cache, const ca_mask *mask, uint32_t heads, uint32_t qblocks, bool open, ca_table *table)
{
    enum { MAX_WORDS = 4096 };
    uint64_t bits[MAX_WORDS];
    const uint32_t bs = cache->opt.page_tokens, group = mask->n_heads / cache->opt.n_kv_heads;
    const uint32_t end = mask->first_token + mask->n_tokens;
    if (mask->words > MAX_WORDS)
        return ca_fail(CA_E_UNSUPPORTED, "table: %u K blocks are more than %u", mask->n_kblocks, MAX_WORDS * 64);
    for (uint32_t h = 0; h < mask->n_heads; h += heads)
        for (uint32_t i = 0; i < mask->n_qblocks; i += qblocks) {
            const uint32_t n = ca_min_u32(qblocks, mask->n_qblocks - i), block = mask->first_qblock + i;
            const uint32_t from = ca_max_u32(mask->first_token, block * bs), to = ca_min_u32(end, (block + n) * bs);
            union_of(mask, h, heads, i, n, bits);
            /* The chunk's blocks before the mask's first token belong to the current chunk, too. */
            if (open) open_blocks(bits, table->chunk.pos / bs, block + n);
            const ca_row row = {
                .kv_head = h / group, .head = h, .n_heads = heads, .token = from - table->chunk.pos, .n_tokens = to - from
            };
            CA_TRY(add_row(cache, table, row, bits, block + n));
        }
    return CA_OK;
}

ca_status ca_table_add_block_sparse(const ca_cache *cache, const ca_mask *mask, ca_table *table)
{
    CA_TRY(ca_mask_check(cache, mask, &table->chunk));
    return add_rows(cache, mask, 1, 1, false, table);
}

ca_status ca_table_add_compact(const ca_cache *cache, const ca_mask *mask, const ca_table_opt *opt, ca_table *table)
{
    CA_TRY(ca_mask_check(cache, mask, &table->chunk));
    const uint32_t group = mask->n_heads / cache->opt.n_kv_heads;
    const uint32_t per_row = opt->heads_per_row ? opt->heads_per_row : group;
    if (group % per_row != 0)
        return ca_fail(CA_E_ARG, "table: heads_per_row %u does not divide the GQA group of %u heads", per_row, group);
    return add_rows(cache, mask, per_row, mask->n_qblocks, true, table);
}

/* Sum over tokens t in [0, n) of min(len, max(0, pos + t - page_pos + 1)): visible keys of a page. */
static uint64_t visible(uint64_t page_pos, uint64_t len, uint64_t pos, uint64_t n)
{
    if (pos + 1 >= page_pos + len) return n * len;
    const uint64_t skip = page_pos > pos ? page_pos - pos : 0; /* queries before the page */
    if (skip >= n) return 0;
    const uint64_t first = pos + skip - page_pos + 1; /* keys that the first query past them sees */
    const uint64_t ramp = len - first + 1 < n - skip ? len - first + 1 : n - skip;
    return ramp * first + ramp * (ramp - 1) / 2 + (n - skip - ramp) * len;
}

void ca_table_measure(const ca_cache *cache, const ca_table *table, ca_table_count *out)
{
    const uint64_t start = table->chunk.pos;
    *out = (ca_table_count){ 0 };
    for (uint32_t r = 0; r < table->n_rows; r++) {
        const ca_row *row = &table->rows[r];
        const uint64_t pos = start + row->token, n = row->n_tokens;
        out->pairs_dense += row->n_heads * (n * (pos + 1) + n * (n - 1) / 2);
        out->past_pairs_dense += row->n_heads * n * start;
        for (uint32_t i = 0; i < row->n_pages; i++) {
            const ca_page_info *page = &cache->info[table->pages[row->first_page + i]];
            out->pairs += row->n_heads * visible(page->pos, page->len, pos, n);
            if (page->pos < start) out->past_pairs += row->n_heads * n * ca_min_u32(page->len, (uint32_t)start - page->pos);
        }
    }
}
