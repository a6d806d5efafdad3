#include "recall.h"

#include "interrupt.h"
#include "message.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Settings of every sweep, the strictest first; those of seer are multiples of the mean probability of a block. of_blocks, of_past: shares of the K blocks or of the past tokens of the last chunk. */
static const struct template
{
    ca_selector selector;
    const char *option;
    bool whole, by_ratio, of_blocks, of_past;
    double values[RECALL_SETTINGS];
}
templates[] = {
    { CA_SELECT_FLASHPREFILL, "--alpha", false, true, false, false, { 1, 0.5, 0.3, 0.18, 0.12, 0.06, 0.03, 0.01 } },
    { CA_SELECT_SEER, "--threshold", false, true, false, false, { 4, 2, 1, 0.5, 0.2, 0.1, 0.03, 0.01 } },
    { CA_SELECT_QUOKA, "--kv-ratio", false, false, false, false, { 0.03, 0.06, 0.12, 0.2, 0.3, 0.45, 0.6, 0.8 } },
    { CA_SELECT_XATTENTION, "--threshold", false, false, false, false, { 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995 } },
    { CA_SELECT_MINFERENCE,
      "--top-k",
      true,
      true,
      true,
      false,
      { 1. / 32, 1. / 16, 1. / 8, 3. / 16, 1. / 4, 3. / 8, 1. / 2, 3. / 4 } },
    { CA_SELECT_TRISHAPE,
      "--window",
      true,
      true,
      false,
      true,
      { 1. / 32, 1. / 16, 1. / 8, 3. / 16, 1. / 4, 3. / 8, 1. / 2, 3. / 4 } },
    { CA_SELECT_ORACLE, "--threshold", false, false, false, false, { 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995 } },
};

void recall_set(ca_select_opt *select, double value)
{
    switch (select->selector) {
    case CA_SELECT_FLASHPREFILL: select->flashprefill.alpha = (float)value; break;
    case CA_SELECT_SEER:
        select->seer.threshold = (float)value;
        select->seer.n_steps = 0;
        break;
    case CA_SELECT_QUOKA: select->quoka.kv_ratio = (float)value; break;
    case CA_SELECT_XATTENTION: select->xattention.threshold = (float)value; break;
    case CA_SELECT_MINFERENCE: select->minference.top_k = (uint32_t)value; break;
    case CA_SELECT_TRISHAPE: select->trishape.window = (uint32_t)value; break;
    case CA_SELECT_ORACLE: select->oracle.mass = (float)value; break;
    case CA_SELECT_NONE:
    case CA_SELECT_USER: break;
    }
}

static double two_digits(double value)
{
    const double scale = pow(10, 1 - floor(log10(value)));
    return round(value * scale) / scale;
}

void recall_add_sweep(struct recall *recall, ca_selector selector, const ca_select_opt *select)
{
    const uint32_t bs = recall->opt.page_tokens, n_blocks = (recall->opt.context + bs - 1) / bs;
    const struct template *t = templates;
    while (t->selector != selector) t++;
    struct recall_sweep *sweep = &recall->sweeps[recall->n_sweeps++];
    *sweep = (struct recall_sweep){ .selector = selector,
                                    .option = t->option,
                                    .whole = t->whole,
                                    .by_ratio = t->by_ratio,
                                    .first = recall->n_settings,
                                    .select = *select };
    for (size_t i = 0; i < RECALL_SETTINGS; i++) {
        double value = t->values[i];
        if (t->of_blocks) value = fmax(1, round(value * n_blocks));
        if (t->of_past) value = bs * fmax(1, round(value * (recall->opt.context - recall->opt.chunk) / bs));
        if (selector == CA_SELECT_SEER && !select->seer.relative) value = fmin(1, two_digits(value / n_blocks));
        if (sweep->n == 0 || value != sweep->values[sweep->n - 1]) sweep->values[sweep->n++] = value;
    }
    recall->n_settings += sweep->n;
}

