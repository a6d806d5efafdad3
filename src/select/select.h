/* One vtable for selectors, and the rules that several of them share. */
#ifndef CA_SELECT_SELECT_H
#define CA_SELECT_SELECT_H

#include <compactattn/select.h>

#include "select/mask.h"

typedef struct ca_select_job {
    const ca_cache *cache;
    const ca_select_opt *opt;
    const ca_chunk *chunk;
    const ca_queries *q;
    ca_workspace *ws;
    ca_mask *mask;
    float *scores; /* may be NULL */
} ca_select_job;

typedef struct ca_selector_vt {
    const char *name;
    uint32_t summaries;
    ca_status (*check)(const ca_select_opt *opt);
    /* NULL: none is needed */
    size_t (*ws_bytes)(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_heads, uint32_t n_tokens, uint32_t kv_tokens);
    ca_status (*run)(const ca_select_job *job); /* NULL for a selector of tokens */
} ca_selector_vt;

extern const ca_selector_vt ca_select_flashprefill, ca_select_seer, ca_select_quoka, ca_select_xattention, ca_select_minference,
    ca_select_trishape, ca_select_oracle, ca_select_user;

/* ca_select_tokens once its arguments are checked; scores as there. */
ca_status ca_select_tokens_quoka(const ca_select_job *job, uint32_t *tokens, uint32_t *n);

/* Q block i of the mask: absolute positions [from, to) of its queries. */
void ca_qblock_span(const ca_cache *cache, const ca_mask *mask, uint32_t i, uint32_t *from, uint32_t *to);

/* Row of one head and Q block. */
static inline uint64_t *ca_mask_row(const ca_mask *mask, uint32_t head, uint32_t qblock)
{
    return mask->bits + ((size_t)head * mask->n_qblocks + qblock) * mask->words;
}

static inline void ca_mask_keep(uint64_t *row, uint32_t block)
{
    row[block / 64] |= UINT64_C(1) << (block % 64);
}

/* Keeps blocks by falling score, the lower block first among equals, while what is kept before holds less than share of the sum of
 * score[0..diag]; the first block and the diagonal are kept from the start (selectors-learned.md C.2). heap: [diag + 1] scratch. */
void ca_mask_keep_share(uint64_t *row, const float *score, uint32_t diag, float share, uint32_t *heap);

/* Keeps the n best of score[0..diag], the lower block first among equals. heap: [diag + 1] scratch. */
void ca_mask_keep_best(uint64_t *row, const float *score, uint32_t diag, uint32_t n, uint32_t *heap);

#endif
