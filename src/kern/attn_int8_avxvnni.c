/* Attention of 8-bit integers with AVX-VNNI, for processors without AVX-512: over the pages of the AVX2 sets. */
#include "kern/attn_int8.h"
#include "kern/vec_avx2.h"

typedef int32_t vi __attribute__((vector_size(32))); /* as in attn_int8_avx512vnni.c */

V_INLINE vi a8_load(const void *p)
{
    return (vi)_mm256_load_si256(p);
}
V_INLINE vi a8_word(const void *p)
{
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return (vi)_mm256_set1_epi32(word);
}
V_INLINE vi a8_dot(vi acc, vi plain, vi with_sign)
{
    return (vi)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)plain, (__m256i)with_sign);
}
V_INLINE vf a8_float(vi a)
{
    return _mm256_cvtepi32_ps((__m256i)a);
}
V_INLINE vi a8_round(vf a)
{
    return (vi)_mm256_cvtps_epi32(a);
}
V_INLINE vf a8_up(vf a)
{
    return _mm256_ceil_ps(a);
}
V_INLINE vi a8_shift(vi a, int32_t by)
{
    return (vi)_mm256_srav_epi32((__m256i)a, _mm256_set1_epi32(by));
}
V_INLINE vi a8_most(void)
{
    return (vi)_mm256_set1_epi32(INT32_MAX);
}
V_INLINE vi a8_select(vm m, vi yes, vi no)
{
    return (vi)_mm256_blendv_epi8((__m256i)no, (__m256i)yes, _mm256_castps_si256(m));
}
V_INLINE vm a8_equal(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
}
V_INLINE vf v_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
V_INLINE vf a8_abs(vf a)
{
    return _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)));
}
V_INLINE void a8_bytes(int8_t *p, vi a)
{
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)a), _mm256_extracti128_si256((__m256i)a, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packs_epi16(words, words));
}
V_INLINE vi a8_four(const bool with_sign, vi a, vi b, vi c, vi d)
{
    const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m256i ab = _mm256_packs_epi32((__m256i)a, (__m256i)b), cd = _mm256_packs_epi32((__m256i)c, (__m256i)d);
    return (vi)_mm256_shuffle_epi8(with_sign ? _mm256_packs_epi16(ab, cd) : _mm256_packus_epi16(ab, cd), order);
}

/* [r0 r1 r2 r3 | r4 r5 . .] */
V_INLINE uint32_t lane_of(uint32_t r)
{
    return r;
}
V_INLINE vf a8_tops(const vf *t)
{
    vf pair[3];
    V_UNROLL
    for (int i = 0; i < 3; i++)
        pair[i] = v_max(_mm256_unpacklo_ps(t[2 * i], t[2 * i + 1]), _mm256_unpackhi_ps(t[2 * i], t[2 * i + 1]));
    const vf a = v_max(_mm256_shuffle_ps(pair[0], pair[1], 0x44), _mm256_shuffle_ps(pair[0], pair[1], 0xee));
    const vf b = v_max(pair[2], _mm256_shuffle_ps(pair[2], pair[2], 0x4e));
    return v_max(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

/* AVX2 has no shift of 16-bit lanes by a lane's own count n: the upper half of 2 x 2^(15 - n), a power that comes from a table of bytes.
 * Byte i of it is 2^(15 - i) for i >= 8, else 0; the upper byte of the power is that of n ^ 8. A z that overflowed is negative, and so
 * are its bytes of n: the table gives 0. */
V_INLINE vi a8_powers(const vi *z, uint8_t *p, vi l)
{
    const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, -128, 64, 32, 16, 8, 4, 2, 1));
    const __m256i all = _mm256_packs_epi32((__m256i)z[0], (__m256i)z[1]), f = _mm256_slli_epi16(all, 5);
    const __m256i slope = _mm256_sub_epi16(_mm256_set1_epi16(CA_ATTN_INT8_C1),
                                           _mm256_mulhi_epu16(f, _mm256_set1_epi16(CA_ATTN_INT8_C2)));
    const __m256i power = _mm256_sub_epi16(_mm256_set1_epi16(1 << 14), _mm256_mulhi_epu16(f, slope));
    const __m256i n = _mm256_mullo_epi16(_mm256_srai_epi16(all, 11), _mm256_set1_epi16(0x0101));
    const __m256i factor = _mm256_shuffle_epi8(table, _mm256_xor_si256(n, _mm256_set1_epi16(0x0800)));
    const __m256i shifted = _mm256_mulhi_epu16(_mm256_add_epi16(power, power), factor);
    const __m256i words = _mm256_mulhrs_epi16(shifted, _mm256_set1_epi16(510));
    const __m256i bytes = _mm256_packus_epi16(words, _mm256_setzero_si256()); /* 8, and 8 zeros, in each half */
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(_mm256_permute4x64_epi64(bytes, 0x08)));
    return a8_dot(l, (vi)bytes, (vi)_mm256_set1_epi8(CA_ATTN_INT8_L));
}

#include "kern/attn_int8_body.h"

const ca_attn_int8 ca_attn_int8_avxvnni = {
    .name = "avxvnni",
    .cpu_flags = CA_CPU_AVX2_FMA | CA_CPU_AVX_VNNI,
    .panel = PANEL,
    .job = JOB,
    .unit = MR,
    .byte_flop = 22.0,
    .job_flop = 4e5,
    .scratch_bytes = scratch_bytes,
    .attn = attn,
};
