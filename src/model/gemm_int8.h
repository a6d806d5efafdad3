/* Matrix products whose weights are 8-bit integers and whose rows of A become such when the product runs (kern/int8.h). A weight
 * takes a byte an element and 4 per group of a column. */
#ifndef CA_MODEL_GEMM_INT8_H
#define CA_MODEL_GEMM_INT8_H

#include "kern/int8.h"
#include "model/gemm.h"

typedef struct ca_int8_weight {
    uint32_t k, n;
    uint8_t *panels;
    float *scales;
} ca_int8_weight;

/* Memory for W [k][n]; nothing is packed yet. CA_E_MEMORY. */
ca_status ca_int8_weight_create(uint32_t k, uint32_t n, ca_int8_weight *out);
void ca_int8_weight_destroy(ca_int8_weight *weight);
size_t ca_int8_weight_bytes(uint32_t k, uint32_t n);

/* Rounds columns [first, first + count) of W, given as rows [count][k]. Uses the caller's OpenMP threads. A column with an infinity or
 * a NaN gives NaN. */
void ca_int8_weight_pack(ca_int8_weight *weight, uint32_t first, uint32_t count, const float *rows);

/* Bytes of scratch for a product of m rows. */
size_t ca_int8_scratch_bytes(uint32_t k, uint32_t m);
/* c (+)= a * W as ca_gemm_run; scratch is 64-byte aligned. A row of c depends on its own row of a only. */
void ca_int8_weight_run(const ca_kern *kern, const ca_int8 *int8, const ca_int8_weight *weight, const void *a, uint32_t m, float *c,
                        bool accumulate, void *scratch);

#endif
