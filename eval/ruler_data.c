#include "ruler_data.h"

#include "cli/file.h"
#include "cli/message.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { MAX_ESSAY = 1 << 28 };

bool essay_path(const char *path, char *found, size_t cap)
{
    if (!path) return file_find_data("ruler/essay.txt.gz", found, cap);
    return (size_t)snprintf(found, cap, "%s", path) < cap;
}

static int read_unpacked(const char *path, struct text *out)
{
    char block[1 << 14];
    errno = 0;
    gzFile file = gzopen(path, "rb");
    if (!file) return fail("%s: %s", path, errno ? strerror(errno) : "no memory to read it");
    int n;
    while ((n = gzread(file, block, sizeof block)) > 0 && out->n < MAX_ESSAY) text_add_bytes(out, block, (size_t)n);
    const bool broken = n < 0;
    gzclose(file);
    if (broken) return fail("%s: cannot be read, or is a broken gzip file", path);
    if (n > 0 || out->failed) return fail("%s: longer than %d MiB", path, MAX_ESSAY >> 20);
    if (!out->at || out->n == 0) return fail("%s: is empty", path);
    json_t *checked = json_stringn(out->at, out->n);
    const bool is_text = checked && !memchr(out->at, 0, out->n);
    json_decref(checked);
    return is_text ? EXIT_DONE : fail("%s: is no UTF-8 text", path);
}

/* The published form: {"text": "..."}. */
static int unwrap_json(const char *path, struct text *text)
{
    json_error_t error;
    if (!text->at || text->at[strspn(text->at, " \t\r\n")] != '{') return EXIT_DONE;
    json_t *root = json_loadb(text->at, text->n, 0, &error);
    if (!root) return fail("%s: line %d: %s", path, error.line, error.text);
    const char *string = json_string_value(json_object_get(root, "text"));
    text_clear(text);
    if (string) text_add(text, string);
    json_decref(root);
    return string ? EXIT_DONE : fail("%s: the key \"text\" is missing or no string", path);
}

int essay_read(const char *path, struct essay *out)
{
    char found[1024];
    struct text raw = { 0 };
    *out = (struct essay){ 0 };
    if (!essay_path(path, found, sizeof found))
        return fail("data/ruler/essay.txt.gz is missing: it belongs to the installation; --essay FILE names another text");
    int code = read_unpacked(found, &raw);
    if (code == EXIT_DONE) code = unwrap_json(found, &raw);
    if (code == EXIT_DONE && raw.at) text_add_collapsed(&out->text, raw.at);
    text_free(&raw);
    if (code != EXIT_DONE) return code;
    out->ends = malloc((out->text.n + 1) * sizeof *out->ends);
    if (out->text.failed || !out->ends) {
        essay_free(out);
        return fail("%s: no memory for the essay", found);
    }
    for (size_t i = 0; i < out->text.n; i++) {
        if (out->text.at[i] == ' ') out->ends[out->n_words++] = i;
    }
    out->ends[out->n_words++] = out->text.n;
    return EXIT_DONE;
}

