/* Kernel set neonmixed: that of neon, but keys and values are stored as bf16. */
#define CA_VEC_MIXED 1
#include "kern/vec_neon.h"

#include "kern/attn_body.h"
#include "kern/coded_body.h"
#include "kern/glue_body.h"
#include "kern/score_body.h"
#include "kern/select_body.h"
#include "kern/sets.h"

#define KERN_SYMBOL ca_kern_neonmixed
#define KERN_NAME "neonmixed"
#define KERN_FLAGS CA_CPU_NEON
#define KERN_CODED coded
#include "kern/kern_set.h"
