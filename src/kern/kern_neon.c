/* Kernel set neon: the shared bodies over its vector operations, in fp32. */
#include "kern/vec_neon.h"

#include "kern/attn_body.h"
#include "kern/coded_body.h"
#include "kern/glue_body.h"
#include "kern/score_body.h"
#include "kern/select_body.h"
#include "kern/sets.h"

#define KERN_SYMBOL ca_kern_neon
#define KERN_NAME "neon"
#define KERN_FLAGS CA_CPU_NEON
#define KERN_CODED coded
#include "kern/kern_set.h"
