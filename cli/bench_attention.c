/* compactattn bench attention: the attention of one layer and chunk without a model, by shape and method, against the machine's peak. */
#include "clock.h"
#include "commands.h"
#include "interrupt.h"
#include "measure.h"
#include "message.h"
#include "method.h"
#include "report/table.h"
#include "tune.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_CACHES = 3,
    MAX_ROWS = METHOD_MAX + 16,
    PIECE = 1024,
    CENTERS = 24,
    SAMPLED_TOKENS = 7, /* whose output is checked */
    SAMPLED_HEADS = 2,  /* of each */
    SAMPLES = SAMPLED_TOKENS * SAMPLED_HEADS
};

struct shape {
    char text[64];
    uint32_t q, kv, n_heads, n_kv_heads, dim, page; /* page 0: the method's default */
};

/* One line of the result: a method, or compactattn over a given share of the past. */
struct line {
    struct method method;
    double keep; /* NaN: the method selects */
    char name[64];
    ca_session_opt opt; /* of the method: selector, rows, page */
    struct layer *layer;
    double select_ms, table_ms, kernel_ms, kept, gflop;
    double gb;    /* keys and values of the pages in the table; NaN: enough queries share them to be no matter */
    double error; /* of the last run; NaN: not checked */
};

/* A cache of one page size, filled with the shape's keys and values. */
struct layer {
    ca_cache *cache;
    ca_cache_opt opt;
    ca_workspace ws;
};

struct bench {
    const struct options *options;
    const ca_kern *kern;
    int n_threads;
    double peak;
    double bandwidth; /* GB/s; NaN: no line has needed it yet */
    struct shape shape;
    ca_gate *gate; /* made up; only when seer is asked for */
    struct layer layers[MAX_CACHES];
    size_t n_layers;
    struct line lines[MAX_ROWS];
    size_t n_lines;
    float *q, *q_raw, *o, *centers;
    struct table *table;
    json_t *rows;
};

/* A number after a word: moves *at behind both. */
static bool read_part(const char **at, const char *word, uint32_t *out)
{
    const size_t length = strlen(word);
    if (strncmp(*at, word, length) != 0 || (*at)[length] < '0' || (*at)[length] > '9') return false;
    char *end;
    errno = 0;
    const unsigned long value = strtoul(*at + length, &end, 10);
    *at = end;
    *out = (uint32_t)value;
    return errno == 0 && value <= 1U << 24;
}

/* "q1024,kv32768,h32:8,d128" and optionally ",p64". */
static int parse_shape(const char *text, struct shape *out)
{
    const char *at = text;
    *out = (struct shape){ 0 };
    snprintf(out->text, sizeof out->text, "%s", text);
    if (!read_part(&at, "q", &out->q) || !read_part(&at, ",kv", &out->kv) || !read_part(&at, ",h", &out->n_heads) ||
        !read_part(&at, ":", &out->n_kv_heads) || !read_part(&at, ",d", &out->dim))
        return usage_error("--shape %s: expected q1024,kv32768,h32:8,d128 (,p64 for pages of 64)", text);
    if (*at && (!read_part(&at, ",p", &out->page) || *at)) return usage_error("--shape %s: unexpected %s", text, at);
    if (out->q == 0 || out->q > out->kv || out->n_kv_heads == 0 || out->n_heads % out->n_kv_heads != 0)
        return usage_error("--shape %s: q is at most kv, and the heads are a multiple of the KV heads", out->text);
    return EXIT_DONE;
}

/* The same numbers in every run: SplitMix64, four 16-bit lanes summed, about normal with standard deviation 1. */
static float draw(uint64_t seed, uint64_t i)
{
    uint64_t z = seed + (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    float sum = 0;
    for (unsigned lane = 0; lane < 64; lane += 16) sum += (float)(z >> lane & 0xffff) / 65536.0F - 0.5F;
    return sum * 1.732F;
}

/* The nearest value that bf16 has, too: rounding a query is no error of the kernel. */
static float as_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000U;
    memcpy(&value, &bits, sizeof bits);
    return value;
}

