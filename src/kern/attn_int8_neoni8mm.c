/* Attention of 8-bit integers with NEON's usdot (i8mm), over the pages of the NEON sets. A vector is two registers, as in vec_neon.h. */
#include "kern/attn_int8.h"
#include "kern/vec_neon.h"

typedef struct vi {
    int32x4_t lo, hi;
} vi;

V_INLINE vi a8_load(const void *p)
{
    return (vi){ vld1q_s32(p), vld1q_s32((const int32_t *)p + 4) };
}
V_INLINE vi a8_word(const void *p)
{
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return (vi){ vdupq_n_s32(word), vdupq_n_s32(word) };
}
V_INLINE vi a8_dot(vi acc, vi plain, vi with_sign)
{
    return (vi){ vusdotq_s32(acc.lo, vreinterpretq_u8_s32(plain.lo), vreinterpretq_s8_s32(with_sign.lo)),
                 vusdotq_s32(acc.hi, vreinterpretq_u8_s32(plain.hi), vreinterpretq_s8_s32(with_sign.hi)) };
}
V_INLINE vf a8_float(vi a)
{
    return (vf){ vcvtq_f32_s32(a.lo), vcvtq_f32_s32(a.hi) };
}
V_INLINE vi a8_round(vf a)
{
    return (vi){ vcvtnq_s32_f32(a.lo), vcvtnq_s32_f32(a.hi) };
}
V_INLINE vf a8_up(vf a)
{
    return (vf){ vrndpq_f32(a.lo), vrndpq_f32(a.hi) };
}
V_INLINE vi a8_shift(vi a, int32_t by)
{
    const int32x4_t left = vdupq_n_s32(-by);
    return (vi){ vshlq_s32(a.lo, left), vshlq_s32(a.hi, left) };
}
V_INLINE vi a8_most(void)
{
    return (vi){ vdupq_n_s32(INT32_MAX), vdupq_n_s32(INT32_MAX) };
}
V_INLINE vi a8_select(vm m, vi yes, vi no)
{
    return (vi){ vbslq_s32(m.lo, yes.lo, no.lo), vbslq_s32(m.hi, yes.hi, no.hi) };
}
V_INLINE vm a8_equal(vf a, vf b)
{
    return (vm){ vceqq_f32(a.lo, b.lo), vceqq_f32(a.hi, b.hi) };
}
V_INLINE vf v_min(vf a, vf b)
{
    return (vf){ vminq_f32(a.lo, b.lo), vminq_f32(a.hi, b.hi) };
}
V_INLINE vf a8_abs(vf a)
{
    return (vf){ vabsq_f32(a.lo), vabsq_f32(a.hi) };
}
/* VW integers in 16 bits. */
V_INLINE int16x8_t words_of(vi a)
{
    return vqmovn_high_s32(vqmovn_s32(a.lo), a.hi);
}
V_INLINE void a8_bytes(int8_t *p, vi a)
{
    vst1_s8(p, vqmovn_s16(words_of(a)));
}
V_INLINE int32x4_t four_of(const bool with_sign, int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d)
{
    static const uint8_t order[] = { 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15 };
    const int16x8_t ab = vqmovn_high_s32(vqmovn_s32(a), b), cd = vqmovn_high_s32(vqmovn_s32(c), d);
    const uint8x16_t bytes = with_sign ? vreinterpretq_u8_s8(vqmovn_high_s16(vqmovn_s16(ab), cd))
                                       : vqmovun_high_s16(vqmovun_s16(ab), cd);
    return vreinterpretq_s32_u8(vqtbl1q_u8(bytes, vld1q_u8(order)));
}
V_INLINE vi a8_four(const bool with_sign, vi a, vi b, vi c, vi d)
{
    return (vi){ four_of(with_sign, a.lo, b.lo, c.lo, d.lo), four_of(with_sign, a.hi, b.hi, c.hi, d.hi) };
}

V_INLINE uint32_t lane_of(uint32_t r)
{
    return r;
}
V_INLINE vf a8_tops(const vf *t)
{
    float32x4_t pair[3];
    V_UNROLL
    for (int i = 0; i < 3; i++) {
        const vf *two = t + 2 * i;
        pair[i] = vpmaxq_f32(vmaxq_f32(two[0].lo, two[0].hi), vmaxq_f32(two[1].lo, two[1].hi));
    }
    return (vf){ vpmaxq_f32(pair[0], pair[1]), vpmaxq_f32(pair[2], pair[2]) };
}

/* The upper halves of products. */
V_INLINE uint16x8_t upper(uint16x8_t a, uint16_t b)
{
    const uint16x8_t factor = vdupq_n_u16(b);
    const uint32x4_t low = vmull_u16(vget_low_u16(a), vget_low_u16(factor)), high = vmull_high_u16(a, factor);
    return vuzp2q_u16(vreinterpretq_u16_u32(low), vreinterpretq_u16_u32(high));
}
V_INLINE uint16x8_t upper_of(uint16x8_t a, uint16x8_t b)
{
    const uint32x4_t low = vmull_u16(vget_low_u16(a), vget_low_u16(b)), high = vmull_high_u16(a, b);
    return vuzp2q_u16(vreinterpretq_u16_u32(low), vreinterpretq_u16_u32(high));
}
/* Of 8 z: [t0 .. t3, t4 .. t7]. */
V_INLINE uint32x2_t powers(vi z)
{
    const int16x8_t all = words_of(z);
    const uint16x8_t f = vshlq_n_u16(vreinterpretq_u16_s16(all), 5);
    const uint16x8_t slope = vsubq_u16(vdupq_n_u16(CA_ATTN_INT8_C1), upper(f, CA_ATTN_INT8_C2));
    const uint16x8_t power = vsubq_u16(vdupq_n_u16(1 << 14), upper_of(f, slope));
    const int16x8_t right = vnegq_s16(vshrq_n_s16(all, 11));
    const int16x8_t p = vqrdmulhq_n_s16(vreinterpretq_s16_u16(vshlq_u16(power, right)), 510);
    return vreinterpret_u32_u8(vqmovun_s16(p));
}
V_INLINE vi a8_powers(const vi *z, uint8_t *p, vi l)
{
    const uint32x2_t first = powers(z[0]), second = powers(z[1]);
    const uint8x16_t bytes = vreinterpretq_u8_u32(vcombine_u32(vzip1_u32(first, second), vzip2_u32(first, second)));
    vst1q_u8(p, bytes);
    return (vi){ vusdotq_s32(l.lo, bytes, vdupq_n_s8(CA_ATTN_INT8_L)), l.hi };
}

#include "kern/attn_int8_body.h"

/* Costs as counted for AVX-VNNI, whose instructions these resemble; no machine has measured them. */
const ca_attn_int8 ca_attn_int8_neoni8mm = {
    .name = "neoni8mm",
    .cpu_flags = CA_CPU_NEON | CA_CPU_NEON_I8MM,
    .panel = PANEL,
    .job = JOB,
    .unit = MR,
    .byte_flop = 22.0,
    .job_flop = 4e5,
    .scratch_bytes = scratch_bytes,
    .attn = attn,
};
