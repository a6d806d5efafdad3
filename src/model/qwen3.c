/* Qwen3: Llama's form with an RMSNorm over each Q and K head, and head dimensions of their own. */
#include "model/config.h"

static ca_status configure(const ca_fields *f, ca_config *c)
{
    if (f->gguf == NULL) c->head_dim = 128; /* what transformers takes for a missing key */
    CA_TRY(ca_config_common(f, c));
    CA_TRY(ca_rope_read(f, 10000.0F, 0.0F, &c->max_context, &c->rope[0], &c->rope[1]));
    c->qk_norm = true;
    CA_TRY(ca_field_bool(f, (ca_field){ NULL, "attention_bias" }, &c->qkv_bias));
    c->o_bias = c->qkv_bias;
    return ca_config_qwen_window(f, c);
}

const ca_family ca_family_qwen3 = { "qwen3", { "qwen3" }, configure };
