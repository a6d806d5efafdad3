/* compactattn demo: finds a fact hidden in a long text with every method, and shows what each costs. */
#include "capture.h"
#include "commands.h"
#include "generate.h"
#include "interrupt.h"
#include "message.h"
#include "method.h"
#include "needle.h"
#include "report/chart.h"
#include "report/table.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FACT "The magic number for the lighthouse is 7481."
#define QUESTION "What is the magic number for the lighthouse?"
#define ANSWER_START "The magic number for the lighthouse is"
#define EXPECTED "7481"

enum { ANSWER_TOKENS = 12, PATH_BYTES = 1024 };

struct demo {
    const struct options *options;
    struct engine engine;
    const char *fact, *question, *answer_start, *expected;
    ca_executor methods[METHOD_COUNT];
    size_t n_methods, n_done;
    struct result rows[METHOD_COUNT];
    uint32_t *ids; /* the whole prompt */
    size_t n_ids;
    double peak;
    struct capture capture;
};

/* Says which file of the results cannot be written, and why. */
static int cannot_write(const struct demo *demo, const char *name, const char *why)
{
    return fail("%s/%s: cannot be written (%s): choose another folder with --out", demo->options->out, name, why);
}

static bool result_path(const struct demo *demo, const char *name, char path[PATH_BYTES])
{
    const int n = snprintf(path, PATH_BYTES, "%s/%s", demo->options->out, name);
    return n > 0 && n < PATH_BYTES;
}

/* Makes the folder and tries to create a file in it, before any work is done. */
static int prepare_folder(const struct demo *demo)
{
    char path[PATH_BYTES];
    if (!result_path(demo, "summary.csv", path)) return cannot_write(demo, "summary.csv", "the path is too long");
    if (mkdir(demo->options->out, 0777) != 0 && errno != EEXIST)
        return fail("%s: the folder cannot be made (%s): choose another with --out", demo->options->out, strerror(errno));
    const int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) return cannot_write(demo, "summary.csv", strerror(errno));
    close(file);
    return EXIT_DONE;
}

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

/* malloc'ed; NULL when memory is short. */
static char *join(const char *a, const char *between, const char *b)
{
    const size_t cap = strlen(a) + strlen(between) + strlen(b) + 1;
    char *out = malloc(cap);
    if (out) snprintf(out, cap, "%s%s%s", a, between, b);
    return out;
}

/* Template, text with the hidden fact, question, first words of the answer -> demo->ids. */
static int make_prompt(struct demo *demo, const char *text, size_t size)
{
    char *hidden = needle_hide(text, size, demo->options->depth, demo->fact);
    char *content = hidden ? join(hidden, "\n\n", demo->question) : NULL, *rendered = NULL, *prompt = NULL;
    size_t length = 0;
    int code = content ? EXIT_DONE : fail("no memory for the prompt");
    if (content) {
        const ca_message message = { "user", content };
        const ca_status status = ca_chat_render(demo->engine.tokenizer, &message, 1, true, &rendered, &length);
        if (status != CA_OK) code = fail_library(status);
    }
    if (rendered && !(prompt = join(rendered, "", demo->answer_start))) code = fail("no memory for the prompt");
    if (prompt) code = engine_tokenize(&demo->engine, prompt, strlen(prompt), CA_TOK_PARSE_SPECIAL, &demo->ids, &demo->n_ids);
    free(prompt);
    ca_free(rendered);
    free(content);
    free(hidden);
    return code;
}

static int read_text(const struct options *options, char **text, size_t *size)
{
    const int code = engine_read_text(options->text, text, size);
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
    const int code = engine_session(&demo->engine, demo->options, CA_EXEC_DENSE, n, 0, &session);
    if (code != EXIT_DONE) return code;
    const ca_status status = ca_session_prefill(session, demo->ids, n, &opt);
    ca_session_destroy(session);
    return status == CA_OK ? EXIT_DONE : fail_library(status);
}

static int run_method(struct demo *demo, ca_executor method, struct result *result)
{
    const bool traced = method == CA_EXEC_COMPACT;
    const ca_prefill_opt hooks = { .user = &demo->capture, .on_trace = traced ? capture_trace : NULL };
    ca_sampler greedy = { 0, 1, 0 };
    ca_session_opt opt;
    ca_session *session = NULL;
    result_init(result, method);
    method_session_opt(demo->options, method, &opt);
    demo->capture.layer = demo->engine.info.n_layers / 2;
    demo->capture.chunk = opt.chunk;
    const int code = engine_session(&demo->engine, demo->options, method, demo->n_ids, ANSWER_TOKENS, &session);
    if (code != EXIT_DONE) return code;
    ca_status status = measure_prefill(&demo->engine, session, demo->ids, demo->n_ids,
                                       progress_style(demo->options->progress, PROGRESS_LINES), &greedy, &hooks, result);
    if (status == CA_OK) status = generate(&demo->engine, session, &greedy, ANSWER_TOKENS, NULL, result);
    measure_share(result, demo->peak);
    ca_session_destroy(session);
    if (status == CA_OK) return EXIT_DONE;
    result_free(result);
    return fail_library(status);
}

