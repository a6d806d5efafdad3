/* The true attention mass of every block: softmax over all visible keys, summed per block and averaged over the queries of a Q block
 * (spec/selectors-learned.md E.8). As much work as half of dense attention, and slower. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "select/select.h"

static ca_status check(const ca_select_opt *opt)
{
    const ca_oracle_opt *o = &opt->oracle;
    if (!(o->mass >= 0.0F && o->mass <= 1.0F)) return ca_fail(CA_E_ARG, "oracle: mass %g is not in [0, 1]", (double)o->mass);
    if (o->scale >= 0.0F && isfinite(o->scale)) return CA_OK;
    return ca_fail(CA_E_ARG, "oracle: scale %g is not a number >= 0", (double)o->scale);
}

typedef struct scratch {
    unsigned char *packed; /* CA_ATTN_BLOCK query vectors */
    float *s;              /* [CA_ATTN_BLOCK][page_tokens] */
    float *m, *e;          /* [n_kblocks][CA_ATTN_BLOCK]: log-sum-exp of each query and block */
    float *score;          /* [n_kblocks] */
    uint32_t *heap;        /* [n_kblocks] */
} scratch;

static size_t scratch_bytes(const ca_cache *cache, uint32_t n_kblocks)
{
    const size_t nk = ca_align_up(n_kblocks, 16), bs = cache->opt.page_tokens;
    return ca_pack_q_bytes(CA_ATTN_BLOCK, cache->opt.head_dim) + (CA_ATTN_BLOCK * (bs + 2 * nk) + 2 * nk) * sizeof(float);
}

static scratch cut_scratch(const ca_cache *cache, uint32_t n_kblocks, void *mem)
{
    const size_t nk = ca_align_up(n_kblocks, 16), bs = cache->opt.page_tokens;
    scratch s = { .packed = mem };
    s.s = (float *)(void *)(s.packed + ca_pack_q_bytes(CA_ATTN_BLOCK, cache->opt.head_dim));
    s.m = s.s + CA_ATTN_BLOCK * bs;
    s.e = s.m + CA_ATTN_BLOCK * nk;
    s.score = s.e + CA_ATTN_BLOCK * nk;
    s.heap = (uint32_t *)(void *)(s.score + nk);
    return s;
}

static size_t ws_bytes(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_heads, uint32_t n_tokens, uint32_t kv_tokens)
{
    (void)opt, (void)n_heads, (void)n_tokens;
    return (size_t)omp_get_max_threads() * scratch_bytes(cache, ca_ceil_div(kv_tokens, cache->opt.page_tokens)) + 64;
}

/* Adds the mass of n <= CA_ATTN_BLOCK queries, the first at position pos, to s->score. */
static void add_mass(const ca_cache *cache, const uint32_t *pages, float scale, const float *q, size_t stride, uint32_t pos,
                     uint32_t n, const scratch *s)
{
    const uint32_t bs = cache->opt.page_tokens, dim = cache->opt.head_dim, last = (pos + n - 1) / bs;
    const float c = 1.44269504F * scale;
    cache->opt.kern->pack_q(q, stride, n, dim, s->packed);
    for (uint32_t j = 0; j <= last; j++) {
        cache->opt.kern->qk(&(ca_qk_job){ s->packed, n, ca_page_data(cache, pages[j]), bs, dim, s->s });
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t seen = pos + i < j * bs ? 0 : ca_min_u32(pos + i - j * bs + 1, bs);
            const size_t at = (size_t)j * CA_ATTN_BLOCK + i;
            s->m[at] = cache->opt.kern->lse(s->s + (size_t)i * bs, seen, c, &s->e[at]);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        float top = -INFINITY;
        double sum = 0.0;
        for (uint32_t j = 0; j <= last; j++) top = fmaxf(top, s->m[(size_t)j * CA_ATTN_BLOCK + i]);
        for (uint32_t j = 0; j <= last; j++) {
            const size_t at = (size_t)j * CA_ATTN_BLOCK + i;
            s->e[at] *= exp2f(s->m[at] - top);
            sum += (double)s->e[at];
        }
        for (uint32_t j = 0; j <= last; j++) s->score[j] += s->e[(size_t)j * CA_ATTN_BLOCK + i] / (float)sum;
    }
}

static ca_status run(const ca_select_job *job)
{
    const ca_cache *cache = job->cache;
    const ca_mask *mask = job->mask;
    const uint32_t dim = cache->opt.head_dim, nk = mask->n_kblocks, group = mask->n_heads / cache->opt.n_kv_heads;
    const float scale = job->opt->oracle.scale > 0.0F ? job->opt->oracle.scale : 1.0F / sqrtf((float)dim);
    const int n_threads = omp_get_max_threads();
    void *mem = NULL;
    CA_TRY(ca_ws_take(job->ws, "oracle", (size_t)n_threads, scratch_bytes(cache, nk), &mem));
#pragma omp parallel for schedule(dynamic) num_threads(n_threads)
    for (uint32_t task = 0; task < mask->n_heads * mask->n_qblocks; task++) {
        const uint32_t h = task / mask->n_qblocks, i = task % mask->n_qblocks, diag = mask->first_qblock + i;
        const scratch s = cut_scratch(cache, nk, (unsigned char *)mem + (size_t)omp_get_thread_num() * scratch_bytes(cache, nk));
        const uint32_t *pages = ca_cache_head(cache, job->chunk->seq, job->chunk->layer, h / group)->pages;
        uint32_t from, to;
        ca_qblock_span(cache, mask, i, &from, &to);
        memset(s.score, 0, nk * sizeof *s.score);
        for (uint32_t t = from; t < to; t += CA_ATTN_BLOCK)
            add_mass(cache, pages, scale, job->q->q + (size_t)(t - job->chunk->pos) * job->q->stride + (size_t)h * dim,
                     job->q->stride, t, ca_min_u32(CA_ATTN_BLOCK, to - t), &s);
        for (uint32_t j = 0; j <= diag; j++) s.score[j] /= (float)(to - from);
        if (job->scores) memcpy(job->scores + (size_t)task * nk, s.score, (diag + 1) * sizeof *s.score);
        ca_mask_keep_share(ca_mask_row(mask, h, i), s.score, diag, job->opt->oracle.mass, s.heap);
    }
    return CA_OK;
}

const ca_selector_vt ca_select_oracle = {
    .name = "oracle",
    .check = check,
    .ws_bytes = ws_bytes,
    .run = run,
};
