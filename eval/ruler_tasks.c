#include "ruler_tasks.h"

#include "cli/message.h"
#include "ruler_maker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Prompts of the smallest size that are drawn for one sample before it is given up; the published generator goes on forever. */
enum { MAX_TRIES = 100 };

static const struct ruler_family *const families[RULER_TASKS] = {
    &ruler_niah, &ruler_niah, &ruler_niah, &ruler_niah, &ruler_niah, &ruler_niah, &ruler_niah,
    &ruler_niah, &ruler_vt,   &ruler_cwe,  &ruler_fwe,  &ruler_qa,   &ruler_qa,
};

bool maker_upstream(const struct maker *maker)
{
    return maker->job->profile == RULER_UPSTREAM;
}

int maker_fail(const struct maker *maker, const char *what)
{
    return fail("%s at %zu tokens: %s", ruler_tasks[maker->job->task].name, maker->job->length, what);
}

int maker_too_short(const struct maker *maker, const char *why)
{
    if (maker->job->too_short) *maker->job->too_short = why;
    return RULER_TOO_SHORT;
}

int maker_check(const struct maker *maker, const struct prompt *prompt)
{
    return prompt->text.failed || prompt->outputs.failed ? maker_fail(maker, "no memory for the prompt") : EXIT_DONE;
}

int maker_count(const struct maker *maker, const struct text *text, size_t *tokens)
{
    if (maker->job->cancel && *maker->job->cancel) return EXIT_INTERRUPTED;
    return maker->job->counter.count(maker->job->counter.context, text->at ? text->at : "", text->n, tokens);
}

