/* What selectors ask of queries and pages, for every vector ISA: scores of packed vectors against a page, antidiagonal sums, and
 * the log-sum-exp over such scores. */
#ifndef CA_KERN_SELECT_BODY_H
#define CA_KERN_SELECT_BODY_H

#include <math.h>

#include "kern/kern.h"
#include "kern/page_body.h"
#include "kern/tile_body.h"

/* A panel of keys where page_panel widens it. */
enum { SELECT_WIDE = PAGE_WIDENS ? V_TILE_NV * VW * 256 : 1, PACK_AHEAD = 16 /* tokens */ };

/* A page of 32 tokens may hold one panel of two vectors only. */
static inline bool select_whole_panels(uint32_t page_tokens)
{
    return V_TILE_NV == 2 || page_tokens >= V_TILE_NV * VW;
}

static void pack_q(const float *q, size_t stride, uint32_t count, uint32_t head_dim, void *packed)
{
    const uint32_t units = head_dim / V_KS;
    for (uint32_t i = 0; i < ca_align_up(count, V_TILE_MR); i++) {
        float *dst = (float *)packed + (size_t)(i / V_TILE_MR) * units * V_TILE_MR + i % V_TILE_MR;
        pack_vector(dst, V_TILE_MR, i < count ? q + i * stride : NULL, units);
    }
}

V_INLINE void qk_tile(const int mr, const int nv, float *s, uint32_t page_tokens, const float *q, const float *k, uint32_t units)
{
    vf acc[V_TILE_MR][V_TILE_NV];
    tile_dots(mr, nv, 1, TILE_FLOATS, acc, q, k, units, NULL, NULL);
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        V_UNROLL
        for (int j = 0; j < nv; j++) v_store(s + (size_t)r * page_tokens + j * VW, acc[r][j]);
    }
}

static void qk(const ca_qk_job *job)
{
    const uint32_t bs = job->page_tokens, units = job->head_dim / V_KS;
    const bool whole = select_whole_panels(bs);
    const uint32_t kp = whole ? V_TILE_NV * VW : 2 * VW, page_units = job->head_dim / PAGE_KS;
    float wide[SELECT_WIDE];
    for (uint32_t t0 = 0; t0 < bs; t0 += kp) {
        const float *k = page_panel((const float *)job->page + (size_t)t0 * page_units, page_units, kp, wide);
        for (uint32_t r0 = 0; r0 < job->count; r0 += V_TILE_MR) {
            const uint32_t mr = ca_min_u32(V_TILE_MR, job->count - r0);
            const float *q = (const float *)job->packed + (size_t)r0 * units;
            float *s = job->s + (size_t)r0 * bs + t0;
#define CALL(MR, NV) qk_tile(MR, NV, s, bs, q, k, units)
            if (whole) {
                TILE_MR_CASES(mr, CALL, V_TILE_NV)
            } else {
                TILE_MR_CASES(mr, CALL, 2)
            }
#undef CALL
        }
    }
}

/* A row's stride tokens in reverse order take turns over the tokens of a panel, so that lane l of a row's dot products is term
 * l % stride of antidiagonal l / stride. A token's lines, far apart from the next one's, are asked for PACK_AHEAD tokens before. */
static void pack_diag(const float *q, size_t stride, uint32_t skip, uint32_t n, uint32_t row0, uint32_t n_rows,
                      uint32_t diag_stride, uint32_t head_dim, void *packed)
{
    const uint32_t units = head_dim / V_KS, end = skip + n;
    const size_t lanes = (size_t)V_TILE_MR * diag_stride;
    for (uint32_t t = 0; t < n_rows * diag_stride; t++) {
        const size_t row = row0 + t / diag_stride, lane = row % V_TILE_MR * diag_stride + diag_stride - 1 - t % diag_stride;
        const bool there = t >= skip && t < end;
        const float *src = q + (size_t)(t - skip) * stride;
        for (uint32_t d = 0; there && t + PACK_AHEAD < end && d < head_dim; d += 16)
            __builtin_prefetch(src + PACK_AHEAD * stride + d);
        pack_vector((float *)packed + row / V_TILE_MR * units * lanes + lane, lanes, there ? src : NULL, units);
    }
}

V_INLINE void diag_tile(const int mr, const int nv, const int stride, float *e, size_t e_stride, const float *q, const float *k,
                        uint32_t units, const tile_ahead *ahead)
{
    vf acc[V_TILE_MR][V_TILE_NV];
    tile_dots(mr, nv, stride, TILE_FLOATS, acc, q, k, units, NULL, ahead);
    V_UNROLL
    for (int r = 0; r < mr; r++) v_sum_groups(acc[r], nv, stride, e + (size_t)r * e_stride);
}

