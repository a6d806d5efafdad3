#include "longbench_data.h"

#include "cli/file.h"
#include "cli/message.h"
#include "eval/ruler_score.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- prompts ---- */

enum { N_FIELDS = 6 };

static const char *const fields[N_FIELDS] = { "context", "question", "choice_A", "choice_B", "choice_C", "choice_D" };

#define QUESTION                                                                                                                   \
    "What is the correct answer to this question: {question}\nChoices:\n(A) {choice_A}\n(B) {choice_B}\n(C) {choice_C}\n"          \
    "(D) {choice_D}\n"
#define FORMAT "Format your response as follows: \"The correct answer is (insert answer here)\"."
#define STEPS "Let\xe2\x80\x99s think step by step:"
#define TEXT "<text>\n{context}\n</text>\n\n"

static const char *const forms[] = {
    [LONGBENCH_REFERENCE] = "Please read the following text and answer the question below.\n\n{context}\n\n" QUESTION FORMAT,
    [LONGBENCH_OFFICIAL] = "Please read the following text and answer the question below.\n\n" TEXT QUESTION "\n" FORMAT,
    [LONGBENCH_COT] = "Please read the following text and answer the questions below.\n\n" TEXT QUESTION "\n" STEPS,
    [LONGBENCH_COT_ANSWER] = "Please read the following text and answer the questions below.\n\nThe text is too long and omitted "
                             "here.\n\n" QUESTION "\n" STEPS " {thoughts}\n\nBased on the above, what is the single, most likely "
                             "answer choice? " FORMAT,
};

void longbench_add_prompt(const json_t *item, enum longbench_form form, const char *thoughts, struct text *text)
{
    struct text_field filled[N_FIELDS + 2] = { [N_FIELDS] = { "thoughts", thoughts } };
    char *stripped[N_FIELDS];
    for (size_t i = 0; i < N_FIELDS; i++) {
        const char *field = json_string_value(json_object_get(item, fields[i]));
        stripped[i] = strdup(field ? field : "");
        if (stripped[i]) ruler_strip(stripped[i]);
        filled[i] = (struct text_field){ fields[i], stripped[i] ? stripped[i] : "" };
        text->failed |= !stripped[i];
    }
    text_add_filled(text, forms[form], filled);
    for (size_t i = 0; i < N_FIELDS; i++) free(stripped[i]);
}

int longbench_add_cut(const ca_tokenizer *tokenizer, const uint32_t *ids, size_t n, size_t most, struct text *text)
{
    const size_t first = most / 2, cap = ca_tokenizer_max_piece(tokenizer) + 8;
    ca_detokenizer decoder = { 0 };
    char *piece = malloc(cap);
    size_t length = 0;
    ca_status status = CA_OK;
    if (!piece) return fail("no memory for the text of a token");
    for (size_t i = 0; i < n && status == CA_OK; i++) {
        if (n > most && i == first) i += n - most;
        if (i == n) break;
        status = ca_detokenize(tokenizer, &decoder, ids[i], false, piece, cap, &length);
        if (status == CA_OK) text_add_bytes(text, piece, length);
    }
    if (status == CA_OK) status = ca_detokenize_end(&decoder, piece, cap, &length);
    if (status == CA_OK) text_add_bytes(text, piece, length);
    free(piece);
    if (status != CA_OK) return fail_library(status);
    return text->failed ? fail("no memory for a prompt") : EXIT_DONE;
}

void longbench_add_clean(const char *in, struct text *text)
{
    static const char *const pairs[][2] = { { " .", "." },     { " ?", "?" },     { " !", "!" },   { " ,", "," },
                                            { " ' ", "'" },    { " n't", "n't" }, { " 'm", "'m" }, { " 's", "'s" },
                                            { " 've", "'ve" }, { " 're", "'re" } };
    struct text now = { 0 };
    text_add(&now, in);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct text next = { 0 };
        if (!now.failed) text_add_replaced(&next, now.at, pairs[i][0], pairs[i][1]);
        next.failed |= now.failed;
        text_free(&now);
        now = next;
    }
    if (now.failed)
        text->failed = true;
    else
        text_add_bytes(text, now.at, now.n);
    text_free(&now);
}

/* ---- the file ---- */

struct reading {
    const char *path;
    struct longbench_data *out;
    size_t cap, row;
    bool array;
    json_t *places; /* id: line, or index of the array */
    char why[64];
};

static const char *add_item(struct reading *reading, const json_t *json, const char *at, size_t size, const char *id, size_t place)
{
    struct longbench_data *out = reading->out;
    const char *sub_domain = json_string_value(json_object_get(json, "sub_domain"));
    if (out->n_items == reading->cap) {
        const size_t cap = 2 * reading->cap + 64;
        struct longbench_item *items = realloc(out->items, cap * sizeof *items);
        if (!items) return "no memory for the item";
        out->items = items;
        reading->cap = cap;
    }
    struct longbench_item item = { .row = reading->row, .json = at, .size = size };
    snprintf(item.id, sizeof item.id, "%s", id);
    item.labels = json_pack("{s:s, s:O, s:s, s:O, s:O, s:O}", "_id", id, "domain", json_object_get(json, "domain"), "sub_domain",
                            sub_domain ? sub_domain : "", "difficulty", json_object_get(json, "difficulty"), "length",
                            json_object_get(json, "length"), "answer", json_object_get(json, "answer"));
    if (!item.labels || json_object_set_new(reading->places, id, json_integer((json_int_t)place)) != 0) {
        json_decref(item.labels);
        return "no memory for the item";
    }
    out->items[out->n_items++] = item;
    return NULL;
}

