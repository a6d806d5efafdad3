/* Tensors of a store -> what layers compute with: vectors in f32 and packed matrices. */
#ifndef CA_MODEL_WEIGHTS_H
#define CA_MODEL_WEIGHTS_H

#include "model/model.h"

/* Rows [first, first + count) of a tensor of rows of dims[0] elements, f32 [count][dims[0]]. The rows must exist. */
void ca_tensor_rows(const ca_tensor *tensor, uint32_t first, uint32_t count, float *out);

/* Finds every tensor that the configuration calls for, checks its dims, refuses tensors that would mean another computation, and
 * forecasts info.packed_bytes; then, unless forecast_only, packs the weights. CA_E_MEMORY before anything is packed when the memory
 * that is available cannot hold them. What has been allocated when it fails is freed by ca_model_close. */
ca_status ca_weights_load(ca_model *model, bool forecast_only);
void ca_weights_free(ca_model *model);

#endif
