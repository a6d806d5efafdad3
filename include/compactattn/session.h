/* A session: one timeline of tokens over a model. Chunked prefill, logits, decode, sampling, statistics. */
#ifndef COMPACTATTN_SESSION_H
#define COMPACTATTN_SESSION_H

#include "base.h"
#include "model.h"
#include "select.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ca_session ca_session; /* one thread at a time */

typedef enum ca_executor {
    CA_EXEC_DENSE = 0,        /* everything; with CA_SELECT_QUOKA, the chosen tokens and the chunk */
    CA_EXEC_BLOCK_SPARSE = 1, /* each head and Q block its own blocks */
    CA_EXEC_COMPACT = 2,      /* the unions: CompactAttention */
    CA_EXEC_AUTO = 3          /* the row shape that the cost model prefers, or dense; per layer, chunk and KV head */
} ca_executor;

typedef struct ca_session_opt {
    ca_executor executor;
    ca_select_opt select; /* CA_SELECT_NONE and CA_SELECT_QUOKA go with CA_EXEC_DENSE only; the other executors need another one */
    ca_table_opt table;
    ca_cost cost;           /* auto: see ca_table_add_auto; all 0 (the default) = those of the model's kernel set */
    ca_worth worth;         /* auto */
    bool sparse_first;      /* the first chunk of the session, which has no past, goes through the selector, too */
    uint32_t dense_prefix;  /* tokens before this position attend densely */
    uint32_t dense_tail;    /* the last tokens of each ca_session_prefill call attend densely (the question) */
    uint32_t summaries;     /* CA_SUMMARY_* bits to keep besides the selector's own, for a trace that runs other selectors */
    uint32_t gather_tokens; /* likewise */
    const ca_gate *gate;    /* for CA_SUMMARY_GATE when the selector is not seer; borrowed */
    uint32_t context;       /* tokens; 0 = the model's own context length, which is also the maximum */
    uint32_t chunk;         /* tokens per chunk, >= 1 */
    uint32_t page_tokens;   /* 32, 64 or 128 */
    ca_attention attention; /* CA_ATTENTION_INT8: CA_E_UNSUPPORTED where ca_kern_int8_attention_name is NULL */
    int n_threads;          /* 0 = all */
} ca_session_opt;

/* Defaults for an executor: chunk 1024, page 128, and the selector settings that docs/quality.md explains. */
CA_API void ca_session_defaults(ca_executor executor, ca_session_opt *out);

/* Checks opt against the model and says how many bytes the session will take: KV pages and workspaces. */
typedef struct ca_session_memory {
    uint64_t kv_bytes, workspace_bytes;
} ca_session_memory;
CA_API ca_status ca_session_forecast(const ca_model *model, const ca_session_opt *opt, ca_session_memory *out);

CA_API ca_status ca_session_create(const ca_model *model, const ca_session_opt *opt, ca_session **out);
CA_API void ca_session_destroy(ca_session *session);

/* What is being done in a chunk, for pictures and research: called once per layer and chunk, after attention. Pointers are valid
 * during the call only.
 * q       the chunk's queries; q_raw when the session keeps CA_SUMMARY_GATE
 * mask    NULL when no selector of blocks ran (the first chunk, dense)
 * scores  f32 [n_heads][n_qblocks][n_kblocks] with a mask */
typedef struct ca_trace {
    ca_chunk chunk;
    ca_cache *cache; /* for selectors, tables and gathering; nothing may be appended */
    ca_queries q;
    float scale; /* of the softmax */
    const ca_mask *mask;
    const float *scores;
    const ca_table *table;
} ca_trace;

typedef struct ca_prefill_opt {
    void *user;
    /* After every layer of every chunk: tokens of this call done (a fraction of the chunk counts), of total. May be NULL. */
    void (*on_progress)(void *user, double tokens_done, double tokens_total);
    /* Checked between layers; non-zero stops with CA_E_CANCELED and the cache as it was before the chunk. May be NULL. */
    const volatile int *cancel;
    /* Logits of the last n_logits positions of this call, in order: position counted from the session's start, f32 [vocab]
     * valid during the call. A non-CA_OK return stops. NULL = none (ca_session_logits still has the last position). */
    uint32_t n_logits;
    ca_status (*on_logits)(void *user, uint32_t position, const float *logits);
    void (*on_trace)(void *user, const ca_trace *trace);
    /* The prompt goes on in another call: the last tokens of this one are no dense tail, and ca_session_logits has
     * none. */
    bool more_follows;
    /* Hidden states of each chunk: the input of every layer, then (layer = n_layers) the output of the last, before the final norm.
     * x f32 [n][hidden] of tokens from position pos on, valid during the call. May be NULL. */
    void (*on_hidden)(void *user, uint32_t layer, uint32_t pos, uint32_t n, const float *x);
} ca_prefill_opt;

