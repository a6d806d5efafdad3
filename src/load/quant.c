#include "load/quant.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/arith.h"

/* Every formula below is ggml's, with its order of operations: products and sums are rounded one by one (no fused multiply-add), and
 * zero times a negative scale stays -0. Blocks are byte arrays, so that any address will do. */

/* IEEE half to float, exact for every input. The exponent is rebased by a multiplication (2^-112), which also turns exponent 31
 * into infinity and NaN; subnormals come out of 0.5 + m * 2^-24 - 0.5. No branch: the loops around it vectorize. */
static inline float half_bits(uint32_t h)
{
    const uint32_t sign = (h & 0x8000U) << 16;
    const uint32_t rest = (h & 0x7fffU) << 13;
    const uint32_t big_bits = rest + (0xe0U << 23);
    const uint32_t small_bits = (rest >> 13) | (126U << 23);
    float big, small;
    memcpy(&big, &big_bits, 4);
    memcpy(&small, &small_bits, 4);
    big *= 0x1p-112F;
    small -= 0.5F;
    uint32_t b, s;
    memcpy(&b, &big, 4);
    memcpy(&s, &small, 4);
    const uint32_t bits = sign | (rest < (1U << 23) ? s : b);
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static inline float half(const uint8_t p[2])
{
    return half_bits((uint32_t)(p[0] | p[1] << 8));
}

static void dequant_f32(const void *blocks, size_t n_blocks, float *out)
{
    memcpy(out, blocks, n_blocks * sizeof *out);
}

static void dequant_f16(const void *blocks, size_t n_blocks, float *restrict out)
{
    const uint8_t *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++) out[i] = half(b + 2 * i);
}

static void dequant_bf16(const void *blocks, size_t n_blocks, float *restrict out)
{
    const uint8_t *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++) out[i] = ca_bf16_to_f32((uint16_t)(b[2 * i] | b[2 * i + 1] << 8));
}

/* Blocks of 32: the low nibbles are elements 0..15, the high ones 16..31. */

typedef struct q4_0 {
    uint8_t d[2], qs[16];
} q4_0;

static void dequant_q4_0(const void *blocks, size_t n_blocks, float *restrict out)
{
    const q4_0 *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++, out += 32) {
        const float d = half(b[i].d);
        for (int j = 0; j < 16; j++) {
            out[j] = (float)((b[i].qs[j] & 15) - 8) * d;
            out[j + 16] = (float)((b[i].qs[j] >> 4) - 8) * d;
        }
    }
}

typedef struct q4_1 {
    uint8_t d[2], m[2], qs[16];
} q4_1;

static void dequant_q4_1(const void *blocks, size_t n_blocks, float *restrict out)
{
    const q4_1 *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++, out += 32) {
        const float d = half(b[i].d), m = half(b[i].m);
        for (int j = 0; j < 16; j++) {
            out[j] = (float)(b[i].qs[j] & 15) * d + m;
            out[j + 16] = (float)(b[i].qs[j] >> 4) * d + m;
        }
    }
}

/* Bit j of qh is the fifth bit of element j. */
typedef struct q5_0 {
    uint8_t d[2], qh[4], qs[16];
} q5_0;

typedef struct q5_1 {
    uint8_t d[2], m[2], qh[4], qs[16];
} q5_1;

static inline void five_bits(const uint8_t qh[4], const uint8_t qs[16], int out[32])
{
    uint32_t high;
    memcpy(&high, qh, 4);
    for (int j = 0; j < 16; j++) {
        out[j] = (int)((uint32_t)(qs[j] & 15) | (high >> j & 1) << 4);
        out[j + 16] = (int)((uint32_t)(qs[j] >> 4) | (high >> (j + 16) & 1) << 4);
    }
}

static void dequant_q5_0(const void *blocks, size_t n_blocks, float *restrict out)
{
    const q5_0 *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++, out += 32) {
        const float d = half(b[i].d);
        int q[32];
        five_bits(b[i].qh, b[i].qs, q);
        for (int j = 0; j < 32; j++) out[j] = (float)(q[j] - 16) * d;
    }
}

static void dequant_q5_1(const void *blocks, size_t n_blocks, float *restrict out)
{
    const q5_1 *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++, out += 32) {
        const float d = half(b[i].d), m = half(b[i].m);
        int q[32];
        five_bits(b[i].qh, b[i].qs, q);
        for (int j = 0; j < 32; j++) out[j] = (float)q[j] * d + m;
    }
}

typedef struct q8_0 {
    uint8_t d[2];
    int8_t qs[32];
} q8_0;

static void dequant_q8_0(const void *blocks, size_t n_blocks, float *restrict out)
{
    const q8_0 *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++, out += 32) {
        const float d = half(b[i].d);
        for (int j = 0; j < 32; j++) out[j] = (float)b[i].qs[j] * d;
    }
}

