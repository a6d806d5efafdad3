/* XAttention: sums along the antidiagonals of stride x stride tiles stand for whole tiles (spec/selectors-learned.md C).
 *
 *   E[r][c] = sum over t < s of q[(r + 1) s - 1 - t] . k[c s + t] / (s sqrt(D)),  r and c absolute strides
 *   P[r][c] = softmax over c <= r,   A[I][J] = sum of P over the strides of Q block I and K block J
 *
 * and per row of A the smallest set of blocks, the first and the diagonal among them, that holds the threshold's share. Queries that
 * a chunk does not have and keys that are not there yet are zero vectors, as in the reference; rows without a query do not count. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "select/select.h"

enum { MAX_ROWS = 128 / 8 };

static ca_status check(const ca_select_opt *opt)
{
    const ca_xattention_opt *o = &opt->xattention;
    if (o->stride != 8 && o->stride != 16) return ca_fail(CA_E_ARG, "xattention: stride %u is not 8 or 16", o->stride);
    if (o->threshold >= 0.0F && o->threshold <= 1.0F) return CA_OK;
    return ca_fail(CA_E_ARG, "xattention: threshold %g is not in [0, 1]", (double)o->threshold);
}

typedef struct scratch {
    unsigned char *packed;
    float *e;       /* [MAX_ROWS][strides] */
    float *score;   /* [n_kblocks] */
    uint32_t *heap; /* [n_kblocks] */
} scratch;

/* Strides of n_kblocks blocks, at the finest. */
static size_t max_strides(const ca_cache *cache, uint32_t n_kblocks)
{
    return ca_align_up((size_t)n_kblocks * cache->opt.page_tokens / 8, 16);
}

static size_t scratch_bytes(const ca_cache *cache, uint32_t n_kblocks)
{
    const size_t floats = MAX_ROWS * max_strides(cache, n_kblocks) + 2 * ca_align_up(n_kblocks, 16);
    return ca_pack_diag_bytes(MAX_ROWS, cache->opt.head_dim) + floats * sizeof(float);
}

static scratch cut_scratch(const ca_cache *cache, uint32_t n_kblocks, void *mem)
{
    scratch s = { .packed = mem };
    s.e = (float *)(void *)(s.packed + ca_pack_diag_bytes(MAX_ROWS, cache->opt.head_dim));
    s.score = s.e + MAX_ROWS * max_strides(cache, n_kblocks);
    s.heap = (uint32_t *)(void *)(s.score + ca_align_up(n_kblocks, 16));
    return s;
}

static size_t ws_bytes(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_heads, uint32_t n_tokens, uint32_t kv_tokens)
{
    (void)opt, (void)n_heads, (void)n_tokens;
    return (size_t)omp_get_max_threads() * scratch_bytes(cache, ca_ceil_div(kv_tokens, cache->opt.page_tokens)) + 64;
}

/* Softmax of row r (absolute) over the strides 0..r; its parts are added to the blocks they lie in. */
static void add_row(const ca_kern *kern, const float *e, uint32_t r, uint32_t per_block, float c, float *score)
{
    const uint32_t last = r / per_block;
    float sum = 0.0F;
    const float m = kern->lse(e, r + 1, c, &sum);
    for (uint32_t j = 0; j <= last; j++) {
        const uint32_t n = j == last ? r % per_block + 1 : per_block;
        float part = 0.0F;
        const float top = kern->lse(e + (size_t)j * per_block, n, c, &part);
        score[j] += part * exp2f(top - m) / sum;
    }
}

static ca_status run(const ca_select_job *job)
{
    const ca_cache *cache = job->cache;
    const ca_mask *mask = job->mask;
    const ca_kern *kern = cache->opt.kern;
    const uint32_t bs = cache->opt.page_tokens, dim = cache->opt.head_dim, nk = mask->n_kblocks;
    const uint32_t stride = job->opt->xattention.stride, per_block = bs / stride, group = mask->n_heads / cache->opt.n_kv_heads;
    const float c = 1.44269504F / ((float)stride * sqrtf((float)dim));
    const int n_threads = omp_get_max_threads();
    void *mem = NULL;
    CA_TRY(ca_ws_take(job->ws, "xattention", (size_t)n_threads, scratch_bytes(cache, nk), &mem));
#pragma omp parallel for schedule(dynamic) num_threads(n_threads)
    for (uint32_t task = 0; task < mask->n_heads * mask->n_qblocks; task++) {
        const uint32_t h = task / mask->n_qblocks, i = task % mask->n_qblocks, diag = mask->first_qblock + i;
        const scratch s = cut_scratch(cache, nk, (unsigned char *)mem + (size_t)omp_get_thread_num() * scratch_bytes(cache, nk));
        const uint32_t *pages = ca_cache_head(cache, job->chunk->seq, job->chunk->layer, h / group)->pages;
        const size_t e_stride = (size_t)(diag + 1) * per_block;
        uint32_t from, to;
        ca_qblock_span(cache, mask, i, &from, &to);
        const float *q = job->q->q + (size_t)(from - job->chunk->pos) * job->q->stride + (size_t)h * dim;
        kern->pack_diag(q, job->q->stride, from - diag * bs, to - from, per_block, stride, dim, s.packed);
        for (uint32_t j = 0; j <= diag; j++)
            kern->diag(&(ca_diag_job){ s.packed, per_block, stride, ca_page_data(cache, pages[j]), bs, dim,
                                       s.e + (size_t)j * per_block, e_stride });
        memset(s.score, 0, (diag + 1) * sizeof *s.score);
        for (uint32_t r = (from - diag * bs) / stride; r * stride < to - diag * bs; r++)
            add_row(kern, s.e + r * e_stride, diag * per_block + r, per_block, c, s.score);
        if (job->scores) memcpy(job->scores + (size_t)task * nk, s.score, (diag + 1) * sizeof *s.score);
        ca_mask_keep_share(ca_mask_row(mask, h, i), s.score, diag, job->opt->xattention.threshold, s.heap);
    }
    return CA_OK;
}

const ca_selector_vt ca_select_xattention = {
    .name = "xattention",
    .check = check,
    .ws_bytes = ws_bytes,
    .run = run,
};
