/* Vector operations that the kernel bodies are written in, for NEON. A vector is two registers, so that the register tile is AVX2's
 * (6 query vectors x 16 tokens): 24 accumulators, 4 loaded registers and the broadcast fit the 32 registers. One lane is one 32-bit
 * unit: a float, or two bf16 that v_dot multiplies pairwise (CA_VEC_BF16).
 * bfdot keeps that order: lane i of the sum is unit i of a times unit i of b. bfmmla is not used: it multiplies 2 x 4 by 4 x 2 and
 * leaves 2 x 2 sums in a register, another tile and another page layout than the bodies have. */
#ifndef CA_KERN_VEC_NEON_H
#define CA_KERN_VEC_NEON_H

#include <arm_neon.h>

#include "base/arith.h"
#include "kern/vec_common.h"

typedef struct vf {
    float32x4_t lo, hi;
} vf;
typedef struct vm { /* all ones or all zeros per lane */
    uint32x4_t lo, hi;
} vm;
enum { VW = 8, V_TILE_NV = 2, V_TILE_MR = 6, V_JOB = 96 };

V_INLINE vf v_load(const float *p)
{
    return (vf){ vld1q_f32(p), vld1q_f32(p + 4) };
}
V_INLINE void v_store(float *p, vf a)
{
    vst1q_f32(p, a.lo);
    vst1q_f32(p + 4, a.hi);
}
V_INLINE vf v_set1(float a)
{
    return (vf){ vdupq_n_f32(a), vdupq_n_f32(a) };
}
V_INLINE vf v_zero(void)
{
    return v_set1(0.0F);
}
V_INLINE vf v_add(vf a, vf b)
{
    return (vf){ vaddq_f32(a.lo, b.lo), vaddq_f32(a.hi, b.hi) };
}
V_INLINE vf v_sub(vf a, vf b)
{
    return (vf){ vsubq_f32(a.lo, b.lo), vsubq_f32(a.hi, b.hi) };
}
V_INLINE vf v_mul(vf a, vf b)
{
    return (vf){ vmulq_f32(a.lo, b.lo), vmulq_f32(a.hi, b.hi) };
}
V_INLINE vf v_div(vf a, vf b)
{
    return (vf){ vdivq_f32(a.lo, b.lo), vdivq_f32(a.hi, b.hi) };
}
/* a > b ? a : b, as on x86: b where one is NaN. */
V_INLINE vf v_max(vf a, vf b)
{
    return (vf){ vbslq_f32(vcgtq_f32(a.lo, b.lo), a.lo, b.lo), vbslq_f32(vcgtq_f32(a.hi, b.hi), a.hi, b.hi) };
}
V_INLINE vf v_fma(vf a, vf b, vf c)
{
    return (vf){ vfmaq_f32(c.lo, a.lo, b.lo), vfmaq_f32(c.hi, a.hi, b.hi) };
}
V_INLINE vf v_fnma(vf a, vf b, vf c)
{
    return (vf){ vfmsq_f32(c.lo, a.lo, b.lo), vfmsq_f32(c.hi, a.hi, b.hi) };
}
V_INLINE bool v_any_gt(vf a, float b)
{
    const float32x4_t bar = vdupq_n_f32(b);
    return vmaxvq_u32(vorrq_u32(vcgtq_f32(a.lo, bar), vcgtq_f32(a.hi, bar))) != 0;
}

V_INLINE float v_hmax(vf a)
{
    return vmaxvq_f32(vmaxq_f32(a.lo, a.hi));
}
V_INLINE float v_hadd(vf a)
{
    return vaddvq_f32(vaddq_f32(a.lo, a.hi));
}

/* VW bytes as floats; the low and the high four bits of VW bytes as floats. */
V_INLINE vf v_of_bytes(uint8x8_t bytes)
{
    const uint16x8_t wide = vmovl_u8(bytes);
    return (vf){ vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(wide))) };
}
V_INLINE vf v_bytes(const uint8_t *p)
{
    return v_of_bytes(vld1_u8(p));
}
V_INLINE void v_nibbles(const uint8_t *p, vf *low, vf *high)
{
    const uint8x8_t bytes = vld1_u8(p);
    *low = v_of_bytes(vand_u8(bytes, vdup_n_u8(15)));
    *high = v_of_bytes(vshr_n_u8(bytes, 4));
}

/* VW numbers of 16 bits as floats. */
V_INLINE vf v_bf16(const uint8_t *p)
{
    const uint16x8_t v = vreinterpretq_u16_u8(vld1q_u8(p));
    return (vf){ vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(v), 16)),
                 vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(v), 16)) };
}
V_INLINE vf v_f16(const uint8_t *p)
{
    const float16x8_t v = vreinterpretq_f16_u8(vld1q_u8(p));
    return (vf){ vcvt_f32_f16(vget_low_f16(v)), vcvt_f32_f16(vget_high_f16(v)) };
}

