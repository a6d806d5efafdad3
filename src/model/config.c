#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/arith.h"

static const ca_family *const families[] = { &ca_family_llama, &ca_family_qwen2, &ca_family_qwen3, &ca_family_qwen3_moe,
                                             &ca_family_gemma3 };

enum { N_FAMILIES = sizeof families / sizeof *families };

/* ---- what families share ---- */

static ca_status read_heads(const ca_fields *f, ca_config *c)
{
    char name[96];
    const ca_field kv_heads = { "attention.head_count_kv", "num_key_value_heads" };
    const ca_field head_dim = { "attention.key_length", "head_dim" };
    const uint32_t usual_kv = c->n_kv_heads;
    CA_TRY(ca_field_u32(f, (ca_field){ "attention.head_count", "num_attention_heads" }, 1, CA_MAX_HEADS, &c->n_heads));
    if (usual_kv == 0) c->n_kv_heads = c->n_heads;
    CA_TRY(ca_field_u32(f, kv_heads, 1, c->n_heads, &c->n_kv_heads));
    if (c->n_kv_heads > c->n_heads || c->n_heads % c->n_kv_heads != 0)
        return ca_fail(CA_E_FORMAT, "%s: %u query heads cannot share %u KV heads evenly ('%s')", f->path, c->n_heads, c->n_kv_heads,
                       ca_field_name(f, kv_heads, name));
    if (c->head_dim == 0 && !ca_field_has(f, head_dim)) {
        if (c->hidden % c->n_heads != 0 || c->hidden / c->n_heads > CA_MAX_HEAD_DIM)
            return ca_fail(CA_E_FORMAT,
                           "%s: %u hidden dimensions over %u heads are no head dimension up to %d, and '%s' is missing", f->path,
                           c->hidden, c->n_heads, CA_MAX_HEAD_DIM, ca_field_name(f, head_dim, name));
        c->head_dim = c->hidden / c->n_heads;
    }
    CA_TRY(ca_field_u32(f, head_dim, 1, CA_MAX_HEAD_DIM, &c->head_dim));
    if (c->head_dim % 16 != 0)
        return ca_fail(CA_E_UNSUPPORTED, "%s: head dimension %u is not supported; it must be a multiple of 16", f->path,
                       c->head_dim);
    uint32_t value_dim = c->head_dim, rope_dim = c->head_dim;
    CA_TRY(ca_field_u32(f, (ca_field){ "attention.value_length", NULL }, 1, CA_MAX_CONTEXT, &value_dim));
    CA_TRY(ca_field_u32(f, (ca_field){ "rope.dimension_count", NULL }, 1, CA_MAX_CONTEXT, &rope_dim));
    if (value_dim != c->head_dim || rope_dim != c->head_dim)
        return ca_fail(CA_E_UNSUPPORTED, "%s: key, value and rotated dimensions are %u, %u and %u; this build needs them equal",
                       f->path, c->head_dim, value_dim, rope_dim);
    return CA_OK;
}

static ca_status check_activation(const ca_fields *f, const ca_config *c)
{
    char name[48];
    const bool silu = c->activation == CA_SILU;
    CA_TRY(ca_field_text(f, (ca_field){ NULL, silu ? "hidden_act" : "hidden_activation" }, name, sizeof name));
    if (*name == '\0' || strcmp(name, silu ? "silu" : "gelu_pytorch_tanh") == 0) return CA_OK;
    return ca_fail(CA_E_UNSUPPORTED, "%s: activation '%s' is not supported in this family; %s is", f->path, name,
                   silu ? "silu" : "gelu_pytorch_tanh");
}