void essay_free(struct essay *essay)
{
    text_free(&essay->text);
    free(essay->ends);
    *essay = (struct essay){ 0 };
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The number of a document in the sorted list, which has it. */
static size_t find_document(const struct questions *questions, const char *text)
{
    const char **found = bsearch(&text, questions->documents, questions->n_documents, sizeof text, by_text);
    return (size_t)(found - questions->documents);
}

/* The documents of texts, sorted and each once; room for n_questions. */
static int index_documents(const char *path, struct questions *questions, size_t n_questions)
{
    const size_t n = questions->texts.n;
    questions->items = calloc(n_questions ? n_questions : 1, sizeof *questions->items);
    questions->documents = malloc((n ? n : 1) * sizeof *questions->documents);
    if (!questions->items || !questions->documents || questions->texts.failed) return fail("%s: no memory for it", path);
    for (size_t i = 0; i < n; i++) questions->documents[i] = questions->texts.items[i];
    qsort(questions->documents, n, sizeof *questions->documents, by_text);
    for (size_t i = 0; i < n; i++) {
        if (i && strcmp(questions->documents[questions->n_documents - 1], questions->documents[i]) == 0) continue;
        questions->documents[questions->n_documents++] = questions->documents[i];
    }
    return EXIT_DONE;
}

/* One more question; NULL when there is no memory. */
static struct question *add_question(struct questions *questions, const char *query, size_t n_own, size_t n_more)
{
    struct question *question = &questions->items[questions->n++];
    question->query = query;
    question->own = malloc((n_own ? n_own : 1) * sizeof *question->own);
    question->more = malloc((n_more ? n_more : 1) * sizeof *question->more);
    return question->own && question->more ? question : NULL;
}

/* The array or string at keys of value, a member of what the message calls where and index. NULL after a message. */
static const json_t *member(const char *path, const json_t *value, const char *key, json_type type, const char *where, size_t index)
{
    const json_t *found = json_object_get(value, key);
    if (found && json_typeof(found) == type) return found;
    fail("%s: %s %zu: the key \"%s\" is missing or no %s", path, where, index, key, type == JSON_ARRAY ? "array" : "string");
    return NULL;
}

static json_t *load(const char *path, bool object)
{
    json_error_t error;
    char *data, why[FILE_WHY];
    size_t size;
    if (!file_read(path, &data, &size, why)) {
        fail("%s: %s", path, why);
        return NULL;
    }
    json_t *root = json_loadb(data, size, 0, &error);
    free(data);
    if (!root) {
        fail("%s: line %d: %s", path, error.line, error.text);
    } else if (object ? !json_is_array(json_object_get(root, "data")) : !json_is_array(root)) {
        fail(object ? "%s: no SQuAD file: the key \"data\" is missing or no array" : "%s: no HotpotQA file: not an array of items",
             path);
        json_decref(root);
        root = NULL;
    }
    return root;
}

/* A paragraph's text, after a check of what read_article needs. */
static const char *check_paragraph(const char *path, const json_t *paragraph, size_t article, size_t *n_questions)
{
    size_t i;
    json_t *qa;
    const json_t *context = member(path, paragraph, "context", JSON_STRING, "article", article);
    const json_t *qas = context ? member(path, paragraph, "qas", JSON_ARRAY, "article", article) : NULL;
    if (!qas) return NULL;
    json_array_foreach(qas, i, qa)
    {
        size_t j;
        json_t *answer;
        const json_t *answers = member(path, qa, "answers", JSON_ARRAY, "article", article);
        if (!answers || !member(path, qa, "question", JSON_STRING, "article", article)) return NULL;
        json_array_foreach(answers, j, answer)
        {
            if (!member(path, answer, "text", JSON_STRING, "article", article)) return NULL;
        }
        *n_questions += !json_is_true(json_object_get(qa, "is_impossible"));
    }
    return json_string_value(context);
}

/* Adds every answerable question of a checked article; the other paragraphs are where more can be read. */
static int read_article(const char *path, const json_t *article, struct questions *out)
{
    const json_t *paragraphs = json_object_get(article, "paragraphs");
    size_t p, q, a, o;
    json_t *paragraph, *qa, *answer, *other;
    json_array_foreach(paragraphs, p, paragraph)
    {
        const size_t own = find_document(out, json_string_value(json_object_get(paragraph, "context")));
        json_array_foreach(json_object_get(paragraph, "qas"), q, qa)
        {
            if (json_is_true(json_object_get(qa, "is_impossible"))) continue;
            const char *query = json_string_value(json_object_get(qa, "question"));
            struct question *question = add_question(out, query, 1, json_array_size(paragraphs));
            if (!question) return fail("%s: no memory for the questions", path);
            question->own[question->n_own++] = own;
            json_array_foreach(paragraphs, o, other)
            {
                const size_t number = find_document(out, json_string_value(json_object_get(other, "context")));
                if (number != own) question->more[question->n_more++] = number;
            }
            json_array_foreach(json_object_get(qa, "answers"), a, answer)
                strings_add(&question->answers, json_string_value(json_object_get(answer, "text")));
            if (question->answers.failed) return fail("%s: no memory for the questions", path);
        }
    }
    return EXIT_DONE;
}

static int read_squad(const char *path, struct questions *out)
{
    const json_t *articles = json_object_get(out->file, "data");
    size_t n_questions = 0, a, p;
    json_t *article, *paragraph;
    json_array_foreach(articles, a, article)
    {
        const json_t *paragraphs = member(path, article, "paragraphs", JSON_ARRAY, "article", a);
        if (!paragraphs) return EXIT_FAILED;
        json_array_foreach(paragraphs, p, paragraph)
        {
            const char *text = check_paragraph(path, paragraph, a, &n_questions);
            if (!text) return EXIT_FAILED;
            strings_add(&out->texts, text);
        }
    }
    if (index_documents(path, out, n_questions) != EXIT_DONE) return EXIT_FAILED;
    json_array_foreach(articles, a, article)
    {
        if (read_article(path, article, out) != EXIT_DONE) return EXIT_FAILED;
    }
    return EXIT_DONE;
}

/* Adds a context's title, a newline and its sentences to document; false after a message. */
static bool join_context(const char *path, const json_t *context, size_t item, struct text *document)
{
    const json_t *title = json_array_get(context, 0), *sentences = json_array_get(context, 1);
    size_t i;
    json_t *sentence;
    text_clear(document);
    bool good = json_is_string(title) && json_is_array(sentences);
    if (good) text_print(document, "%s\n", json_string_value(title));
    json_array_foreach(sentences, i, sentence)
    {
        good = good && json_is_string(sentence);
        if (good) text_add(document, json_string_value(sentence));
    }
    if (!good || document->failed) fail("%s: item %zu: \"context\" is no list of [title, [sentence, ..]]", path, item);
    return good && !document->failed;
}

static int read_hotpotqa(const char *path, struct questions *out, struct text *document)
{
    size_t i, c;
    json_t *item, *context;
    json_array_foreach(out->file, i, item)
    {
        const json_t *contexts = member(path, item, "context", JSON_ARRAY, "item", i);
        if (!contexts || !member(path, item, "question", JSON_STRING, "item", i) ||
            !member(path, item, "answer", JSON_STRING, "item", i))
            return EXIT_FAILED;
        json_array_foreach(contexts, c, context)
        {
            if (!join_context(path, context, i, document)) return EXIT_FAILED;
            strings_add(&out->texts, document->at);
        }
    }
    if (index_documents(path, out, json_array_size(out->file)) != EXIT_DONE) return EXIT_FAILED;
    json_array_foreach(out->file, i, item)
    {
        const json_t *contexts = json_object_get(item, "context");
        const char *query = json_string_value(json_object_get(item, "question"));
        struct question *question = add_question(out, query, json_array_size(contexts), 0);
        if (question) strings_add(&question->answers, json_string_value(json_object_get(item, "answer")));
        if (!question || question->answers.failed) return fail("%s: no memory for the questions", path);
        json_array_foreach(contexts, c, context)
        {
            if (!join_context(path, context, i, document)) return EXIT_FAILED;
            question->own[question->n_own++] = find_document(out, document->at);
        }
    }
    return EXIT_DONE;
}

static int end_reading(const char *path, int code, struct questions *out)
{
    if (code == EXIT_DONE && out->n == 0) code = fail("%s: no question that has an answer", path);
    if (code != EXIT_DONE) questions_free(out);
    return code;
}

int questions_read_squad(const char *path, struct questions *out)
{
    *out = (struct questions){ .file = load(path, true) };
    return out->file ? end_reading(path, read_squad(path, out), out) : EXIT_FAILED;
}

int questions_read_hotpotqa(const char *path, struct questions *out)
{
    struct text document = { 0 };
    *out = (struct questions){ .file = load(path, false) };
    const int code = out->file ? end_reading(path, read_hotpotqa(path, out, &document), out) : EXIT_FAILED;
    text_free(&document);
    return code;
}

void questions_free(struct questions *questions)
{
    for (size_t i = 0; i < questions->n; i++) {
        strings_free(&questions->items[i].answers);
        free(questions->items[i].own);
        free(questions->items[i].more);
    }
    free(questions->items);
    free(questions->documents);
    strings_free(&questions->texts);
    json_decref(questions->file);
    *questions = (struct questions){ 0 };
}
