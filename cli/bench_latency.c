/* compactattn bench latency: prefill over methods, lengths, batches, chunks and threads, of a model or of a shape without weights. */
#include "commands.h"
#include "engine.h"
#include "eval/latency.h"
#include "eval/ledger.h"
#include "file.h"
#include "folder.h"
#include "interrupt.h"
#include "measure.h"
#include "message.h"
#include "progress.h"
#include "sweep.h"
#include "tune.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum { MAX_VALUES = 32, WHY = 512 };

struct list {
    uint32_t values[MAX_VALUES];
    size_t n;
};

/* One point of the grid. */
struct cell {
    uint32_t threads, batch, chunk, length;
};

struct bench {
    const struct options *options;
    struct engine engine;
    ca_model_info whole; /* of the model with all layers */
    ca_cost cost;        /* what rows of auto cost: as measured, or built in */
    char shape[1200];    /* config.json of --shape, or empty */
    struct list lengths, batches, chunks, threads;
    uint32_t runs, warmup;
    struct latency_method methods[METHOD_MAX];
    size_t n_methods;
    struct latency_input input;
    ca_tokenizer *tokenizer; /* of --tokenizer */
    json_t *rows;            /* of this and of earlier calls */
    struct progress progress;
    char label[120];
    double done, total; /* GFLOP, as if everything was read that no --keep leaves out */
    bool failed;
};

/* ---- the command line ---- */

static int parse_list(const char *option, const char *text, uint32_t low, uint32_t high, struct list *out)
{
    for (const char *at = text;; at++) {
        char *end;
        errno = 0;
        const long long value = strtoll(at, &end, 10);
        if (*at < '0' || *at > '9' || errno || value < low || value > high || (*end && *end != ','))
            return usage_error("--%s %s: expected whole numbers from %u to %u, separated by commas", option, text, low, high);
        if (out->n == MAX_VALUES) return usage_error("--%s %s: more than %d values", option, text, MAX_VALUES);
        for (size_t i = 0; i < out->n; i++) {
            if (out->values[i] == value) return usage_error("--%s %s: %lld is listed twice", option, text, value);
        }
        out->values[out->n++] = (uint32_t)value;
        at = end;
        if (!*at) return EXIT_DONE;
    }
}

static int parse_grid(struct bench *bench)
{
    const struct options *o = bench->options;
    const bool quick = strcmp(o->mode, "quickstart") == 0;
    const char *lengths = o->grid_lengths ? o->grid_lengths : quick ? "1024,2048,4096" : "1024,2048,4096,8192";
    bench->runs = o->grid_runs >= 0 ? (uint32_t)o->grid_runs : quick ? 1 : 3;
    bench->warmup = o->grid_warmup >= 0 ? (uint32_t)o->grid_warmup : quick ? 0 : 1;
    int code = parse_list("lengths", lengths, 2, INT32_MAX, &bench->lengths);
    if (code == EXIT_DONE) code = parse_list("batches", o->batches, 1, 1024, &bench->batches);
    if (code == EXIT_DONE) code = parse_list("chunks", o->chunk_list, 1, 1 << 20, &bench->chunks);
    if (code == EXIT_DONE && o->thread_list)
        return parse_list("threads-list", o->thread_list, 1, (uint32_t)options_most_threads(), &bench->threads);
    bench->threads = (struct list){ { (uint32_t)engine_threads(o) }, 1 };
    return code;
}

static int add_shares(struct bench *bench)
{
    const char *list = bench->options->keep;
    for (const char *at = list; at && *at; at += *at == ',') {
        char *end;
        const double keep = strtod(at, &end);
        size_t twin = 0;
        if (end == at || !(keep >= 0 && keep <= 1) || (*end && *end != ',') || bench->n_methods == METHOD_MAX)
            return usage_error("--keep %s: expected numbers from 0 to 1, separated by commas, and no more than %d methods", list,
                               METHOD_MAX);
        struct latency_method *m = &bench->methods[bench->n_methods++];
        *m = (struct latency_method){ { .selector = CA_SELECT_USER, .executor = CA_EXEC_COMPACT }, keep, 0 };
        snprintf(m->method.name, sizeof m->method.name, "keep=%.6g+compactattn", keep);
        while (strcmp(bench->methods[twin].method.name, m->method.name) != 0) twin++;
        if (&bench->methods[twin] != m) return usage_error("--keep %s: %.6g is listed twice", list, keep);
        at = end;
    }
    return EXIT_DONE;
}

