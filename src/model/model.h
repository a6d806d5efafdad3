/* Inside of a model: hyper-parameters, packed weights, and the file they came from. */
#ifndef CA_MODEL_MODEL_H
#define CA_MODEL_MODEL_H

#include <compactattn/model.h>

#include "load/gguf.h"
#include "model/gemm.h"

/* Weights of one decoder layer. Products that read the same input are one weight, side by side. */
typedef struct ca_layer {
    float *attn_norm, *ffn_norm; /* [hidden] */
    ca_gemm_weight *qkv;         /* [hidden][(n_heads + 2 n_kv_heads) head_dim]: Q heads, K heads, V heads */
    ca_gemm_weight *o;           /* [n_heads head_dim][hidden] */
    ca_gemm_weight *gate_up;     /* [hidden][2 ffn]: gate, up */
    ca_gemm_weight *down;        /* [ffn][hidden] */
} ca_layer;

struct ca_model {
    ca_gguf *gguf; /* kept open: embeddings are read from the map */
    ca_tokenizer *tokenizer;
    const ca_kern *kern;
    ca_gemm_engine *engine;
    ca_model_info info;
    int n_threads; /* for packing */

    const ca_tensor *embedding; /* [vocab] rows of hidden */
    ca_layer *layers;           /* [n_layers] */
    float *final_norm;          /* [hidden] */
    ca_gemm_weight *output;     /* [hidden][vocab] */
    double *inv_freq;           /* [head_dim/2]: radians per position of each rotated pair */
};

/* A family reads its own keys and tensors into a model whose gguf, tokenizer, kern and engine are there. What it has allocated
 * when it fails is freed by ca_model_close. */
typedef struct ca_family {
    const char *architecture; /* general.architecture */
    ca_status (*load)(ca_model *model);
} ca_family;

extern const ca_family ca_family_llama;

#endif
