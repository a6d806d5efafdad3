/* Vector operations that the kernel bodies are written in, for AVX2 with FMA. One lane is one float. */
#ifndef CA_KERN_VEC_AVX2_H
#define CA_KERN_VEC_AVX2_H

#include <immintrin.h>

#include "base/arith.h"
#include "kern/vec_common.h"

typedef __m256 vf;
typedef __m256 vm; /* all ones or all zeros per lane */
enum { VW = 8, V_TILE_NV = 2, V_TILE_MR = 6, V_JOB = 96, V_KS = 1 };
#define V_TYPE CA_F32
typedef float v_elt;

V_INLINE vf v_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
V_INLINE void v_store(float *p, vf a)
{
    _mm256_storeu_ps(p, a);
}
V_INLINE vf v_set1(float a)
{
    return _mm256_set1_ps(a);
}
V_INLINE vf v_zero(void)
{
    return _mm256_setzero_ps();
}
V_INLINE vf v_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
V_INLINE vf v_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
V_INLINE vf v_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
V_INLINE vf v_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
V_INLINE vf v_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
V_INLINE vf v_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
V_INLINE vf v_fnma(vf a, vf b, vf c)
{
    return _mm256_fnmadd_ps(a, b, c);
}
V_INLINE bool v_any_gt(vf a, float b)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(a, v_set1(b), _CMP_GT_OQ)) != 0;
}

V_INLINE float v_hmax(vf a)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
V_INLINE float v_hadd(vf a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* VW bytes as floats; the low and the high four bits of VW bytes as floats. */
V_INLINE vf v_bytes(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
V_INLINE void v_nibbles(const uint8_t *p, vf *low, vf *high)
{
    const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    *low = _mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(15)));
    *high = _mm256_cvtepi32_ps(_mm256_srli_epi32(bytes, 4));
}

/* VW numbers of 16 bits as floats. */
V_INLINE vf v_bf16(const uint8_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)), 16));
}
V_INLINE vf v_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* The first and the second bf16 of every unit as floats: bf16 is the upper half of a float. */
V_INLINE vf v_low(vf units)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(units), 16));
}
V_INLINE vf v_high(vf units)
{
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(units), _mm256_set1_epi32((int)0xffff0000U)));
}

/* Hides from the compiler where a value comes from. */
V_INLINE vf v_opaque(vf a)
{
    __asm__ volatile("" : "+v"(a));
    return a;
}

/* Vector j of p[0..period) repeated without end, in floats; period 1, 8 or 16. */
V_INLINE vf v_load_cycle(const float *p, int period, int j)
{
    return period == 1 ? v_set1(*p) : v_load(p + j * VW % period);
}

/* out[c] = sum of the c-th group of `group` lanes (8 or 16) of nv vectors (2), all groups in a row. */
V_INLINE void v_sum_groups(const vf *a, int nv, int group, float *out)
{
    (void)nv;
    if (group == 16) {
        *out = v_hadd(v_add(a[0], a[1]));
        return;
    }
    const vf pairs = v_add(_mm256_unpacklo_ps(a[0], a[1]), _mm256_unpackhi_ps(a[0], a[1]));
    const __m128 s = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
    _mm_storel_pi((__m64 *)(void *)out, _mm_add_ps(s, _mm_movehl_ps(s, s)));
}

/* Lanes 0..n-1; n may be outside 0..VW. */
V_INLINE vm v_first(int n)
{
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
}
V_INLINE vf v_select(vm m, vf yes, vf no)
{
    return _mm256_blendv_ps(no, yes, m);
}

/* 2^x, relative error below 2e-7; 0 for x < -126. Degree-6 minimax polynomial on [-0.5, 0.5]. */
V_INLINE vf v_exp2(vf x)
{
    const vf tiny = _mm256_cmp_ps(x, v_set1(-126.0F), _CMP_LT_OQ);
    const vf top = _mm256_min_ps(v_set1(127.0F), x); /* this operand order keeps a NaN */
    const vf n = _mm256_round_ps(top, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const vf f = v_sub(top, n);
    vf p = v_set1(0.000154218813F);
    p = v_fma(p, f, v_set1(0.00133961894F));
    p = v_fma(p, f, v_set1(0.00961828228F));
    p = v_fma(p, f, v_set1(0.0555034969F));
    p = v_fma(p, f, v_set1(0.240226478F));
    p = v_fma(p, f, v_set1(0.693147181F));
    p = v_fma(p, f, v_set1(1.0F));
    const __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(tiny, v_mul(p, _mm256_castsi256_ps(e)));
}

V_INLINE vf v_dot(vf acc, vf a, vf b)
{
    return _mm256_fmadd_ps(a, b, acc);
}
#ifdef CA_VEC_MIXED
V_INLINE vf v_exp2_prob(vf x)
{
    const vf tiny = _mm256_cmp_ps(x, v_set1(-126.0F), _CMP_LT_OQ);
    const vf top = _mm256_min_ps(v_set1(127.0F), x); /* this operand order keeps a NaN */
    const vf n = _mm256_round_ps(top, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    const vf f = v_sub(top, n);
    const vf p = V_EXP2_CUBIC(f);
    const __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23); /* added to the exponent of p, which is 0 or 1 */
    return _mm256_andnot_ps(tiny, _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), e)));
}
#else
V_INLINE vf v_exp2_prob(vf x)
{
    return v_exp2(x);
}
#endif
V_INLINE void v_store_elts(v_elt *p, vf a)
{
    v_store(p, a);
}
V_INLINE void v_store_elts2(v_elt *p, vf a, vf b)
{
    v_store(p, a);
    v_store(p + VW, b);
}
/* Two rows of weights as rows of units. */
V_INLINE void v_units(vf even, vf odd, vf *first, vf *second)
{
    *first = even;
    *second = odd;
}
V_INLINE v_elt v_elt_of(float a)
{
    return a;
}
V_INLINE float v_elt_float(v_elt a)
{
    return a;
}

#endif
