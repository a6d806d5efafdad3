/* Plan: rows -> jobs of up to the kernel set's attn_job query vectors. Run: jobs over threads; a job's result does not depend on the
 * others. */
#include <compactattn/attend.h>

#include <omp.h>

#include "base/workspace.h"
#include "cache/cache.h"

typedef struct job {
    uint32_t row, first, count;
} job;

enum { JOBS_PER_THREAD = 4, SMALLEST_JOB = CA_ATTN_BLOCK };

/* How rows are cut: jobs of up to `most` query vectors, whole units. */
typedef struct cut {
    uint32_t most, unit;
} cut;

/* Large jobs read a page once for many queries; but there should be some for every thread. */
static cut choose_cut(const ca_kern *kern, const ca_table *table, int n_threads)
{
    uint64_t total = 0;
    for (uint32_t r = 0; r < table->n_rows; r++) total += (uint64_t)table->rows[r].n_heads * table->rows[r].n_tokens;
    const uint64_t share = total / ((uint64_t)n_threads * JOBS_PER_THREAD);
    const uint32_t most = share < kern->attn_job ? ca_max_u32((uint32_t)share, SMALLEST_JOB) : kern->attn_job;
    return (cut){ .most = (uint32_t)ca_align_up(most, kern->attn_unit), .unit = kern->attn_unit };
}

/* Query vectors per job: the row in equal parts. */
static uint32_t job_vectors(cut c, uint32_t n)
{
    const uint32_t parts = ca_ceil_div(n, c.most);
    return (uint32_t)ca_align_up(ca_ceil_div(n, parts), c.unit);
}

static size_t thread_scratch(const ca_cache *cache)
{
    return ca_align_up(cache->opt.kern->attn_scratch_bytes(cache->opt.head_dim, cache->opt.page_tokens), 64);
}

size_t ca_attend_ws_bytes(const ca_cache *cache, uint32_t n_heads, uint32_t n_tokens, int n_threads)
{
    /* The most rows: block_sparse, one per head and Q block; the most references: every row lists every page. */
    const size_t nq = ca_ceil_div(n_tokens, cache->opt.page_tokens) + 3;
    const size_t per_row = ca_ceil_div(cache->opt.page_tokens, SMALLEST_JOB) + 1;
    const size_t jobs = n_heads * nq * per_row + (size_t)n_heads * n_tokens / (SMALLEST_JOB / 2) + 1;
    const size_t refs = n_heads * nq * cache->blocks_cap;
    return ca_align_up(jobs * sizeof(job), 64) + ca_align_up(refs * sizeof(ca_page_ref), 64) +
           (size_t)(n_threads > 0 ? n_threads : 1) * thread_scratch(cache) + 64;
}

static ca_status check(const ca_cache *cache, const ca_table *table, float scale, size_t q_stride, size_t o_stride)
{
    const uint32_t n_heads = table->chunk.n_heads;
    const size_t width = (size_t)n_heads * cache->opt.head_dim;
    if (!(scale > 0.0F)) return ca_fail(CA_E_ARG, "attend: scale %g is not positive", (double)scale);
    if (q_stride < width || o_stride < width)
        return ca_fail(CA_E_SHAPE, "attend: token strides %zu, %zu are below %u heads x %u", q_stride, o_stride, n_heads,
                       cache->opt.head_dim);
    for (uint32_t r = 0; r < table->n_rows; r++) {
        const ca_row *row = &table->rows[r];
        if (row->kv_head >= cache->opt.n_kv_heads || (uint64_t)row->head + row->n_heads > n_heads || row->n_heads == 0 ||
            (uint64_t)row->token + row->n_tokens > table->n_tokens || (uint64_t)row->first_page + row->n_pages > table->n_pages)
            return ca_fail(CA_E_SHAPE, "attend: row %u lies outside of its table", r);
    }
    for (size_t i = 0; i < table->n_pages; i++)
        if (table->pages[i] >= cache->n_pages) return ca_fail(CA_E_ARG, "attend: page %u of %u", table->pages[i], cache->n_pages);
    return CA_OK;
}

