/* Kernel set avx512bf16: the shared bodies over its vector operations. */
#define CA_VEC_BF16 1
#include "kern/vec_avx512.h"

#include "kern/attn_body.h"
#include "kern/coded_body.h"
#include "kern/glue_body.h"
#include "kern/score_body.h"
#include "kern/select_body.h"
#include "kern/sets.h"

#define KERN_SYMBOL ca_kern_avx512bf16
#define KERN_NAME "avx512bf16"
#define KERN_FLAGS (CA_CPU_AVX512 | CA_CPU_AVX512_BF16)
#define KERN_CODED coded
#include "kern/kern_set.h"