static uint32_t pick(uint64_t seed, uint64_t i, uint32_t n)
{
    return (uint32_t)((double)(draw(seed, i) + 4.0F) * 1e6) % n;
}

/* Keys of 128 tokens lie around one of some centers; a query looks at two of them. So blocks matter unequally, as in a real model. */
static void make_keys(const struct bench *bench, uint32_t first, uint32_t n, float *k, float *v)
{
    const struct shape *s = &bench->shape;
    const size_t width = (size_t)s->n_kv_heads * s->dim;
#pragma omp parallel for schedule(static)
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t h = 0; h < s->n_kv_heads; h++) {
            const uint32_t who = pick(2, (uint64_t)(first + t) / 128 * s->n_kv_heads + h, CENTERS);
            for (uint32_t d = 0; d < s->dim; d++) {
                const size_t at = t * width + (size_t)h * s->dim + d;
                const uint64_t id = (uint64_t)first * width + at;
                k[at] = bench->centers[((size_t)h * CENTERS + who) * s->dim + d] + 0.5F * draw(3, id);
                v[at] = draw(4, id);
            }
        }
}

static void make_queries(struct bench *bench)
{
    const struct shape *s = &bench->shape;
    const uint32_t group = s->n_heads / s->n_kv_heads;
#pragma omp parallel for schedule(static)
    for (uint32_t t = 0; t < s->q; t++)
        for (uint32_t h = 0; h < s->n_heads; h++) {
            const float *own = bench->centers + ((size_t)(h / group) * CENTERS + pick(5, h / group, CENTERS)) * s->dim;
            const float *turn = bench->centers +
                                ((size_t)(h / group) * CENTERS + pick(6, (uint64_t)(h / group) * 64 + t / 256, CENTERS)) * s->dim;
            for (uint32_t d = 0; d < s->dim; d++) {
                const size_t at = ((size_t)t * s->n_heads + h) * s->dim + d;
                bench->q[at] = bench->q_raw[at] = as_bf16(0.5F * (own[d] + turn[d] + draw(7, at)));
            }
        }
}

/* A gate of the shape of the published ones, with random weights: what it chooses means nothing, what it costs does. */
static int make_gate(struct bench *bench)
{
    const struct shape *s = &bench->shape;
    double freq[128];
    for (uint32_t i = 0; i < s->dim / 2; i++) freq[i] = pow(5e5, -2.0 * i / s->dim);
    const ca_gate_opt opt = { .n_layers = 1,
                              .n_heads = s->n_heads,
                              .n_kv_heads = s->n_kv_heads,
                              .head_dim = s->dim,
                              .hidden = s->dim,
                              .block = 64,
                              .q_pool = CA_POOL_AVG,
                              .k_pool = CA_POOL_MAX | CA_POOL_MIN | CA_POOL_AVG,
                              .inv_freq = freq,
                              .rotary = s->dim,
                              .rope_scale = 1.0F };
    const size_t n = (size_t)s->n_heads * 3 * s->dim * s->dim;
    float *wk = malloc(n * sizeof *wk);
    if (!wk) return fail("no memory for a gate");
    for (size_t i = 0; i < n; i++) wk[i] = 0.1F * draw(8, i);
    ca_status status = ca_gate_create(&opt, &bench->gate);
    if (status == CA_OK) status = ca_gate_set_layer(bench->gate, 0, wk, NULL);
    free(wk);
    return status == CA_OK ? EXIT_DONE : fail_library(status);
}

static int add_line(struct bench *bench, const struct method *method, double keep)
{
    struct line *line = &bench->lines[bench->n_lines++];
    *line = (struct line){ .method = *method, .keep = keep };
    snprintf(line->name, sizeof line->name, "%s", method->name);
    if (!isnan(keep)) snprintf(line->name, sizeof line->name, "keep %.3g+compactattn", keep);
    const int code = method_session_opt(bench->options, method, bench->gate, &line->opt);
    if (bench->shape.page > 0) line->opt.page_tokens = bench->shape.page;
    (void)tune_cost(bench->kern, line->opt.attention, &line->opt.cost);
    return code;
}

