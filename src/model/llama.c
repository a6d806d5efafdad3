/* The llama family: RMSNorm, RoPE over interleaved rows, grouped-query attention, SwiGLU, no biases. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/weights.h"

/* Limits far above any model, so that products of sizes stay far below overflow. */
enum {
    MAX_LAYERS = 1024,
    MAX_WIDTH = 1 << 20, /* hidden and ffn */
    MAX_HEADS = 1024,
    MAX_HEAD_DIM = 256,
    MAX_CONTEXT = 1 << 28
};

static ca_status range_error(const ca_model *model, const char *key, uint32_t value, uint32_t low, uint32_t high)
{
    return ca_fail(CA_E_FORMAT, "%s: key '%s' is %u; it must be %u to %u", ca_gguf_path(model->gguf), key, value, low, high);
}

static ca_status read_u32(const ca_model *model, const char *key, uint32_t low, uint32_t high, uint32_t *out)
{
    CA_TRY(ca_gguf_u32(model->gguf, key, out));
    return *out >= low && *out <= high ? CA_OK : range_error(model, key, *out, low, high);
}

static ca_status read_u32_or(const ca_model *model, const char *key, uint32_t missing, uint32_t low, uint32_t high, uint32_t *out)
{
    CA_TRY(ca_gguf_u32_or(model->gguf, key, missing, out));
    return *out >= low && *out <= high ? CA_OK : range_error(model, key, *out, low, high);
}

static ca_status read_heads(ca_model *model)
{
    ca_model_info *info = &model->info;
    const char *path = ca_gguf_path(model->gguf);
    CA_TRY(read_u32(model, "llama.attention.head_count", 1, MAX_HEADS, &info->n_heads));
    CA_TRY(read_u32_or(model, "llama.attention.head_count_kv", info->n_heads, 1, info->n_heads, &info->n_kv_heads));
    if (info->n_heads % info->n_kv_heads != 0)
        return ca_fail(CA_E_FORMAT, "%s: %u query heads cannot share %u KV heads evenly ('llama.attention.head_count_kv')", path,
                       info->n_heads, info->n_kv_heads);
    if (!ca_gguf_has(model->gguf, "llama.attention.key_length") && info->hidden % info->n_heads != 0)
        return ca_fail(CA_E_FORMAT,
                       "%s: embedding length %u is no multiple of %u heads and 'llama.attention.key_length' is missing", path,
                       info->hidden, info->n_heads);
    const uint32_t even_share = info->hidden / info->n_heads;
    uint32_t value_dim = 0;
    uint32_t rope_dim = 0;
    CA_TRY(read_u32_or(model, "llama.attention.key_length", even_share, 1, MAX_HEAD_DIM, &info->head_dim));
    CA_TRY(ca_gguf_u32_or(model->gguf, "llama.attention.value_length", info->head_dim, &value_dim));
    CA_TRY(ca_gguf_u32_or(model->gguf, "llama.rope.dimension_count", info->head_dim, &rope_dim));
    if (info->head_dim % 16 != 0)
        return ca_fail(CA_E_UNSUPPORTED, "%s: head dimension %u is not supported; it must be a multiple of 16", path,
                       info->head_dim);
    if (value_dim != info->head_dim || rope_dim != info->head_dim)
        return ca_fail(CA_E_UNSUPPORTED, "%s: key, value and rotated dimensions are %u, %u and %u; this build needs them equal",
                       path, info->head_dim, value_dim, rope_dim);
    return CA_OK;
}

/* What the llama keys can say and this file does not compute. */
static ca_status refuse_variants(const ca_model *model)
{
    const char *path = ca_gguf_path(model->gguf);
    ca_str scaling;
    uint32_t n_experts = 0;
    CA_TRY(ca_gguf_str_or(model->gguf, "llama.rope.scaling.type", (ca_str){ "none", 4 }, &scaling));
    if (scaling.len != 4 || memcmp(scaling.data, "none", 4) != 0)
        return ca_fail(CA_E_UNSUPPORTED,
                       "%s: RoPE scaling '%.*s' is not supported ('llama.rope.scaling.type'); use a model without it", path,
                       (int)(scaling.len < 32 ? scaling.len : 32), scaling.data);
    CA_TRY(ca_gguf_u32_or(model->gguf, "llama.expert_count", 0, &n_experts));
    if (n_experts != 0)
        return ca_fail(CA_E_UNSUPPORTED, "%s: %u experts ('llama.expert_count'): mixtures of experts are not supported", path,
                       n_experts);
    return CA_OK;
}

