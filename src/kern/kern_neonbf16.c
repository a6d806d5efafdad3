/* Kernel set neonbf16: the shared bodies over its vector operations, products of bf16 pairs. */
#define CA_VEC_BF16 1
#include "kern/vec_neon.h"

#include "kern/attn_body.h"
#include "kern/coded_body.h"
#include "kern/glue_body.h"
#include "kern/score_body.h"
#include "kern/select_body.h"
#include "kern/sets.h"

#define KERN_SYMBOL ca_kern_neonbf16
#define KERN_NAME "neonbf16"
#define KERN_FLAGS (CA_CPU_NEON | CA_CPU_NEON_BF16)
#define KERN_CODED coded
#include "kern/kern_set.h"
