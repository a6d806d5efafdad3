#include "select/select.h"

/* Index = ca_selector. */
static const ca_selector_vt *const selectors[] = { NULL, &ca_select_flashprefill };

static const ca_selector_vt *find(const ca_select_opt *opt)
{
    return (size_t)opt->selector < sizeof selectors / sizeof selectors[0] ? selectors[opt->selector] : NULL;
}

void ca_select_defaults(ca_selector selector, ca_select_opt *out)
{
    *out = (ca_select_opt){ .selector = selector, .flashprefill = { .alpha = 0.12F, .sink = 2, .window = 4 } };
}

ca_status ca_select_check(const ca_select_opt *opt)
{
    const ca_selector_vt *vt = find(opt);
    if (vt) return vt->check(opt);
    return opt->selector == CA_SELECT_NONE ? CA_OK : ca_fail(CA_E_ARG, "select: selector %d is unknown", (int)opt->selector);
}

uint32_t ca_select_summaries(const ca_select_opt *opt)
{
    const ca_selector_vt *vt = find(opt);
    return vt ? vt->summaries : CA_SUMMARY_NONE;
}

size_t ca_select_ws_bytes(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_heads, uint32_t n_tokens, uint32_t kv_tokens)
{
    const ca_selector_vt *vt = find(opt);
    return vt ? vt->ws_bytes(cache, opt, n_heads, n_tokens, kv_tokens) : 0;
}

ca_status ca_select(const ca_cache *cache, const ca_select_opt *opt, const ca_chunk *chunk, const float *q, size_t stride,
                    ca_workspace *ws, ca_mask *mask, float *scores)
{
    const ca_selector_vt *vt = find(opt);
    if (!vt) return ca_fail(CA_E_ARG, "select: selector %d has no block scores", (int)opt->selector);
    CA_TRY(vt->check(opt));
    if ((cache->opt.summaries & vt->summaries) != vt->summaries)
        return ca_fail(CA_E_ARG, "select: %s needs a cache created with ca_select_summaries()", vt->name);
    CA_TRY(ca_chunk_check(cache, chunk));
    CA_TRY(ca_mask_check(cache, mask, chunk));
    if (stride < (size_t)chunk->n_heads * cache->opt.head_dim)
        return ca_fail(CA_E_SHAPE, "select: token stride %zu is below %u heads x %u", stride, chunk->n_heads, cache->opt.head_dim);
    const size_t mark = ws->used;
    const ca_status st = vt->run(&(ca_select_job){ cache, opt, chunk, q, stride, ws, mask, scores });
    ws->used = mark;
    return st;
}
