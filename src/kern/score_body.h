/* Products of f32 rows with panels of 16 columns, and block scores of a Q block against pooled keys (see ca_score_job), for every
 * vector ISA. Columns are pooled keys, so the log-sum over the rows of the Q block is kept per lane and updated online, one tile of
 * rows at a time. */
#ifndef CA_KERN_SCORE_BODY_H
#define CA_KERN_SCORE_BODY_H

#include <math.h>

#include "kern/kern.h"
#include "kern/tile_body.h"

/* acc[r][j] = dot products of row x[r] with the VW columns whose first element is at[j]. */
V_INLINE void panel_tile(const int mr, const int nv, vf (*acc)[V_TILE_NV], const float *const *x, const float *const *at,
                         uint32_t depth)
{
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        V_UNROLL
        for (int j = 0; j < nv; j++) acc[r][j] = v_zero();
    }
    for (uint32_t d = 0; d < depth; d++) {
        vf k[V_TILE_NV];
        V_UNROLL
        for (int j = 0; j < nv; j++) k[j] = v_load(at[j] + (size_t)d * 16);
        V_UNROLL
        for (int r = 0; r < mr; r++) {
            const vf b = v_set1(x[r][d]);
            V_UNROLL
            for (int j = 0; j < nv; j++) acc[r][j] = v_fma(b, k[j], acc[r][j]);
        }
    }
}

/* Columns [j0, j0 + nv*VW) for all rows. Where no lane is cut for any row (cut = false), masks are left out. */
V_INLINE void score_columns(const int nv, const ca_score_job *job, uint32_t j0)
{
    const float c = job->scale * 1.44269504F;
    const size_t panel = (size_t)job->head_dim * 16;
    const float *base[V_TILE_NV];
    vf m[V_TILE_NV], e[V_TILE_NV];
    V_UNROLL
    for (int j = 0; j < nv; j++) {
        const uint32_t col = j0 + (uint32_t)j * VW;
        base[j] = job->means + col / 16 * panel + col % 16;
        m[j] = v_set1(-1e30F);
        e[j] = v_zero();
    }
    for (uint32_t r0 = 0; r0 < job->n_rows; r0 += V_TILE_MR) {
        const uint32_t mr = ca_min_u32(V_TILE_MR, job->n_rows - r0);
        const float *q[V_TILE_MR];
        int seen[V_TILE_MR]; /* columns that row r counts: whole blocks behind it */
        for (uint32_t r = 0; r < V_TILE_MR; r++) {
            q[r] = job->q + (size_t)(r0 + ca_min_u32(r, mr - 1)) * job->q_stride;
            const uint32_t blocks = (uint32_t)(((uint64_t)job->pos + r0 + r + 1) / job->block);
            seen[r] = r < mr ? (int)ca_min_u32(blocks, job->n_means) - (int)j0 : 0;
        }
        vf acc[V_TILE_MR][V_TILE_NV];
        panel_tile(V_TILE_MR, nv, acc, q, base, job->head_dim);
        V_UNROLL
        for (int j = 0; j < nv; j++) {
            vf top = m[j];
            V_UNROLL
            for (int r = 0; r < V_TILE_MR; r++) {
                acc[r][j] = v_select(v_first(seen[r] - j * VW), v_mul(acc[r][j], v_set1(c)), v_set1(-1e30F));
                top = v_max(top, acc[r][j]);
            }
            vf sum = v_mul(e[j], v_exp2(v_sub(m[j], top)));
            V_UNROLL
            for (int r = 0; r < V_TILE_MR; r++) {
                const vf p = v_exp2(v_sub(acc[r][j], top));
                sum = v_add(sum, v_select(v_first(seen[r] - j * VW), p, v_zero()));
            }
            m[j] = top;
            e[j] = sum;
        }
    }
    V_UNROLL
    for (int j = 0; j < nv; j++) {
        v_store(job->m + j0 + j * VW, m[j]);
        v_store(job->e + j0 + j * VW, e[j]);
    }
}

static void score(const ca_score_job *job)
{
    const uint32_t n = (uint32_t)ca_align_up(job->n_means, 16);
    uint32_t j = 0;
    for (; j + V_TILE_NV * VW <= n; j += V_TILE_NV * VW) score_columns(V_TILE_NV, job, j);
    for (; j < n; j += VW) score_columns(1, job, j);
    for (j = 0; j < n; j++)
        if (job->e[j] == 0.0F) job->m[j] = -INFINITY;
}

V_INLINE void panel_dot_tile(const int mr, const int nv, const float *x, size_t x_stride, const float *panels, uint32_t depth,
                             uint32_t j0, float *out, size_t out_stride)
{
    const float *row[V_TILE_MR], *at[V_TILE_NV];
    vf acc[V_TILE_MR][V_TILE_NV];
    V_UNROLL
    for (int r = 0; r < mr; r++) row[r] = x + (size_t)r * x_stride;
    V_UNROLL
    for (int j = 0; j < nv; j++) {
        const uint32_t col = j0 + (uint32_t)j * VW;
        at[j] = panels + (size_t)(col / 16) * depth * 16 + col % 16;
    }
    panel_tile(mr, nv, acc, row, at, depth);
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        V_UNROLL
        for (int j = 0; j < nv; j++) v_store(out + (size_t)r * out_stride + j0 + j * VW, acc[r][j]);
    }
}

static void panel_dot(const float *x, size_t x_stride, uint32_t n, const float *panels, uint32_t depth, uint32_t n_cols, float *out,
                      size_t out_stride)
{
    const uint32_t cols = (uint32_t)ca_align_up(n_cols, 16), whole = cols / (V_TILE_NV * VW) * (V_TILE_NV * VW);
    for (uint32_t j = 0; j < cols; j += j < whole ? V_TILE_NV * VW : VW)
        for (uint32_t r = 0; r < n; r += V_TILE_MR) {
            const uint32_t mr = ca_min_u32(V_TILE_MR, n - r);
            const float *row = x + r * x_stride;
            float *to = out + r * out_stride;
#define CALL(MR, NV) panel_dot_tile(MR, NV, row, x_stride, panels, depth, j, to, out_stride)
            if (j < whole) {
                TILE_MR_CASES(mr, CALL, V_TILE_NV)
            } else {
                TILE_MR_CASES(mr, CALL, 1)
            }
#undef CALL
        }
}

#endif
