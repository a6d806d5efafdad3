/* Kernel set amxbf16: attention on AMX tiles; all else, and the pages, as set avx512bf16. */
#define CA_VEC_BF16 1
#include "kern/vec_avx512.h"

#include "kern/attn_amx.h"
#include "kern/glue_body.h"
#include "kern/score_body.h"
#include "kern/select_body.h"
#include "kern/sets.h"

#define KERN_SYMBOL ca_kern_amxbf16
#define KERN_NAME "amxbf16"
#define KERN_FLAGS (CA_CPU_AVX512 | CA_CPU_AVX512_BF16 | CA_CPU_AMX_BF16)
#define KERN_CODED NULL
#include "kern/kern_set.h"
