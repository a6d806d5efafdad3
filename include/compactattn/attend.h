/* Table + pages -> O: one dense flash-attention kernel over the pages each row lists, in place. */
#ifndef COMPACTATTN_ATTEND_H
#define COMPACTATTN_ATTEND_H

#include "base.h"
#include "table.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Scratch bytes for ca_attend and ca_attend_as with n_threads threads on tables of one chunk of up to n_tokens tokens; for a batch, the sum over its
 * chunks. */
CA_API size_t ca_attend_ws_bytes(const ca_cache *cache, uint32_t n_heads, uint32_t n_tokens, int n_threads);

/* o[t][h] = sum over the keys k of h's row with k <= position of t of softmax(scale * q.k) v      (spec/attention.md 5.1, 12)
 * q   f32 [table.n_tokens][n_heads][head_dim], rounded once to the kernel's type; q_stride floats between tokens.          borrowed
 * o   out_type [table.n_tokens][n_heads][head_dim]; o_stride elements between tokens. Only (token, head) pairs that a row covers are
 *     written; a pair whose row lists no visible key becomes zero.                                                  caller's
 * Keys and values must be finite: those of a page that a query does not see yet have weight 0, and 0 * Inf is NaN.
 * The result of a (token, head) depends on its page list only: not on the chunk, the other rows, the threads or the page ids. Tables
 * whose rows are all of one token (decode) add it up in up to 16 parts of at least 1,024 tokens, so there the last bits may differ from
 * those of the same token in a longer row.
 * Uses n_threads OpenMP threads (>= 1). Thread-safe on distinct workspaces while nothing is appended. */
CA_API ca_status ca_attend(const ca_cache *cache, const ca_table *table, float scale, const float *q, size_t q_stride, void *o,
                           size_t o_stride, ca_dtype out_type, int n_threads, ca_workspace *ws);

/* The same with the products that attention says: CA_ATTENTION_NATIVE is ca_attend. With CA_ATTENTION_INT8 queries, keys, values and
 * probabilities are rounded on the way, to 127 or 255 steps of the largest of a vector, a token, a dimension of 256 tokens, or a row of a
 * panel of tokens. Results differ from those of ca_attend by about a hundredth of their size; docs/kernels.md says what that does to a
 * model. Tables whose rows are all of one token run natively. The result of a (token, head) depends on its page list and on all that these
 * pages hold, also what comes after its position.
 * Errors: CA_E_UNSUPPORTED where ca_kern_int8_attention_name is NULL. */
CA_API ca_status ca_attend_as(const ca_cache *cache, ca_attention attention, const ca_table *table, float scale, const float *q,
                              size_t q_stride, void *o, size_t o_stride, ca_dtype out_type, int n_threads, ca_workspace *ws);

/* The same in double precision, straight from the definition; slow. The oracle of every test. o is f32. */
CA_API ca_status ca_attend_oracle(const ca_cache *cache, const ca_table *table, float scale, const float *q, size_t q_stride,
                                  float *o, size_t o_stride);

/* Measures the constants of the cost model (see ca_cost) for a kernel set, in seconds of one thread; takes a fraction of a second on
 * a machine that does nothing else. CA_E_UNSUPPORTED where attention is CA_ATTENTION_INT8 and nothing runs it. */
CA_API ca_status ca_cost_measure(const ca_kern *kern, ca_attention attention, int n_threads, ca_cost *out);

#ifdef __cplusplus
}
#endif
#endif