ca_status ca_config_refuse(const ca_fields *f, ca_field field, const char *why)
{
    char name[96];
    float value = 0.0F;
    if (!ca_field_has(f, field)) return CA_OK;
    if (f->gguf != NULL) { /* counts and factors */
        uint32_t count = 0;
        if (ca_gguf_u32(f->gguf, ca_field_name(f, field, name), &count) == CA_OK)
            value = (float)count;
        else
            CA_TRY(ca_field_f32(f, field, -INFINITY, INFINITY, &value));
    } else {
        CA_TRY(ca_field_f32(f, field, -INFINITY, INFINITY, &value));
    }
    if (value == 0.0F) return CA_OK;
    return ca_fail(CA_E_UNSUPPORTED, "%s: key '%s' is %g: %s is not supported", f->path, ca_field_name(f, field, name),
                   (double)value, why);
}

/* Ways of storing or rotating that no family here has. */
static ca_status refuse_variants(const ca_fields *f)
{
    ca_fields quantized;
    float rotated = 1.0F;
    bool interleaved = false;
    CA_TRY(ca_fields_inside(f, "quantization_config", &quantized));
    if (quantized.object != NULL)
        return ca_fail(CA_E_UNSUPPORTED,
                       "%s: key 'quantization_config': these quantized weights have no reader; use the bf16 model or a GGUF file",
                       f->path);
    CA_TRY(ca_field_f32(f, (ca_field){ NULL, "partial_rotary_factor" }, 1.0F, 1.0F, &rotated));
    CA_TRY(ca_field_bool(f, (ca_field){ NULL, "rope_interleaved" }, &interleaved));
    if (interleaved) return ca_fail(CA_E_UNSUPPORTED, "%s: key 'rope_interleaved' is true, which is not supported", f->path);
    return CA_OK;
}

ca_status ca_config_common(const ca_fields *f, ca_config *c)
{
    CA_TRY(ca_field_u32(f, (ca_field){ "block_count", "num_hidden_layers" }, 1, CA_MAX_LAYERS, &c->n_layers));
    CA_TRY(ca_field_u32(f, (ca_field){ "embedding_length", "hidden_size" }, 1, CA_MAX_WIDTH, &c->hidden));
    CA_TRY(ca_field_u32(f, (ca_field){ "feed_forward_length", "intermediate_size" }, 1, CA_MAX_WIDTH, &c->ffn));
    CA_TRY(ca_field_u32(f, (ca_field){ "context_length", "max_position_embeddings" }, 1, CA_MAX_CONTEXT, &c->max_context));
    if (f->gguf == NULL) CA_TRY(ca_field_u32(f, (ca_field){ NULL, "vocab_size" }, 1, CA_MAX_VOCAB, &c->vocab));
    CA_TRY(read_heads(f, c));
    CA_TRY(ca_field_f32(f, (ca_field){ "attention.layer_norm_rms_epsilon", "rms_norm_eps" }, 0.0F, 1.0F, &c->rms_eps));
    CA_TRY(ca_field_bool(f, (ca_field){ NULL, "tie_word_embeddings" }, &c->tied));
    c->attn_scale = 1.0F / sqrtf((float)c->head_dim);
    CA_TRY(ca_field_f32(f, (ca_field){ "attention.scale", NULL }, 1e-6F, 1e6F, &c->attn_scale));
    c->embed_scale = 1.0F;
    CA_TRY(check_activation(f, c));
    return refuse_variants(f);
}

ca_status ca_config_layer_types(const ca_fields *f, ca_config *c, bool *found)
{
    const json_t *types;
    size_t i;
    json_t *type;
    CA_TRY(ca_field_array(f, "layer_types", &types));
    *found = types != NULL;
    if (types == NULL) return CA_OK;
    if (json_array_size(types) != c->n_layers)
        return ca_fail(CA_E_FORMAT, "%s: key 'layer_types' lists %zu layers, the model has %u", f->path, json_array_size(types),
                       c->n_layers);
    json_array_foreach(types, i, type)
    {
        const char *name = json_is_string(type) ? json_string_value(type) : "no string";
        c->sliding[i] = strcmp(name, "sliding_attention") == 0;
        if (!c->sliding[i] && strcmp(name, "full_attention") != 0)
            return ca_fail(CA_E_UNSUPPORTED,
                           "%s: key 'layer_types': layer %zu is '%.32s'; full_attention and sliding_attention are supported",
                           f->path, i, name);
    }
    return CA_OK;
}

