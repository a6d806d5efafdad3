#include "ruler_run.h"

#include "cli/clock.h"
#include "cli/generate.h"
#include "cli/interrupt.h"
#include "cli/message.h"
#include "eval/dataset.h"
#include "eval/ledger.h"
#include "eval/round_trip.h"
#include "eval/ruler_score.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The prompts of a task and length, and which of them each method has answered. */
struct cell {
    size_t length;
    const struct ruler_task *task;
    struct dataset set;
    size_t n_rows;
    bool *answered; /* [n_methods][n_rows] */
    uint32_t **ids; /* [n_rows]; NULL = not to be answered */
    size_t *n_ids;
    size_t longest; /* of n_ids */
};

struct work {
    const struct engine *engine;
    const struct ruler_grid *grid;
    struct cell *cells;
    size_t n_cells;
    char (*names)[RULER_NAME];
    json_t *left_out; /* "4096/vt": rows that do not fit the context; "4096/vt/dense": the memory */
    json_t *data;     /* the data's settings as its manifest has them, without the number of samples, which may grow */
    json_t *holes;    /* "512/vt": why the data has no such file; NULL when it does not say */
    json_t *inputs;   /* "--essay": hash of a file that the data is made from; NULL when it does not say */
    json_t *skipped;  /* those of them that were asked for */
    uint32_t chunk;   /* of the method at work, when a short last one is merged; else 0 */
    struct progress progress;
    char label[RULER_NAME + 64];
    double done, total;           /* tokens of prompts and answers */
    size_t n_left_out, n_missing; /* rows, whole files */
};

void ruler_name(const struct sweep *sweep, char name[RULER_NAME])
{
    snprintf(name, RULER_NAME, "%s%s%s", sweep->method.name, *sweep->setting ? "," : "", sweep->setting);
    for (char *c = name; *c; c++)
        if (*c == '/') *c = '_'; /* of a file name in the setting */
}

void ruler_tell_strangers(const char *folder)
{
    char path[RULER_PATH];
    DIR *dir = snprintf(path, sizeof path, "%s/synthetic", folder) < RULER_PATH ? opendir(path) : NULL;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        const char *name = entry->d_name;
        if (*name == '.' || (*name != '0' && strspn(name, "0123456789") == strlen(name))) continue;
        note("%s/%s: not a length in tokens; it is left out", path, name);
    }
    if (dir) closedir(dir);
}

int ruler_manifest(const char *root, json_t **out)
{
    char path[RULER_PATH];
    json_error_t error;
    *out = NULL;
    if (snprintf(path, sizeof path, "%s/manifest.json", root) >= RULER_PATH) return fail("%s: too long a path", root);
    if (access(path, F_OK) != 0) return EXIT_DONE;
    *out = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    return *out ? EXIT_DONE : fail("%s: line %d: %s", path, error.line, error.text);
}

/* METHOD/synthetic/LENGTH/pred/TASK, the name of a ledger's file. */
static bool answers_name(const struct work *work, size_t method, const struct cell *cell, char name[RULER_PATH])
{
    return snprintf(name, RULER_PATH, "%s/synthetic/%zu/pred/%s", work->names[method], cell->length, cell->task->name) < RULER_PATH;
}

/* ---- what belongs into one folder ---- */

static int read_data_settings(struct work *work)
{
    const char *root = work->grid->data;
    const int code = ruler_manifest(root, &work->data);
    if (code != EXIT_DONE) return code;
    const json_t *told = json_object_get(work->data, "note");
    work->holes = json_incref(json_object_get(told, "skipped"));
    work->inputs = json_incref(json_object_get(told, "inputs"));
    if (!work->data) work->data = json_pack("{s:s}", "generator", "not known");
    json_object_del(work->data, "note");
    json_object_del(work->data, "samples");
    return work->data ? EXIT_DONE : fail("%s: no memory for its settings", root);
}