/* Why the item cannot be used, NULL when it was added. id is for messages, too; empty when it has none. */
static const char *take_item(struct reading *reading, const json_t *json, const char *at, size_t size, size_t place,
                             char id[LONGBENCH_ID])
{
    struct longbench_labels labels;
    *id = '\0';
    if (!json_is_object(json)) return "not a JSON object";
    const json_t *named = json_object_get(json, "_id");
    if (!named || json_is_null(named)) named = json_object_get(json, "id");
    if (!named || json_is_null(named))
        snprintf(id, LONGBENCH_ID, "%zu", reading->row);
    else if (!longbench_id(named, id))
        return "\"_id\" is neither a short text nor a whole number";
    const json_t *before = json_object_get(reading->places, id);
    if (before) {
        snprintf(reading->why, sizeof reading->why, "the id came before, at %s %lld", reading->array ? "index" : "line",
                 (long long)json_integer_value(before));
        return reading->why;
    }
    for (size_t i = 0; i < N_FIELDS; i++) {
        if (json_is_string(json_object_get(json, fields[i]))) continue;
        snprintf(reading->why, sizeof reading->why, "no text \"%s\"", fields[i]);
        return reading->why;
    }
    const char *why = longbench_read_labels(json, &labels);
    return why ? why : add_item(reading, json, at, size, id, place);
}

/* json NULL: broken says why. */
static void take(struct reading *reading, const json_t *json, const char *broken, const char *at, size_t size, size_t place)
{
    char id[LONGBENCH_ID] = "";
    const char *why = json ? take_item(reading, json, at, size, place, id) : broken;
    if (why) {
        note("%s: %s %zu: %s%s%s%s; it is left out", reading->path, reading->array ? "index" : "line", place, *id ? "id " : "", id,
             *id ? ": " : "", why);
        reading->out->n_bad++;
    }
    reading->row++;
}

static int read_lines(struct reading *reading, const char *at, const char *last)
{
    for (size_t line = 1; at < last; line++) {
        const char *end = memchr(at, '\n', (size_t)(last - at));
        if (!end) end = last;
        if (strspn(at, " \t\r") < (size_t)(end - at)) { /* not empty */
            json_error_t error;
            json_t *json = json_loadb(at, (size_t)(end - at), JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
            take(reading, json, error.text, at, (size_t)(end - at), line);
            json_decref(json);
        }
        at = end + (end < last);
    }
    return EXIT_DONE;
}

static int broken_array(const struct reading *reading, const char *at, const char *why)
{
    size_t line = 1;
    for (const char *c = reading->out->text; c < at; c++) line += *c == '\n';
    return fail("%s: line %zu: %s: the array cannot be read on; repair it, or make it one item a line", reading->path, line, why);
}

static const char *skip_blanks(const char *at)
{
    return at + strspn(at, " \t\r\n");
}

/* Behind the object that starts at `at`, whatever is wrong inside; NULL: there is none, or it does not end. */
static const char *object_end(const char *at, const char *last)
{
    size_t depth = 0;
    bool quoted = false;
    for (; at < last && (*at == '{' || depth > 0); at++) {
        if (quoted && *at == '\\' && at + 1 < last) {
            at++;
        } else if (*at == '"') {
            quoted = !quoted;
        } else if (!quoted) {
            depth += *at == '{';
            depth -= *at == '}';
            if (depth == 0) return at + 1;
        }
    }
    return NULL;
}

/* Item by item, so that only one is in memory twice. An item that cannot be read is left out where its end is plain. at is behind the
 * "[". */
static int read_array(struct reading *reading, const char *at, const char *last)
{
    reading->array = true;
    at = skip_blanks(at);
    while (at < last && (*at != ']' || reading->row > 0)) {
        json_error_t error;
        json_t *json = json_loadb(at, (size_t)(last - at), JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK,
                                  &error);
        size_t size = error.position > 0 ? (size_t)error.position : 0;
        const char *end = json ? NULL : object_end(at, last);
        if (!json && !end) return broken_array(reading, size < (size_t)(last - at) ? at + size : last, error.text);
        if (end) size = (size_t)(end - at);
        take(reading, json, error.text, at, size, reading->row);
        json_decref(json);
        at = skip_blanks(at + size);
        if (at < last && *at == ']') break;
        if (at == last || *at != ',') return broken_array(reading, at, "\",\" or \"]\" is missing");
        at = skip_blanks(at + 1);
    }
    if (at == last) return broken_array(reading, at, "the file ends inside the array");
    at = skip_blanks(at + 1);
    return at == last ? EXIT_DONE : broken_array(reading, at, "there is more behind the array");
}

int longbench_read(const char *path, struct longbench_data *out)
{
    struct reading reading = { .path = path, .out = out, .places = json_object() };
    char why[FILE_WHY];
    size_t size = 0;
    *out = (struct longbench_data){ 0 };
    int code = reading.places ? EXIT_DONE : fail("%s: no memory for its items", path);
    if (code == EXIT_DONE && !file_read(path, &out->text, &size, why)) code = fail("%s: %s", path, why);
    if (code == EXIT_DONE) {
        const char *at = skip_blanks(out->text), *last = out->text + size;
        code = *at == '[' ? read_array(&reading, at + 1, last) : read_lines(&reading, out->text, last);
    }
    if (code == EXIT_DONE && out->n_items == 0) code = fail("%s: no item can be used", path);
    json_decref(reading.places);
    return code;
}

void longbench_data_free(struct longbench_data *data)
{
    for (size_t i = 0; i < data->n_items; i++) json_decref(data->items[i].labels);
    free(data->items);
    free(data->text);
    *data = (struct longbench_data){ 0 };
}