static ca_status read_keys(ca_model *model)
{
    ca_model_info *info = &model->info;
    CA_TRY(read_u32(model, "llama.block_count", 1, MAX_LAYERS, &info->n_layers));
    CA_TRY(read_u32(model, "llama.embedding_length", 1, MAX_WIDTH, &info->hidden));
    CA_TRY(read_u32(model, "llama.feed_forward_length", 1, MAX_WIDTH, &info->ffn));
    CA_TRY(read_u32(model, "llama.context_length", 1, MAX_CONTEXT, &info->max_context));
    CA_TRY(read_heads(model));
    CA_TRY(ca_gguf_f32(model->gguf, "llama.attention.layer_norm_rms_epsilon", &info->rms_eps));
    CA_TRY(ca_gguf_f32_or(model->gguf, "llama.rope.freq_base", 10000.0F, &info->rope_theta));
    if (!(info->rms_eps >= 0.0F && info->rms_eps < 1.0F))
        return ca_fail(CA_E_FORMAT, "%s: 'llama.attention.layer_norm_rms_epsilon' is %g; it must be in [0, 1)",
                       ca_gguf_path(model->gguf), (double)info->rms_eps);
    if (!(info->rope_theta >= 1.0F && isfinite(info->rope_theta)))
        return ca_fail(CA_E_FORMAT, "%s: 'llama.rope.freq_base' is %g; it must be at least 1", ca_gguf_path(model->gguf),
                       (double)info->rope_theta);
    info->vocab = ca_tokenizer_size(model->tokenizer);
    return refuse_variants(model);
}

/* inv_freq[i] = theta^(-2i / head_dim), divided by rope_freqs.weight[i] where the file has it. */
static ca_status load_frequencies(ca_model *model)
{
    const uint32_t half = model->info.head_dim / 2;
    float *divisors = NULL;
    if (ca_gguf_find(model->gguf, "rope_freqs.weight") != NULL)
        CA_TRY(ca_weight_vector(model, "rope_freqs.weight", half, &divisors));
    model->inv_freq = malloc(half * sizeof *model->inv_freq);
    if (model->inv_freq == NULL) {
        free(divisors);
        return ca_fail(CA_E_MEMORY, "%s: no memory for %u frequencies", ca_gguf_path(model->gguf), half);
    }
    ca_status st = CA_OK;
    for (uint32_t i = 0; i < half; i++) {
        const double divisor = divisors != NULL ? (double)divisors[i] : 1.0;
        if (!(divisor > 0.0 && isfinite(divisor)))
            st = ca_fail(CA_E_FORMAT, "%s: tensor 'rope_freqs.weight' holds %g at %u; it must be positive",
                         ca_gguf_path(model->gguf), divisor, i);
        model->inv_freq[i] = pow((double)model->info.rope_theta, -2.0 * i / model->info.head_dim) / divisor;
    }
    free(divisors);
    return st;
}

enum { NAME_LEN = 48 };

static const char *layer_tensor(char name[NAME_LEN], uint32_t layer, const char *what)
{
    snprintf(name, NAME_LEN, "blk.%u.%s.weight", layer, what);
    return name;
}

