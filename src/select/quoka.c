/* QUOKA: the queries least like the mean query choose tokens of the past (spec/attention.md 3).
 *
 *   T[h]      = the query_ratio of the chunk's queries of head h with the smallest cosine to their mean
 *   ubar[g,a] = mean over the heads h of group g of T[h][a] / |T[h][a]|
 *   score[t]  = max over a of ubar[g,a] . k[t] / |k[t]|,  and the kv_ratio of the past with the largest scores is read
 *
 * The reference leaves open which queries of two heads share a slot a; here T[h] is in ascending order of position. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "select/select.h"

enum { MAX_DIM = 256 };

static ca_status check(const ca_select_opt *opt)
{
    const ca_quoka_opt *o = &opt->quoka;
    if (o->query_ratio > 0.0F && o->query_ratio <= 1.0F && o->kv_ratio > 0.0F && o->kv_ratio <= 1.0F) return CA_OK;
    return ca_fail(CA_E_ARG, "quoka: query_ratio %g and kv_ratio %g must be above 0 and at most 1", (double)o->query_ratio,
                   (double)o->kv_ratio);
}

/* max(1, floor(ratio n)); 0 for n = 0. */
static uint32_t share_of(float ratio, uint32_t n)
{
    return n == 0 ? 0 : ca_max_u32(1, ca_min_u32(n, (uint32_t)floor((double)ratio * n)));
}

uint32_t ca_select_gather_tokens(const ca_select_opt *opt, uint32_t kv_tokens)
{
    return opt->selector == CA_SELECT_QUOKA ? share_of(opt->quoka.kv_ratio, kv_tokens) : 0;
}

typedef struct plan {
    uint32_t n_tokens, n_queries, past, budget, n_packs;
    size_t q_words, k_words, pack_bytes, thread_floats;
} plan;

static plan plan_of(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_tokens, uint32_t past)
{
    plan p = { .n_tokens = n_tokens, .past = past };
    p.n_queries = share_of(opt->quoka.query_ratio, n_tokens);
    p.budget = share_of(opt->quoka.kv_ratio, past);
    p.n_packs = ca_ceil_div(p.n_queries, CA_ATTN_BLOCK);
    p.q_words = ca_mask_words(n_tokens);
    p.k_words = ca_mask_words(past);
    p.pack_bytes = ca_pack_q_bytes(CA_ATTN_BLOCK, cache->opt.head_dim);
    p.thread_floats = (size_t)CA_ATTN_BLOCK * ca_max_u32(cache->opt.head_dim, cache->opt.page_tokens);
    return p;
}

static size_t ws_bytes(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_heads, uint32_t n_tokens, uint32_t kv_tokens)
{
    const plan p = plan_of(cache, opt, n_tokens, kv_tokens);
    const size_t kv = cache->opt.n_kv_heads;
    const size_t queries = n_heads * ((size_t)n_tokens * 8 + p.q_words * 8 + (size_t)p.n_queries * 4);
    const size_t keys = kv * ((size_t)p.past * 8 + p.k_words * 8 + p.n_packs * p.pack_bytes);
    return queries + keys + (size_t)omp_get_max_threads() * p.thread_floats * 4 + 8 * 64;
}

/* All that is shared; heads and KV heads are worked on in parallel. */
typedef struct work {
    plan p;
    const ca_cache *cache;
    const ca_chunk *chunk;
    const ca_queries *q;
    float *unlike;       /* [n_heads][n_tokens]: minus the cosine */
    uint32_t *q_heap;    /* [n_heads][n_tokens] */
    uint64_t *q_bits;    /* [n_heads][q_words] */
    uint32_t *chosen;    /* [n_heads][n_queries]: T, ascending */
    unsigned char *pack; /* [n_kv_heads][n_packs][pack_bytes] */
    float *score;        /* [n_kv_heads][past] */
    uint32_t *k_heap;    /* [n_kv_heads][past] */
    uint64_t *k_bits;    /* [n_kv_heads][k_words] */
    float *thread;       /* [threads][thread_floats] */
} work;

static float *my_floats(const work *w)
{
    return w->thread + (size_t)omp_get_thread_num() * w->p.thread_floats;
}

