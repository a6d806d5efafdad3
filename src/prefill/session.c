/* The chunk loop: one session owns a cache, activations and workspaces, and runs tokens through the layers of its model. */
#include <compactattn/attend.h>

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/workspace.h"
#include "cache/cache.h"
#include "prefill/session.h"

enum {
    MAX_THREADS = 1024,
    LOGIT_ROWS = 64 /* positions whose logits are computed at a time when many are asked for */
};

void ca_session_defaults(ca_executor executor, ca_session_opt *out)
{
    *out = (ca_session_opt){ .executor = executor, .chunk = 1024, .page_tokens = 128 };
    ca_select_defaults(executor == CA_EXEC_DENSE ? CA_SELECT_NONE : CA_SELECT_FLASHPREFILL, &out->select);
    out->dense_tail = 128;
    ca_worth_defaults(&out->worth);
    if (executor == CA_EXEC_BLOCK_SPARSE) out->select.flashprefill.alpha = 0.01F;
}

/* Executors and selectors that go together; options that go with only some of them. */
static ca_status check_method(const ca_session_opt *opt)
{
    const ca_selector selector = opt->select.selector;
    if ((unsigned)opt->executor > CA_EXEC_AUTO) return ca_fail(CA_E_ARG, "session: executor %d is unknown", (int)opt->executor);
    CA_TRY(ca_select_check(&opt->select));
    if ((opt->executor == CA_EXEC_DENSE) != (selector == CA_SELECT_NONE || selector == CA_SELECT_QUOKA))
        return ca_fail(CA_E_ARG,
                       "session: the dense executor goes with no selector or with quoka, the others with a selector of "
                       "blocks; this is %s",
                       ca_selector_name(selector));
    if (opt->executor == CA_EXEC_BLOCK_SPARSE && opt->select.flashprefill.last_mute > 0)
        return ca_fail(CA_E_ARG,
                       "session: last_mute leaves Q blocks without a choice of their own, which block_sparse needs: use it with "
                       "compactattn or auto");
    return CA_OK;
}

/* Checks opt and replaces its zeros: context, threads, cost, the oracle's scale. The chunk is cut to the context. */
static ca_status resolve(const ca_model *model, const ca_session_opt *opt, ca_session_opt *out)
{
    ca_model_info info;
    ca_model_get_info(model, &info);
    *out = *opt;
    CA_TRY(check_method(opt));
    if (opt->context > info.max_context)
        return ca_fail(CA_E_ARG, "session: context %u is above the model's %u tokens", opt->context, info.max_context);
    if (opt->context == 0) out->context = info.max_context;
    if (opt->cost.flop == 0.0 && opt->cost.page_byte == 0.0 && opt->cost.job == 0.0)
        ca_cost_defaults(model->kern, opt->attention, &out->cost);
    if (opt->select.oracle.scale == 0.0F) out->select.oracle.scale = info.attn_scale;
    if (opt->attention != CA_ATTENTION_NATIVE && opt->attention != CA_ATTENTION_INT8)
        return ca_fail(CA_E_ARG, "session: type %d of attention is unknown", (int)opt->attention);
    if (opt->attention == CA_ATTENTION_INT8 && !ca_kern_int8_attention_name(model->kern, opt->page_tokens))
        return ca_fail(
            CA_E_UNSUPPORTED,
            "session: attention of 8-bit integers needs AVX-512 VNNI, AVX-VNNI or i8mm, a kernel set of AVX-512 without AMX, of AVX2 "
            "or of NEON (this is %s), and pages of 64 tokens or more, with AVX2 and NEON of 32 (these are of %u)",
            ca_kern_name(model->kern), opt->page_tokens);
    if (opt->chunk == 0) return ca_fail(CA_E_ARG, "session: chunk 0: give at least 1 token per chunk");
    out->chunk = ca_min_u32(opt->chunk, out->context);
    const uint32_t group = info.n_heads / info.n_kv_heads;
    if (opt->table.heads_per_row != 0 && group % opt->table.heads_per_row != 0)
        return ca_fail(CA_E_ARG, "session: %u heads per row do not divide the model's %u query heads per KV head",
                       opt->table.heads_per_row, group);
    if (opt->n_threads < 0 || opt->n_threads > MAX_THREADS)
        return ca_fail(CA_E_ARG, "session: %d threads: give 0 (all) or 1 to %d", opt->n_threads, MAX_THREADS);
    if (opt->n_threads == 0) out->n_threads = omp_get_num_procs();
    return CA_OK;
}

