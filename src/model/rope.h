/* Rotary embeddings: how fast each pair of dimensions turns. */
#ifndef CA_MODEL_ROPE_H
#define CA_MODEL_ROPE_H

#include "model/fields.h"

typedef enum ca_rope_kind { CA_ROPE_PLAIN = 0, CA_ROPE_LINEAR = 1, CA_ROPE_LLAMA3 = 2, CA_ROPE_YARN = 3 } ca_rope_kind;

typedef struct ca_rope {
    ca_rope_kind kind;
    float theta, factor;
    float low_freq, high_freq;  /* llama3: wavelengths above original/low are slowed, those below original/high are not */
    float beta_fast, beta_slow; /* YaRN: turns over the original context that mark the same two ends */
    bool whole_dims;            /* YaRN: the ends are rounded outward to whole dimensions */
    uint32_t original;          /* context that the model was trained with first */
    float magnitude;            /* of cosines and sines; 1 but for YaRN */
} ca_rope;

/* theta: what a missing base means. local_theta: that of the base of sliding layers, which then are not scaled; 0 = they turn like the
 * others. max_context is raised to what YaRN's factor reaches. */
ca_status ca_rope_read(const ca_fields *f, float theta, float local_theta, uint32_t *max_context, ca_rope *full, ca_rope *sliding);

/* inv_freq [head_dim/2]: radians per position. With base(i) = theta^(-2i / head_dim):
 *   linear  base / factor
 *   llama3  base where 2 pi / base < original/high_freq, base / factor where it is > original/low_freq, and in between
 *           base ((1 - t) / factor + t), t = (original base / (2 pi) - low_freq) / (high_freq - low_freq)
 *   YaRN    base (r / factor + 1 - r), r = clamp((i - first) / (last - first), 0, 1), where first and last are the (fractional)
 *           dimensions that turn beta_fast and beta_slow times over the original context:
 *           head_dim ln(original / (2 pi beta)) / (2 ln theta). */
void ca_rope_frequencies(const ca_rope *rope, uint32_t head_dim, double *inv_freq);

/* Makes a plain rope reach factor times its context: linear, or YaRN with its published constants. */
void ca_rope_extend(ca_rope *rope, ca_rope_kind kind, float factor, uint32_t context);

const char *ca_rope_name(ca_rope_kind kind);

#endif
