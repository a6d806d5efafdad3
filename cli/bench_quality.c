/* compactattn bench quality: what every method and setting costs in quality and gains in time, as a table and a picture. */
#include "clock.h"
#include "commands.h"
#include "folder.h"
#include "generate.h"
#include "interrupt.h"
#include "likelihood.h"
#include "message.h"
#include "method.h"
#include "needle.h"
#include "report/lines.h"
#include "sweep.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_SWEEPS = 24, MAX_ROWS = 160, N_DEPTHS = 3, ANSWER_TOKENS = 12 };

static const double depths[N_DEPTHS] = { 0.1, 0.5, 0.9 };

/* Settings that are swept when --sweep says nothing else: METHOD, or METHOD:OPTION=V,V,.. */
static const char *const default_sweeps[] = {
    "dense",
    "flashprefill+auto:alpha=0.04,0.08,0.12,0.2,0.35",
    "flashprefill+compactattn:alpha=0.06,0.12,0.18,0.35",
    "flashprefill+block_sparse:alpha=0.01,0.03,0.06",
    "xattention+auto:threshold=0.75,0.9",
    "minference+auto:top-k=16",
    "trishape+auto:window=896",
    "quoka:kv-ratio=0.125,0.25",
    "oracle+auto:threshold=0.9",
};

struct row {
    const struct sweep *of;
    double kept, mean_nll, error, attention_ms, prefill_ms, found;
};

struct quality {
    const struct options *options;
    struct engine engine;
    struct sweep *sweeps; /* [MAX_ROWS] */
    struct row *rows;     /* [MAX_ROWS] one a sweep */
    size_t n_rows, n_done;
    uint32_t *ids;
    size_t n_ids, from;
    float *dense, *each; /* [n_ids] of the first dense row (when has_dense), and of the row that runs */
    bool has_dense;
    uint32_t *needle_ids[N_DEPTHS];
    size_t n_needle[N_DEPTHS];
};

static bool is_dense(const struct sweep *sweep)
{
    return sweep->method.selector == CA_SELECT_NONE;
}

static int make_rows(struct quality *quality)
{
    const struct texts *given = &quality->options->sweeps;
    const size_t n = given->n > 0 ? given->n : sizeof default_sweeps / sizeof *default_sweeps;
    int code = EXIT_DONE;
    for (size_t i = 0; i < n && code == EXIT_DONE; i++)
        code = sweep_add(&command_bench_quality, quality->options, given->n > 0 ? given->items[i] : default_sweeps[i],
                         quality->sweeps, MAX_ROWS, &quality->n_rows);
    size_t first = 0; /* the first dense row comes first: the others are compared with it */
    while (first < quality->n_rows && !is_dense(&quality->sweeps[first])) first++;
    for (size_t i = 0; i < quality->n_rows; i++)
        quality->rows[i] = (struct row){ .of = &quality->sweeps[first == quality->n_rows || i > first ? i
                                                                : i == 0                              ? first
                                                                                                      : i - 1],
                                         .found = NAN,
                                         .error = NAN,
                                         .kept = NAN,
                                         .mean_nll = NAN,
                                         .attention_ms = NAN,
                                         .prefill_ms = NAN };
    return code;
}

/* Mean NLL of the dense row that the others are compared with; NaN without one. */
static double baseline(const struct quality *quality)
{
    return is_dense(quality->rows[0].of) ? quality->rows[0].mean_nll : NAN;
}

static struct table *make_table(const struct quality *quality, size_t n_rows)
{
    static const struct table_column columns[] = {
        { "method", "method", -1, NULL },
        { "setting", "setting", -1, NULL },
        { "past read", "kept_fraction", 3, NULL },
        { "mean NLL", "mean_nll", 4, NULL },
        { "against dense", "nll_increase", 4, NULL },
        { "standard error", "standard_error", 4, NULL },
        { "facts found", "found", 0, " of 3" },
        { "attention ms", "attention_ms", 0, NULL },
        { "prefill ms", "prefill_ms", 0, NULL },
    };
    struct table *table = table_create(columns, sizeof columns / sizeof *columns);
    const double dense = baseline(quality);
    for (size_t i = 0; table && i < n_rows; i++) {
        const struct row *r = &quality->rows[i];
        const struct table_cell cells[] = { { r->of->method.name, 0 }, { r->of->setting, 0 },         { NULL, r->kept },
                                            { NULL, r->mean_nll },     { NULL, r->mean_nll - dense }, { NULL, r->error },
                                            { NULL, r->found },        { NULL, r->attention_ms },     { NULL, r->prefill_ms } };
        (void)table_add(table, cells);
    }
    return table;
}

/* Called after every row, so that what is finished is kept. */
static int write_tables(const struct quality *quality)
{
    struct table *table = make_table(quality, quality->n_done);
    if (!table) return fail("no memory for the table");
    int code = folder_write_table(quality->options->out, "quality.csv", table, table_write_csv);
    if (code == EXIT_DONE) code = folder_write_table(quality->options->out, "quality.md", table, table_write_markdown);
    table_free(table);
    return code;
}