static const struct result *dense_row(const struct demo *demo)
{
    for (size_t i = 0; i < demo->n_done; i++) {
        if (demo->methods[i] == CA_EXEC_DENSE) return &demo->rows[i];
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
    return demo->rows[row].text && strstr(demo->rows[row].text, demo->expected);
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

static int write_table(const struct demo *demo, const struct table *table, const char *name,
                       void (*write)(const struct table *table, FILE *out))
{
    char path[PATH_BYTES];
    FILE *out = result_path(demo, name, path) ? fopen(path, "w") : NULL;
    if (!out) return cannot_write(demo, name, strerror(errno));
    write(table, out);
    const bool written = !ferror(out), closed = fclose(out) == 0;
    return written && closed ? EXIT_DONE : cannot_write(demo, name, strerror(errno));
}

/* Called after every method, so that what is finished is kept when the next one is interrupted. */
static int write_summary(const struct demo *demo)
{
    struct table *table = make_table(demo);
    if (!table) return fail("no memory for the table");
    int code = write_table(demo, table, "summary.csv", table_write_csv);
    if (code == EXIT_DONE) code = write_table(demo, table, "summary.md", table_write_markdown);
    table_free(table);
    return code;
}

static int draw_speedup(const struct demo *demo)
{
    static const char *const groups[] = { "Attention", "Time to first token" };
    const char *series[METHOD_COUNT];
    double values[METHOD_COUNT * 2];
    char notes[METHOD_COUNT * 2][CHART_NOTE] = { "" }, subtitle[256], path[PATH_BYTES];
    for (size_t i = 0; i < demo->n_done; i++) {
        const double speedups[] = { attention_speedup(demo, i), ttft_speedup(demo, i) };
        series[i] = demo->rows[i].method;
        values[2 * i] = demo->rows[i].attention_ms / 1e3;
        values[2 * i + 1] = demo->rows[i].ttft_ms / 1e3;
        for (size_t g = 0; g < 2 && !isnan(speedups[g]) && demo->methods[i] != CA_EXEC_DENSE; g++)
            snprintf(notes[2 * i + g], CHART_NOTE, "%.2fx", speedups[g]);
    }
    snprintf(subtitle, sizeof subtitle, "%s, prompt of %zu tokens, %d threads, kernels %s", demo->engine.info.name, demo->n_ids,
             demo->engine.n_threads, ca_kern_name(ca_model_kern(demo->engine.model)));
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
    const char *why = result_path(demo, "speedup.png", path) ? chart_write_png(&chart, path) : "the path is too long";
    return why ? cannot_write(demo, "speedup.png", why) : EXIT_DONE;
}

static int draw_mask(const struct demo *demo)
{
    char path[PATH_BYTES];
    if (!demo->capture.taken) {
        note("no mask picture: the prompt has no full chunk after the first, or compactattn did not run");
        return EXIT_DONE;
    }
    const char *why = result_path(demo, "mask.png", path) ? capture_draw(&demo->capture, path) : "the path is too long";
    return why ? cannot_write(demo, "mask.png", why) : EXIT_DONE;
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
           demo->engine.info.name, demo->engine.info.n_layers, demo->engine.info.max_context,
           ca_kern_name(ca_model_kern(demo->engine.model)), demo->engine.n_threads, demo->peak, demo->options->text, demo->n_ids,
           demo->fact, demo->options->depth, demo->question);
    fflush(stdout);
}

static int run_methods(struct demo *demo)
{
    int code = warm_up(demo);
    while (code == EXIT_DONE && demo->n_done < demo->n_methods) {
        code = run_method(demo, demo->methods[demo->n_done], &demo->rows[demo->n_done]);
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
    if (code == EXIT_DONE) code = make_prompt(demo, text, size);
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
        .fact = options->fact ? options->fact : FACT,
        .question = options->ask ? options->ask : QUESTION,
        .answer_start = options->answer_start ? options->answer_start : ANSWER_START,
        .expected = options->expect ? options->expect : EXPECTED,
    };
    char *text = NULL;
    size_t size = 0;
    int code = method_choose_list(options, demo.methods, &demo.n_methods);
    if (code == EXIT_DONE) code = prepare_folder(&demo);
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