ca_status ca_config_qwen_window(const ca_fields *f, ca_config *c)
{
    bool used = false, listed = false;
    uint32_t first = 28; /* what transformers takes for a missing key */
    const ca_field window = { NULL, "sliding_window" }, full = { NULL, "max_window_layers" };
    CA_TRY(ca_field_bool(f, (ca_field){ NULL, "use_sliding_window" }, &used));
    CA_TRY(ca_config_layer_types(f, c, &listed));
    used = used && ca_field_has(f, window);
    if (used) CA_TRY(ca_field_u32(f, window, 1, CA_MAX_CONTEXT, &c->window));
    if (ca_field_has(f, full)) CA_TRY(ca_field_u32(f, full, 0, UINT32_MAX, &first));
    for (uint32_t i = 0; i < c->n_layers; i++) {
        if (!listed) c->sliding[i] = used && i >= first;
        if (c->sliding[i] && !used)
            return ca_fail(CA_E_FORMAT,
                           "%s: key 'layer_types' makes layer %u slide, 'use_sliding_window' and 'sliding_window' do not", f->path,
                           i);
    }
    return ca_config_refuse(f, (ca_field){ "attention.sliding_window", NULL }, "a sliding window in this family");
}

/* ---- the family ---- */

static ca_status configure(const ca_fields *f, const char *name, const char *key, const ca_family **family, ca_config *c)
{
    char known[256] = "";
    size_t used = 0;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        const ca_family *one = families[i];
        for (size_t t = 0; t < 2; t++) {
            const char *type = f->gguf == NULL ? one->model_type[t] : t == 0 ? one->architecture : NULL;
            if (type == NULL) continue;
            if (strcmp(name, type) == 0) {
                *family = one;
                return one->configure(f, c);
            }
            if (used < sizeof known)
                used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used > 0 ? ", " : "", type);
        }
    }
    return ca_fail(CA_E_UNSUPPORTED, "%s: architecture '%.64s' is not supported ('%s'); this build knows: %s", f->path, name, key,
                   known);
}

static ca_status read_json(const json_t *config, const char *path, const ca_store *store, const ca_family **family, ca_config *out)
{
    char type[64];
    ca_fields whole = { .path = path, .store = store, .object = config }, text;
    *out = (ca_config){ 0 };
    CA_TRY(ca_field_text(&whole, (ca_field){ NULL, "model_type" }, type, sizeof type));
    if (*type == '\0') return ca_fail(CA_E_FORMAT, "%s: key 'model_type' is missing", path);
    CA_TRY(ca_fields_inside(&whole, "text_config", &text));
    if (text.object == NULL) return configure(&whole, type, "model_type", family, out);
    text.root = config;
    return configure(&text, type, "model_type", family, out);
}

ca_status ca_config_read_json(const json_t *config, const char *path, const ca_family **family, ca_config *out)
{
    return read_json(config, path, NULL, family, out);
}

ca_status ca_config_read(const ca_store *store, const ca_family **family, ca_config *out)
{
    static const char key[] = "general.architecture";
    const ca_gguf *gguf = ca_store_gguf(store);
    char name[64];
    ca_str text;
    if (gguf == NULL) return read_json(ca_store_config(store), ca_store_meta_path(store), store, family, out);
    *out = (ca_config){ 0 };
    CA_TRY(ca_gguf_str(gguf, key, &text));
    ca_str_text(text, name, sizeof name);
    const ca_fields f = { .path = ca_store_meta_path(store), .store = store, .gguf = gguf, .architecture = name };
    return configure(&f, name, key, family, out);
}
