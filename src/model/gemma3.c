/* Gemma 3, the text part: norms before and after each half of a layer, most layers with a sliding window, GeGLU. */
#include <math.h>

#include "model/config.h"

/* Every n-th layer is full. */
static ca_status read_layers(const ca_fields *f, ca_config *c)
{
    bool listed = false;
    uint32_t step = 6;
    const ca_field old = { NULL, "_sliding_window_pattern" };
    const ca_field pattern = { "attention.sliding_window_pattern", "sliding_window_pattern" };
    c->window = 4096;
    CA_TRY(ca_field_u32(f, (ca_field){ "attention.sliding_window", "sliding_window" }, 1, CA_MAX_CONTEXT, &c->window));
    CA_TRY(ca_field_u32(f, ca_field_has(f, old) ? old : pattern, 1, UINT32_MAX, &step));
    if (f->gguf == NULL) CA_TRY(ca_config_layer_types(f, c, &listed));
    for (uint32_t l = 0; l < c->n_layers && !listed; l++) c->sliding[l] = (l + 1) % step != 0;
    return CA_OK;
}

/* The scale is query_pre_attn_scalar^-1/2. GGUF has no key for it: only the model of 62 layers has a scalar other than its head
 * dimension, hidden / heads. */
static ca_status read_scale(const ca_fields *f, ca_config *c)
{
    float scalar = c->n_layers == 62 ? (float)c->hidden / (float)c->n_heads : (float)c->head_dim;
    if (f->gguf != NULL && ca_field_has(f, (ca_field){ "attention.scale", NULL })) return CA_OK;
    if (f->gguf == NULL) scalar = 256.0F;
    CA_TRY(ca_field_f32(f, (ca_field){ NULL, "query_pre_attn_scalar" }, 1e-3F, 1e9F, &scalar));
    c->attn_scale = 1.0F / sqrtf(scalar);
    return CA_OK;
}

static ca_status configure(const ca_fields *f, ca_config *c)
{
    bool both_ways = false;
    c->activation = CA_GELU_TANH;
    if (f->gguf == NULL) /* published files leave out what transformers takes anyway */
        *c = (ca_config){ .n_layers = 26,
                          .hidden = 2304,
                          .ffn = 9216,
                          .n_heads = 8,
                          .n_kv_heads = 4,
                          .head_dim = 256,
                          .vocab = 262208,
                          .max_context = 131072,
                          .rms_eps = 1e-6F,
                          .tied = true,
                          .activation = CA_GELU_TANH };
    CA_TRY(ca_config_common(f, c));
    CA_TRY(ca_rope_read(f, 1e6F, 1e4F, &c->max_context, &c->rope[0], &c->rope[1]));
    CA_TRY(read_layers(f, c));
    CA_TRY(read_scale(f, c));
    CA_TRY(ca_field_bool(f, (ca_field){ NULL, "attention_bias" }, &c->qkv_bias));
    c->o_bias = c->qkv_bias;
    c->qk_norm = c->post_norms = true;
    c->norm_plus_1 = f->gguf == NULL; /* GGUF files have the 1 added */
    c->embed_scale = sqrtf((float)c->hidden);
    CA_TRY(ca_field_bool(f, (ca_field){ NULL, "use_bidirectional_attention" }, &both_ways));
    if (both_ways) return ca_fail(CA_E_UNSUPPORTED, "%s: attention in both directions is not supported", f->path);
    CA_TRY(ca_config_refuse(f, (ca_field){ "attn_logit_softcapping", "attn_logit_softcapping" }, "a cap of attention scores"));
    return ca_config_refuse(f, (ca_field){ "final_logit_softcapping", "final_logit_softcapping" }, "a cap of logits");
}

const ca_family ca_family_gemma3 = { "gemma3", { "gemma3_text", "gemma3" }, configure };