/* Workspaces are sized for the threads that will use them. */
static size_t attention_bytes(const ca_session *s)
{
    const ca_session_opt *o = &s->opt;
    const int callers_threads = omp_get_max_threads();
    omp_set_num_threads(o->n_threads);
    const uint32_t n_kv = s->info.n_kv_heads;
    const size_t lists = ((size_t)s->cache->opt.gather_tokens + s->cache->n_gather + 1) * n_kv * sizeof(uint32_t) + (size_t)3 * 64;
    const size_t shapes = n_kv * sizeof(ca_row_shape) + 64;
    const size_t bytes = lists + shapes + ca_table_ws_bytes(s->cache, s->info.n_heads, o->chunk, o->context) +
                         ca_select_ws_bytes(s->cache, &o->select, s->info.n_heads, o->chunk, o->context) +
                         ca_attend_ws_bytes(s->cache, s->info.n_heads, o->chunk, o->n_threads);
    omp_set_num_threads(callers_threads);
    return ca_align_up(bytes, 64);
}

/* Queries and keys before RoPE are kept for the gate only. */
static bool keeps_raw(const ca_session *s)
{
    return (s->cache->opt.summaries & CA_SUMMARY_GATE) != 0;
}

/* Tokens that a sliding layer keeps between chunks: its window, whole pages, and a page so that a little can be taken back. */
static uint32_t window_tokens(const ca_config *config, const ca_session_opt *opt)
{
    return config->window + 3 * opt->page_tokens;
}

/* Options and sizes of a session, and those of its cache, whose layers hold held[] tokens. Takes no memory. */
static ca_status measure(const ca_model *model, const ca_session_opt *opt, ca_session *s, uint32_t held[CA_MAX_LAYERS],
                         ca_cache_opt *cache_opt)
{
    CA_TRY(resolve(model, opt, &s->opt));
    s->asked_chunk = opt->chunk;
    s->model = model;
    ca_model_get_info(model, &s->info);
    for (uint32_t l = 0; l < s->info.n_layers; l++)
        held[l] = model->config.sliding[l] ? window_tokens(&model->config, &s->opt) + s->opt.chunk : s->opt.context;
    *cache_opt = (ca_cache_opt){
        .layer_tokens = held,
        .n_layers = s->info.n_layers,
        .n_kv_heads = s->info.n_kv_heads,
        .head_dim = s->info.head_dim,
        .page_tokens = s->opt.page_tokens,
        .max_seqs = 1,
        .capacity_tokens = s->opt.context,
        .summaries = ca_select_summaries(&s->opt.select) | s->opt.summaries,
        .gather_tokens = ca_max_u32(ca_select_gather_tokens(&s->opt.select, s->opt.context), s->opt.gather_tokens),
        .gate = s->opt.select.selector == CA_SELECT_SEER ? s->opt.select.seer.gate : s->opt.gate,
        .kern = ca_model_kern(model),
    };
    ca_cache cache;
    size_t kv_bytes = 0;
    CA_TRY(ca_cache_forecast(cache_opt, &kv_bytes));
    CA_TRY(ca_cache_plan(cache_opt, &cache));
    s->cache = &cache;
    s->stats.kv_bytes = kv_bytes;
    s->stats.workspace_bytes = attention_bytes(s) + ca_acts_bytes(model, s->opt.chunk, keeps_raw(s)) +
                               s->info.vocab * sizeof(float) + sizeof(ca_session);
    s->cache = NULL;
    return CA_OK;
}

ca_status ca_session_forecast(const ca_model *model, const ca_session_opt *opt, ca_session_memory *out)
{
    ca_session s = { 0 };
    uint32_t held[CA_MAX_LAYERS];
    ca_cache_opt cache_opt;
    CA_TRY(measure(model, opt, &s, held, &cache_opt));
    *out = (ca_session_memory){ s.stats.kv_bytes, s.stats.workspace_bytes };
    return CA_OK;
}

