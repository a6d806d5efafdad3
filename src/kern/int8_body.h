/* Integer products for every ISA that has them: register tiles of I8_MR rows x I8_NV vectors of columns. A group's part of a panel
 * (32 KiB at most) stays in L1 while all rows pass by; the sums go to C after each group.
 *
 * int8_<isa>.c defines before, with I8_LANES columns to a vector:
 *   vi                      I8_LANES sums of 32 bits
 *   i8_w, i8_a              weights of I8_LANES columns and 4 inner steps; a row's 4 values for all lanes
 *   i8_load_w, i8_load_a    from memory
 *   i8_dot                  acc + the sums of 4 products of each lane
 *   i8_start                what the sums start from, given the row's offset: the offset, or 0 where i8_w holds qw without its 128
 *   vf, i8_scaled           floats of the sums, times the row's scale, times those of the columns, rounded after each
 *   i8_store                c = v, or c + v */
#ifndef CA_KERN_INT8_BODY_H
#define CA_KERN_INT8_BODY_H

#include <string.h>

#include "kern/int8.h"

enum { I8_WIDTH = I8_NV * I8_LANES }; /* columns of a tile */

/* What a tile asks for while it computes, a line now and then: its share of the next panel, and the lines of C that the next tile
 * writes. */
typedef struct i8_ahead {
    const uint8_t *w;
    uint32_t n_w, n_c; /* lines */
    const float *c;
    size_t c_stride;
} i8_ahead;

V_INLINE void i8_fetch(const i8_ahead *ahead, uint32_t step)
{
    enum { LINES = CA_INT8_PANEL / 16 };
    if (step < ahead->n_w) __builtin_prefetch(ahead->w + (size_t)step * CA_INT8_PANEL, 0, 2);
    if (step < ahead->n_c) __builtin_prefetch(ahead->c + step / LINES * ahead->c_stride + step % LINES * 16, 1, 3);
}

/* The first n < I8_LANES of v. */
V_INLINE void i8_store_some(float *c, uint32_t n, vf v, bool add)
{
    float some[I8_LANES];
    i8_store(some, v, false);
    for (uint32_t i = 0; i < n; i++) c[i] = add ? c[i] + some[i] : some[i];
}

/* Columns [column, column + I8_WIDTH) of the panel. */
V_INLINE void i8_tile(const int mr, const ca_int8_job *job, uint32_t row, uint32_t column, uint32_t g, const i8_ahead *ahead)
{
    const uint32_t n_groups = ca_int8_groups(job->k), width = ca_int8_group(job->k), k4 = (uint32_t)ca_align_up(job->k, 4);
    const uint32_t first = g * width, steps = (ca_min_u32(first + width, k4) - first) / 4;
    const int8_t *a = job->a + (size_t)row * k4 + first;
    const uint8_t *w = job->w + (size_t)first * CA_INT8_PANEL + (size_t)column * 4;
    const size_t scales = (size_t)row * n_groups + g;
    vi acc[I8_MR][I8_NV];
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        V_UNROLL
        for (int j = 0; j < I8_NV; j++) acc[r][j] = i8_start(job->a_offset[scales + (size_t)r * n_groups]);
    }
    for (uint32_t s = 0; s < steps; s++) {
        i8_w wv[I8_NV];
        V_UNROLL
        for (int j = 0; j < I8_NV; j++) wv[j] = i8_load_w(w + (size_t)j * I8_LANES * 4);
        if (column == 0) i8_fetch(ahead, s);
        V_UNROLL
        for (int r = 0; r < mr; r++) {
            const i8_a av = i8_load_a(a + (size_t)r * k4);
            V_UNROLL
            for (int j = 0; j < I8_NV; j++) acc[r][j] = i8_dot(acc[r][j], wv[j], av);
        }
        w += (size_t)4 * CA_INT8_PANEL;
        a += 4;
    }
    const bool add = g > 0 || job->accumulate;
    const float *w_scale = job->w_scale + (size_t)g * CA_INT8_PANEL + column;
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        const float a_scale = job->a_scale[scales + (size_t)r * n_groups];
        float *c = job->c + (row + (uint32_t)r) * job->c_stride + column;
        V_UNROLL
        for (int j = 0; j < I8_NV; j++) {
            const uint32_t at = column + (uint32_t)j * I8_LANES;
            const vf v = i8_scaled(acc[r][j], a_scale, w_scale + (size_t)j * I8_LANES);
            if (at + I8_LANES <= job->n_cols)
                i8_store(c + (size_t)j * I8_LANES, v, add);
            else if (at < job->n_cols)
                i8_store_some(c + (size_t)j * I8_LANES, job->n_cols - at, v, add);
        }
    }
}

V_INLINE void i8_tiles(const int mr, const ca_int8_job *job, uint32_t row, uint32_t g, const i8_ahead *ahead)
{
    for (uint32_t column = 0; column < job->n_cols; column += I8_WIDTH) i8_tile(mr, job, row, column, g, ahead);
}

static void product(const ca_int8_job *job)
{
    const uint32_t n_groups = ca_int8_groups(job->k), width = ca_int8_group(job->k), k4 = (uint32_t)ca_align_up(job->k, 4);
    const uint32_t n_tiles = ca_ceil_div(job->n_rows, I8_MR);
    for (uint32_t g = 0; g < n_groups; g++) {
        const uint32_t lines = ca_min_u32(width, k4 - g * width); /* one inner index of a panel is a line */
        for (uint32_t t = 0; t < n_tiles; t++) {
            const uint32_t row = t * I8_MR, first = lines * t / n_tiles, left = job->n_rows - row;
            const i8_ahead ahead = {
                .w = job->ahead + (size_t)(g * width + first) * CA_INT8_PANEL,
                .n_w = lines * (t + 1) / n_tiles - first,
                .c = job->c + (row + I8_MR) * job->c_stride,
                .n_c = g == 0 && left > I8_MR ? ca_min_u32(left - I8_MR, I8_MR) * (CA_INT8_PANEL / 16) : 0,
                .c_stride = job->c_stride,
            };
            switch (ca_min_u32(left, I8_MR)) {
            case 1: i8_tiles(1, job, row, g, &ahead); break;
            case 2: i8_tiles(2, job, row, g, &ahead); break;
            case 3: i8_tiles(3, job, row, g, &ahead); break;
#if I8_MR > 4
            case 4: i8_tiles(4, job, row, g, &ahead); break;
            case 5: i8_tiles(5, job, row, g, &ahead); break;
#endif
            default: i8_tiles(I8_MR, job, row, g, &ahead); break;
            }
        }
    }
}

#endif
