/* The learned gate of SeerAttention's prefill (AttnGate; spec/selectors-learned.md A): per layer and head, pooled queries and keys
 * before RoPE, projected, rotated at the first position of their block, compared.
 *
 * Weights are f32 [heads][in][hidden], y = x W. Three layouts, told apart by the shapes:
 *   single       wk [n_heads][nk * head_dim][hidden], no wq: pooled queries are used as they are (hidden = head_dim, one Q pool)
 *   double       wq [n_heads][nq * head_dim][hidden], wk [n_kv_heads][nk * head_dim][hidden]
 *   group-aware  wq [n_kv_heads][G * nq * head_dim][hidden], wk [n_kv_heads][nk * head_dim][hidden]: one score per KV head */
#ifndef COMPACTATTN_GATE_H
#define COMPACTATTN_GATE_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ca_gate ca_gate; /* immutable once its weights are set; shared by caches and sessions */

/* Pools over the tokens of a block; channels are concatenated in this order. */
enum { CA_POOL_MAX = 1 << 0, CA_POOL_MIN = 1 << 1, CA_POOL_AVG = 1 << 2 };

typedef enum ca_gate_layout { CA_GATE_SINGLE = 0, CA_GATE_DOUBLE = 1, CA_GATE_GROUP = 2 } ca_gate_layout;

typedef struct ca_gate_opt {
    uint32_t n_layers, n_heads, n_kv_heads, head_dim; /* of the model */
    uint32_t hidden;                                  /* gate width; a multiple of 16, at most 256 */
    uint32_t block;                                   /* tokens per block: the page size of the cache it is used with (64) */
    uint32_t q_pool, k_pool;                          /* CA_POOL_* bits */
    ca_gate_layout layout;
    const double *inv_freq; /* f64 [rotary/2]: radians per position of each rotated pair (c, c + rotary/2).   copied */
    uint32_t rotary;        /* channels that rotate: even, at most hidden; the others pass through */
    float rope_scale;       /* factor of cosines and sines: 1, or YaRN's attention factor; the model's, too */
    /* The model's rotation of keys, where the gate's is another (as that of a gate narrower than a head is): a truncated cache turns stored
     * keys back by it. f64 [key_rotary/2], pairs (c, c + key_rotary/2), copied; NULL = inv_freq and rotary. */
    const double *key_freq;
    uint32_t key_rotary; /* even, at most head_dim */
} ca_gate_opt;

/* A gate without weights. CA_E_ARG names the field that is out of its range. The caller owns *out. */
CA_API ca_status ca_gate_create(const ca_gate_opt *opt, ca_gate **out);
CA_API void ca_gate_destroy(ca_gate *gate);

/* Copies the weights of one layer; wq is NULL in the single layout. Every layer must be set before the gate is used. */
CA_API ca_status ca_gate_set_layer(ca_gate *gate, uint32_t layer, const float *wk, const float *wq);

CA_API void ca_gate_get_opt(const ca_gate *gate, ca_gate_opt *out);

#ifndef CA_NO_MODELS
struct ca_model;
/* Opens a gate of safetensors for a model: tensors model.layers.{L}.self_attn.attn_gate.mask_linear_k.weight (and _q), f32, f16 or
 * bf16. Layout and pools follow from the shapes; the file's metadata may say gate_type and gate_block_size. RoPE is the model's. A
 * missing or unfit tensor is named with the expected shape; a file made for decoding (attngate_linear_q) is refused by name. */
CA_API ca_status ca_gate_open(const char *path, const struct ca_model *model, ca_gate **out);

typedef struct ca_gate_summary {
    uint32_t n_tensors, n_layers;
    uint32_t n_heads, hidden; /* of mask_linear_k */
    const char *dtype;        /* "BF16", or "mixed". Static */
    uint64_t bytes;           /* of the tensors */
    char gate_type[32];       /* "Qavg_Kmaxminavg"; empty when no config.json says it */
    uint32_t block;           /* 0 when no config.json says it */
} ca_gate_summary;

/* Converts a torch checkpoint of gates (attn_gate_weights.pth) to safetensors with the same names and types. Nothing in it is run: a
 * pickle of anything but tensors is refused by name. seerattn_gate_type and seerattn_gate_block_size of a config.json beside it
 * become metadata. A file of the output's name is an error; the new one appears whole or not at all. out may be NULL. */
CA_API ca_status ca_gate_convert(const char *pth, const char *safetensors, ca_gate_summary *out);
#endif

#ifdef __cplusplus
}
#endif
#endif