/* The methods of --methods, and one line per share of --keep. dense comes first: the others are compared with it. */
static int make_lines(struct bench *bench)
{
    struct method methods[METHOD_MAX];
    static const struct method dense = { CA_SELECT_NONE, CA_EXEC_DENSE, "dense" };
    static const struct method compact = { CA_SELECT_USER, CA_EXEC_COMPACT, "compactattn" };
    size_t n = 0;
    bench->n_lines = 0;
    int code = method_choose_list(bench->options, "dense,flashprefill+compactattn", methods, &n);
    for (size_t i = 0; i < n && code == EXIT_DONE; i++)
        if (methods[i].selector == CA_SELECT_SEER && !bench->gate) code = make_gate(bench);
    if (code == EXIT_DONE) code = add_line(bench, &dense, NAN);
    for (size_t i = 0; i < n && code == EXIT_DONE; i++)
        if (methods[i].selector != CA_SELECT_NONE) code = add_line(bench, &methods[i], NAN);
    for (const char *at = bench->options->keep; at && code == EXIT_DONE; at++) {
        char *end;
        const double keep = strtod(at, &end);
        if (end == at || !(keep >= 0 && keep <= 1) || (*end && *end != ',') || bench->n_lines == MAX_ROWS)
            return usage_error("--keep %s: expected up to 16 numbers from 0 to 1, separated by commas", bench->options->keep);
        code = add_line(bench, &compact, keep);
        at = end;
        if (!*at) break;
    }
    return code;
}

/* Appends the shape's tokens to a layer. */
static ca_status fill(const struct bench *bench, struct layer *layer)
{
    const struct shape *s = &bench->shape;
    const size_t width = (size_t)s->n_kv_heads * s->dim;
    float *k = malloc(PIECE * width * sizeof *k), *v = malloc(PIECE * width * sizeof *v);
    ca_status status = k && v ? CA_OK : CA_E_MEMORY;
    for (uint32_t at = 0; at < s->kv && status == CA_OK; at += PIECE) {
        const uint32_t n = s->kv - at < PIECE ? s->kv - at : PIECE;
        make_keys(bench, at, n, k, v);
        status = ca_cache_append(layer->cache, 0, 0, &(ca_kv){ .k = k, .v = v, .stride = width, .k_raw = k, .raw_stride = width },
                                 n);
    }
    free(k);
    free(v);
    return status;
}

/* The layer with the line's page size; made when it is not there. Its summaries are those that any line of that size needs. */
static int find_layer(struct bench *bench, struct line *line)
{
    const struct shape *s = &bench->shape;
    for (size_t i = 0; i < bench->n_layers; i++) {
        if (bench->layers[i].opt.page_tokens != line->opt.page_tokens) continue;
        line->layer = &bench->layers[i];
        return EXIT_DONE;
    }
    struct layer *layer = line->layer = &bench->layers[bench->n_layers++];
    *layer = (struct layer){ .opt = { .n_layers = 1,
                                      .n_kv_heads = s->n_kv_heads,
                                      .head_dim = s->dim,
                                      .page_tokens = line->opt.page_tokens,
                                      .max_seqs = 1,
                                      .capacity_tokens = s->kv,
                                      .gate = bench->gate,
                                      .kern = bench->kern } };
    for (size_t i = 0; i < bench->n_lines; i++) {
        if (bench->lines[i].opt.page_tokens != line->opt.page_tokens) continue;
        const uint32_t tokens = ca_select_gather_tokens(&bench->lines[i].opt.select, s->kv);
        layer->opt.summaries |= ca_select_summaries(&bench->lines[i].opt.select);
        layer->opt.gather_tokens = tokens > layer->opt.gather_tokens ? tokens : layer->opt.gather_tokens;
    }
    ca_status status = ca_cache_create(&layer->opt, &layer->cache);
    if (status != CA_OK) return fail_library(status);
    size_t select = 0;
    for (size_t i = 0; i < bench->n_lines; i++) {
        const size_t need = ca_select_ws_bytes(layer->cache, &bench->lines[i].opt.select, s->n_heads, s->q, s->kv);
        if (bench->lines[i].opt.page_tokens == line->opt.page_tokens && need > select) select = need;
    }
    const size_t lists = (size_t)s->n_kv_heads * (layer->opt.gather_tokens + s->kv) * sizeof(uint32_t) + 4096;
    layer->ws.size = (ca_table_ws_bytes(layer->cache, s->n_heads, s->q, s->kv) + select + lists +
                      ca_attend_ws_bytes(layer->cache, s->n_heads, s->q, bench->n_threads) + 63) /
                     64 * 64;
    layer->ws.base = aligned_alloc(64, layer->ws.size);
    if (!layer->ws.base) return fail("no memory for %zu bytes of workspace", layer->ws.size);
    status = fill(bench, layer);
    return status == CA_OK ? EXIT_DONE : fail_library(status);
}

