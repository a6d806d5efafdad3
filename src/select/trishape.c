/* The static shape of StreamingLLM and MInference's tri-shape: first tokens and a window (spec/selectors-learned.md E.1),
 *   j < ceil(sink / B) or j >= i - ceil(window / B),
 * so that the first query of Q block i sees its last `window` tokens, too. The dense last queries of the tri-shape are a session's dense
 * tail. */
#include "select/select.h"

static ca_status check(const ca_select_opt *opt)
{
    if (opt->trishape.window > 0) return CA_OK;
    return ca_fail(CA_E_ARG, "trishape: window 0: it counts the query's own token, so at least 1");
}

static ca_status run(const ca_select_job *job)
{
    const ca_mask *mask = job->mask;
    const uint32_t bs = job->cache->opt.page_tokens;
    const uint32_t sink = ca_ceil_div(job->opt->trishape.sink, bs), window = ca_ceil_div(job->opt->trishape.window, bs);
    for (uint32_t h = 0; h < mask->n_heads; h++)
        for (uint32_t i = 0; i < mask->n_qblocks; i++)
            for (uint32_t j = 0, diag = mask->first_qblock + i; j <= diag; j++)
                if (j < sink || diag - j <= window) ca_mask_keep(ca_mask_row(mask, h, i), j);
    return CA_OK;
}

const ca_selector_vt ca_select_trishape = {
    .name = "trishape",
    .check = check,
    .run = run,
};
