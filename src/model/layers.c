#include "model/layers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "kern/kern.h"
#include "model/moe.h"
#include "model/weights.h"

size_t ca_layers_elem_bytes(const ca_model *model)
{
    return ca_flow_bytes(model->kern);
}

/* The next rows * row_bytes bytes of a block, 64-byte aligned; NULL while only measuring. */
static void *place(unsigned char *base, size_t rows, size_t row_bytes, size_t *at)
{
    void *here = base != NULL ? base + *at : NULL;
    *at += ca_align_up(rows * row_bytes, 64);
    return here;
}

static void lay_out_routes(const ca_model *model, uint32_t max_tokens, uint32_t block, unsigned char *base, size_t *at,
                           ca_routes *r)
{
    const ca_config *c = &model->config;
    const size_t slots = (size_t)max_tokens * c->top_k;
    r->probs = place(base, max_tokens, c->n_experts * sizeof(float), at);
    r->experts = place(base, slots, sizeof(uint32_t), at);
    r->weights = place(base, slots, sizeof(float), at);
    r->starts = place(base, (size_t)c->n_experts + 1, sizeof(uint32_t), at);
    r->tokens = place(base, slots, sizeof(uint32_t), at);
    r->shares = place(base, slots, sizeof(float), at);
    r->gathered = place(base, block, c->hidden * ca_layers_elem_bytes(model), at);
}

/* Lays acts out from base and returns its bytes. The limits of a model's sizes keep every product far below overflow. */
static size_t lay_out(const ca_model *model, uint32_t max_tokens, bool keep_raw, unsigned char *base, ca_acts *acts)
{
    const ca_config *c = &model->config;
    const size_t q_width = (size_t)c->n_heads * c->head_dim;
    const size_t kv_width = (size_t)c->n_kv_heads * c->head_dim;
    const size_t h_width = q_width > c->hidden ? q_width : c->hidden;
    const size_t elem = ca_layers_elem_bytes(model);
    const uint32_t ffn = ca_max_u32(c->ffn, c->expert_ffn);
    uint32_t block = ca_min_u32(max_tokens, CA_FFN_BLOCK);
    size_t at = 0;
    if (c->n_experts > 0) block = ca_moe_rows(block);
    acts->qkv_width = (uint32_t)(q_width + 2 * kv_width);
    acts->x = place(base, max_tokens, c->hidden * sizeof(float), &at);
    acts->qkv = place(base, max_tokens, acts->qkv_width * sizeof(float), &at);
    if (keep_raw) acts->raw = place(base, max_tokens, (q_width + kv_width) * sizeof(float), &at);
    acts->h = place(base, max_tokens, h_width * elem, &at);
    for (uint32_t r = 0; r < model->n_rotations; r++) acts->rotation[r] = place(base, max_tokens, c->head_dim * sizeof(float), &at);
    acts->gate_up = place(base, block, 2 * (size_t)ffn * sizeof(float), &at);
    acts->ffn_in = place(base, block, ffn * elem, &at);
    if (c->post_norms || c->n_experts > 0) acts->delta = place(base, block, c->hidden * sizeof(float), &at);
    if (c->n_experts > 0) lay_out_routes(model, max_tokens, block, base, &at, &acts->routes);
    return at;
}

size_t ca_acts_bytes(const ca_model *model, uint32_t max_tokens, bool keep_raw)
{
    ca_acts acts = { 0 };
    return lay_out(model, max_tokens, keep_raw, NULL, &acts);
}