/* The same share of past blocks for every head and Q block of a KV head, drawn at random. */
static void keep_share(const struct bench *bench, const ca_chunk *chunk, double keep, ca_mask *mask)
{
    const uint32_t past = mask->first_qblock, group = chunk->n_heads / bench->shape.n_kv_heads;
    for (uint32_t kv = 0; kv < bench->shape.n_kv_heads; kv++) {
        uint32_t wanted = (uint32_t)lrint(keep * past);
        for (uint32_t j = 0; j < past && wanted > 0; j++) {
            if (pick(9 + kv, j, past - j) >= wanted) continue; /* each of the blocks left is as likely */
            wanted--;
            mask->bits[(size_t)kv * group * mask->n_qblocks * mask->words + j / 64] |= UINT64_C(1) << (j % 64);
        }
    }
}

static ca_status gather(const struct bench *bench, const struct line *line, const ca_chunk *chunk, const ca_queries *q,
                        ca_table *table, double *selected)
{
    struct layer *layer = line->layer;
    const uint32_t n_kv = bench->shape.n_kv_heads, cap = layer->opt.gather_tokens, page_cap = cap / line->opt.page_tokens + 1;
    uint32_t *tokens = calloc((size_t)n_kv * (cap + page_cap + 1), sizeof *tokens), n = 0;
    if (!tokens) return CA_E_MEMORY;
    uint32_t *pages = tokens + (size_t)n_kv * cap, *counts = pages + (size_t)n_kv * page_cap;
    ca_status status = ca_select_tokens(layer->cache, &line->opt.select, chunk, q, &layer->ws, tokens, &n, NULL);
#pragma omp parallel for schedule(dynamic)
    for (uint32_t kv = 0; kv < n_kv; kv++) {
        counts[kv] = (n + line->opt.page_tokens - 1) / line->opt.page_tokens;
        if (status == CA_OK)
            (void)ca_cache_gather(layer->cache, 0, 0, kv, tokens + (size_t)kv * cap, n, pages + (size_t)kv * page_cap);
    }
    *selected = clock_ms();
    if (status == CA_OK) status = ca_table_add_gathered(layer->cache, 0, chunk->n_tokens, pages, page_cap, counts, table);
    free(tokens);
    return status;
}

/* The i-th sampled (token, head): tokens from the first to the last, heads in turn. */
static void sample(const struct shape *s, uint32_t i, uint32_t *token, uint32_t *head)
{
    const uint32_t which = i / SAMPLED_HEADS;
    *token = (uint32_t)lrint((double)which * (s->q - 1) / (SAMPLED_TOKENS - 1));
    *head = (uint32_t)((uint64_t)i * s->n_heads / SAMPLES);
}

/* What is not written stays so, and shows. */
static void spoil_samples(const struct bench *bench)
{
    const struct shape *s = &bench->shape;
    for (uint32_t i = 0, token, head; i < SAMPLES; i++) {
        sample(s, i, &token, &head);
        for (uint32_t d = 0; d < s->dim; d++) bench->o[((size_t)token * s->n_heads + head) * s->dim + d] = NAN;
    }
}

