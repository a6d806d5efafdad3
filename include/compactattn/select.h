/* Selectors: queries + page summaries -> block scores -> block mask. One function for all, one options struct each. */
#ifndef COMPACTATTN_SELECT_H
#define COMPACTATTN_SELECT_H

#include "base.h"
#include "table.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ca_selector { CA_SELECT_NONE = 0, CA_SELECT_FLASHPREFILL = 1 } ca_selector;

/* FlashPrefill (spec/attention.md section 2). A K block is kept for a Q block of one head when
 *   score >= alpha * (largest score of the same row), or it is one of the first sink blocks, or of the window blocks that end at
 *   the diagonal, or among the min_budget best scores; and it is not in the future. */
typedef struct ca_flashprefill_opt {
    float alpha;         /* >= 0; 0 keeps everything, above 1 only what the other rules keep */
    uint32_t sink;       /* blocks */
    uint32_t window;     /* blocks, the diagonal one included; >= 1 */
    uint32_t last_dense; /* block_sparse: the last Q blocks of the prompt see everything (the reference's last_n) */
    uint32_t last_mute;  /* compactattn: the last Q blocks do not vote (the reference's other last_n) */
    uint32_t min_budget; /* blocks, 0 = off */
} ca_flashprefill_opt;

typedef struct ca_select_opt {
    ca_selector selector;
    ca_flashprefill_opt flashprefill;
} ca_select_opt;

/* The defaults that docs/quality.md explains. */
CA_API void ca_select_defaults(ca_selector selector, ca_select_opt *out);

/* CA_E_ARG names the option that is out of its range. Sessions call it when they are created. */
CA_API ca_status ca_select_check(const ca_select_opt *opt);

/* CA_SUMMARY_* bits that the selector needs the cache to keep. */
CA_API uint32_t ca_select_summaries(const ca_select_opt *opt);

/* Scratch bytes for selecting over up to n_tokens queries with kv_tokens tokens held. */
CA_API size_t ca_select_ws_bytes(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_heads, uint32_t n_tokens,
                                 uint32_t kv_tokens);

/* Fills mask (made with ca_mask_create for the tokens that are to be selected for).
 * q       f32 [chunk.n_tokens][n_heads][head_dim] of the whole chunk, rotated; stride = floats between tokens.       borrowed
 * scores  NULL, or f32 [n_heads][n_qblocks][n_kblocks]: the normalised block scores, for pictures.                  caller's
 * Softmax scale of the scores is 1/sqrt(head_dim). Thread-safe on distinct workspaces; uses the caller's OpenMP threads. */
CA_API ca_status ca_select(const ca_cache *cache, const ca_select_opt *opt, const ca_chunk *chunk, const float *q, size_t stride,
                           ca_workspace *ws, ca_mask *mask, float *scores);

#ifdef __cplusplus
}
#endif
#endif