static int choose_methods(struct bench *bench)
{
    const struct options *o = bench->options;
    struct method chosen[METHOD_MAX];
    char all[512];
    snprintf(all, sizeof all,
             "dense,quoka,block_sparse,compactattn,auto,xattention+block_sparse,xattention+compactattn,xattention%s,"
             "minference+compactattn,trishape+compactattn",
             o->gate ? ",seer+block_sparse,seer+compactattn,seer" : "");
    const char *fallback = strcmp(o->mode, "table") == 0        ? all
                           : strcmp(o->mode, "quickstart") == 0 ? "dense,compactattn,auto"
                           : o->keep                            ? "dense"
                                                                : "dense,block_sparse,compactattn,auto";
    const int code = method_choose_list(o, fallback, chosen, &bench->n_methods);
    for (size_t i = 0; code == EXIT_DONE && i < bench->n_methods; i++)
        bench->methods[i] = (struct latency_method){ chosen[i], NAN, 0 };
    return code == EXIT_DONE ? add_shares(bench) : code;
}

static int check_options(struct bench *bench)
{
    const struct options *o = bench->options;
    if (!o->model == (o->shapes.n == 0)) return usage_error("give either -m MODEL or --shape NAME");
    if (o->shapes.n > 1) return usage_error("--shape: one model at a time");
    if (o->model && (o->model_layers > 0 || o->tokenizer))
        return usage_error("--model-layers and --tokenizer go with --shape only");
    if (o->file && o->data) return usage_error("-f and --data: give one of them");
    if (o->shapes.n > 0 && (o->file || o->data) && !o->tokenizer)
        return usage_error("%s: a shape has no tokenizer: give one with --tokenizer", o->file ? "-f" : "--data");
    return EXIT_DONE;
}

/* ---- the model ---- */

/* A name of data/shapes, or a path. */
static int find_shape(struct bench *bench)
{
    const char *name = bench->options->shapes.items[0];
    char file[256];
    FILE *in = strchr(name, '/') || strchr(name, '.') ? fopen(name, "r") : NULL;
    if (in) fclose(in);
    const int n = snprintf(file, sizeof file, "shapes/%s.json", name);
    if (in && snprintf(bench->shape, sizeof bench->shape, "%s", name) < (int)sizeof bench->shape) return EXIT_DONE;
    if (n < (int)sizeof file && file_find_data(file, bench->shape, sizeof bench->shape)) return EXIT_DONE;
    return fail(
        "--shape %s: is neither a config.json nor, in data/ here or where the program is installed, one of its shapes (llama-3.1-8b, qwen2.5-7b, qwen3-8b, "
        "qwen3-30b-a3b, qwen3-30b-a3b-dense-equivalent, gemma-3-12b, smollm2-135m)",
        name);
}

static int session_opt(const struct bench *bench, const struct engine *engine, const struct latency_method *m,
                       const struct cell *cell, ca_session_opt *out)
{
    struct method method = m->method;
    if (method.selector == CA_SELECT_USER) method.selector = CA_SELECT_FLASHPREFILL;
    const int code = method_session_opt(bench->options, &method, engine->gate, out);
    if (m->method.selector == CA_SELECT_USER)
        out->select = (ca_select_opt){ .selector = CA_SELECT_USER, .user = { latency_keep_share, (void *)(uintptr_t)m } };
    out->cost = bench->cost;
    out->n_threads = (int)cell->threads;
    out->chunk = cell->chunk;
    out->context = cell->length;
    return code;
}

/* What is wrong with a method's options is told before anything is measured. */
static int check_methods(const struct bench *bench, const struct engine *engine)
{
    const struct cell cell = { 1, 1, bench->chunks.values[0], bench->lengths.values[0] };
    int code = EXIT_DONE;
    for (size_t m = 0; m < bench->n_methods && code == EXIT_DONE; m++) {
        ca_session_opt opt;
        code = session_opt(bench, engine, &bench->methods[m], &cell, &opt);
    }
    return code;
}

/* Bytes of a method's sessions in a cell. */
static ca_status forecast(const struct bench *bench, const struct engine *engine, const struct latency_method *m,
                          const struct cell *cell, uint64_t *bytes)
{
    ca_session_opt opt;
    ca_session_memory memory;
    *bytes = 0;
    if (session_opt(bench, engine, m, cell, &opt) != EXIT_DONE) return CA_E_ARG;
    const ca_status status = ca_session_forecast(engine->model, &opt, &memory);
    if (status == CA_OK) *bytes = (memory.kv_bytes + memory.workspace_bytes) * cell->batch;
    return status;
}

static bool next_cell(const struct bench *bench, size_t i, struct cell *out)
{
    const size_t n_lengths = bench->lengths.n, n_chunks = bench->chunks.n, n_batches = bench->batches.n;
    if (i >= n_lengths * n_chunks * n_batches * bench->threads.n) return false;
    *out = (struct cell){ .length = bench->lengths.values[i % n_lengths],
                          .chunk = bench->chunks.values[i / n_lengths % n_chunks],
                          .batch = bench->batches.values[i / n_lengths / n_chunks % n_batches],
                          .threads = bench->threads.values[i / n_lengths / n_chunks / n_batches] };
    return true;
}

