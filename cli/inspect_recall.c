/* compactattn inspect recall: what each selector keeps of a model's attention on a text, and which setting to use. */
#include "commands.h"
#include "folder.h"
#include "interrupt.h"
#include "measure.h"
#include "message.h"
#include "recall.h"
#include "report/lines.h"
#include "report/table.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct inspection {
    const struct options *options;
    struct engine engine;
    struct recall recall;
    struct method rows;   /* flashprefill with the executor: how masks become rows */
    const char *executor; /* its name, in rows */
    uint32_t *ids;
    size_t n_ids;
};

static const char *value_text(const struct recall_sweep *sweep, double value, char text[32])
{
    snprintf(text, 32, "%s %.4g", sweep->option, value);
    if (sweep->whole) snprintf(text, 32, "%s %.0f", sweep->option, value);
    return text;
}

/* The selector in list that the length first characters name; CA_SELECT_USER when there is none. */
static ca_selector find_selector(const char *text, size_t length)
{
    int s = CA_SELECT_FLASHPREFILL;
    while (s < CA_SELECT_USER &&
           (strlen(ca_selector_name((ca_selector)s)) != length || memcmp(ca_selector_name((ca_selector)s), text, length) != 0))
        s++;
    return (ca_selector)s;
}

/* Selectors of --selectors, each once. */
static int list_selectors(const struct options *options, ca_selector out[RECALL_SELECTORS], size_t *n)
{
    const char *all = options->gate ? "flashprefill,seer,xattention,minference,trishape,quoka,oracle"
                                    : "flashprefill,xattention,minference,trishape,quoka,oracle";
    *n = 0;
    for (const char *at = options->selectors ? options->selectors : all;; at++) {
        const size_t length = strcspn(at, ",");
        const ca_selector selector = find_selector(at, length);
        if (selector == CA_SELECT_USER)
            return usage_error("--selectors: \"%.*s\" is not among flashprefill, seer, quoka, xattention, minference, trishape, "
                               "oracle",
                               (int)length, at);
        for (size_t i = 0; i < *n; i++) {
            if (out[i] == selector) return usage_error("--selectors: %s is listed twice", ca_selector_name(selector));
        }
        out[(*n)++] = selector;
        at += length;
        if (!*at) return EXIT_DONE;
    }
}

/* --layers */
static int choose_layers(struct inspection *in)
{
    const uint32_t n_layers = in->engine.info.n_layers;
    const char *list = in->options->layers;
    struct recall *recall = &in->recall;
    recall->layers = calloc(n_layers, sizeof *recall->layers);
    if (!recall->layers) return fail("no memory for the layers");
    if (strcmp(list, "all") == 0) {
        for (uint32_t l = 0; l < n_layers; l++) recall->layers[l] = true;
        recall->n_layers = n_layers;
        return EXIT_DONE;
    }
    for (const char *at = list;; at++) {
        char *end;
        errno = 0;
        const long long layer = strtoll(at, &end, 10);
        if (end == at || *at < '0' || *at > '9' || errno || layer >= n_layers || (*end && *end != ','))
            return usage_error("--layers %s: expected all, or layers below %u separated by commas", list, n_layers);
        if (!recall->layers[layer]) recall->n_layers++;
        recall->layers[layer] = true;
        at = end;
        if (!*at) return EXIT_DONE;
    }
}

/* Chunks with a past, spread evenly and ending with the last full one (a shorter one when it is the only one). What comes after it is
 * not read. */
static int choose_chunks(struct inspection *in)
{
    struct recall *recall = &in->recall;
    const uint32_t chunk = recall->opt.chunk;
    const size_t n_full = in->n_ids / chunk, last = n_full >= 2 ? n_full - 1 : 1;
    if (in->n_ids <= chunk)
        return fail(
            "the text has %zu tokens, so no chunk has a past to choose from: give a longer text, or a smaller --chunk than %u",
            in->n_ids, chunk);
    const size_t n = (size_t)in->options->chunks < last ? (size_t)in->options->chunks : last;
    recall->chunks = calloc(last, sizeof *recall->chunks);
    if (!recall->chunks) return fail("no memory for the chunks");
    for (size_t i = 0; i < n; i++) recall->chunks[recall->n_chunks++] = (uint32_t)((last * (i + 1) + n - 1) / n);
    const size_t end = (last + 1) * chunk;
    recall->opt.context = (uint32_t)(end < in->n_ids ? end : in->n_ids);
    return EXIT_DONE;
}

