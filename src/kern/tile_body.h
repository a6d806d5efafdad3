/* The register tile of query vectors x one K panel and the packing that feeds it, for every vector ISA: attention, plain scores
 * and antidiagonals are this one loop.
 *
 * Packed vectors: [tiles][head_dim/KS units][lanes], a tile being `lanes` vectors interleaved by unit. */
#ifndef CA_KERN_TILE_BODY_H
#define CA_KERN_TILE_BODY_H

#include <string.h>

#include "kern/kern.h"

_Static_assert((int)V_TILE_MR == (int)CA_ATTN_TILE && CA_ATTN_BLOCK % CA_ATTN_TILE == 0 && V_JOB % CA_ATTN_TILE == 0,
               "a block is whole tiles");

/* One vector in the kernel's type to its lane of a packed tile; zeros for src NULL. */
static inline void pack_vector(float *dst, size_t lanes, const float *src, uint32_t units)
{
    v_elt some[VW] = { 0 };
    for (uint32_t u0 = 0; u0 < units; u0 += VW / V_KS) {
        if (src) v_store_elts(some, v_load(src + (size_t)u0 * V_KS));
        for (uint32_t u = 0; u < VW / V_KS; u++) memcpy(dst + (u0 + u) * lanes, some + u * V_KS, 4);
    }
}

/* While a tile reads units [first, first + n) of a panel, it fetches the same units of a panel that will be read later: one line
 * now and then, so that memory works while the products run. */
typedef struct tile_ahead {
    const float *panel;
    uint32_t first, n;
} tile_ahead;

V_INLINE void tile_fetch(const tile_ahead *ahead, uint32_t u, const int nv)
{
    if (u - ahead->first >= ahead->n) return;
    const float *at = ahead->panel + (size_t)u * (uint32_t)(nv * VW);
    for (int i = 0; i < nv * VW; i += 16) __builtin_prefetch(at + i, 0, 2);
}

/* The share of n_units that tile t of n fetches. */
static inline tile_ahead tile_share(const float *panel, uint32_t n_units, uint32_t t, uint32_t n)
{
    const uint32_t first = n_units * t / n;
    return (tile_ahead){ .panel = panel, .first = first, .n = panel ? n_units * (t + 1) / n - first : 0 };
}

/* acc[r][j] += units of row r, whose vectors take turns, times units of the tokens. */
V_INLINE void tile_products(const int mr, const int nv, const int period, vf (*acc)[V_TILE_NV], const float *q, const vf *kv)
{
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        V_UNROLL
        for (int j = 0; j < nv; j++) acc[r][j] = v_dot(acc[r][j], v_load_cycle(q + r * period, period, j), kv[j]);
    }
}

/* How a tile reads a panel: as the products take it; or as a page of PAGE_WIDENS has it, whose pairs become floats in registers, and may
 * be kept for the tiles after it. All give the same bits. */
typedef enum tile_form { TILE_FLOATS, TILE_PAIRS, TILE_KEPT } tile_form;

/* Units of nv*VW columns of pairs to floats, and those to wide if they are kept. */
V_INLINE float *tile_widen(const int nv, const tile_form form, const vf *pairs, vf *low, vf *high, float *wide)
{
    V_UNROLL
    for (int j = 0; j < nv; j++) low[j] = v_low(pairs[j]), high[j] = v_high(pairs[j]);
    if (form != TILE_KEPT) return wide;
    V_UNROLL
    for (int j = 0; j < nv; j++) v_store(wide + j * VW, low[j]), v_store(wide + (nv + j) * VW, high[j]);
    return wide + 2 * nv * VW;
}

/* acc[r][j] = dot products of row r with the nv*VW tokens of a K panel of `units` rows. A row is `period` packed vectors that take
 * turns over the tokens: 1 = one query vector for all. wide: where floats are kept. */
V_INLINE void tile_dots(const int mr, const int nv, const int period, const tile_form form, vf (*acc)[V_TILE_NV], const float *q,
                        const float *k, uint32_t units, float *wide, const tile_ahead *ahead)
{
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        V_UNROLL
        for (int j = 0; j < nv; j++) acc[r][j] = v_zero();
    }
    for (uint32_t u = 0; u < units; u++) {
        vf kv[V_TILE_NV], low[V_TILE_NV];
        V_UNROLL
        for (int j = 0; j < nv; j++) kv[j] = v_load(k + j * VW);
        if (ahead) tile_fetch(ahead, u, nv);
        if (form != TILE_FLOATS) {
            wide = tile_widen(nv, form, kv, low, kv, wide);
            tile_products(mr, nv, period, acc, q, low);
            q += V_TILE_MR * period;
        }
        tile_products(mr, nv, period, acc, q, kv);
        k += nv * VW;
        q += V_TILE_MR * period;
    }
}

/* The tile sizes that a page can ask for, as constants for the compiler. */
#define TILE_MR_CASES(mr, CALL, ...)                                                                                               \
    switch (mr) {                                                                                                                  \
    case 1: CALL(1, __VA_ARGS__); break;                                                                                           \
    case 2: CALL(2, __VA_ARGS__); break;                                                                                           \
    case 3: CALL(3, __VA_ARGS__); break;                                                                                           \
    case 4: CALL(4, __VA_ARGS__); break;                                                                                           \
    case 5: CALL(5, __VA_ARGS__); break;                                                                                           \
    default: CALL(6, __VA_ARGS__); break;                                                                                          \
    }

#endif
