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

#endif
