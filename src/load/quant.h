/* Block formats of GGUF tensors -> float, or codes with scales. One table; bit-equal to ggml's own dequantisation. */
#ifndef CA_LOAD_QUANT_H
#define CA_LOAD_QUANT_H

#include "base/error.h"

/* Values are GGUF's own type numbers. */
typedef enum ca_block_type {
    CA_BLOCK_F32 = 0,
    CA_BLOCK_F16 = 1,
    CA_BLOCK_Q4_0 = 2,
    CA_BLOCK_Q4_1 = 3,
    CA_BLOCK_Q5_0 = 6,
    CA_BLOCK_Q5_1 = 7,
    CA_BLOCK_Q8_0 = 8,
    CA_BLOCK_Q2_K = 10,
    CA_BLOCK_Q3_K = 11,
    CA_BLOCK_Q4_K = 12,
    CA_BLOCK_Q5_K = 13,
    CA_BLOCK_Q6_K = 14,
    CA_BLOCK_IQ4_NL = 20,
    CA_BLOCK_BF16 = 30,
    CA_BLOCK_MXFP4 = 39
} ca_block_type;

/* A block taken apart: element j of group g is (q - zero) * scale[g], or q * scale[g] + offset[g] where the format has offsets. */
typedef struct ca_block_codes {
    uint8_t q[256];
    float scale[16], offset[16];
} ca_block_codes;

typedef struct ca_block_format {
    ca_block_type type;
    const char *name;                                                /* "Q4_1" */
    uint32_t n_elems;                                                /* elements per block */
    uint32_t n_bytes;                                                /* bytes per block */
    void (*floats)(const void *blocks, size_t n_blocks, float *out); /* of plain numbers; the others have what follows */
    uint32_t code_bits, group;                                       /* of a code; elements that share a scale: 16 or 32 */
    int zero;
    bool has_offsets;
    void (*codes)(const void *block, ca_block_codes *out); /* sets offset only where the format has them */
} ca_block_format;

/* out[n_blocks * n_elems]. */
void ca_block_floats(const ca_block_format *format, const void *blocks, size_t n_blocks, float *out);

/* NULL for a type that has no reader in this build. */
const ca_block_format *ca_block_format_of(uint32_t type);
/* Name of a type number even when it has no reader ("IQ2_XXS", "type 77"); buf for the unknown. */
const char *ca_block_type_name(uint32_t type, char *buf, size_t cap);

#endif
