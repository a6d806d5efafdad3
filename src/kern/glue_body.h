/* The element-wise pieces between matrix products, and the writing of pages, for every vector ISA. */
#ifndef CA_KERN_GLUE_BODY_H
#define CA_KERN_GLUE_BODY_H

#include <math.h>

#include "kern/int8_round.h"
#include "kern/page_body.h"

static void convert(const float *x, size_t n, void *out)
{
    v_elt *y = out;
    size_t i = 0;
    for (; i + VW <= n; i += VW) v_store_elts(y + i, v_load(x + i));
    for (; i < n; i++) y[i] = v_elt_of(x[i]);
}

CA_INT8_QUANTIZE(v_elt, v_elt_float)

static void rmsnorm(const float *x, const float *w, float eps, size_t n, void *out)
{
    vf sum = v_zero();
    size_t i = 0;
    for (; i + VW <= n; i += VW) sum = v_fma(v_load(x + i), v_load(x + i), sum);
    float total = v_hadd(sum);
    for (; i < n; i++) total += x[i] * x[i];
    const float inv = 1.0F / sqrtf(total / (float)n + eps);
    v_elt *y = out;
    for (i = 0; i + VW <= n; i += VW) v_store_elts(y + i, v_mul(v_mul(v_load(x + i), v_set1(inv)), v_load(w + i)));
    for (; i < n; i++) y[i] = v_elt_of(x[i] * inv * w[i]);
}

static void rope(float *x, uint32_t n_heads, uint32_t head_dim, const float *cos_sin)
{
    const uint32_t half = head_dim / 2;
    for (uint32_t h = 0; h < n_heads; h++, x += head_dim)
        for (uint32_t i = 0; i < half; i += VW) { /* head_dim is a multiple of 16; half may end inside a vector */
            if (i + VW <= half) {
                const vf cs = v_load(cos_sin + i), sn = v_load(cos_sin + half + i);
                const vf a = v_load(x + i), b = v_load(x + half + i);
                v_store(x + i, v_fnma(b, sn, v_mul(a, cs)));
                v_store(x + half + i, v_fma(a, sn, v_mul(b, cs)));
            } else {
                for (uint32_t e = i; e < half; e++) {
                    const float a = x[e], b = x[half + e];
                    x[e] = a * cos_sin[e] - b * cos_sin[half + e];
                    x[half + e] = b * cos_sin[e] + a * cos_sin[half + e];
                }
            }
        }
}

static void swiglu(const float *gate, const float *up, size_t n, void *out)
{
    v_elt *y = out;
    size_t i = 0;
    const vf neg_log2e = v_set1(-1.44269504F), one = v_set1(1.0F);
    for (; i + VW <= n; i += VW) {
        const vf g = v_load(gate + i);
        const vf s = v_div(g, v_add(one, v_exp2(v_mul(g, neg_log2e))));
        v_store_elts(y + i, v_mul(s, v_load(up + i)));
    }
    for (; i < n; i++) y[i] = v_elt_of(gate[i] / (1.0F + expf(-gate[i])) * up[i]);
}

/* -2 u log2(e) = -(a g + b g^3), a = 2 sqrt(2/pi) log2(e), b = 0.044715 a. */
static void geglu(const float *gate, const float *up, size_t n, void *out)
{
    v_elt *y = out;
    size_t i = 0;
    const vf a = v_set1(-2.30220818F), b = v_set1(-0.102943240F), one = v_set1(1.0F);
    for (; i + VW <= n; i += VW) {
        const vf g = v_load(gate + i);
        const vf power = v_mul(g, v_fma(b, v_mul(g, g), a));
        v_store_elts(y + i, v_mul(v_div(g, v_add(one, v_exp2(power))), v_load(up + i)));
    }
    for (; i < n; i++) {
        const float g = gate[i], u = 0.797884561F * (g + 0.044715F * g * g * g);
        y[i] = v_elt_of(g / (1.0F + expf(-2.0F * u)) * up[i]);
    }
}

static void page_convert(const float *x, size_t n, page_elt *out)
{
    if (PAGE_WIDENS)
        for (size_t i = 0; i < n; i++) out[i] = page_elt_of(x[i]);
    else
        convert(x, n, out);
}

/* Rounds each value once, stores it where the kernels read it, and adds the stored keys to mean_sum in token order. */
static void page_put(void *page, uint32_t page_tokens, uint32_t head_dim, uint32_t slot, uint32_t n, const float *k, const float *v,
                     size_t stride, float *mean_sum)
{
    const uint32_t kp = ca_min_u32(V_TILE_NV * VW, page_tokens);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t t = slot + i;
        const float *kt = k + (size_t)i * stride, *vt = v + (size_t)i * stride;
        page_elt row[256];
        page_convert(kt, head_dim, row);
        if (mean_sum)
            for (uint32_t d = 0; d < head_dim; d++) mean_sum[d] += page_elt_float(row[d]);
        unsigned char *kd = (unsigned char *)page + ((size_t)t / kp * (head_dim / PAGE_KS) * kp + t % kp) * 4;
        for (uint32_t u = 0; u < head_dim / PAGE_KS; u++) memcpy(kd + (size_t)u * kp * 4, row + u * PAGE_KS, 4);

        page_convert(vt, head_dim, row);
        for (uint32_t d0 = 0; d0 < head_dim; d0 += V_TILE_NV * VW) {
            const uint32_t width = ca_min_u32(V_TILE_NV * VW, head_dim - d0);
            page_elt *vd = (page_elt *)page + (size_t)page_tokens * head_dim + (size_t)d0 * page_tokens +
                           (size_t)(t / PAGE_KS) * width * PAGE_KS + t % PAGE_KS;
            for (uint32_t d = 0; d < width; d++) vd[(size_t)d * PAGE_KS] = row[d0 + d];
        }
    }
}

#endif
