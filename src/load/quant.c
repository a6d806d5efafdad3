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

static void floats_f32(const void *blocks, size_t n_blocks, float *out)
{
    memcpy(out, blocks, n_blocks * sizeof *out);
}

static void floats_f16(const void *blocks, size_t n_blocks, float *restrict out)
{
    const uint8_t *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++) out[i] = half(b + 2 * i);
}

static void floats_bf16(const void *blocks, size_t n_blocks, float *restrict out)
{
    const uint8_t *restrict b = blocks;
    for (size_t i = 0; i < n_blocks; i++) out[i] = ca_bf16_to_f32((uint16_t)(b[2 * i] | b[2 * i + 1] << 8));
}

/* Blocks of 32: the low nibbles are elements 0..15, the high ones 16..31. */
static inline void nibbles(const uint8_t qs[16], uint8_t *restrict q)
{
    for (int j = 0; j < 16; j++) {
        q[j] = qs[j] & 15;
        q[j + 16] = qs[j] >> 4;
    }
}

typedef struct q4_0 {
    uint8_t d[2], qs[16];
} q4_0;

static void codes_q4_0(const void *block, ca_block_codes *out)
{
    const q4_0 *b = block;
    out->scale[0] = half(b->d);
    nibbles(b->qs, out->q);
}

typedef struct q4_1 {
    uint8_t d[2], m[2], qs[16];
} q4_1;

static void codes_q4_1(const void *block, ca_block_codes *out)
{
    const q4_1 *b = block;
    out->scale[0] = half(b->d);
    out->offset[0] = half(b->m);
    nibbles(b->qs, out->q);
}

/* Bit j of qh is the fifth bit of element j. */
typedef struct q5_0 {
    uint8_t d[2], qh[4], qs[16];
} q5_0;

typedef struct q5_1 {
    uint8_t d[2], m[2], qh[4], qs[16];
} q5_1;

static inline void five_bits(const uint8_t qh[4], const uint8_t qs[16], uint8_t *restrict q)
{
    nibbles(qs, q);
    for (int j = 0; j < 32; j++) q[j] = (uint8_t)(q[j] | (qh[j / 8] >> j % 8 & 1) << 4);
}

static void codes_q5_0(const void *block, ca_block_codes *out)
{
    const q5_0 *b = block;
    out->scale[0] = half(b->d);
    five_bits(b->qh, b->qs, out->q);
}

static void codes_q5_1(const void *block, ca_block_codes *out)
{
    const q5_1 *b = block;
    out->scale[0] = half(b->d);
    out->offset[0] = half(b->m);
    five_bits(b->qh, b->qs, out->q);
}

typedef struct q8_0 {
    uint8_t d[2], qs[32]; /* two's complement */
} q8_0;

static void codes_q8_0(const void *block, ca_block_codes *out)
{
    const q8_0 *b = block;
    out->scale[0] = half(b->d);
    for (int j = 0; j < 32; j++) out->q[j] = b->qs[j] ^ 128;
}

static void codes_iq4_nl(const void *block, ca_block_codes *out)
{
    static const uint8_t value[16] = { 1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241 }; /* + 128 */
    const q4_0 *b = block;
    out->scale[0] = half(b->d);
    nibbles(b->qs, out->q);
    for (int j = 0; j < 32; j++) out->q[j] = value[out->q[j]];
}

typedef struct mxfp4 {
    uint8_t e, qs[16];
} mxfp4;

/* 2^(e - 127) times the e2m1 value; the table holds twice that value + 12, so the scale is 2^(e - 128), a subnormal for e < 2.
 * Negative zero is +0, as in ggml. */
static void codes_mxfp4(const void *block, ca_block_codes *out)
{
    static const uint8_t twice[16] = { 12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0 };
    const mxfp4 *b = block;
    const uint32_t bits = b->e < 2 ? 0x00200000U << b->e : (uint32_t)(b->e - 1) << 23;
    memcpy(&out->scale[0], &bits, 4);
    nibbles(b->qs, out->q);
    for (int j = 0; j < 32; j++) out->q[j] = twice[out->q[j]];
}

/* K formats: super-blocks of 256 elements whose sub-blocks of 16 or 32 have small integer scales of their own. */

typedef struct q2_k {
    uint8_t scales[16], qs[64], d[2], dmin[2];
} q2_k;