static int compare_numbers(const void *a, const void *b)
{
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

void maker_sort(size_t *numbers, size_t n)
{
    qsort(numbers, n, sizeof *numbers, compare_numbers);
}

void maker_weave(struct text *out, const char *separator, const char *const *sentences, size_t n, const size_t *positions,
                 char *const *items, size_t n_items)
{
    size_t item = 0;
    for (size_t i = 0; i < n; i++) {
        for (; item < n_items && positions[item] == i; item++) {
            text_add(out, items[item]);
            text_add(out, separator);
        }
        text_add(out, sentences[i]);
        if (i + 1 < n) text_add(out, separator);
    }
}

static void clear_prompt(struct prompt *prompt)
{
    text_clear(&prompt->text);
    strings_clear(&prompt->outputs);
}

static void free_prompt(struct prompt *prompt)
{
    text_free(&prompt->text);
    strings_free(&prompt->outputs);
}

/* Tokens of a prompt for sample 0, as the search counts them: the reference appends the answers. */
static int try_size(struct maker *maker, size_t size, struct prompt *prompt, size_t *tokens)
{
    clear_prompt(prompt);
    int code = maker->family->draw(maker, 0, size, prompt);
    if (code == DRAW_AGAIN) return maker_too_short(maker, "the published generator fails at this seed and length");
    if (code == EXIT_DONE && !maker_upstream(maker)) maker->family->add_answers(prompt, &prompt->text);
    if (code == EXIT_DONE) code = maker_check(maker, prompt);
    return code == EXIT_DONE ? maker_count(maker, &prompt->text, tokens) : code;
}

static int find_step_by_step(struct maker *maker, struct prompt *prompt, size_t *found)
{
    const size_t fixed = maker->budget + maker->overhead;
    const struct essay *essay = ruler_tasks[maker->job->task].essay ? maker->job->pool.essay : NULL;
    size_t size = maker->step, tokens = 0;
    while (tokens + fixed < maker->length) {
        const int code = try_size(maker, size, prompt, &tokens);
        if (code != EXIT_DONE) return code;
        if (tokens + fixed > maker->length) {
            size -= maker->step;
            break;
        }
        if (essay && size > essay->n_words) {
            size = essay->n_words;
            break;
        }
        size += maker->step;
        if (maker->pool && size > maker->pool) {
            size = maker->pool;
            break;
        }
    }
    *found = size;
    if (size == 0) return maker_too_short(maker, "too short for the smallest prompt of the task");
    return EXIT_DONE;
}

/* cwe estimates from a large list, and rounds otherwise than the others. */
static int find_by_halves(struct maker *maker, struct prompt *prompt, size_t *found)
{
    const bool words = maker->family == &ruler_cwe;
    const size_t fixed = maker->budget + maker->overhead, first = words ? 4096 : maker->step;
    size_t tokens = 0, low = maker->step, high;
    int code = try_size(maker, first, prompt, &tokens);
    if (code != EXIT_DONE) return code;
    const double each = (double)(tokens ? tokens : 1) / (double)first, length = (double)maker->length;
    high = words ? (size_t)(length / each) * 2 : (size_t)(length / each * 3);
    if (high < 2 * maker->step) high = 2 * maker->step;
    *found = maker->step;
    while (low <= high) {
        const size_t middle = (low + high) / 2;
        tokens = maker->length;
        if (!maker->pool || middle <= maker->pool) code = try_size(maker, middle, prompt, &tokens);
        if (code != EXIT_DONE) return code;
        if (tokens + fixed <= maker->length) {
            *found = middle;
            low = middle + 1;
        } else {
            high = middle - 1;
        }
    }
    return EXIT_DONE;
}

int maker_find(struct maker *maker, size_t *size)
{
    struct prompt prompt = { 0 };
    const int code = maker_upstream(maker) ? find_by_halves(maker, &prompt, size) : find_step_by_step(maker, &prompt, size);
    free_prompt(&prompt);
    return code;
}

/* One prompt with its length in tokens, of prompt and answer. */
static int draw_once(struct maker *maker, size_t index, size_t size, struct prompt *out, size_t *length)
{
    const bool upstream = maker_upstream(maker), finish = maker->family->finish && !maker->example;
    size_t tokens = 0;
    clear_prompt(out);
    int code = maker->family->draw(maker, index, size, out);
    if (code == EXIT_DONE && finish && upstream) code = maker->family->finish(maker, out);
    if (code == EXIT_DONE) code = maker_check(maker, out);
    if (code == EXIT_DONE) code = maker_count(maker, &out->text, &tokens);
    if (code != EXIT_DONE) return code;
    *length = tokens + maker->budget + (upstream ? 0 : maker->overhead);
    if (*length > maker->length) return DRAW_AGAIN;
    return finish && !upstream ? maker->family->finish(maker, out) : EXIT_DONE;
}

int maker_sample(struct maker *maker, size_t index, size_t size, struct prompt *out, size_t *length)
{
    const bool shrinks = maker_upstream(maker) || maker->family != &ruler_vt;
    for (int tries = 0; tries < MAX_TRIES;) {
        const int code = draw_once(maker, index, size, out, length);
        if (code != DRAW_AGAIN) return code == EXIT_DONE ? maker_check(maker, out) : code;
        if (shrinks && size > maker->step)
            size -= maker->step;
        else
            tries++;
    }
    return maker_too_short(maker, "too short, no prompt of the smallest size fits");
}

/* Upstream's rows hold the answer prefix apart, and niah's the place of the answer where the number would be. */
static json_t *upstream_row(const struct maker *maker, size_t index, const struct prompt *prompt, json_t *outputs, size_t length)
{
    char start[11];
    const char *prefix = maker->family->prefix_upstream ? maker->family->prefix_upstream : maker->family->prefix;
    snprintf(start, sizeof start, "%s", prefix);
    const char *cut = NULL, *text = prompt->text.at;
    for (const char *at = text; (at = strstr(at, start)); at++) cut = at;
    if (!cut) cut = text + prompt->text.n - 1; /* what Python's slices make of an index of -1 */
    const size_t n_input = (size_t)(cut - text);
    json_t *row = json_pack("{s:I, s:o, s:o, s:I, s:I, s:s}", "index", (json_int_t)index, "input", json_stringn(text, n_input),
                            "outputs", outputs, "length", (json_int_t)length, "length_w_model_temp", (json_int_t)length,
                            "answer_prefix", cut);
    if (!row || maker->family != &ruler_niah) return row;
    const char *input = json_string_value(json_object_get(row, "input")), *answer = strstr(input, prompt->outputs.items[0]);
    const size_t before = answer ? (size_t)(answer - input) : n_input ? n_input - 1 : 0;
    struct text part = { 0 };
    size_t tokens = 0;
    text_add_bytes(&part, input, before);
    const bool counted = !part.failed && maker_count(maker, &part, &tokens) == EXIT_DONE;
    text_free(&part);
    if (counted && json_object_set_new(row, "index", json_integer(answer ? (json_int_t)text_points(input, before) : -1)) == 0 &&
        json_object_set_new(row, "token_position_answer", json_integer((json_int_t)tokens)) == 0)
        return row;
    json_decref(row);
    return NULL;
}

static json_t *make_row(const struct maker *maker, size_t index, const struct prompt *prompt, size_t length)
{
    json_t *outputs = json_array();
    for (size_t i = 0; i < prompt->outputs.n; i++) json_array_append_new(outputs, json_string(prompt->outputs.items[i]));
    if (maker_upstream(maker)) return upstream_row(maker, index, prompt, outputs, length);
    return json_pack("{s:I, s:o, s:o, s:I}", "index", (json_int_t)index, "input", json_stringn(prompt->text.at, prompt->text.n),
                     "outputs", outputs, "length", (json_int_t)length);
}

static int make_rows(struct maker *maker, int (*take)(void *context, json_t *row), void *context)
{
    const struct ruler_family *family = maker->family;
    struct prompt prompt = { 0 };
    size_t size = 0, length = 0;
    int code = family->prepare ? family->prepare(maker) : EXIT_DONE;
    if (code == EXIT_DONE) code = (family->find ? family->find : maker_find)(maker, &size);
    for (size_t i = 0; i < maker->job->n_samples && code == EXIT_DONE; i++) {
        code = (family->sample ? family->sample : maker_sample)(maker, i, size, &prompt, &length);
        json_t *row = code == EXIT_DONE ? make_row(maker, i, &prompt, length) : NULL;
        if (row)
            code = take(context, row);
        else if (code == EXIT_DONE)
            code = maker_fail(maker, "no memory for a row");
    }
    free_prompt(&prompt);
    return code;
}

int ruler_make_rows(const struct ruler_job *job, int (*take)(void *context, json_t *row), void *context)
{
    struct maker maker = { .job = job, .family = families[job->task], .length = job->length, .step = 10 };
    maker.budget = ruler_tasks[job->task].new_tokens;
    random_seed_python(&maker.python, job->seed);
    random_seed_numpy(&maker.numpy, job->seed);
    const char *slot = strstr(job->wrapper, "{}");
    if (slot) {
        text_add_bytes(&maker.template, job->wrapper, (size_t)(slot - job->wrapper));
        text_add(&maker.template, maker.family->template);
        text_add(&maker.template, slot + 2);
    }
    text_add(&maker.template,
             maker_upstream(&maker) && maker.family->prefix_upstream ? maker.family->prefix_upstream : maker.family->prefix);
    const int code = !slot                   ? maker_fail(&maker, "the wrapper has no {} for the task")
                     : maker.template.failed ? maker_fail(&maker, "no memory for the template")
                                             : make_rows(&maker, take, context);
    text_free(&maker.template);
    text_free(&maker.example_text);
    strings_free(&maker.example_names);
    free(maker.documents);
    return code;
}
