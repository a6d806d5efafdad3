/* Qwen2 and Qwen2.5: Llama's form with biases on Q, K and V. */
#include "model/config.h"

static ca_status configure(const ca_fields *f, ca_config *c)
{
    CA_TRY(ca_config_common(f, c));
    CA_TRY(ca_rope_read(f, 10000.0F, 0.0F, &c->max_context, &c->rope[0], &c->rope[1]));
    c->qkv_bias = true;
    return ca_config_qwen_window(f, c);
}

const ca_family ca_family_qwen2 = { "qwen2", { "qwen2" }, configure };
