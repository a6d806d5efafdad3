/* Llama 2 and 3, and what shares their form: RMSNorm, RoPE, grouped-query attention, SwiGLU; biases where the file has them. */
#include "model/config.h"

static ca_status configure(const ca_fields *f, ca_config *c)
{
    const bool gguf = f->gguf != NULL;
    CA_TRY(ca_config_common(f, c));
    CA_TRY(ca_rope_read(f, 10000.0F, 0.0F, &c->max_context, &c->rope[0], &c->rope[1]));
    c->interleaved = gguf;
    c->qkv_bias = gguf && ca_store_find(f->store, "blk.0.attn_q.bias") != NULL;
    CA_TRY(ca_field_bool(f, (ca_field){ NULL, "attention_bias" }, &c->qkv_bias));
    c->o_bias = gguf ? ca_store_find(f->store, "blk.0.attn_output.bias") != NULL : c->qkv_bias;
    c->mlp_bias = gguf && ca_store_find(f->store, "blk.0.ffn_gate.bias") != NULL;
    CA_TRY(ca_field_bool(f, (ca_field){ NULL, "mlp_bias" }, &c->mlp_bias));
    return ca_config_refuse(f, (ca_field){ "expert_count", "num_local_experts" }, "a mixture of experts in this family");
}

const ca_family ca_family_llama = { "llama", { "llama" }, configure };