V_INLINE void diag_page(const int nv, const int stride, const ca_diag_job *job)
{
    const uint32_t units = job->head_dim / V_KS, n_rows = job->n_rows, kp = (uint32_t)nv * VW;
    const uint32_t page_units = job->head_dim / PAGE_KS, n_tiles = ca_ceil_div(n_rows, V_TILE_MR);
    const size_t e_stride = job->e_stride;
    float wide[SELECT_WIDE];
    for (uint32_t t0 = 0; t0 < job->page_tokens; t0 += kp) {
        const float *panel = (const float *)job->page + (size_t)t0 * page_units, *k = page_panel(panel, page_units, kp, wide);
        const float *next = t0 + kp < job->page_tokens ? panel + (size_t)kp * page_units : job->next;
        for (uint32_t t = 0; t < n_tiles; t++) {
            const uint32_t r0 = t * V_TILE_MR, mr = ca_min_u32(V_TILE_MR, n_rows - r0);
            const tile_ahead ahead = tile_share(next, page_units, t, n_tiles);
            const float *q = (const float *)job->packed + (size_t)r0 * units * (uint32_t)stride;
            float *e = job->e + r0 * e_stride + t0 / (uint32_t)stride;
#define CALL(MR, NV) diag_tile(MR, NV, stride, e, e_stride, q, k, units, &ahead)
            TILE_MR_CASES(mr, CALL, nv)
#undef CALL
        }
    }
}

static void diag(const ca_diag_job *job)
{
    const bool whole = select_whole_panels(job->page_tokens);
    if (whole && job->stride == 8)
        diag_page(V_TILE_NV, 8, job);
    else if (whole)
        diag_page(V_TILE_NV, 16, job);
    else if (job->stride == 8)
        diag_page(2, 8, job);
    else
        diag_page(2, 16, job);
}

/* The last n % VW values of a row, padded with what counts nothing. */
static inline vf row_tail(const float *x, uint32_t n)
{
    const uint32_t whole = n / VW * VW;
    float tail[VW];
    for (uint32_t i = 0; i < VW; i++) tail[i] = whole + i < n ? x[whole + i] : -INFINITY;
    return v_load(tail);
}

static float row_top(const float *x, uint32_t n)
{
    const uint32_t whole = n / VW * VW;
    vf top0 = row_tail(x, n), top1 = top0;
    uint32_t i = 0;
    for (; i + 2 * VW <= whole; i += 2 * VW) {
        top0 = v_max(top0, v_load(x + i));
        top1 = v_max(top1, v_load(x + i + VW));
    }
    if (i < whole) top0 = v_max(top0, v_load(x + i));
    return v_hmax(v_max(top0, top1));
}

/* 2^(c (x - top)). */
V_INLINE vf row_power(vf x, vf top, vf c)
{
    return v_exp2(v_max(v_set1(-200.0F), v_mul(v_sub(x, top), c))); /* 2^-200 is 0; keeps -inf out of v_exp2 */
}

static float lse(const float *x, uint32_t n, float c, float *sum)
{
    const uint32_t whole = n / VW * VW;
    const float most = row_top(x, n);
    *sum = 0.0F;
    if (most == -INFINITY) return most;
    const vf top = v_set1(most), vc = v_set1(c);
    vf total = row_power(row_tail(x, n), top, vc);
    for (uint32_t i = 0; i < whole; i += VW) total = v_add(total, row_power(v_load(x + i), top, vc));
    *sum = v_hadd(total);
    return most * c;
}

static float powers(float *x, uint32_t n, float c)
{
    const uint32_t whole = n / VW * VW;
    const float most = row_top(x, n);
    if (most == -INFINITY) {
        memset(x, 0, n * sizeof *x);
        return 0.0F;
    }
    const vf top = v_set1(most), vc = v_set1(c), last = row_power(row_tail(x, n), top, vc);
    vf total = last;
    for (uint32_t i = 0; i < whole; i += VW) {
        const vf p = row_power(v_load(x + i), top, vc);
        v_store(x + i, p);
        total = v_add(total, p);
    }
    float tail[VW];
    v_store(tail, last);
    memcpy(x + whole, tail, (n - whole) * sizeof *x);
    return v_hadd(total);
}

#endif
