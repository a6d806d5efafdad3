/* KV pages: K and V are written once, in the layout the kernel reads, and never move. spec: DESIGN "Pages".
 *
 * A page holds page_tokens consecutive tokens of one KV head of one layer of one sequence, and knows the absolute position of its
 * first token and how many tokens it has. Page ids are 0..n_pages-1 and stay valid until the page is freed. */
#ifndef COMPACTATTN_CACHE_H
#define COMPACTATTN_CACHE_H

#include "base.h"
#include "cpu.h"
#include "gate.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ca_cache ca_cache;

/* Summaries that a selector may ask the cache to keep beside each page. */
enum {
    CA_SUMMARY_NONE = 0,
    CA_SUMMARY_MEAN_K = 1 << 0, /* mean key of each page */
    CA_SUMMARY_NORM_K = 1 << 1, /* length of each key */
    CA_SUMMARY_GATE = 1 << 2    /* a gate's projection of each page's pooled keys before RoPE */
};

typedef struct ca_cache_opt {
    uint32_t n_layers;
    uint32_t n_kv_heads;
    uint32_t head_dim;            /* a multiple of 16; at most 256 */
    uint32_t page_tokens;         /* 32, 64 or 128 */
    uint32_t max_seqs;            /* sequences that can live at the same time, >= 1 */
    uint64_t capacity_tokens;     /* tokens of one layer that all sequences together can hold */
    const uint32_t *layer_tokens; /* [n_layers] tokens of a layer that are held at a time, for layers whose old ones are forgotten
                                     (ca_cache_forget); NULL = capacity_tokens for all. Borrowed during creation and forecast */
    uint32_t summaries;           /* CA_SUMMARY_* bits, computed while tokens are appended */
    uint32_t gather_tokens;       /* tokens of one KV head that ca_cache_gather can hold; 0 = none */
    const ca_gate *gate;          /* for CA_SUMMARY_GATE, of the same shape; its block is page_tokens; borrowed */
    const ca_kern *kern;          /* owner of the page layout; borrowed, static */
} ca_cache_opt;

/* Bytes that ca_cache_create will reserve for opt. CA_E_ARG when a field is out of range, CA_E_MEMORY on overflow. */
CA_API ca_status ca_cache_forecast(const ca_cache_opt *opt, size_t *bytes);

/* Creates a pool with no sequence in use. The caller owns *out. CA_E_MEMORY when the pool cannot be mapped. */
CA_API ca_status ca_cache_create(const ca_cache_opt *opt, ca_cache **out);
CA_API void ca_cache_destroy(ca_cache *cache);

/* Keys and values of a run of tokens, f32 [n_tokens][n_kv_heads][head_dim], borrowed.
 * k, v    k is rotated already; stride = floats between tokens of k and of v, at least n_kv_heads * head_dim
 * k_raw   keys before RoPE (after the model's biases and norms), raw_stride floats between tokens; only CA_SUMMARY_GATE needs them */
typedef struct ca_kv {
    const float *k, *v;
    size_t stride;
    const float *k_raw;
    size_t raw_stride;
} ca_kv;

/* Appends n_tokens tokens of one layer to the end of a sequence. Rounded once to the page's type; summaries are updated in the same
 * pass. CA_E_FULL when the pool has too few free pages, CA_E_SHAPE when a stride is below a token's width (nothing is appended then).
 * Not thread-safe on one cache; uses the OpenMP threads of the caller. */
CA_API ca_status ca_cache_append(ca_cache *cache, uint32_t seq, uint32_t layer, const ca_kv *kv, uint32_t n_tokens);

/* Tokens held for a sequence in one layer. */
CA_API uint32_t ca_cache_len(const ca_cache *cache, uint32_t seq, uint32_t layer);

/* Forgets every token at position n_tokens and later, in all layers, and frees the pages that become empty. With CA_SUMMARY_GATE
 * and n_tokens inside a page, that page's pools are rebuilt from its stored keys, rotated back (ca_gate_opt.key_freq). */
CA_API ca_status ca_cache_truncate(ca_cache *cache, uint32_t seq, uint32_t n_tokens);

/* Frees the pages of one layer that hold positions below `before` only: for layers with a sliding window. They cannot be read any
 * more, and the sequence can only be truncated to what is left, or to nothing. */
CA_API ca_status ca_cache_forget(ca_cache *cache, uint32_t seq, uint32_t layer, uint32_t before);

/* First position that the cache still holds of a layer: 0 unless some were forgotten. */
CA_API uint32_t ca_cache_start(const ca_cache *cache, uint32_t seq, uint32_t layer);

/* Page ids of (seq, layer, kv_head) in the order of positions; *n_pages of them; NULL when there are none. Forgotten pages are
 * UINT32_MAX. Points into the cache; valid until the next append, forget or truncate. */
CA_API const uint32_t *ca_cache_pages(const ca_cache *cache, uint32_t seq, uint32_t layer, uint32_t kv_head, uint32_t *n_pages);

/* Absolute position of a page's first token, and the number of tokens in it. */
CA_API uint32_t ca_page_pos(const ca_cache *cache, uint32_t page);
CA_API uint32_t ca_page_len(const ca_cache *cache, uint32_t page);

/* Plain rows of a page: k, v f32 [page_tokens][head_dim]; slots past the page's length are zero. Either may be NULL. For tests,
 * export and debugging. */
CA_API ca_status ca_page_read(const ca_cache *cache, uint32_t page, float *k, float *v);

/* Mean key of a page, f32 [head_dim], over the tokens it has. CA_E_ARG when the cache keeps no mean keys. */
CA_API ca_status ca_page_mean_k(const ca_cache *cache, uint32_t page, float *mean);

/* Copies the keys and values of tokens (ascending positions, gather_tokens at most) of one KV head into scratch pages, which stay
 * valid until the next gather of that KV head. Queries at or after the last of them see all of them.
 * pages   receives ceil(n / page_tokens) ids.                                                                       caller's
 * Not thread-safe for the same KV head. CA_E_ARG when tokens are not in the cache, CA_E_FULL when there are too many. */
CA_API ca_status ca_cache_gather(ca_cache *cache, uint32_t seq, uint32_t layer, uint32_t kv_head, const uint32_t *tokens,
                                 uint32_t n, uint32_t *pages);

/* Swaps the storage of two pages (contents, positions and maps follow): results of attention must not change. For tests. */
CA_API ca_status ca_cache_swap_pages(ca_cache *cache, uint32_t a, uint32_t b);

#ifdef __cplusplus
}
#endif
#endif