ca_status ca_acts_create(const ca_model *model, uint32_t max_tokens, bool keep_raw, ca_acts *out)
{
    *out = (ca_acts){ 0 };
    if (model->layers == NULL) return ca_fail(CA_E_ARG, "session: the model was opened for a forecast only");
    const size_t bytes = ca_acts_bytes(model, max_tokens, keep_raw);
    out->memory = aligned_alloc(64, bytes);
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

/* cos_sin [head_dim] of a position. */
static void rotation_of(const ca_model *model, uint32_t r, uint32_t pos, float *cos_sin)
{
    const uint32_t half = model->config.head_dim / 2;
    const double magnitude = (double)model->config.rope[r].magnitude;
    for (uint32_t i = 0; i < half; i++) {
        const double angle = (double)pos * model->inv_freq[r][i];
        cos_sin[i] = (float)(cos(angle) * magnitude);
        cos_sin[half + i] = (float)(sin(angle) * magnitude);
    }
}

void ca_layers_embed(const ca_model *model, const uint32_t *tokens, uint32_t n, uint32_t pos, ca_acts *acts)
{
    const ca_config *c = &model->config;
#pragma omp parallel for schedule(static) if (n > 1)
    for (uint32_t t = 0; t < n; t++) {
        float *x = acts->x + (size_t)t * c->hidden;
        ca_tensor_rows(&model->embedding, tokens[t], 1, x);
        for (uint32_t i = 0; c->embed_scale != 1.0F && i < c->hidden; i++) x[i] *= c->embed_scale;
        for (uint32_t r = 0; r < model->n_rotations; r++)
            rotation_of(model, r, pos + t, acts->rotation[r] + (size_t)t * c->head_dim);
    }
}

void *ca_layers_norm(const ca_model *model, const float *weight, uint32_t first, uint32_t n, ca_acts *acts)
{
    const uint32_t hidden = model->config.hidden;
    const size_t elem = ca_layers_elem_bytes(model);
    unsigned char *h = (unsigned char *)acts->h + (size_t)first * hidden * elem;
    const float *x = acts->x + (size_t)first * hidden;
#pragma omp parallel for schedule(static) if (n > 1)
    for (uint32_t t = 0; t < n; t++)
        model->kern->rmsnorm(x + (size_t)t * hidden, weight, model->config.rms_eps, hidden, h + (size_t)t * hidden * elem);
    return h;
}

/* 1 / sqrt(mean(x^2) + eps) */
static float inverse_rms(const float *x, uint32_t n, float eps)
{
    float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
    for (uint32_t i = 0; i < n; i++) sum += x[i] * x[i];
    return 1.0F / sqrtf(sum / (float)n + eps);
}

static void norm_heads(const ca_config *c, const float *weight, uint32_t n_heads, float *x)
{
    for (uint32_t h = 0; h < n_heads; h++, x += c->head_dim) {
        const float inv = inverse_rms(x, c->head_dim, c->rms_eps);
        for (uint32_t i = 0; i < c->head_dim; i++) x[i] = x[i] * inv * weight[i];
    }
}

static void add(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] += y[i];
}

ca_status ca_layers_qkv(const ca_model *model, uint32_t layer, uint32_t n, ca_acts *acts, ca_gemm_runner *gemm)
{
    const ca_config *c = &model->config;
    const ca_layer *l = &model->layers[layer];
    const void *h = ca_layers_norm(model, l->attn_norm, 0, n, acts);
    const float *rotation = acts->rotation[c->sliding[layer] ? model->n_rotations - 1 : 0];
    CA_TRY(ca_gemm_run(gemm, l->qkv, h, n, acts->qkv, false));
    /* Q heads and K heads lie side by side: one rotation for both. */
#pragma omp parallel for schedule(static) if (n > 1)
    for (uint32_t t = 0; t < n; t++) {
        const uint32_t heads = c->n_heads + c->n_kv_heads;
        const size_t width = (size_t)heads * c->head_dim;
        float *qk = acts->qkv + (size_t)t * acts->qkv_width;
        if (l->qkv_bias != NULL) add(qk, l->qkv_bias, acts->qkv_width);
        if (l->q_norm != NULL) norm_heads(c, l->q_norm, c->n_heads, qk);
        if (l->k_norm != NULL) norm_heads(c, l->k_norm, c->n_kv_heads, qk + (size_t)c->n_heads * c->head_dim);
        if (acts->raw) memcpy(acts->raw + t * width, qk, width * sizeof *qk);
        model->kern->rope(qk, heads, c->head_dim, rotation + (size_t)t * c->head_dim);
    }
    return CA_OK;
}

