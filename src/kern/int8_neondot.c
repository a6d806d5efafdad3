/* Integer products with NEON's sdot, which takes bytes with a sign on both sides: the weights lose their 128 on the way. */
#include <arm_neon.h>
#include <stdbool.h>
#include <stdint.h>

#include "kern/vec_common.h"

#define I8_MR 6
enum { I8_NV = 4, I8_LANES = 4 };

typedef int32x4_t vi;
typedef int8x16_t i8_w, i8_a;
typedef float32x4_t vf;

V_INLINE i8_w i8_load_w(const uint8_t *p)
{
    return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(128)));
}
V_INLINE i8_a i8_load_a(const int8_t *p)
{
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(word));
}
V_INLINE vi i8_dot(vi acc, i8_w w, i8_a a)
{
    return vdotq_s32(acc, w, a);
}
V_INLINE vi i8_start(int32_t offset)
{
    (void)offset;
    return vdupq_n_s32(0);
}
V_INLINE vf i8_scaled(vi acc, float a_scale, const float *w_scale)
{
    return vmulq_f32(vmulq_n_f32(vcvtq_f32_s32(acc), a_scale), vld1q_f32(w_scale));
}
V_INLINE void i8_store(float *c, vf v, bool add)
{
    vst1q_f32(c, add ? vaddq_f32(vld1q_f32(c), v) : v);
}

#include "kern/int8_body.h"

const ca_int8 ca_int8_neondot = { "neondot", I8_MR, CA_CPU_NEON, CA_CPU_NEON_DOT, product };
