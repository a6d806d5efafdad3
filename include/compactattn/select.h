/* Selectors: queries + page summaries -> block scores -> block mask, or token lists. One function for all, one options struct each. */
#ifndef COMPACTATTN_SELECT_H
#define COMPACTATTN_SELECT_H

#include "base.h"
#include "gate.h"
#include "table.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ca_selector {
    CA_SELECT_NONE = 0,
    CA_SELECT_FLASHPREFILL = 1, /* every query against mean keys; any head and Q block */
    CA_SELECT_SEER = 2,         /* SeerAttention's learned gate */
    CA_SELECT_QUOKA = 3,        /* tokens instead of blocks: ca_select_tokens */
    CA_SELECT_XATTENTION = 4,   /* antidiagonal sums */
    CA_SELECT_MINFERENCE = 5,   /* pooled queries against mean keys, the top_k best */
    CA_SELECT_TRISHAPE = 6,     /* first tokens and a window; with a dense tail, MInference's tri-shape */
    CA_SELECT_ORACLE = 7,       /* the true attention mass of every block; slow, for research */
    CA_SELECT_USER = 8          /* a function of the caller's */
} ca_selector;

/* FlashPrefill (spec/attention.md section 2). A K block is kept for a Q block of one head when
 *   score >= alpha * (largest score of the same row), or it holds one of the first sink tokens, or of the window tokens that end with
 *   the diagonal block, or is among the min_budget best scores; and it is not in the future. */
typedef struct ca_flashprefill_opt {
    float alpha;         /* >= 0; 0 keeps everything, above 1 only what the other rules keep */
    uint32_t sink;       /* tokens, rounded up to blocks */
    uint32_t window;     /* tokens, rounded up to blocks, the diagonal one included; >= 1 */
    uint32_t last_dense; /* block_sparse: the last Q blocks of the prompt see everything (the reference's last_n) */
    /* compactattn, auto: the last Q blocks do not vote; they read what the others of their head chose, at least one of which votes (the
     * reference's other last_n). */
    uint32_t last_mute;
    uint32_t min_budget; /* blocks, 0 = off */
    bool free_max;       /* the largest score is taken among blocks that neither sink nor window keeps */
    bool every_chunk;    /* last_dense and last_mute hold for every chunk, not for the prompt's last one alone */
} ca_flashprefill_opt;

/* AttnGate (spec/selectors-learned.md A). A K block is kept when its softmax score is above a threshold (strictly). */
enum { CA_SEER_MAX_STEPS = 8 };
typedef struct ca_seer_opt {
    const ca_gate *gate; /* of the model; borrowed */
    float threshold;     /* in [0, 1]; with relative any number >= 0 */
    /* Threshold per length: the first step with kv tokens <= max_kv holds, else the last; n_steps 0: threshold alone. */
    struct {
        uint32_t max_kv;
        float threshold;
    } steps[CA_SEER_MAX_STEPS];
    uint32_t n_steps;
    bool relative; /* the threshold is divided by the number of visible blocks */
    bool bare;     /* the reference's rule: neither the first block nor the diagonal is always kept */
} ca_seer_opt;

/* QUOKA (spec/attention.md section 3). Chosen queries of the heads of a group are paired in ascending order of position. */
typedef struct ca_quoka_opt {
    float query_ratio; /* in (0, 1]: queries that speak for the chunk */
    float kv_ratio;    /* in (0, 1]: tokens of the past that are read */
} ca_quoka_opt;

/* XAttention (spec/selectors-learned.md C), with the exact length of the past. */
typedef struct ca_xattention_opt {
    uint32_t stride; /* 8 or 16 */
    float threshold; /* in [0, 1]: share of the estimated mass; 0 keeps the first block and the diagonal */
} ca_xattention_opt;

typedef struct ca_minference_opt {
    uint32_t top_k; /* blocks per Q block, >= 1; the first block and the diagonal are always kept */
} ca_minference_opt;

typedef struct ca_trishape_opt {
    uint32_t sink;   /* tokens, rounded up to blocks */
    uint32_t window; /* tokens that every query sees, itself included, >= 1: rounded up to blocks before the diagonal one */
} ca_trishape_opt;

