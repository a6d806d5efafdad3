/* Products with weights in codes (coded.h), for every vector ISA. A few rows: codes become units of the set's type (a float, or a pair
 * of bf16) in registers. More: a part of the panel becomes units in L1, and all rows pass by in register tiles. Both do the same
 * operations on a row in the same order. */
#ifndef CA_KERN_CODED_BODY_H
#define CA_KERN_CODED_BODY_H

#include <string.h>

#include "kern/coded.h"
#include "kern/kern.h"

enum {
    CODED_WIDTH = V_TILE_NV * VW, /* columns of a tile */
    /* Inner indices of a part at most: 32 KB of floats; 24 KB of pairs, since some processors that have those have 32 KB of L1. */
    CODED_DEPTH = (V_KS == 1 ? 8192 : 2 * 6144) / CODED_WIDTH,
    CODED_LINE = 16 * V_KS, /* of A, 64 bytes */
    CODED_FEW = 4,          /* rows whose sums leave registers for the weights */
    CODED_AHEAD = 2048      /* bytes that a few rows ask for ahead of their products */
};

_Static_assert((int)V_TILE_MR == (int)CA_CODED_TILE && CA_CODED_ROWS % CA_CODED_TILE == 0, "rows are whole tiles");

/* What a group of CODED_WIDTH columns from `column` on has: scales, and offsets. */
V_INLINE void coded_group(const ca_coded_panel *p, uint32_t g, uint32_t column, vf *scale, vf *offset)
{
    const float *at = p->scales + (size_t)g * (p->has_offsets ? 2 : 1) * CA_CODED_PANEL + column;
    V_UNROLL
    for (int j = 0; j < V_TILE_NV; j++) {
        scale[j] = v_load(at + j * VW);
        offset[j] = p->has_offsets ? v_load(at + CA_CODED_PANEL + j * VW) : v_mul(scale[j], v_set1(-p->zero));
    }
}

/* Weights of inner indices i (even) and i + 1, as 2 / V_KS rows of units. */
V_INLINE void coded_weights(const ca_code code, const uint8_t *codes, uint32_t i, uint32_t column, const vf *scale,
                            const vf *offset, vf (*units)[V_TILE_NV])
{
    vf even[V_TILE_NV], odd[V_TILE_NV];
    const uint8_t *at = codes + ca_coded_bytes(code, i) + (size_t)column * (ca_code_is_integer(code) ? 1 : 2);
    const uint8_t *next = at + ca_coded_bytes(code, 1);
    V_UNROLL
    for (int j = 0; j < V_TILE_NV; j++) {
        switch (code) {
        case CA_CODE_4: v_nibbles(at + j * VW, &even[j], &odd[j]); break;
        case CA_CODE_8: even[j] = v_bytes(at + j * VW), odd[j] = v_bytes(next + j * VW); break;
        case CA_CODE_BF16: even[j] = v_bf16(at + 2 * j * VW), odd[j] = v_bf16(next + 2 * j * VW); break;
        default: even[j] = v_f16(at + 2 * j * VW), odd[j] = v_f16(next + 2 * j * VW); break;
        }
        if (ca_code_is_integer(code)) {
            even[j] = v_fma(even[j], scale[j], offset[j]);
            odd[j] = v_fma(odd[j], scale[j], offset[j]);
        }
        v_units(even[j], odd[j], &units[0][j], &units[1][j]);
    }
}

/* The sums of a tile, from C or from nothing, and back. */
V_INLINE void coded_load(const int mr, vf (*acc)[V_TILE_NV], const float *c, size_t stride, bool add)
{
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        V_UNROLL
        for (int j = 0; j < V_TILE_NV; j++) acc[r][j] = add ? v_load(c + (size_t)r * stride + j * VW) : v_zero();
    }
}

V_INLINE void coded_store(const int mr, vf (*acc)[V_TILE_NV], float *c, size_t stride)
{
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        V_UNROLL
        for (int j = 0; j < V_TILE_NV; j++) v_store(c + (size_t)r * stride + j * VW, acc[r][j]);
    }
}

