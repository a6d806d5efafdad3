/* MInference's block-sparse pattern: the mean query of a Q block against mean keys, the top_k best blocks (selectors-learned.md E.3). */
#include <omp.h>
#include <string.h>

#include "select/select.h"

enum { MAX_DIM = 256 };

static ca_status check(const ca_select_opt *opt)
{
    return opt->minference.top_k > 0 ? CA_OK : ca_fail(CA_E_ARG, "minference: top_k 0: at least 1 block");
}

/* Per thread: products and the heap. */
static size_t thread_floats(uint32_t n_kblocks)
{
    return 2 * ca_align_up(n_kblocks, 16);
}

static size_t ws_bytes(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_heads, uint32_t n_tokens, uint32_t kv_tokens)
{
    (void)opt, (void)n_heads, (void)n_tokens;
    return (size_t)omp_get_max_threads() * thread_floats(ca_ceil_div(kv_tokens, cache->opt.page_tokens)) * sizeof(float) + 64;
}

static ca_status run(const ca_select_job *job)
{
    const ca_cache *cache = job->cache;
    const ca_mask *mask = job->mask;
    const uint32_t dim = cache->opt.head_dim, nk = mask->n_kblocks, group = mask->n_heads / cache->opt.n_kv_heads;
    const int n_threads = omp_get_max_threads();
    void *mem = NULL;
    CA_TRY(ca_ws_take(job->ws, "minference", (size_t)n_threads, thread_floats(nk) * sizeof(float), &mem));
#pragma omp parallel for schedule(dynamic) num_threads(n_threads)
    for (uint32_t task = 0; task < mask->n_heads * mask->n_qblocks; task++) {
        const uint32_t h = task / mask->n_qblocks, i = task % mask->n_qblocks, diag = mask->first_qblock + i;
        float *score = (float *)mem + (size_t)omp_get_thread_num() * thread_floats(nk), mean[MAX_DIM] = { 0 };
        uint32_t from, to;
        ca_qblock_span(cache, mask, i, &from, &to);
        for (uint32_t t = from; t < to; t++) {
            const float *q = job->q->q + (size_t)(t - job->chunk->pos) * job->q->stride + (size_t)h * dim;
            for (uint32_t d = 0; d < dim; d++) mean[d] += q[d];
        }
        for (uint32_t d = 0; d < dim; d++) mean[d] /= (float)(to - from);
        const float *means = ca_cache_head(cache, job->chunk->seq, job->chunk->layer, h / group)->mean_k;
        cache->opt.kern->panel_dot(mean, 0, 1, means, dim, nk, score, 0);
        if (job->scores) memcpy(job->scores + (size_t)task * nk, score, (diag + 1) * sizeof *score);
        uint64_t *row = ca_mask_row(mask, h, i);
        ca_mask_keep_best(row, score, diag, job->opt->minference.top_k, (uint32_t *)(void *)(score + ca_align_up(nk, 16)));
        ca_mask_keep(row, 0);
        ca_mask_keep(row, diag);
    }
    return CA_OK;
}

const ca_selector_vt ca_select_minference = {
    .name = "minference",
    .summaries = CA_SUMMARY_MEAN_K,
    .check = check,
    .ws_bytes = ws_bytes,
    .run = run,
};