/* What the measuring needs beside the result. */
struct job {
    struct recall *recall;
    ca_model_info info;
    struct progress progress;
    double done, total; /* steps: a layer of a chunk, or a setting */
    volatile int stop;
    ca_status status;
    char why[512]; /* when status is not CA_OK */
    ca_workspace ws;
    float *truth;     /* [n_heads][n_qblocks][n_kblocks]: the true mass */
    float *dense, *o; /* [chunk][n_heads * head_dim] */
    uint32_t *tokens; /* quoka: [n_kv_heads][gather_tokens] */
    uint32_t *pages;  /* [n_kv_heads][gather_pages] */
    uint32_t gather_tokens, gather_pages;
    uint16_t *chosen;  /* [n_kv_heads][context]: bit i = setting i reads the token */
    ca_cache *counter; /* the keys of one layer, with values that count: see measure_tokens */
    float *kv;         /* [2][page_tokens][n_kv_heads][head_dim] */
};

#define TRY(call)                                                                                                                  \
    do {                                                                                                                           \
        const ca_status try_status = (call);                                                                                       \
        if (try_status != CA_OK) return try_status;                                                                                \
    } while (0)

static ca_status attend(struct job *job, const ca_trace *trace, const ca_cache *cache, const ca_table *table, float *o)
{
    const size_t width = (size_t)job->info.n_heads * job->info.head_dim;
    return ca_attend(cache, table, trace->scale, trace->q.q, trace->q.stride, o, width, CA_F32, job->recall->opt.n_threads,
                     &job->ws);
}

static double output_error(const struct job *job, uint32_t n_tokens)
{
    const size_t n = (size_t)n_tokens * job->info.n_heads * job->info.head_dim;
    const float *o = job->o, *dense = job->dense;
    double off = 0, all = 0;
#pragma omp parallel for reduction(+ : off, all)
    for (size_t i = 0; i < n; i++) {
        const double d = (double)o[i] - (double)dense[i];
        off += d * d;
        all += (double)dense[i] * (double)dense[i];
    }
    return all > 0 ? sqrt(off / all) : 0;
}

/* Mean over heads and queries of the true mass of the blocks that the table's rows list. truth says it per Q block, as the mean of its
 * queries. */
static double table_mass(const struct job *job, const ca_trace *trace, const ca_table *table, const ca_mask *grid)
{
    const uint32_t bs = job->recall->opt.page_tokens;
    double sum = 0;
    for (uint32_t r = 0; r < table->n_rows; r++) {
        const ca_row *row = &table->rows[r];
        for (uint32_t from = row->pos; from < row->pos + row->n_tokens;) {
            const uint32_t end = (from / bs + 1) * bs, to = end < row->pos + row->n_tokens ? end : row->pos + row->n_tokens;
            for (uint32_t h = row->head; h < row->head + row->n_heads; h++) {
                const float *mass = job->truth + ((size_t)h * grid->n_qblocks + from / bs - grid->first_qblock) * grid->n_kblocks;
                double part = 0;
                for (uint32_t i = 0; i < row->n_pages; i++)
                    part += (double)mass[ca_page_pos(trace->cache, table->pages[row->first_page + i]) / bs];
                sum += part * (to - from);
            }
            from = to;
        }
    }
    return fmin(1, sum / ((double)trace->chunk.n_heads * trace->chunk.n_tokens)); /* rounding may pass 1 */
}

/* Selects blocks and builds the rows that read them. */
static ca_status block_rows(struct job *job, const ca_trace *trace, const ca_select_opt *select, ca_table *table)
{
    const ca_session_opt *opt = &job->recall->opt;
    ca_mask mask;
    TRY(ca_table_create(trace->cache, &trace->chunk, &job->ws, table));
    TRY(ca_mask_create(trace->cache, &trace->chunk, 0, trace->chunk.n_tokens, &job->ws, &mask));
    TRY(ca_select(trace->cache, select, &trace->chunk, &trace->q, &job->ws, &mask, NULL));
    if (opt->executor == CA_EXEC_BLOCK_SPARSE) return ca_table_add_block_sparse(trace->cache, &mask, table);
    if (opt->executor == CA_EXEC_COMPACT) return ca_table_add_compact(trace->cache, &mask, &opt->table, table);
    return ca_table_add_auto(trace->cache, &mask, &opt->cost, &opt->worth, NULL, table);
}

