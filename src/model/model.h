/* Inside of a model: hyper-parameters, packed weights, and the files they came from. */
#ifndef CA_MODEL_MODEL_H
#define CA_MODEL_MODEL_H

#include <compactattn/model.h>

#include "model/config.h"
#include "model/gemm.h"

typedef struct ca_expert {
    ca_gemm_weight *gate_up; /* [hidden][2 expert_ffn] */
    ca_gemm_weight *down;    /* [expert_ffn][hidden] */
} ca_expert;

/* Weights of one decoder layer. Products that read the same input are one weight, side by side. What a family lacks is NULL. */
typedef struct ca_layer {
    float *attn_norm, *ffn_norm;           /* [hidden] */
    float *post_attn_norm, *post_ffn_norm; /* [hidden] */
    float *q_norm, *k_norm;                /* [head_dim] */
    float *qkv_bias, *o_bias, *gate_up_bias, *down_bias;
    ca_gemm_weight *qkv;     /* [hidden][(n_heads + 2 n_kv_heads) head_dim]: Q heads, K heads, V heads */
    ca_gemm_weight *o;       /* [n_heads head_dim][hidden] */
    ca_gemm_weight *gate_up; /* [hidden][2 ffn]: gate, up */
    ca_gemm_weight *down;    /* [ffn][hidden] */
    ca_gemm_weight *router;  /* [hidden][n_experts]; with experts in place of gate_up and down */
    ca_expert *experts;      /* [n_experts] */
} ca_layer;

struct ca_model {
    ca_store *store; /* kept open: embeddings are read from the map */
    bool drawn;      /* the store has no tensors: weights are drawn at random */
    uint64_t seed;   /* then */
    ca_tokenizer *tokenizer;
    const ca_kern *kern;
    ca_gemm_engine *engine;
    const ca_family *family;
    ca_config config;
    ca_model_info info;
    int n_threads; /* for packing */
    /* Tells models of one shape apart, whatever the kernel set and the type of products: numbers of the configuration, frequencies, types
     * and samples of all weights as the files have them, or what they are drawn from. Of packed models only. */
    uint64_t fingerprint;

    ca_tensor embedding;    /* [vocab] rows of hidden */
    ca_layer *layers;       /* [n_layers]; NULL when opened for a forecast only */
    float *final_norm;      /* [hidden] */
    ca_gemm_weight *output; /* [hidden][vocab] */
    uint32_t n_rotations;   /* 1, or 2 when sliding layers turn at their own speed */
    double *inv_freq[2];    /* [head_dim/2] radians per position of each rotated pair: of full layers, of sliding ones */
};

#endif
