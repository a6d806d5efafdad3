/* Table + pages -> O: one dense flash-attention kernel over the pages each row lists, in place. */
#ifndef COMPACTATTN_ATTEND_H
#define COMPACTATTN_ATTEND_H

#include "base.h"
#include "table.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Scratch bytes for ca_attend with n_threads threads on tables of up to n_tokens tokens. */
CA_API size_t ca_attend_ws_bytes(const ca_cache *cache, uint32_t n_heads, uint32_t n_tokens, int n_threads);

/* o[t][h] = sum over the keys k of h's row with k <= pos + t of softmax(scale * q.k) v      (spec/attention.md 5.1, 12)
 * q   f32 [n_tokens][n_heads][head_dim], rounded once to the kernel's type; q_stride floats between tokens.          borrowed
 * o   out_type [n_tokens][n_heads][head_dim]; o_stride elements between tokens. Only (token, head) pairs that a row covers are
 *     written; a pair whose row lists no visible key becomes zero.                                                  caller's
 * The result of a (token, head) depends on its page list only: not on the chunk, the other rows, the threads or the page ids.
 * Uses n_threads OpenMP threads (>= 1). Thread-safe on distinct workspaces while nothing is appended. */
CA_API ca_status ca_attend(const ca_cache *cache, const ca_table *table, float scale, const float *q, size_t q_stride, void *o,
                           size_t o_stride, ca_dtype out_type, int n_threads, ca_workspace *ws);

/* The same in double precision, straight from the definition; slow. The oracle of every test. o is f32. */
CA_API ca_status ca_attend_oracle(const ca_cache *cache, const ca_table *table, float scale, const float *q, size_t q_stride,
                                  float *o, size_t o_stride);

#ifdef __cplusplus
}
#endif
#endif