/* Attention of one (token, head) in double precision over the pages of its row in the table; truth [q][heads][dim] gets it. */
static ca_status find_truth(const struct bench *bench, const ca_cache *cache, const ca_table *table, uint32_t token, uint32_t head,
                            float *truth)
{
    const struct shape *s = &bench->shape;
    const size_t width = (size_t)s->n_heads * s->dim;
    ca_status status = CA_OK;
    for (uint32_t r = 0; r < table->n_rows && status == CA_OK; r++) {
        ca_row row = table->rows[r];
        if (token < row.token || token - row.token >= row.n_tokens || head < row.head || head - row.head >= row.n_heads) continue;
        row.pos += token - row.token;
        row.token = token, row.n_tokens = 1, row.head = head, row.n_heads = 1;
        ca_table one = *table;
        one.rows = &row, one.n_rows = 1;
        status = ca_attend_oracle(cache, &one, 1.0F / sqrtf((float)s->dim), bench->q, width, truth, width);
    }
    return status;
}

/* The largest difference of the output from attention in double precision over the same pages, as a share of the largest true value,
 * over the samples: the definition of bench/peers/case.py. Keys and values are those that the pages hold. Infinite when an output is no
 * number. */
static ca_status find_error(const struct bench *bench, const struct line *line, const ca_table *table, double *error)
{
    const struct shape *s = &bench->shape;
    double most = 0, difference = 0;
    ca_status status = CA_OK;
    float *truth = calloc((size_t)s->q * s->n_heads * s->dim, sizeof *truth);
    if (!truth) return CA_E_MEMORY;
#pragma omp parallel for schedule(dynamic) reduction(max : most, difference)
    for (uint32_t i = 0; i < SAMPLES; i++) {
        uint32_t token, head;
        sample(s, i, &token, &head);
        const ca_status one = find_truth(bench, line->layer->cache, table, token, head, truth);
        if (one != CA_OK) {
#pragma omp atomic write
            status = one;
        }
        for (size_t d = 0, at = ((size_t)token * s->n_heads + head) * s->dim; d < s->dim; d++, at++) {
            const double off = fabs((double)bench->o[at] - (double)truth[at]);
            most = fmax(most, fabs((double)truth[at]));
            difference = fmax(difference, isnan(off) ? INFINITY : off);
        }
    }
    free(truth);
    *error = difference > 0 ? difference / most : 0;
    return status;
}

/* Keys and values that the rows of a table list, in 1e9 bytes: what several rows list is read as often. */
static double listed_gb(const struct bench *bench, const struct line *line, const ca_table *table)
{
    const double width = ca_kern_dtype(bench->kern) == CA_F32 ? 4 : 2;
    uint64_t tokens = 0;
    for (size_t i = 0; i < table->n_pages; i++) tokens += ca_page_len(line->layer->cache, table->pages[i]);
    return 2e-9 * width * bench->shape.dim * (double)tokens;
}

/* Rows of few queries do little with what they read: the memory is their limit, not arithmetic. */
static bool reads_much(const struct bench *bench, const struct line *line)
{
    return bench->shape.q < line->opt.page_tokens;
}

