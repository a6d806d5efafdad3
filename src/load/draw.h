/* Tensors without a file: their elements are drawn at random when they are read. */
#ifndef CA_LOAD_DRAW_H
#define CA_LOAD_DRAW_H

#include "load/gguf.h"

/* A tensor of these dims, fastest first, whose data is NULL. What it holds follows from the seed and the name alone. */
ca_tensor ca_draw_tensor(uint64_t seed, const char *name, uint32_t n_dims, const uint64_t *dims);

/* Rows [first, first + count) of dims[0] elements, f32 [count][dims[0]]: about normal, with mean 0 and deviation 0.02, at most 0.07 in
 * size. An element is a function of the tensor and its place, whatever the order and the threads. Thread-safe. */
void ca_draw_rows(const ca_tensor *tensor, uint32_t first, uint32_t count, float *out);

#endif