/* Appends n tokens in chunks. opt may be NULL. CA_E_FULL when the context cannot take them (nothing is done then). */
CA_API ca_status ca_session_prefill(ca_session *session, const uint32_t *tokens, size_t n, const ca_prefill_opt *opt);

/* Appends one token: dense attention over the whole cache. */
CA_API ca_status ca_session_decode(ca_session *session, uint32_t token);

/* Logits after the last token, f32 [vocab]; NULL before the first. Valid until the next call on the session. */
CA_API const float *ca_session_logits(const ca_session *session);

CA_API uint32_t ca_session_len(const ca_session *session);
/* Tokens that the session's timeline and the given one have in common at their start: what a new prompt need not read again. */
CA_API uint32_t ca_session_shared(const ca_session *session, const uint32_t *tokens, size_t n);
CA_API uint32_t ca_session_context(const ca_session *session);

/* Keeps the timeline and its KV cache in a file, and reads it back into an empty session. The file is versioned and checksummed and
 * belongs to one model and one way of prefilling it: another model, gate, kernel set, page size, selector or setting is refused
 * (CA_E_SHAPE says what differs). Models of one shape are told apart by samples of every weight. Written through a temporary file of its
 * own; a reader never sees half of it, whoever else saves. A file
 * of that name that is neither a saved session nor empty is refused, and so is what is no file; a link stays one. CA_E_IO, CA_E_FORMAT. */
CA_API ca_status ca_session_save(const ca_session *session, const char *path);
CA_API ca_status ca_session_load(ca_session *session, const char *path);
/* How many tokens such a file holds, which is the least context of a session that loads it. The file is not checked any further. */
CA_API ca_status ca_session_saved_len(const char *path, uint32_t *n_tokens);

/* Forgets tokens at position n and later. CA_E_ARG when layers with a sliding window no longer have what precedes n (0 always works). Logits are gone until the next token. */
CA_API ca_status ca_session_truncate(ca_session *session, uint32_t n);

/* Sampling. temperature 0 = greedy (the lowest id wins a tie). */
typedef struct ca_sampler {
    float temperature, top_p; /* top_p in (0, 1] */
    uint64_t state;           /* seed; moves on with every draw; same seed, same tokens */
} ca_sampler;
CA_API ca_status ca_sample(ca_sampler *sampler, const float *logits, uint32_t vocab, uint32_t *token);

/* Sums since the session was created or truncated to zero. Times are wall milliseconds. */
typedef struct ca_session_stats {
    uint32_t prefill_tokens, decode_tokens, n_chunks;
    double prefill_ms, decode_ms;
    double attention_ms;   /* prefill: select_ms + table_ms + kernel_ms, from q, k, v in cache to attention output */
    double select_ms;      /* block scores and mask, or tokens and their gathering */
    double table_ms;       /* unions and table */
    double kernel_ms;      /* the attention kernel alone */
    double gemm_ms;        /* matrix products of prefill */
    double layers_ms;      /* all layers: prefill_ms without the embedding, the output matrix and what lies between chunks */
    double module_ms;      /* attention modules: norm, QKV product, RoPE, attention_ms, output product */
    double module_gemm_ms; /* the part of gemm_ms that is in module_ms */
    double kept_fraction;  /* (query, past page) pairs read / those of dense, over chunks that have a past; 1 when none */
    double gflop;          /* floating-point operations that prefill executed (matrix products and attention), in 1e9 */
    double gemm_gflop;     /* those of gemm_ms, operations on integers included */
    uint64_t kv_bytes, workspace_bytes;
} ca_session_stats;
CA_API void ca_session_get_stats(const ca_session *session, ca_session_stats *out);

/* The same of one layer. Fractions are of the (query, past key) pairs of dense attention, over tokens that a selector decided for;
 * 1 when there were none. executed counts all tokens of chunks with a past. */
typedef struct ca_layer_stats {
    double select_ms, table_ms, kernel_ms, module_ms;
    uint64_t window;               /* keys that a query sees; 0 = all */
    double asked;                  /* as each head and Q block asked */
    double q_union, g_union;       /* after the Q-block union; after the union over the KV head's query heads */
    double executed;               /* what the tables read */
    double row_heads, row_qblocks; /* mean row shape of the sparse rows; 0 without any */
    double dense_rows;             /* share of (KV head, chunk) that auto ran densely */
} ca_layer_stats;
CA_API ca_status ca_session_get_layer_stats(const ca_session *session, uint32_t layer, ca_layer_stats *out);

#ifdef __cplusplus
}
#endif
#endif
