/* Any bytes as a config.json: what is accepted is within the limits that the rest of the library computes with. */
#include <math.h>
#include <stdlib.h>

#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const ca_config *c)
{
    double freq[CA_MAX_HEAD_DIM / 2];
    bool fine = c->n_layers >= 1 && c->n_layers <= CA_MAX_LAYERS && c->hidden >= 1 && c->hidden <= CA_MAX_WIDTH && c->ffn >= 1 &&
                c->ffn <= CA_MAX_WIDTH && c->n_heads >= 1 && c->n_heads <= CA_MAX_HEADS && c->n_kv_heads >= 1 &&
                c->n_heads % c->n_kv_heads == 0 && c->head_dim >= 16 && c->head_dim <= CA_MAX_HEAD_DIM && c->head_dim % 16 == 0 &&
                c->vocab >= 1 && c->vocab <= CA_MAX_VOCAB && c->max_context >= 1 && c->max_context <= CA_MAX_CONTEXT &&
                c->rms_eps >= 0.0F && c->attn_scale > 0.0F && isfinite(c->attn_scale) && isfinite(c->embed_scale) &&
                c->n_experts <= CA_MAX_EXPERTS && c->top_k <= c->n_experts;
    for (uint32_t l = 0; l < CA_MAX_LAYERS; l++)
        fine = fine && (!c->sliding[l] || (l < c->n_layers && c->window >= 1)) && (!c->sparse[l] || c->n_experts > 0);
    for (size_t r = 0; r < 2 && fine; r++) {
        ca_rope_frequencies(&c->rope[r], c->head_dim, freq);
        fine = c->rope[r].magnitude > 0.0F && isfinite(c->rope[r].magnitude);
        for (uint32_t i = 0; i < c->head_dim / 2; i++) fine = fine && freq[i] > 0.0 && isfinite(freq[i]);
    }
    if (!fine) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ca_config c;
    const ca_family *family = NULL;
    json_t *config = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(config)) {
        if (ca_config_read_json(config, "fuzz", &family, &c) == CA_OK)
            check(&c);
        else if (*ca_last_error() == '\0')
            abort();
    }
    json_decref(config);
    return 0;
}