/* Selects tokens, gathers them, and notes them as those of the setting. */
static ca_status token_rows(struct job *job, const ca_trace *trace, const ca_select_opt *select, size_t setting, ca_table *table)
{
    const uint32_t bs = job->recall->opt.page_tokens;
    uint32_t n = 0, counts[1024];
    if (job->info.n_kv_heads > sizeof counts / sizeof *counts) return CA_E_UNSUPPORTED;
    TRY(ca_table_create(trace->cache, &trace->chunk, &job->ws, table));
    TRY(ca_select_tokens(trace->cache, select, &trace->chunk, &trace->q, &job->ws, job->tokens, &n, NULL));
    for (uint32_t kv = 0; kv < job->info.n_kv_heads; kv++) {
        const uint32_t *tokens = job->tokens + (size_t)kv * job->gather_tokens;
        uint16_t *chosen = job->chosen + (size_t)kv * job->recall->opt.context;
        counts[kv] = (n + bs - 1) / bs;
        TRY(ca_cache_gather(trace->cache, trace->chunk.seq, trace->chunk.layer, kv, tokens, n,
                            job->pages + (size_t)kv * job->gather_pages));
        for (uint32_t i = 0; i < n; i++) chosen[tokens[i]] |= (uint16_t)(1U << setting);
    }
    return ca_table_add_gathered(trace->cache, 0, trace->chunk.n_tokens, job->pages, job->gather_pages, counts, table);
}

/* One page of all KV heads: its keys, and values that are 1 in channel i when setting i reads the token, else 0. */
static ca_status count_page(struct job *job, const ca_trace *trace, uint32_t block, uint32_t n)
{
    const uint32_t bs = job->recall->opt.page_tokens, dim = job->info.head_dim, n_kv = job->info.n_kv_heads;
    const size_t width = (size_t)n_kv * dim;
    float *k = job->kv, *v = k + bs * width, plain[128 * 256];
    memset(v, 0, bs * width * sizeof *v);
    for (uint32_t kv = 0; kv < n_kv; kv++) {
        uint32_t n_pages;
        const uint32_t *pages = ca_cache_pages(trace->cache, trace->chunk.seq, trace->chunk.layer, kv, &n_pages);
        const uint16_t *chosen = job->chosen + (size_t)kv * job->recall->opt.context + (size_t)block * bs;
        TRY(ca_page_read(trace->cache, pages[block], plain, NULL));
        for (uint32_t t = 0; t < n; t++) {
            memcpy(k + t * width + (size_t)kv * dim, plain + (size_t)t * dim, dim * sizeof *k);
            for (uint32_t i = 0; i < RECALL_SETTINGS; i++)
                v[t * width + (size_t)kv * dim + i] = chosen[t] >> i & 1 || block >= trace->chunk.pos / bs ? 1.0F : 0.0F;
        }
    }
    return ca_cache_append(job->counter, 0, 0, &(ca_kv){ .k = k, .v = v, .stride = width }, n);
}

/* The mass of chosen tokens: attention over the same keys, with values that are 1 where a token is read and else 0, has it as its
 * output, one channel a setting. */
static ca_status measure_tokens(struct job *job, const ca_trace *trace, const struct recall_sweep *sweep,
                                struct recall_point *points)
{
    const ca_chunk *c = &trace->chunk;
    const uint32_t bs = job->recall->opt.page_tokens, dim = job->info.head_dim, len = c->pos + c->n_tokens;
    const ca_chunk counted = { .pos = c->pos, .n_tokens = c->n_tokens, .n_heads = c->n_heads };
    ca_table table;
    TRY(ca_cache_truncate(job->counter, 0, 0));
    for (uint32_t block = 0; block * bs < len; block++)
        TRY(count_page(job, trace, block, len - block * bs < bs ? len - block * bs : bs));
    TRY(ca_table_create(job->counter, &counted, &job->ws, &table));
    TRY(ca_table_add_dense(job->counter, 0, c->n_tokens, &table));
    TRY(attend(job, trace, job->counter, &table, job->o));
    for (size_t i = 0; i < sweep->n; i++) {
        double sum = 0;
        for (size_t v = 0; v < (size_t)c->n_tokens * c->n_heads; v++) sum += (double)job->o[v * dim + i];
        points[i].mass = fmin(1, sum / ((double)c->n_tokens * c->n_heads));
    }
    return CA_OK;
}

static void step(struct job *job)
{
    job->done++;
    progress_update(&job->progress, job->done, job->total);
    if (interrupt_flag) job->stop = 1;
}