/* Later tokens see more keys: the largest jobs come first, so that threads end together. */
static ca_status plan(const ca_table *table, cut c, ca_workspace *ws, job **jobs, uint32_t *n_jobs)
{
    size_t total = 0;
    for (uint32_t r = 0; r < table->n_rows; r++) {
        const uint32_t n = table->rows[r].n_heads * table->rows[r].n_tokens;
        if (n > 0) total += ca_ceil_div(n, job_vectors(c, n));
    }
    void *mem = NULL;
    CA_TRY(ca_ws_take(ws, "attend jobs", total, sizeof(job), &mem));
    *jobs = mem;
    *n_jobs = (uint32_t)total;
    size_t at = total;
    for (uint32_t r = 0; r < table->n_rows; r++) {
        const uint32_t n = table->rows[r].n_heads * table->rows[r].n_tokens;
        const uint32_t step = n > 0 ? job_vectors(c, n) : 1;
        for (uint32_t v = 0; v < n; v += step) (*jobs)[--at] = (job){ .row = r, .first = v, .count = ca_min_u32(step, n - v) };
    }
    return CA_OK;
}

ca_status ca_attend(const ca_cache *cache, const ca_table *table, float scale, const float *q, size_t q_stride, void *o,
                    size_t o_stride, ca_dtype out_type, int n_threads, ca_workspace *ws)
{
    CA_TRY(check(cache, table, scale, q_stride, o_stride));
    if (n_threads < 1) return ca_fail(CA_E_ARG, "attend: %d threads", n_threads);
    const size_t mark = ws->used;
    job *jobs = NULL;
    uint32_t n_jobs = 0;
    void *refs_mem = NULL, *scratch_mem = NULL;
    CA_TRY(plan(table, choose_cut(cache->opt.kern, table, n_threads), ws, &jobs, &n_jobs));
    CA_TRY(ca_ws_take(ws, "attend pages", table->n_pages, sizeof(ca_page_ref), &refs_mem));
    CA_TRY(ca_ws_take(ws, "attend scratch", (size_t)n_threads, thread_scratch(cache), &scratch_mem));
    ca_page_ref *refs = refs_mem;
    unsigned char *scratch = scratch_mem;
    for (size_t i = 0; i < table->n_pages; i++) {
        const ca_page_info *info = &cache->info[table->pages[i]];
        refs[i] = (ca_page_ref){ .data = ca_page_data(cache, table->pages[i]), .pos = info->pos, .len = info->len };
    }
    const uint32_t dim = cache->opt.head_dim;
    const size_t out_bytes = out_type == CA_F32 ? 4 : 2;
#pragma omp parallel for schedule(dynamic, 1) num_threads(n_threads)
    for (uint32_t i = 0; i < n_jobs; i++) {
        const ca_row *row = &table->rows[jobs[i].row];
        const ca_attn_job j = {
            .pages = refs + row->first_page,
            .n_pages = row->n_pages,
            .page_tokens = cache->opt.page_tokens,
            .head_dim = dim,
            .q = q + (size_t)row->token * q_stride + (size_t)row->head * dim,
            .q_stride = q_stride,
            .o = (unsigned char *)o + ((size_t)row->token * o_stride + (size_t)row->head * dim) * out_bytes,
            .o_stride = o_stride,
            .o_type = out_type,
            .pos = row->pos,
            .window = row->window,
            .n_heads = row->n_heads,
            .first = jobs[i].first,
            .count = jobs[i].count,
            .scale = scale,
            .scratch = scratch + (size_t)omp_get_thread_num() * thread_scratch(cache),
        };
        cache->opt.kern->attn(&j);
    }
    ws->used = mark;
    return CA_OK;
}