static ca_status check_memory(const ca_session *s)
{
    const uint64_t need = s->stats.kv_bytes + s->stats.workspace_bytes, available = ca_memory_available();
    if (need <= available) return CA_OK;
    return ca_fail(CA_E_MEMORY,
                   "session: %.1f MiB are needed for a context of %u tokens (KV pages %.1f, workspace %.1f), %.1f MiB are "
                   "available: use a shorter context or a smaller chunk",
                   (double)need / 0x1p20, s->opt.context, (double)s->stats.kv_bytes / 0x1p20,
                   (double)s->stats.workspace_bytes / 0x1p20, (double)available / 0x1p20);
}

/* The cache's pool is only mapped: its memory is taken when tokens come. */
static ca_status fill(const ca_model *model, const ca_session_opt *opt, ca_session *s)
{
    uint32_t held[CA_MAX_LAYERS];
    ca_cache_opt cache_opt;
    CA_TRY(measure(model, opt, s, held, &cache_opt));
    CA_TRY(check_memory(s));
    CA_TRY(ca_cache_create(&cache_opt, &s->cache));
    CA_TRY(ca_acts_create(s->model, s->opt.chunk, keeps_raw(s), &s->acts));
    CA_TRY(ca_gemm_runner_create(s->model->engine, &s->gemm));
    s->ws.size = attention_bytes(s);
    s->ws.base = aligned_alloc(64, s->ws.size);
    s->logits = malloc(s->info.vocab * sizeof *s->logits);
    s->layers = calloc((size_t)2 * s->info.n_layers, sizeof *s->layers);
    s->tokens = malloc(s->opt.context * sizeof *s->tokens);
    if (s->ws.base == NULL || s->logits == NULL || s->layers == NULL || s->tokens == NULL)
        return ca_fail(CA_E_MEMORY, "session: no memory for %zu bytes of workspace: use a smaller chunk", s->ws.size);
    return CA_OK;
}

ca_status ca_session_create(const ca_model *model, const ca_session_opt *opt, ca_session **out)
{
    *out = NULL;
    ca_session *s = calloc(1, sizeof *s);
    if (s == NULL) return ca_fail(CA_E_MEMORY, "session: no memory");
    const ca_status st = fill(model, opt, s);
    if (st != CA_OK) {
        ca_session_destroy(s);
        return st;
    }
    *out = s;
    return CA_OK;
}

void ca_session_destroy(ca_session *session)
{
    if (session == NULL) return;
    ca_cache_destroy(session->cache);
    ca_acts_destroy(&session->acts);
    ca_gemm_runner_destroy(session->gemm);
    free(session->ws.base);
    free(session->logits);
    free(session->logit_rows);
    free(session->scores);
    free(session->layers);
    free(session->tokens);
    free(session);
}

/* One chunk on its way through the layers. Its tokens [select_from, +n_selected) go through the selector, the others attend densely. */
typedef struct chunk_job {
    const uint32_t *tokens;
    uint32_t n;
    uint32_t select_from, n_selected;
    bool ends_prompt, decodes;
    double done, total; /* tokens of the call: before this chunk, and all */
    const ca_prefill_opt *opt;
} chunk_job;

/* What attention of one chunk and layer is made of. */
typedef struct plan {
    ca_chunk chunk;
    ca_queries q;
    ca_mask mask; /* bits NULL without one */
    ca_table table;
    double selected; /* when selection was done */
} plan;

/* QUOKA: tokens of the past are gathered for all of the selected queries. */
static ca_status gather_rows(ca_session *s, const chunk_job *job, plan *p)
{
    const uint32_t n_kv = s->info.n_kv_heads, cap = s->cache->opt.gather_tokens, page_cap = s->cache->n_gather;
    ca_chunk chunk = p->chunk;
    ca_queries q = p->q;
    void *tokens = NULL, *pages = NULL, *counts = NULL;
    uint32_t n = 0;
    CA_TRY(ca_ws_take(&s->ws, "tokens", (size_t)n_kv * cap, sizeof(uint32_t), &tokens));
    CA_TRY(ca_ws_take(&s->ws, "gathered pages", (size_t)n_kv * page_cap, sizeof(uint32_t), &pages));
    CA_TRY(ca_ws_take(&s->ws, "page counts", n_kv, sizeof(uint32_t), &counts));
    chunk.pos += job->select_from;
    chunk.n_tokens = job->n_selected;
    q.q += job->select_from * q.stride;
    CA_TRY(ca_select_tokens(s->cache, &s->opt.select, &chunk, &q, &s->ws, tokens, &n, NULL));
    ca_status st = CA_OK;
#pragma omp parallel for schedule(dynamic)
    for (uint32_t kv = 0; kv < n_kv; kv++) {
        ((uint32_t *)counts)[kv] = ca_ceil_div(n, s->opt.page_tokens);
        const ca_status one = ca_cache_gather(s->cache, 0, chunk.layer, kv, (const uint32_t *)tokens + (size_t)kv * cap, n,
                                              (uint32_t *)pages + (size_t)kv * page_cap);
#pragma omp critical
        if (one != CA_OK) st = one;
    }
    if (st != CA_OK) return ca_fail(st, "session: the tokens that quoka chose cannot be gathered");
    p->selected = omp_get_wtime();
    return ca_table_add_gathered(s->cache, job->select_from, job->n_selected, pages, page_cap, counts, &p->table);
}

