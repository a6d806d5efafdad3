/* Vector operations that the kernel bodies are written in, for AVX-512. One lane is one 32-bit unit: a float, or two bf16 that
 * v_dot multiplies pairwise (CA_VEC_BF16). */
#ifndef CA_KERN_VEC_AVX512_H
#define CA_KERN_VEC_AVX512_H

#include <immintrin.h>

#include "base/arith.h"
#include "kern/vec_common.h"

typedef __m512 vf;
typedef __mmask16 vm;
enum { VW = 16, V_TILE_NV = 4, V_TILE_MR = 6, V_JOB = 192 };

V_INLINE vf v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
V_INLINE void v_store(float *p, vf a)
{
    _mm512_storeu_ps(p, a);
}
V_INLINE vf v_set1(float a)
{
    return _mm512_set1_ps(a);
}
V_INLINE vf v_zero(void)
{
    return _mm512_setzero_ps();
}
V_INLINE vf v_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
V_INLINE vf v_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
V_INLINE vf v_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
V_INLINE vf v_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
V_INLINE vf v_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
V_INLINE vf v_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
V_INLINE vf v_fnma(vf a, vf b, vf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}
V_INLINE float v_hmax(vf a)
{
    return _mm512_reduce_max_ps(a);
}
V_INLINE float v_hadd(vf a)
{
    return _mm512_reduce_add_ps(a);
}
V_INLINE bool v_any_gt(vf a, float b)
{
    return _mm512_cmp_ps_mask(a, _mm512_set1_ps(b), _CMP_GT_OQ) != 0;
}

/* VW bytes as floats; the low and the high four bits of VW bytes as floats. */
V_INLINE vf v_bytes(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
V_INLINE void v_nibbles(const uint8_t *p, vf *low, vf *high)
{
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    *low = _mm512_cvtepi32_ps(_mm512_and_si512(bytes, _mm512_set1_epi32(15)));
    *high = _mm512_cvtepi32_ps(_mm512_srli_epi32(bytes, 4));
}

/* VW numbers of 16 bits as floats. */
V_INLINE vf v_bf16(const uint8_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p)), 16));
}
V_INLINE vf v_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* The first and the second bf16 of every unit as floats: bf16 is the upper half of a float. */
V_INLINE vf v_low(vf units)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(units), 16));
}
V_INLINE vf v_high(vf units)
{
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(units), _mm512_set1_epi32((int)0xffff0000U)));
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
    (void)j; /* whole periods in every vector */
    return period == 1 ? v_set1(*p) : period == 8 ? _mm512_broadcast_f32x8(_mm256_loadu_ps(p)) : v_load(p);
}

/* out[c] = sum of the c-th group of `group` lanes (8 or 16) of nv vectors (2 or 4), all groups in a row. */
V_INLINE void v_sum_groups(const vf *a, int nv, int group, float *out)
{
    const vf a2 = nv == 4 ? a[2] : v_zero(), a3 = nv == 4 ? a[3] : v_zero();
    const vf lo = v_add(_mm512_unpacklo_ps(a[0], a[1]), _mm512_unpackhi_ps(a[0], a[1]));
    const vf hi = v_add(_mm512_unpacklo_ps(a2, a3), _mm512_unpackhi_ps(a2, a3));
    const vf quads = v_add(_mm512_shuffle_ps(lo, hi, 0x44), _mm512_shuffle_ps(lo, hi, 0xee)); /* [4 lane groups of 4][4 vectors] */
    const __m256 l = _mm512_castps512_ps256(quads), h = _mm512_extractf32x8_ps(quads, 1);
    const __m128 first = _mm_add_ps(_mm256_castps256_ps128(l), _mm256_extractf128_ps(l, 1));
    const __m128 second = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 pairs = group == 16 ? _mm_add_ps(first, second) : _mm_unpacklo_ps(first, second);
    if (group == 8 && nv == 4) _mm_storeu_ps(out + 4, _mm_unpackhi_ps(first, second));
    if (group == 16 && nv == 2)
        _mm_storel_pi((__m64 *)(void *)out, pairs);
    else
        _mm_storeu_ps(out, pairs);
}

/* Lanes 0..n-1; n may be outside 0..VW. */
V_INLINE vm v_first(int n)
{
    const unsigned count = n <= 0 ? 0U : n >= VW ? VW : (unsigned)n;
    return (vm)((1U << count) - 1U);
}
V_INLINE vf v_select(vm m, vf yes, vf no)
{
    return _mm512_mask_blend_ps(m, no, yes);
}

/* 2^x, relative error below 2e-7; 0 for very negative x. Degree-6 minimax polynomial on [-0.5, 0.5]. */
V_INLINE vf v_exp2(vf x)
{
    const vf n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const vf f = v_sub(x, n);
    vf p = v_set1(0.000154218813F);
    p = v_fma(p, f, v_set1(0.00133961894F));
    p = v_fma(p, f, v_set1(0.00961828228F));
    p = v_fma(p, f, v_set1(0.0555034969F));
    p = v_fma(p, f, v_set1(0.240226478F));
    p = v_fma(p, f, v_set1(0.693147181F));
    p = v_fma(p, f, v_set1(1.0F));
    return _mm512_scalef_ps(p, n);
}

#if defined(CA_VEC_BF16) || defined(CA_VEC_MIXED)
/* scalef takes the floor of its exponent itself. */
V_INLINE vf v_exp2_prob(vf x)
{
    const vf f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    return _mm512_scalef_ps(V_EXP2_CUBIC(f), x);
}
#else
V_INLINE vf v_exp2_prob(vf x)
{
    return v_exp2(x);
}
#endif

#ifdef CA_VEC_BF16
enum { V_KS = 2 };
#define V_TYPE CA_BF16
typedef uint16_t v_elt;

V_INLINE vf v_dot(vf acc, vf a, vf b)
{
    return _mm512_dpbf16_ps(acc, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
}
V_INLINE void v_store_elts(v_elt *p, vf a)
{
    _mm256_storeu_si256((__m256i *)(void *)p, (__m256i)_mm512_cvtneps_pbh(a));
}
V_INLINE void v_store_elts2(v_elt *p, vf a, vf b)
{
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(b, a));
}
/* Two rows of weights as a row of units; there is no second. */
V_INLINE void v_units(vf even, vf odd, vf *first, vf *second)
{
    const __m512i order = _mm512_set_epi32(0x001f000f, 0x001e000e, 0x001d000d, 0x001c000c, 0x001b000b, 0x001a000a, 0x00190009,
                                           0x00180008, 0x00170007, 0x00160006, 0x00150005, 0x00140004, 0x00130003, 0x00120002,
                                           0x00110001, 0x00100000);
    (void)second;
    *first = _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even)));
}
V_INLINE v_elt v_elt_of(float a)
{
    return ca_f32_to_bf16(a);
}
V_INLINE float v_elt_float(v_elt a)
{
    return ca_bf16_to_f32(a);
}
#else
enum { V_KS = 1 };
#define V_TYPE CA_F32
typedef float v_elt;

V_INLINE vf v_dot(vf acc, vf a, vf b)
{
    return _mm512_fmadd_ps(a, b, acc);
}
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

#endif
