/* Block mask -> unions -> rows of page ids. Formulas: spec/attention.md 4.1. */
#include <math.h>
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

ca_status ca_table_create_batch(const ca_cache *cache, const ca_chunk *chunks, uint32_t n_chunks, ca_workspace *ws, ca_table *out)
{
    *out = (ca_table){ 0 };
    if (n_chunks == 0) return ca_fail(CA_E_ARG, "table: no chunks");
    size_t n_rows = 0;
    for (uint32_t i = 0; i < n_chunks; i++) {
        const ca_chunk *c = &chunks[i];
        CA_TRY(ca_chunk_check(cache, c));
        if (c->layer != chunks[0].layer || c->n_heads != chunks[0].n_heads || c->first > UINT32_MAX - c->n_tokens)
            return ca_fail(CA_E_SHAPE,
                           "table: chunk %u of a batch has layer %u, %u heads, first %u; chunk 0 has layer %u, %u heads", i,
                           c->layer, c->n_heads, c->first, chunks[0].layer, chunks[0].n_heads);
        const size_t rows = c->n_heads * (size_t)(max_qblocks(cache, c->n_tokens) + 2);
        n_rows += rows;
        out->max_pages += rows * ca_ceil_div(c->pos + c->n_tokens, cache->opt.page_tokens);
        out->n_tokens = ca_max_u32(out->n_tokens, c->first + c->n_tokens);
    }
    if (n_rows > UINT32_MAX) return ca_fail(CA_E_UNSUPPORTED, "table: %zu rows", n_rows);
    out->chunk = chunks[0];
    out->max_rows = (uint32_t)n_rows;
    void *rows = NULL, *pages = NULL;
    const size_t mark = ws->used;
    ca_status st = ca_ws_take(ws, "table rows", out->max_rows, sizeof(ca_row), &rows);
    if (st == CA_OK) st = ca_ws_take(ws, "table pages", out->max_pages, sizeof(uint32_t), &pages);
    if (st != CA_OK) ws->used = mark;
    out->rows = rows;
    out->pages = pages;
    return st;
}

ca_status ca_table_create(const ca_cache *cache, const ca_chunk *chunk, ca_workspace *ws, ca_table *out)
{
    return ca_table_create_batch(cache, chunk, 1, ws, out);
}

ca_status ca_table_next_chunk(const ca_cache *cache, const ca_chunk *chunk, ca_table *table)
{
    CA_TRY(ca_chunk_check(cache, chunk));
    if (chunk->layer != table->chunk.layer || chunk->n_heads != table->chunk.n_heads ||
        (uint64_t)chunk->first + chunk->n_tokens > table->n_tokens)
        return ca_fail(CA_E_SHAPE, "table: tokens [%u, +%u) are not those of a chunk that the table was created for", chunk->first,
                       chunk->n_tokens);
    table->chunk = *chunk;
    return CA_OK;
}

/* A row for heads [head, +n_heads) of tokens [token, +n) of the chunk. */
static ca_row row_of(const ca_cache *cache, const ca_chunk *chunk, uint32_t head, uint32_t n_heads, uint32_t token, uint32_t n)
{
    return (ca_row){ .seq = chunk->seq,
                     .kv_head = head / (chunk->n_heads / cache->opt.n_kv_heads),
                     .head = head,
                     .n_heads = n_heads,
                     .token = chunk->first + token,
                     .n_tokens = n,
                     .pos = chunk->pos + token,
                     .past = chunk->pos };
}

