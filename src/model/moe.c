#include "model/moe.h"

#include <math.h>
#include <string.h>

#include "base/arith.h"

uint32_t ca_moe_rows(uint32_t n)
{
    const uint32_t step = n <= 4 ? 1 : n <= 16 ? 4 : n <= 256 ? 16 : 64;
    return ca_ceil_div(n, step) * step;
}

/* Softmax over p [n_experts] in place, then its top_k: experts and weights. */
static void choose(const ca_config *c, float *p, uint32_t *experts, float *weights)
{
    float top = p[0], sum = 0.0F, kept = 0.0F;
    for (uint32_t e = 1; e < c->n_experts; e++) top = p[e] > top ? p[e] : top;
    for (uint32_t e = 0; e < c->n_experts; e++) sum += p[e] = expf(p[e] - top);
    for (uint32_t k = 0; k < c->top_k; k++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t e = 0; e < c->n_experts; e++)
            if (!(p[e] < 0.0F) && (best == UINT32_MAX || p[e] > p[best])) best = e;
        experts[k] = best;
        weights[k] = p[best] / sum;
        kept += weights[k];
        p[best] = -1.0F; /* taken */
    }
    for (uint32_t k = 0; c->norm_topk && k < c->top_k; k++) weights[k] /= kept;
}

/* Lists of each expert's tokens, from those of each token's experts. */
static void group(const ca_config *c, uint32_t n, ca_routes *r)
{
    const uint32_t slots = n * c->top_k;
    uint32_t *const at = r->starts + 1; /* counts, then ends, of which filling makes starts of the next */
    memset(r->starts, 0, (c->n_experts + 1) * sizeof *r->starts);
    for (uint32_t s = 0; s < slots; s++) at[r->experts[s]]++;
    for (uint32_t e = 1; e < c->n_experts; e++) at[e] += at[e - 1];
    for (uint32_t s = slots; s-- > 0;) {
        const uint32_t to = --at[r->experts[s]];
        r->tokens[to] = s / c->top_k;
        r->shares[to] = r->weights[s];
    }
    /* at[e] is now where e starts: move it to starts[e] */
    memmove(r->starts, at, c->n_experts * sizeof *at);
    r->starts[c->n_experts] = slots;
}

/* n tokens of an expert, n <= CA_FFN_BLOCK: x[token] += share * expert(h[token]). */
static ca_status run_expert(const ca_model *model, const ca_expert *expert, const uint32_t *tokens, const float *shares, uint32_t n,
                            ca_acts *acts, ca_gemm_runner *gemm)
{
    const ca_config *c = &model->config;
    const uint32_t rows = ca_moe_rows(n);
    const size_t elem = ca_layers_elem_bytes(model), h_bytes = c->hidden * elem, in_bytes = c->expert_ffn * elem;
    unsigned char *gathered = acts->routes.gathered;
#pragma omp parallel for schedule(static) if (n > 1)
    for (uint32_t i = 0; i < n; i++) memcpy(gathered + i * h_bytes, (const unsigned char *)acts->h + tokens[i] * h_bytes, h_bytes);
    memset(gathered + n * h_bytes, 0, (rows - n) * h_bytes);
    CA_TRY(ca_gemm_run(gemm, expert->gate_up, gathered, rows, acts->gate_up, false));
    ca_layers_activate(model, c->expert_ffn, n, acts);
    memset((unsigned char *)acts->ffn_in + n * in_bytes, 0, (rows - n) * in_bytes);
    CA_TRY(ca_gemm_run(gemm, expert->down, acts->ffn_in, rows, acts->delta, false));
#pragma omp parallel for schedule(static) if (n > 1)
    for (uint32_t i = 0; i < n; i++) { /* an expert has a token once */
        const float *d = acts->delta + (size_t)i * c->hidden;
        float *x = acts->x + (size_t)tokens[i] * c->hidden;
        for (uint32_t j = 0; j < c->hidden; j++) x[j] += shares[i] * d[j];
    }
    return CA_OK;
}

ca_status ca_moe_run(const ca_model *model, const ca_layer *layer, uint32_t n, ca_acts *acts, ca_gemm_runner *gemm)
{
    const ca_config *c = &model->config;
    ca_routes *r = &acts->routes;
    const void *h = ca_layers_norm(model, layer->ffn_norm, 0, n, acts);
    CA_TRY(ca_gemm_run(gemm, layer->router, h, n, r->probs, false));
#pragma omp parallel for schedule(static) if (n > 1)
    for (uint32_t t = 0; t < n; t++)
        choose(c, r->probs + (size_t)t * c->n_experts, r->experts + (size_t)t * c->top_k, r->weights + (size_t)t * c->top_k);
    group(c, n, r);
    for (uint32_t e = 0; e < c->n_experts; e++)
        for (uint32_t at = r->starts[e]; at < r->starts[e + 1]; at += CA_FFN_BLOCK)
            CA_TRY(run_expert(model, &layer->experts[e], r->tokens + at, r->shares + at,
                              ca_min_u32(r->starts[e + 1] - at, CA_FFN_BLOCK), acts, gemm));
    return CA_OK;
}
