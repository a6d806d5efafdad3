/* Plan: rows -> jobs of up to the kernel set's attn_job query vectors. Run: jobs over threads; a job's result does not depend on the
 * others. Decode has few vectors and many pages, so there a job takes a part of its row's pages, and the parts' sums are added up. */
#include <compactattn/attend.h>

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/workspace.h"
#include "cache/cache.h"

typedef struct job {
    uint32_t row, first, count;
    uint32_t first_page, n_pages; /* of the row's */
    float *sums;                  /* NULL: the row is not in parts */
} job;

typedef struct job_list {
    job *jobs;
    uint32_t n;
    float *sums;
    bool decode;
    uint32_t run; /* jobs that a thread takes at a time */
} job_list;

enum {
    JOBS_PER_THREAD = 4,
    SMALLEST_JOB = CA_ATTN_BLOCK,
    PART_TOKENS = 1024, /* a part has at least so many, and a row at most so many parts */
    MOST_PARTS = 16
};

/* How rows are cut: jobs of up to `most` query vectors, whole units. */
typedef struct cut {
    uint32_t most, unit;
} cut;

/* Large jobs read a page once for many queries; but there should be some for every thread. */
static cut choose_cut(const ca_kern *kern, const ca_attn_int8 *int8, const ca_table *table, int n_threads)
{
    const uint32_t full = int8 ? int8->job : kern->attn_job, unit = int8 ? int8->unit : kern->attn_unit;
    uint64_t total = 0;
    for (uint32_t r = 0; r < table->n_rows; r++) total += (uint64_t)table->rows[r].n_heads * table->rows[r].n_tokens;
    const uint64_t share = total / ((uint64_t)n_threads * JOBS_PER_THREAD);
    const uint32_t most = share < full ? ca_max_u32((uint32_t)share, SMALLEST_JOB) : full;
    return (cut){ .most = (uint32_t)ca_align_up(most, unit), .unit = unit };
}

static bool is_decode(const ca_table *table)
{
    for (uint32_t r = 0; r < table->n_rows; r++)
        if (table->rows[r].n_tokens != 1) return false;
    return true;
}

/* Pages of a part: all of a row, or for decode what its length alone says, so that results do not depend on the threads. */
static uint32_t part_pages(const ca_cache *cache, const ca_row *row, bool decode)
{
    if (!decode) return ca_max_u32(row->n_pages, 1);
    return ca_max_u32(ca_ceil_div(PART_TOKENS, cache->opt.page_tokens), ca_ceil_div(row->n_pages, MOST_PARTS));
}

/* A row without pages is one part, whose result is zero. */
static uint32_t count_parts(const ca_row *row, uint32_t pages)
{
    return ca_max_u32(ca_ceil_div(row->n_pages, pages), 1);
}

/* Query vectors per job: the row in equal parts. */
static uint32_t job_vectors(cut c, uint32_t n)
{
    const uint32_t parts = ca_ceil_div(n, c.most);
    return (uint32_t)ca_align_up(ca_ceil_div(n, parts), c.unit);
}

/* For either kind of products. */
static size_t thread_scratch(const ca_cache *cache)
{
    const ca_cache_opt *o = &cache->opt;
    const size_t native = o->kern->attn_scratch_bytes(o->head_dim, o->page_tokens);
    const size_t integers = cache->int8 ? cache->int8->scratch_bytes(o->head_dim) : 0;
    return ca_align_up(native > integers ? native : integers, 64);
}

