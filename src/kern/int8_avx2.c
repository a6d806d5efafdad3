/* Integer products with AVX2, which has no exact sum of 4 products of bytes: even and odd bytes become 16-bit numbers, and vpmaddwd
 * sums 2 products of those. The weights' are made once per tile, an activation's once per row. */
#include "kern/int8_ymm.h"

#define I8_MR 4
typedef struct i8_pair { /* 16-bit numbers of bytes 0 and 2, of bytes 1 and 3 */
    vi even, odd;
} i8_pair;
typedef i8_pair i8_w, i8_a;

V_INLINE i8_w i8_load_w(const uint8_t *p)
{
    const __m256i w = _mm256_load_si256((const __m256i *)(const void *)p);
    return (i8_w){ (vi)_mm256_and_si256(w, _mm256_set1_epi16(0xFF)), (vi)_mm256_srli_epi16(w, 8) };
}
V_INLINE i8_a i8_load_a(const int8_t *p)
{
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    const __m256i a = _mm256_set1_epi32(word);
    return (i8_a){ (vi)_mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8), (vi)_mm256_srai_epi16(a, 8) };
}
V_INLINE vi i8_dot(vi acc, i8_w w, i8_a a)
{
    const vi even = (vi)_mm256_madd_epi16((__m256i)w.even, (__m256i)a.even);
    return acc + (even + (vi)_mm256_madd_epi16((__m256i)w.odd, (__m256i)a.odd));
}

#include "kern/int8_body.h"

const ca_int8 ca_int8_avx2 = { "avx2", I8_MR, CA_CPU_AVX2_FMA | CA_CPU_AVX512, CA_CPU_AVX2_FMA, product };
