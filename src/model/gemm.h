/* Matrix products of the model: C[m][n] (+)= A[m][k] * W, through oneDNN, or on integers (gemm_int8.h), or with weights in the codes of
 * their file (gemm_coded.h).
 *
 * A weight is packed once, in the blocked format oneDNN asks for. That format does not depend on m, so one packed copy serves
 * prefill (thousands of rows) and decode (one row). A is bf16 or f32, as the flow of the kernel set, and so is W, or W is int8; C is f32. */
#ifndef CA_MODEL_GEMM_H
#define CA_MODEL_GEMM_H

#include <compactattn/cpu.h>

typedef struct ca_gemm_engine ca_gemm_engine; /* immutable, shared by threads */
typedef struct ca_gemm_weight ca_gemm_weight; /* immutable, shared by threads; lives no longer than its engine */
typedef struct ca_gemm_runner ca_gemm_runner; /* compiled products and scratch; one thread at a time */

/* CA_E_UNSUPPORTED when oneDNN has no product of the set's type on this CPU. */
ca_status ca_gemm_engine_create(const ca_kern *kern, ca_gemm_engine **out);
void ca_gemm_engine_destroy(ca_gemm_engine *engine);

struct ca_block_format;

/* Source of a weight while it is packed: rows [first, first + count) of W transposed, f32 [count][k]; and where it has them, the
 * blocks of one row and their format. */
typedef struct ca_gemm_source {
    const void *user;
    void (*rows)(const void *user, uint32_t first, uint32_t count, float *out);
    const void *(*blocks)(const void *user, uint32_t row, const struct ca_block_format **format); /* NULL, or returns NULL: none */
} ca_gemm_source;

/* Packs W [k][n], whose columns the source gives as rows, in panels of about a megabyte. Uses the caller's OpenMP threads.
 * CA_E_MEMORY, CA_E_UNSUPPORTED. */
ca_status ca_gemm_pack(const ca_gemm_engine *engine, bool int8, uint32_t k, uint32_t n, const ca_gemm_source *source,
                       ca_gemm_weight **out);
/* Bytes that a packed W [k][n] takes, without packing one. */
ca_status ca_gemm_packed_bytes(const ca_gemm_engine *engine, bool int8, uint32_t k, uint32_t n, const ca_gemm_source *source,
                               size_t *out);
void ca_gemm_weight_destroy(ca_gemm_weight *weight);
size_t ca_gemm_weight_bytes(const ca_gemm_weight *weight);
uint32_t ca_gemm_weight_n(const ca_gemm_weight *weight);

ca_status ca_gemm_runner_create(const ca_gemm_engine *engine, ca_gemm_runner **out);
void ca_gemm_runner_destroy(ca_gemm_runner *runner);

/* c[m][n] = a[m][k] * W, or c += a * W when accumulate. a has the set's type; rows are contiguous. Uses the caller's OpenMP
 * threads. The first call for (k, n, m, accumulate, threads) compiles a kernel and may grow the scratch; later ones do neither,
 * as long as no more than CA_GEMM_PLANS such combinations take turns. */
enum { CA_GEMM_PLANS = 96 };
ca_status ca_gemm_run(ca_gemm_runner *runner, const ca_gemm_weight *weight, const void *a, uint32_t m, float *c, bool accumulate);

/* Sums over all runs: wall milliseconds and floating-point operations (a multiply and an add count two). */
typedef struct ca_gemm_count {
    double ms, flop;
} ca_gemm_count;
ca_gemm_count ca_gemm_counted(const ca_gemm_runner *runner);

#endif