/* The most layers with which every cell that fits with one layer still fits: bytes grow by as much with each layer. One where none fits. */
static uint32_t choose_layers(const struct bench *bench, const struct engine *all, const struct engine *one)
{
    const uint32_t n = all->info.n_layers;
    const double room = 0.9 * (double)ca_memory_available();
    uint32_t best = n;
    bool some = false, none = false; /* cells that fit, and that do not */
    struct cell cell;
    for (size_t i = 0; n > 1 && next_cell(bench, i, &cell); i++) {
        for (size_t m = 0; m < bench->n_methods; m++) {
            uint64_t least = 0, most = 0;
            if (forecast(bench, one, &bench->methods[m], &cell, &least) != CA_OK ||
                forecast(bench, all, &bench->methods[m], &cell, &most) != CA_OK)
                continue;
            const double first = (double)(least + one->info.packed_bytes), last = (double)(most + all->info.packed_bytes);
            const double fit = last > first ? 1 + floor((room - first) / (last - first) * (n - 1)) : n;
            if (fit >= 1 && fit < best) best = (uint32_t)fit;
            some = some || fit >= 1;
            none = none || fit < 1;
        }
    }
    return none && !some ? 1 : best;
}

/* Layers that an earlier call with the same folder chose, or 0: the free memory may be another now. */
static uint32_t layers_of_folder(const char *folder)
{
    char path[FOLDER_PATH];
    json_t *manifest = folder && folder_path(folder, "manifest.json", path) ? json_load_file(path, 0, NULL) : NULL;
    const json_int_t layers = json_integer_value(json_object_get(manifest, "layers"));
    json_decref(manifest);
    return layers > 0 && layers < INT32_MAX ? (uint32_t)layers : 0;
}

static int open_shape(struct bench *bench)
{
    const struct options *o = bench->options;
    struct engine all = { 0 }, one = { 0 };
    uint32_t layers = (uint32_t)o->model_layers;
    int code = engine_open_shape(o, bench->shape, 0, true, &all);
    bench->whole = all.info;
    if (code == EXIT_DONE) code = check_methods(bench, &all);
    if (layers == 0) layers = layers_of_folder(o->out);
    if (code == EXIT_DONE && layers == 0) {
        code = engine_open_shape(o, bench->shape, 1, true, &one);
        if (code == EXIT_DONE) layers = choose_layers(bench, &all, &one);
    }
    engine_close(&one);
    engine_close(&all);
    if (code == EXIT_DONE) code = engine_open_shape(o, bench->shape, layers, false, &bench->engine);
    if (code == EXIT_DONE && bench->engine.info.n_layers < bench->whole.n_layers)
        note("%s: %u of %u layers are built; what all would take is extrapolated", bench->whole.name, bench->engine.info.n_layers,
             bench->whole.n_layers);
    return code;
}

static int open_model(struct bench *bench)
{
    int code = bench->options->model ? engine_open(bench->options, &bench->engine) : open_shape(bench);
    if (code != EXIT_DONE) return code;
    const ca_kern *kern = ca_model_kern(bench->engine.model);
    (void)tune_cost(kern, method_attention(bench->options), &bench->cost);
    if (bench->options->model) bench->whole = bench->engine.info;
    for (size_t m = 0; m < bench->n_methods; m++) bench->methods[m].n_kv_heads = bench->engine.info.n_kv_heads;
    return check_methods(bench, &bench->engine);
}

/* ---- prompts ---- */

static int open_text(struct bench *bench, const char *path)
{
    struct latency_input *input = &bench->input;
    char *text = NULL;
    size_t size = 0;
    const int code = engine_read_text(path, &text, &size);
    if (code != EXIT_DONE) return code;
    const ca_status status = ca_tokenize(input->tokenizer, text, size, 0, &input->ids, &input->n_ids);
    free(text);
    if (status != CA_OK) return fail_library(status);
    return input->n_ids > 0 ? EXIT_DONE : fail("%s: the text is empty", path);
}

/* RULER, a text, or random ids: what is asked for, else the demo's text for a model and random ids for a shape. */
static int open_input(struct bench *bench)
{
    const struct options *o = bench->options;
    char path[1200];
    const char *text = o->file ? o->file : o->model && !o->data && file_find_data("demo.txt", path, sizeof path) ? path : NULL;
    bench->input = (struct latency_input){ .source = o->data ? LATENCY_RULER
                                                     : text  ? LATENCY_TEXT
                                                             : LATENCY_RANDOM,
                                           .cycle = strcmp(o->schedule, "cycle") == 0,
                                           .seed = (uint64_t)o->seed,
                                           .vocab = bench->engine.info.vocab,
                                           .tokenizer = bench->engine.tokenizer,
                                           .root = o->data,
                                           .task = o->task };
    if (o->tokenizer) {
        const ca_status status = ca_tokenizer_open(o->tokenizer, &bench->tokenizer);
        if (status != CA_OK) return fail_library(status);
        bench->input.tokenizer = bench->tokenizer;
    }
    return text ? open_text(bench, text) : EXIT_DONE;
}