static void dequant_iq4_nl(const void *blocks, size_t n_blocks, float *restrict out)
{
    static const float value[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
    const q4_0 *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++, out += 32) {
        const float d = half(b[i].d);
        for (int j = 0; j < 16; j++) {
            out[j] = d * value[b[i].qs[j] & 15];
            out[j + 16] = d * value[b[i].qs[j] >> 4];
        }
    }
}

typedef struct mxfp4 {
    uint8_t e, qs[16];
} mxfp4;

/* 2^(e - 127) times the e2m1 value; the table holds twice that value, so the scale is 2^(e - 128), a subnormal for e < 2. Negative
 * zero is +0, as in ggml. */
static void dequant_mxfp4(const void *blocks, size_t n_blocks, float *restrict out)
{
    static const float twice[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };
    const mxfp4 *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++, out += 32) {
        const uint32_t bits = b[i].e < 2 ? 0x00200000U << b[i].e : (uint32_t)(b[i].e - 1) << 23;
        float d;
        memcpy(&d, &bits, 4);
        for (int j = 0; j < 16; j++) {
            out[j] = twice[b[i].qs[j] & 15] * d;
            out[j + 16] = twice[b[i].qs[j] >> 4] * d;
        }
    }
}

/* K formats: super-blocks of 256 elements whose sub-blocks of 16 or 32 have small integer scales of their own. */

typedef struct q2_k {
    uint8_t scales[16], qs[64], d[2], dmin[2];
} q2_k;

/* Sub-block s of 16: low nibble of its byte scales, high nibble offsets. Byte l of a half's 32 holds elements l, l + 32, l + 64 and
 * l + 96 of that half, two bits each. */
static void dequant_q2_k(const void *blocks, size_t n_blocks, float *restrict out)
{
    const q2_k *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++) {
        const float d = half(b[i].d), dmin = half(b[i].dmin);
        for (int s = 0; s < 16; s++, out += 16) {
            const float dl = d * (float)(b[i].scales[s] & 15), ml = dmin * (float)(b[i].scales[s] >> 4);
            const uint8_t *q = b[i].qs + s / 8 * 32 + s % 2 * 16;
            const int shift = s % 8 / 2 * 2;
            for (int l = 0; l < 16; l++) out[l] = dl * (float)(q[l] >> shift & 3) - ml;
        }
    }
}

typedef struct q3_k {
    uint8_t hmask[32], qs[64], scales[12], d[2];
} q3_k;

/* As Q2_K, with a third bit in hmask (clear = subtract 4; bit g of byte l belongs to element 32 g + l) and 6-bit signed scales:
 * four low bits in the nibbles of bytes 0..7, two high bits in bytes 8..11. */
static void dequant_q3_k(const void *blocks, size_t n_blocks, float *restrict out)
{
    const q3_k *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++) {
        const float d = half(b[i].d);
        for (int s = 0; s < 16; s++, out += 16) {
            const int low = b[i].scales[s % 8] >> (s / 8 * 4) & 15, high = b[i].scales[8 + s % 4] >> (s / 4 * 2) & 3;
            const float dl = d * (float)((low | high << 4) - 32);
            const uint8_t *q = b[i].qs + s / 8 * 32 + s % 2 * 16, *h = b[i].hmask + s % 2 * 16;
            const int shift = s % 8 / 2 * 2, bit = s / 2;
            for (int l = 0; l < 16; l++) out[l] = dl * (float)((q[l] >> shift & 3) - (h[l] >> bit & 1 ? 0 : 4));
        }
    }
}

/* Q4_K and Q5_K: 6-bit scale and offset of sub-block s of 32, packed in the 12 bytes at p. */
static inline void scale_and_offset(const uint8_t *p, int s, int *scale, int *offset)
{
    if (s < 4) {
        *scale = p[s] & 63;
        *offset = p[s + 4] & 63;
    } else {
        *scale = (p[s + 4] & 15) | p[s - 4] >> 6 << 4;
        *offset = p[s + 4] >> 4 | p[s] >> 6 << 4;
    }
}

typedef struct q4_k {
    uint8_t d[2], dmin[2], scales[12], qs[128];
} q4_k;

/* 32 bytes hold two sub-blocks: the low nibbles one, the high nibbles the next. */
static void dequant_q4_k(const void *blocks, size_t n_blocks, float *restrict out)
{
    const q4_k *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++) {
        const float d = half(b[i].d), dmin = half(b[i].dmin);
        for (int s = 0; s < 8; s++, out += 32) {
            int scale, offset;
            scale_and_offset(b[i].scales, s, &scale, &offset);
            const float dl = d * (float)scale, ml = dmin * (float)offset;
            const uint8_t *q = b[i].qs + s / 2 * 32;
            const int shift = s % 2 * 4;
            for (int l = 0; l < 32; l++) out[l] = dl * (float)(q[l] >> shift & 15) - ml;
        }
    }
}

