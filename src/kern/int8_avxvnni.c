/* Integer products with AVX-VNNI, the vpdpbusd of processors without AVX-512: as int8_avx512vnni.c with vectors of half the length, of
 * which 16 registers hold 6 rows x 2. */
#include "kern/int8_ymm.h"

#define I8_MR 6
typedef vi i8_w, i8_a;

V_INLINE i8_w i8_load_w(const uint8_t *p)
{
    return (vi)_mm256_load_si256((const __m256i *)(const void *)p);
}
V_INLINE i8_a i8_load_a(const int8_t *p)
{
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return (vi)_mm256_set1_epi32(word);
}
V_INLINE vi i8_dot(vi acc, i8_w w, i8_a a)
{
    return (vi)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)w, (__m256i)a);
}

#include "kern/int8_body.h"

const ca_int8 ca_int8_avxvnni = { "avxvnni", I8_MR, CA_CPU_AVX2_FMA | CA_CPU_AVX512, CA_CPU_AVX2_FMA | CA_CPU_AVX_VNNI, product };
