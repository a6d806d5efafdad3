/* Products of 8-bit integers: rows of activations, rounded as they come, by weights that were rounded once.
 *
 * Both sides are first turned by the same orthogonal matrix, which leaves their products as they are: every 64 values along the inner
 * dimension by a Walsh-Hadamard matrix H, H H = 64, divided by 8; what remains behind the last whole 64 stays. That spreads the few
 * large values that activations have, which would else take the steps from all others (QuaRot, arXiv 2404.00456).
 *
 * Then the inner dimension is cut into groups, and every group of a row, and of a column, has its own scale: s = max |x| / 127, q =
 * round(x / s). With sums over the groups g and the members p of each,
 *   c[i][j] (+)= sum_g sa[i][g] sw[j][g] (sum_p qa[i][p] (qw[j][p] + 128) - 128 sum_p qa[i][p])
 * The inner sums are exact in 32 bits. The outer ones are taken in the order of g, each step rounded once for every factor and once
 * for the sum, so that all implementations give the same bits.
 *
 * Weights: panels of CA_INT8_PANEL columns, the last one padded with zeros, each [k4/4][CA_INT8_PANEL][4] bytes qw + 128, and beside
 * them [groups][CA_INT8_PANEL] scales. Rows: [k4] bytes qa, k4 = k rounded up to 4, [groups] scales, [groups] offsets -128 sum qa. */
#ifndef CA_KERN_INT8_H
#define CA_KERN_INT8_H

#include "kern/kern.h"

enum { CA_INT8_PANEL = 64, CA_INT8_MIX = 64, CA_INT8_GROUP = 512 };

/* Groups of an inner dimension, and the members of each but the last, whole blocks of CA_INT8_MIX. */
static inline uint32_t ca_int8_groups(uint32_t k)
{
    return ca_ceil_div(k, CA_INT8_GROUP);
}

static inline uint32_t ca_int8_group(uint32_t k)
{
    return (uint32_t)ca_align_up(ca_ceil_div(k, ca_int8_groups(k)), CA_INT8_MIX);
}

/* Rows by one panel of columns. */
typedef struct ca_int8_job {
    const int8_t *a;         /* [n_rows][k4] */
    const float *a_scale;    /* [n_rows][groups] */
    const int32_t *a_offset; /* [n_rows][groups] */
    uint32_t n_rows, k;
    const uint8_t *w;     /* the panel; 64-byte aligned */
    const float *w_scale; /* its scales */
    const uint8_t *ahead; /* the panel that comes next on this thread, to be fetched on the way; NULL = none */
    float *c;             /* row 0, the panel's first column */
    size_t c_stride;      /* floats */
    uint32_t n_cols;      /* <= CA_INT8_PANEL */
    bool accumulate;
} ca_int8_job;

typedef struct ca_int8 {
    const char *name;
    uint32_t unit; /* rows that it takes at a time */
    uint32_t sets; /* kernel sets that it goes with: those that need one of these CPU flags; 0 = all */
    uint32_t cpu_flags;
    void (*product)(const ca_int8_job *job);
} ca_int8;

/* The fastest that this CPU runs and that is of no newer kind than the kernel set. */
const ca_int8 *ca_int8_choose(const ca_kern *kern);
/* The i-th of this build, best first, that this CPU runs; NULL behind the last. */
const ca_int8 *ca_int8_at(size_t i);

extern const ca_int8 ca_int8_amxint8, ca_int8_avx512vnni, ca_int8_avxvnni, ca_int8_avx2, ca_int8_neondot, ca_int8_portable;

#endif