size_t ca_attend_ws_bytes(const ca_cache *cache, uint32_t n_heads, uint32_t n_tokens, int n_threads)
{
    /* The most rows: block_sparse, one per head and Q block; the most references: every row lists every page. */
    const size_t nq = ca_ceil_div(n_tokens, cache->opt.page_tokens) + 3;
    const size_t per_row = ca_ceil_div(cache->opt.page_tokens, SMALLEST_JOB) + 1;
    const size_t jobs = n_heads * nq * per_row + (size_t)n_heads * n_tokens / (SMALLEST_JOB / 2) + 1;
    const size_t refs = n_heads * nq * cache->blocks_cap;
    /* The most rows of one token where all are: a run of Q blocks has two ends, and a dense run before and behind it. */
    const size_t vectors = (size_t)n_heads * ca_min_u32(n_tokens, 4);
    const size_t decode = vectors * MOST_PARTS * (sizeof(job) + ca_attn_sums(cache->opt.head_dim) * sizeof(float));
    return ca_align_up(jobs * sizeof(job), 64) + ca_align_up(refs * sizeof(ca_page_ref), 64) + ca_align_up(decode, 64) +
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

/* Jobs of a table, and the sums of its rows that are in parts: row by row, part by part. Later tokens see more keys: the largest jobs
 * come first, so that threads end together. */
static ca_status plan(const ca_cache *cache, const ca_table *table, cut c, ca_workspace *ws, job_list *out)
{
    const bool decode = is_decode(table);
    size_t n_jobs = 0, n_sums = 0;
    for (uint32_t r = 0; r < table->n_rows; r++) {
        const ca_row *row = &table->rows[r];
        const uint32_t n = row->n_heads * row->n_tokens, parts = count_parts(row, part_pages(cache, row, decode));
        if (n > 0) n_jobs += (size_t)parts * ca_ceil_div(n, job_vectors(c, n));
        if (parts > 1) n_sums += (size_t)parts * n;
    }
    const size_t stride = ca_attn_sums(cache->opt.head_dim);
    void *job_mem = NULL, *sum_mem = NULL;
    CA_TRY(ca_ws_take(ws, "attend jobs", n_jobs, sizeof(job), &job_mem));
    CA_TRY(ca_ws_take(ws, "attend sums", n_sums, stride * sizeof(float), &sum_mem));
    *out = (job_list){ .jobs = job_mem, .n = (uint32_t)n_jobs, .sums = sum_mem, .decode = decode };
    float *sums = sum_mem;
    uint32_t k = 0;
    for (uint32_t r = 0; r < table->n_rows; r++) {
        const ca_row *row = &table->rows[r];
        const uint32_t n = row->n_heads * row->n_tokens, step = n > 0 ? job_vectors(c, n) : 1;
        const uint32_t pages = part_pages(cache, row, decode), parts = count_parts(row, pages);
        for (uint32_t part = 0; part < parts; part++) {
            for (uint32_t v = 0; v < n; v += step, k++)
                out->jobs[decode ? k : n_jobs - 1 - k] = (job){ .row = r,
                                                                .first = v,
                                                                .count = ca_min_u32(step, n - v),
                                                                .first_page = part * pages,
                                                                .n_pages = ca_min_u32(pages, row->n_pages - part * pages),
                                                                .sums = parts > 1 ? sums + v * stride : NULL };
            if (parts > 1) sums += n * stride;
        }
    }
    return CA_OK;
}

/* Sums of a vector over n_parts parts, stride floats apart, to those over all of them divided by l, in the place of the first:
 *   o = sum of 2^(m_i - m) o_i / sum of 2^(m_i - m) l_i,  m the largest m_i */
static void add_parts(float *sums, size_t stride, uint32_t n_parts, uint32_t dim)
{
    float m = -INFINITY, l = 0.0F;
    for (uint32_t i = 0; i < n_parts; i++)
        if (sums[i * stride + dim] != 0.0F) m = fmaxf(m, sums[i * stride + dim + 1]);
    for (uint32_t i = 0; i < n_parts; i++) {
        const float *part = sums + i * stride;
        const float w = part[dim] != 0.0F ? exp2f(part[dim + 1] - m) : 0.0F;
        l += w * part[dim];
        for (uint32_t d = 0; d < dim; d++) sums[d] = i == 0 ? w * part[d] : sums[d] + w * part[d];
    }
    const float inv = l != 0.0F ? 1.0F / l : 0.0F; /* no visible key: zero */
    for (uint32_t d = 0; d < dim; d++) sums[d] *= inv;
}

/* Writes the rows that were computed in parts. */
static void write_parts(const ca_cache *cache, const ca_table *table, const job_list *list, void *o, size_t o_stride,
                        ca_dtype out_type)
{
    const uint32_t dim = cache->opt.head_dim;
    const size_t stride = ca_attn_sums(dim);
    float *sums = list->sums;
    for (uint32_t r = 0; r < table->n_rows; r++) {
        const ca_row *row = &table->rows[r];
        const uint32_t parts = count_parts(row, part_pages(cache, row, list->decode));
        for (uint32_t h = 0; h < row->n_heads && parts > 1; h++) {
            const size_t at = (size_t)row->token * o_stride + (size_t)(row->head + h) * dim;
            float *sum = sums + h * stride;
            add_parts(sum, row->n_heads * stride, parts, dim);
            if (out_type == CA_F32)
                memcpy((float *)o + at, sum, dim * sizeof *sum);
            else
                for (uint32_t d = 0; d < dim; d++) ((uint16_t *)o)[at + d] = ca_f32_to_bf16(sum[d]);
        }
        if (parts > 1) sums += (size_t)parts * row->n_heads * stride;
    }
}

/* Attention of checked arguments, with products of integers where int8 is given; what it takes of the workspace stays taken. */
static ca_status run(const ca_cache *cache, const ca_attn_int8 *int8, const ca_table *table, float scale, const float *q,
                     size_t q_stride, void *o, size_t o_stride, ca_dtype out_type, int n_threads, ca_workspace *ws)
{
    job_list list;
    void *refs_mem = NULL, *scratch_mem = NULL;
    CA_TRY(plan(cache, table, choose_cut(cache->opt.kern, int8, table, n_threads), ws, &list));
    CA_TRY(ca_ws_take(ws, "attend pages", table->n_pages, sizeof(ca_page_ref), &refs_mem));
    CA_TRY(ca_ws_take(ws, "attend scratch", (size_t)n_threads, thread_scratch(cache), &scratch_mem));
    ca_page_ref *refs = refs_mem;
    unsigned char *scratch = scratch_mem;
    const size_t scratch_bytes = thread_scratch(cache);
    for (size_t i = 0; i < table->n_pages; i++) {
        const ca_page_info *info = &cache->info[table->pages[i]];
        refs[i] = (ca_page_ref){ .data = ca_page_data(cache, table->pages[i]), .pos = info->pos, .len = info->len };
    }
    const uint32_t dim = cache->opt.head_dim;
    /* Neighboring parts go to one thread, which fetches the next one's first page at the end of each. */
    list.run = list.decode ? ca_max_u32(list.n / ((uint32_t)n_threads * JOBS_PER_THREAD), 1) : 1;
    const size_t out_bytes = out_type == CA_F32 ? 4 : 2;
#pragma omp parallel for schedule(dynamic, list.run) num_threads(n_threads)
    for (uint32_t i = 0; i < list.n; i++) {
        const job *part = &list.jobs[i];
        const ca_row *row = &table->rows[part->row];
        const ca_attn_job j = {
            .pages = refs + row->first_page + part->first_page,
            .n_pages = part->n_pages,
            .n_ahead = row->n_pages - part->first_page - part->n_pages,
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
            .first = part->first,
            .count = part->count,
            .scale = scale,
            .sums = part->sums,
            .scratch = scratch + (size_t)omp_get_thread_num() * scratch_bytes,
        };
        if (int8)
            int8->attn(&j, cache->opt.kern->type);
        else
            cache->opt.kern->attn(&j);
    }
    write_parts(cache, table, &list, o, o_stride, out_type);
    return CA_OK;
}

ca_status ca_attend_as(const ca_cache *cache, ca_attention attention, const ca_table *table, float scale, const float *q,
                       size_t q_stride, void *o, size_t o_stride, ca_dtype out_type, int n_threads, ca_workspace *ws)
{
    CA_TRY(check(cache, table, scale, q_stride, o_stride));
    if (n_threads < 1) return ca_fail(CA_E_ARG, "attend: %d threads", n_threads);
    if (attention != CA_ATTENTION_NATIVE && attention != CA_ATTENTION_INT8)
        return ca_fail(CA_E_ARG, "attend: type %d of attention is unknown", (int)attention);
    if (attention == CA_ATTENTION_INT8 && !cache->int8)
        return ca_fail(CA_E_UNSUPPORTED,
                       "attend: kernel set %s on this CPU has no attention of 8-bit integers over pages of %u tokens",
                       cache->opt.kern->name, cache->opt.page_tokens);
    /* Rounding a page for the few queries of decode takes longer than it saves. */
    const ca_attn_int8 *int8 = attention == CA_ATTENTION_INT8 && !is_decode(table) ? cache->int8 : NULL;
    const size_t mark = ws->used;
    const ca_status st = run(cache, int8, table, scale, q, q_stride, o, o_stride, out_type, n_threads, ws);
    ws->used = mark;
    return st;
}

ca_status ca_attend(const ca_cache *cache, const ca_table *table, float scale, const float *q, size_t q_stride, void *o,
                    size_t o_stride, ca_dtype out_type, int n_threads, ca_workspace *ws)
{
    return ca_attend_as(cache, CA_ATTENTION_NATIVE, table, scale, q, q_stride, o, o_stride, out_type, n_threads, ws);
}