static ca_status measure_sweep(struct job *job, const ca_trace *trace, const struct recall_sweep *sweep, const ca_mask *grid,
                               struct recall_point *points)
{
    const bool tokens = sweep->selector == CA_SELECT_QUOKA;
    const size_t mark = job->ws.used;
    if (tokens) memset(job->chosen, 0, (size_t)job->info.n_kv_heads * job->recall->opt.context * sizeof *job->chosen);
    for (size_t i = 0; i < sweep->n && !job->stop; i++) {
        ca_select_opt select = sweep->select;
        ca_table table;
        ca_table_count count;
        select.oracle.scale = trace->scale;
        recall_set(&select, sweep->values[i]);
        TRY(tokens ? token_rows(job, trace, &select, i, &table) : block_rows(job, trace, &select, &table));
        TRY(attend(job, trace, trace->cache, &table, job->o));
        ca_table_measure(trace->cache, &table, &count);
        points[i].mass = tokens ? NAN : table_mass(job, trace, &table, grid);
        points[i].kept = (double)count.past_pairs / (double)count.past_pairs_dense;
        points[i].error = output_error(job, trace->chunk.n_tokens);
        job->ws.used = mark;
        step(job);
    }
    if (tokens && !job->stop) TRY(measure_tokens(job, trace, sweep, points));
    job->ws.used = mark;
    return CA_OK;
}

static ca_status allocate(void *out, size_t n, size_t size)
{
    void *mem = n > 0 && size > SIZE_MAX / n ? NULL : aligned_alloc(64, (n * size + 63) / 64 * 64 + 64);
    if (!mem) return CA_E_MEMORY;
    memcpy(out, &mem, sizeof mem);
    return CA_OK;
}

/* Buffers for the largest chunk; the session has set the OpenMP threads that the sizes depend on. */
static ca_status prepare(struct job *job, const ca_trace *trace)
{
    const ca_session_opt *opt = &job->recall->opt;
    const ca_model_info *info = &job->info;
    const size_t n_kblocks = (opt->context + opt->page_tokens - 1) / opt->page_tokens;
    const size_t n_qblocks = (opt->chunk + opt->page_tokens - 1) / opt->page_tokens + 1;
    const size_t width = (size_t)info->n_heads * info->head_dim;
    size_t select_bytes = 0;
    for (size_t s = 0; s < job->recall->n_sweeps; s++) {
        for (size_t i = 0; i < job->recall->sweeps[s].n; i++) {
            ca_select_opt select = job->recall->sweeps[s].select;
            recall_set(&select, job->recall->sweeps[s].values[i]);
            const size_t bytes = ca_select_ws_bytes(trace->cache, &select, info->n_heads, opt->chunk, opt->context);
            if (bytes > select_bytes) select_bytes = bytes;
        }
    }
    ca_select_opt oracle;
    ca_select_defaults(CA_SELECT_ORACLE, &oracle);
    job->ws.size = 2 * ca_table_ws_bytes(trace->cache, info->n_heads, opt->chunk, opt->context) + select_bytes +
                   ca_select_ws_bytes(trace->cache, &oracle, info->n_heads, opt->chunk, opt->context) +
                   ca_attend_ws_bytes(trace->cache, info->n_heads, opt->chunk, opt->n_threads);
    TRY(allocate(&job->ws.base, job->ws.size, 1));
    TRY(allocate(&job->truth, info->n_heads * n_qblocks * n_kblocks, sizeof *job->truth));
    TRY(allocate(&job->dense, opt->chunk * width, sizeof *job->dense));
    TRY(allocate(&job->o, opt->chunk * width, sizeof *job->o));
    if (job->gather_tokens == 0) return CA_OK;
    TRY(allocate(&job->tokens, (size_t)info->n_kv_heads * job->gather_tokens, sizeof *job->tokens));
    TRY(allocate(&job->pages, (size_t)info->n_kv_heads * job->gather_pages, sizeof *job->pages));
    TRY(allocate(&job->chosen, (size_t)info->n_kv_heads * opt->context, sizeof *job->chosen));
    TRY(allocate(&job->kv, (size_t)2 * opt->page_tokens * info->n_kv_heads * info->head_dim, sizeof *job->kv));
    return ca_cache_create(&(ca_cache_opt){ .n_layers = 1,
                                            .n_kv_heads = info->n_kv_heads,
                                            .head_dim = info->head_dim,
                                            .page_tokens = opt->page_tokens,
                                            .max_seqs = 1,
                                            .capacity_tokens = opt->context,
                                            .kern = ca_model_kern(job->recall->engine->model) },
                           &job->counter);
}