/* Options of the session, then the selectors with theirs. The session takes the page that a gate needs. */
static int choose_sweeps(struct inspection *in, const ca_selector *selectors, size_t n)
{
    static const struct method dense = { CA_SELECT_NONE, CA_EXEC_DENSE, "dense" };
    const struct options *options = in->options;
    ca_session_opt opts[RECALL_SELECTORS];
    int code = method_from_options(options, "auto", &in->rows);
    if (code == EXIT_DONE && in->rows.executor == CA_EXEC_DENSE)
        return usage_error("--executor dense reads everything: choose auto, compactattn or block_sparse");
    if (code == EXIT_DONE) code = engine_session_opt(&in->engine, options, &dense, in->n_ids, 0, &in->recall.opt);
    in->executor = strchr(in->rows.name, '+') + 1;
    for (size_t i = 0; code == EXIT_DONE && i < n; i++) {
        const struct method method = { .selector = selectors[i],
                                       .executor = selectors[i] == CA_SELECT_QUOKA ? CA_EXEC_DENSE : in->rows.executor };
        code = method_session_opt(options, &method, in->engine.gate, &opts[i]);
        if (code == EXIT_DONE && selectors[i] == CA_SELECT_SEER) in->recall.opt.page_tokens = opts[i].page_tokens;
    }
    in->recall.opt.executor = in->rows.executor;
    if (code == EXIT_DONE) code = choose_chunks(in);
    for (size_t i = 0; code == EXIT_DONE && i < n; i++) recall_add_sweep(&in->recall, selectors[i], &opts[i].select);
    return code;
}

static const char *sweep_name(const struct recall_sweep *sweep)
{
    return ca_selector_name(sweep->selector);
}

/* Every sample and setting. */
static int write_csv(const struct inspection *in)
{
    static const struct table_column columns[] = {
        { "layer", "layer", 0, NULL }, { "chunk", "chunk", 0, NULL },    { "past", "past", 0, NULL },
        { "", "selector", -1, NULL },  { "", "option", -1, NULL },       { "", "value", 6, NULL },
        { "", "mass_kept", 6, NULL },  { "", "kept_fraction", 6, NULL }, { "", "output_error", 6, NULL },
    };
    const struct recall *recall = &in->recall;
    struct table *table = table_create(columns, sizeof columns / sizeof *columns);
    bool ok = table != NULL;
    for (size_t s = 0; s < recall->n_samples; s++) {
        for (size_t w = 0; w < recall->n_sweeps; w++) {
            const struct recall_sweep *sweep = &recall->sweeps[w];
            for (size_t i = 0; ok && i < sweep->n; i++) {
                const struct recall_sample *sample = &recall->samples[s];
                const struct recall_point *p = &recall->points[s * recall->n_settings + sweep->first + i];
                const struct table_cell cells[] = {
                    { NULL, sample->layer },  { NULL, sample->chunk }, { NULL, sample->pos },
                    { sweep_name(sweep), 0 }, { sweep->option, 0 },    { NULL, sweep->values[i] },
                    { NULL, p->mass },        { NULL, p->kept },       { NULL, p->error },
                };
                ok = table_add(table, cells);
            }
        }
    }
    const int code = ok ? folder_write_table(in->options->out, "recall.csv", table, table_write_csv)
                        : fail("no memory for the table");
    table_free(table);
    return code;
}

static int draw_chart(const struct inspection *in)
{
    const struct recall *recall = &in->recall;
    struct lines_series series[RECALL_SELECTORS];
    double x[RECALL_SELECTORS][RECALL_SETTINGS], y[RECALL_SELECTORS][RECALL_SETTINGS];
    char subtitle[256], mark[48], path[FOLDER_PATH];
    for (size_t w = 0; w < recall->n_sweeps; w++) {
        const struct recall_sweep *sweep = &recall->sweeps[w];
        for (size_t i = 0; i < sweep->n; i++) {
            const struct recall_mean mean = recall_mean(recall, sweep->first + i);
            x[w][i] = mean.mean.kept;
            y[w][i] = mean.mean.mass;
        }
        series[w] = (struct lines_series){ sweep_name(sweep), x[w], y[w], sweep->n, sweep->selector == CA_SELECT_ORACLE };
    }
    snprintf(subtitle, sizeof subtitle, "%s, text of %zu tokens, %zu samples of layer and chunk, rows of %s", in->engine.info.name,
             in->n_ids, recall->n_samples, in->executor);
    snprintf(mark, sizeof mark, "recall %.4g", in->options->recall);
    const struct lines lines = {
        .title = "Attention mass kept against keys read",
        .subtitle = subtitle,
        .x_axis = "share of the past that is read (lower is faster)",
        .y_axis = "recall: attention mass kept (higher is better)",
        .series = series,
        .n_series = recall->n_sweeps,
        .mark = in->options->recall,
        .mark_name = mark,
    };
    const char *why = folder_path(in->options->out, "recall.png", path) ? lines_write_png(&lines, path) : "the path is too long";
    return why ? folder_cannot_write(in->options->out, "recall.png", why) : EXIT_DONE;
}

