/* A model: weights and hyper-parameters of a GGUF file or a Hugging Face folder, packed once for the matrix products. */
#ifndef COMPACTATTN_MODEL_H
#define COMPACTATTN_MODEL_H

#include "base.h"
#include "cpu.h"
#include "tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ca_model ca_model; /* immutable after opening: many sessions may share it */

/* Ways to read further than a model was trained for: positions divided by a factor, or YaRN. */
typedef enum ca_rope_extension { CA_EXTEND_NONE = 0, CA_EXTEND_LINEAR = 1, CA_EXTEND_YARN = 2 } ca_rope_extension;

/* Type of the layers' matrix products. NATIVE: the kernel set's own, bf16 or f32. Weights are those of their file, rounded to bf16 for
 * products of bf16; quantised, bf16 and f16 ones stay in 5 to 16 bits each until a product runs (src/kern/coded.h), or are unpacked once
 * for AMX and plain C. INT8: weights and activations are rounded to 8 bits, after a rotation that spreads large values, each group of up
 * to 512 with a scale of its own (src/kern/int8.h); sums are exact, then f32. AVX-512 VNNI runs it at twice the rate of bf16; without it
 * the results are the same bits, but slower than NATIVE. The output matrix and the router of experts stay native. */
typedef enum ca_matmul { CA_MATMUL_NATIVE = 0, CA_MATMUL_INT8 = 1 } ca_matmul;
/* "native" or "int8" */
CA_API const char *ca_matmul_name(ca_matmul matmul);

typedef struct ca_model_opt {
    const char *isa; /* cap of the kernels, as ca_kern_choose; NULL = best */
    int n_threads;   /* for packing; 0 = all */
    /* Reads and checks everything but packs no weight: for ca_model_get_info, ca_session_forecast and the tokenizer. */
    bool forecast_only;
    /* The context grows by extend_factor (1 to 1e3). Layers with a window keep their rotation. CA_E_UNSUPPORTED for a model that
     * scales its RoPE already. */
    ca_rope_extension extend;
    float extend_factor;
    ca_matmul matmul;
} ca_model_opt;

typedef struct ca_model_info {
    char architecture[32], name[96]; /* architecture: "llama", "qwen2", "qwen3", "qwen3moe" or "gemma3", whatever the format */
    uint32_t n_layers;               /* built: fewer than n_layers_whole when ca_model_open_random was asked for fewer */
    uint32_t n_layers_whole, hidden, n_heads, n_kv_heads, head_dim, ffn, vocab, max_context;
    float rope_theta, rms_eps;
    float rope_factor;     /* 1 without scaling */
    char rope_scaling[16]; /* "none", "linear", "llama3" or "yarn" */
    float attn_scale;      /* of q . k, before softmax */
    uint32_t n_sliding;    /* layers whose queries see the last `window` keys only; selectors leave them alone */
    uint32_t window;       /* 0 without such layers */
    uint32_t n_experts, experts_per_token, expert_ffn; /* 0 without experts */
    bool tied_output;
    ca_matmul matmul;
    uint64_t n_params;
    uint64_t file_bytes;   /* size of all files of tensors */
    uint64_t packed_bytes; /* memory of the packed weights; a forecast when none are packed */
} ca_model_info;

/* Opens a GGUF file, a split one (NAME-00001-of-0000N.gguf) or a Hugging Face folder, and packs its weights. opt may be NULL. The
 * caller owns *out. Errors name the file, the key or tensor, and what was expected. CA_E_MEMORY says so before packing when the
 * weights cannot fit. */
CA_API ca_status ca_model_open(const char *path, const ca_model_opt *opt, ca_model **out);

/* A model of a shape: hyper-parameters of a config.json (a file of any name, or a folder with one), weights drawn at random and packed
 * as those of a file are. Norms are 1; every other weight is about normal with mean 0 and deviation 0.02, so that activations and
 * logits stay finite. Weights depend on seed and on their place in the model only, not on threads or on n_layers, the number of
 * layers to build: 0 = all, else the first n_layers. For timing: what it says means nothing. It has no tokenizer: ca_model_tokenizer
 * is NULL. file_bytes is 0; name is the file's without ".json", or the folder's. Errors as ca_model_open. */
CA_API ca_status ca_model_open_random(const char *config_path, uint64_t seed, uint32_t n_layers, const ca_model_opt *opt,
                                      ca_model **out);
CA_API void ca_model_close(ca_model *model);
CA_API void ca_model_get_info(const ca_model *model, ca_model_info *out);
CA_API const ca_tokenizer *ca_model_tokenizer(const ca_model *model); /* NULL for ca_model_open_random */
CA_API const ca_kern *ca_model_kern(const ca_model *model);

/* Calls fn for every tensor of a file or folder, without loading it: name, type name, dims (n_dims of them, fastest first), bytes. Also
 * every metadata key with its value as text; those of config.json as "gemma3.hidden_size" and "gemma3.text_config.hidden_size", after
 * general.architecture (its model_type) and general.name (the folder's). Either callback may be NULL. For `inspect model`. */
typedef struct ca_file_visitor {
    void *user;
    void (*on_meta)(void *user, const char *key, const char *type, const char *value);
    void (*on_tensor)(void *user, const char *name, const char *type, const uint64_t *dims, unsigned n_dims, uint64_t offset,
                      uint64_t bytes);
} ca_file_visitor;
CA_API ca_status ca_model_inspect(const char *path, const ca_file_visitor *visitor);

#ifdef __cplusplus
}
#endif
#endif
