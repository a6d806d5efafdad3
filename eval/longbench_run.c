#include "longbench_run.h"

#include "cli/clock.h"
#include "cli/generate.h"
#include "cli/interrupt.h"
#include "cli/message.h"
#include "eval/ledger.h"
#include "eval/longbench_summary.h"
#include "eval/round_trip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIND "compactattn eval longbench"

struct work {
    const struct engine *engine;
    const struct longbench_grid *grid;
    bool *pending; /* [n_items][n_methods]: to be answered */
    char (*names)[RULER_NAME];
    char file[64];    /* of answers in a method's folder, without .jsonl */
    size_t limit;     /* tokens of prompt and answer together */
    size_t published; /* tokens to which prompts are cut, as asked; 0 = never */
    struct progress progress;
    char label[RULER_NAME + LONGBENCH_ID];
    double done, total; /* tokens of prompts and answers */
    size_t n_left_out;
    bool tried; /* whether the tokens of the first prompt give its text back */
};

static bool is_official(const struct options *options)
{
    return strcmp(options->prompt_form, "official") == 0;
}

/* ---- what belongs into one folder ---- */

/* Tokens that are written after the longest prompt of an item: thoughts, or the answer itself. */
static size_t first_budget(const struct options *options)
{
    return (size_t)(options->cot ? options->cot_tokens : options->answer_tokens);
}

/* That the context has room; *limit and *published of the work. */
static int measure_room(struct work *work)
{
    const struct options *options = work->grid->options;
    const size_t context = work->engine->info.max_context;
    const size_t first = first_budget(options), letter = (size_t)options->answer_tokens, most = first > letter ? first : letter;
    work->limit = options->context > 0 && (size_t)options->context < context ? (size_t)options->context : context;
    work->published = is_official(options) ? 120000 : 131072;
    if (most >= work->limit) return fail("the context of %zu tokens has no room for a prompt and %zu to write", work->limit, most);
    if (options->max_length < 0) return EXIT_DONE;
    work->published = (size_t)options->max_length;
    if (work->published > work->limit - first)
        return fail("--max-length %zu: the context of %zu tokens has room for %zu besides the %zu to write (see --extend)",
                    work->published, work->limit, work->limit - first, first);
    return EXIT_DONE;
}

/* Models that read less than the published prompts have are told of once. */
static void tell_room(const struct work *work)
{
    const struct options *options = work->grid->options;
    const size_t room = work->limit - first_budget(options);
    if (work->total > 0 && work->published > room)
        note("prompts are cut to the %zu tokens that the context of %zu has room for, not to the published %zu (see --extend)",
             room, work->limit, work->published);
}

static int begin_grid(const struct work *work, const char *model_hash)
{
    const struct longbench_grid *grid = work->grid;
    const struct options *o = grid->options;
    char data_hash[LEDGER_HASH];
    int code = ledger_hash(o->data, data_hash);
    if (code != EXIT_DONE) return code;
    json_t *settings = json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:b, s:{s:s, s:s, s:s}}", "kind", KIND, "version",
                                 ca_version(), "model", model_hash, "data", data_hash, "prompt", o->prompt_form, "cot", o->cot,
                                 "max_length", (json_int_t)work->published, "context", (json_int_t)work->limit, "max_tokens",
                                 (json_int_t)o->answer_tokens, "clean_spaces", o->clean_spaces, "note", "model", o->model,
                                 "model_name", work->engine->info.name, "data", o->data);
    if (settings && o->cot) json_object_set_new(settings, "cot_tokens", json_integer(o->cot_tokens));
    if (settings && o->chat_template) json_object_set_new(settings, "chat_template", json_text(o->chat_template));
    if (settings && o->thinking) json_object_set_new(settings, "thinking", json_text(o->thinking));
    code = settings ? ledger_begin(o->out, settings) : fail("%s: no memory for its manifest, or a path is no UTF-8", o->out);
    json_decref(settings);
    return code;
}

