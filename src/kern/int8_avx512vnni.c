/* Integer products with AVX-512 VNNI: a register tile of 6 rows x 64 columns. Per 4 inner steps it loads the panel's 4 vectors and
 * one word of each row, and starts 24 vpdpbusd. A group's part of a panel (32 KiB at most) stays in L1 while all rows pass by; the
 * sums go to C after each group. */
#include <immintrin.h>
#include <string.h>

#include "kern/int8.h"
#include "kern/vec_common.h"

enum { NV = 4, MR = 6 };

/* gcc 12 keeps arrays of its own integer type in registers, those of __m512i in memory. */
typedef int32_t vi __attribute__((vector_size(64)));

V_INLINE vi set1(int32_t x)
{
    return (vi)_mm512_set1_epi32(x);
}

/* acc[i] + sum over b < 4 of w[4 i + b] * a[4 i + b], w without a sign, a with one */
V_INLINE vi dot4(vi acc, vi w, vi a)
{
    return (vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, (__m512i)a);
}

/* What a tile asks for while it computes, a line now and then: its share of the next panel, and the lines of C that the next tile
 * writes. */
typedef struct fetches {
    const uint8_t *w;
    uint32_t n_w, n_c; /* lines */
    const float *c;
    size_t c_stride;
} fetches;

V_INLINE void fetch(const fetches *f, uint32_t step)
{
    if (step < f->n_w) __builtin_prefetch(f->w + (size_t)step * 64, 0, 2);
    if (step < f->n_c) __builtin_prefetch(f->c + step / NV * f->c_stride + step % NV * 16, 1, 3);
}

V_INLINE void tile(const int mr, const ca_int8_job *job, uint32_t row, uint32_t g, const fetches *ahead)
{
    const uint32_t n_groups = ca_int8_groups(job->k), width = ca_int8_group(job->k), k4 = (uint32_t)ca_align_up(job->k, 4);
    const uint32_t first = g * width, steps = (ca_min_u32(first + width, k4) - first) / 4;
    const int8_t *a = job->a + (size_t)row * k4 + first;
    const uint8_t *w = job->w + (size_t)first * CA_INT8_PANEL;
    float *c = job->c + row * job->c_stride;
    vi acc[MR][NV];
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        V_UNROLL
        for (int j = 0; j < NV; j++) acc[r][j] = set1(job->a_offset[(size_t)(row + (uint32_t)r) * n_groups + g]);
    }
    for (uint32_t s = 0; s < steps; s++) {
        vi wv[NV];
        V_UNROLL
        for (int j = 0; j < NV; j++) wv[j] = (vi)_mm512_load_si512(w + (size_t)j * 64);
        fetch(ahead, s);
        V_UNROLL
        for (int r = 0; r < mr; r++) {
            int32_t word;
            memcpy(&word, a + (size_t)r * k4, 4);
            const vi av = set1(word);
            V_UNROLL
            for (int j = 0; j < NV; j++) acc[r][j] = dot4(acc[r][j], wv[j], av);
        }
        w += (size_t)4 * CA_INT8_PANEL;
        a += 4;
    }
    const bool add = g > 0 || job->accumulate;
    const float *w_scale = job->w_scale + (size_t)g * CA_INT8_PANEL;
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        const __m512 scale = _mm512_set1_ps(job->a_scale[(size_t)(row + (uint32_t)r) * n_groups + g]);
        V_UNROLL
        for (int j = 0; j < NV; j++) {
            const uint32_t left = job->n_cols > (uint32_t)j * 16 ? job->n_cols - (uint32_t)j * 16 : 0;
            const __mmask16 m = left >= 16 ? 0xFFFF : (__mmask16)((1U << left) - 1U);
            float *at = c + (size_t)r * job->c_stride + j * 16;
            __m512 v = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)acc[r][j]), scale),
                                     _mm512_load_ps(w_scale + j * 16));
            if (add) v = _mm512_add_ps(_mm512_maskz_loadu_ps(m, at), v);
            _mm512_mask_storeu_ps(at, m, v);
        }
    }
}

static void product(const ca_int8_job *job)
{
    const uint32_t n_groups = ca_int8_groups(job->k), width = ca_int8_group(job->k), k4 = (uint32_t)ca_align_up(job->k, 4);
    const uint32_t n_tiles = ca_ceil_div(job->n_rows, MR);
    for (uint32_t g = 0; g < n_groups; g++) {
        const uint32_t lines = ca_min_u32(width, k4 - g * width); /* a line of a panel holds one inner index times 64 columns */
        for (uint32_t t = 0; t < n_tiles; t++) {
            const uint32_t row = t * MR, first = lines * t / n_tiles, left = job->n_rows - row;
            const fetches ahead = {
                .w = job->ahead + (size_t)(g * width + first) * CA_INT8_PANEL,
                .n_w = job->ahead ? lines * (t + 1) / n_tiles - first : 0,
                .c = job->c + (row + MR) * job->c_stride,
                .n_c = g == 0 && left > MR ? NV * ca_min_u32(left - MR, MR) : 0,
                .c_stride = job->c_stride,
            };
            switch (left) {
            case 1: tile(1, job, row, g, &ahead); break;
            case 2: tile(2, job, row, g, &ahead); break;
            case 3: tile(3, job, row, g, &ahead); break;
            case 4: tile(4, job, row, g, &ahead); break;
            case 5: tile(5, job, row, g, &ahead); break;
            default: tile(MR, job, row, g, &ahead); break;
            }
        }
    }
}

const ca_int8 ca_int8_avx512vnni = { "avx512vnni", product };
