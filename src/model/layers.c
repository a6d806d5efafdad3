#include "model/layers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "kern/kern.h"
#include "model/weights.h"

/* Tokens of one pass through the feed-forward network: its wide activations stay in the caches. */
enum { FFN_BLOCK = 512 };

static size_t elem_bytes(const ca_model *model)
{
    return ca_kern_dtype(model->kern) == CA_BF16 ? 2 : 4;
}

/* The next rows * row_bytes bytes of a block, 64-byte aligned; NULL while only measuring. */
static void *place(unsigned char *base, size_t rows, size_t row_bytes, size_t *at)
{
    void *here = base != NULL ? base + *at : NULL;
    *at += ca_align_up(rows * row_bytes, 64);
    return here;
}

/* Lays acts out from base and returns its bytes. The limits of a model's sizes keep every product far below overflow. */
static size_t lay_out(const ca_model *model, uint32_t max_tokens, bool keep_raw, unsigned char *base, ca_acts *acts)
{
    const ca_model_info *info = &model->info;
    const size_t q_width = (size_t)info->n_heads * info->head_dim;
    const size_t kv_width = (size_t)info->n_kv_heads * info->head_dim;
    const size_t h_width = q_width > info->hidden ? q_width : info->hidden;
    const uint32_t block = ca_min_u32(max_tokens, FFN_BLOCK);
    size_t at = 0;
    acts->qkv_width = (uint32_t)(q_width + 2 * kv_width);
    acts->x = place(base, max_tokens, info->hidden * sizeof(float), &at);
    acts->qkv = place(base, max_tokens, acts->qkv_width * sizeof(float), &at);
    if (keep_raw) acts->raw = place(base, max_tokens, (q_width + kv_width) * sizeof(float), &at);
    acts->h = place(base, max_tokens, h_width * elem_bytes(model), &at);
    acts->rotation = place(base, max_tokens, info->head_dim * sizeof(float), &at);
    acts->gate_up = place(base, block, 2 * (size_t)info->ffn * sizeof(float), &at);
    acts->ffn_in = place(base, block, info->ffn * elem_bytes(model), &at);
    return at;
}

size_t ca_acts_bytes(const ca_model *model, uint32_t max_tokens, bool keep_raw)
{
    ca_acts acts = { 0 };
    return lay_out(model, max_tokens, keep_raw, NULL, &acts);
}

ca_status ca_acts_create(const ca_model *model, uint32_t max_tokens, bool keep_raw, ca_acts *out)
{
    const size_t bytes = ca_acts_bytes(model, max_tokens, keep_raw);
    *out = (ca_acts){ .memory = aligned_alloc(64, bytes) };
    if (out->memory == NULL)
        return ca_fail(CA_E_MEMORY, "session: no memory for %zu bytes of activations: use a smaller chunk", bytes);
    (void)lay_out(model, max_tokens, keep_raw, out->memory, out);
    return CA_OK;
}

void ca_acts_destroy(ca_acts *acts)
{
    free(acts->memory);
    *acts = (ca_acts){ 0 };
}

void ca_layers_embed(const ca_model *model, const uint32_t *tokens, uint32_t n, uint32_t pos, ca_acts *acts)
{
    const uint32_t half = model->info.head_dim / 2;
#pragma omp parallel for schedule(static) if (n > 1)
    for (uint32_t t = 0; t < n; t++) {
        ca_tensor_rows(model->embedding, tokens[t], 1, acts->x + (size_t)t * model->info.hidden);
        float *rotation = acts->rotation + (size_t)t * model->info.head_dim;
        for (uint32_t i = 0; i < half; i++) {
            const double angle = (double)(pos + t) * model->inv_freq[i];
            rotation[i] = (float)cos(angle);
            rotation[half + i] = (float)sin(angle);
        }
    }
}

/* h rows of tokens [first, first + n) = norm(x) * weight. */
static void *norm_rows(const ca_model *model, const float *weight, uint32_t first, uint32_t n, ca_acts *acts)
{
    const uint32_t hidden = model->info.hidden;
    unsigned char *h = (unsigned char *)acts->h + (size_t)first * hidden * elem_bytes(model);
    const float *x = acts->x + (size_t)first * hidden;
#pragma omp parallel for schedule(static) if (n > 1)
    for (uint32_t t = 0; t < n; t++)
        model->kern->rmsnorm(x + (size_t)t * hidden, weight, model->info.rms_eps, hidden,
                             h + (size_t)t * hidden * elem_bytes(model));
    return h;
}

ca_status ca_layers_qkv(const ca_model *model, uint32_t layer, uint32_t n, ca_acts *acts, ca_gemm_runner *gemm)
{
    const ca_model_info *info = &model->info;
    const void *h = norm_rows(model, model->layers[layer].attn_norm, 0, n, acts);
    CA_TRY(ca_gemm_run(gemm, model->layers[layer].qkv, h, n, acts->qkv, false));
    /* Q heads and K heads lie side by side: one rotation for both. */
#pragma omp parallel for schedule(static) if (n > 1)
    for (uint32_t t = 0; t < n; t++) {
        const uint32_t heads = info->n_heads + info->n_kv_heads;
        const size_t width = (size_t)heads * info->head_dim;
        float *qk = acts->qkv + (size_t)t * acts->qkv_width;
        if (acts->raw) memcpy(acts->raw + t * width, qk, width * sizeof *qk);
        model->kern->rope(qk, heads, info->head_dim, acts->rotation + (size_t)t * info->head_dim);
    }
    return CA_OK;
}

/* x += W_down (silu(gate) * up) for tokens [first, first + n), n <= FFN_BLOCK. */
static ca_status feed_forward(const ca_model *model, const ca_layer *layer, uint32_t first, uint32_t n, ca_acts *acts,
                              ca_gemm_runner *gemm)
{
    const uint32_t ffn = model->info.ffn;
    const void *h = norm_rows(model, layer->ffn_norm, first, n, acts);
    CA_TRY(ca_gemm_run(gemm, layer->gate_up, h, n, acts->gate_up, false));
#pragma omp parallel for schedule(static) if (n > 1)
    for (uint32_t t = 0; t < n; t++) {
        const float *gate = acts->gate_up + (size_t)t * 2 * ffn;
        model->kern->swiglu(gate, gate + ffn, ffn, (unsigned char *)acts->ffn_in + (size_t)t * ffn * elem_bytes(model));
    }
    return ca_gemm_run(gemm, layer->down, acts->ffn_in, n, acts->x + (size_t)first * model->info.hidden, true);
}

ca_status ca_layers_finish(const ca_model *model, uint32_t layer, uint32_t n, ca_acts *acts, ca_gemm_runner *gemm)
{
    const ca_layer *l = &model->layers[layer];
    CA_TRY(ca_gemm_run(gemm, l->o, acts->h, n, acts->x, true));
    for (uint32_t first = 0; first < n; first += FFN_BLOCK)
        CA_TRY(feed_forward(model, l, first, ca_min_u32(n - first, FFN_BLOCK), acts, gemm));
    return CA_OK;
}

ca_status ca_layers_logits(const ca_model *model, uint32_t first, uint32_t n, ca_acts *acts, ca_gemm_runner *gemm, float *logits)
{
    const void *h = norm_rows(model, model->final_norm, first, n, acts);
    return ca_gemm_run(gemm, model->output, h, n, logits, false);
}
