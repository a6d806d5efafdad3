/* Inside of the page pool, for the rooms below this one. */
#ifndef CA_CACHE_CACHE_H
#define CA_CACHE_CACHE_H

#include <compactattn/cache.h>

#include "cache/gate.h"
#include "kern/attn_int8.h"
#include "kern/kern.h"

/* One (sequence, layer, KV head): its pages in order, and the summaries of their blocks. */
typedef struct ca_head {
    uint32_t *pages;  /* [blocks_cap] page ids */
    float *mean_k;    /* [blocks_cap/16][head_dim][16]: mean key of each block, in panels; NULL without the summary */
    float *open_sum;  /* [head_dim]: sum of the keys of the last, unfinished block */
    float *inv_norm;  /* [blocks_cap * page_tokens]: 1 / max(|k|, 1e-6) of each token; NULL without the summary */
    float *gate_k;    /* [gate k heads of this KV head][blocks_cap/16][hidden][16]: projected, rotated pools; NULL without */
    float *gate_pool; /* [3][head_dim]: max, min and sum of the last, unfinished block's keys before RoPE */
} ca_head;

typedef struct ca_page_info {
    uint32_t pos, len;
    uint32_t head; /* index of the ca_head that holds it */
} ca_page_info;

struct ca_cache {
    ca_cache_opt opt;
    const ca_attn_int8 *int8; /* attention of integers over its pages; NULL = none */
    size_t page_bytes;
    uint32_t n_pages, blocks_cap; /* pages, scratch included; blocks that one head can hold */
    uint32_t n_pool, n_gather;    /* the first n_pool pages are the pool; then n_gather scratch pages per KV head */
    unsigned char *data;          /* n_pages * page_bytes, mapped */
    ca_page_info *info;           /* [n_pages] */
    uint32_t *free_pages;         /* stack */
    uint32_t n_free;
    ca_head *heads;   /* [max_seqs][n_layers][n_kv_heads] */
    uint32_t *lens;   /* [max_seqs][n_layers] */
    uint32_t *starts; /* [max_seqs][n_layers] first position that is held */
    size_t data_bytes, arena_bytes;
    unsigned char *arena; /* everything but data */
};

static inline const ca_head *ca_cache_head(const ca_cache *cache, uint32_t seq, uint32_t layer, uint32_t kv_head)
{
    return &cache->heads[((size_t)seq * cache->opt.n_layers + layer) * cache->opt.n_kv_heads + kv_head];
}

/* What opt makes of a cache, without its memory: all that has no pointer. */
ca_status ca_cache_plan(const ca_cache_opt *opt, ca_cache *out);

/* Pages for positions [start, len) of an empty layer of a sequence, contents undefined: start is the first position of a page. */
ca_status ca_cache_reserve(ca_cache *cache, uint32_t seq, uint32_t layer, uint32_t start, uint32_t len);

static inline void *ca_page_data(const ca_cache *cache, uint32_t page)
{
    return cache->data + (size_t)page * cache->page_bytes;
}

/* Element i of a page's data (see ca_page_k_index, ca_page_v_index), as a float. */
static inline float ca_page_element(const ca_kern *kern, const unsigned char *data, size_t i)
{
    float f;
    uint16_t b;
    if (kern->type == CA_F32) {
        memcpy(&f, data + i * 4, 4);
        return f;
    }
    memcpy(&b, data + i * 2, 2);
    return ca_bf16_to_f32(b);
}

#endif