typedef struct ca_oracle_opt {
    float mass;  /* in [0, 1]: share of the true attention mass of a row to keep; the first block and the diagonal always */
    float scale; /* of q . k, as ca_attend takes it; 0 = 1/sqrt(head_dim), in a session the model's own */
} ca_oracle_opt;

/* Queries of a chunk, f32 [n_tokens][n_heads][head_dim], borrowed; stride floats between tokens.
 * q      rotated
 * q_raw  before RoPE, raw_stride floats between tokens; only CA_SELECT_SEER needs them */
typedef struct ca_queries {
    const float *q;
    size_t stride;
    const float *q_raw;
    size_t raw_stride;
} ca_queries;

/* Fills the mask (all zero, of the chunk's tokens that are selected for); what lies in the future is ignored. Called from one
 * thread. */
typedef struct ca_user_opt {
    ca_status (*select)(void *user, const ca_cache *cache, const ca_chunk *chunk, const ca_queries *q, ca_mask *mask);
    void *user;
} ca_user_opt;

typedef struct ca_select_opt {
    ca_selector selector;
    ca_flashprefill_opt flashprefill;
    ca_seer_opt seer;
    ca_quoka_opt quoka;
    ca_xattention_opt xattention;
    ca_minference_opt minference;
    ca_trishape_opt trishape;
    ca_oracle_opt oracle;
    ca_user_opt user;
} ca_select_opt;

/* The defaults that docs/quality.md explains, for every selector. */
CA_API void ca_select_defaults(ca_selector selector, ca_select_opt *out);

/* "flashprefill" etc.; "none" for CA_SELECT_NONE, NULL for an unknown one. */
CA_API const char *ca_selector_name(ca_selector selector);

/* CA_E_ARG names the option that is out of its range. Sessions call it when they are created. */
CA_API ca_status ca_select_check(const ca_select_opt *opt);

/* CA_SUMMARY_* bits that the selector needs the cache to keep; for CA_SUMMARY_GATE the cache needs opt.seer.gate, too. */
CA_API uint32_t ca_select_summaries(const ca_select_opt *opt);

/* ca_cache_opt.gather_tokens that the selector needs for kv_tokens tokens held. */
CA_API uint32_t ca_select_gather_tokens(const ca_select_opt *opt, uint32_t kv_tokens);

/* Scratch bytes for selecting over up to n_tokens queries with kv_tokens tokens held. */
CA_API size_t ca_select_ws_bytes(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_heads, uint32_t n_tokens,
                                 uint32_t kv_tokens);

/* Fills mask (made with ca_mask_create for the tokens that are to be selected for). Not for CA_SELECT_QUOKA.
 * q       of the whole chunk
 * scores  NULL, or f32 [n_heads][n_qblocks][n_kblocks]: the normalised block scores, for pictures; 0 where there are none.  caller's
 * Softmax scale of the scores is 1/sqrt(head_dim), but for the oracle's. Thread-safe on distinct workspaces; uses the caller's OpenMP
 * threads. */
CA_API ca_status ca_select(const ca_cache *cache, const ca_select_opt *opt, const ca_chunk *chunk, const ca_queries *q,
                           ca_workspace *ws, ca_mask *mask, float *scores);

/* CA_SELECT_QUOKA: the tokens of the past to read, the same for all queries of the chunk. The past is what lies before the page of
 * the chunk's first token; that page and the later ones are always read.
 * tokens  u32 [n_kv_heads][gather_tokens], ascending positions per KV head                                         caller's
 * *n      how many of them: max(1, floor(kv_ratio * past)), 0 without a past
 * scores  NULL, or f32 [n_kv_heads][past]: what the choice was made from                                           caller's */
CA_API ca_status ca_select_tokens(const ca_cache *cache, const ca_select_opt *opt, const ca_chunk *chunk, const ca_queries *q,
                                  ca_workspace *ws, uint32_t *tokens, uint32_t *n, float *scores);

#ifdef __cplusplus
}
#endif
#endif