/* The first and the second bf16 of every unit as floats: bf16 is the upper half of a float. */
V_INLINE vf v_low(vf units)
{
    return (vf){ vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(units.lo), 16)),
                 vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(units.hi), 16)) };
}
V_INLINE vf v_high(vf units)
{
    const uint32x4_t upper = vdupq_n_u32(0xffff0000U);
    return (vf){ vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(units.lo), upper)),
                 vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(units.hi), upper)) };
}

/* Hides from the compiler where a value comes from. */
V_INLINE vf v_opaque(vf a)
{
    __asm__ volatile("" : "+w"(a.lo), "+w"(a.hi));
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
    out[0] = v_hadd(a[0]);
    out[1] = v_hadd(a[1]);
}

/* Lanes 0..n-1; n may be outside 0..VW. */
V_INLINE vm v_first(int n)
{
    static const int32_t lane[VW] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    const int32x4_t count = vdupq_n_s32(n);
    return (vm){ vcltq_s32(vld1q_s32(lane), count), vcltq_s32(vld1q_s32(lane + 4), count) };
}
V_INLINE vf v_select(vm m, vf yes, vf no)
{
    return (vf){ vbslq_f32(m.lo, yes.lo, no.lo), vbslq_f32(m.hi, yes.hi, no.hi) };
}

/* p * 2^n where x >= -126, else 0; n is a whole number up to 127. */
V_INLINE float32x4_t scale_by_exp2(float32x4_t p, float32x4_t n, float32x4_t x)
{
    const int32x4_t e = vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23);
    const uint32x4_t bits = vreinterpretq_u32_f32(vmulq_f32(p, vreinterpretq_f32_s32(e)));
    return vreinterpretq_f32_u32(vbicq_u32(bits, vcltq_f32(x, vdupq_n_f32(-126.0F))));
}

/* 2^x, relative error below 2e-7; 0 for x < -126. Degree-6 minimax polynomial on [-0.5, 0.5]. */
V_INLINE vf v_exp2(vf x)
{
    const float32x4_t most = vdupq_n_f32(127.0F);
    const vf top = { vminq_f32(x.lo, most), vminq_f32(x.hi, most) }; /* keeps a NaN */
    const vf n = { vrndnq_f32(top.lo), vrndnq_f32(top.hi) };
    const vf f = v_sub(top, n);
    vf p = v_set1(0.000154218813F);
    p = v_fma(p, f, v_set1(0.00133961894F));
    p = v_fma(p, f, v_set1(0.00961828228F));
    p = v_fma(p, f, v_set1(0.0555034969F));
    p = v_fma(p, f, v_set1(0.240226478F));
    p = v_fma(p, f, v_set1(0.693147181F));
    p = v_fma(p, f, v_set1(1.0F));
    return (vf){ scale_by_exp2(p.lo, n.lo, x.lo), scale_by_exp2(p.hi, n.hi, x.hi) };
}
V_INLINE vf v_exp2_prob(vf x)
{
    return v_exp2(x);
}

#ifdef CA_VEC_BF16
enum { V_KS = 2 };
#define V_TYPE CA_BF16
typedef uint16_t v_elt;

V_INLINE float32x4_t dot_pairs(float32x4_t acc, float32x4_t a, float32x4_t b)
{
    return vbfdotq_f32(acc, vreinterpretq_bf16_f32(a), vreinterpretq_bf16_f32(b));
}
V_INLINE vf v_dot(vf acc, vf a, vf b)
{
    return (vf){ dot_pairs(acc.lo, a.lo, b.lo), dot_pairs(acc.hi, a.hi, b.hi) };
}
V_INLINE void v_store_elts(v_elt *p, vf a)
{
    vst1q_u16(p, vreinterpretq_u16_bf16(vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(a.lo), a.hi)));
}
V_INLINE void v_store_elts2(v_elt *p, vf a, vf b)
{
    v_store_elts(p, a);
    v_store_elts(p + VW, b);
}
/* Two rows of weights as a row of units; there is no second. */
V_INLINE float32x4_t units_of(float32x4_t even, float32x4_t odd)
{
    const uint16x4_t e = vreinterpret_u16_bf16(vcvt_bf16_f32(even)), o = vreinterpret_u16_bf16(vcvt_bf16_f32(odd));
    return vreinterpretq_f32_u16(vcombine_u16(vzip1_u16(e, o), vzip2_u16(e, o)));
}
V_INLINE void v_units(vf even, vf odd, vf *first, vf *second)
{
    (void)second;
    *first = (vf){ units_of(even.lo, odd.lo), units_of(even.hi, odd.hi) };
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
    return v_fma(a, b, acc);
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
