/* FlashPrefill: every query of a Q block against the mean key of every block (spec/attention.md 2.2, 2.3).
 * Unlike the reference, mean keys are fp32, and queries past the end of the chunk do not exist instead of counting as zeros. */
#include <math.h>
#include <omp.h>

#include "select/select.h"

static ca_status check(const ca_select_opt *opt)
{
    const ca_flashprefill_opt *o = &opt->flashprefill;
    if (!(o->alpha >= 0.0F) || isinf(o->alpha))
        return ca_fail(CA_E_ARG, "flashprefill: alpha %g is not a number >= 0", (double)o->alpha);
    if (o->window == 0) return ca_fail(CA_E_ARG, "flashprefill: window 0: it counts the diagonal block, so at least 1 token");
    return CA_OK;
}

/* Per thread: m, e and the scores of one row. */
static size_t row_floats(uint32_t n_kblocks)
{
    return 3 * ca_align_up(n_kblocks, 16);
}

static size_t ws_bytes(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_heads, uint32_t n_tokens, uint32_t kv_tokens)
{
    (void)opt, (void)n_heads, (void)n_tokens;
    return (size_t)omp_get_max_threads() * row_floats(ca_ceil_div(kv_tokens, cache->opt.page_tokens)) * sizeof(float) + 64;
}

/* S[j] = w[j] / (sum w + 1e-9), w[j] = e[j] 2^(m[j] - max m). */
static void normalise(const float *m, const float *e, uint32_t n, float *score)
{
    float top = -INFINITY, sum = 0.0F;
    for (uint32_t j = 0; j < n; j++) top = fmaxf(top, m[j]);
    for (uint32_t j = 0; j < n; j++) {
        score[j] = e[j] == 0.0F ? 0.0F : e[j] * exp2f(m[j] - top);
        sum += score[j];
    }
    const float inv = 1.0F / (sum + 1e-9F);
    for (uint32_t j = 0; j < n; j++) score[j] *= inv;
}

/* One row: what the kernel gave, and the scores. */
typedef struct scored {
    float *m, *e, *score; /* [n_kblocks]; m and e are scratch once blocks were compared */
} scored;

/* What alpha compares: scores, or for free_max their logarithms, log2 w[j] + const = m[j] + log2 e[j]. A score beside a sink that takes
 * nearly all of the row is 0, whatever its block is among the free ones. */
static float compared(const ca_flashprefill_opt *o, const scored *s, uint32_t j)
{
    return o->free_max ? s->m[j] + log2f(s->e[j]) : s->score[j];
}

/* The n best blocks. Their order is that of the scores, and where a score beside a sink is next to nothing, that of its logarithm, which
 * is below 0 there. */
static void keep_best(const scored *s, uint32_t diag, uint32_t n, uint64_t *row)
{
    const float little = 1e-30F;
    float top = -1e30F; /* a block without a visible query has m = -inf, and all of them may */
    for (uint32_t j = 0; j <= diag; j++) top = fmaxf(top, s->m[j]);
    for (uint32_t j = 0; j <= diag; j++) s->e[j] = s->score[j] >= little ? s->score[j] : s->m[j] - top + log2f(s->e[j]);
    ca_mask_keep_best(row, s->e, diag, n, (uint32_t *)(void *)s->m);
}

/* Rule 2.3 for one row; diag is the absolute index of the Q block. Sink and window are tokens, rounded up to blocks. */
static void keep_row(const ca_flashprefill_opt *o, uint32_t block_tokens, const scored *s, uint32_t diag, bool dense, uint64_t *row)
{
    const uint32_t sink = ca_ceil_div(o->sink, block_tokens), window = ca_ceil_div(o->window, block_tokens);
    float top = o->free_max ? -INFINITY : 0.0F;
    for (uint32_t j = 0; j <= diag; j++)
        if (!o->free_max || (j >= sink && diag - j >= window)) top = fmaxf(top, compared(o, s, j));
    const float bar = o->free_max ? top + log2f(o->alpha) : o->alpha * top;
    for (uint32_t j = 0; j <= diag; j++)
        if (dense || j < sink || diag - j < window || compared(o, s, j) >= bar) ca_mask_keep(row, j);
    if (o->min_budget > 0) keep_best(s, diag, o->min_budget, row);
}

/* The last n_mute Q blocks have no vote: they read what those before them chose, head by head. Unions over the chunk stay the same. */
static void follow_voters(const ca_mask *mask, uint32_t n_mute)
{
    const uint32_t n_voters = mask->n_qblocks - n_mute;
    for (uint32_t h = 0; h < mask->n_heads; h++)
        for (uint32_t i = n_voters; i < mask->n_qblocks; i++)
            for (uint32_t v = 0; v < n_voters; v++)
                for (uint32_t w = 0; w < mask->words; w++) ca_mask_row(mask, h, i)[w] |= ca_mask_row(mask, h, v)[w];
}

static ca_status run(const ca_select_job *job)
{
    const ca_cache *cache = job->cache;
    const ca_mask *mask = job->mask;
    const ca_flashprefill_opt *o = &job->opt->flashprefill;
    const uint32_t bs = cache->opt.page_tokens, dim = cache->opt.head_dim, nk = mask->n_kblocks;
    const uint32_t group = mask->n_heads / cache->opt.n_kv_heads;
    const uint32_t n_mute = ca_min_u32(o->last_mute, mask->n_qblocks - 1);
    const int n_threads = omp_get_max_threads();
    void *mem = NULL;
    CA_TRY(ca_ws_take(job->ws, "flashprefill", (size_t)n_threads, row_floats(nk) * sizeof(float), &mem));
#pragma omp parallel for schedule(dynamic) num_threads(n_threads)
    for (uint32_t task = 0; task < mask->n_heads * mask->n_qblocks; task++) {
        const uint32_t h = task / mask->n_qblocks, i = task % mask->n_qblocks, diag = mask->first_qblock + i;
        uint32_t from, to;
        ca_qblock_span(cache, mask, i, &from, &to);
        scored s = { .m = (float *)mem + (size_t)omp_get_thread_num() * row_floats(nk) };
        s.e = s.m + ca_align_up(nk, 16);
        s.score = job->scores ? job->scores + (size_t)task * nk : s.e + ca_align_up(nk, 16);
        const ca_score_job score_job = {
            .q = job->q->q + (size_t)(from - job->chunk->pos) * job->q->stride + (size_t)h * dim,
            .q_stride = job->q->stride,
            .n_rows = to - from,
            .pos = from,
            .block = bs,
            .head_dim = dim,
            .means = ca_cache_head(cache, job->chunk->seq, job->chunk->layer, h / group)->mean_k,
            .n_means = nk,
            .scale = 1.0F / sqrtf((float)dim),
            .m = s.m,
            .e = s.e,
        };
        cache->opt.kern->score(&score_job);
        normalise(s.m, s.e, nk, s.score);
        if (i + n_mute >= mask->n_qblocks) continue;
        keep_row(o, bs, &s, diag, o->last_dense >= mask->n_qblocks - i, ca_mask_row(mask, h, i));
    }
    follow_voters(mask, n_mute);
    return CA_OK;
}

const ca_selector_vt ca_select_flashprefill = {
    .name = "flashprefill",
    .summaries = CA_SUMMARY_MEAN_K,
    .check = check,
    .ws_bytes = ws_bytes,
    .run = run,
};
