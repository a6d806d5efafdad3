/* The choice among the integer attention kernels. */
#include "kern/attn_int8.h"

const char *ca_attention_name(ca_attention attention)
{
    return attention == CA_ATTENTION_INT8 ? "int8" : "native";
}

const ca_attn_int8 *ca_attn_int8_choose(const ca_kern *kern, uint32_t page_tokens)
{
    static const ca_attn_int8 *const all[] = {
#if defined(__x86_64__)
        &ca_attn_int8_avx512vnni,
        &ca_attn_int8_avxvnni,
#elif defined(__aarch64__)
        &ca_attn_int8_neoni8mm,
#endif
        NULL,
    };
    const uint32_t features = ca_cpu_features();
    const bool fits = page_tokens > 0 && CA_ATTN_INT8_GROUP % page_tokens == 0;
    if (!fits || (kern->cpu_flags & CA_CPU_AMX_BF16) != 0) return NULL; /* the products of tiles are faster */
    for (size_t i = 0; all[i]; i++)
        if ((all[i]->cpu_flags & ~features) == 0 && kern->k_panel == all[i]->panel && page_tokens % all[i]->panel == 0)
            return all[i];
    return NULL;
}

const char *ca_kern_int8_attention_name(const ca_kern *kern, uint32_t page_tokens)
{
    const ca_attn_int8 *one = ca_attn_int8_choose(kern, page_tokens);
    return one ? one->name : NULL;
}