static void count_shapes(ca_layer_sums *sums, const ca_row_shape *shapes, uint32_t n_kv)
{
    for (uint32_t kv = 0; kv < n_kv; kv++) {
        sums->n_dense += shapes[kv].heads == 0;
        sums->n_rows += shapes[kv].heads != 0;
        sums->row_heads += shapes[kv].heads;
        sums->row_qblocks += shapes[kv].qblocks;
    }
    sums->n_kv += n_kv;
}

/* Block mask and rows of the tokens that the selector decides for. */
static ca_status select_rows(ca_session *s, const chunk_job *job, plan *p, ca_layer_sums *sums)
{
    const uint32_t n_kv = s->info.n_kv_heads, group = s->info.n_heads / n_kv;
    ca_select_opt select = s->opt.select;
    void *mem = NULL;
    if (!job->ends_prompt && !select.flashprefill.every_chunk)
        select.flashprefill.last_dense = select.flashprefill.last_mute = 0; /* rules for the prompt's end */
    CA_TRY(ca_ws_take(&s->ws, "row shapes", n_kv, sizeof(ca_row_shape), &mem));
    CA_TRY(ca_mask_create(s->cache, &p->chunk, job->select_from, job->n_selected, &s->ws, &p->mask));
    CA_TRY(ca_select(s->cache, &select, &p->chunk, &p->q, &s->ws, &p->mask, s->scores));
    p->selected = omp_get_wtime();
    ca_row_shape *shapes = mem;
    ca_row_shape shape = { 1, 1 };
    if (s->opt.executor == CA_EXEC_AUTO) {
        CA_TRY(ca_table_add_auto(s->cache, &p->mask, &s->opt.cost, &s->opt.worth, shapes, &p->table));
        count_shapes(sums, shapes, n_kv);
        return CA_OK;
    }
    if (s->opt.executor == CA_EXEC_BLOCK_SPARSE) {
        CA_TRY(ca_table_add_block_sparse(s->cache, &p->mask, &p->table));
    } else {
        CA_TRY(ca_table_add_compact(s->cache, &p->mask, &s->opt.table, &p->table));
        shape.heads = s->opt.table.heads_per_row ? s->opt.table.heads_per_row : group;
        shape.qblocks = s->opt.table.qblocks_per_row ? s->opt.table.qblocks_per_row : p->mask.n_qblocks;
    }
    for (uint32_t kv = 0; kv < n_kv; kv++) shapes[kv] = shape;
    count_shapes(sums, shapes, n_kv);
    return CA_OK;
}

/* Rows of all tokens of the chunk: dense prefix, selected, dense tail. */
static ca_status plan_rows(ca_session *s, const chunk_job *job, plan *p, ca_layer_sums *sums)
{
    const uint32_t select_end = job->select_from + job->n_selected;
    s->ws.used = 0;
    p->selected = omp_get_wtime();
    CA_TRY(ca_table_create(s->cache, &p->chunk, &s->ws, &p->table));
    if (s->model->config.sliding[p->chunk.layer])
        return ca_table_add_window(s->cache, 0, job->n, s->model->config.window, &p->table);
    if (job->n_selected > 0 && s->opt.select.selector == CA_SELECT_QUOKA)
        CA_TRY(gather_rows(s, job, p));
    else if (job->n_selected > 0)
        CA_TRY(select_rows(s, job, p, sums));
    CA_TRY(ca_table_add_dense(s->cache, 0, job->select_from, &p->table));
    return ca_table_add_dense(s->cache, select_end, job->n - select_end, &p->table);
}

