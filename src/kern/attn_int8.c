/* The choice among the integer attention kernels. */
#include "kern/attn_int8.h"

const char *ca_attention_name(ca_attention attention)
{
    return attention == CA_ATTENTION_INT8 ? "int8" : "native";
}

const ca_attn_int8 *ca_attn_int8_choose(const ca_kern *kern, uint32_t page_tokens)
{
    const ca_attn_int8 *one = NULL;
#if defined(__x86_64__)
    one = &ca_attn_int8_avx512vnni;
#endif
    /* of no newer kind than the set, whose panels it reads */
    const bool tiles = (kern->cpu_flags & CA_CPU_AMX_BF16) != 0; /* whose own products are faster */
    const bool runs = one && !tiles && (one->cpu_flags & ~ca_cpu_features()) == 0 && (one->sets & kern->cpu_flags) != 0;
    return runs && page_tokens % CA_ATTN_INT8_PANEL == 0 && CA_ATTN_INT8_GROUP % page_tokens == 0 ? one : NULL;
}

const char *ca_kern_int8_attention_name(const ca_kern *kern, uint32_t page_tokens)
{
    const ca_attn_int8 *one = page_tokens > 0 ? ca_attn_int8_choose(kern, page_tokens) : NULL;
    return one ? one->name : NULL;
}