/* Appends a row that reads n_gathered given pages, then the blocks of `bits` (NULL = all) in [first_block, n_blocks). */
static ca_status add_row(const ca_cache *cache, ca_table *table, ca_row row, const uint32_t *gathered, uint32_t n_gathered,
                         const uint64_t *bits, uint32_t first_block, uint32_t n_blocks)
{
    const size_t end = table->n_pages + n_gathered + n_blocks - first_block;
    if (table->n_rows == table->max_rows || end > table->max_pages)
        return ca_fail(CA_E_WORKSPACE, "table: row %u does not fit: one builder of Q blocks and two of whole runs do",
                       table->n_rows);
    if (end > UINT32_MAX)
        return ca_fail(CA_E_UNSUPPORTED, "table: row %u ends at page %zu of the lists: use shorter chunks or larger pages",
                       table->n_rows, end);
    const uint32_t *ids = ca_cache_head(cache, row.seq, table->chunk.layer, row.kv_head)->pages;
    const uint32_t start = ca_cache_start(cache, row.seq, table->chunk.layer) / cache->opt.page_tokens;
    uint32_t *list = table->pages + table->n_pages;
    uint32_t n = n_gathered;
    if (n > 0) memcpy(list, gathered, (size_t)n * sizeof *gathered);
    if (!bits) {
        memcpy(list + n, ids + first_block, (size_t)(n_blocks - first_block) * sizeof *ids);
        n += n_blocks - first_block;
    } else {
        for (uint32_t w = 0; w < ca_mask_words(n_blocks); w++)
            for (uint64_t left = bits[w]; left; left &= left - 1) {
                const uint32_t j = w * 64 + (uint32_t)__builtin_ctzll(left);
                if (j < n_blocks) list[n++] = ids[j];
            }
    }
    for (uint32_t i = n_gathered; start > 0 && i < n; i++)
        if (list[i] == UINT32_MAX)
            return ca_fail(CA_E_ARG, "table: a row needs tokens before %u, which layer %u has forgotten",
                           start * cache->opt.page_tokens, table->chunk.layer);
    row.first_page = (uint32_t)table->n_pages;
    row.n_pages = n;
    table->rows[table->n_rows++] = row;
    table->n_pages += n;
    return CA_OK;
}

static ca_status check_tokens(const ca_chunk *c, uint32_t first, uint32_t n)
{
    if ((uint64_t)first + n > c->n_tokens)
        return ca_fail(CA_E_SHAPE, "table: tokens [%u, +%u) of a chunk of %u", first, n, c->n_tokens);
    return CA_OK;
}

/* One row of a KV head for tokens [first, +n), every page up to the last of them. */
static ca_status add_dense_row(const ca_cache *cache, uint32_t kv_head, uint32_t first, uint32_t n, ca_table *table)
{
    const ca_chunk *c = &table->chunk;
    const uint32_t group = c->n_heads / cache->opt.n_kv_heads;
    return add_row(cache, table, row_of(cache, c, kv_head * group, group, first, n), NULL, 0, NULL, 0,
                   ca_ceil_div(c->pos + first + n, cache->opt.page_tokens));
}

ca_status ca_table_add_dense(const ca_cache *cache, uint32_t first, uint32_t n, ca_table *table)
{
    CA_TRY(check_tokens(&table->chunk, first, n));
    for (uint32_t kv = 0; kv < cache->opt.n_kv_heads && n > 0; kv++) CA_TRY(add_dense_row(cache, kv, first, n, table));
    return CA_OK;
}

ca_status ca_table_add_window(const ca_cache *cache, uint32_t first, uint32_t n, uint32_t window, ca_table *table)
{
    enum { MAX_SPAN = 512 }; /* tokens of a row: wide rows share their pages, narrow ones read fewer in vain */
    const ca_chunk *c = &table->chunk;
    const uint32_t bs = cache->opt.page_tokens, group = c->n_heads / cache->opt.n_kv_heads;
    const uint32_t span = ca_max_u32(bs, ca_min_u32(window / bs * bs, MAX_SPAN));
    CA_TRY(check_tokens(c, first, n));
    if (window == 0) return ca_fail(CA_E_ARG, "table: window 0: at least the query's own key");
    for (uint32_t kv = 0; kv < cache->opt.n_kv_heads; kv++)
        for (uint32_t at = first; at < first + n;) {
            const uint32_t pos = c->pos + at, count = ca_min_u32(span - pos % span, first + n - at);
            const uint32_t block = pos + 1 > window ? (pos + 1 - window) / bs : 0;
            ca_row row = row_of(cache, c, kv * group, group, at, count);
            row.window = window;
            CA_TRY(add_row(cache, table, row, NULL, 0, NULL, block, ca_ceil_div(pos + count, bs)));
            at += count;
        }
    return CA_OK;
}

