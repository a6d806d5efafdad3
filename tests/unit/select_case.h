/* Chunks that start and end anywhere, with keys and queries that make a selector choose, and the question whether its choice may be
 * what it is: what the tests of selectors share. */
#ifndef CA_TESTS_SELECT_CASE_H
#define CA_TESTS_SELECT_CASE_H

#include "kernels/kern_list.h"

typedef struct select_case {
    attn_shape shape;
    uint32_t after;    /* tokens that the cache holds past the chunk */
    uint32_t first, n; /* tokens of the chunk that the mask covers; n = 0: all */
} select_case;

/* Keys of a block, and queries of a Q block of a head, lean in a direction of their own: scores of one row differ by factors. Every
 * value fits in bf16. */
static inline void lean(float *x, uint32_t n_tokens, uint32_t n_heads, uint32_t dim, uint32_t pos, uint32_t page, uint64_t seed)
{
    for (uint32_t t = 0; t < n_tokens; t++)
        for (uint32_t h = 0; h < n_heads; h++) {
            uint64_t s = seed + (uint64_t)((pos + t) / page) * n_heads + h;
            s = mix64(&s);
            for (uint32_t d = 0; d < dim; d++) {
                float *at = &x[((size_t)t * n_heads + h) * dim + d];
                *at = ca_bf16_to_f32(ca_f32_to_bf16(*at + random_value(&s, 1.0F)));
            }
        }
}

static inline ca_queries queries_of(const attn_data *d)
{
    return (ca_queries){ .q = d->q, .stride = d->q_stride };
}

/* The cache keeps what opt asks for, and the workspace is as large as opt says it needs: the mask, and scratch. */
static inline attn_data select_data(const select_case *c, const ca_kern *kern, const ca_select_opt *opt)
{
    attn_data d = attn_data_create(c->shape, kern, ca_select_summaries(opt), 0, 0.7F);
    const attn_shape *s = &c->shape;
    const ca_cache_opt kept = { .n_layers = 1,
                                .n_kv_heads = s->hkv,
                                .head_dim = s->dim,
                                .page_tokens = s->page,
                                .max_seqs = 1,
                                .capacity_tokens = s->kv_len,
                                .summaries = ca_select_summaries(opt),
                                .gather_tokens = ca_select_gather_tokens(opt, s->kv_len),
                                .kern = kern };
    d.chunk.pos = s->kv_len - c->after - s->q_len;
    lean(d.k, s->kv_len, s->hkv, s->dim, 0, s->page, 100);
    lean(d.q, s->q_len, s->hq, s->dim, d.chunk.pos, s->page, 900000);
    ca_cache_destroy(d.cache);
    must(ca_cache_create(&kept, &d.cache), "cache");
    must(ca_cache_append(d.cache, 0, 0, &(ca_kv){ .k = d.k, .v = d.v, .stride = d.kv_stride }, s->kv_len), "append");
    free(d.ws.base);
    d.ws.size = ca_table_ws_bytes(d.cache, s->hq, s->q_len, s->kv_len) +
                ca_select_ws_bytes(d.cache, opt, s->hq, s->q_len, s->kv_len);
    d.ws.base = aligned_alloc(64, ca_align_up(d.ws.size, 64));
    return d;
}

static inline ca_mask mask_of(const select_case *c, attn_data *d)
{
    ca_mask m;
    d->ws.used = 0;
    must(ca_mask_create(d->cache, &d->chunk, c->first, c->n ? c->n : c->shape.q_len - c->first, &d->ws, &m), "mask");
    return m;
}

static inline bool bit(const uint64_t *bits, uint32_t j)
{
    return bits[j / 64] >> (j % 64) & 1;
}

typedef enum choice { OUT, IN, EITHER } choice;

typedef struct tally {
    unsigned kept, dropped, either;
} tally;

/* Item j among the budget best of s[0..n); scores closer than margin may come in either order. */
static inline choice among_best(const double *s, uint32_t n, uint32_t j, uint32_t budget, double margin)
{
    uint32_t above = 0, not_below = 0;
    for (uint32_t k = 0; k < n; k++) {
        if (k == j) continue;
        above += s[k] > s[j] + margin;
        not_below += s[k] >= s[j] - margin;
    }
    return above >= budget ? OUT : not_below < budget ? IN : EITHER;
}

/* Item j among those that are taken by falling score while what is taken before holds less than share of the sum of s[0..diag];
 * 0 and diag are taken from the start. Scores and sums closer than a part `near` may come in either order. */
static inline choice among_share(const double *s, uint32_t diag, uint32_t j, double share, double near)
{
    double total = 0.0, least = s[0] + (diag > 0 ? s[diag] : 0.0), most;
    if (j == 0 || j == diag) return IN;
    most = least;
    for (uint32_t k = 0; k <= diag; k++) {
        total += s[k];
        if (k == 0 || k == diag || k == j) continue;
        if (s[k] > s[j] * (1.0 + near)) least += s[k];
        if (s[k] >= s[j] * (1.0 - near)) most += s[k];
    }
    return most < share * total * (1.0 - near) ? IN : least >= share * total * (1.0 + near) ? OUT : EITHER;
}

#endif
