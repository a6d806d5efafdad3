/* What every vec_<isa>.h needs: how to ask the compiler for register tiles. */
#ifndef CA_KERN_VEC_COMMON_H
#define CA_KERN_VEC_COMMON_H

#define V_INLINE static inline __attribute__((always_inline))

/* Stands before a loop whose trip count is a constant: the tile's arrays become registers only when it is unrolled completely. */
#if defined(__clang__)
#define V_UNROLL _Pragma("clang loop unroll(full)")
#else
#define V_UNROLL _Pragma("GCC unroll 24")
#endif

/* 2^f on [0, 1), relative error 7.5e-5: enough for probabilities of values that are bf16 (2e-3). */
#define V_EXP2_CUBIC(f)                                                                                                            \
    v_fma(v_fma(v_fma(v_set1(0.078024545F), f, v_set1(0.226067138F)), f, v_set1(0.695833539F)), f, v_set1(0.999925218F))

#endif
