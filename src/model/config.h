/* What a decoder computes: the hyper-parameters that every family fills. */
#ifndef CA_MODEL_CONFIG_H
#define CA_MODEL_CONFIG_H

#include "model/rope.h"

/* Limits far above any model, so that products of sizes stay far below overflow. */
enum {
    CA_MAX_LAYERS = 1024,
    CA_MAX_WIDTH = 1 << 20, /* hidden, ffn */
    CA_MAX_HEADS = 1024,
    CA_MAX_HEAD_DIM = 256,
    CA_MAX_VOCAB = 1 << 24,
    CA_MAX_CONTEXT = 1 << 28,
    CA_MAX_EXPERTS = 1024
};

typedef enum ca_activation { CA_SILU = 0, CA_GELU_TANH = 1 } ca_activation;

typedef struct ca_config {
    uint32_t n_layers, hidden, n_heads, n_kv_heads, head_dim, ffn, max_context;
    uint32_t vocab; /* rows of the embedding; 0 in a GGUF file: the tokenizer's size */
    float rms_eps;
    float attn_scale;  /* of q . k */
    float embed_scale; /* of the embedding's rows */
    bool tied;         /* config.json: the output matrix is the embedding. GGUF: it is where there is no other */
    bool qkv_bias, o_bias, mlp_bias;
    bool qk_norm;     /* RMSNorm over each Q and K head, before RoPE */
    bool post_norms;  /* RMSNorm over what attention and the feed-forward network add, too */
    bool norm_plus_1; /* norms multiply by 1 + weight */
    bool interleaved; /* rows of Q and K: see ca_weight_part */
    ca_activation activation;

    ca_rope rope[2]; /* of full layers, of sliding layers */
    uint32_t window; /* keys that a query of a sliding layer sees, itself included */
    bool sliding[CA_MAX_LAYERS];

    uint32_t n_experts, top_k, expert_ffn; /* 0 experts: no layer has any */
    bool norm_topk;                        /* the chosen experts' probabilities are made to sum to 1 */
    bool sparse[CA_MAX_LAYERS];            /* has experts in place of a feed-forward network */
} ca_config;

/* A family of models. configure fills *c, which is all zero. */
typedef struct ca_family {
    const char *architecture;  /* general.architecture of GGUF */
    const char *model_type[2]; /* of config.json */
    ca_status (*configure)(const ca_fields *f, ca_config *c);
} ca_family;

extern const ca_family ca_family_llama, ca_family_qwen2, ca_family_qwen3, ca_family_qwen3_moe, ca_family_gemma3;

/* The configuration of an open model, checked. *family: whose. CA_E_UNSUPPORTED names the known ones. */
ca_status ca_config_read(const ca_store *store, const ca_family **family, ca_config *out);
/* The same from a config.json alone; path is for messages. */
ca_status ca_config_read_json(const json_t *config, const char *path, const ca_family **family, ca_config *out);

/* ---- for families ---- */

/* Sizes, RoPE bases, activation. A size that is not 0 in *c is what a missing key means. head_dim 0: hidden / n_heads. */
ca_status ca_config_common(const ca_fields *f, ca_config *c);
/* c->sliding from "layer_types"; *found: there were any. */
ca_status ca_config_layer_types(const ca_fields *f, ca_config *c, bool *found);
/* Qwen's switch: layers from max_window_layers on slide, or what "layer_types" says. */
ca_status ca_config_qwen_window(const ca_fields *f, ca_config *c);
/* CA_E_UNSUPPORTED when the field holds a number other than 0. */
ca_status ca_config_refuse(const ca_fields *f, ca_field field, const char *why);

#endif
