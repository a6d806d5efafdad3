/* Qwen3-MoE: Qwen3 with experts in place of most feed-forward networks. */
#include <stdio.h>

#include "model/config.h"

/* GGUF says it by the tensors that are there; config.json by a step and a list of exceptions. */
static ca_status read_sparse_layers(const ca_fields *f, ca_config *c)
{
    uint32_t step = 1;
    const json_t *dense, *value;
    size_t i;
    char name[48];
    CA_TRY(ca_field_u32(f, (ca_field){ NULL, "decoder_sparse_step" }, 1, UINT32_MAX, &step));
    for (uint32_t l = 0; l < c->n_layers; l++) {
        (void)snprintf(name, sizeof name, "blk.%u.ffn_gate_inp.weight", l);
        c->sparse[l] = f->gguf != NULL ? ca_store_find(f->store, name) != NULL : (l + 1) % step == 0;
    }
    if (f->gguf != NULL) return CA_OK;
    CA_TRY(ca_field_array(f, "mlp_only_layers", &dense));
    json_array_foreach(dense, i, value)
    {
        const json_int_t l = json_integer_value(value);
        if (!json_is_integer(value) || l < 0 || l >= (json_int_t)c->n_layers)
            return ca_fail(CA_E_FORMAT, "%s: key 'mlp_only_layers': element %zu is no layer from 0 to %u", f->path, i,
                           c->n_layers - 1);
        c->sparse[l] = false;
    }
    return CA_OK;
}

static ca_status configure(const ca_fields *f, ca_config *c)
{
    const ca_field experts = { "expert_count", "num_experts" }, renamed = { NULL, "num_local_experts" };
    if (f->gguf == NULL) c->head_dim = 128; /* what transformers takes for a missing key */
    CA_TRY(ca_family_qwen3.configure(f, c));
    CA_TRY(ca_field_u32(f, ca_field_has(f, renamed) ? renamed : experts, 1, CA_MAX_EXPERTS, &c->n_experts));
    CA_TRY(ca_field_u32(f, (ca_field){ "expert_used_count", "num_experts_per_tok" }, 1, c->n_experts, &c->top_k));
    if (f->gguf != NULL && c->ffn >= c->top_k) c->expert_ffn = c->ffn / c->top_k; /* files that leave the key out */
    CA_TRY(ca_field_u32(f, (ca_field){ "expert_feed_forward_length", "moe_intermediate_size" }, 1, CA_MAX_WIDTH, &c->expert_ffn));
    c->norm_topk = f->gguf != NULL; /* what a missing key means differs */
    CA_TRY(ca_field_bool(f, (ca_field){ "expert_weights_norm", "norm_topk_prob" }, &c->norm_topk));
    CA_TRY(ca_config_refuse(f, (ca_field){ "expert_shared_count", NULL }, "an expert that all tokens share"));
    return read_sparse_layers(f, c);
}

const ca_family ca_family_qwen3_moe = { "qwen3moe", { "qwen3_moe" }, configure };