/* NLL against attention time, one line a method. */
static int draw(const struct quality *quality)
{
    struct lines_series series[MAX_SWEEPS];
    double x[MAX_ROWS], y[MAX_ROWS];
    const double dense = baseline(quality);
    size_t n = 0;
    char path[FOLDER_PATH], subtitle[200];
    for (size_t i = 0; i < quality->n_done; i++) {
        const struct row *r = &quality->rows[i];
        x[i] = r->attention_ms / 1e3;
        y[i] = r->mean_nll - dense;
        const bool joins = n > 0 && strcmp(series[n - 1].name, r->of->method.name) == 0;
        if (joins) series[n - 1].n++;
        if (joins || n == MAX_SWEEPS) continue;
        series[n] = (struct lines_series){ .name = r->of->method.name, .x = x + i, .y = y + i, .n = 1 };
        series[n++].bound = is_dense(r->of);
    }
    snprintf(subtitle, sizeof subtitle, "%s, %zu tokens, those from %zu on scored, %d threads, kernels %s",
             quality->engine.info.name, quality->n_ids, quality->from, quality->engine.n_threads, quality->engine.kernels);
    const struct lines lines = { .title = "Quality against time: lower and further left is better",
                                 .subtitle = subtitle,
                                 .x_axis = "seconds of attention",
                                 .y_axis = "negative log-likelihood above dense",
                                 .series = series,
                                 .n_series = n,
                                 .mark = NAN };
    if (!folder_path(quality->options->out, "quality.png", path)) return fail("%s: too long a path", quality->options->out);
    const char *why = lines_write_png(&lines, path);
    return why ? folder_cannot_write(quality->options->out, "quality.png", why) : EXIT_DONE;
}

/* Likelihood of the text's second part, without a dense tail: the method alone. The best time of all turns counts. */
static int score_text(struct quality *quality, struct row *row)
{
    struct likelihood likelihood = {
        .ids = quality->ids, .n_ids = quality->n_ids, .vocab = quality->engine.info.vocab, .each = quality->each
    };
    const ca_prefill_opt hooks = { .user = &likelihood,
                                   .n_logits = (uint32_t)(quality->n_ids - quality->from + 1),
                                   .on_logits = likelihood_add };
    ca_session *session = NULL;
    struct result result;
    char label[2 * SWEEP_TEXT];
    struct options options = row->of->options;
    if (options.dense_tail < 0) options.dense_tail = 0;
    result_init(&result, &row->of->method);
    const int code = engine_session(&quality->engine, &options, &row->of->method, quality->n_ids, 0, &session);
    if (code != EXIT_DONE) return code;
    snprintf(label, sizeof label, "%s %s", row->of->method.name, row->of->setting);
    const ca_status status = measure_feed(session, quality->ids, quality->n_ids, label,
                                          progress_style(quality->options->progress, PROGRESS_OFF), &hooks);
    if (status == CA_OK) {
        measure_stats(session, &result);
        row->kept = result.kept_fraction;
        row->mean_nll = likelihood_mean(&likelihood);
        if (!quality->has_dense && is_dense(row->of)) {
            memcpy(quality->dense, quality->each, likelihood.n_scored * sizeof *quality->each);
            quality->has_dense = true;
        }
        if (quality->has_dense) row->error = likelihood_error(quality->each, quality->dense, likelihood.n_scored);
        row->attention_ms = fmin(result.attention_ms, row->attention_ms); /* NaN the first time: fmin takes the other */
        row->prefill_ms = fmin(result.prefill_ms, row->prefill_ms);
    }
    ca_session_destroy(session);
    return status == CA_OK ? EXIT_DONE : fail_library(status);
}

/* How many of the facts the model finds, with the session's own dense tail. */
static int ask(const struct quality *quality, struct row *row)
{
    struct options options = row->of->options;
    options.dense_tail = quality->options->dense_tail;
    row->found = 0;
    for (size_t d = 0; d < N_DEPTHS; d++) {
        ca_sampler greedy = { 0, 1, 0 };
        ca_session *session = NULL;
        struct result result;
        result_init(&result, &row->of->method);
        const int code = engine_session(&quality->engine, &options, &row->of->method, quality->n_needle[d], ANSWER_TOKENS,
                                        &session);
        if (code != EXIT_DONE) return code;
        ca_status status = measure_prefill(&quality->engine, session, quality->needle_ids[d], quality->n_needle[d], PROGRESS_OFF,
                                           &greedy, NULL, &result);
        if (status == CA_OK) status = generate(&quality->engine, session, &greedy, ANSWER_TOKENS, NULL, NULL, &result);
        row->found += result.text && strstr(result.text, needle_default.expected) ? 1 : 0;
        result_free(&result);
        ca_session_destroy(session);
        if (status != CA_OK) return fail_library(status);
    }
    return EXIT_DONE;
}

