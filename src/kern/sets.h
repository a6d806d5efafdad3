/* Every kernel set of this build. */
#ifndef CA_KERN_SETS_H
#define CA_KERN_SETS_H

#include "kern/kern.h"

extern const ca_kern ca_kern_amxbf16, ca_kern_avx512bf16, ca_kern_avx512mixed, ca_kern_avx512, ca_kern_avx2mixed, ca_kern_avx2,
    ca_kern_neonbf16, ca_kern_neonmixed, ca_kern_neon, ca_kern_scalar;

#endif