static int begin_grid(const struct work *work, const char *model_hash)
{
    const struct ruler_grid *grid = work->grid;
    json_t *settings = json_pack("{s:s, s:s, s:s, s:O, s:O*, s:{s:s, s:s, s:s, s:O, s:O}}", "kind", "compactattn eval ruler",
                                 "version", ca_version(), "model", model_hash, "data", work->data, "inputs",
                                 json_object_size(work->inputs) > 0 ? work->inputs : NULL, "note", "model", grid->model,
                                 "model_name", work->engine->info.name, "data", grid->data, "left_out", work->left_out, "skipped",
                                 work->skipped);
    const int code = settings ? ledger_begin(grid->out, settings)
                              : fail("%s: no memory for its manifest, or a path is no UTF-8", grid->out);
    json_decref(settings);
    return code;
}

int ruler_begin_method(const struct engine *engine, const struct sweep *sweep, const char *kind, const char *model_hash,
                       const char *folder)
{
    const struct options *options = &sweep->options;
    char gate[LEDGER_HASH] = "none";
    ca_session_opt opt;
    int code = engine_session_opt(engine, options, &sweep->method, 1, 0, &opt);
    if (code == EXIT_DONE && sweep->method.selector == CA_SELECT_SEER) code = ledger_hash(options->gate, gate);
    if (code != EXIT_DONE) return code;
    if (measure_merges(options) && opt.dense_tail > opt.chunk)
        return usage_error("--dense-tail %u is longer than a chunk of %u: raise --chunk, or give --last-chunk own", opt.dense_tail,
                           opt.chunk);
    json_t *settings = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:s*, s:o, s:{s:{s:f, s:f, s:f}}}", "kind", kind, "version",
                                 ca_version(), "method", sweep->method.name, "model", model_hash, "kernels", engine->kernels,
                                 "threads", engine->n_threads, "gate", gate, "last_chunk", options->last_chunk, "settings",
                                 sweep_settings(ca_model_kern(engine->model), &opt), "note", "cost", "flop", opt.cost.flop,
                                 "page_byte", opt.cost.page_byte, "job", opt.cost.job);
    if (settings && options->extend) json_object_set_new(settings, "extend", json_string(options->extend));
    code = settings ? ledger_begin(folder, settings) : fail("%s: no memory for its manifest", folder);
    json_decref(settings);
    return code;
}

static int begin_method(const struct work *work, size_t m, const char *model_hash)
{
    char folder[RULER_PATH];
    if (snprintf(folder, sizeof folder, "%s/%s", work->grid->out, work->names[m]) >= RULER_PATH)
        return fail("%s/%s: too long a path", work->grid->out, work->names[m]);
    const int code = ruler_begin_method(work->engine, &work->grid->methods[m], "compactattn eval ruler", model_hash, folder);
    return code == EXIT_DONE ? ledger_lock(folder, "run") : code;
}

static int begin(const struct work *work, char model_hash[LEDGER_HASH])
{
    int code = ledger_hash(work->grid->model, model_hash);
    if (code == EXIT_DONE) code = begin_grid(work, model_hash);
    for (size_t m = 0; m < work->grid->n_methods && code == EXIT_DONE; m++) code = begin_method(work, m, model_hash);
    return code;
}

/* ---- what is to be done ---- */

static void hash_input(const struct dataset_row *row, char hash[LEDGER_HASH])
{
    ledger_hash_bytes(row->input, strlen(row->input), hash);
}

/* An estimate before the prompt is read: tokens as the generator counted them. */
static double weight(const struct cell *cell, size_t r)
{
    const struct dataset_row *row = &cell->set.rows[r];
    return (double)cell->task->new_tokens + (row->length > 0 ? (double)row->length : (double)strlen(row->input) / 4);
}

