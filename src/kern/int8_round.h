/* How a group becomes integers; inlined into every kernel set, so that each rounds with its own instructions. */
#ifndef CA_KERN_INT8_ROUND_H
#define CA_KERN_INT8_ROUND_H

#include <float.h>
#include <math.h>

#include "kern/int8.h"

enum { CA_INT8_LANES = 16 };
typedef float ca_vec16 __attribute__((vector_size(64)));

/* H x for one block of CA_INT8_MIX = 64 = 4 vectors of 16: a butterfly over the vectors, then one inside of each. */
static inline __attribute__((always_inline)) void ca_int8_mix(float *x)
{
    const ca_vec16 by8 = { 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1 };
    const ca_vec16 by4 = { 1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1 };
    const ca_vec16 by2 = { 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1 };
    const ca_vec16 by1 = { 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1 };
    ca_vec16 v[4];
    memcpy(v, x, sizeof v);
    const ca_vec16 a = v[0] + v[1], b = v[0] - v[1], c = v[2] + v[3], d = v[2] - v[3];
    v[0] = a + c, v[1] = b + d, v[2] = a - c, v[3] = b - d;
    for (int i = 0; i < 4; i++) {
        ca_vec16 t = v[i];
        t = t * by8 + __builtin_shufflevector(t, t, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
        t = t * by4 + __builtin_shufflevector(t, t, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
        t = t * by2 + __builtin_shufflevector(t, t, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
        t = t * by1 + __builtin_shufflevector(t, t, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
        v[i] = t;
    }
    memcpy(x, v, sizeof v);
}

/* A group of n <= CA_INT8_GROUP values, which are overwritten: out = q; returns s, and *sum = the sum of q. x and out have room for n
 * rounded up to 16; what lies behind n gets lost. A group without a magnitude above 2^-100 gives zeros and 0, one with an infinity
 * or a NaN gives zeros and NaN, so that its products are NaN.
 *
 * Floats without their sign are ordered as integers are. 1.5 * 2^23 + v holds v, rounded to even, in its low mantissa bits. */
static inline float ca_int8_round(float *x, uint32_t n, int8_t *out, int32_t *sum)
{
    const uint32_t whole = n / CA_INT8_MIX * CA_INT8_MIX, room = (uint32_t)ca_align_up(n, CA_INT8_LANES);
    const float root = 8.0F; /* of CA_INT8_MIX */
    for (uint32_t i = 0; i < whole; i += CA_INT8_MIX) ca_int8_mix(x + i);
    for (uint32_t i = whole; i < room; i++) x[i] = i < n ? x[i] * root : 0.0F;
    uint32_t most = 0;
    for (uint32_t i = 0; i < room; i++) {
        uint32_t u;
        memcpy(&u, &x[i], 4);
        u &= 0x7FFFFFFFU;
        most = u > most ? u : most;
    }
    float top;
    memcpy(&top, &most, sizeof top);
    *sum = 0;
    if (!(top > 0x1p-100F && top <= FLT_MAX)) {
        memset(out, 0, room);
        return top <= 0x1p-100F ? 0.0F : NAN;
    }
    const float up = 127.0F / top;
    int32_t total = 0;
    for (uint32_t i = 0; i < room; i++) {
        const float v = x[i] * up + 0x1.8p23F;
        int32_t u;
        memcpy(&u, &v, 4);
        u -= 0x4B400000; /* the bits of 1.5 * 2^23 */
        out[i] = (int8_t)u;
        total += u;
    }
    *sum = total;
    return top / (127.0F * root);
}

/* The row in groups; its elements have type T, and AS_FLOAT makes floats of them. */
#define CA_INT8_QUANTIZE(T, AS_FLOAT)                                                                                              \
    static void quantize(const void *row, uint32_t n, int8_t *out, float *scales, int32_t *offsets)                                \
    {                                                                                                                              \
        const uint32_t width = ca_int8_group(n);                                                                                   \
        for (uint32_t at = 0; at < n; at += width) {                                                                               \
            const uint32_t count = ca_min_u32(width, n - at);                                                                      \
            const T *x = (const T *)row + at;                                                                                      \
            float group[CA_INT8_GROUP];                                                                                            \
            int8_t q[CA_INT8_GROUP];                                                                                               \
            int32_t sum;                                                                                                           \
            for (uint32_t i = 0; i < count; i++) group[i] = AS_FLOAT(x[i]);                                                        \
            *scales++ = ca_int8_round(group, count, q, &sum);                                                                      \
            *offsets++ = -128 * sum;                                                                                               \
            memcpy(out + at, q, ca_align_up(count, 4));                                                                            \
        }                                                                                                                          \
    }

#endif
