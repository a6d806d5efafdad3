/* Inside of a gate: packed weights, and the summaries that a cache keeps for it. */
#ifndef CA_CACHE_GATE_H
#define CA_CACHE_GATE_H

#include <compactattn/cache.h>
#include <compactattn/gate.h>

#include "base/error.h"

enum { CA_GATE_MAX_HIDDEN = 256, CA_GATE_BATCH = 16 }; /* blocks that are projected together */

struct ca_gate {
    ca_gate_opt opt; /* inv_freq and key_freq are our copies, key_freq is set */
    float **wk;      /* [n_layers]: [k heads][hidden/16][in][16] panels; NULL until it is set */
    float **wq;      /* [n_layers]: [q heads][hidden/16][in][16]; NULL in the single layout */
};

/* Weight matrices of one layer: heads of wk and wq, and their input widths. */
typedef struct ca_gate_dims {
    uint32_t k_heads, k_in, q_heads, q_in; /* q_heads = 0 without wq */
    uint32_t score_heads;                  /* heads of the scores: n_heads, or n_kv_heads in the group-aware layout */
} ca_gate_dims;
ca_gate_dims ca_gate_get_dims(const ca_gate *gate);

/* Tells gates apart: layout, pools, rotation and weights. */
uint64_t ca_gate_fingerprint(const ca_gate *gate);

/* Projected keys per KV head: G in the single layout, else 1. */
uint32_t ca_gate_k_heads(const ca_gate *gate);

/* The gate fits a cache of these options and has all its weights. */
ca_status ca_gate_check_cache(const ca_gate *gate, const ca_cache_opt *opt);

/* Running max, min and sum [3][dim] of tokens; empty starts them. */
void ca_gate_pool(float *pool, uint32_t dim, bool empty, const float *x, size_t stride, uint32_t n);
/* The pools that bits name, side by side: feature [pools * dim] of count tokens. */
void ca_gate_feature(const float *pool, uint32_t dim, uint32_t bits, uint32_t count, float *feature);
/* cos_sin: cosines, then sines, of every rotated pair at a position. */
void ca_gate_cos_sin(const ca_gate *gate, uint32_t pos, float *cos_sin);
/* x f32 [hidden] in place. */
void ca_gate_rotate(const ca_gate *gate, const float *cos_sin, float *x);

/* Summaries of tokens [start, start + n) that were just appended; k_raw is their first token. */
void ca_gate_append(const ca_cache *cache, uint32_t seq, uint32_t layer, const float *k_raw, size_t stride, uint32_t start,
                    uint32_t n);
/* Rebuilds the summary of the block that a truncation to len tokens left unfinished. */
void ca_gate_reopen(const ca_cache *cache, uint32_t seq, uint32_t layer, uint32_t len);

#endif