static ca_status load_layer(const ca_model *model, uint32_t l, ca_layer *layer)
{
    const ca_model_info *info = &model->info;
    const uint32_t q_rows = info->n_heads * info->head_dim;
    const uint32_t kv_rows = info->n_kv_heads * info->head_dim;
    char a[NAME_LEN], b[NAME_LEN], c[NAME_LEN];
    const ca_weight_part qkv[] = { { layer_tensor(a, l, "attn_q"), q_rows, info->head_dim },
                                   { layer_tensor(b, l, "attn_k"), kv_rows, info->head_dim },
                                   { layer_tensor(c, l, "attn_v"), kv_rows, 0 } };
    CA_TRY(ca_weight_matrix(model, info->hidden, qkv, 3, &layer->qkv));
    const ca_weight_part gate_up[] = { { layer_tensor(a, l, "ffn_gate"), info->ffn, 0 },
                                       { layer_tensor(b, l, "ffn_up"), info->ffn, 0 } };
    CA_TRY(ca_weight_matrix(model, info->hidden, gate_up, 2, &layer->gate_up));
    const ca_weight_part o = { layer_tensor(a, l, "attn_output"), info->hidden, 0 };
    CA_TRY(ca_weight_matrix(model, q_rows, &o, 1, &layer->o));
    const ca_weight_part down = { layer_tensor(a, l, "ffn_down"), info->hidden, 0 };
    CA_TRY(ca_weight_matrix(model, info->ffn, &down, 1, &layer->down));
    CA_TRY(ca_weight_vector(model, layer_tensor(a, l, "attn_norm"), info->hidden, &layer->attn_norm));
    return ca_weight_vector(model, layer_tensor(a, l, "ffn_norm"), info->hidden, &layer->ffn_norm);
}

static bool is_one_of(ca_str name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (name.len == strlen(names[i]) && memcmp(name.data, names[i], name.len) == 0) return true;
    return false;
}

/* A tensor that no line above reads (a bias, an expert, a layer too many) means another computation than this one. */
static ca_status refuse_unread_tensors(const ca_model *model)
{
    static const char *const global[] = { "token_embd.weight", "output.weight", "output_norm.weight", "rope_freqs.weight" };
    static const char *const layer[] = { "attn_norm.weight", "attn_q.weight",      "attn_k.weight",
                                         "attn_v.weight",    "attn_output.weight", "ffn_norm.weight",
                                         "ffn_gate.weight",  "ffn_down.weight",    "ffn_up.weight" };
    for (size_t i = 0; i < ca_gguf_n_tensors(model->gguf); i++) {
        const ca_str name = ca_gguf_tensor_at(model->gguf, i)->name;
        if (is_one_of(name, global, sizeof global / sizeof *global)) continue;
        size_t at = 4; /* "blk." */
        uint64_t index = 0;
        if (name.len > at && memcmp(name.data, "blk.", at) == 0)
            for (; at < name.len && name.data[at] >= '0' && name.data[at] <= '9' && index < MAX_LAYERS; at++)
                index = index * 10 + (uint64_t)(name.data[at] - '0');
        if (at > 4 && at < name.len && name.data[at] == '.' && index < model->info.n_layers &&
            is_one_of((ca_str){ name.data + at + 1, name.len - at - 1 }, layer, sizeof layer / sizeof *layer))
            continue;
        return ca_fail(CA_E_UNSUPPORTED, "%s: tensor '%.*s' has no place in a llama of %u layers without biases or experts",
                       ca_gguf_path(model->gguf), (int)(name.len < 64 ? name.len : 64), name.data, model->info.n_layers);
    }
    return CA_OK;
}

static ca_status load_llama(ca_model *model)
{
    ca_model_info *info = &model->info;
    CA_TRY(read_keys(model));
    CA_TRY(refuse_unread_tensors(model));
    const uint64_t embedding_dims[] = { info->hidden, info->vocab };
    CA_TRY(ca_gguf_tensor(model->gguf, "token_embd.weight", 2, embedding_dims, &model->embedding));
    CA_TRY(load_frequencies(model));
    CA_TRY(ca_weight_vector(model, "output_norm.weight", info->hidden, &model->final_norm));
    info->tied_output = ca_gguf_find(model->gguf, "output.weight") == NULL;
    const ca_weight_part output = { info->tied_output ? "token_embd.weight" : "output.weight", info->vocab, 0 };
    CA_TRY(ca_weight_matrix(model, info->hidden, &output, 1, &model->output));
    model->layers = calloc(info->n_layers, sizeof *model->layers);
    if (model->layers == NULL)
        return ca_fail(CA_E_MEMORY, "%s: no memory for %u layers", ca_gguf_path(model->gguf), info->n_layers);
    for (uint32_t l = 0; l < info->n_layers; l++) CA_TRY(load_layer(model, l, &model->layers[l]));
    return CA_OK;
}

const ca_family ca_family_llama = { "llama", load_llama };