static int render(const struct work *work, const char *text, char **out, size_t *n)
{
    const ca_message message = { "user", text };
    const struct options *options = work->grid->options;
    const ca_status status = ca_chat_render_as(work->engine->tokenizer, options->chat_template, engine_thinking(options), &message,
                                               1, true, out, n);
    return status == CA_OK ? EXIT_DONE : fail_library(status);
}

static int begin(struct work *work)
{
    const struct longbench_grid *grid = work->grid;
    char model_hash[LEDGER_HASH], folder[RULER_PATH], *rendered = NULL;
    size_t n = 0;
    int code = measure_room(work);
    if (code == EXIT_DONE && is_official(grid->options)) code = render(work, "", &rendered, &n); /* told before any work is done */
    ca_free(rendered);
    if (code == EXIT_DONE) code = ledger_hash(grid->options->model, model_hash);
    if (code == EXIT_DONE) code = begin_grid(work, model_hash);
    for (size_t m = 0; m < grid->n_methods && code == EXIT_DONE; m++) {
        if (snprintf(folder, sizeof folder, "%s/%s", grid->options->out, work->names[m]) >= RULER_PATH)
            code = fail("%s/%s: too long a path", grid->options->out, work->names[m]);
        else
            code = ruler_begin_method(work->engine, &grid->methods[m], KIND, model_hash, folder);
        if (code == EXIT_DONE) code = ledger_lock(folder, work->file);
    }
    return code;
}

/* ---- what is to be done ---- */

static bool listed(const char *list, const char *id)
{
    const size_t length = strlen(id);
    for (const char *at = list; *at; at += strcspn(at, ","), at += *at == ',')
        if (strcspn(at, ",") == length && memcmp(at, id, length) == 0) return true;
    return false;
}

static bool has_label(const struct longbench_item *item, const char *key, const char *wanted)
{
    return !wanted || strcmp(json_string_value(json_object_get(item->labels, key)), wanted) == 0;
}

static bool wanted(const struct longbench_grid *grid, const struct longbench_item *item)
{
    const struct options *options = grid->options;
    return has_label(item, "difficulty", options->difficulty) && has_label(item, "length", options->item_length) &&
           has_label(item, "domain", options->domain) && (!options->ids || listed(options->ids, item->id)) &&
           item->row % grid->n_shards == grid->shard;
}

/* Before anything is written: that there is something to do. */
static int check_wanted(const struct longbench_grid *grid)
{
    const char *ids = grid->options->ids;
    for (const char *at = ids; at && *at; at += strcspn(at, ","), at += *at == ',') {
        const size_t length = strcspn(at, ",");
        size_t i = 0;
        while (i < grid->data->n_items &&
               (strlen(grid->data->items[i].id) != length || memcmp(grid->data->items[i].id, at, length) != 0))
            i++;
        if (i == grid->data->n_items) return fail("--ids: %s has no item %.*s", grid->options->data, (int)length, at);
    }
    for (size_t i = 0; i < grid->data->n_items; i++)
        if (wanted(grid, &grid->data->items[i])) return EXIT_DONE;
    return fail("%s: no item is left to be answered by what is asked for", grid->options->data);
}

/* An estimate before the prompt is read. */
static double weight(const struct work *work, size_t i)
{
    const struct options *options = work->grid->options;
    const double tokens = (double)work->grid->data->items[i].size / 4, most = (double)work->limit;
    return (tokens < most ? tokens : most) + (double)options->answer_tokens + (options->cot ? (double)options->cot_tokens : 0);
}

/* Answers of all shards count: what another one has done need not be done again. */
static int read_answers(struct work *work, size_t method, const json_t *places)
{
    const struct longbench_grid *grid = work->grid;
    char folder[RULER_PATH], id[LONGBENCH_ID];
    struct strings paths = { 0 };
    snprintf(folder, sizeof folder, "%s/%s", grid->options->out, work->names[method]); /* begin has checked that it fits */
    int code = longbench_answers(folder, &paths);
    for (size_t f = 0; f < paths.n && code == EXIT_DONE; f++) {
        json_t *rows = NULL, *row;
        size_t r;
        char *name = paths.items[f] + strlen(folder) + 1;
        name[strlen(name) - strlen(".jsonl")] = '\0';
        code = ledger_read(folder, name, &rows);
        json_array_foreach(rows, r, row)
        {
            const json_t *place = longbench_id(json_object_get(row, "_id"), id) ? json_object_get(places, id) : NULL;
            if (place) work->pending[(size_t)json_integer_value(place) * grid->n_methods + method] = false;
        }
        json_decref(rows);
    }
    strings_free(&paths);
    return code;
}