static bool print_means(const struct recall *recall)
{
    static const struct table_column columns[] = {
        { "selector", "selector", -1, NULL }, { "setting", "setting", -1, NULL },        { "recall", "recall", 4, NULL },
        { "worst layer", "worst", 4, NULL },  { "past read", "kept_fraction", 3, NULL }, { "output error", "error", 4, NULL },
    };
    struct table *table = table_create(columns, sizeof columns / sizeof *columns);
    bool ok = table != NULL;
    for (size_t w = 0; w < recall->n_sweeps; w++) {
        const struct recall_sweep *sweep = &recall->sweeps[w];
        for (size_t i = 0; ok && i < sweep->n; i++) {
            const struct recall_mean m = recall_mean(recall, sweep->first + i);
            char setting[32];
            const struct table_cell cells[] = {
                { sweep_name(sweep), 0 }, { value_text(sweep, sweep->values[i], setting), 0 },
                { NULL, m.mean.mass },    { NULL, m.worst_layer },
                { NULL, m.mean.kept },    { NULL, m.mean.error },
            };
            ok = table_add(table, cells);
        }
    }
    if (ok) table_write_text(table, stdout);
    table_free(table);
    return ok;
}

/* "--selector flashprefill --executor compactattn --alpha 0.08": what to type. */
static const char *command_text(const struct inspection *in, const struct recall_sweep *sweep, double value, char text[128])
{
    char setting[32], executor[64] = "";
    if (in->options->executor && sweep->selector != CA_SELECT_QUOKA)
        snprintf(executor, sizeof executor, " --executor %s", in->options->executor);
    const bool relative = sweep->selector == CA_SELECT_SEER && sweep->select.seer.relative;
    snprintf(text, 128, "--selector %s%s %s%s", sweep_name(sweep), executor, value_text(sweep, value, setting),
             relative ? " --relative" : "");
    return text;
}

static void print_advice(const struct inspection *in)
{
    printf("\nThe cheapest setting of each selector with a recall of %.4g here, between the settings tried:\n",
           in->options->recall);
    for (size_t w = 0; w < in->recall.n_sweeps; w++) {
        const struct recall_sweep *sweep = &in->recall.sweeps[w];
        struct recall_advice advice;
        char text[128];
        const bool reached = recall_advise(&in->recall, sweep, in->options->recall, &advice);
        printf("  %-13s ", sweep_name(sweep));
        if (reached)
            printf("%s   (recall %.3f, reads %.0f %% of the past, output error %.3f)\n",
                   command_text(in, sweep, advice.value, text), advice.expected.mass, 100 * advice.expected.kept,
                   advice.expected.error);
        else
            printf("none reaches it: the best, %s, has %.3f\n", value_text(sweep, advice.value, text), advice.expected.mass);
    }
}

static json_t *mean_json(const struct recall_sweep *sweep, double value, const struct recall_point *p)
{
    return json_pack("{s:s, s:s, s:f, s:o, s:o, s:o}", "selector", sweep_name(sweep), "option", sweep->option, "value", value,
                     "recall", json_number(p->mass), "kept_fraction", json_number(p->kept), "output_error", json_number(p->error));
}

