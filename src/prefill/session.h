/* Inside of a session, for the files of this room. */
#ifndef CA_PREFILL_SESSION_H
#define CA_PREFILL_SESSION_H

#include <compactattn/session.h>

#include "model/layers.h"

/* Sums of one layer. */
typedef struct ca_layer_sums {
    double select_ms, table_ms, kernel_ms, module_ms;
    ca_mask_count mask;
    uint64_t past_pairs, past_pairs_dense;
    double row_heads, row_qblocks;
    uint64_t n_rows, n_dense, n_kv;
} ca_layer_sums;

struct ca_session {
    const ca_model *model;
    ca_model_info info;
    ca_session_opt opt;   /* with context, chunk and n_threads resolved */
    uint32_t asked_chunk; /* before it was cut to the context, which leaves no call of prefill other chunks */
    ca_cache *cache;
    ca_acts acts;
    ca_gemm_runner *gemm;
    ca_workspace ws;
    float *logits; /* [vocab] */
    bool has_logits;
    float *logit_rows;     /* [LOGIT_ROWS][vocab]; when logits of several positions were asked for */
    float *scores;         /* block scores; when a trace was asked for */
    ca_layer_sums *layers; /* [2][n_layers]: the sums, and those before the chunk that is running */
    uint32_t *tokens;      /* [context]: the timeline */
    uint32_t len;
    ca_session_stats stats;
};

/* A query at position n would see keys that the layer has forgotten. */
bool ca_session_misses(const ca_session *session, uint32_t layer, uint32_t n);

#endif