static int choose(struct work *work)
{
    const struct longbench_grid *grid = work->grid;
    const struct longbench_data *data = grid->data;
    const int64_t limit = grid->options->limit;
    size_t n = 0;
    json_t *places = json_object();
    work->pending = calloc(data->n_items * grid->n_methods, sizeof *work->pending);
    int code = work->pending && places ? EXIT_DONE : fail("no memory for %zu items", data->n_items);
    for (size_t i = 0; i < data->n_items && code == EXIT_DONE; i++) {
        const bool chosen = wanted(grid, &data->items[i]) && (limit < 0 || n < (size_t)limit);
        n += chosen;
        for (size_t m = 0; m < grid->n_methods; m++) work->pending[i * grid->n_methods + m] = chosen;
        json_object_set_new(places, data->items[i].id, json_integer((json_int_t)i));
    }
    for (size_t m = 0; m < grid->n_methods && code == EXIT_DONE; m++) code = read_answers(work, m, places);
    for (size_t i = 0; i < data->n_items * grid->n_methods && code == EXIT_DONE; i++)
        work->total += work->pending[i] ? weight(work, i / grid->n_methods) : 0;
    json_decref(places);
    return code;
}

/* ---- prompts ---- */

struct prompt {
    uint32_t *ids;
    size_t n_ids;
    size_t original; /* tokens before it was cut, without template and BOS */
    bool cut, fits;
};

/* Ids as the model reads them: in its chat template, or after the BOS token that its tokenizer puts first. */
static int encode_turn(const struct work *work, enum longbench_form form, const char *text, size_t size, struct prompt *out)
{
    char *rendered = NULL;
    size_t n = 0;
    if (form == LONGBENCH_REFERENCE)
        return engine_tokenize(work->engine, text, size, CA_TOK_PARSE_SPECIAL | CA_TOK_ADD_BOS, &out->ids, &out->n_ids);
    int code = render(work, text, &rendered, &n);
    if (code == EXIT_DONE) code = engine_tokenize(work->engine, rendered, n, CA_TOK_PARSE_SPECIAL, &out->ids, &out->n_ids);
    ca_free(rendered);
    return code;
}

static int cut_text(const struct work *work, const uint32_t *ids, size_t n, size_t most, struct text *text)
{
    struct text cut = { 0 };
    int code = longbench_add_cut(work->engine->tokenizer, ids, n, most, &cut);
    text_clear(text);
    if (code == EXIT_DONE && work->grid->options->clean_spaces)
        longbench_add_clean(cut.at ? cut.at : "", text);
    else if (code == EXIT_DONE)
        text_add_bytes(text, cut.at ? cut.at : "", cut.n);
    if (code == EXIT_DONE && text->failed) code = fail("no memory for a prompt");
    text_free(&cut);
    return code;
}

/* The published cut; what still does not fit, by template, BOS or tokens that the seam adds, is cut again by as much. */
static int fit(const struct work *work, enum longbench_form form, const uint32_t *ids, size_t n, size_t budget, struct text *text,
               struct prompt *out)
{
    const size_t room = work->limit - budget;
    size_t most = work->published < room ? work->published : room;
    out->cut = work->published > 0 && n > most;
    if (!out->cut) most = n;
    for (;;) {
        int code = out->cut ? cut_text(work, ids, n, most, text) : EXIT_DONE;
        if (code == EXIT_DONE) code = encode_turn(work, form, text->at, text->n, out);
        if (code != EXIT_DONE) return code;
        out->fits = out->n_ids <= room;
        const size_t excess = out->fits ? 0 : out->n_ids - room;
        if (out->fits || work->published == 0 || excess >= most) return EXIT_DONE;
        most -= excess;
        out->cut = true;
        ca_free(out->ids);
        out->ids = NULL;
    }
}

