/* KV pages: K and V are written once, in the layout the kernel reads, and never move. spec: DESIGN "Pages".
 *
 * A page holds page_tokens consecutive tokens of one KV head of one layer of one sequence, and knows the absolute position of its
 * first token and how many tokens it has. Page ids are 0..n_pages-1 and stay valid until the page is freed. */
#ifndef COMPACTATTN_CACHE_H
#define COMPACTATTN_CACHE_H

#include "base.h"
#include "cpu.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ca_cache ca_cache;

/* Summaries that a selector may ask the cache to keep beside each page. */
enum { CA_SUMMARY_NONE = 0, CA_SUMMARY_MEAN_K = 1 << 0 };

typedef struct ca_cache_opt {
    uint32_t n_layers;
    uint32_t n_kv_heads;
    uint32_t head_dim;        /* a multiple of 16; at most 256 */
    uint32_t page_tokens;     /* 32, 64 or 128 */
    uint32_t max_seqs;        /* sequences that can live at the same time, >= 1 */
    uint64_t capacity_tokens; /* tokens of one layer that all sequences together can hold */
    uint32_t summaries;       /* CA_SUMMARY_* bits, computed while tokens are appended */
    const ca_kern *kern;      /* owner of the page layout; borrowed, static */
} ca_cache_opt;

/* Bytes that ca_cache_create will reserve for opt. CA_E_ARG when a field is out of range, CA_E_MEMORY on overflow. */
CA_API ca_status ca_cache_forecast(const ca_cache_opt *opt, size_t *bytes);

/* Creates a pool with no sequence in use. The caller owns *out. CA_E_MEMORY when the pool cannot be mapped. */
CA_API ca_status ca_cache_create(const ca_cache_opt *opt, ca_cache **out);
CA_API void ca_cache_destroy(ca_cache *cache);

/* Appends n_tokens tokens of one layer to the end of a sequence.
 * k, v   f32 [n_tokens][n_kv_heads][head_dim], rotated already; stride = floats between tokens of k and of v.     borrowed
 * Rounded once to the page's type; summaries are updated in the same pass. CA_E_FULL when the pool has too few free pages
 * (nothing is appended then). Not thread-safe on one cache; uses the OpenMP threads of the caller. */
CA_API ca_status ca_cache_append(ca_cache *cache, uint32_t seq, uint32_t layer, const float *k, const float *v, size_t stride,
                                 uint32_t n_tokens);

/* Tokens held for a sequence in one layer. */
CA_API uint32_t ca_cache_len(const ca_cache *cache, uint32_t seq, uint32_t layer);

/* Forgets every token at position n_tokens and later, in all layers, and frees the pages that become empty. */
CA_API ca_status ca_cache_truncate(ca_cache *cache, uint32_t seq, uint32_t n_tokens);

/* Page ids of (seq, layer, kv_head) in the order of positions; *n_pages of them; NULL when there are none. Points into the
 * cache; valid until the next append or truncate. */
CA_API const uint32_t *ca_cache_pages(const ca_cache *cache, uint32_t seq, uint32_t layer, uint32_t kv_head, uint32_t *n_pages);

/* Absolute position of a page's first token, and the number of tokens in it. */
CA_API uint32_t ca_page_pos(const ca_cache *cache, uint32_t page);
CA_API uint32_t ca_page_len(const ca_cache *cache, uint32_t page);

/* Plain rows of a page: k, v f32 [page_tokens][head_dim]; slots past the page's length are zero. Either may be NULL. For tests,
 * export and debugging. */
CA_API ca_status ca_page_read(const ca_cache *cache, uint32_t page, float *k, float *v);

/* Mean key of a page, f32 [head_dim], over the tokens it has. CA_E_ARG when the cache keeps no mean keys. */
CA_API ca_status ca_page_mean_k(const ca_cache *cache, uint32_t page, float *mean);

/* Swaps the storage of two pages (contents, positions and maps follow): results of attention must not change. For tests. */
CA_API ca_status ca_cache_swap_pages(ca_cache *cache, uint32_t a, uint32_t b);

#ifdef __cplusplus
}
#endif
#endif
