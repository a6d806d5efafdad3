/* Products of rows of the set's type with weights that stay in the codes of their file: numbers of 16 bits, or small integers, w = q *
 * scale + offset, with a scale (and an offset) for every CA_CODED_GROUP or half as many members of a column, as block formats of GGUF
 * have them. Every weight is rounded once, so it is the float that the file's format defines; sets of bf16 round that to bf16.
 *
 * Weights: panels of CA_CODED_PANEL columns: [k/2][CA_CODED_PANEL] bytes with the even inner index in the low four bits (4 bits), or
 * [k][CA_CODED_PANEL] bytes or numbers. Beside integers [k/group][CA_CODED_PANEL] scales, each row followed by one of offsets where
 * the panel has them; else the offset is -zero * scale.
 *
 * Sums run in the order of the inner index, starting from 0 or from C: a row of C depends on its own row of A only. */
#ifndef CA_KERN_CODED_H
#define CA_KERN_CODED_H

#include "base/arith.h"

enum { CA_CODED_PANEL = 64, CA_CODED_GROUP = 32, CA_CODED_ROWS = 192, CA_CODED_TILE = 6 /* rows of a register tile */ };

typedef enum ca_code { CA_CODE_4, CA_CODE_8, CA_CODE_BF16, CA_CODE_F16 } ca_code;

typedef struct ca_coded_panel {
    ca_code code;
    const uint8_t *codes; /* 64-byte aligned */
    const float *scales;  /* of integers: 64-byte aligned */
    uint32_t group;       /* CA_CODED_GROUP or half of it */
    bool has_offsets;
    float zero;
} ca_coded_panel;

/* Rows by one panel of columns. */
typedef struct ca_coded_job {
    const void *a;      /* [n_rows][k] in the set's type, k a multiple of CA_CODED_GROUP */
    uint32_t n_rows, k; /* n_rows <= CA_CODED_ROWS */
    const ca_coded_panel *panel;
    float *c;        /* row 0, the panel's first column */
    size_t c_stride; /* floats */
    uint32_t n_cols; /* <= CA_CODED_PANEL */
    bool accumulate;
} ca_coded_job;

static inline bool ca_code_is_integer(ca_code code)
{
    return code == CA_CODE_4 || code == CA_CODE_8;
}

/* Bytes of `count` members of all columns. */
static inline size_t ca_coded_bytes(ca_code code, uint32_t count)
{
    return (size_t)count * (code == CA_CODE_4 ? CA_CODED_PANEL / 2 : code == CA_CODE_8 ? CA_CODED_PANEL : 2 * CA_CODED_PANEL);
}

/* Scales and offsets of a panel. */
static inline size_t ca_coded_scales(const ca_coded_panel *p, uint32_t k)
{
    return ca_code_is_integer(p->code) ? (size_t)(k / p->group) * (p->has_offsets ? 2 : 1) * CA_CODED_PANEL : 0;
}

#endif