/* Told once: what is lost in one prompt is lost in all. */
static void check_text(struct work *work, const json_t *item, const struct text *text, const uint32_t *ids, size_t n)
{
    char id[LONGBENCH_ID] = "", row[LONGBENCH_ID + 8];
    if (work->tried) return;
    work->tried = true;
    if (round_trips(work->engine->tokenizer, text->at, text->n, ids, n)) return;
    (void)longbench_id(json_object_get(item, "_id"), id);
    snprintf(row, sizeof row, "id %s", id);
    progress_end(&work->progress);
    round_trip_tell(work->grid->options->data, row);
}

static int make_prompt(struct work *work, const json_t *item, enum longbench_form form, const char *thoughts, size_t budget,
                       struct prompt *out)
{
    struct text text = { 0 };
    uint32_t *ids = NULL;
    *out = (struct prompt){ 0 };
    longbench_add_prompt(item, form, thoughts, &text);
    int code = text.failed ? fail("no memory for a prompt") : EXIT_DONE;
    if (code == EXIT_DONE) code = engine_tokenize(work->engine, text.at, text.n, CA_TOK_PARSE_SPECIAL, &ids, &out->original);
    if (code == EXIT_DONE) {
        check_text(work, item, &text, ids, out->original);
        code = fit(work, form, ids, out->original, budget, &text, out);
    }
    ca_free(ids);
    text_free(&text);
    return code;
}

/* ---- answers ---- */

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

/* chunk: as measure_session has set it. */
static ca_status answer(struct work *work, ca_session *session, const struct prompt *prompt, uint32_t chunk, size_t budget,
                        double share, struct result *result)
{
    ca_sampler greedy = { 0, 1, 0 };
    struct relay relay = { work, share };
    const ca_prefill_opt opt = { .user = &relay, .on_progress = on_progress, .cancel = &interrupt_flag };
    const double start = clock_ms();
    ca_status status = measure_merged(session, prompt->ids, prompt->n_ids, chunk, &opt);
    if (status == CA_OK) status = ca_sample(&greedy, ca_session_logits(session), work->engine->info.vocab, &result->first_token);
    if (status != CA_OK) return status;
    result->ttft_ms = clock_ms() - start;
    measure_stats(session, result);
    status = generate(work->engine, session, &greedy, budget, NULL, NULL, result);
    if (status == CA_OK) ruler_trim_answer(result->text);
    return status;
}

/* The answer's text as it is kept; malloc'ed. */
static char *kept_text(const struct work *work, const char *text)
{
    struct text clean = { 0 };
    if (!work->grid->options->clean_spaces) return strdup(text);
    longbench_add_clean(text, &clean);
    if (clean.failed) text_free(&clean);
    return clean.at;
}

/* One prompt with a session of its own: prompts differ too much in length to keep one. *text is malloc'ed; NULL, and told, where the
 * memory is short. */
static int take_turn(struct work *work, size_t method, const struct prompt *prompt, size_t budget, double share,
                     struct result *result, char **text)
{
    const struct sweep *sweep = &work->grid->methods[method];
    ca_session *session = NULL;
    uint32_t chunk = 0;
    *text = NULL;
    const int code = measure_session(work->engine, &sweep->options, &sweep->method, prompt->n_ids, budget, &chunk, &session);
    if (code != EXIT_DONE || !session) return code;
    const ca_status status = answer(work, session, prompt, chunk, budget, share, result);
    ca_session_destroy(session);
    if (status == CA_E_CANCELED) return EXIT_INTERRUPTED;
    if (status != CA_OK) {
        progress_end(&work->progress);
        return fail_library(status);
    }
    *text = kept_text(work, result->text);
    return *text ? EXIT_DONE : fail("no memory for an answer");
}

