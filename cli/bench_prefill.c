/* compactattn bench prefill: the time of prefill over lengths and methods, each run beside the others. */
#include "commands.h"
#include "file.h"
#include "interrupt.h"
#include "measure.h"
#include "message.h"
#include "method.h"
#include "report/table.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LENGTHS = 16 };

struct bench {
    const struct engine *engine;
    const struct options *options;
    size_t lengths[MAX_LENGTHS], n_lengths, longest;
    struct method methods[METHOD_MAX];
    size_t n_methods;
    ca_session *sessions[METHOD_MAX];
    uint32_t *ids;       /* [longest] */
    bool random_ids;     /* no text was given or found */
    struct result *rows; /* [n_lengths][n_methods], the medians */
    struct result *runs; /* [n_methods][options->runs] of one length */
};

static int parse_lengths(const char *list, struct bench *bench)
{
    for (const char *at = list;; at++) {
        char *end;
        errno = 0;
        const long long length = strtoll(at, &end, 10);
        if (*at < '0' || *at > '9' || errno || length < 2 || length > UINT32_MAX || (*end && *end != ','))
            return usage_error("--lengths %s: expected whole numbers from 2 on, separated by commas", list);
        if (bench->n_lengths == MAX_LENGTHS) return usage_error("--lengths %s: more than %d lengths", list, MAX_LENGTHS);
        bench->lengths[bench->n_lengths++] = (size_t)length;
        bench->longest = (size_t)length > bench->longest ? (size_t)length : bench->longest;
        at = end;
        if (!*at) return EXIT_DONE;
    }
}

/* The text of -f, else of the demo; NULL when that is not there. */
static int read_text(const struct options *options, char **text, size_t *size)
{
    char path[1200];
    if (options->file) return engine_read_text(options->file, text, size);
    if (file_find_data("demo.txt", path, sizeof path)) return engine_read_text(path, text, size);
    return EXIT_DONE; /* the table's first line then says that the tokens are random */
}

/* The text's tokens, repeated to the longest length; without a text, ids drawn by a fixed generator (Knuth's MMIX). */
static int make_ids(const struct bench *bench, const char *text, size_t size)
{
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    uint64_t state = 1;
    const int code = text ? engine_tokenize(bench->engine, text, size, 0, &ids, &n_ids) : EXIT_DONE;
    if (code != EXIT_DONE) return code;
    if (text && n_ids == 0) {
        ca_free(ids);
        return fail("the text is empty: give another with -f");
    }
    for (size_t i = 0; i < bench->longest; i++) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        bench->ids[i] = n_ids > 0 ? ids[i % n_ids] : (uint32_t)((state >> 33) % bench->engine->info.vocab);
    }
    ca_free(ids);
    return EXIT_DONE;
}

static int create_sessions(struct bench *bench)
{
    int code = EXIT_DONE;
    for (size_t m = 0; m < bench->n_methods && code == EXIT_DONE; m++)
        code = engine_session(bench->engine, bench->options, &bench->methods[m], bench->longest, 0, &bench->sessions[m]);
    return code;
}

static ca_status run_once(const struct bench *bench, size_t method, size_t length, struct result *out)
{
    ca_sampler greedy = { 0, 1, 0 };
    result_init(out, &bench->methods[method]);
    const ca_status status = ca_session_truncate(bench->sessions[method], 0);
    return status != CA_OK ? status
                           : measure_prefill(bench->engine, bench->sessions[method], bench->ids, length,
                                             progress_style(bench->options->progress, PROGRESS_OFF), &greedy, NULL, out);
}

static int by_ttft(const void *a, const void *b)
{
    const double x = ((const struct result *)a)->ttft_ms, y = ((const struct result *)b)->ttft_ms;
    return (x > y) - (x < y);
}

/* All methods take turns, so that a slow moment of the machine hits them alike. The run with the median TTFT speaks for a method:
 * its numbers belong together. */
static ca_status run_length(const struct bench *bench, size_t index)
{
    const size_t n_runs = (size_t)bench->options->runs, n_warmup = (size_t)bench->options->warmup;
    for (size_t r = 0; r < n_warmup + n_runs; r++) {
        for (size_t m = 0; m < bench->n_methods; m++) {
            struct result discarded;
            const ca_status status = run_once(bench, m, bench->lengths[index],
                                              r < n_warmup ? &discarded : &bench->runs[m * n_runs + r - n_warmup]);
            if (status != CA_OK) return status;
        }
    }
    for (size_t m = 0; m < bench->n_methods; m++) {
        qsort(bench->runs + m * n_runs, n_runs, sizeof *bench->runs, by_ttft);
        bench->rows[index * bench->n_methods + m] = bench->runs[m * n_runs + (n_runs - 1) / 2];
    }
    return CA_OK;
}

/* The dense row of the same length, or NULL when dense is not measured. */
static const struct result *dense_of(const struct bench *bench, size_t row)
{
    for (size_t m = 0; m < bench->n_methods; m++) {
        if (bench->methods[m].selector == CA_SELECT_NONE) return &bench->rows[row / bench->n_methods * bench->n_methods + m];
    }
    return NULL;
}

