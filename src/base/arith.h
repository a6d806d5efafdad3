/* Checked size arithmetic, rounding and bf16: small things that every room uses. */
#ifndef CA_BASE_ARITH_H
#define CA_BASE_ARITH_H

#include <stdint.h>
#include <string.h>

#include "base/error.h"

static inline ca_status ca_mul_size(size_t a, size_t b, size_t *out)
{
    return __builtin_mul_overflow(a, b, out) ? ca_fail(CA_E_MEMORY, "size overflow: %zu * %zu", a, b) : CA_OK;
}

static inline ca_status ca_add_size(size_t a, size_t b, size_t *out)
{
    return __builtin_add_overflow(a, b, out) ? ca_fail(CA_E_MEMORY, "size overflow: %zu + %zu", a, b) : CA_OK;
}

static inline size_t ca_align_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static inline uint32_t ca_ceil_div(uint32_t a, uint32_t b)
{
    return a / b + (a % b != 0);
}

static inline uint32_t ca_min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline uint32_t ca_max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static inline float ca_bf16_to_f32(uint16_t v)
{
    const uint32_t u = (uint32_t)v << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* Round to nearest even; NaN stays a quiet NaN. */
static inline uint16_t ca_f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffffU) > 0x7f800000U) return (uint16_t)((u >> 16) | 0x40U);
    return (uint16_t)((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
}

#endif