static ca_status append(ca_session *s, const chunk_job *job, uint32_t layer, plan *p)
{
    const size_t q_width = (size_t)s->info.n_heads * s->info.head_dim, kv_width = (size_t)s->info.n_kv_heads * s->info.head_dim;
    const ca_acts *acts = &s->acts;
    ca_kv kv = { .k = acts->qkv + q_width, .v = acts->qkv + q_width + kv_width, .stride = acts->qkv_width };
    p->chunk = (ca_chunk){ .layer = layer, .pos = s->len, .n_tokens = job->n, .n_heads = s->info.n_heads };
    p->q = (ca_queries){ .q = acts->qkv, .stride = acts->qkv_width };
    if (acts->raw) {
        kv.k_raw = acts->raw + q_width;
        p->q.q_raw = acts->raw;
        kv.raw_stride = p->q.raw_stride = q_width + kv_width;
    }
    return ca_cache_append(s->cache, 0, layer, &kv, job->n);
}

static ca_status attention(ca_session *s, const chunk_job *job, uint32_t layer)
{
    const ca_model_info *info = &s->info;
    ca_layer_sums *sums = &s->layers[layer], unchanged = *sums;
    plan p = { 0 };
    const double start = omp_get_wtime();
    CA_TRY(append(s, job, layer, &p));
    const double appended = omp_get_wtime();
    CA_TRY(plan_rows(s, job, &p, sums));
    const double planned = omp_get_wtime();
    CA_TRY(ca_attend_as(s->cache, s->opt.attention, &p.table, info->attn_scale, p.q.q, p.q.stride, s->acts.h,
                        (size_t)info->n_heads * info->head_dim, ca_kern_flow_dtype(s->model->kern), s->opt.n_threads, &s->ws));
    const double end = omp_get_wtime();

    ca_table_count count;
    ca_table_measure(s->cache, &p.table, &count);
    sums->select_ms += (p.selected - appended) * 1e3;
    sums->table_ms += (planned - p.selected) * 1e3;
    sums->kernel_ms += (end - planned) * 1e3;
    sums->past_pairs += count.past_pairs;
    sums->past_pairs_dense += count.past_pairs_dense;
    if (p.mask.bits && !job->decodes) {
        ca_mask_count kept;
        ca_mask_measure(s->cache, &p.chunk, &p.mask, info->n_heads / info->n_kv_heads, &kept);
        sums->mask.asked += kept.asked;
        sums->mask.q_union += kept.q_union;
        sums->mask.g_union += kept.g_union;
        sums->mask.dense += kept.dense;
    }
    s->stats.attention_ms += (end - start) * 1e3;
    s->stats.gflop += 4e-9 * info->head_dim * (double)count.pairs;
    if (job->decodes) *sums = unchanged;
    if (job->opt->on_trace != NULL)
        job->opt->on_trace(job->opt->user, &(ca_trace){ .chunk = p.chunk,
                                                        .cache = s->cache,
                                                        .q = p.q,
                                                        .scale = info->attn_scale,
                                                        .mask = p.mask.bits ? &p.mask : NULL,
                                                        .scores = p.mask.bits ? s->scores : NULL,
                                                        .table = &p.table });
    return CA_OK;
}

/* Attention with the products around it. */
static ca_status attention_module(ca_session *s, const chunk_job *job, uint32_t layer)
{
    const double start = omp_get_wtime(), gemm_start = ca_gemm_counted(s->gemm).ms;
    CA_TRY(ca_layers_qkv(s->model, layer, job->n, &s->acts, s->gemm));
    const double gemm_qkv = ca_gemm_counted(s->gemm).ms;
    CA_TRY(attention(s, job, layer));
    const double gemm_out = ca_gemm_counted(s->gemm).ms;
    CA_TRY(ca_layers_project(s->model, layer, job->n, &s->acts, s->gemm));
    if (job->decodes) return CA_OK;
    s->stats.module_gemm_ms += gemm_qkv - gemm_start + ca_gemm_counted(s->gemm).ms - gemm_out;
    s->layers[layer].module_ms += (omp_get_wtime() - start) * 1e3;
    return CA_OK;
}

