/* Attention of 8-bit integers with AVX-512 VNNI, over the pages of the AVX-512 sets. */
#include "kern/attn_int8.h"
#include "kern/vec_avx512.h"

/* gcc 12 keeps arrays of its own integer type in registers, those of __m512i in memory. */
typedef int32_t vi __attribute__((vector_size(64)));

V_INLINE vi a8_load(const void *p)
{
    return (vi)_mm512_load_si512(p);
}
V_INLINE vi a8_word(const void *p)
{
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return (vi)_mm512_set1_epi32(word);
}
V_INLINE vi a8_dot(vi acc, vi plain, vi with_sign)
{
    return (vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)plain, (__m512i)with_sign);
}
V_INLINE vf a8_float(vi a)
{
    return _mm512_cvtepi32_ps((__m512i)a);
}
V_INLINE vi a8_round(vf a)
{
    return (vi)_mm512_cvtps_epi32(a);
}
V_INLINE vf a8_up(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
}
V_INLINE vi a8_shift(vi a, int32_t by)
{
    return (vi)_mm512_srav_epi32((__m512i)a, _mm512_set1_epi32(by));
}
V_INLINE vi a8_most(void)
{
    return (vi)_mm512_set1_epi32(INT32_MAX);
}
V_INLINE vi a8_select(vm m, vi yes, vi no)
{
    return (vi)_mm512_mask_blend_epi32(m, (__m512i)no, (__m512i)yes);
}
V_INLINE vm a8_equal(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
V_INLINE vf v_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
V_INLINE vf a8_abs(vf a)
{
    return _mm512_and_ps(a, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff)));
}
V_INLINE void a8_bytes(int8_t *p, vi a)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtsepi32_epi8((__m512i)a));
}
V_INLINE vi a8_four(const bool with_sign, vi a, vi b, vi c, vi d)
{
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i ab = _mm512_packs_epi32((__m512i)a, (__m512i)b), cd = _mm512_packs_epi32((__m512i)c, (__m512i)d);
    return (vi)_mm512_shuffle_epi8(with_sign ? _mm512_packs_epi16(ab, cd) : _mm512_packus_epi16(ab, cd), order);
}

/* [r0 r1 r2 r3 | the same | r4 r5 . . | the same] */
V_INLINE uint32_t lane_of(uint32_t r)
{
    return r < 4 ? r : r + 4;
}
V_INLINE vf a8_tops(const vf *t)
{
    vf pair[3];
    V_UNROLL
    for (int i = 0; i < 3; i++)
        pair[i] = v_max(_mm512_unpacklo_ps(t[2 * i], t[2 * i + 1]), _mm512_unpackhi_ps(t[2 * i], t[2 * i + 1]));
    const vf a = v_max(_mm512_shuffle_ps(pair[0], pair[1], 0x44), _mm512_shuffle_ps(pair[0], pair[1], 0xee));
    const vf b = v_max(pair[2], _mm512_shuffle_ps(pair[2], pair[2], 0x4e));
    const vf two = v_max(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    return v_max(two, _mm512_shuffle_f32x4(two, two, 0xb1));
}

/* Of 32 z. */
V_INLINE __m512i powers(__m512i z)
{
    const __m512i f = _mm512_slli_epi16(z, 5);
    const __m512i slope = _mm512_sub_epi16(_mm512_set1_epi16(CA_ATTN_INT8_C1),
                                           _mm512_mulhi_epu16(f, _mm512_set1_epi16(CA_ATTN_INT8_C2)));
    const __m512i p = _mm512_sub_epi16(_mm512_set1_epi16(1 << 14), _mm512_mulhi_epu16(f, slope));
    return _mm512_mulhrs_epi16(_mm512_srlv_epi16(p, _mm512_srli_epi16(z, 11)), _mm512_set1_epi16(510));
}
V_INLINE vi a8_powers(const vi *z, uint8_t *p, vi l)
{
    const __m512i bytes = _mm512_packus_epi16(powers(_mm512_packs_epi32((__m512i)z[0], (__m512i)z[1])),
                                              powers(_mm512_packs_epi32((__m512i)z[2], (__m512i)z[3])));
    _mm512_storeu_si512(p, bytes);
    return a8_dot(l, (vi)bytes, (vi)_mm512_set1_epi8(CA_ATTN_INT8_L));
}

#include "kern/attn_int8_body.h"

const ca_attn_int8 ca_attn_int8_avx512vnni = {
    .name = "avx512vnni",
    .cpu_flags = CA_CPU_AVX512 | CA_CPU_AVX512_VNNI,
    .panel = PANEL,
    .job = JOB,
    .unit = MR,
    .byte_flop = 41.0,
    .job_flop = 1e5,
    .scratch_bytes = scratch_bytes,
    .attn = attn,
};
