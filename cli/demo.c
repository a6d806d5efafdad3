/* compactattn demo: finds a fact hidden in a long text with every method, and shows what each costs. */
#include "capture.h"
#include "commands.h"
#include "file.h"
#include "folder.h"
#include "generate.h"
#include "interrupt.h"
#include "message.h"
#include "method.h"
#include "needle.h"
#include "report/chart.h"
#include "report/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_TOKENS = 12 };

struct demo {
    const struct options *options;
    struct engine engine;
    struct needle needle;
    struct method methods[METHOD_MAX];
    size_t n_methods, n_done;
    struct result rows[METHOD_MAX];
    uint32_t *ids; /* the whole prompt */
    size_t n_ids;
    double peak;
    struct capture capture;
};

/* --length: the text up to a sentence end after about that many tokens. */
static int cut_text(const struct demo *demo, char *text, size_t *size)
{
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    const int64_t length = demo->options->length;
    const int code = length < 0 ? EXIT_DONE : engine_tokenize(&demo->engine, text, *size, 0, &ids, &n_ids);
    if (code == EXIT_DONE && length >= 0 && (size_t)length < n_ids) {
        *size = needle_boundary(text, *size, (size_t)((double)*size * (double)length / (double)n_ids));
        text[*size] = '\0';
    }
    ca_free(ids);
    return code;
}

static int read_text(const struct options *options, char **text, size_t *size)
{
    static const char own[] = "data/demo.txt"; /* the default; elsewhere than in the source tree it is found like other data */
    char path[1200];
    const bool find = strcmp(options->text, own) == 0 && file_find_data("demo.txt", path, sizeof path);
    const int code = engine_read_text(find ? path : options->text, text, size);
    if (code != EXIT_DONE) return code;
    if (memchr(*text, '\0', *size)) return fail("%s: not a text file (it holds a NUL byte)", options->text);
    while (*size > 0 && ((*text)[*size - 1] == '\n' || (*text)[*size - 1] == ' ')) (*text)[--*size] = '\0';
    return EXIT_DONE;
}

/* One chunk of dense prefill that is not measured: pages in the weights, sets up the matrix products. */
static int warm_up(const struct demo *demo)
{
    enum { TOKENS = 1024 };
    const size_t n = demo->n_ids < TOKENS ? demo->n_ids : TOKENS;
    const ca_prefill_opt opt = { .cancel = &interrupt_flag };
    ca_session *session = NULL;
    static const struct method dense = { CA_SELECT_NONE, CA_EXEC_DENSE, "dense" };
    const int code = engine_session(&demo->engine, demo->options, &dense, n, 0, &session);
    if (code != EXIT_DONE) return code;
    const ca_status status = ca_session_prefill(session, demo->ids, n, &opt);
    ca_session_destroy(session);
    return status == CA_OK ? EXIT_DONE : fail_library(status);
}

static int run_method(struct demo *demo, const struct method *method, struct result *result)
{
    const bool traced = method->executor == CA_EXEC_COMPACT;
    const ca_prefill_opt hooks = { .user = &demo->capture, .on_trace = traced ? capture_trace : NULL };
    ca_sampler greedy = { 0, 1, 0 };
    ca_session_opt opt;
    ca_session *session = NULL;
    result_init(result, method);
    if (method_session_opt(demo->options, method, demo->engine.gate, &opt) != EXIT_DONE) return EXIT_BAD_USAGE;
    demo->capture.layer = demo->engine.info.n_layers / 2;
    demo->capture.group = demo->engine.info.n_heads / demo->engine.info.n_kv_heads;
    demo->capture.chunk = opt.chunk;
    demo->capture.page_tokens = opt.page_tokens;
    demo->capture.index = -1;
    const int code = engine_session(&demo->engine, demo->options, method, demo->n_ids, ANSWER_TOKENS, &session);
    if (code != EXIT_DONE) return code;
    ca_status status = measure_prefill(&demo->engine, session, demo->ids, demo->n_ids,
                                       progress_style(demo->options->progress, PROGRESS_LINES), &greedy, &hooks, result);
    if (status == CA_OK) status = generate(&demo->engine, session, &greedy, ANSWER_TOKENS, NULL, NULL, result);
    measure_share(result, demo->peak);
    ca_session_destroy(session);
    if (status == CA_OK) return EXIT_DONE;
    result_free(result);
    return fail_library(status);
}

static const struct result *dense_row(const struct demo *demo)
{
    for (size_t i = 0; i < demo->n_done; i++) {
        if (demo->methods[i].selector == CA_SELECT_NONE) return &demo->rows[i];
    }
    return NULL;
}