/* Sub-block s of 16: low nibble of its byte scales, high nibble offsets. Byte l of a half's 32 holds elements l, l + 32, l + 64 and
 * l + 96 of that half, two bits each. */
static void codes_q2_k(const void *block, ca_block_codes *out)
{
    const q2_k *b = block;
    const float d = half(b->d), dmin = half(b->dmin);
    for (int s = 0; s < 16; s++) {
        out->scale[s] = d * (float)(b->scales[s] & 15);
        out->offset[s] = -(dmin * (float)(b->scales[s] >> 4));
        const uint8_t *q = b->qs + s / 8 * 32 + s % 2 * 16;
        const int shift = s % 8 / 2 * 2;
        for (int l = 0; l < 16; l++) out->q[16 * s + l] = q[l] >> shift & 3;
    }
}

typedef struct q3_k {
    uint8_t hmask[32], qs[64], scales[12], d[2];
} q3_k;

/* As Q2_K, with a third bit in hmask (bit g of byte l belongs to element 32 g + l) and 6-bit signed scales: four low bits in the
 * nibbles of bytes 0..7, two high bits in bytes 8..11. */
static void codes_q3_k(const void *block, ca_block_codes *out)
{
    const q3_k *b = block;
    const float d = half(b->d);
    for (int s = 0; s < 16; s++) {
        const int low = b->scales[s % 8] >> (s / 8 * 4) & 15, high = b->scales[8 + s % 4] >> (s / 4 * 2) & 3;
        out->scale[s] = d * (float)((low | high << 4) - 32);
        const uint8_t *q = b->qs + s / 8 * 32 + s % 2 * 16, *h = b->hmask + s % 2 * 16;
        const int shift = s % 8 / 2 * 2, bit = s / 2;
        for (int l = 0; l < 16; l++) out->q[16 * s + l] = (uint8_t)((q[l] >> shift & 3) | (h[l] >> bit & 1) << 2);
    }
}

/* Q4_K and Q5_K: 6-bit scales and offsets of eight sub-blocks of 32, packed in the 12 bytes at p. */
static void scales_and_offsets(const uint8_t d[2], const uint8_t dmin[2], const uint8_t *p, ca_block_codes *out)
{
    for (int s = 0; s < 8; s++) {
        const int scale = s < 4 ? p[s] & 63 : (p[s + 4] & 15) | p[s - 4] >> 6 << 4;
        const int offset = s < 4 ? p[s + 4] & 63 : p[s + 4] >> 4 | p[s] >> 6 << 4;
        out->scale[s] = half(d) * (float)scale;
        out->offset[s] = -(half(dmin) * (float)offset);
    }
}

/* 32 bytes hold two sub-blocks: the low nibbles one, the high nibbles the next. */
static inline uint8_t nibble_of(const uint8_t *qs, int s, int l)
{
    return qs[s / 2 * 32 + l] >> s % 2 * 4 & 15;
}

typedef struct q4_k {
    uint8_t d[2], dmin[2], scales[12], qs[128];
} q4_k;

static void codes_q4_k(const void *block, ca_block_codes *out)
{
    const q4_k *b = block;
    scales_and_offsets(b->d, b->dmin, b->scales, out);
    for (int s = 0; s < 8; s++)
        for (int l = 0; l < 32; l++) out->q[32 * s + l] = nibble_of(b->qs, s, l);
}

typedef struct q5_k {
    uint8_t d[2], dmin[2], scales[12], qh[32], qs[128];
} q5_k;

/* As Q4_K; bit s of qh[l] is the fifth bit of element l of sub-block s. */
static void codes_q5_k(const void *block, ca_block_codes *out)
{
    const q5_k *b = block;
    scales_and_offsets(b->d, b->dmin, b->scales, out);
    for (int s = 0; s < 8; s++)
        for (int l = 0; l < 32; l++) out->q[32 * s + l] = (uint8_t)(nibble_of(b->qs, s, l) | (b->qh[l] >> s & 1) << 4);
}

typedef struct q6_k {
    uint8_t ql[128], qh[64];
    int8_t scales[16];
    uint8_t d[2];
} q6_k;

/* Sub-block s of 16 with a signed 8-bit scale. A half of 128 has 64 bytes of low nibbles (elements 0..63 low, 64..127 high) and 32
 * bytes of two high bits (elements l, l + 32, l + 64, l + 96). */
