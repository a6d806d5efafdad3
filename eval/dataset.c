#include "dataset.h"

#include "cli/file.h"
#include "cli/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOLD = 5 }; /* bad lines of a file that are told one by one */

/* Looks at the line only: under a sanitizer, strspn reads all that follows it. */
static bool is_blank(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r')) at++;
    return at == end;
}

int dataset_lines(const char *path, const char *(*take)(void *user, size_t line, const json_t *row), void *user, size_t *n_bad)
{
    char why[FILE_WHY], *text = NULL;
    size_t size = 0, line = 0;
    *n_bad = 0;
    if (!file_read(path, &text, &size, why)) return fail("%s: %s", path, why);
    for (const char *at = text, *const last = text + size; at < last;) {
        const char *end = memchr(at, '\n', (size_t)(last - at));
        if (!end) end = last;
        line++;
        if (!is_blank(at, end)) {
            json_error_t error;
            json_t *row = json_loadb(at, (size_t)(end - at), JSON_REJECT_DUPLICATES, &error);
            const char *reason = !row ? error.text : !json_is_object(row) ? "not a JSON object" : take(user, line, row);
            if (reason && ++*n_bad <= TOLD) note("%s: line %zu: %s; it is left out", path, line, reason);
            json_decref(row);
        }
        at = end + (end < last);
    }
    if (*n_bad > TOLD) note("%s: %zu more such lines are left out", path, *n_bad - TOLD);
    free(text);
    return EXIT_DONE;
}

bool dataset_strings(const json_t *row, const char *key, const char ***out, size_t *n)
{
    const json_t *array = json_object_get(row, key);
    *n = json_array_size(array);
    *out = *n > 0 ? calloc(*n, sizeof **out) : NULL;
    for (size_t i = 0; *out && i < *n; i++) {
        (*out)[i] = json_string_value(json_array_get(array, i));
        if ((*out)[i]) continue;
        free(*out);
        *out = NULL;
    }
    return *out;
}

enum { INDEX_KEY = 24 }; /* bytes */

static const char *index_key(size_t index, char key[INDEX_KEY])
{
    snprintf(key, INDEX_KEY, "%zu", index);
    return key;
}

bool dataset_knows(const json_t *seen, size_t index)
{
    char key[INDEX_KEY];
    return json_object_get(seen, index_key(index, key));
}

bool dataset_remember(json_t *seen, size_t index)
{
    char key[INDEX_KEY];
    return json_object_set_new(seen, index_key(index, key), json_true()) == 0;
}

struct reading {
    struct dataset *out;
    json_t *seen;
    size_t cap;
    char why[64];
};

static void free_row(struct dataset_row *row)
{
    for (size_t i = 0; row->outputs && i < row->n_outputs; i++) free(row->outputs[i]);
    free(row->outputs);
    free(row->input);
}

static bool copy_outputs(const json_t *row, struct dataset_row *out)
{
    const char **texts = NULL;
    if (!dataset_strings(row, "outputs", &texts, &out->n_outputs)) return false;
    out->outputs = calloc(out->n_outputs, sizeof *out->outputs);
    bool copied = out->outputs;
    for (size_t i = 0; copied && i < out->n_outputs; i++) copied = (out->outputs[i] = strdup(texts[i]));
    free(texts);
    return copied;
}

/* Upstream's rows have their answer's start in a field of its own, and an index that may be a position in the text. */
static const char *take_row(void *user, size_t line, const json_t *row)
{
    struct reading *reading = user;
    struct dataset *out = reading->out;
    const json_t *index = json_object_get(row, "index"), *length = json_object_get(row, "length");
    const char *input = json_string_value(json_object_get(row, "input"));
    const char *prefix = json_string_value(json_object_get(row, "answer_prefix"));
    if (!input || !*input) return "no text \"input\"";
    if (!prefix && (!json_is_integer(index) || json_integer_value(index) < 0)) return "no whole number \"index\"";
    struct dataset_row one = { .index = prefix ? line - 1 : (size_t)json_integer_value(index) };
    if (dataset_knows(reading->seen, one.index)) {
        snprintf(reading->why, sizeof reading->why, "index %zu is there already", one.index);
        return reading->why;
    }
    if (json_integer_value(length) > 0) one.length = (size_t)json_integer_value(length);
    if (out->n_rows == reading->cap) {
        const size_t cap = 2 * reading->cap + 64;
        struct dataset_row *rows = realloc(out->rows, cap * sizeof *rows);
        if (!rows) return "no memory for the row";
        out->rows = rows;
        reading->cap = cap;
    }
    const size_t n_input = strlen(input), n_prefix = prefix ? strlen(prefix) : 0;
    const bool has_outputs = copy_outputs(row, &one);
    one.input = has_outputs ? malloc(n_input + n_prefix + 1) : NULL;
    if (!one.input || !dataset_remember(reading->seen, one.index)) {
        free_row(&one);
        return has_outputs ? "no memory for the row" : "no list of texts \"outputs\"";
    }
    memcpy(one.input, input, n_input);
    if (prefix) memcpy(one.input + n_input, prefix, n_prefix);
    one.input[n_input + n_prefix] = '\0';
    out->rows[out->n_rows++] = one;
    return NULL;
}

int dataset_read(const char *path, struct dataset *out)
{
    struct reading reading = { .out = out, .seen = json_object() };
    *out = (struct dataset){ 0 };
    const int code = dataset_lines(path, take_row, &reading, &out->n_bad);
    json_decref(reading.seen);
    if (code == EXIT_DONE && out->n_rows == 0)
        return fail("%s: %s", path, out->n_bad > 0 ? "no line can be used" : "holds no rows");
    return code;
}

void dataset_free(struct dataset *dataset)
{
    for (size_t i = 0; i < dataset->n_rows; i++) free_row(&dataset->rows[i]);
    free(dataset->rows);
    *dataset = (struct dataset){ 0 };
}