static const float *query(const work *w, uint32_t head, uint32_t t)
{
    return w->q->q + (size_t)t * w->q->stride + (size_t)head * w->cache->opt.head_dim;
}

static double dot(const float *a, const float *b, uint32_t n)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* Positions of the set bits, ascending. */
static void list_bits(const uint64_t *bits, size_t words, uint32_t *out)
{
    for (size_t w = 0; w < words; w++)
        for (uint64_t left = bits[w]; left; left &= left - 1) *out++ = (uint32_t)(w * 64 + (size_t)__builtin_ctzll(left));
}

static void choose_queries(const work *w, uint32_t head)
{
    const uint32_t dim = w->cache->opt.head_dim, n = w->p.n_tokens;
    float mean[MAX_DIM] = { 0 };
    float *unlike = w->unlike + (size_t)head * n;
    uint64_t *bits = w->q_bits + head * w->p.q_words;
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t d = 0; d < dim; d++) mean[d] += query(w, head, t)[d];
    for (uint32_t d = 0; d < dim; d++) mean[d] /= (float)n;
    const double size = fmax(sqrt(dot(mean, mean, dim)), 1e-8);
    for (uint32_t t = 0; t < n; t++) {
        const float *q = query(w, head, t);
        unlike[t] = (float)(-dot(q, mean, dim) / (fmax(sqrt(dot(q, q, dim)), 1e-8) * size));
    }
    memset(bits, 0, w->p.q_words * 8);
    ca_mask_keep_best(bits, unlike, n - 1, w->p.n_queries, w->q_heap + (size_t)head * n);
    list_bits(bits, w->p.q_words, w->chosen + (size_t)head * w->p.n_queries);
}

/* ubar of slots [pack * CA_ATTN_BLOCK, ..) of a KV head, packed for the kernel. */
static void pack_queries(const work *w, uint32_t kv, uint32_t pack)
{
    const uint32_t dim = w->cache->opt.head_dim, group = w->chunk->n_heads / w->cache->opt.n_kv_heads;
    const uint32_t first = pack * CA_ATTN_BLOCK, n = ca_min_u32(CA_ATTN_BLOCK, w->p.n_queries - first);
    float *ubar = my_floats(w);
    memset(ubar, 0, (size_t)n * dim * sizeof *ubar);
    for (uint32_t h = kv * group; h < (kv + 1) * group; h++)
        for (uint32_t a = 0; a < n; a++) {
            const float *q = query(w, h, w->chosen[(size_t)h * w->p.n_queries + first + a]);
            const float inv = (float)(1.0 / (fmax(sqrt(dot(q, q, dim)), 1e-6) * group));
            for (uint32_t d = 0; d < dim; d++) ubar[(size_t)a * dim + d] += q[d] * inv;
        }
    w->cache->opt.kern->pack_q(ubar, dim, n, dim, w->pack + ((size_t)kv * w->p.n_packs + pack) * w->p.pack_bytes);
}

static void score_page(const work *w, uint32_t kv, uint32_t block)
{
    const uint32_t bs = w->cache->opt.page_tokens, dim = w->cache->opt.head_dim;
    const ca_head *head = ca_cache_head(w->cache, w->chunk->seq, w->chunk->layer, kv);
    const float *inv_norm = head->inv_norm + (size_t)block * bs;
    float *s = my_floats(w), *score = w->score + (size_t)kv * w->p.past + (size_t)block * bs;
    for (uint32_t t = 0; t < bs; t++) score[t] = -INFINITY;
    for (uint32_t pack = 0; pack < w->p.n_packs; pack++) {
        const uint32_t n = ca_min_u32(CA_ATTN_BLOCK, w->p.n_queries - pack * CA_ATTN_BLOCK);
        const unsigned char *packed = w->pack + ((size_t)kv * w->p.n_packs + pack) * w->p.pack_bytes;
        w->cache->opt.kern->qk(&(ca_qk_job){ packed, n, ca_page_data(w->cache, head->pages[block]), bs, dim, s });
        for (uint32_t a = 0; a < n; a++)
            for (uint32_t t = 0; t < bs; t++) score[t] = s[(size_t)a * bs + t] > score[t] ? s[(size_t)a * bs + t] : score[t];
    }
    for (uint32_t t = 0; t < bs; t++) score[t] *= inv_norm[t];
}