/* ---- the folder ---- */

static json_t *list_json(const struct list *list)
{
    json_t *array = json_array();
    for (size_t i = 0; i < list->n; i++) json_array_append_new(array, json_integer(list->values[i]));
    return array;
}

/* Settings of every method; the chunk is the grid's. */
static json_t *methods_json(const struct bench *bench)
{
    const struct cell cell = { 1, 1, bench->chunks.values[0], bench->lengths.values[0] };
    json_t *methods = json_object();
    for (size_t m = 0; m < bench->n_methods; m++) {
        ca_session_opt opt;
        if (session_opt(bench, &bench->engine, &bench->methods[m], &cell, &opt) != EXIT_DONE) continue;
        json_t *settings = sweep_settings(ca_model_kern(bench->engine.model), &opt);
        (void)json_object_del(settings, "chunk");
        json_object_set_new(methods, bench->methods[m].method.name, settings);
    }
    return methods;
}

/* Hashes of what the prompts come from: the text's ids, or the RULER files that are there, one by one, and the tokenizer. Random ones
 * are the seed's. */
static int hash_inputs(const struct bench *bench, json_t **inputs)
{
    const struct options *o = bench->options;
    const struct latency_input *input = &bench->input;
    char path[FOLDER_PATH], name[32], hash[LEDGER_HASH];
    int code = EXIT_DONE;
    *inputs = json_object();
    if (input->source == LATENCY_TEXT) {
        ledger_hash_bytes(input->ids, input->n_ids * sizeof *input->ids, hash);
        json_object_set_new(*inputs, "ids", json_string(hash));
    }
    if (o->tokenizer) {
        code = ledger_hash(o->tokenizer, hash);
        json_object_set_new(*inputs, "tokenizer", json_string(hash));
    }
    for (size_t i = 0; i < bench->lengths.n && o->data && code == EXIT_DONE; i++) {
        if (!latency_ruler_path(input, bench->lengths.values[i], path, sizeof path) || access(path, F_OK) != 0) continue;
        code = ledger_hash(path, hash);
        snprintf(name, sizeof name, "prompts of %u", bench->lengths.values[i]);
        json_object_set_new(*inputs, name, json_string(hash));
    }
    return *inputs ? code : fail("no memory for the settings");
}

/* What failed in an earlier call is tried again: files come back, and memory. */
static void try_again(struct bench *bench)
{
    for (size_t i = json_array_size(bench->rows); i-- > 0;) {
        const char *status = "", *id = "", *error = "";
        json_t *row = json_array_get(bench->rows, i);
        (void)json_unpack(row, "{s:s, s:s, s:s}", "status", &status, "run_id", &id, "error", &error);
        if (strcmp(status, "oom") != 0 && strcmp(status, "failed") != 0) continue;
        note("%s: %s in an earlier call (%s): it is tried again", id, status, error);
        json_array_remove(bench->rows, i);
    }
}

static int begin_folder(struct bench *bench)
{
    const struct options *o = bench->options;
    char hash[LEDGER_HASH], gate[LEDGER_HASH] = "none", cpu[128];
    json_t *inputs = NULL;
    ca_cpu_name(cpu, sizeof cpu);
    int code = folder_prepare(o->out, "summary.csv");
    if (code == EXIT_DONE) code = ledger_hash(o->model ? o->model : bench->shape, hash);
    if (code == EXIT_DONE && o->gate) code = ledger_hash(o->gate, gate);
    if (code == EXIT_DONE) code = hash_inputs(bench, &inputs);
    if (code != EXIT_DONE) {
        json_decref(inputs);
        return code;
    }
    json_t *settings = json_pack(
        "{s:s, s:s, s:s, s:s, s:s*, s:o, s:s*, s:o, s:s, s:I, s:I, s:s, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:s, s:s, s:s, s:I}",
        "command", "bench latency", "version", ca_version(), "cpu", cpu, "gate", gate, "extend", o->extend, "inputs", inputs,
        "task", o->data ? o->task : NULL, "model", json_text(bench->engine.info.name), "model_hash", hash, "layers",
        (json_int_t)bench->engine.info.n_layers, "layers_whole", (json_int_t)bench->whole.n_layers, "kernels",
        bench->engine.kernels, "methods", methods_json(bench), "lengths", list_json(&bench->lengths), "batches",
        list_json(&bench->batches), "chunks", list_json(&bench->chunks), "threads", list_json(&bench->threads), "runs",
        (json_int_t)bench->runs, "warmup", (json_int_t)bench->warmup, "prompt_source", latency_source_name(bench->input.source),
        "prompts",
        o->data   ? o->data
        : o->file ? o->file
                  : "",
        "schedule", o->schedule, "seed", (json_int_t)o->seed);
    if (!settings) return fail("no memory for the settings");
    code = ledger_begin(o->out, settings);
    if (code == EXIT_DONE) code = ledger_lock(o->out, "runs");
    json_decref(settings);
    json_decref(bench->rows);
    bench->rows = NULL;
    if (code == EXIT_DONE) code = ledger_read(o->out, "runs", &bench->rows);
    if (code == EXIT_DONE) try_again(bench);
    return code;
}