typedef struct q5_k {
    uint8_t d[2], dmin[2], scales[12], qh[32], qs[128];
} q5_k;

/* As Q4_K; bit s of qh[l] is the fifth bit of element l of sub-block s. */
static void dequant_q5_k(const void *blocks, size_t n_blocks, float *restrict out)
{
    const q5_k *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++) {
        const float d = half(b[i].d), dmin = half(b[i].dmin);
        for (int s = 0; s < 8; s++, out += 32) {
            int scale, offset;
            scale_and_offset(b[i].scales, s, &scale, &offset);
            const float dl = d * (float)scale, ml = dmin * (float)offset;
            const uint8_t *q = b[i].qs + s / 2 * 32, *h = b[i].qh;
            const int shift = s % 2 * 4;
            for (int l = 0; l < 32; l++) out[l] = dl * (float)((q[l] >> shift & 15) | (h[l] >> s & 1) << 4) - ml;
        }
    }
}

typedef struct q6_k {
    uint8_t ql[128], qh[64];
    int8_t scales[16];
    uint8_t d[2];
} q6_k;

/* Sub-block s of 16 with a signed 8-bit scale. A half of 128 has 64 bytes of low nibbles (elements 0..63 low, 64..127 high) and 32
 * bytes of two high bits (elements l, l + 32, l + 64, l + 96). */
static void dequant_q6_k(const void *blocks, size_t n_blocks, float *restrict out)
{
    const q6_k *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++) {
        const float d = half(b[i].d);
        for (int s = 0; s < 16; s++, out += 16) {
            const float dl = d * (float)b[i].scales[s];
            const uint8_t *q = b[i].ql + s / 8 * 64 + s % 4 * 16, *h = b[i].qh + s / 8 * 32 + s % 2 * 16;
            const int shift = s % 8 / 4 * 4, high = s % 8 / 2 * 2;
            for (int l = 0; l < 16; l++) out[l] = dl * (float)(((q[l] >> shift & 15) | (h[l] >> high & 3) << 4) - 32);
        }
    }
}

static const ca_block_format formats[] = {
    { CA_BLOCK_F32, "F32", 1, 4, dequant_f32 },
    { CA_BLOCK_F16, "F16", 1, 2, dequant_f16 },
    { CA_BLOCK_Q4_0, "Q4_0", 32, sizeof(q4_0), dequant_q4_0 },
    { CA_BLOCK_Q4_1, "Q4_1", 32, sizeof(q4_1), dequant_q4_1 },
    { CA_BLOCK_Q5_0, "Q5_0", 32, sizeof(q5_0), dequant_q5_0 },
    { CA_BLOCK_Q5_1, "Q5_1", 32, sizeof(q5_1), dequant_q5_1 },
    { CA_BLOCK_Q8_0, "Q8_0", 32, sizeof(q8_0), dequant_q8_0 },
    { CA_BLOCK_Q2_K, "Q2_K", 256, sizeof(q2_k), dequant_q2_k },
    { CA_BLOCK_Q3_K, "Q3_K", 256, sizeof(q3_k), dequant_q3_k },
    { CA_BLOCK_Q4_K, "Q4_K", 256, sizeof(q4_k), dequant_q4_k },
    { CA_BLOCK_Q5_K, "Q5_K", 256, sizeof(q5_k), dequant_q5_k },
    { CA_BLOCK_Q6_K, "Q6_K", 256, sizeof(q6_k), dequant_q6_k },
    { CA_BLOCK_IQ4_NL, "IQ4_NL", 32, sizeof(q4_0), dequant_iq4_nl },
    { CA_BLOCK_BF16, "BF16", 1, 2, dequant_bf16 },
    { CA_BLOCK_MXFP4, "MXFP4", 32, sizeof(mxfp4), dequant_mxfp4 },
};

const ca_block_format *ca_block_format_of(uint32_t type)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if ((uint32_t)formats[i].type == type) return &formats[i];
    return NULL;
}

const char *ca_block_type_name(uint32_t type, char *buf, size_t cap)
{
    static const char *const without_reader[] = {
        [9] = "Q8_1",   [15] = "Q8_K",  [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S",
        [21] = "IQ3_S", [22] = "IQ2_S", [23] = "IQ4_XS",  [24] = "I8",     [25] = "I16",     [26] = "I32",
        [27] = "I64",   [28] = "F64",   [29] = "IQ1_M",   [34] = "TQ1_0",  [35] = "TQ2_0",   [40] = "NVFP4",
    };
    const ca_block_format *format = ca_block_format_of(type);
    if (format) return format->name;
    if (type < sizeof without_reader / sizeof *without_reader && without_reader[type]) return without_reader[type];
    (void)snprintf(buf, cap, "type %" PRIu32, type);
    return buf;
}