static ca_status run_layers(ca_session *s, const chunk_job *job)
{
    ca_layers_embed(s->model, job->tokens, job->n, s->len, &s->acts);
    const double start = omp_get_wtime();
    for (uint32_t l = 0; l < s->info.n_layers; l++) {
        if (job->opt->on_hidden != NULL) job->opt->on_hidden(job->opt->user, l, s->len, job->n, s->acts.x);
        if (job->opt->cancel != NULL && *job->opt->cancel != 0)
            return ca_fail(CA_E_CANCELED, "prefill: canceled after %u tokens", s->len);
        CA_TRY(attention_module(s, job, l));
        CA_TRY(ca_layers_network(s->model, l, job->n, &s->acts, s->gemm));
        if (job->opt->on_progress != NULL)
            job->opt->on_progress(job->opt->user, job->done + (double)job->n * (l + 1) / s->info.n_layers, job->total);
    }
    s->stats.layers_ms += (omp_get_wtime() - start) * 1e3;
    if (job->opt->on_hidden != NULL) job->opt->on_hidden(job->opt->user, s->info.n_layers, s->len, job->n, s->acts.x);
    return CA_OK;
}

/* Runs a chunk and moves the session's end behind it; on failure the cache is as it was before. */
static ca_status run_chunk(ca_session *s, const chunk_job *job)
{
    const size_t n_layers = s->info.n_layers;
    memcpy(s->layers + n_layers, s->layers, n_layers * sizeof *s->layers);
    const ca_status st = run_layers(s, job);
    if (st != CA_OK) {
        (void)ca_cache_truncate(s->cache, 0, s->len);
        memcpy(s->layers, s->layers + n_layers, n_layers * sizeof *s->layers);
        return st;
    }
    memcpy(s->tokens + s->len, job->tokens, job->n * sizeof *s->tokens);
    s->len += job->n;
    for (uint32_t l = 0; l < s->info.n_layers; l++) {
        const uint32_t keep = s->model->config.window + s->opt.page_tokens;
        if (s->model->config.sliding[l] && s->len > keep) CA_TRY(ca_cache_forget(s->cache, 0, l, s->len - keep));
    }
    return CA_OK;
}

static ca_status last_logits(ca_session *s, uint32_t n)
{
    CA_TRY(ca_layers_logits(s->model, n - 1, 1, &s->acts, s->gemm, s->logits));
    s->has_logits = true;
    return CA_OK;
}

/* Gives the logits of the chunk's tokens [first, n) away, a few rows at a time. */
static ca_status give_logits(ca_session *s, const chunk_job *job, uint32_t first)
{
    const uint32_t pos = s->len - job->n;
    for (uint32_t from = first; from < job->n; from += LOGIT_ROWS) {
        const uint32_t rows = ca_min_u32(LOGIT_ROWS, job->n - from);
        CA_TRY(ca_layers_logits(s->model, from, rows, &s->acts, s->gemm, s->logit_rows));
        for (uint32_t i = 0; i < rows; i++)
            CA_TRY(job->opt->on_logits(job->opt->user, pos + from + i, s->logit_rows + (size_t)i * s->info.vocab));
    }
    return CA_OK;
}

static ca_status check_tokens(const ca_session *s, const uint32_t *tokens, size_t n)
{
    if (n > s->opt.context - s->len)
        return ca_fail(CA_E_FULL,
                       "session: %zu tokens do not fit: %u of a context of %u are in use; shorten the text or raise the context", n,
                       s->len, s->opt.context);
    for (size_t i = 0; i < n; i++)
        if (tokens[i] >= s->info.vocab)
            return ca_fail(CA_E_ARG, "session: token %u at %zu is outside the vocabulary of %u", tokens[i], i, s->info.vocab);
    return CA_OK;
}

static ca_status alloc_floats(size_t a, size_t b, const char *what, float **out)
{
    size_t n = 0, bytes = 0;
    if (*out != NULL) return CA_OK;
    CA_TRY(ca_mul_size(a, b, &n));
    CA_TRY(ca_mul_size(n, sizeof **out, &bytes));
    *out = malloc(bytes);
    return *out != NULL ? CA_OK : ca_fail(CA_E_MEMORY, "session: no memory for %zu bytes of %s", bytes, what);
}

/* Buffers that only some calls need; kept for the next one. */
static ca_status reserve_outputs(ca_session *s, const ca_prefill_opt *opt)
{
    if (opt->n_logits > 0) CA_TRY(alloc_floats(LOGIT_ROWS, s->info.vocab, "logits", &s->logit_rows));
    if (opt->on_trace == NULL || s->opt.executor == CA_EXEC_DENSE) return CA_OK; /* no block scores */
    const size_t n_qblocks = (size_t)ca_ceil_div(s->opt.chunk, s->opt.page_tokens) + 1;
    const size_t n_kblocks = ca_ceil_div(s->opt.context, s->opt.page_tokens);
    return alloc_floats(s->info.n_heads * n_qblocks, n_kblocks, "block scores", &s->scores);
}