static void choose_tokens(const work *w, uint32_t kv, uint32_t *tokens)
{
    uint64_t *bits = w->k_bits + kv * w->p.k_words;
    memset(bits, 0, w->p.k_words * 8);
    ca_mask_keep_best(bits, w->score + (size_t)kv * w->p.past, w->p.past - 1, w->p.budget, w->k_heap + (size_t)kv * w->p.past);
    list_bits(bits, w->p.k_words, tokens);
}

static ca_status take(ca_workspace *ws, size_t n, size_t size, void *out)
{
    void *mem = NULL;
    CA_TRY(ca_ws_take(ws, "quoka", n, size, &mem));
    memcpy(out, &mem, sizeof mem);
    return CA_OK;
}

static ca_status prepare(ca_workspace *ws, int n_threads, work *w)
{
    const size_t n_heads = w->chunk->n_heads, n_kv = w->cache->opt.n_kv_heads;
    CA_TRY(take(ws, n_heads * w->p.n_tokens, 4, &w->unlike));
    CA_TRY(take(ws, n_heads * w->p.n_tokens, 4, &w->q_heap));
    CA_TRY(take(ws, n_heads * w->p.q_words, 8, &w->q_bits));
    CA_TRY(take(ws, n_heads * w->p.n_queries, 4, &w->chosen));
    CA_TRY(take(ws, n_kv * w->p.n_packs, w->p.pack_bytes, &w->pack));
    CA_TRY(take(ws, n_kv * w->p.past, 4, &w->score));
    CA_TRY(take(ws, n_kv * w->p.past, 4, &w->k_heap));
    CA_TRY(take(ws, n_kv * w->p.k_words, 8, &w->k_bits));
    return take(ws, (size_t)n_threads * w->p.thread_floats, 4, &w->thread);
}

ca_status ca_select_tokens_quoka(const ca_select_job *job, uint32_t *tokens, uint32_t *n)
{
    const ca_cache *cache = job->cache;
    const uint32_t bs = cache->opt.page_tokens, n_kv = cache->opt.n_kv_heads, past = job->chunk->pos / bs * bs;
    const int n_threads = omp_get_max_threads();
    work w = { .p = plan_of(cache, job->opt, job->chunk->n_tokens, past), .cache = cache, .chunk = job->chunk, .q = job->q };
    *n = w.p.budget;
    if (past == 0) return CA_OK;
    if (w.p.budget > cache->opt.gather_tokens)
        return ca_fail(CA_E_FULL, "quoka: %u tokens to gather, the cache was created for %u (see ca_select_gather_tokens)",
                       w.p.budget, cache->opt.gather_tokens);
    CA_TRY(prepare(job->ws, n_threads, &w));
#pragma omp parallel num_threads(n_threads)
    {
#pragma omp for schedule(dynamic)
        for (uint32_t h = 0; h < job->chunk->n_heads; h++) choose_queries(&w, h);
#pragma omp for schedule(dynamic)
        for (uint32_t i = 0; i < n_kv * w.p.n_packs; i++) pack_queries(&w, i / w.p.n_packs, i % w.p.n_packs);
#pragma omp for schedule(dynamic)
        for (uint32_t i = 0; i < n_kv * (past / bs); i++) score_page(&w, i / (past / bs), i % (past / bs));
#pragma omp for schedule(dynamic)
        for (uint32_t kv = 0; kv < n_kv; kv++) choose_tokens(&w, kv, tokens + (size_t)kv * cache->opt.gather_tokens);
    }
    if (job->scores) memcpy(job->scores, w.score, (size_t)n_kv * past * sizeof *w.score);
    return CA_OK;
}

const ca_selector_vt ca_select_quoka = {
    .name = "quoka",
    .summaries = CA_SUMMARY_NORM_K,
    .check = check,
    .ws_bytes = ws_bytes,
};