/* Takes an answer of an earlier run into account. It must have been given to the prompt that is there now. */
static int mark_answer(const struct work *work, const struct cell *cell, size_t method, const char *name, const json_t *row)
{
    const json_t *index = json_object_get(row, "index");
    const char *known = json_string_value(json_object_get(row, "input_hash"));
    char hash[LEDGER_HASH];
    for (size_t r = 0; r < cell->n_rows; r++) {
        if (!json_is_integer(index) || json_integer_value(index) != (json_int_t)cell->set.rows[r].index) continue;
        hash_input(&cell->set.rows[r], hash);
        if (!known || strcmp(known, hash) != 0)
            return fail("%s/%s.jsonl: index %zu was answered for another prompt than %s has now: choose another folder",
                        work->grid->out, name, cell->set.rows[r].index, work->grid->data);
        cell->answered[method * cell->n_rows + r] = true;
    }
    return EXIT_DONE;
}

static int read_answers(const struct work *work, const struct cell *cell, size_t method)
{
    char name[RULER_PATH];
    json_t *rows = NULL, *row;
    size_t i;
    if (!answers_name(work, method, cell, name)) return fail("%s: too long a path", work->names[method]);
    int code = ledger_read(work->grid->out, name, &rows);
    json_array_foreach(rows, i, row) if (code == EXIT_DONE) code = mark_answer(work, cell, method, name, row);
    json_decref(rows);
    return code;
}

static bool wanted(const struct work *work, const struct cell *cell, size_t r)
{
    for (size_t m = 0; m < work->grid->n_methods; m++)
        if (!cell->answered[m * cell->n_rows + r]) return true;
    return false;
}

/* What the data's manifest says is skipped is no failure of this run. */
static bool is_hole(struct work *work, const struct cell *cell)
{
    char key[RULER_KEY];
    ruler_key(cell->length, cell->task->name, key);
    json_t *why = json_object_get(work->holes, key);
    if (!json_is_string(why)) return false;
    if (!work->grid->holes_told) note("%s is skipped at %zu tokens: %s", cell->task->name, cell->length, json_string_value(why));
    return json_object_set(work->skipped, key, why) == 0;
}

/* A file that is not there or has no good line leaves the cell empty. */
static int open_cell(struct work *work, struct cell *cell)
{
    char path[RULER_PATH];
    const size_t n_methods = work->grid->n_methods;
    if (!ruler_data_path(work->grid->data, cell->length, cell->task->name, path))
        return fail("%s: too long a path", work->grid->data);
    const bool there = access(path, F_OK) == 0;
    if (!there && is_hole(work, cell)) return EXIT_DONE;
    if (!there) note("%s: is not there; %s is skipped at %zu", path, cell->task->name, cell->length);
    work->n_missing += !there;
    if (!there) return EXIT_DONE;
    if (dataset_read(path, &cell->set) != EXIT_DONE) {
        work->n_left_out++;
        return EXIT_DONE;
    }
    if (cell->set.n_rows < work->grid->n_samples && !work->grid->holes_told)
        note("%s: has %zu of the %zu samples asked for", path, cell->set.n_rows, work->grid->n_samples);
    work->n_left_out += cell->set.n_bad;
    cell->n_rows = cell->set.n_rows < work->grid->n_samples ? cell->set.n_rows : work->grid->n_samples;
    cell->answered = calloc(cell->n_rows * n_methods, sizeof *cell->answered);
    cell->ids = calloc(cell->n_rows, sizeof *cell->ids);
    cell->n_ids = calloc(cell->n_rows, sizeof *cell->n_ids);
    if (!cell->answered || !cell->ids || !cell->n_ids) return fail("%s: no memory for its rows", path);
    for (size_t m = 0; m < n_methods; m++) {
        const int code = read_answers(work, cell, m);
        if (code != EXIT_DONE) return code;
        for (size_t r = 0; r < cell->n_rows; r++) work->total += cell->answered[m * cell->n_rows + r] ? 0 : weight(cell, r);
    }
    return EXIT_DONE;
}

static void free_ids(struct cell *cell)
{
    for (size_t r = 0; cell->ids && r < cell->n_rows; r++) {
        ca_free(cell->ids[r]);
        cell->ids[r] = NULL;
    }
}