static struct table *make_table(const struct bench *bench, size_t n_rows)
{
    static const struct table_column columns[] = {
        { "method", "method", -1, NULL },
        { "tokens", "prompt_tokens", 0, NULL },
        { "TTFT ms", "ttft_ms", 1, NULL },
        { "prefill ms", "prefill_ms", 1, NULL },
        { "tokens/s", "prefill_tok_s", 0, NULL },
        { "attention ms", "attention_ms", 1, NULL },
        { "select ms", "select_ms", 1, NULL },
        { "GEMM ms", "gemm_ms", 1, NULL },
        { "GEMM GFLOP/s", "gemm_gflop_s", 0, NULL },
        { "kept", "kept_fraction", 3, NULL },
        { "of peak", "share_of_peak", 3, NULL },
        { "attention speedup", "attention_speedup", 2, "x" },
        { "TTFT speedup", "ttft_speedup", 2, "x" },
    };
    struct table *table = table_create(columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; table && i < n_rows; i++) {
        const struct result *r = &bench->rows[i], *dense = dense_of(bench, i);
        const struct table_cell cells[] = {
            { r->method, 0 },
            { NULL, (double)r->prompt_tokens },
            { NULL, r->ttft_ms },
            { NULL, r->prefill_ms },
            { NULL, result_prefill_rate(r) },
            { NULL, r->attention_ms },
            { NULL, r->select_ms },
            { NULL, r->gemm_ms },
            { NULL, r->gemm_gflop_s },
            { NULL, r->kept_fraction },
            { NULL, r->share_of_peak },
            { NULL, dense ? dense->attention_ms / r->attention_ms : NAN },
            { NULL, dense ? dense->ttft_ms / r->ttft_ms : NAN },
        };
        if (!table_add(table, cells)) {
            table_free(table);
            return NULL;
        }
    }
    return table;
}

static int write_csv(const struct table *table, const char *path)
{
    struct file_result result;
    if (!file_begin(&result, path)) return fail("%s: %s", path, strerror(errno));
    table_write_csv(table, result.file);
    return file_end(&result, true) ? EXIT_DONE : fail("%s: %s", path, strerror(errno));
}

static int print_rows(const struct bench *bench, size_t n_rows, double peak)
{
    struct table *table = make_table(bench, n_rows);
    if (!table) return fail("no memory for the table");
    int code = bench->options->csv ? write_csv(table, bench->options->csv) : EXIT_DONE;
    if (!bench->options->json) {
        printf("%s, %d threads, measured peak %.0f GFLOP/s, median of %lld runs%s; speedups over dense\n", bench->engine->kernels,
               bench->engine->n_threads, peak, (long long)bench->options->runs, bench->random_ids ? ", random tokens" : "");
        table_write_text(table, stdout);
    } else if (code == EXIT_DONE) {
        json_t *rows = json_array();
        for (size_t i = 0; i < n_rows; i++) {
            json_t *row = result_json(&bench->rows[i]);
            json_object_set_new(row, "peak_gflops", json_number(peak));
            json_array_append_new(rows, row);
        }
        code = json_print(rows);
    }
    table_free(table);
    return code;
}

static int run_lengths(struct bench *bench)
{
    ca_status status = CA_OK;
    size_t done = 0;
    interrupt_catch();
    const double peak_before = engine_peak(bench->engine);
    while (done < bench->n_lengths && (status = run_length(bench, done)) == CA_OK) done++;
    const double peak = fmax(peak_before, engine_peak(bench->engine));
    for (size_t i = 0; i < done * bench->n_methods; i++) measure_share(&bench->rows[i], peak);
    const int code = done > 0 ? print_rows(bench, done * bench->n_methods, peak) : EXIT_DONE;
    return status == CA_OK ? code : fail_library(status);
}

static int measure(struct bench *bench, const char *text, size_t size)
{
    bench->rows = calloc(bench->n_lengths * bench->n_methods, sizeof *bench->rows);
    bench->runs = calloc(bench->n_methods * (size_t)bench->options->runs, sizeof *bench->runs);
    bench->ids = calloc(bench->longest, sizeof *bench->ids);
    int code = EXIT_FAILED;
    if (bench->ids && bench->rows && bench->runs)
        code = make_ids(bench, text, size);
    else
        fail("no memory for %zu tokens and their results", bench->longest);
    if (code == EXIT_DONE) code = create_sessions(bench);
    if (code == EXIT_DONE) code = run_lengths(bench);
    for (size_t m = 0; m < bench->n_methods; m++) ca_session_destroy(bench->sessions[m]);
    free(bench->ids);
    free(bench->rows);
    free(bench->runs);
    return code;
}

/* An unwritable --csv is told before minutes of measuring. */
static int run(const struct options *options)
{
    struct engine engine = { 0 };
    struct bench bench = { .engine = &engine, .options = options };
    char *text = NULL;
    size_t size = 0;
    int code = parse_lengths(options->lengths, &bench);
    if (code == EXIT_DONE)
        code = method_choose_list(options, "dense,block_sparse,compactattn,auto", bench.methods, &bench.n_methods);
    if (code == EXIT_DONE) code = options->csv ? file_check_target(options->csv, true) : EXIT_DONE;
    if (code == EXIT_DONE) code = read_text(options, &text, &size);
    bench.random_ids = !text;
    if (code == EXIT_DONE) code = engine_open(options, &engine);
    if (code == EXIT_DONE) code = measure(&bench, text, size);
    engine_close(&engine);
    free(text);
    return code;
}

const struct command command_bench_prefill = {
    .name = "bench prefill",
    .summary = "Measure prefill over prompt lengths and methods",
    .synopsis = "-m MODEL [--lengths N,N,..] [--methods M,M,..] [OPTIONS]",
    .details = "The methods take turns; the run with the median TTFT counts. The machine's peak is measured before and after, and\n"
               "\"of peak\" is the share that the prefill's floating-point operations reach of it; with --matmul int8\n"
               "and --attention int8, whose products run at two or four times that peak, it can exceed 1.\n\n"
               "Example:\n"
               "  compactattn bench prefill -m model.gguf --lengths 2048,8192 --methods dense,compactattn --runs 5 --csv rows.csv",
    .bit = CMD_BENCH,
    .run = run,
};