static void codes_q6_k(const void *block, ca_block_codes *out)
{
    const q6_k *b = block;
    const float d = half(b->d);
    for (int s = 0; s < 16; s++) {
        out->scale[s] = d * (float)b->scales[s];
        const uint8_t *q = b->ql + s / 8 * 64 + s % 4 * 16, *h = b->qh + s / 8 * 32 + s % 2 * 16;
        const int shift = s % 8 / 4 * 4, high = s % 8 / 2 * 2;
        for (int l = 0; l < 16; l++) out->q[16 * s + l] = (uint8_t)((q[l] >> shift & 15) | (h[l] >> high & 3) << 4);
    }
}

static const ca_block_format formats[] = {
    { CA_BLOCK_F32, "F32", 1, 4, .floats = floats_f32 },
    { CA_BLOCK_F16, "F16", 1, 2, .floats = floats_f16 },
    { CA_BLOCK_BF16, "BF16", 1, 2, .floats = floats_bf16 },
    { CA_BLOCK_Q4_0, "Q4_0", 32, sizeof(q4_0), .code_bits = 4, .group = 32, .zero = 8, .codes = codes_q4_0 },
    { CA_BLOCK_Q4_1, "Q4_1", 32, sizeof(q4_1), .code_bits = 4, .group = 32, .has_offsets = true, .codes = codes_q4_1 },
    { CA_BLOCK_Q5_0, "Q5_0", 32, sizeof(q5_0), .code_bits = 5, .group = 32, .zero = 16, .codes = codes_q5_0 },
    { CA_BLOCK_Q5_1, "Q5_1", 32, sizeof(q5_1), .code_bits = 5, .group = 32, .has_offsets = true, .codes = codes_q5_1 },
    { CA_BLOCK_Q8_0, "Q8_0", 32, sizeof(q8_0), .code_bits = 8, .group = 32, .zero = 128, .codes = codes_q8_0 },
    { CA_BLOCK_Q2_K, "Q2_K", 256, sizeof(q2_k), .code_bits = 2, .group = 16, .has_offsets = true, .codes = codes_q2_k },
    { CA_BLOCK_Q3_K, "Q3_K", 256, sizeof(q3_k), .code_bits = 3, .group = 16, .zero = 4, .codes = codes_q3_k },
    { CA_BLOCK_Q4_K, "Q4_K", 256, sizeof(q4_k), .code_bits = 4, .group = 32, .has_offsets = true, .codes = codes_q4_k },
    { CA_BLOCK_Q5_K, "Q5_K", 256, sizeof(q5_k), .code_bits = 5, .group = 32, .has_offsets = true, .codes = codes_q5_k },
    { CA_BLOCK_Q6_K, "Q6_K", 256, sizeof(q6_k), .code_bits = 6, .group = 16, .zero = 32, .codes = codes_q6_k },
    { CA_BLOCK_IQ4_NL, "IQ4_NL", 32, sizeof(q4_0), .code_bits = 8, .group = 32, .zero = 128, .codes = codes_iq4_nl },
    { CA_BLOCK_MXFP4, "MXFP4", 32, sizeof(mxfp4), .code_bits = 5, .group = 32, .zero = 12, .codes = codes_mxfp4 },
};

void ca_block_floats(const ca_block_format *format, const void *blocks, size_t n_blocks, float *restrict out)
{
    if (format->floats) {
        format->floats(blocks, n_blocks, out);
        return;
    }
    const uint8_t *b = blocks;
    for (size_t i = 0; i < n_blocks; i++, b += format->n_bytes) {
        ca_block_codes codes;
        format->codes(b, &codes);
        for (uint32_t first = 0; first < format->n_elems; first += format->group, out += format->group) {
            const float scale = codes.scale[first / format->group];
            const float offset = format->has_offsets ? codes.offset[first / format->group] : 0.0F;
            const uint8_t *q = codes.q + first;
            if (format->has_offsets)
                for (uint32_t j = 0; j < format->group; j++) out[j] = (float)q[j] * scale + offset;
            else
                for (uint32_t j = 0; j < format->group; j++) out[j] = (float)(q[j] - format->zero) * scale;
        }
    }
}

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
