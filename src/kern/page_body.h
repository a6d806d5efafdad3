/* How pages hold their elements, for every vector ISA: as the products take them, or (CA_VEC_MIXED) as pairs of bf16 for products of
 * floats. Those become floats panel by panel: once for all tiles of a job, 4 % of the work of 96 vectors. */
#ifndef CA_KERN_PAGE_BODY_H
#define CA_KERN_PAGE_BODY_H

#include <string.h>

#include "kern/kern.h"

#ifdef CA_VEC_MIXED
enum { PAGE_KS = 2, PAGE_WIDENS = 1 };
#define PAGE_TYPE CA_BF16
typedef uint16_t page_elt;

static inline page_elt page_elt_of(float a)
{
    return ca_f32_to_bf16(a);
}
static inline float page_elt_float(page_elt a)
{
    return ca_bf16_to_f32(a);
}
#else
enum { PAGE_KS = V_KS, PAGE_WIDENS = 0 };
#define PAGE_TYPE V_TYPE
typedef v_elt page_elt;

static inline page_elt page_elt_of(float a)
{
    return v_elt_of(a);
}
static inline float page_elt_float(page_elt a)
{
    return v_elt_float(a);
}
#endif

/* n rows of `width` units of a page as the products read them: the rows themselves, or twice as many rows of floats in wide. Then
 * those at next are fetched meanwhile, where that is not NULL. */
static inline const float *page_panel(const float *units, size_t n, uint32_t width, float *wide, const float *next)
{
    if (!PAGE_WIDENS) return units;
    for (size_t u = 0; u < n; u++) {
        for (uint32_t i = 0; next && i < width; i += 16) __builtin_prefetch(next + u * width + i, 0, 2);
        const float *from = units + u * width;
        float *low = wide + 2 * u * width, *high = low + width;
        for (uint32_t i = 0; i < width; i++) {
            uint32_t pair, first, second;
            memcpy(&pair, from + i, 4);
            first = pair << 16, second = pair & 0xffff0000U; /* bf16 is the upper half of a float */
            memcpy(low + i, &first, 4);
            memcpy(high + i, &second, 4);
        }
    }
    return wide;
}

#endif