/* ---- the grid ---- */

static const char *const executor_names[] = { "dense", "block_sparse", "compactattn", "auto" };

static json_t *new_row(const struct bench *bench, const struct latency_method *m, const struct cell *cell, uint32_t round)
{
    const bool warms = round < bench->warmup;
    const uint32_t index = warms ? round : round - bench->warmup, turn = bench->input.cycle ? round : 0;
    const size_t n_records = bench->input.rows.n_rows; /* of the RULER file that is open; else 0, and prompts are without end */
    char id[160], when[32], cpu[128];
    const time_t now = time(NULL);
    struct tm utc;
    struct utsname host = { .nodename = "" };
    ca_session_opt opt;
    ca_cpu_name(cpu, sizeof cpu);
    (void)uname(&host);
    (void)strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    (void)session_opt(bench, &bench->engine, m, cell, &opt);
    snprintf(id, sizeof id, "%s-t%u-b%u-c%u-l%u-%s%u", m->method.name, cell->threads, cell->batch, cell->chunk, cell->length,
             warms ? "w" : "r", index);
    json_t *params = sweep_settings(ca_model_kern(bench->engine.model), &opt), *samples = json_array();
    if (!isnan(m->keep)) json_object_set_new(params, "keep", json_number(m->keep));
    for (uint32_t b = 0; b < cell->batch; b++) {
        const size_t record = (size_t)turn + b;
        json_array_append_new(samples, json_integer((json_int_t)(n_records > 0 ? record % n_records : record)));
    }
    return json_pack(
        "{s:i, s:s, s:s, s:s, s:o, s:o, s:s, s:n, s:n, s:i, s:o, s:I, s:I, s:s, s:s, s:s, s:s, s:o, s:I, s:I, s:I, s:I, "
        "s:s, s:s*, s:o, s:s, s:s, s:I}",
        "schema_version", 1, "run_id", id, "timestamp", when, "version", ca_version(), "host", json_text(host.nodename), "cpu",
        json_text(cpu), "kernels", bench->engine.kernels, "gpu", "driver", "tp", 1, "model", json_text(bench->engine.info.name),
        "layers", (json_int_t)bench->engine.info.n_layers, "layers_whole", (json_int_t)bench->whole.n_layers, "dtype",
        ca_kern_flow_dtype(ca_model_kern(bench->engine.model)) == CA_BF16 ? "bf16" : "f32", "exec_family",
        executor_names[m->method.executor], "selector_family", isnan(m->keep) ? ca_selector_name(m->method.selector) : "keep",
        "method", m->method.name, "params", params, "threads", (json_int_t)cell->threads, "chunk_size", (json_int_t)cell->chunk,
        "batch_size", (json_int_t)cell->batch, "seq_len", (json_int_t)cell->length, "prompt_source",
        latency_source_name(bench->input.source), "task", bench->input.source == LATENCY_RULER ? bench->options->task : NULL,
        "sample_ids", samples, "schedule", bench->options->schedule, "phase", warms ? "warmup" : "measured", "index",
        (json_int_t)index);
}

/* Puts a row on disk and among the rows. row is stolen. */
static int keep_row(struct bench *bench, json_t *row, const char *status, const char *error)
{
    if (!row) return fail("no memory for a row of results");
    json_object_set_new(row, "status", json_string(status));
    json_object_set_new(row, "error", error ? json_text(error) : json_null());
    if (strcmp(status, "ok") != 0) {
        bench->failed = true;
        progress_end(&bench->progress);
        note("%s: %s: %s", json_string_value(json_object_get(row, "run_id")), status, error);
    }
    json_array_append(bench->rows, row);
    if (bench->options->out) return ledger_append(bench->options->out, "runs", row);
    json_decref(row);
    return EXIT_DONE;
}