static void job_free(struct job *job)
{
    free(job->ws.base);
    free(job->truth);
    free(job->dense);
    free(job->o);
    free(job->tokens);
    free(job->pages);
    free(job->chosen);
    free(job->kv);
    ca_cache_destroy(job->counter);
}

/* All settings in one layer and chunk. */
static ca_status measure_sample(struct job *job, const ca_trace *trace, struct recall_point *points)
{
    ca_select_opt oracle;
    ca_table table;
    ca_mask grid;
    if (!job->ws.base) TRY(prepare(job, trace));
    job->ws.used = 0;
    TRY(ca_table_create(trace->cache, &trace->chunk, &job->ws, &table));
    TRY(ca_table_add_dense(trace->cache, 0, trace->chunk.n_tokens, &table));
    TRY(attend(job, trace, trace->cache, &table, job->dense));
    job->ws.used = 0;
    ca_select_defaults(CA_SELECT_ORACLE, &oracle);
    oracle.oracle.scale = trace->scale;
    TRY(ca_mask_create(trace->cache, &trace->chunk, 0, trace->chunk.n_tokens, &job->ws, &grid));
    TRY(ca_select(trace->cache, &oracle, &trace->chunk, &trace->q, &job->ws, &grid, job->truth));
    for (size_t s = 0; s < job->recall->n_sweeps && !job->stop; s++)
        TRY(measure_sweep(job, trace, &job->recall->sweeps[s], &grid, points + job->recall->sweeps[s].first));
    return CA_OK;
}

static bool is_measured(const struct recall *recall, uint32_t layer, uint32_t chunk)
{
    for (uint32_t i = 0; i < recall->n_chunks; i++)
        if (recall->chunks[i] == chunk) return recall->layers[layer];
    return false;
}

static void on_trace(void *user, const ca_trace *trace)
{
    struct job *job = user;
    struct recall *recall = job->recall;
    const uint32_t chunk = trace->chunk.pos / recall->opt.chunk;
    const bool windowed = trace->table->n_rows > 0 && trace->table->rows[0].window > 0; /* no selector works on such a layer */
    if (!job->stop && !windowed && is_measured(recall, trace->chunk.layer, chunk)) {
        job->status = measure_sample(job, trace, recall->points + recall->n_samples * recall->n_settings);
        if (job->status != CA_OK) {
            const char *why = job->status == CA_E_MEMORY ? "" : ca_last_error();
            snprintf(job->why, sizeof job->why, "%s", *why ? why : ca_status_name(job->status));
            job->stop = 1;
        }
        if (!job->stop)
            recall->samples[recall->n_samples++] = (struct recall_sample){ trace->chunk.layer, chunk, trace->chunk.pos };
    }
    step(job);
}

/* The session keeps what all of the selectors need. */
static void session_needs(struct job *job, ca_session_opt *opt)
{
    ca_select_defaults(CA_SELECT_NONE, &opt->select);
    opt->executor = CA_EXEC_DENSE;
    for (size_t s = 0; s < job->recall->n_sweeps; s++) {
        const struct recall_sweep *sweep = &job->recall->sweeps[s];
        ca_select_opt select = sweep->select;
        recall_set(&select, sweep->values[sweep->n - 1]);
        const uint32_t gather = ca_select_gather_tokens(&select, opt->context);
        opt->summaries |= ca_select_summaries(&select);
        if (gather > opt->gather_tokens) opt->gather_tokens = gather;
        if (sweep->selector == CA_SELECT_SEER) opt->gate = select.seer.gate;
    }
    job->gather_tokens = opt->gather_tokens;
    job->gather_pages = (opt->gather_tokens + opt->page_tokens - 1) / opt->page_tokens;
}