static json_t *choice_json(int choice)
{
    const char text[] = { (char)choice, '\0' };
    return choice > 0 ? json_string(text) : json_null();
}

struct answered {
    struct result first, second; /* second: after a chain of thought */
    char *thoughts, *response;
};

static json_t *answer_row(const struct longbench_item *item, const char *method, const struct prompt *prompt,
                          const struct answered *answered)
{
    const struct result *result = &answered->first;
    const int published = longbench_choice(answered->response, false), official = longbench_choice(answered->response, true);
    const size_t n_tokens = result->n_tokens + answered->second.n_tokens;
    struct longbench_labels labels;
    json_t *row = json_deep_copy(item->labels);
    (void)longbench_read_labels(item->labels, &labels); /* they were read before */
    json_t *more = published < 0 || official < 0
                       ? NULL
                       : json_pack("{s:o, s:b, s:o, s:I, s:b, s:o, s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "pred_answer",
                                   choice_json(published), "judge", published == labels.answer, "response",
                                   json_text(answered->response), "original_prompt_tokens", (json_int_t)prompt->original,
                                   "truncated", prompt->cut, "pred_official", choice_json(official), "method", method,
                                   "prompt_tokens", (json_int_t)prompt->n_ids, "new_tokens", (json_int_t)n_tokens, "prefill_ms",
                                   json_number(result->prefill_ms), "attention_ms", json_number(result->attention_ms), "select_ms",
                                   json_number(result->select_ms), "ttft_ms", json_number(result->ttft_ms), "kept_fraction",
                                   json_number(result->kept_fraction));
    if (more && answered->thoughts) json_object_set_new(more, "response_cot", json_text(answered->thoughts));
    const bool done = row && more && json_object_update(row, more) == 0;
    json_decref(more);
    if (done) return row;
    json_decref(row);
    return NULL;
}

/* The letter after a chain of thought: a prompt of its own, without the context. */
static int ask_for_letter(struct work *work, const json_t *item, size_t method, struct answered *answered)
{
    const size_t budget = (size_t)work->grid->options->answer_tokens;
    struct prompt prompt;
    int code = make_prompt(work, item, LONGBENCH_COT_ANSWER, answered->thoughts, budget, &prompt);
    if (code == EXIT_DONE && !prompt.fits)
        code = fail("%s: the thoughts do not fit the context of %zu: give fewer --cot-tokens", work->label, work->limit);
    if (code == EXIT_DONE) code = take_turn(work, method, &prompt, budget, 0, &answered->second, &answered->response);
    ca_free(prompt.ids);
    return code;
}

static int answer_and_keep(struct work *work, const struct longbench_item *item, const json_t *json, const struct prompt *prompt,
                           size_t budget, size_t method, double share)
{
    const struct longbench_grid *grid = work->grid;
    struct answered answered = { .thoughts = NULL, .response = NULL };
    result_init(&answered.first, &grid->methods[method].method);
    result_init(&answered.second, &grid->methods[method].method);
    snprintf(work->label, sizeof work->label, "%s %s", item->id, work->names[method]);
    int code = take_turn(work, method, prompt, budget, share, &answered.first,
                         grid->options->cot ? &answered.thoughts : &answered.response);
    if (code == EXIT_DONE && answered.thoughts) code = ask_for_letter(work, json, method, &answered);
    if (code == EXIT_DONE && !answered.response) {
        progress_end(&work->progress);
        note("%s: is left out", work->label);
        work->n_left_out++;
        work->total -= share;
    } else if (code == EXIT_DONE) {
        char folder[RULER_PATH];
        json_t *row = answer_row(item, work->names[method], prompt, &answered);
        snprintf(folder, sizeof folder, "%s/%s", grid->options->out, work->names[method]);
        code = row ? ledger_append(folder, work->file, row) : fail("no memory for an answer");
        work->done += share;
    }
    result_free(&answered.first);
    result_free(&answered.second);
    free(answered.thoughts);
    free(answered.response);
    return code;
}

