/* The computations of a decoder over a run of tokens, attention excepted: tokens -> Q, K, V, and attention output -> hidden states.
 *
 *   x = embedding[token] * embed_scale
 *   per layer:  q|k|v = W_qkv norm(x) + b, norm of each Q and K head, rope;  [attention]
 *               x += norm(W_o a + b);  x += norm(W_down (act(W_gate norm(x) + b) * (W_up norm(x) + b)) + b)
 *   logits = W_out norm(x)
 *
 * where biases, norms of heads and norms behind a product are those that the model has, and a layer may have experts (moe.h) in place
 * of the last line. x stays in f32; inputs of products have the kernel set's type, their outputs are f32. All functions use the
 * caller's OpenMP threads and allocate nothing (but see ca_gemm_run). */
#ifndef CA_MODEL_LAYERS_H
#define CA_MODEL_LAYERS_H

#include "model/model.h"

/* Tokens of one pass through the feed-forward network: its wide activations stay in the caches. */
enum { CA_FFN_BLOCK = 512 };

/* Which token goes to which expert. */
typedef struct ca_routes {
    float *probs;      /* [max_tokens][n_experts] */
    uint32_t *experts; /* [max_tokens][top_k] */
    float *weights;    /* [max_tokens][top_k] */
    uint32_t *starts;  /* [n_experts + 1]: first of an expert's tokens in the lists below, which ascend */
    uint32_t *tokens;  /* [max_tokens * top_k] */
    float *shares;     /* [max_tokens * top_k]: their weights */
    void *gathered;    /* [block][hidden] in the kernel's type */
} ca_routes;

/* Activations of up to max_tokens tokens; one block of memory. */
typedef struct ca_acts {
    uint32_t qkv_width; /* (n_heads + 2 n_kv_heads) head_dim */
    float *raw;         /* [max_tokens][(n_heads + n_kv_heads) head_dim]: Q and K heads before RoPE; NULL when not asked for */
    float *x;           /* [max_tokens][hidden]: the residual stream */
    float *qkv;         /* [max_tokens][qkv_width]: rotated Q heads, rotated K heads, V heads */
    void *h;            /* [max_tokens][max(hidden, n_heads head_dim)] in the kernel's type: attention output or normed x */
    float *rotation[2]; /* [max_tokens][head_dim]: cosines, then sines, of each token's position; for full and for sliding layers */
    float *gate_up;     /* [block][2 ffn] */
    void *ffn_in;       /* [block][ffn] in the kernel's type */
    float *delta;       /* [block][hidden]: what is added to x, where a norm or a weight comes between */
    ca_routes routes;
    void *memory;
} ca_acts;

/* Bytes that ca_acts_create takes. keep_raw: a selector needs queries and keys before RoPE. */
size_t ca_acts_bytes(const ca_model *model, uint32_t max_tokens, bool keep_raw);
ca_status ca_acts_create(const ca_model *model, uint32_t max_tokens, bool keep_raw, ca_acts *out);
void ca_acts_destroy(ca_acts *acts);

/* x and rotation of tokens [0, n), the first at absolute position pos. Ids must be below the vocabulary's size. */
void ca_layers_embed(const ca_model *model, const uint32_t *tokens, uint32_t n, uint32_t pos, ca_acts *acts);

/* x -> qkv, and raw. */
ca_status ca_layers_qkv(const ca_model *model, uint32_t layer, uint32_t n, ca_acts *acts, ca_gemm_runner *gemm);

/* Attention output in h [n][n_heads head_dim] is projected and added to x. */
ca_status ca_layers_project(const ca_model *model, uint32_t layer, uint32_t n, ca_acts *acts, ca_gemm_runner *gemm);
/* Feed-forward network or experts: x after the layer. */
ca_status ca_layers_network(const ca_model *model, uint32_t layer, uint32_t n, ca_acts *acts, ca_gemm_runner *gemm);

/* Final norm and output matrix of tokens [first, first + n): logits f32 [n][vocab]. x is unchanged. */
ca_status ca_layers_logits(const ca_model *model, uint32_t first, uint32_t n, ca_acts *acts, ca_gemm_runner *gemm, float *logits);

/* ---- for moe.c ---- */

/* h rows of tokens [first, first + n) = norm(x) * weight. */
void *ca_layers_norm(const ca_model *model, const float *weight, uint32_t first, uint32_t n, ca_acts *acts);
/* ffn_in [n][ffn] = act(gate) * up of gate_up [n][2 ffn]. */
void ca_layers_activate(const ca_model *model, uint32_t ffn, uint32_t n, ca_acts *acts);
size_t ca_layers_elem_bytes(const ca_model *model);

#endif
