#include "select/mask.h"

#include <string.h>

ca_status ca_chunk_check(const ca_cache *cache, const ca_chunk *chunk)
{
    if (chunk->seq >= cache->opt.max_seqs || chunk->layer >= cache->opt.n_layers)
        return ca_fail(CA_E_ARG, "chunk: sequence %u, layer %u of a cache with %u sequences, %u layers", chunk->seq, chunk->layer,
                       cache->opt.max_seqs, cache->opt.n_layers);
    if (chunk->n_heads == 0 || chunk->n_heads % cache->opt.n_kv_heads != 0)
        return ca_fail(CA_E_SHAPE, "chunk: %u query heads are not a multiple of %u KV heads", chunk->n_heads,
                       cache->opt.n_kv_heads);
    const uint32_t len = ca_cache_len(cache, chunk->seq, chunk->layer);
    if (chunk->n_tokens == 0 || (uint64_t)chunk->pos + chunk->n_tokens > len)
        return ca_fail(CA_E_SHAPE, "chunk: chunk [%u, +%u) is not inside the %u tokens of the cache", chunk->pos, chunk->n_tokens,
                       len);
    return CA_OK;
}

ca_status ca_mask_create(const ca_cache *cache, const ca_chunk *chunk, uint32_t first, uint32_t n, ca_workspace *ws, ca_mask *out)
{
    CA_TRY(ca_chunk_check(cache, chunk));
    if (n == 0 || (uint64_t)first + n > chunk->n_tokens)
        return ca_fail(CA_E_SHAPE, "mask: tokens [%u, +%u) of a chunk of %u", first, n, chunk->n_tokens);
    const uint32_t bs = cache->opt.page_tokens, from = chunk->pos + first, to = from + n;
    *out = (ca_mask){
        .n_heads = chunk->n_heads, .first_qblock = from / bs, .n_kblocks = ca_ceil_div(to, bs), .first_token = from, .n_tokens = n
    };
    out->n_qblocks = out->n_kblocks - out->first_qblock;
    out->words = (uint32_t)ca_mask_words(out->n_kblocks);
    void *bits = NULL;
    const size_t n_words = (size_t)out->n_heads * out->n_qblocks * out->words;
    CA_TRY(ca_ws_take(ws, "mask", n_words, 8, &bits));
    memset(bits, 0, n_words * 8);
    out->bits = bits;
    return CA_OK;
}

ca_status ca_mask_set(ca_mask *mask, const uint8_t *blocks, uint32_t n_heads, uint32_t n_qblocks, uint32_t n_kblocks)
{
    if (n_heads != mask->n_heads || n_qblocks != mask->n_qblocks || n_kblocks != mask->n_kblocks)
        return ca_fail(CA_E_SHAPE, "mask: %u heads x %u x %u blocks were given, the chunk has %u x %u x %u", n_heads, n_qblocks,
                       n_kblocks, mask->n_heads, mask->n_qblocks, mask->n_kblocks);
    for (size_t row = 0; row < (size_t)n_heads * n_qblocks; row++) {
        const uint32_t diag = mask->first_qblock + (uint32_t)(row % n_qblocks);
        uint64_t *bits = mask->bits + row * mask->words;
        memset(bits, 0, (size_t)mask->words * 8);
        for (uint32_t j = 0; j <= diag; j++)
            if (blocks[row * n_kblocks + j]) bits[j / 64] |= UINT64_C(1) << (j % 64);
    }
    return CA_OK;
}

ca_status ca_mask_check(const ca_cache *cache, const ca_mask *m, const ca_chunk *c)
{
    const uint32_t bs = cache->opt.page_tokens;
    if (m->n_heads != c->n_heads || m->n_tokens == 0 || m->first_token < c->pos ||
        (uint64_t)m->first_token + m->n_tokens > (uint64_t)c->pos + c->n_tokens)
        return ca_fail(CA_E_SHAPE, "mask: a mask of %u heads, tokens [%u, +%u) does not fit a chunk of %u heads, [%u, +%u)",
                       m->n_heads, m->first_token, m->n_tokens, c->n_heads, c->pos, c->n_tokens);
    if (m->first_qblock != m->first_token / bs || m->n_kblocks != ca_ceil_div(m->first_token + m->n_tokens, bs) ||
        m->n_qblocks != m->n_kblocks - m->first_qblock || m->words != ca_mask_words(m->n_kblocks))
        return ca_fail(CA_E_SHAPE, "mask: %u x %u blocks is not on the grid of %u-token pages", m->n_qblocks, m->n_kblocks, bs);
    return CA_OK;
}
