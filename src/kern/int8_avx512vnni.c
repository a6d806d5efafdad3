/* Integer products with AVX-512 VNNI: per 4 inner steps a tile loads 4 vectors of the panel and a word of each row, and starts 24
 * vpdpbusd, which takes bytes without a sign (the weights) by bytes with one. */
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#include "kern/vec_common.h"

#define I8_MR 6
enum { I8_NV = 4, I8_LANES = 16 };

/* gcc 12 keeps arrays of its own integer type in registers, those of __m512i in memory. */
typedef int32_t vi __attribute__((vector_size(64)));
typedef vi i8_w, i8_a;
typedef __m512 vf;

V_INLINE i8_w i8_load_w(const uint8_t *p)
{
    return (vi)_mm512_load_si512(p);
}
V_INLINE i8_a i8_load_a(const int8_t *p)
{
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return (vi)_mm512_set1_epi32(word);
}
V_INLINE vi i8_dot(vi acc, i8_w w, i8_a a)
{
    return (vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, (__m512i)a);
}
V_INLINE vi i8_start(int32_t offset)
{
    return (vi)_mm512_set1_epi32(offset);
}
V_INLINE vf i8_scaled(vi acc, float a_scale, const float *w_scale)
{
    return _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)acc), _mm512_set1_ps(a_scale)), _mm512_loadu_ps(w_scale));
}
V_INLINE void i8_store(float *c, vf v, bool add)
{
    _mm512_storeu_ps(c, add ? _mm512_add_ps(_mm512_loadu_ps(c), v) : v);
}

#include "kern/int8_body.h"

const ca_int8 ca_int8_avx512vnni = { "avx512vnni", I8_MR, CA_CPU_AVX512, CA_CPU_AVX512_VNNI, product };