/* Rows of A, as pointers of their own: else the compiler adds the stride row by row in every step. */
V_INLINE void coded_rows(const int mr, const v_elt *a, size_t stride, const v_elt **row)
{
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        row[r] = a + (size_t)r * stride;
        __asm__("" : "+r"(row[r]));
    }
}

/* Adds the products of inner index i, or of i and i + 1 where a unit holds both. */
V_INLINE void coded_products(const int mr, vf (*acc)[V_TILE_NV], const v_elt **row, uint32_t i, const vf *w)
{
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        float unit;
        memcpy(&unit, row[r] + i, sizeof unit);
        const vf b = v_set1(unit);
        V_UNROLL
        for (int j = 0; j < V_TILE_NV; j++) acc[r][j] = v_dot(acc[r][j], b, w[j]);
    }
}

/* mr rows by all inner indices of CODED_WIDTH columns. */
V_INLINE void coded_few(const int mr, const ca_code code, const ca_coded_job *job, uint32_t column, float *c, size_t stride)
{
    const ca_coded_panel *p = job->panel;
    vf acc[V_TILE_MR][V_TILE_NV];
    const v_elt *rows[V_TILE_MR];
    coded_rows(mr, job->a, job->k, rows);
    coded_load(mr, acc, c, stride, job->accumulate);
    for (uint32_t first = 0; first < job->k; first += p->group) {
        vf scale[V_TILE_NV], offset[V_TILE_NV], units[2][V_TILE_NV];
        if (ca_code_is_integer(code)) coded_group(p, first / p->group, column, scale, offset);
        for (uint32_t i = first; i < first + p->group; i += 2) {
            __builtin_prefetch(p->codes + ca_coded_bytes(code, i) + CODED_AHEAD, 0, 3);
            coded_weights(code, p->codes, i, column, scale, offset, units);
            V_UNROLL
            for (uint32_t u = 0; u < 2 / V_KS; u++) coded_products(mr, acc, rows, i + u, units[u]);
        }
    }
    coded_store(mr, acc, c, stride);
}

/* Inner indices [first, first + depth) of CODED_WIDTH columns as units. */
V_INLINE void coded_widen(const ca_code code, const ca_coded_panel *p, uint32_t column, uint32_t first, uint32_t depth, float *wide)
{
    for (uint32_t at = 0; at < depth; at += p->group) {
        vf scale[V_TILE_NV], offset[V_TILE_NV], units[2][V_TILE_NV];
        if (ca_code_is_integer(code)) coded_group(p, (first + at) / p->group, column, scale, offset);
        for (uint32_t i = at; i < at + p->group; i += 2) {
            coded_weights(code, p->codes, first + i, column, scale, offset, units);
            V_UNROLL
            for (uint32_t u = 0; u < 2 / V_KS; u++, wide += CODED_WIDTH) {
                V_UNROLL
                for (int j = 0; j < V_TILE_NV; j++) v_store(wide + j * VW, units[u][j]);
            }
        }
    }
}

/* mr rows by `depth` inner indices that are units already. The lines that the next rows have in A and C, which lie `ahead` rows further,
 * are fetched meanwhile. */
V_INLINE void coded_tile(const int mr, const v_elt *a, size_t a_stride, const float *wide, uint32_t depth, float *c, size_t stride,
                         bool add, uint32_t ahead)
{
    vf acc[V_TILE_MR][V_TILE_NV];
    const v_elt *rows[V_TILE_MR];
    coded_rows(mr, a, a_stride, rows);
    coded_load(mr, acc, c, stride, add);
    for (uint32_t first = 0; first < depth; first += CODED_LINE) {
        const uint32_t line = first / V_KS;
        V_UNROLL
        for (int r = 0; r < mr; r++) __builtin_prefetch(a + ((uint32_t)r + ahead) * a_stride + first, 0, 3);
        V_UNROLL
        for (int r = 0; r < mr && line < CODED_WIDTH; r++) __builtin_prefetch(c + ((uint32_t)r + ahead) * stride + line, 1, 3);
        for (uint32_t i = first; i < first + CODED_LINE; i += V_KS, wide += CODED_WIDTH) {
            vf w[V_TILE_NV];
            V_UNROLL
            for (int j = 0; j < V_TILE_NV; j++) w[j] = v_load(wide + j * VW);
            coded_products(mr, acc, rows, i, w);
        }
    }
    coded_store(mr, acc, c, stride);
}

