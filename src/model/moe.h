/* A mixture of experts in place of a feed-forward network:
 *   p = softmax(W_router h);  x += sum over the top_k experts of p_e W_down_e (act(W_gate_e h) * W_up_e h),  h = norm(x)
 * with the chosen p made to sum to 1 when the model says so. Of equal p the lower expert wins. Each expert is one product over all of
 * the chunk's tokens that chose it; every token adds its experts in ascending order, so results do not depend on threads. */
#ifndef CA_MODEL_MOE_H
#define CA_MODEL_MOE_H

#include "model/layers.h"

/* Rows of the product that n tokens of an expert take: n rounded up, so that few shapes are compiled. */
uint32_t ca_moe_rows(uint32_t n);

/* x of tokens [0, n) after the layer's experts. */
ca_status ca_moe_run(const ca_model *model, const ca_layer *layer, uint32_t n, ca_acts *acts, ca_gemm_runner *gemm);

#endif