static int open_cells(struct work *work)
{
    const struct ruler_grid *grid = work->grid;
    work->cells = calloc(grid->n_lengths * RULER_TASKS, sizeof *work->cells);
    int code = work->cells ? EXIT_DONE : fail("no memory for %zu lengths", grid->n_lengths);
    char path[RULER_PATH];
    size_t n_rows = 0;
    if (code == EXIT_DONE && snprintf(path, sizeof path, "%s/synthetic", grid->data) < RULER_PATH && access(path, F_OK) != 0)
        return fail("%s: holds no prompts (synthetic/LENGTH/data/TASK/validation.jsonl)", grid->data);
    ruler_tell_strangers(grid->data);
    for (size_t l = 0; l < grid->n_lengths; l++) {
        for (size_t t = 0; t < RULER_TASKS && code == EXIT_DONE; t++) {
            if (!(grid->tasks >> t & 1)) continue;
            struct cell *cell = &work->cells[work->n_cells++];
            *cell = (struct cell){ .length = grid->lengths[l], .task = &ruler_tasks[t] };
            code = open_cell(work, cell);
            n_rows += cell->n_rows;
        }
    }
    return code == EXIT_DONE && n_rows == 0 ? fail("%s: has no rows of these tasks and lengths", grid->data) : code;
}

/* ---- answers ---- */

/* Rows that do not fit are told in one line and left out. */
static void tell_too_long(struct work *work, const struct cell *cell, size_t n, size_t first, size_t n_ids, size_t limit)
{
    char path[RULER_PATH] = "", key[RULER_KEY];
    (void)ruler_data_path(work->grid->data, cell->length, cell->task->name, path);
    progress_end(&work->progress);
    note("%s: %zu of %zu prompts do not fit the context of %zu and are left out (index %zu: %zu tokens and %u to write)", path, n,
         cell->n_rows, limit, cell->set.rows[first].index, n_ids, cell->task->new_tokens);
    ruler_key(cell->length, cell->task->name, key);
    json_object_set_new(work->left_out, key, json_integer((json_int_t)n));
    work->n_left_out += n;
}

/* Tokens of the prompts with their answers: as the file has them, and as the model counts them. */
struct counts {
    size_t n; /* rows whose length the file says */
    double said, counted;
    size_t most_said, most;
};

static void count_row(const struct cell *cell, size_t r, struct counts *counts)
{
    const size_t said = cell->set.rows[r].length, counted = cell->n_ids[r] + cell->task->new_tokens;
    if (counted > counts->most) counts->most = counted;
    if (said == 0) return;
    counts->n++;
    counts->said += (double)said;
    counts->counted += (double)counted;
    if (said > counts->most_said) counts->most_said = said;
}

/* Prompts are made for a tokenizer and for the length in their folder's name. Numbers may differ a little: BOS, and the example of vt,
 * are counted otherwise. */
static void tell_counts(struct work *work, const struct cell *cell, const struct counts *counts)
{
    enum { SLACK = 32 };
    char path[RULER_PATH] = "";
    const double n = (double)(counts->n ? counts->n : 1), said = counts->said / n, counted = counts->counted / n;
    const double room = (double)cell->length * 1.01 + SLACK;
    (void)ruler_data_path(work->grid->data, cell->length, cell->task->name, path);
    const bool other = fabs(counted - said) > 0.01 * said + SLACK;
    const bool little = (double)counts->most < 0.45 * (double)cell->length; /* made ones fill four fifths or more */
    if (!other && !little && (double)counts->most <= room && (double)counts->most_said <= room) return;
    progress_end(&work->progress);
    if (other)
        note(
            "%s: made with another tokenizer, it seems: its rows say %.0f tokens on average, this model counts %.0f, at most %zu, in a folder "
            "of %zu",
            path, said, counted, counts->most, cell->length);
    else
        note("%s: made for another length, it seems: up to %zu tokens, in a folder of %zu", path, counts->most, cell->length);
}