/* One run of a line; each of its times is kept when it is the best so far. */
static ca_status run_line(struct bench *bench, struct line *line, bool check)
{
    const struct shape *s = &bench->shape;
    struct layer *layer = line->layer;
    const size_t width = (size_t)s->n_heads * s->dim;
    const ca_chunk chunk = { .pos = s->kv - s->q, .n_tokens = s->q, .n_heads = s->n_heads };
    const ca_queries q = { .q = bench->q, .stride = width, .q_raw = bench->q_raw, .raw_stride = width };
    ca_mask mask;
    ca_table table;
    layer->ws.used = 0;
    if (check) spoil_samples(bench);
    const double start = clock_ms();
    double selected = start;
    ca_status status = ca_table_create(layer->cache, &chunk, &layer->ws, &table);
    if (status == CA_OK && line->method.selector == CA_SELECT_NONE) {
        status = ca_table_add_dense(layer->cache, 0, s->q, &table);
    } else if (status == CA_OK && line->method.selector == CA_SELECT_QUOKA) {
        status = gather(bench, line, &chunk, &q, &table, &selected);
    } else if (status == CA_OK) {
        status = ca_mask_create(layer->cache, &chunk, 0, s->q, &layer->ws, &mask);
        if (status == CA_OK && isnan(line->keep))
            status = ca_select(layer->cache, &line->opt.select, &chunk, &q, &layer->ws, &mask, NULL);
        else if (status == CA_OK)
            keep_share(bench, &chunk, line->keep, &mask);
        selected = clock_ms();
        if (status == CA_OK && line->method.executor == CA_EXEC_BLOCK_SPARSE)
            status = ca_table_add_block_sparse(layer->cache, &mask, &table);
        else if (status == CA_OK && line->method.executor == CA_EXEC_COMPACT)
            status = ca_table_add_compact(layer->cache, &mask, &line->opt.table, &table);
        else if (status == CA_OK)
            status = ca_table_add_auto(layer->cache, &mask, &line->opt.cost, &line->opt.worth, NULL, &table);
    }
    const double planned = clock_ms();
    if (status == CA_OK)
        status = ca_attend_as(layer->cache, line->opt.attention, &table, 1.0F / sqrtf((float)s->dim), bench->q, width, bench->o,
                              width, CA_F32, bench->n_threads, &layer->ws);
    const double end = clock_ms();
    if (status != CA_OK) return status;
    ca_table_count count;
    ca_table_measure(layer->cache, &table, &count);
    line->kept = count.past_pairs_dense > 0 ? (double)count.past_pairs / (double)count.past_pairs_dense : 1.0;
    line->gflop = 4e-9 * s->dim * (double)count.pairs;
    line->gb = reads_much(bench, line) ? listed_gb(bench, line, &table) : NAN;
    line->select_ms = fmin(line->select_ms, selected - start);
    line->table_ms = fmin(line->table_ms, planned - selected);
    line->kernel_ms = fmin(line->kernel_ms, end - planned);
    return check ? find_error(bench, line, &table, &line->error) : CA_OK;
}

static void add_row(struct bench *bench, const struct line *line)
{
    const struct line *dense = &bench->lines[0];
    const double rate = line->gflop / (line->kernel_ms / 1e3), total = line->select_ms + line->table_ms + line->kernel_ms;
    const double planning = 100 * (line->select_ms + line->table_ms) / dense->kernel_ms;
    const double gb_per_s = line->gb / (line->kernel_ms / 1e3), bandwidth = isnan(line->gb) ? NAN : bench->bandwidth;
    char error[16] = "-";
    if (!isnan(line->error)) snprintf(error, sizeof error, "%.1e", line->error);
    const struct table_cell cells[] = {
        { bench->shape.text, 0 },
        { line->name, 0 },
        { NULL, line->kept },
        { NULL, total },
        { NULL, line->select_ms },
        { NULL, line->table_ms },
        { NULL, line->kernel_ms },
        { NULL, rate },
        { NULL, 100 * rate / bench->peak },
        { NULL, gb_per_s },
        { NULL, 100 * gb_per_s / bandwidth },
        { NULL, planning },
        { NULL, line == dense ? 1.0 : dense->kernel_ms / total },
        { error, 0 },
    };
    (void)table_add(bench->table, cells);
    json_array_append_new(bench->rows,
                          json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:o, s:o, s:f, s:o}", "shape",
                                    bench->shape.text, "executor", line->name, "attention", ca_attention_name(line->opt.attention),
                                    "kept", line->kept, "ms", total, "select_ms", line->select_ms, "table_ms", line->table_ms,
                                    "kernel_ms", line->kernel_ms, "gflops", rate, "peak_gflops", bench->peak, "share_of_peak",
                                    rate / bench->peak, "gb_per_s", json_number(gb_per_s), "memory_gb_per_s",
                                    json_number(bandwidth), "share_of_memory", json_number(gb_per_s / bandwidth),
                                    "planning_of_dense", planning / 100, "error", json_number(line->error)));
}