static double attention_speedup(const struct demo *demo, size_t row)
{
    const struct result *dense = dense_row(demo);
    return dense ? dense->attention_ms / demo->rows[row].attention_ms : NAN;
}

static double ttft_speedup(const struct demo *demo, size_t row)
{
    const struct result *dense = dense_row(demo);
    return dense ? dense->ttft_ms / demo->rows[row].ttft_ms : NAN;
}

static bool found(const struct demo *demo, size_t row)
{
    return demo->rows[row].text && strstr(demo->rows[row].text, demo->needle.expected);
}

static struct table *make_table(const struct demo *demo)
{
    static const struct table_column columns[] = {
        { "method", "method", -1, NULL },
        { "prompt tokens", "prompt_tokens", 0, NULL },
        { "TTFT ms", "ttft_ms", 0, NULL },
        { "tokens/s", "prefill_tok_s", 0, NULL },
        { "attention ms", "attention_ms", 0, NULL },
        { "attention speedup", "attention_speedup", 2, "x" },
        { "TTFT speedup", "ttft_speedup", 2, "x" },
        { "KV pages read", "kept_fraction", 2, NULL },
        { "found", "found", -1, NULL },
        { "answer", "answer", -1, NULL },
    };
    struct table *table = table_create(columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; table && i < demo->n_done; i++) {
        const struct result *r = &demo->rows[i];
        const struct table_cell cells[] = {
            { r->method, 0 },
            { NULL, (double)r->prompt_tokens },
            { NULL, r->ttft_ms },
            { NULL, result_prefill_rate(r) },
            { NULL, r->attention_ms },
            { NULL, attention_speedup(demo, i) },
            { NULL, ttft_speedup(demo, i) },
            { NULL, r->kept_fraction },
            { found(demo, i) ? "yes" : "no", 0 },
            { r->text, 0 },
        };
        if (!table_add(table, cells)) {
            table_free(table);
            return NULL;
        }
    }
    return table;
}

/* Called after every method, so that what is finished is kept when the next one is interrupted. */
static int write_summary(const struct demo *demo)
{
    struct table *table = make_table(demo);
    if (!table) return fail("no memory for the table");
    int code = folder_write_table(demo->options->out, "summary.csv", table, table_write_csv);
    if (code == EXIT_DONE) code = folder_write_table(demo->options->out, "summary.md", table, table_write_markdown);
    table_free(table);
    return code;
}

static int draw_speedup(const struct demo *demo)
{
    static const char *const groups[] = { "Attention", "Time to first token" };
    const char *series[METHOD_MAX];
    double values[METHOD_MAX * 2];
    char notes[METHOD_MAX * 2][CHART_NOTE] = { "" }, subtitle[256], path[FOLDER_PATH];
    for (size_t i = 0; i < demo->n_done; i++) {
        const double speedups[] = { attention_speedup(demo, i), ttft_speedup(demo, i) };
        series[i] = demo->rows[i].method;
        values[2 * i] = demo->rows[i].attention_ms / 1e3;
        values[2 * i + 1] = demo->rows[i].ttft_ms / 1e3;
        for (size_t g = 0; g < 2 && !isnan(speedups[g]) && demo->methods[i].selector != CA_SELECT_NONE; g++)
            snprintf(notes[2 * i + g], CHART_NOTE, "%.2fx", speedups[g]);
    }
    snprintf(subtitle, sizeof subtitle, "%s, prompt of %zu tokens, %d threads, kernels %s", demo->engine.info.name, demo->n_ids,
             demo->engine.n_threads, demo->engine.kernels);
    const struct chart chart = {
        .title = "Prefill of a long prompt: speedup over dense",
        .subtitle = subtitle,
        .axis = "seconds (lower is better)",
        .groups = groups,
        .series = series,
        .n_groups = 2,
        .n_series = demo->n_done,
        .values = values,
        .notes = (const char(*)[CHART_NOTE])notes,
    };
    const char *why = folder_path(demo->options->out, "speedup.png", path) ? chart_write_png(&chart, path) : "the path is too long";
    return why ? folder_cannot_write(demo->options->out, "speedup.png", why) : EXIT_DONE;
}

static int draw_mask(const struct demo *demo)
{
    char path[FOLDER_PATH];
    if (!demo->capture.taken) {
        note("no mask picture: the prompt has no second chunk, or compactattn did not run");
        return EXIT_DONE;
    }
    const char *why = folder_path(demo->options->out, "mask.png", path) ? capture_draw(&demo->capture, path)
                                                                        : "the path is too long";
    return why ? folder_cannot_write(demo->options->out, "mask.png", why) : EXIT_DONE;
}