/* x += norm(W in + bias) for tokens [first, first + n), where norm and bias are those that there are. */
static ca_status add_product(const ca_model *model, const ca_gemm_weight *weight, const float *bias, const float *norm,
                             const void *in, uint32_t first, uint32_t n, ca_acts *acts, ca_gemm_runner *gemm)
{
    const uint32_t hidden = model->config.hidden;
    float *x = acts->x + (size_t)first * hidden;
    CA_TRY(ca_gemm_run(gemm, weight, in, n, norm != NULL ? acts->delta : x, norm == NULL));
    if (bias == NULL && norm == NULL) return CA_OK;
#pragma omp parallel for schedule(static) if (n > 1)
    for (uint32_t t = 0; t < n; t++) {
        float *to = x + (size_t)t * hidden, *d = norm != NULL ? acts->delta + (size_t)t * hidden : to;
        if (bias != NULL) add(d, bias, hidden);
        if (norm == NULL) continue;
        const float inv = inverse_rms(d, hidden, model->config.rms_eps);
        for (uint32_t i = 0; i < hidden; i++) to[i] += d[i] * inv * norm[i];
    }
    return CA_OK;
}

void ca_layers_activate(const ca_model *model, uint32_t ffn, uint32_t n, ca_acts *acts)
{
    const size_t elem = ca_layers_elem_bytes(model);
    void (*act)(const float *, const float *, size_t, void *) = model->config.activation == CA_SILU ? model->kern->swiglu
                                                                                                    : model->kern->geglu;
#pragma omp parallel for schedule(static) if (n > 1)
    for (uint32_t t = 0; t < n; t++) {
        const float *gate = acts->gate_up + (size_t)t * 2 * ffn;
        act(gate, gate + ffn, ffn, (unsigned char *)acts->ffn_in + (size_t)t * ffn * elem);
    }
}

/* Tokens [first, first + n), n <= CA_FFN_BLOCK. */
static ca_status feed_forward(const ca_model *model, const ca_layer *layer, uint32_t first, uint32_t n, ca_acts *acts,
                              ca_gemm_runner *gemm)
{
    const uint32_t ffn = model->config.ffn;
    const void *h = ca_layers_norm(model, layer->ffn_norm, first, n, acts);
    CA_TRY(ca_gemm_run(gemm, layer->gate_up, h, n, acts->gate_up, false));
    for (uint32_t t = 0; layer->gate_up_bias != NULL && t < n; t++)
        add(acts->gate_up + (size_t)t * 2 * ffn, layer->gate_up_bias, 2 * (size_t)ffn);
    ca_layers_activate(model, ffn, n, acts);
    return add_product(model, layer->down, layer->down_bias, layer->post_ffn_norm, acts->ffn_in, first, n, acts, gemm);
}

ca_status ca_layers_project(const ca_model *model, uint32_t layer, uint32_t n, ca_acts *acts, ca_gemm_runner *gemm)
{
    const ca_config *c = &model->config;
    const ca_layer *l = &model->layers[layer];
    const size_t a_bytes = (size_t)c->n_heads * c->head_dim * ca_layers_elem_bytes(model); /* of one token in h */
    const uint32_t span = l->post_attn_norm != NULL ? CA_FFN_BLOCK : n;                    /* delta holds a block */
    for (uint32_t first = 0; first < n; first += span)
        CA_TRY(add_product(model, l->o, l->o_bias, l->post_attn_norm, (const unsigned char *)acts->h + first * a_bytes, first,
                           ca_min_u32(n - first, span), acts, gemm));
    return CA_OK;
}

ca_status ca_layers_network(const ca_model *model, uint32_t layer, uint32_t n, ca_acts *acts, ca_gemm_runner *gemm)
{
    const ca_layer *l = &model->layers[layer];
    if (l->experts != NULL) return ca_moe_run(model, l, n, acts, gemm);
    for (uint32_t first = 0; first < n; first += CA_FFN_BLOCK)
        CA_TRY(feed_forward(model, l, first, ca_min_u32(n - first, CA_FFN_BLOCK), acts, gemm));
    return CA_OK;
}

ca_status ca_layers_logits(const ca_model *model, uint32_t first, uint32_t n, ca_acts *acts, ca_gemm_runner *gemm, float *logits)
{
    const void *h = ca_layers_norm(model, model->final_norm, first, n, acts);
    return ca_gemm_run(gemm, model->output, h, n, logits, false);
}