static void free_shape(struct bench *bench)
{
    for (size_t i = 0; i < bench->n_layers; i++) {
        ca_cache_destroy(bench->layers[i].cache);
        free(bench->layers[i].ws.base);
    }
    bench->n_layers = 0;
    free(bench->q), free(bench->q_raw), free(bench->o), free(bench->centers);
    bench->q = bench->q_raw = bench->o = bench->centers = NULL;
    ca_gate_destroy(bench->gate);
    bench->gate = NULL;
}

/* The best that the machine was seen to do, near in time to the lines. */
static ca_status measure_machine(struct bench *bench)
{
    bool reads = false;
    double bandwidth = 0;
    bench->peak = fmax(bench->peak, ca_kern_peak_gflops(bench->kern, bench->n_threads, 20));
    for (size_t i = 0; i < bench->n_lines; i++) reads = reads || reads_much(bench, &bench->lines[i]);
    const ca_status status = reads ? ca_memory_bandwidth(bench->n_threads, 8, &bandwidth) : CA_OK;
    if (reads) bench->bandwidth = fmax(bench->bandwidth, bandwidth);
    return status;
}

/* All lines take turns, so that a slow moment of the machine hits them alike; the best time of each part counts. */
static int run_shape(struct bench *bench)
{
    enum { COLD_MS = 100 };
    const struct shape *s = &bench->shape;
    const size_t n = (size_t)s->q * s->n_heads * s->dim, n_centers = (size_t)s->n_kv_heads * CENTERS * s->dim;
    bench->q = malloc(n * sizeof(float));
    bench->q_raw = malloc(n * sizeof(float));
    bench->o = malloc(n * sizeof(float));
    bench->centers = malloc(n_centers * sizeof(float));
    if (!bench->q || !bench->q_raw || !bench->o || !bench->centers) return fail("no memory for the queries of %s", s->text);
    for (size_t i = 0; i < n_centers; i++) bench->centers[i] = draw(1, i);
    make_queries(bench);
    int code = make_lines(bench);
    for (size_t i = 0; i < bench->n_lines && code == EXIT_DONE; i++) {
        code = find_layer(bench, &bench->lines[i]);
        bench->lines[i].select_ms = bench->lines[i].table_ms = bench->lines[i].kernel_ms = INFINITY;
        bench->lines[i].error = NAN;
    }
    for (int64_t r = 0; r < bench->options->runs && code == EXIT_DONE; r++) {
        const ca_status measured = measure_machine(bench);
        if (measured != CA_OK) code = fail_library(measured);
        for (size_t i = 0; i < bench->n_lines && code == EXIT_DONE; i++) {
            const bool check = !bench->options->no_check && r + 1 == bench->options->runs;
            ca_status status = run_line(bench, &bench->lines[i], check);
            if (status == CA_OK && r == 0 && bench->lines[i].kernel_ms < COLD_MS) { /* of so short a run, the first is cold */
                bench->lines[i].select_ms = bench->lines[i].table_ms = bench->lines[i].kernel_ms = INFINITY;
                status = run_line(bench, &bench->lines[i], check);
            }
            if (status != CA_OK) code = fail_library(status);
            if (isinf(bench->lines[i].error)) code = fail("%s %s: the output is not a number", s->text, bench->lines[i].name);
            if (interrupt_flag) code = EXIT_INTERRUPTED;
        }
    }
    if (code == EXIT_INTERRUPTED) note("interrupted");
    return code;
}

static int print_all(struct bench *bench)
{
    if (bench->options->json) {
        json_t *rows = bench->rows;
        bench->rows = NULL;
        return json_print(rows);
    }
    char memory[64] = "";
    if (!isnan(bench->bandwidth)) snprintf(memory, sizeof memory, ", memory read at %.1f GB/s", bench->bandwidth);
    printf("%s%s, %d threads, measured peak %.0f GFLOP/s%s, best of %lld interleaved runs\n", ca_kern_name(bench->kern),
           method_attention_label(bench->options), bench->n_threads, bench->peak, memory, (long long)bench->options->runs);
    table_write_text(bench->table, stdout);
    return EXIT_DONE;
}