static bool is_of(json_t *row, const struct latency_method *m, const struct cell *cell)
{
    const char *method = "";
    json_int_t threads = 0, batch = 0, chunk = 0, length = 0;
    return json_unpack(row, "{s:s, s:I, s:I, s:I, s:I}", "method", &method, "threads", &threads, "batch_size", &batch, "chunk_size",
                       &chunk, "seq_len", &length) == 0 &&
           strcmp(method, m->method.name) == 0 && threads == cell->threads && batch == cell->batch && chunk == cell->chunk &&
           length == cell->length;
}

/* How many measured runs of a method in a cell are there. */
static uint32_t runs_of(const struct bench *bench, const struct latency_method *m, const struct cell *cell)
{
    size_t i;
    json_t *row;
    uint32_t n = 0;
    json_array_foreach(bench->rows, i, row)
    {
        const char *phase = json_string_value(json_object_get(row, "phase")),
                   *status = json_string_value(json_object_get(row, "status"));
        n += phase && status && strcmp(phase, "measured") == 0 && strcmp(status, "ok") == 0 && is_of(row, m, cell);
    }
    return n;
}

/* A cell while it is measured. */
struct turn {
    struct bench *bench;
    const struct cell *cell;
    ca_session **memory;               /* [n_methods][batch] */
    ca_session **sessions[METHOD_MAX]; /* of a method; NULL: it takes no part (any more) */
    uint32_t had[METHOD_MAX];          /* measured runs of earlier calls */
    uint64_t peak[METHOD_MAX];
    uint64_t baseline;
    bool share; /* all methods' sessions fit beside each other: they stay between runs */
    uint32_t *ids;
};

static void drop_sessions(struct turn *t, size_t m)
{
    for (uint32_t b = 0; t->sessions[m] && b < t->cell->batch; b++) {
        ca_session_destroy(t->sessions[m][b]);
        t->sessions[m][b] = NULL;
    }
}

/* The method is done with in this cell. */
static void leave(struct turn *t, size_t m)
{
    drop_sessions(t, m);
    t->sessions[m] = NULL;
}

/* Of a run, when as many tokens of all its prompts are read. The prompts grow side by side. */
static double cost_of(const struct bench *bench, const struct latency_method *m, const struct cell *cell, double tokens)
{
    return cell->batch * latency_gflop(&bench->engine.info, tokens / cell->batch, isnan(m->keep) ? 1 : m->keep);
}

static double whole_cost(const struct bench *bench, const struct latency_method *m, const struct cell *cell)
{
    return cost_of(bench, m, cell, (double)cell->length * cell->batch);
}

static int refuse_method(struct turn *t, size_t m, ca_status status, const char *why, uint32_t round)
{
    struct bench *bench = t->bench;
    leave(t, m);
    return keep_row(bench, new_row(bench, &bench->methods[m], t->cell, round), status == CA_E_MEMORY ? "oom" : "failed", why);
}

/* Which methods have something to do, and whether their memory is there. */
static int admit(struct turn *t)
{
    struct bench *bench = t->bench;
    const uint64_t available = ca_memory_available();
    uint64_t sum = 0;
    int code = EXIT_DONE;
    for (size_t m = 0; m < bench->n_methods && code == EXIT_DONE; m++) {
        char why[WHY];
        uint64_t need = 0;
        t->had[m] = runs_of(bench, &bench->methods[m], t->cell);
        if (t->had[m] >= bench->runs) continue;
        const ca_status status = forecast(bench, &bench->engine, &bench->methods[m], t->cell, &need);
        if (status != CA_OK) {
            snprintf(why, sizeof why, "%s", ca_last_error());
            code = refuse_method(t, m, status, why, bench->warmup);
            continue;
        }
        if (need > available) {
            snprintf(why, sizeof why, "%.1f MiB are needed for %u sessions of %u tokens, %.1f MiB are available",
                     (double)need / 0x1p20, t->cell->batch, t->cell->length, (double)available / 0x1p20);
            code = refuse_method(t, m, CA_E_MEMORY, why, bench->warmup);
            continue;
        }
        sum += need;
        t->sessions[m] = t->memory + m * t->cell->batch;
    }
    t->share = (double)sum <= 0.9 * (double)available;
    return code;
}

struct relay {
    struct bench *bench;
    const struct latency_method *method;
    const struct cell *cell;
};

static void show_progress(void *user, double tokens)
{
    const struct relay *relay = user;
    struct bench *bench = relay->bench;
    progress_update(&bench->progress, bench->done + cost_of(bench, relay->method, relay->cell, tokens), bench->total);
}

