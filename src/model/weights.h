/* Tensors of a file -> what layers compute with: vectors in f32 and packed matrices. */
#ifndef CA_MODEL_WEIGHTS_H
#define CA_MODEL_WEIGHTS_H

#include "model/model.h"

/* Rows [first, first + count) of a tensor of rows of dims[0] elements, f32 [count][dims[0]]. The rows must exist. */
void ca_tensor_rows(const ca_tensor *tensor, uint32_t first, uint32_t count, float *out);

/* A vector as f32 [n]; the caller frees *out. CA_E_FORMAT when the tensor is missing or has other dims. */
ca_status ca_weight_vector(const ca_model *model, const char *name, uint32_t n, float **out);

/* One matrix of a packed weight: the tensor's rows become columns of W. */
typedef struct ca_weight_part {
    const char *name;
    uint32_t rows;
    /* head_dim when each head's rows are stored for interleaved RoPE: row 2i + j of a head is dim i + j * head_dim/2 of the form
     * that rotates halves. 0 = rows are stored in their own order. */
    uint32_t interleaved;
} ca_weight_part;

/* Packs the parts side by side: W [k][sum of rows]. CA_E_FORMAT when a tensor is missing or has other dims. */
ca_status ca_weight_matrix(const ca_model *model, uint32_t k, const ca_weight_part *parts, size_t n_parts, ca_gemm_weight **out);

#endif