/* Told once a file: what is lost in one row is lost in all. */
static void check_text(struct work *work, const struct cell *cell, size_t r)
{
    char path[RULER_PATH] = "", row[32];
    const char *input = cell->set.rows[r].input;
    if (round_trips(work->engine->tokenizer, input, strlen(input), cell->ids[r], cell->n_ids[r])) return;
    (void)ruler_data_path(work->grid->data, cell->length, cell->task->name, path);
    snprintf(row, sizeof row, "index %zu", cell->set.rows[r].index);
    progress_end(&work->progress);
    round_trip_tell(path, row);
}

/* Ids of the prompts that some method has not answered. */
static int tokenize(struct work *work, struct cell *cell)
{
    struct counts counts = { 0 };
    const int64_t asked = work->grid->methods[0].options.context;
    const size_t most = work->engine->info.max_context, limit = asked > 0 && (size_t)asked < most ? (size_t)asked : most;
    size_t n_long = 0, first = 0, first_ids = 0;
    for (size_t r = 0; r < cell->n_rows; r++) {
        const char *input = cell->set.rows[r].input;
        if (!wanted(work, cell, r)) continue;
        const int code = engine_tokenize(work->engine, input, strlen(input), CA_TOK_PARSE_SPECIAL | CA_TOK_ADD_BOS, &cell->ids[r],
                                         &cell->n_ids[r]);
        if (code != EXIT_DONE) return code;
        if (counts.most == 0) check_text(work, cell, r); /* the first row */
        count_row(cell, r, &counts);
        if (cell->n_ids[r] > 0 && cell->n_ids[r] + cell->task->new_tokens <= limit) {
            if (cell->n_ids[r] > cell->longest) cell->longest = cell->n_ids[r];
            continue;
        }
        if (n_long++ == 0) first = r, first_ids = cell->n_ids[r];
        for (size_t m = 0; m < work->grid->n_methods; m++)
            work->total -= cell->answered[m * cell->n_rows + r] ? 0 : weight(cell, r);
        ca_free(cell->ids[r]);
        cell->ids[r] = NULL;
    }
    if (counts.most > 0) tell_counts(work, cell, &counts);
    if (n_long > 0) tell_too_long(work, cell, n_long, first, first_ids, limit);
    return EXIT_DONE;
}

struct relay {
    struct work *work;
    double weight;
};

static void on_progress(void *user, double done, double total)
{
    const struct relay *relay = user;
    if (relay->work->progress.style == PROGRESS_BAR)
        progress_update(&relay->work->progress, relay->work->done + relay->weight * done / total, relay->work->total);
}

void ruler_trim_answer(char *text)
{
    static const char *const marks[] = { "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>" };
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        char *mark = strstr(text, marks[i]);
        if (mark) *mark = '\0';
    }
    ruler_strip(text);
}

static ca_status answer(struct work *work, ca_session *session, const struct cell *cell, size_t r, struct result *result)
{
    ca_sampler greedy = { 0, 1, 0 };
    struct relay relay = { work, weight(cell, r) };
    const ca_prefill_opt opt = { .user = &relay, .on_progress = on_progress, .cancel = &interrupt_flag };
    ca_status status = ca_session_truncate(session, 0);
    const double start = clock_ms();
    if (status == CA_OK) status = measure_merged(session, cell->ids[r], cell->n_ids[r], work->chunk, &opt);
    if (status == CA_OK) status = ca_sample(&greedy, ca_session_logits(session), work->engine->info.vocab, &result->first_token);
    if (status != CA_OK) return status;
    result->ttft_ms = clock_ms() - start;
    measure_stats(session, result);
    status = generate(work->engine, session, &greedy, cell->task->new_tokens, NULL, NULL, result);
    if (status == CA_OK) ruler_trim_answer(result->text);
    return status;
}

