/* Kernel set avx2mixed: that of avx2, but keys and values are stored as bf16. */
#define CA_VEC_MIXED 1
#include "kern/vec_avx2.h"

#include "kern/attn_body.h"
#include "kern/coded_body.h"
#include "kern/glue_body.h"
#include "kern/score_body.h"
#include "kern/select_body.h"
#include "kern/sets.h"

#define KERN_SYMBOL ca_kern_avx2mixed
#define KERN_NAME "avx2mixed"
#define KERN_FLAGS CA_CPU_AVX2_FMA
#define KERN_CODED coded
#include "kern/kern_set.h"
