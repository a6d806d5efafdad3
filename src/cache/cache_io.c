#include "cache/cache_io.h"

/* The parts of one head in their order. Export and import are the same walk: only the direction of move differs. */
static ca_status move_head(const ca_cache *c, const ca_head *head, uint32_t start, uint32_t len, ca_cache_move move, void *user)
{
    const uint32_t bs = c->opt.page_tokens, n_blocks = ca_ceil_div(len, bs);
    const size_t panels = ca_align_up(n_blocks, 16);
    for (uint32_t b = start / bs; b < n_blocks; b++) CA_TRY(move(user, ca_page_data(c, head->pages[b]), c->page_bytes));
    if (head->mean_k) {
        CA_TRY(move(user, head->mean_k, panels * c->opt.head_dim * sizeof(float)));
        CA_TRY(move(user, head->open_sum, c->opt.head_dim * sizeof(float)));
    }
    if (head->inv_norm) CA_TRY(move(user, head->inv_norm, (size_t)n_blocks * bs * sizeof(float)));
    if (!head->gate_k) return CA_OK;
    const uint32_t heads = ca_gate_k_heads(c->opt.gate), hidden = c->opt.gate->opt.hidden;
    for (uint32_t h = 0; h < heads; h++)
        CA_TRY(move(user, head->gate_k + (size_t)h * c->blocks_cap * hidden, panels * hidden * sizeof(float)));
    return move(user, head->gate_pool, (size_t)3 * c->opt.head_dim * sizeof(float));
}

ca_status ca_cache_export(const ca_cache *cache, uint32_t seq, ca_cache_move put, void *user)
{
    for (uint32_t l = 0; l < cache->opt.n_layers; l++) {
        uint32_t span[2] = { ca_cache_start(cache, seq, l), ca_cache_len(cache, seq, l) };
        CA_TRY(put(user, span, sizeof span));
        for (uint32_t h = 0; h < cache->opt.n_kv_heads; h++)
            CA_TRY(move_head(cache, ca_cache_head(cache, seq, l, h), span[0], span[1], put, user));
    }
    return CA_OK;
}

static ca_status import_layer(ca_cache *cache, uint32_t seq, uint32_t layer, ca_cache_move get, void *user)
{
    uint32_t span[2];
    CA_TRY(get(user, span, sizeof span));
    CA_TRY(ca_cache_reserve(cache, seq, layer, span[0], span[1]));
    for (uint32_t h = 0; h < cache->opt.n_kv_heads; h++)
        CA_TRY(move_head(cache, ca_cache_head(cache, seq, layer, h), span[0], span[1], get, user));
    return CA_OK;
}

ca_status ca_cache_import(ca_cache *cache, uint32_t seq, ca_cache_move get, void *user)
{
    if (seq >= cache->opt.max_seqs) return ca_fail(CA_E_ARG, "cache: sequence %u of %u", seq, cache->opt.max_seqs);
    for (uint32_t l = 0; l < cache->opt.n_layers; l++)
        if (ca_cache_len(cache, seq, l) > 0) return ca_fail(CA_E_ARG, "cache: sequence %u is not empty", seq);
    for (uint32_t l = 0; l < cache->opt.n_layers; l++) {
        const ca_status st = import_layer(cache, seq, l, get, user);
        if (st == CA_OK) continue;
        (void)ca_cache_truncate(cache, seq, 0);
        return st;
    }
    return CA_OK;
}