static json_t *answer_row(const struct cell *cell, size_t r, const char *name, const ca_session *session,
                          const struct result *result)
{
    const struct dataset_row *of = &cell->set.rows[r];
    ca_session_stats stats;
    ca_session_get_stats(session, &stats);
    char hash[LEDGER_HASH];
    json_t *outputs = json_array();
    hash_input(of, hash);
    for (size_t i = 0; i < of->n_outputs; i++) json_array_append_new(outputs, json_string(of->outputs[i]));
    return json_pack("{s:I, s:o, s:o, s:{}, s:i, s:I, s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "index",
                     (json_int_t)of->index, "outputs", outputs, "pred", json_text(result->text), "others", "truncation", -1,
                     "length", (json_int_t)of->length, "method", name, "input_hash", hash, "prompt_tokens",
                     (json_int_t)cell->n_ids[r], "chunks", (json_int_t)stats.n_chunks, "new_tokens", (json_int_t)result->n_tokens,
                     "prefill_ms", json_number(result->prefill_ms), "attention_ms", json_number(result->attention_ms), "select_ms",
                     json_number(result->select_ms), "ttft_ms", json_number(result->ttft_ms), "kept_fraction",
                     json_number(result->kept_fraction));
}

static int answer_and_keep(struct work *work, ca_session *session, const struct cell *cell, size_t method, size_t r)
{
    char name[RULER_PATH];
    struct result result;
    result_init(&result, &work->grid->methods[method].method);
    const ca_status status = answer(work, session, cell, r, &result);
    int code = EXIT_DONE;
    if (status == CA_E_CANCELED) {
        code = EXIT_INTERRUPTED;
    } else if (status != CA_OK) {
        progress_end(&work->progress);
        code = fail_library(status);
    } else {
        json_t *row = answer_row(cell, r, work->names[method], session, &result);
        (void)answers_name(work, method, cell, name); /* read_answers has checked that it fits */
        code = row ? ledger_append(work->grid->out, name, row) : fail("no memory for an answer");
        work->done += weight(cell, r);
    }
    result_free(&result);
    return code;
}

static size_t count_pending(const struct cell *cell, size_t method)
{
    size_t n = 0;
    for (size_t r = 0; r < cell->n_rows; r++) n += cell->ids[r] && !cell->answered[method * cell->n_rows + r];
    return n;
}

/* A line where no bar is drawn. */
static void tell_done(const struct work *work, size_t n)
{
    const double spent = (clock_ms() - work->progress.started) / 1e3;
    if (work->grid->style == PROGRESS_LINES)
        fprintf(stderr, "%s: %zu answered, %.0f %% of the tokens done, about %.0f s left\n", work->label, n,
                100 * work->done / work->total, spent / work->done * (work->total - work->done));
}

/* n prompts of a cell that a method has no memory for. */
static void leave_out(struct work *work, const struct cell *cell, size_t method, size_t n)
{
    char key[RULER_NAME + RULER_KEY], task[RULER_KEY];
    progress_end(&work->progress);
    note("%s: %zu of %zu prompts are left out", work->label, n, cell->n_rows);
    ruler_key(cell->length, cell->task->name, task);
    snprintf(key, sizeof key, "%s/%s", task, work->names[method]);
    json_object_set_new(work->left_out, key, json_integer((json_int_t)n));
    for (size_t r = 0; r < cell->n_rows; r++)
        work->total -= cell->ids[r] && !cell->answered[method * cell->n_rows + r] ? weight(cell, r) : 0;
    work->n_left_out += n;
}

/* One session for all prompts of the cell, so only one KV cache is there at a time. */
static int run_method(struct work *work, struct cell *cell, size_t method)
{
    const struct sweep *sweep = &work->grid->methods[method];
    const size_t n = count_pending(cell, method);
    ca_session *session = NULL;
    if (n == 0) return EXIT_DONE;
    snprintf(work->label, sizeof work->label, "%zu %s %s", cell->length, cell->task->name, work->names[method]);
    int code = measure_session(work->engine, &sweep->options, &sweep->method, cell->longest, cell->task->new_tokens, &work->chunk,
                               &session);
    if (code == EXIT_DONE && !session) {
        leave_out(work, cell, method, n);
        return EXIT_DONE;
    }
    for (size_t r = 0; r < cell->n_rows && code == EXIT_DONE; r++)
        if (cell->ids[r] && !cell->answered[method * cell->n_rows + r]) code = answer_and_keep(work, session, cell, method, r);
    ca_session_destroy(session);
    if (code == EXIT_DONE) tell_done(work, n);
    return code;
}