static int run(const struct options *options)
{
    static const struct table_column columns[] = {
        { "shape", "shape", -1, NULL },
        { "rows", "executor", -1, NULL },
        { "kept", "kept", 3, NULL },
        { "ms", "ms", 2, NULL },
        { "select", "select_ms", 2, NULL },
        { "table", "table_ms", 2, NULL },
        { "kernel", "kernel_ms", 2, NULL },
        { "GFLOP/s", "gflops", 0, NULL },
        { "of peak", "share_of_peak", 1, " %" },
        { "GB/s", "gb_per_s", 1, NULL },
        { "of memory", "share_of_memory", 1, " %" },
        { "select+table of dense", "planning", 2, " %" },
        { "speedup", "speedup", 2, "x" },
        { "error", "error", -1, NULL },
    };
    static const char *const default_shapes[] = { "q1024,kv8192,h32:8,d128", "q1024,kv32768,h32:8,d128", "q1024,kv8192,h9:3,d64" };
    const char *const *shapes = options->shapes.n > 0 ? options->shapes.items : default_shapes;
    const size_t n_shapes = options->shapes.n > 0 ? options->shapes.n : 3;
    struct bench bench = { .options = options, .n_threads = engine_threads(options), .bandwidth = NAN, .rows = json_array() };
    const ca_status status = ca_kern_choose(options->isa, &bench.kern);
    if (status != CA_OK) return fail_library(status);
    omp_set_num_threads(bench.n_threads);
    bench.table = table_create(columns, sizeof columns / sizeof *columns);
    if (!bench.table || !bench.rows) return fail("no memory for the table");
    int code = EXIT_DONE;
    for (size_t i = 0; i < n_shapes && code == EXIT_DONE; i++) code = parse_shape(shapes[i], &bench.shape);
    interrupt_catch();
    for (size_t i = 0; i < n_shapes && code == EXIT_DONE; i++) {
        code = parse_shape(shapes[i], &bench.shape);
        if (code == EXIT_DONE) code = run_shape(&bench);
        for (size_t l = 0; l < bench.n_lines && code == EXIT_DONE; l++) add_row(&bench, &bench.lines[l]);
        free_shape(&bench);
    }
    if (code == EXIT_DONE || code == EXIT_INTERRUPTED) {
        const int printed = print_all(&bench);
        code = code == EXIT_DONE ? printed : code;
    }
    table_free(bench.table);
    json_decref(bench.rows);
    return code;
}

const struct command command_bench_attention = {
    .name = "bench attention",
    .summary = "Measure one layer's attention by shape, without a model",
    .synopsis = "[--shape q1024,kv32768,h32:8,d128].. [--methods M,M,..] [--keep F,F,..] [OPTIONS]",
    .details =
        "A chunk of q tokens is the last of kv; h is query heads:KV heads, d the head dimension. Keys and queries are drawn around\n"
        "centers, so that blocks matter unequally. --keep adds compactattn rows that read a given share of the past. Select and\n"
        "table are shown as a share of dense attention, too; seer runs with a made-up gate of the published shape. error is the largest\n"
        "difference of the last run's output from attention in double precision over the same pages, as a share of the largest true\n"
        "value, over a few tokens and heads. Where q is less than a page, GB/s is how fast the keys and values of the listed pages were\n"
        "read, and of memory the share of the speed at which the machine's memory can be read, measured in turn with the rows.\n"
        "\"of peak\" is of the kernels' own multiply-add: with --attention int8, whose products run at two or four times that, it can exceed\n"
        "100 %.\n\n"
        "Examples:\n"
        "  compactattn bench attention --shape q1024,kv32768,h32:8,d128 --methods flashprefill+compactattn,seer,xattention\n"
        "  compactattn bench attention --shape q1024,kv131072,h32:8,d128 --keep 0.05,0.1,0.25,0.5 --json\n"
        "  compactattn bench attention --shape q1,kv32768,h32:8,d128 --methods dense",
    .bit = CMD_BENCH_ATTENTION,
    .run = run,
};