static int print_rows(const struct demo *demo)
{
    if (!demo->options->json) {
        struct table *table = make_table(demo);
        if (!table) return fail("no memory for the table");
        putchar('\n');
        table_write_text(table, stdout);
        table_free(table);
        return EXIT_DONE;
    }
    json_t *rows = json_array();
    for (size_t i = 0; i < demo->n_done; i++) {
        json_t *row = result_json(&demo->rows[i]);
        json_object_set_new(row, "attention_speedup", json_number(attention_speedup(demo, i)));
        json_object_set_new(row, "ttft_speedup", json_number(ttft_speedup(demo, i)));
        json_object_set_new(row, "found", json_boolean(found(demo, i)));
        json_array_append_new(rows, row);
    }
    return json_print(rows);
}

static void print_intro(const struct demo *demo)
{
    if (demo->options->json) return;
    printf("Model     %s, %u layers, context %u\n"
           "Machine   kernels %s, %d threads, measured peak %.0f GFLOP/s\n"
           "Text      %s, %zu tokens with the question\n"
           "Hidden    \"%s\" at depth %.2f\n"
           "Question  %s\n\n",
           demo->engine.info.name, demo->engine.info.n_layers, demo->engine.info.max_context, demo->engine.kernels,
           demo->engine.n_threads, demo->peak, demo->options->text, demo->n_ids, demo->needle.fact, demo->options->depth,
           demo->needle.question);
    fflush(stdout);
}

static int run_methods(struct demo *demo)
{
    int code = warm_up(demo);
    while (code == EXIT_DONE && demo->n_done < demo->n_methods) {
        code = run_method(demo, &demo->methods[demo->n_done], &demo->rows[demo->n_done]);
        if (code == EXIT_DONE) {
            demo->n_done++;
            code = write_summary(demo);
        }
    }
    const int printed = demo->n_done > 0 ? print_rows(demo) : EXIT_DONE;
    return code == EXIT_DONE ? printed : code;
}

static int run_demo(struct demo *demo, char *text, size_t size)
{
    int code = cut_text(demo, text, &size);
    if (code == EXIT_DONE)
        code = needle_prompt(&demo->engine, &demo->needle, text, size, demo->options->depth, &demo->ids, &demo->n_ids);
    if (code != EXIT_DONE) return code;
    interrupt_catch();
    demo->peak = engine_peak(&demo->engine);
    print_intro(demo);
    code = run_methods(demo);
    if (code == EXIT_DONE) code = draw_speedup(demo);
    if (code == EXIT_DONE) code = draw_mask(demo);
    if (code == EXIT_DONE && !demo->options->json)
        printf("\nWritten to %s: summary.csv, summary.md, speedup.png%s\n", demo->options->out,
               demo->capture.taken ? ", mask.png" : "");
    return code;
}

static int run(const struct options *options)
{
    struct demo demo = {
        .options = options,
        .needle = { .fact = options->fact ? options->fact : needle_default.fact,
                    .question = options->ask ? options->ask : needle_default.question,
                    .answer_start = options->answer_start ? options->answer_start : needle_default.answer_start,
                    .expected = options->expect ? options->expect : needle_default.expected },
    };
    char *text = NULL;
    size_t size = 0;
    int code = method_choose_list(options, "dense,block_sparse,compactattn,auto", demo.methods, &demo.n_methods);
    if (code == EXIT_DONE) code = folder_prepare(options->out, "summary.csv");
    if (code == EXIT_DONE) code = read_text(options, &text, &size);
    if (code == EXIT_DONE) code = engine_open(options, &demo.engine);
    if (code == EXIT_DONE) code = run_demo(&demo, text, size);
    for (size_t i = 0; i < demo.n_done; i++) result_free(&demo.rows[i]);
    capture_free(&demo.capture);
    ca_free(demo.ids);
    engine_close(&demo.engine);
    free(text);
    return code;
}

const struct command command_demo = {
    .name = "demo",
    .summary = "Find a fact hidden in a long text, dense against CompactAttention",
    .synopsis = "-m MODEL --out FOLDER [--text FILE] [OPTIONS]",
    .details =
        "Hides one sentence in the text, asks for it with every method, and writes summary.csv, summary.md, speedup.png and\n"
        "mask.png to the folder. The methods' settings are the library's defaults unless options say otherwise.\n\n"
        "Example:\n"
        "  compactattn demo -m model.gguf --text data/demo.txt --out out --depth 0.3",
    .bit = CMD_DEMO,
    .run = run,
};