/* The codes as constants for the compiler. */
#define CODED_CASES(code, CALL)                                                                                                    \
    switch (code) {                                                                                                                \
    case CA_CODE_4: CALL(CA_CODE_4); break;                                                                                        \
    case CA_CODE_8: CALL(CA_CODE_8); break;                                                                                        \
    case CA_CODE_BF16: CALL(CA_CODE_BF16); break;                                                                                  \
    default: CALL(CA_CODE_F16); break;                                                                                             \
    }

V_INLINE void coded_few_rows(const ca_code code, const ca_coded_job *job, uint32_t column, float *c, size_t stride)
{
    switch (job->n_rows) {
    case 1: coded_few(1, code, job, column, c, stride); break;
    case 2: coded_few(2, code, job, column, c, stride); break;
    case 3: coded_few(3, code, job, column, c, stride); break;
    default: coded_few(CODED_FEW, code, job, column, c, stride); break;
    }
}

static __attribute__((noinline)) void coded_columns_few(const ca_coded_job *job, uint32_t column, float *c, size_t stride)
{
#define CALL(CODE) coded_few_rows(CODE, job, column, c, stride)
    CODED_CASES(job->panel->code, CALL)
#undef CALL
}

/* A function of its own, whose registers are the tile's. */
static __attribute__((noinline)) void coded_tiles(uint32_t mr, const v_elt *a, size_t a_stride, const float *wide, uint32_t depth,
                                                  float *c, size_t stride, bool add, uint32_t ahead)
{
#define CALL(MR, DEPTH) coded_tile(MR, a, a_stride, wide, DEPTH, c, stride, add, ahead)
    TILE_MR_CASES(mr, CALL, depth)
#undef CALL
}

static void coded_columns(const ca_coded_job *job, uint32_t column, float *c, size_t stride)
{
    float wide[CODED_DEPTH / V_KS * CODED_WIDTH] __attribute__((aligned(64)));
    const uint32_t n_parts = ca_ceil_div(job->k, CODED_DEPTH);
    const uint32_t part = (uint32_t)ca_align_up(ca_ceil_div(job->k, n_parts), CA_CODED_GROUP);
    for (uint32_t first = 0; first < job->k; first += part) {
        const uint32_t depth = ca_min_u32(part, job->k - first);
        const bool add = first > 0 || job->accumulate;
#define CALL(CODE) coded_widen(CODE, job->panel, column, first, depth, wide)
        CODED_CASES(job->panel->code, CALL)
#undef CALL
        for (uint32_t row = 0; row < job->n_rows; row += V_TILE_MR) {
            const v_elt *a = (const v_elt *)job->a + (size_t)row * job->k + first;
            const uint32_t ahead = job->n_rows - row >= 2 * V_TILE_MR ? V_TILE_MR : 0;
            coded_tiles(ca_min_u32(job->n_rows - row, V_TILE_MR), a, job->k, wide, depth, c + row * stride, stride, add, ahead);
        }
    }
}

static void coded(const ca_coded_job *job)
{
    for (uint32_t column = 0; column < job->n_cols; column += CODED_WIDTH) {
        const uint32_t width = ca_min_u32(job->n_cols - column, CODED_WIDTH);
        float edge[CA_CODED_ROWS * CODED_WIDTH] __attribute__((aligned(64)));
        float *c = job->c + column;
        size_t stride = job->c_stride;
        if (width < CODED_WIDTH) { /* tiles are whole: a copy of C that is wide enough */
            for (uint32_t r = 0; r < job->n_rows; r++) memcpy(edge + (size_t)r * CODED_WIDTH, c + r * stride, width * sizeof *c);
            c = edge, stride = CODED_WIDTH;
        }
        if (job->n_rows <= CODED_FEW)
            coded_columns_few(job, column, c, stride);
        else
            coded_columns(job, column, c, stride);
        for (uint32_t r = 0; r < job->n_rows && width < CODED_WIDTH; r++)
            memcpy(job->c + r * job->c_stride + column, edge + (size_t)r * CODED_WIDTH, width * sizeof *c);
    }
}

#endif
