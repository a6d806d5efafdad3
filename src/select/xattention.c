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

/* Query vectors of a task are those of one or several units, a unit being one head and one Q block: so many rows that a page serves
 * all of them from L1 and tiles are full, and as few as L2 holds. */
enum { TASK_ROWS = 48 };

static ca_status check(const ca_select_opt *opt)
{
    const ca_xattention_opt *o = &opt->xattention;
    if (o->stride != 8 && o->stride != 16) return ca_fail(CA_E_ARG, "xattention: stride %u is not 8 or 16", o->stride);
    if (o->threshold >= 0.0F && o->threshold <= 1.0F) return CA_OK;
    return ca_fail(CA_E_ARG, "xattention: threshold %g is not in [0, 1]", (double)o->threshold);
}

typedef struct scratch {
    unsigned char *packed;
    float *e;       /* [rows of a task][strides] */
    float *score;   /* [n_kblocks] */
    uint32_t *heap; /* [n_kblocks] */
} scratch;

/* Strides of a Q block, rows of a unit; and units of a task. */
static uint32_t unit_rows(const ca_cache *cache, const ca_select_opt *opt)
{
    return cache->opt.page_tokens / opt->xattention.stride;
}

static uint32_t task_units(const ca_cache *cache, const ca_select_opt *opt)
{
    return TASK_ROWS / unit_rows(cache, opt);
}

static size_t scratch_bytes(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_kblocks)
{
    const size_t strides = ca_align_up((size_t)n_kblocks * unit_rows(cache, opt), 16);
    const size_t floats = TASK_ROWS * strides + 2 * ca_align_up(n_kblocks, 16);
    return ca_pack_diag_bytes(TASK_ROWS, cache->opt.head_dim) + floats * sizeof(float);
}

static scratch cut_scratch(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_kblocks, void *mem)
{
    scratch s = { .packed = mem };
    s.e = (float *)(void *)(s.packed + ca_pack_diag_bytes(TASK_ROWS, cache->opt.head_dim));
    s.score = s.e + TASK_ROWS * ca_align_up((size_t)n_kblocks * unit_rows(cache, opt), 16);
    s.heap = (uint32_t *)(void *)(s.score + ca_align_up(n_kblocks, 16));
    return s;
}

static size_t ws_bytes(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_heads, uint32_t n_tokens, uint32_t kv_tokens)
{
    (void)n_heads, (void)n_tokens;
    return (size_t)omp_get_max_threads() * scratch_bytes(cache, opt, ca_ceil_div(kv_tokens, cache->opt.page_tokens)) + 64;
}

/* Softmax of row r (absolute) over the strides 0..r; its parts are added to the blocks they lie in. */
static void add_row(const ca_kern *kern, float *e, uint32_t r, uint32_t per_block, float c, float *score)
{
    const float inv = 1.0F / kern->powers(e, r + 1, c);
    for (uint32_t at = 0, j = 0; at <= r; j++) {
        float part = 0.0F;
        for (const uint32_t end = ca_min_u32(at + per_block, r + 1); at < end; at++) part += e[at];
        score[j] += part * inv;
    }
}

/* Units [first, last) of a KV head: unit u is head u % group of its group, Q block u / group of the chunk. */
static void run_units(const ca_select_job *job, uint32_t kv_head, uint32_t first, uint32_t last, const scratch *s)
{
    const ca_cache *cache = job->cache;
    const ca_mask *mask = job->mask;
    const ca_kern *kern = cache->opt.kern;
    const uint32_t bs = cache->opt.page_tokens, dim = cache->opt.head_dim, stride = job->opt->xattention.stride;
    const uint32_t rows = unit_rows(cache, job->opt), group = mask->n_heads / cache->opt.n_kv_heads;
    const uint32_t *pages = ca_cache_head(cache, job->chunk->seq, job->chunk->layer, kv_head)->pages;
    const uint32_t last_page = mask->first_qblock + (last - 1) / group;
    const size_t e_stride = (size_t)(last_page + 1) * rows;
    const float c = 1.44269504F / ((float)stride * sqrtf((float)dim));
    for (uint32_t u = first; u < last; u++) {
        uint32_t from, to;
        ca_qblock_span(cache, mask, u / group, &from, &to);
        const float *q = job->q->q + (size_t)(from - job->chunk->pos) * job->q->stride +
                         (size_t)(kv_head * group + u % group) * dim;
        kern->pack_diag(q, job->q->stride, from % bs, to - from, (u - first) * rows, rows, stride, dim, s->packed);
    }
    for (uint32_t j = 0; j <= last_page; j++)
        kern->diag(&(ca_diag_job){ .packed = s->packed,
                                   .n_rows = (last - first) * rows,
                                   .stride = stride,
                                   .page = ca_page_data(cache, pages[j]),
                                   .next = j < last_page ? ca_page_data(cache, pages[j + 1]) : NULL,
                                   .page_tokens = bs,
                                   .head_dim = dim,
                                   .e = s->e + (size_t)j * rows,
                                   .e_stride = e_stride });
    for (uint32_t u = first; u < last; u++) {
        const uint32_t h = kv_head * group + u % group, i = u / group, diag = mask->first_qblock + i;
        uint32_t from, to;
        ca_qblock_span(cache, mask, i, &from, &to);
        memset(s->score, 0, (diag + 1) * sizeof *s->score);
        for (uint32_t r = from % bs / stride; r * stride < to - diag * bs; r++)
            add_row(kern, s->e + ((u - first) * rows + r) * e_stride, diag * rows + r, rows, c, s->score);
        if (job->scores)
            memcpy(job->scores + ((size_t)h * mask->n_qblocks + i) * mask->n_kblocks, s->score, (diag + 1) * sizeof *s->score);
        ca_mask_keep_share(ca_mask_row(mask, h, i), s->score, diag, job->opt->xattention.threshold, s->heap);
    }
}

static ca_status run(const ca_select_job *job)
{
    const ca_cache *cache = job->cache;
    const ca_mask *mask = job->mask;
    const uint32_t units = mask->n_heads / cache->opt.n_kv_heads * mask->n_qblocks, step = task_units(cache, job->opt);
    const uint32_t tasks = ca_ceil_div(units, step);
    const size_t bytes = scratch_bytes(cache, job->opt, mask->n_kblocks);
    const int n_threads = omp_get_max_threads();
    void *mem = NULL;
    CA_TRY(ca_ws_take(job->ws, "xattention", (size_t)n_threads, bytes, &mem));
#pragma omp parallel for schedule(dynamic) num_threads(n_threads)
    for (uint32_t i = 0; i < cache->opt.n_kv_heads * tasks; i++) {
        unsigned char *own = (unsigned char *)mem + (size_t)omp_get_thread_num() * bytes;
        const scratch s = cut_scratch(cache, job->opt, mask->n_kblocks, own);
        const uint32_t first = i % tasks * step;
        run_units(job, i / tasks, first, ca_min_u32(first + step, units), &s);
    }
    return CA_OK;
}

const ca_selector_vt ca_select_xattention = {
    .name = "xattention",
    .check = check,
    .ws_bytes = ws_bytes,
    .run = run,
};