static int measure(struct job *job, const uint32_t *ids, enum progress_style style)
{
    struct recall *recall = job->recall;
    ca_session_opt opt = recall->opt;
    ca_session *session = NULL;
    session_needs(job, &opt);
    ca_status status = ca_session_create(recall->engine->model, &opt, &session);
    if (status != CA_OK) return fail_library(status);
    const ca_prefill_opt hooks = { .user = job, .on_trace = on_trace, .cancel = &job->stop };
    progress_begin(&job->progress, "inspect recall", style);
    job->progress.unit = "steps";
    status = ca_session_prefill(session, ids, opt.context, &hooks);
    progress_end(&job->progress);
    ca_session_destroy(session);
    if (job->status != CA_OK) return fail("%s", job->why);
    if (job->stop) return EXIT_INTERRUPTED;
    return status == CA_OK ? EXIT_DONE : fail_library(status);
}

int recall_measure(struct recall *recall, const uint32_t *ids, enum progress_style style)
{
    struct job job = { .recall = recall };
    const size_t n_samples = (size_t)recall->n_layers * recall->n_chunks;
    const uint32_t n_chunks = (recall->opt.context + recall->opt.chunk - 1) / recall->opt.chunk;
    ca_model_get_info(recall->engine->model, &job.info);
    job.total = (double)job.info.n_layers * n_chunks + (double)n_samples * (double)recall->n_settings;
    recall->samples = calloc(n_samples, sizeof *recall->samples);
    recall->points = calloc(n_samples * recall->n_settings, sizeof *recall->points);
    const int code = recall->samples && recall->points ? measure(&job, ids, style) : fail("no memory for the results");
    job_free(&job);
    return code;
}

void recall_free(struct recall *recall)
{
    free(recall->layers);
    free(recall->chunks);
    free(recall->samples);
    free(recall->points);
}

struct recall_mean recall_mean(const struct recall *recall, size_t setting)
{
    struct recall_mean out = { .worst_layer = INFINITY };
    for (size_t i = 0; i < recall->n_samples; i++) {
        const struct recall_point *p = &recall->points[i * recall->n_settings + setting];
        double layer_sum = 0, layer_n = 0;
        out.mean.mass += p->mass / (double)recall->n_samples;
        out.mean.kept += p->kept / (double)recall->n_samples;
        out.mean.error += p->error / (double)recall->n_samples;
        for (size_t k = 0; k < recall->n_samples; k++) {
            if (recall->samples[k].layer != recall->samples[i].layer) continue;
            layer_sum += recall->points[k * recall->n_settings + setting].mass;
            layer_n++;
        }
        out.worst_layer = fmin(out.worst_layer, layer_sum / layer_n);
    }
    return out;
}

/* Rounded towards the looser setting: to whole numbers, or to three digits. */
static double round_looser(const struct recall_sweep *sweep, double value)
{
    const double scale = sweep->whole ? 1 : pow(10, 2 - floor(log10(value)));
    const bool up = sweep->n < 2 || sweep->values[1] > sweep->values[0];
    return (up ? ceil(value * scale - 1e-9) : floor(value * scale + 1e-9)) / scale;
}

bool recall_advise(const struct recall *recall, const struct recall_sweep *sweep, double recall_asked, struct recall_advice *out)
{
    struct recall_mean strict = recall_mean(recall, sweep->first);
    *out = (struct recall_advice){ sweep->values[0], strict.mean };
    if (strict.mean.mass >= recall_asked) return true;
    for (size_t i = 1; i < sweep->n; i++) {
        const struct recall_mean loose = recall_mean(recall, sweep->first + i);
        if (loose.mean.mass >= recall_asked) {
            const double t = (recall_asked - strict.mean.mass) / (loose.mean.mass - strict.mean.mass);
            const double v0 = sweep->values[i - 1], v1 = sweep->values[i];
            out->value = round_looser(sweep, sweep->by_ratio ? v0 * pow(v1 / v0, t) : v0 + (v1 - v0) * t);
            out->expected = (struct recall_point){ recall_asked, strict.mean.kept + (loose.mean.kept - strict.mean.kept) * t,
                                                   strict.mean.error + (loose.mean.error - strict.mean.error) * t };
            return true;
        }
        if (loose.mean.mass > out->expected.mass) *out = (struct recall_advice){ sweep->values[i], loose.mean };
        strict = loose;
    }
    return false;
}