/* The chunk's tokens that go through the selector: those behind the dense prefix and among the first `sparse` of the chunk. The first
 * chunk has no past to choose from. */
static void choose_tokens(const ca_session *s, chunk_job *job, uint32_t sparse)
{
    const uint32_t prefix = s->opt.dense_prefix > s->len ? s->opt.dense_prefix - s->len : 0;
    if (s->len == 0 && !s->opt.sparse_first) return;
    sparse = ca_min_u32(sparse, job->n);
    if (prefix >= sparse) return;
    job->select_from = prefix;
    job->n_selected = sparse - prefix;
}

static ca_status prefill(ca_session *s, const uint32_t *tokens, uint32_t n, const ca_prefill_opt *opt)
{
    const ca_gemm_count gemm_before = ca_gemm_counted(s->gemm);
    const double start = omp_get_wtime();
    const uint32_t tail = opt->more_follows ? 0 : ca_min_u32(n, s->opt.dense_tail);
    const uint32_t sparse_end = s->opt.select.selector == CA_SELECT_NONE ? 0 : n - tail;
    const uint32_t logits_from = n - opt->n_logits;
    ca_status st = CA_OK;
    for (uint32_t done = 0; done < n;) {
        chunk_job job = { .tokens = tokens + done, .n = ca_min_u32(s->opt.chunk, n - done), .done = done, .total = n, .opt = opt };
        job.ends_prompt = done + job.n == n && !opt->more_follows;
        choose_tokens(s, &job, sparse_end - ca_min_u32(sparse_end, done));
        CA_TRY_GOTO(run_chunk(s, &job), end);
        s->stats.n_chunks++;
        s->stats.prefill_tokens += job.n;
        if (job.ends_prompt) CA_TRY_GOTO(last_logits(s, job.n), end);
        if (logits_from < done + job.n) CA_TRY_GOTO(give_logits(s, &job, logits_from > done ? logits_from - done : 0), end);
        done += job.n;
    }
end:;
    const ca_gemm_count gemm_after = ca_gemm_counted(s->gemm);
    s->stats.prefill_ms += (omp_get_wtime() - start) * 1e3;
    s->stats.gemm_ms += gemm_after.ms - gemm_before.ms;
    s->stats.gemm_gflop += (gemm_after.flop - gemm_before.flop) * 1e-9;
    s->stats.gflop += (gemm_after.flop - gemm_before.flop) * 1e-9;
    return st;
}

ca_status ca_session_prefill(ca_session *session, const uint32_t *tokens, size_t n, const ca_prefill_opt *opt)
{
    static const ca_prefill_opt no_opt = { 0 };
    const ca_prefill_opt *o = opt != NULL ? opt : &no_opt;
    if (n == 0) return ca_fail(CA_E_ARG, "prefill: no tokens were given");
    CA_TRY(check_tokens(session, tokens, n));
    if (o->n_logits > n)
        return ca_fail(CA_E_ARG, "prefill: logits of %u positions were asked for, %zu tokens were given", o->n_logits, n);
    if (o->n_logits > 0 && o->on_logits == NULL) return ca_fail(CA_E_ARG, "prefill: on_logits is missing");
    CA_TRY(reserve_outputs(session, o));
    session->has_logits = false;
    const int callers_threads = omp_get_max_threads();
    omp_set_num_threads(session->opt.n_threads);
    const ca_status st = prefill(session, tokens, (uint32_t)n, o);
    omp_set_num_threads(callers_threads);
    return st;
}

static ca_status decode(ca_session *s, uint32_t token)
{
    static const ca_prefill_opt no_opt = { 0 };
    CA_TRY(
        run_chunk(s, &(chunk_job){ .tokens = &token, .n = 1, .ends_prompt = true, .decodes = true, .total = 1, .opt = &no_opt }));
    return last_logits(s, 1);
}

