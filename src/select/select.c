#include "select/select.h"

#include <math.h>
#include <string.h>

/* Index = ca_selector. */
static const ca_selector_vt *const selectors[] = {
    NULL,
    &ca_select_flashprefill,
    &ca_select_seer,
    &ca_select_quoka,
    &ca_select_xattention,
    &ca_select_minference,
    &ca_select_trishape,
    &ca_select_oracle,
    &ca_select_user,
};

static const ca_selector_vt *find(ca_selector selector)
{
    return (size_t)selector < sizeof selectors / sizeof selectors[0] ? selectors[selector] : NULL;
}

void ca_select_defaults(ca_selector selector, ca_select_opt *out)
{
    *out = (ca_select_opt){ .selector = selector,
                            .flashprefill = { .alpha = 0.12F, .sink = 256, .window = 512 },
                            .seer = { .threshold = 5e-4F },
                            .quoka = { .query_ratio = 0.25F, .kv_ratio = 0.25F },
                            .xattention = { .stride = 16, .threshold = 0.9F },
                            .minference = { .top_k = 16 },
                            .trishape = { .sink = 256, .window = 2048 },
                            .oracle = { .mass = 0.95F } };
}

const char *ca_selector_name(ca_selector selector)
{
    const ca_selector_vt *vt = find(selector);
    return vt ? vt->name : selector == CA_SELECT_NONE ? "none" : NULL;
}

ca_status ca_select_check(const ca_select_opt *opt)
{
    const ca_selector_vt *vt = find(opt->selector);
    if (vt) return vt->check(opt);
    return opt->selector == CA_SELECT_NONE ? CA_OK : ca_fail(CA_E_ARG, "select: selector %d is unknown", (int)opt->selector);
}

uint32_t ca_select_summaries(const ca_select_opt *opt)
{
    const ca_selector_vt *vt = find(opt->selector);
    return vt ? vt->summaries : CA_SUMMARY_NONE;
}

size_t ca_select_ws_bytes(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_heads, uint32_t n_tokens, uint32_t kv_tokens)
{
    const ca_selector_vt *vt = find(opt->selector);
    return vt && vt->ws_bytes ? vt->ws_bytes(cache, opt, n_heads, n_tokens, kv_tokens) : 0;
}

/* What ca_select and ca_select_tokens ask of their arguments. */
static ca_status check_job(const ca_selector_vt *vt, const ca_cache *cache, const ca_select_opt *opt, const ca_chunk *chunk,
                           const ca_queries *q)
{
    const size_t width = (size_t)chunk->n_heads * cache->opt.head_dim;
    CA_TRY(vt->check(opt));
    if ((cache->opt.summaries & vt->summaries) != vt->summaries)
        return ca_fail(CA_E_ARG, "select: %s needs a cache created with ca_select_summaries()", vt->name);
    CA_TRY(ca_chunk_check(cache, chunk));
    if (ca_cache_start(cache, chunk->seq, chunk->layer) > 0)
        return ca_fail(CA_E_ARG, "select: layer %u has forgotten tokens: a layer with a window needs no selector", chunk->layer);
    if (q->stride < width)
        return ca_fail(CA_E_SHAPE, "select: token stride %zu is below %u heads x %u", q->stride, chunk->n_heads,
                       cache->opt.head_dim);
    if ((vt->summaries & CA_SUMMARY_GATE) && (!q->q_raw || q->raw_stride < width))
        return ca_fail(CA_E_ARG, "select: %s needs q_raw, the queries before RoPE, of %u heads x %u", vt->name, chunk->n_heads,
                       cache->opt.head_dim);
    return CA_OK;
}

ca_status ca_select(const ca_cache *cache, const ca_select_opt *opt, const ca_chunk *chunk, const ca_queries *q, ca_workspace *ws,
                    ca_mask *mask, float *scores)
{
    const ca_selector_vt *vt = find(opt->selector);
    if (!vt || !vt->run) return ca_fail(CA_E_ARG, "select: selector %d has no block scores", (int)opt->selector);
    CA_TRY(check_job(vt, cache, opt, chunk, q));
    CA_TRY(ca_mask_check(cache, mask, chunk));
    if (scores) memset(scores, 0, (size_t)mask->n_heads * mask->n_qblocks * mask->n_kblocks * sizeof *scores);
    const size_t mark = ws->used;
    const ca_status st = vt->run(&(ca_select_job){ cache, opt, chunk, q, ws, mask, scores });
    ws->used = mark;
    return st;
}

ca_status ca_select_tokens(const ca_cache *cache, const ca_select_opt *opt, const ca_chunk *chunk, const ca_queries *q,
                           ca_workspace *ws, uint32_t *tokens, uint32_t *n, float *scores)
{
    *n = 0;
    if (opt->selector != CA_SELECT_QUOKA)
        return ca_fail(CA_E_ARG, "select: selector %d does not choose tokens", (int)opt->selector);
    CA_TRY(check_job(&ca_select_quoka, cache, opt, chunk, q));
    const size_t mark = ws->used;
    const ca_status st = ca_select_tokens_quoka(&(ca_select_job){ cache, opt, chunk, q, ws, NULL, scores }, tokens, n);
    ws->used = mark;
    return st;
}

void ca_qblock_span(const ca_cache *cache, const ca_mask *mask, uint32_t i, uint32_t *from, uint32_t *to)
{
    const uint32_t bs = cache->opt.page_tokens, block = mask->first_qblock + i;
    *from = ca_max_u32(mask->first_token, block * bs);
    *to = ca_min_u32(mask->first_token + mask->n_tokens, (block + 1) * bs);
}

/* Block a comes before block b. */
static bool better(const float *score, uint32_t a, uint32_t b)
{
    const float x = score[a], y = score[b];
    return x > y || (x == y && a < b);
}

static void sift(const float *score, uint32_t *heap, uint32_t n, uint32_t at)
{
    for (uint32_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && better(score, heap[child + 1], heap[child])) child++;
        if (better(score, heap[at], heap[child])) return;
        const uint32_t block = heap[at];
        heap[at] = heap[child];
        heap[child] = block;
        at = child;
    }
}

/* A heap of the blocks 0..n-1, the best one on top. */
static void make_heap(const float *score, uint32_t *heap, uint32_t n)
{
    for (uint32_t j = 0; j < n; j++) heap[j] = j;
    for (uint32_t j = n / 2; j-- > 0;) sift(score, heap, n, j);
}

static uint32_t pop(const float *score, uint32_t *heap, uint32_t *n)
{
    const uint32_t best = heap[0];
    heap[0] = heap[--*n];
    sift(score, heap, *n, 0);
    return best;
}

void ca_mask_keep_share(uint64_t *row, const float *score, uint32_t diag, float share, uint32_t *heap)
{
    double total = 0.0, mass = (double)score[0] + (diag > 0 ? (double)score[diag] : 0.0);
    uint32_t n = diag + 1;
    for (uint32_t j = 0; j <= diag; j++) total += (double)score[j];
    ca_mask_keep(row, 0);
    ca_mask_keep(row, diag);
    make_heap(score, heap, n);
    while (n > 0 && mass < (double)share * total) {
        const uint32_t j = pop(score, heap, &n);
        if (j == 0 || j == diag) continue;
        mass += (double)score[j];
        ca_mask_keep(row, j);
    }
}

void ca_mask_keep_best(uint64_t *row, const float *score, uint32_t diag, uint32_t n, uint32_t *heap)
{
    uint32_t left = diag + 1;
    make_heap(score, heap, left);
    for (uint32_t i = 0; i < n && left > 0; i++) ca_mask_keep(row, pop(score, heap, &left));
}