static int run_method(struct turn *t, size_t m, uint32_t round)
{
    struct bench *bench = t->bench;
    ca_session_opt opt;
    int code = session_opt(bench, &bench->engine, &bench->methods[m], t->cell, &opt);
    if (code != EXIT_DONE) return code;
    snprintf(bench->label, sizeof bench->label, "%s, %u tokens, batch %u", bench->methods[m].method.name, t->cell->length,
             t->cell->batch);
    struct relay relay = { bench, &bench->methods[m], t->cell };
    const struct latency_job job = { .model = bench->engine.model,
                                     .whole = &bench->whole,
                                     .opt = &opt,
                                     .batch = t->cell->batch,
                                     .length = t->cell->length,
                                     .ids = t->ids,
                                     .sessions = t->sessions[m],
                                     .baseline = t->baseline,
                                     .peak = &t->peak[m],
                                     .user = &relay,
                                     .on_progress = show_progress };
    json_t *row = new_row(bench, &bench->methods[m], t->cell, round);
    const ca_status status = row ? latency_run(&job, row) : CA_E_MEMORY;
    bench->done += whole_cost(bench, &bench->methods[m], t->cell);
    if (status == CA_OK) {
        if (!t->share) drop_sessions(t, m);
        return keep_row(bench, row, "ok", NULL);
    }
    json_decref(row);
    if (status == CA_E_CANCELED) return EXIT_INTERRUPTED;
    char why[WHY];
    snprintf(why, sizeof why, "%s", ca_last_error());
    return refuse_method(t, m, status, why, round);
}

/* All methods take turns in every round, so that a slow moment of the machine hits them alike. */
static int run_rounds(struct turn *t)
{
    struct bench *bench = t->bench;
    const size_t n = bench->n_methods;
    int code = EXIT_DONE;
    bool pending = false;
    for (size_t m = 0; m < n; m++) pending = pending || t->sessions[m];
    if (!pending) return EXIT_DONE;
    t->ids = malloc(sizeof *t->ids * t->cell->length * t->cell->batch);
    if (!t->ids) return fail("no memory for %u prompts of %u tokens", t->cell->batch, t->cell->length);
    for (uint32_t round = 0; round < bench->warmup + bench->runs && code == EXIT_DONE; round++) {
        char why[LATENCY_WHY];
        const bool fresh = round == 0 || bench->input.cycle;
        const char *error = fresh ? latency_prompts(&bench->input, t->cell->length, t->cell->batch, round, t->ids, why) : NULL;
        if (round == 0) t->baseline = latency_resident();
        for (size_t m = 0; m < n && code == EXIT_DONE; m++) {
            if (!t->sessions[m]) continue;
            if (error)
                code = refuse_method(t, m, CA_E_IO, error, round);
            else if (round < bench->warmup || round - bench->warmup >= t->had[m])
                code = run_method(t, m, round);
        }
    }
    return code;
}

static int run_cell(struct bench *bench, const struct cell *cell)
{
    struct turn turn = { .bench = bench, .cell = cell };
    turn.memory = calloc(bench->n_methods * cell->batch, sizeof(ca_session *));
    int code = turn.memory ? admit(&turn) : fail("no memory for %u sessions", cell->batch);
    if (code == EXIT_DONE) code = run_rounds(&turn);
    for (size_t m = 0; m < bench->n_methods; m++) leave(&turn, m);
    free(turn.memory);
    free(turn.ids);
    return code;
}

/* What is left to do in a cell: attention counts as it grows, so that long prompts at the end of the grid do not come as a surprise. */
static double work_of(const struct bench *bench, const struct cell *cell)
{
    double work = 0;
    for (size_t m = 0; m < bench->n_methods; m++) {
        const uint32_t had = runs_of(bench, &bench->methods[m], cell);
        if (had < bench->runs) work += whole_cost(bench, &bench->methods[m], cell) * (bench->warmup + bench->runs - had);
    }
    return work;
}

static int run_grid(struct bench *bench)
{
    struct cell cell;
    int code = EXIT_DONE;
    double before = 0;
    interrupt_catch();
    for (size_t i = 0; next_cell(bench, i, &cell); i++) bench->total += work_of(bench, &cell);
    snprintf(bench->label, sizeof bench->label, "latency");
    progress_begin(&bench->progress, bench->label, progress_style(bench->options->progress, PROGRESS_LINES));
    bench->progress.unit = "GFLOP";
    for (size_t i = 0; code == EXIT_DONE && next_cell(bench, i, &cell); i++) {
        before += work_of(bench, &cell);
        code = run_cell(bench, &cell);
        bench->done = before; /* what a method that failed did not read counts as read */
    }
    progress_end(&bench->progress);
    return code;
}

/* The rows in the order of the grid, whenever they were measured. A new reference. */
static json_t *in_order(const struct bench *bench)
{
    json_t *ordered = json_array(), *row;
    struct cell cell;
    for (size_t i = 0; next_cell(bench, i, &cell); i++) {
        for (size_t m = 0; m < bench->n_methods; m++) {
            size_t r;
            json_array_foreach(bench->rows, r, row) if (is_of(row, &bench->methods[m], &cell)) json_array_append(ordered, row);
        }
    }
    return ordered;
}

