/* Kernel set avx2: the shared bodies over its vector operations. */
#include "kern/vec_avx2.h"

#include "kern/attn_body.h"
#include "kern/coded_body.h"
#include "kern/glue_body.h"
#include "kern/score_body.h"
#include "kern/select_body.h"
#include "kern/sets.h"

#define KERN_SYMBOL ca_kern_avx2
#define KERN_NAME "avx2"
#define KERN_FLAGS CA_CPU_AVX2_FMA
#define KERN_CODED coded
#include "kern/kern_set.h"
