/* Which CPU kernels exist, which one this machine runs and why better ones were refused. */
#ifndef COMPACTATTN_CPU_H
#define COMPACTATTN_CPU_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A kernel set: the functions that own the inside of a KV page and everything else whose code depends on the ISA. Opaque, static,
 * immutable, shared by all threads. */
typedef struct ca_kern ca_kern;

/* Best kernel set for this CPU. isa caps the choice: NULL or "auto" for the best, else "amxbf16", "avx512bf16", "avx512mixed",
 * "avx512", "avx2mixed", "avx2", "neonbf16", "neonmixed", "neon" or "scalar" (nothing above it in this list is used). On CPUs whose
 * bf16 products are slower than those of floats, avx512bf16 is taken only by its name. CA_E_ARG for an unknown name,
 * CA_E_UNSUPPORTED when the CPU lacks it. */
CA_API ca_status ca_kern_choose(const char *isa, const ca_kern **out);

/* Name of a kernel set, e.g. "avx512bf16". Static string. */
CA_API const char *ca_kern_name(const ca_kern *kern);

/* What runs the integer products of a model opened with CA_MATMUL_INT8 beside this set: "amxint8", "avx512vnni", "avxvnni", "avx2",
 * "neondot" or "portable". Static string. */
CA_API const char *ca_kern_int8_name(const ca_kern *kern);

/* Products of attention: in the kernel set's own type or in 8-bit integers (see ca_attend_as). */
typedef enum ca_attention { CA_ATTENTION_NATIVE = 0, CA_ATTENTION_INT8 = 1 } ca_attention;

/* "native" or "int8". */
CA_API const char *ca_attention_name(ca_attention attention);

/* What runs CA_ATTENTION_INT8 over this set's pages of page_tokens tokens on this CPU: "avx512vnni" (a set of AVX-512 without AMX, pages of
 * 64, 128 or 256 tokens), "avxvnni" (a set of AVX2) or "neoni8mm" (a set of NEON), pages of 32, too, or NULL: nothing does. Static
 * string. */
CA_API const char *ca_kern_int8_attention_name(const ca_kern *kern, uint32_t page_tokens);

/* Type in which this kernel set stores keys and values: CA_BF16 or CA_F32 (sums are always fp32). */
CA_API ca_dtype ca_kern_dtype(const ca_kern *kern);

/* Type of weights and activations in its matrix products, and of what attention multiplies keys and values with: CA_BF16 or CA_F32.
 * The sets ...mixed store keys and values as bf16 and multiply floats. */
CA_API ca_dtype ca_kern_flow_dtype(const ca_kern *kern);

/* One line of `compactattn doctor`. */
typedef struct ca_kern_report {
    const char *name; /* static */
    bool usable;      /* this CPU can run it */
    bool chosen;      /* ca_kern_choose(isa) returns it */
    char why[128];    /* why it is refused; empty when chosen */
} ca_kern_report;

enum { CA_KERN_REPORTS = 16 }; /* no build has more sets */

/* Fills out[0..max) best first and returns how many kernel sets the build holds. Thread-safe. */
CA_API size_t ca_kern_reports(const char *isa, ca_kern_report *out, size_t max);

/* CPU name as the processor gives it, and its relevant flags ("avx2 fma avx512f avx512_bf16"). Writes a terminated string. */
CA_API void ca_cpu_name(char *buf, size_t len);
CA_API void ca_cpu_flags(char *buf, size_t len);

/* Measured peak of the kernel set's multiply-add instruction over n_threads threads, in GFLOP/s (a multiply and an add count
 * two): the best of rounds runs of about a millisecond each. This is the denominator of every share_of_peak. */
CA_API double ca_kern_peak_gflops(const ca_kern *kern, int n_threads, int rounds);

/* Bytes that this process can still take: the least of what the system has available, what its control group's limit leaves (file
 * cache counts as free) and what the limit of its address space leaves. The largest number where the system says nothing. */
CA_API uint64_t ca_memory_available(void);

/* Measured speed at which n_threads threads together read memory that no cache holds, in GB/s (1e9 bytes a second): the best of rounds
 * passes over at least 256 MiB that are taken for the call, or over half of the memory that is free. Passes take turns with and without
 * asking for lines ahead. CA_E_ARG for less than one thread or round, CA_E_MEMORY when there is no room. */
CA_API ca_status ca_memory_bandwidth(int n_threads, int rounds, double *gb_per_s);

#ifdef __cplusplus
}
#endif
#endif