static int report(const struct bench *bench)
{
    const struct options *o = bench->options;
    json_t *rows = in_order(bench);
    struct latency_summary *summary = latency_summarize(rows, bench->warmup);
    json_decref(rows); /* bench has them, too */
    if (!summary) return fail("no memory for the summary");
    int code = o->out && latency_summary_lines(summary) > 0 ? latency_write(summary, o->out) : EXIT_DONE;
    if (code == EXIT_DONE && o->json) {
        code = json_print(latency_json(summary));
    } else if (code == EXIT_DONE) {
        const ca_model_info *info = &bench->engine.info;
        printf("%s, %u of %u layers, %s, prompts: %s; x = times as fast as dense\n", info->name, info->n_layers,
               bench->whole.n_layers, bench->engine.kernels, latency_source_name(bench->input.source));
        latency_print(summary, stdout);
    }
    latency_summary_free(summary);
    return code;
}

static int measure(struct bench *bench)
{
    bench->rows = json_array();
    int code = bench->options->out ? begin_folder(bench) : EXIT_DONE;
    if (code != EXIT_DONE) return code;
    code = run_grid(bench);
    if (code == EXIT_INTERRUPTED) note("interrupted%s", bench->options->out ? ": the same command goes on with what is left" : "");
    if (code != EXIT_DONE && code != EXIT_INTERRUPTED) return code;
    const int reported = report(bench);
    if (code != EXIT_DONE || reported != EXIT_DONE) return code != EXIT_DONE ? code : reported;
    return bench->failed ? EXIT_FAILED : EXIT_DONE;
}

static int run(const struct options *options)
{
    struct bench bench = { .options = options };
    int code = check_options(&bench);
    if (code == EXIT_DONE) code = parse_grid(&bench);
    if (code == EXIT_DONE) code = choose_methods(&bench);
    if (code == EXIT_DONE && options->shapes.n > 0) code = find_shape(&bench);
    if (code == EXIT_DONE) code = open_model(&bench);
    if (code == EXIT_DONE) code = open_input(&bench);
    if (code == EXIT_DONE) code = measure(&bench);
    json_decref(bench.rows);
    latency_input_free(&bench.input);
    ca_tokenizer_close(bench.tokenizer);
    engine_close(&bench.engine);
    return code;
}

const struct command command_bench_latency = {
    .name = "bench latency",
    .summary = "Measure prefill over methods, lengths, batches, chunks and threads",
    .synopsis = "-m MODEL | --shape NAME [--mode MODE] [--lengths N,N,..] [--out FOLDER] [OPTIONS]",
    .details =
        "Every point of the grid is measured with all methods in turn. With --out, each run is a line of FOLDER/runs.jsonl as soon as\n"
        "it is done; summary.csv, summary.md and speedup.png follow at the end. The same command on the same folder goes on where a\n"
        "stopped one was. A point that does not fit the memory, or fails, becomes a row that says so; the exit code is then 1.\n\n"
        "End to end is the wall time of reading the prompts, without tokenizing; attention is the time in attention modules: norm, QKV\n"
        "product, RoPE, cache, selection, table, kernel and output product. The kernel alone, select, table, GEMM (all matrix products)\n"
        "and other (the rest) stand beside it; select + table + kernel + GEMM + other is end to end. The figures are means; +- is the\n"
        "population's standard deviation. A batch of B is B sequences held at once, each with its own KV cache: every chunk is read for\n"
        "each of them in turn. Peak memory is that of the process with one method's sequences.\n\n"
        "--mode table compares all methods; --mode quickstart has three methods, one run, and takes less than a minute with the demo's\n"
        "model. Options that are given go before what the mode says.\n\n"
        "--shape takes a model's hyper-parameters without its weights, which are drawn at random: as many of the first layers as fit\n"
        "the memory (--model-layers). Where these are fewer than the model has, columns marked \"all layers\" say what all would take:\n"
        "layers of a kind count alike, embedding and output once. What selectors choose with random weights means nothing. A given\n"
        "share of the past is read by --keep F: rows \"keep=F+compactattn\" read the first page, the last, and others at random, the\n"
        "same for all heads of a KV head, without scoring; the share is rounded to pages, and the dense tail (--dense-tail) comes on\n"
        "top. --alpha 2 --min-budget N pins the pages per head and Q block for\n"
        "flashprefill, whose selection then costs what it costs.\n\n"
        "Examples:\n"
        "  compactattn bench latency -m model.gguf --mode quickstart\n"
        "  compactattn bench latency -m model.gguf --lengths 4096,8192 --batches 1,2 --chunks 512,1024 --out sweep\n"
        "  compactattn bench latency --shape llama-3.1-8b --lengths 8192,32768 --methods dense --keep 0.05,0.1 --out llama",
    .bit = CMD_LATENCY,
    .run = run,
};