/* A line where no bar is drawn. */
static void tell_done(const struct work *work, const struct longbench_item *item)
{
    const double spent = (clock_ms() - work->progress.started) / 1e3;
    if (work->grid->style == PROGRESS_LINES)
        fprintf(stderr, "%s: answered, %.0f %% of the tokens done, about %.0f s left\n", item->id, 100 * work->done / work->total,
                spent / work->done * (work->total - work->done));
}

static void leave_out(struct work *work, size_t i, const struct prompt *prompt, size_t budget)
{
    const struct longbench_grid *grid = work->grid;
    progress_end(&work->progress);
    note("%s: id %s: %zu tokens and %zu to write do not fit the context of %zu; it is left out", grid->options->data,
         grid->data->items[i].id, prompt->n_ids, budget, work->limit);
    for (size_t m = 0; m < grid->n_methods; m++) work->total -= work->pending[i * grid->n_methods + m] ? weight(work, i) : 0;
    work->n_left_out++;
}

/* Methods take turns item by item: a slow hour of the machine hits them alike. */
static int run_item(struct work *work, size_t i)
{
    const struct longbench_grid *grid = work->grid;
    const struct options *options = grid->options;
    const struct longbench_item *item = &grid->data->items[i];
    const enum longbench_form form = options->cot ? LONGBENCH_COT : is_official(options) ? LONGBENCH_OFFICIAL : LONGBENCH_REFERENCE;
    const size_t budget = first_budget(options);
    const double before = work->done;
    const bool *pending = work->pending + i * grid->n_methods;
    struct prompt prompt = { 0 };
    size_t n = 0;
    for (size_t m = 0; m < grid->n_methods; m++) n += pending[m];
    if (n == 0) return EXIT_DONE;
    json_t *json = json_loadb(item->json, item->size, JSON_DISABLE_EOF_CHECK, NULL);
    int code = json ? make_prompt(work, json, form, NULL, budget, &prompt) : fail("no memory for item %s", item->id);
    if (code == EXIT_DONE && !prompt.fits) {
        leave_out(work, i, &prompt, budget);
    } else if (code == EXIT_DONE) {
        for (size_t m = 0; m < grid->n_methods && code == EXIT_DONE; m++)
            if (pending[m]) code = answer_and_keep(work, item, json, &prompt, budget, m, weight(work, i));
        if (code == EXIT_DONE && work->done > before) tell_done(work, item);
    }
    ca_free(prompt.ids);
    json_decref(json);
    return code;
}

static int run_items(struct work *work)
{
    int code = EXIT_DONE;
    tell_room(work);
    progress_begin(&work->progress, work->label, work->grid->style);
    for (size_t i = 0; i < work->grid->data->n_items && code == EXIT_DONE; i++)
        code = interrupt_flag ? EXIT_INTERRUPTED : run_item(work, i);
    progress_end(&work->progress);
    if (code == EXIT_INTERRUPTED)
        note("%s: stopped; what is answered is kept, and the same command goes on", work->grid->options->out);
    return code;
}

int longbench_run(const struct engine *engine, const struct longbench_grid *grid, size_t *n_left_out)
{
    struct work work = { .engine = engine, .grid = grid };
    if (grid->n_shards > 1)
        snprintf(work.file, sizeof work.file, "pred.%zu-of-%zu", grid->shard, grid->n_shards);
    else
        snprintf(work.file, sizeof work.file, "pred");
    work.names = calloc(grid->n_methods, sizeof *work.names);
    int code = work.names ? EXIT_DONE : fail("no memory for %zu methods", grid->n_methods);
    for (size_t m = 0; work.names && m < grid->n_methods; m++) ruler_name(&grid->methods[m], work.names[m]);
    if (code == EXIT_DONE) code = check_wanted(grid);
    if (code == EXIT_DONE) code = begin(&work);
    if (code == EXIT_DONE) code = choose(&work);
    if (code == EXIT_DONE) code = run_items(&work);
    *n_left_out = work.n_left_out;
    free(work.pending);
    free(work.names);
    return code;
}