static int print_json(const struct inspection *in, bool interrupted)
{
    const struct recall *recall = &in->recall;
    json_t *settings = json_array(), *advised = json_array(), *chunks = json_array();
    for (uint32_t i = 0; i < recall->n_chunks; i++) json_array_append_new(chunks, json_integer(recall->chunks[i]));
    for (size_t w = 0; w < recall->n_sweeps; w++) {
        const struct recall_sweep *sweep = &recall->sweeps[w];
        struct recall_advice advice;
        char text[128];
        const bool reached = recall_advise(recall, sweep, in->options->recall, &advice);
        for (size_t i = 0; i < sweep->n; i++) {
            const struct recall_mean m = recall_mean(recall, sweep->first + i);
            json_t *row = mean_json(sweep, sweep->values[i], &m.mean);
            json_object_set_new(row, "recall_worst_layer", json_number(m.worst_layer));
            json_array_append_new(settings, row);
        }
        json_t *row = mean_json(sweep, advice.value, &advice.expected);
        json_object_set_new(row, "reached", json_boolean(reached));
        json_object_set_new(row, "options", json_string(command_text(in, sweep, advice.value, text)));
        json_array_append_new(advised, row);
    }
    return json_print(json_pack("{s:o, s:I, s:s, s:I, s:o, s:I, s:f, s:b, s:o, s:o}", "model", json_text(in->engine.info.name),
                                "prompt_tokens", (json_int_t)in->n_ids, "executor", in->executor, "n_layers",
                                (json_int_t)recall->n_layers, "chunks", chunks, "n_samples", (json_int_t)recall->n_samples,
                                "recall_asked", in->options->recall, "interrupted", interrupted, "settings", settings,
                                "recommended", advised));
}

static int report(const struct inspection *in, bool interrupted)
{
    const struct recall *recall = &in->recall;
    int code = write_csv(in);
    if (code == EXIT_DONE) code = draw_chart(in);
    if (code != EXIT_DONE || in->options->json) return code == EXIT_DONE ? print_json(in, interrupted) : code;
    printf("%s, text of %zu tokens; %zu samples of layer and chunk, rows of %s\n\n", in->engine.info.name, in->n_ids,
           recall->n_samples, in->executor);
    if (!print_means(recall)) return fail("no memory for the table");
    print_advice(in);
    printf("\nWritten to %s: recall.csv, recall.png\n", in->options->out);
    return EXIT_DONE;
}

static int measure(struct inspection *in, const ca_selector *selectors, size_t n)
{
    int code = choose_sweeps(in, selectors, n);
    if (code == EXIT_DONE) code = choose_layers(in);
    if (code != EXIT_DONE) return code;
    in->recall.engine = &in->engine;
    interrupt_catch();
    code = recall_measure(&in->recall, in->ids, progress_style(in->options->progress, PROGRESS_OFF));
    if (code != EXIT_DONE && code != EXIT_INTERRUPTED) return code;
    const int reported = in->recall.n_samples > 0 ? report(in, code == EXIT_INTERRUPTED) : EXIT_DONE;
    return code == EXIT_INTERRUPTED ? fail_library(CA_E_CANCELED) : reported;
}

static int run(const struct options *options)
{
    struct inspection in = { .options = options };
    ca_selector selectors[RECALL_SELECTORS];
    size_t n_selectors = 0, size = 0;
    char *text = NULL;
    int code = list_selectors(options, selectors, &n_selectors);
    if (code == EXIT_DONE) code = folder_prepare(options->out, "recall.csv");
    if (code == EXIT_DONE) code = engine_read_text(options->file, &text, &size);
    if (code == EXIT_DONE) code = engine_open(options, &in.engine);
    if (code == EXIT_DONE) code = engine_tokenize(&in.engine, text, size, CA_TOK_ADD_BOS, &in.ids, &in.n_ids);
    if (code == EXIT_DONE) code = measure(&in, selectors, n_selectors);
    recall_free(&in.recall);
    ca_free(in.ids);
    engine_close(&in.engine);
    free(text);
    return code;
}

const struct command command_inspect_recall = {
    .name = "inspect recall",
    .summary = "Measure what each selector keeps of the attention, and recommend settings",
    .synopsis = "-m MODEL -f FILE --out FOLDER [--recall R] [OPTIONS]",
    .details =
        "Reads the text densely and, in some chunks of every layer, tries every selector with a sweep of its threshold. For each it\n"
        "tells the recall (the share of the true attention mass that falls on keys which are read), the share of the past that is\n"
        "read, and the relative error of attention's output. It ends with the setting of each selector that costs least for the\n"
        "recall asked for. The oracle chooses by the true mass: what is possible, and too slow for use.\n\n"
        "recall.csv holds every layer, chunk and setting, recall.png the averages. Take a text like those that the model will read,\n"
        "and as long: --top-k and --window are numbers of blocks and tokens, so they fit one length only. Ctrl-C keeps what is done.\n\n"
        "Examples:\n"
        "  compactattn inspect recall -m model.gguf -f book.txt --out recall\n"
        "  compactattn inspect recall -m model.gguf -f book.txt --out recall --recall 0.98 --selectors flashprefill,oracle --layers 0,15",
    .bit = CMD_INSPECT_RECALL,
    .run = run,
};