ca_status ca_session_decode(ca_session *session, uint32_t token)
{
    CA_TRY(check_tokens(session, &token, 1));
    session->has_logits = false;
    const int callers_threads = omp_get_max_threads();
    omp_set_num_threads(session->opt.n_threads);
    /* What attention and products add to the sums of prefill is taken back: decode has its own. */
    const ca_session_stats stats = session->stats;
    const double start = omp_get_wtime();
    const ca_status st = decode(session, token);
    session->stats = stats;
    session->stats.decode_ms += (omp_get_wtime() - start) * 1e3;
    if (st == CA_OK) session->stats.decode_tokens++;
    omp_set_num_threads(callers_threads);
    return st;
}

const float *ca_session_logits(const ca_session *session)
{
    return session->has_logits ? session->logits : NULL;
}

uint32_t ca_session_shared(const ca_session *session, const uint32_t *tokens, size_t n)
{
    uint32_t i = 0;
    while (i < session->len && i < n && session->tokens[i] == tokens[i]) i++;
    return i;
}

uint32_t ca_session_len(const ca_session *session)
{
    return session->len;
}

uint32_t ca_session_context(const ca_session *session)
{
    return session->opt.context;
}

bool ca_session_misses(const ca_session *session, uint32_t layer, uint32_t n)
{
    const ca_config *config = &session->model->config;
    const uint32_t start = ca_cache_start(session->cache, 0, layer);
    return start > 0 && (!config->sliding[layer] || (uint64_t)n + 1 < (uint64_t)start + config->window);
}

ca_status ca_session_truncate(ca_session *session, uint32_t n)
{
    if (n > session->len) return ca_fail(CA_E_ARG, "session: cannot be cut to %u tokens, it has %u", n, session->len);
    for (uint32_t l = 0; l < session->info.n_layers && n > 0; l++)
        if (ca_session_misses(session, l, n))
            return ca_fail(CA_E_ARG,
                           "session: cannot be cut to %u tokens: layers with a window of %u have forgotten what comes before; "
                           "cut it to 0 and read the prompt again",
                           n, session->model->config.window);
    CA_TRY(ca_cache_truncate(session->cache, 0, n));
    session->len = n;
    session->has_logits = false;
    if (n > 0) return CA_OK;
    memset(session->layers, 0, session->info.n_layers * sizeof *session->layers);
    session->stats = (ca_session_stats){ .kv_bytes = session->stats.kv_bytes, .workspace_bytes = session->stats.workspace_bytes };
    return CA_OK;
}

void ca_session_get_stats(const ca_session *session, ca_session_stats *out)
{
    uint64_t past = 0, past_dense = 0;
    *out = session->stats;
    for (uint32_t l = 0; l < session->info.n_layers; l++) {
        const ca_layer_sums *sums = &session->layers[l];
        out->select_ms += sums->select_ms;
        out->table_ms += sums->table_ms;
        out->kernel_ms += sums->kernel_ms;
        out->module_ms += sums->module_ms;
        past += sums->past_pairs;
        past_dense += sums->past_pairs_dense;
    }
    out->kept_fraction = past_dense > 0 ? (double)past / (double)past_dense : 1.0;
}

static double ratio(uint64_t part, uint64_t all)
{
    return all > 0 ? (double)part / (double)all : 1.0;
}

ca_status ca_session_get_layer_stats(const ca_session *session, uint32_t layer, ca_layer_stats *out)
{
    if (layer >= session->info.n_layers) return ca_fail(CA_E_ARG, "session: layer %u of %u", layer, session->info.n_layers);
    const ca_layer_sums *s = &session->layers[layer];
    *out = (ca_layer_stats){ .select_ms = s->select_ms,
                             .table_ms = s->table_ms,
                             .kernel_ms = s->kernel_ms,
                             .module_ms = s->module_ms,
                             .window = session->model->config.sliding[layer] ? session->model->config.window : 0,
                             .asked = ratio(s->mask.asked, s->mask.dense),
                             .q_union = ratio(s->mask.q_union, s->mask.dense),
                             .g_union = ratio(s->mask.g_union, s->mask.dense),
                             .executed = ratio(s->past_pairs, s->past_pairs_dense),
                             .row_heads = s->n_rows > 0 ? s->row_heads / (double)s->n_rows : 0.0,
                             .row_qblocks = s->n_rows > 0 ? s->row_qblocks / (double)s->n_rows : 0.0,
                             .dense_rows = s->n_kv > 0 ? (double)s->n_dense / (double)s->n_kv : 0.0 };
    return CA_OK;
}
