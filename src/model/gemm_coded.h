/* Matrix products whose weights stay in the codes of their file (kern/coded.h): 5 to 16 bits an element, and the same values as
 * unpacked. */
#ifndef CA_MODEL_GEMM_CODED_H
#define CA_MODEL_GEMM_CODED_H

#include "kern/coded.h"
#include "model/gemm.h"

typedef struct ca_coded_weight {
    uint32_t k, n;
    size_t bytes;
    ca_coded_panel *panels;
    void *data;
} ca_coded_weight;

/* The kernel set has such products, and all rows of the source are integers with scales, or all bf16, or all f16. */
bool ca_coded_fits(const ca_kern *kern, uint32_t k, uint32_t n, const ca_gemm_source *source);
size_t ca_coded_weight_bytes(uint32_t k, uint32_t n, const ca_gemm_source *source);
/* Uses the caller's OpenMP threads. CA_E_MEMORY. */
ca_status ca_coded_weight_pack(uint32_t k, uint32_t n, const ca_gemm_source *source, ca_coded_weight *out);
void ca_coded_weight_destroy(ca_coded_weight *weight);

/* c (+)= a * W as ca_gemm_run. A row of c depends on its own row of a only. */
void ca_coded_weight_run(const ca_kern *kern, const ca_coded_weight *weight, const void *a, uint32_t m, float *c, bool accumulate);

#endif
