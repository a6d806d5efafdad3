/* What the integer products with vectors of 256 bits share: the sums and what becomes of them (int8_body.h). */
#ifndef CA_KERN_INT8_YMM_H
#define CA_KERN_INT8_YMM_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#include "kern/vec_common.h"

enum { I8_NV = 2, I8_LANES = 8 };

typedef int32_t vi __attribute__((vector_size(32))); /* as in int8_avx512vnni.c */
typedef __m256 vf;

V_INLINE vi i8_start(int32_t offset)
{
    return (vi)_mm256_set1_epi32(offset);
}
V_INLINE vf i8_scaled(vi acc, float a_scale, const float *w_scale)
{
    return _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps((__m256i)acc), _mm256_set1_ps(a_scale)), _mm256_loadu_ps(w_scale));
}
V_INLINE void i8_store(float *c, vf v, bool add)
{
    _mm256_storeu_ps(c, add ? _mm256_add_ps(_mm256_loadu_ps(c), v) : v);
}

#endif
