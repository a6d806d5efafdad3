/* One vtable for selectors. */
#ifndef CA_SELECT_SELECT_H
#define CA_SELECT_SELECT_H

#include <compactattn/select.h>

#include "select/mask.h"

typedef struct ca_select_job {
    const ca_cache *cache;
    const ca_select_opt *opt;
    const ca_chunk *chunk;
    const float *q;
    size_t stride;
    ca_workspace *ws;
    ca_mask *mask;
    float *scores; /* may be NULL */
} ca_select_job;

typedef struct ca_selector_vt {
    const char *name;
    uint32_t summaries;
    ca_status (*check)(const ca_select_opt *opt);
    size_t (*ws_bytes)(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_heads, uint32_t n_tokens, uint32_t kv_tokens);
    ca_status (*run)(const ca_select_job *job);
} ca_selector_vt;

extern const ca_selector_vt ca_select_flashprefill;

#endif
