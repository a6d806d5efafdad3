/* The constants of the cost model, measured: three tables that differ in one term each. */
#include <compactattn/attend.h>

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "base/arith.h"
#include "cache/cache.h"

enum { DIM = 128, PAGE = 128, PAGES = 64, SHORT_LIST = 2, RUNS = 7 };

/* Seconds of one thread per job, for a table of n_rows rows of one job each. */
static ca_status time_jobs(const ca_cache *cache, ca_attention attention, ca_workspace *ws, const float *q, float *o,
                           uint32_t vectors, uint32_t n_pages, uint32_t n_rows, int n_threads, double *seconds)
{
    uint32_t n_held = 0, pages[PAGES];
    const uint32_t *held = ca_cache_pages(cache, 0, 0, 0, &n_held);
    ca_row *rows = calloc(n_rows, sizeof *rows);
    if (!rows) return ca_fail(CA_E_MEMORY, "cost: no memory for %u rows", n_rows);
    for (uint32_t i = 0; i < n_pages; i++) pages[i] = held[i];
    for (uint32_t r = 0; r < n_rows; r++)
        rows[r] = (ca_row){ .n_heads = 1, .token = r * vectors, .n_tokens = vectors, .pos = PAGES * PAGE, .n_pages = n_pages };
    const ca_table table = {
        .chunk = { .n_heads = 1 }, .n_tokens = n_rows * vectors, .rows = rows, .pages = pages, .n_rows = n_rows, .n_pages = n_pages
    };
    ca_status st = CA_OK;
    *seconds = INFINITY;
    for (int run = 0; run < RUNS && st == CA_OK; run++) {
        const double start = omp_get_wtime();
        st = ca_attend_as(cache, attention, &table, 0.1F, q, DIM, o, DIM, CA_F32, n_threads, ws);
        *seconds = fmin(*seconds, (omp_get_wtime() - start) * n_threads / n_rows);
    }
    free(rows);
    return st;
}

static ca_status measure(const ca_cache *cache, ca_attention attention, ca_workspace *ws, const float *q, float *o, int n_threads,
                         ca_cost *out)
{
    const uint32_t n_rows = 32 * (uint32_t)n_threads, large_job = out->vectors;
    const uint32_t small_job = ca_max_u32(2 * CA_ATTN_TILE, cache->opt.kern->attn_unit);
    const double page_flop = 4.0 * PAGE * DIM, bytes = (double)cache->page_bytes;
    double large = 0, small = 0, short_list = 0;
    CA_TRY(time_jobs(cache, attention, ws, q, o, large_job, PAGES, n_rows, n_threads, &large));
    CA_TRY(time_jobs(cache, attention, ws, q, o, small_job, PAGES, n_rows, n_threads, &small));
    CA_TRY(time_jobs(cache, attention, ws, q, o, small_job, SHORT_LIST, n_rows, n_threads, &short_list));
    out->flop = fmax((large - small) / ((large_job - small_job) * page_flop * PAGES), 1e-15);
    const double page = (small - short_list) / (PAGES - SHORT_LIST) - small_job * page_flop * out->flop;
    out->page_byte = fmax(page / bytes, 0.0);
    out->job = fmax(short_list - SHORT_LIST * (out->page_byte * bytes + small_job * page_flop * out->flop), 0.0);
    return CA_OK;
}

/* Small values that differ: what they are does not matter to the time. */
static void fill(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = (float)(i * 2654435761U % 1024) / 512.0F - 1.0F;
}

ca_status ca_cost_measure(const ca_kern *kern, ca_attention attention, int n_threads, ca_cost *out)
{
    const ca_cache_opt opt = { .n_layers = 1,
                               .n_kv_heads = 1,
                               .head_dim = DIM,
                               .page_tokens = PAGE,
                               .max_seqs = 1,
                               .capacity_tokens = PAGES * PAGE,
                               .kern = kern };
    if (n_threads < 1 || n_threads > 1024) return ca_fail(CA_E_ARG, "cost: %d threads", n_threads);
    ca_cost_defaults(kern, attention, out);
    const size_t n_vectors = (size_t)32 * (size_t)n_threads * out->vectors, n_kv = (size_t)PAGES * PAGE * DIM;
    ca_cache *cache = NULL;
    CA_TRY(ca_cache_create(&opt, &cache));
    ca_workspace ws = { .size = ca_align_up(ca_attend_ws_bytes(cache, 1, (uint32_t)n_vectors, n_threads), 64) };
    float *kv = malloc(n_kv * sizeof *kv), *q = malloc(n_vectors * DIM * sizeof *q), *o = malloc(n_vectors * DIM * sizeof *o);
    ws.base = aligned_alloc(64, ws.size);
    ca_status st = kv && q && o && ws.base ? CA_OK : ca_fail(CA_E_MEMORY, "cost: no memory to measure in");
    if (st == CA_OK) {
        fill(kv, n_kv);
        fill(q, n_vectors * DIM);
        st = ca_cache_append(cache, 0, 0, &(ca_kv){ .k = kv, .v = kv, .stride = DIM }, PAGES * PAGE);
    }
    if (st == CA_OK) st = measure(cache, attention, &ws, q, o, n_threads, out);
    free(kv), free(q), free(o), free(ws.base);
    ca_cache_destroy(cache);
    return st;
}