/* Methods take turns within a task and length: a slow hour of the machine hits them alike. */
static int run_cells(struct work *work)
{
    int code = EXIT_DONE;
    progress_begin(&work->progress, work->label, work->grid->style);
    for (size_t c = 0; c < work->n_cells && code == EXIT_DONE; c++) {
        struct cell *cell = &work->cells[c];
        code = tokenize(work, cell);
        for (size_t m = 0; m < work->grid->n_methods && code == EXIT_DONE; m++) code = run_method(work, cell, m);
        free_ids(cell);
    }
    progress_end(&work->progress);
    if (code == EXIT_INTERRUPTED) note("%s: stopped; what is answered is kept, and the same command goes on", work->grid->out);
    return code;
}

/* Prompts that an earlier run of the folder left out and that are answered now: 0 are left out. */
static void forget_left_out(struct work *work)
{
    char path[RULER_PATH], task[RULER_KEY], key[RULER_NAME + RULER_KEY];
    if (snprintf(path, sizeof path, "%s/manifest.json", work->grid->out) >= RULER_PATH) return;
    json_t *manifest = json_load_file(path, 0, NULL);
    const json_t *before = json_object_get(json_object_get(manifest, "note"), "left_out");
    for (size_t c = 0; c < work->n_cells; c++) {
        ruler_key(work->cells[c].length, work->cells[c].task->name, task);
        for (size_t m = 0; m <= work->grid->n_methods; m++) {
            if (m < work->grid->n_methods)
                snprintf(key, sizeof key, "%s/%s", task, work->names[m]);
            else
                snprintf(key, sizeof key, "%s", task);
            if (json_object_get(before, key) && !json_object_get(work->left_out, key))
                json_object_set_new(work->left_out, key, json_integer(0));
        }
    }
    json_decref(manifest);
}

int ruler_run(const struct engine *engine, const struct ruler_grid *grid, size_t *n_left_out, size_t *n_missing)
{
    char model_hash[LEDGER_HASH];
    struct work work = { .engine = engine, .grid = grid, .left_out = json_object(), .skipped = json_object() };
    work.names = calloc(grid->n_methods, sizeof *work.names);
    int code = work.names && work.left_out && work.skipped ? EXIT_DONE : fail("no memory for %zu methods", grid->n_methods);
    for (size_t m = 0; work.names && m < grid->n_methods; m++) ruler_name(&grid->methods[m], work.names[m]);
    if (code == EXIT_DONE) code = read_data_settings(&work);
    if (code == EXIT_DONE) code = open_cells(&work); /* before anything is written: with nothing to do, nothing is */
    if (code == EXIT_DONE) code = begin(&work, model_hash);
    if (code == EXIT_DONE) code = run_cells(&work);
    if (code == EXIT_DONE) forget_left_out(&work);
    if (code == EXIT_DONE && json_object_size(work.left_out) + json_object_size(work.skipped) > 0)
        code = begin_grid(&work, model_hash);
    *n_left_out = work.n_left_out;
    *n_missing = work.n_missing;
    for (size_t c = 0; c < work.n_cells; c++) {
        free_ids(&work.cells[c]);
        dataset_free(&work.cells[c].set);
        free(work.cells[c].answered);
        free(work.cells[c].ids);
        free(work.cells[c].n_ids);
    }
    free(work.cells);
    free(work.names);
    json_decref(work.left_out);
    json_decref(work.data);
    json_decref(work.skipped);
    json_decref(work.holes);
    json_decref(work.inputs);
    return code;
}