ca_status ca_table_add_gathered(const ca_cache *cache, uint32_t first, uint32_t n, const uint32_t *pages, size_t stride,
                                const uint32_t *n_pages, ca_table *table)
{
    const ca_chunk *c = &table->chunk;
    const uint32_t bs = cache->opt.page_tokens, group = c->n_heads / cache->opt.n_kv_heads;
    CA_TRY(check_tokens(c, first, n));
    const uint32_t block = (c->pos + first) / bs; /* the lists were made for these tokens: their past ends at this page */
    for (uint32_t kv = 0; kv < cache->opt.n_kv_heads && n > 0; kv++) {
        ca_row row = row_of(cache, c, kv * group, group, first, n);
        row.past = row.pos;
        if (n_pages[kv] > block) return ca_fail(CA_E_SHAPE, "table: %u gathered pages, the past has %u", n_pages[kv], block);
        CA_TRY(add_row(cache, table, row, pages + kv * stride, n_pages[kv], NULL, block, ca_ceil_div(c->pos + first + n, bs)));
    }
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

enum { MAX_WORDS = 4096 };

static ca_status check_words(const ca_mask *mask)
{
    if (mask->words <= MAX_WORDS) return CA_OK;
    return ca_fail(CA_E_UNSUPPORTED, "table: %u K blocks are more than %u", mask->n_kblocks, MAX_WORDS * 64);
}

/* Blocks of the row of heads [h, +heads) and Q blocks [i, +n). With open, the chunk's own blocks are always in, those before the
 * mask's first token, too. */
static void row_blocks(const ca_mask *mask, uint32_t h, uint32_t heads, uint32_t i, uint32_t n, bool open, uint32_t first_open,
                       uint64_t *bits)
{
    union_of(mask, h, heads, i, n, bits);
    if (open) open_blocks(bits, first_open, mask->first_qblock + i + n);
}

/* Rows of `heads` query heads x `qblocks` Q blocks for heads [head, head_end). */
static ca_status add_rows(const ca_cache *cache, const ca_mask *mask, uint32_t head, uint32_t head_end, uint32_t heads,
                          uint32_t qblocks, bool open, ca_table *table)
{
    uint64_t bits[MAX_WORDS];
    const ca_chunk *c = &table->chunk;
    const uint32_t bs = cache->opt.page_tokens, end = mask->first_token + mask->n_tokens;
    for (uint32_t h = head; h < head_end; h += heads)
        for (uint32_t i = 0; i < mask->n_qblocks; i += qblocks) {
            const uint32_t n = ca_min_u32(qblocks, mask->n_qblocks - i), block = mask->first_qblock + i;
            const uint32_t from = ca_max_u32(mask->first_token, block * bs), to = ca_min_u32(end, (block + n) * bs);
            row_blocks(mask, h, heads, i, n, open, c->pos / bs, bits);
            CA_TRY(add_row(cache, table, row_of(cache, c, h, heads, from - c->pos, to - from), NULL, 0, bits, 0, block + n));
        }
    return CA_OK;
}

ca_status ca_table_add_block_sparse(const ca_cache *cache, const ca_mask *mask, ca_table *table)
{
    CA_TRY(ca_mask_check(cache, mask, &table->chunk));
    CA_TRY(check_words(mask));
    return add_rows(cache, mask, 0, mask->n_heads, 1, 1, false, table);
}

ca_status ca_table_add_compact(const ca_cache *cache, const ca_mask *mask, const ca_table_opt *opt, ca_table *table)
{
    CA_TRY(ca_mask_check(cache, mask, &table->chunk));
    CA_TRY(check_words(mask));
    const uint32_t group = mask->n_heads / cache->opt.n_kv_heads;
    const uint32_t per_row = opt->heads_per_row ? opt->heads_per_row : group;
    if (group % per_row != 0)
        return ca_fail(CA_E_ARG, "table: heads_per_row %u does not divide the GQA group of %u heads", per_row, group);
    return add_rows(cache, mask, 0, mask->n_heads, per_row, opt->qblocks_per_row ? opt->qblocks_per_row : mask->n_qblocks, true,
                    table);
}

void ca_cost_defaults(const ca_kern *kern, ca_attention attention, ca_cost *out)
{
    enum { ANY_PAGE = 128 };
    const ca_attn_int8 *int8 = attention == CA_ATTENTION_INT8 ? ca_attn_int8_choose(kern, ANY_PAGE) : NULL;
    *out = (ca_cost){ .flop = 1.0,
                      .page_byte = int8 ? int8->byte_flop : kern->byte_flop,
                      .job = int8 ? int8->job_flop : kern->job_flop,
                      .vectors = int8 ? int8->job : kern->attn_job };
}

void ca_worth_defaults(ca_worth *out)
{
    *out = (ca_worth){ .heads = 1.0F, .qblocks = 2.0F, .whole = 0.3F };
}

/* Cost of a row of n query vectors and n_pages pages. */
static double row_cost(const ca_cache *cache, const ca_cost *cost, double vectors, double n_pages)
{
    const double jobs = ceil(vectors / (cost->vectors > 0 ? cost->vectors : cache->opt.kern->attn_job));
    return jobs * (cost->job + n_pages * (double)cache->page_bytes * cost->page_byte) +
           cost->flop * 4.0 * vectors * n_pages * cache->opt.page_tokens * cache->opt.head_dim;
}

/* Pages that a row of n Q blocks lists and its mean query does not reach: of its own n, half. */
static double in_vain(uint32_t n)
{
    return (n - 1) / 2.0;
}

/* Cost of the mask's tokens of heads [head, +group) as rows of one shape; 0 heads: dense. */
static double shape_cost(const ca_cache *cache, const ca_mask *mask, const ca_chunk *c, const ca_cost *cost, uint32_t head,
                         uint32_t group, ca_row_shape shape)
{
    uint64_t bits[MAX_WORDS];
    const uint32_t bs = cache->opt.page_tokens, end = mask->first_token + mask->n_tokens;
    if (shape.heads == 0) return row_cost(cache, cost, (double)group * mask->n_tokens, mask->n_kblocks - in_vain(mask->n_qblocks));
    double sum = 0.0;
    for (uint32_t h = head; h < head + group; h += shape.heads)
        for (uint32_t i = 0; i < mask->n_qblocks; i += shape.qblocks) {
            const uint32_t n = ca_min_u32(shape.qblocks, mask->n_qblocks - i), block = mask->first_qblock + i;
            const uint32_t from = ca_max_u32(mask->first_token, block * bs), to = ca_min_u32(end, (block + n) * bs);
            uint32_t pages = 0;
            row_blocks(mask, h, shape.heads, i, n, true, c->pos / bs, bits);
            for (uint32_t w = 0; w < mask->words; w++) pages += (uint32_t)__builtin_popcountll(bits[w]);
            sum += row_cost(cache, cost, (double)shape.heads * (to - from), pages - in_vain(n));
        }
    return sum;
}

/* Share of the past blocks that the union over heads [head, +group) and all Q blocks reads. */
static double union_share(const ca_mask *mask, uint32_t head, uint32_t group, uint32_t past)
{
    uint64_t bits[MAX_WORDS];
    uint32_t n = 0;
    union_of(mask, head, group, 0, mask->n_qblocks, bits);
    for (uint32_t j = 0; j < past; j++) n += bits[j / 64] >> (j % 64) & 1;
    return past > 0 ? (double)n / past : 1.0;
}

/* Shapes of one KV head, coarsest first; dense is the coarsest. */
static uint32_t list_shapes(uint32_t group, uint32_t n_qblocks, ca_row_shape out[64])
{
    uint32_t n = 0;
    out[n++] = (ca_row_shape){ 0, 0 };
    for (uint32_t heads = group; heads > 0; heads--) {
        if (group % heads != 0) continue;
        for (uint32_t q = n_qblocks; q > 0 && n < 64; q = q == 1 ? 0 : (q + 1) / 2) out[n++] = (ca_row_shape){ heads, q };
    }
    return n;
}

ca_status ca_table_add_auto(const ca_cache *cache, const ca_mask *mask, const ca_cost *cost, const ca_worth *worth,
                            ca_row_shape *shapes, ca_table *table)
{
    enum { DENSE = 0 };
    CA_TRY(ca_mask_check(cache, mask, &table->chunk));
    CA_TRY(check_words(mask));
    if (!(cost->flop > 0.0) || !(cost->page_byte >= 0.0) || !(cost->job >= 0.0))
        return ca_fail(CA_E_ARG, "table: cost %g, %g, %g: the first must be above 0, the others not below", cost->flop,
                       cost->page_byte, cost->job);
    if (!(worth->heads >= 0.0F) || !(worth->qblocks >= 0.0F) || !(worth->whole >= 0.0F))
        return ca_fail(CA_E_ARG, "table: worth %g, %g, %g must not be below 0", (double)worth->heads, (double)worth->qblocks,
                       (double)worth->whole);
    const uint32_t group = mask->n_heads / cache->opt.n_kv_heads;
    ca_row_shape all[64] = { { 0, 0 } };
    const uint32_t n = list_shapes(group, mask->n_qblocks, all);
    for (uint32_t kv = 0; kv < cache->opt.n_kv_heads; kv++) {
        double best = INFINITY, best_cost = INFINITY;
        uint32_t pick = DENSE;
        const bool whole = union_share(mask, kv * group, group, table->chunk.pos / cache->opt.page_tokens) >= (double)worth->whole;
        for (uint32_t i = 1; i < (whole ? 2 : n); i++) { /* the coarser shape wins a tie */
            const double c = shape_cost(cache, mask, &table->chunk, cost, kv * group, group, all[i]);
            const double value = (1.0 + (double)worth->heads * (1.0 - 1.0 / all[i].heads)) *
                                 (1.0 + (double)worth->qblocks * (1.0 - 1.0 / all[i].qblocks));
            if (c / value >= best) continue;
            best = c / value;
            best_cost = c;
            pick = i;
        }
        if (shape_cost(cache, mask, &table->chunk, cost, kv * group, group, all[DENSE]) <= 1.05 * best_cost) pick = DENSE;
        if (shapes) shapes[kv] = all[pick];
        if (pick == DENSE)
            CA_TRY(add_dense_row(cache, kv, mask->first_token - table->chunk.pos, mask->n_tokens, table));
        else
            CA_TRY(add_rows(cache, mask, kv * group, (kv + 1) * group, all[pick].heads, all[pick].qblocks, true, table));
    }
    return CA_OK;
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

/* The same of queries that see the last `window` keys only. */
static uint64_t visible_in_window(uint64_t page_pos, uint64_t len, uint64_t pos, uint64_t n, uint64_t window)
{
    const uint64_t all = visible(page_pos, len, pos, n), skip = pos < window ? window - pos : 0;
    if (window == 0 || skip >= n) return all;
    return all - visible(page_pos, len, pos + skip - window, n - skip);
}

void ca_table_measure(const ca_cache *cache, const ca_table *table, ca_table_count *out)
{
    *out = (ca_table_count){ 0 };
    for (uint32_t r = 0; r < table->n_rows; r++) {
        const ca_row *row = &table->rows[r];
        const uint64_t pos = row->pos, n = row->n_tokens;
        const uint64_t pairs = out->pairs, past_pairs = out->past_pairs;
        for (uint32_t i = 0; i < row->n_pages; i++) {
            const ca_page_info *page = &cache->info[table->pages[row->first_page + i]];
            out->pairs += row->n_heads * visible_in_window(page->pos, page->len, pos, n, row->window);
            if (page->pos < row->past)
                out->past_pairs += row->n_heads *
                                   visible_in_window(page->pos, ca_min_u32(page->len, row->past - page->pos), pos, n, row->window);
        }
        if (row->window > 0) { /* dense attention of such a layer is the window */
            out->pairs_dense += out->pairs - pairs;
            out->past_pairs_dense += out->past_pairs - past_pairs;
        } else {
            out->pairs_dense += row->n_heads * (n * (pos + 1) + n * (n - 1) / 2);
            out->past_pairs_dense += row->n_heads * n * row->past;
        }
    }
}

/* Past keys in the blocks of bits. */
static uint64_t past_keys(const uint64_t *bits, uint32_t bs, uint32_t past)
{
    uint64_t n = 0;
    for (uint32_t w = 0; w < ca_mask_words(past / bs); w++) {
        const uint32_t left = past / bs - w * 64;
        const uint64_t valid = left < 64 ? (UINT64_C(1) << left) - 1 : ~UINT64_C(0);
        n += (uint64_t)__builtin_popcountll(bits[w] & valid) * bs;
    }
    const uint32_t open = past / bs;
    return past % bs != 0 && (bits[open / 64] >> (open % 64) & 1) ? n + past % bs : n;
}

void ca_mask_measure(const ca_cache *cache, const ca_chunk *chunk, const ca_mask *mask, uint32_t heads_per_row, ca_mask_count *out)
{
    uint64_t bits[MAX_WORDS];
    const uint32_t bs = cache->opt.page_tokens, end = mask->first_token + mask->n_tokens;
    *out = (ca_mask_count){ .dense = (uint64_t)mask->n_heads * mask->n_tokens * chunk->pos };
    if (mask->words > MAX_WORDS || heads_per_row == 0 || mask->n_heads % heads_per_row != 0) return;
    for (uint32_t h = 0; h < mask->n_heads; h++) {
        for (uint32_t i = 0; i < mask->n_qblocks; i++) {
            const uint32_t block = mask->first_qblock + i;
            const uint32_t from = ca_max_u32(mask->first_token, block * bs), to = ca_min_u32(end, (block + 1) * bs);
            out->asked += (to - from) * past_keys(mask->bits + ((size_t)h * mask->n_qblocks + i) * mask->words, bs, chunk->pos);
        }
        union_of(mask, h, 1, 0, mask->n_qblocks, bits);
        out->q_union += mask->n_tokens * past_keys(bits, bs, chunk->pos);
        if (h % heads_per_row != 0) continue;
        union_of(mask, h, heads_per_row, 0, mask->n_qblocks, bits);
        out->g_union += (uint64_t)heads_per_row * mask->n_tokens * past_keys(bits, bs, chunk->pos);
    }
}
