/* How pages hold their elements, for every vector ISA: as the products take them, or (CA_VEC_MIXED) as pairs of bf16 for products of
 * floats. Those become floats panel by panel, once for all tiles of a job. */
#ifndef CA_KERN_PAGE_BODY_H
#define CA_KERN_PAGE_BODY_H

#include "kern/kern.h"

#ifdef CA_VEC_MIXED
enum { PAGE_KS = 2, PAGE_WIDENS = 1 };
#define PAGE_TYPE CA_BF16
typedef uint16_t page_elt;
#define page_elt_of ca_f32_to_bf16
#define page_elt_float ca_bf16_to_f32
#else
enum { PAGE_KS = V_KS, PAGE_WIDENS = 0 };
#define PAGE_TYPE V_TYPE
typedef v_elt page_elt;
#define page_elt_of v_elt_of
#define page_elt_float v_elt_float
#endif

/* n rows of `width` pairs as twice as many rows of floats; returns the end of those. */
static inline float *page_widen(const float *units, size_t n, uint32_t width, float *wide)
{
    for (size_t u = 0; u < n; u++, units += width) {
        float *low = wide + 2 * u * width, *high = low + width;
        for (uint32_t i = 0; i < width; i += VW) {
            v_store(low + i, v_low(v_load(units + i)));
            v_store(high + i, v_high(v_load(units + i)));
        }
    }
    return wide + 2 * n * width;
}

/* n rows of `width` units of a page as the products read them: the rows themselves, or as floats in wide. */
static inline const float *page_panel(const float *units, size_t n, uint32_t width, float *wide)
{
    if (!PAGE_WIDENS) return units;
    (void)page_widen(units, n, width, wide);
    return wide;
}

#endif