/* All settings take turns, so that a slow moment of the machine hits them alike. Facts are asked for in the first turn. */
static int run_rows(struct quality *quality)
{
    const double start = clock_ms();
    const size_t n_turns = (size_t)quality->options->runs * quality->n_rows;
    int code = EXIT_DONE;
    for (size_t turn = 0; turn < n_turns && code == EXIT_DONE; turn++) {
        struct row *row = &quality->rows[turn % quality->n_rows];
        code = score_text(quality, row);
        if (code == EXIT_DONE && turn < quality->n_rows && quality->n_needle[0] > 0) code = ask(quality, row);
        if (code != EXIT_DONE) break;
        if (turn < quality->n_rows) quality->n_done++;
        code = write_tables(quality);
        if (!quality->options->progress && !isatty(STDERR_FILENO)) continue;
        const double spent = (clock_ms() - start) / 1e3;
        note("%zu of %zu turns, about %.0f s left: %s %s reads %.0f %%, NLL %.4f", turn + 1, n_turns,
             spent / (double)(turn + 1) * (double)(n_turns - turn - 1), row->of->method.name, row->of->setting, 100 * row->kept,
             row->mean_nll);
    }
    return code;
}

/* The text's first part with a fact hidden at each depth; nothing when the model has no chat template. */
static int make_needles(struct quality *quality, const char *text, size_t size)
{
    enum { TOKENS = 4000 };
    const size_t part = quality->n_ids > TOKENS ? (size_t)((double)size * TOKENS / (double)quality->n_ids) : size;
    const size_t cut = needle_boundary(text, size, part);
    int code = EXIT_DONE;
    for (size_t d = 0; d < N_DEPTHS && code == EXIT_DONE; d++)
        code = needle_prompt(&quality->engine, &needle_default, text, cut, depths[d], &quality->needle_ids[d],
                             &quality->n_needle[d]);
    return code;
}

static int run_quality(struct quality *quality, const char *text, size_t size)
{
    int code = engine_tokenize(&quality->engine, text, size, 0, &quality->ids, &quality->n_ids);
    if (code != EXIT_DONE) return code;
    if (quality->n_ids > quality->engine.info.max_context) quality->n_ids = quality->engine.info.max_context;
    quality->from = quality->options->half_from >= 0 ? (size_t)quality->options->half_from : quality->n_ids / 2;
    if (quality->from >= quality->n_ids)
        return fail("the text has %zu tokens, so none is left to score from token %zu on", quality->n_ids, quality->from);
    quality->dense = malloc(quality->n_ids * sizeof *quality->dense);
    quality->each = malloc(quality->n_ids * sizeof *quality->each);
    if (!quality->dense || !quality->each) return fail("no memory for the likelihoods");
    code = make_needles(quality, text, size);
    interrupt_catch();
    if (code == EXIT_DONE) code = run_rows(quality);
    if (quality->n_done == 0) return code;
    const int drawn = draw(quality);
    struct table *table = make_table(quality, quality->n_done);
    if (table) table_write_text(table, stdout);
    table_free(table);
    if (drawn == EXIT_DONE) printf("\nWritten to %s: quality.csv, quality.md, quality.png\n", quality->options->out);
    return code == EXIT_DONE ? drawn : code;
}

static int run(const struct options *options)
{
    struct quality quality = { .options = options,
                               .sweeps = calloc(MAX_ROWS, sizeof *quality.sweeps),
                               .rows = calloc(MAX_ROWS, sizeof *quality.rows) };
    char *text = NULL;
    size_t size = 0;
    int code = quality.rows && quality.sweeps ? make_rows(&quality) : fail("no memory for the rows");
    if (code == EXIT_DONE) code = folder_prepare(options->out, "quality.csv");
    if (code == EXIT_DONE) code = engine_read_text(options->file, &text, &size);
    if (code == EXIT_DONE) code = engine_open(options, &quality.engine);
    if (code == EXIT_DONE) code = run_quality(&quality, text, size);
    for (size_t d = 0; d < N_DEPTHS; d++) ca_free(quality.needle_ids[d]);
    ca_free(quality.ids);
    engine_close(&quality.engine);
    free(quality.rows);
    free(quality.sweeps);
    free(quality.dense);
    free(quality.each);
    free(text);
    return code;
}

const struct command command_bench_quality = {
    .name = "bench quality",
    .summary = "Measure what every method and setting costs in quality and gains in time",
    .synopsis = "-m MODEL -f FILE --out FOLDER [--sweep METHOD:OPTION=V,V,..].. [OPTIONS]",
    .details =
        "For each setting: the likelihood of the text's tokens from --from on (default: its second half), read through the same\n"
        "chunks without a dense tail; whether a fact hidden at depth 0.1, 0.5 and 0.9 of 4,000 tokens is found; the time of\n"
        "attention. quality.csv and quality.md are written after every setting, quality.png at the end.\n\n"
        "Examples:\n"
        "  compactattn bench quality -m model.gguf -f book.txt --out quality\n"
        "  compactattn bench quality -m model.gguf -f book.txt --out q --sweep dense --sweep auto:alpha=0.02,0.05,0.1 --runs 3",
    .bit = CMD_BENCH_QUALITY,
    .run = run,
};
