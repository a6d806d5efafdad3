/* Words to count: cwe, the ten most common of a list, and fwe, the most frequent of a coded text. */
#include "ruler_maker.h"

#include "cli/message.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COMMON = 10, LETTERS = 6 };

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* "1. first 2. second" */
static void add_numbered(struct text *out, const char *const *items, size_t n)
{
    for (size_t i = 0; i < n; i++) text_print(out, i ? " %zu. %s" : "%zu. %s", i + 1, items[i]);
}

/* A list of n words, of which the first ten come common times, the others uncommon times. */
static int add_list(struct maker *maker, size_t n, size_t common, size_t uncommon, struct text *out, const char *answers[COMMON])
{
    const struct strings *words = words_common(maker->job->pool.words);
    const size_t total = COMMON * common + (n - COMMON) * uncommon;
    size_t *drawn = malloc(n * sizeof *drawn), at = 0;
    const char **list = malloc(total * sizeof *list);
    const bool ready = drawn && list && random_sample(&maker->python, words->n, n, drawn);
    for (size_t r = 0; ready && r < common; r++) {
        for (size_t i = 0; i < COMMON; i++) list[at++] = words->items[drawn[i]];
    }
    for (size_t r = 0; ready && r < uncommon; r++) {
        for (size_t i = COMMON; i < n; i++) list[at++] = words->items[drawn[i]];
    }
    if (ready) {
        random_shuffle(maker->job->seed, list, total, sizeof *list);
        add_numbered(out, list, total);
        for (size_t i = 0; i < COMMON; i++) answers[i] = words->items[drawn[i]];
    }
    free(list);
    free(drawn);
    return ready && !out->failed ? EXIT_DONE : maker_fail(maker, "no memory for the words");
}

static void fill(const struct maker *maker, const struct text *context, struct text *out)
{
    text_add_filled(out, maker->template.at, (const struct text_field[]){ { "context", context->at }, { NULL, NULL } });
}

static int prepare_cwe(struct maker *maker)
{
    maker->pool = words_common(maker->job->pool.words)->n;
    return EXIT_DONE;
}

static int draw_cwe(struct maker *maker, size_t index, size_t size, struct prompt *out)
{
    (void)index;
    const bool small = maker->job->length < 4096;
    const char *answers[COMMON];
    struct text example = { 0 }, list = { 0 };
    if (size < COMMON || size > maker->pool) return DRAW_AGAIN;
    int code = add_list(maker, small ? 20 : 40, small ? 3 : 10, small ? 1 : 3, &example, answers);
    if (code == EXIT_DONE) {
        fill(maker, &example, &out->text);
        if (maker_upstream(maker)) text_add(&out->text, " ");
        add_numbered(&out->text, answers, COMMON);
        text_add(&out->text, "\n");
        code = add_list(maker, size, small ? 6 : 30, small ? 1 : 3, &list, answers);
    }
    if (code == EXIT_DONE) {
        fill(maker, &list, &out->text);
        for (size_t i = 0; i < COMMON; i++) strings_add(&out->outputs, answers[i]);
    }
    text_free(&example);
    text_free(&list);
    return code;
}

static void add_cwe_answers(const struct prompt *prompt, struct text *out)
{
    text_add(out, " ");
    add_numbered(out, (const char *const *)prompt->outputs.items, prompt->outputs.n);
}

const struct ruler_family ruler_cwe = {
    .template =
        "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that appear "
        "most often.\n{context}\nQuestion: What are the 10 most common words in the above list?",
    .prefix = " Answer: The top 10 words that appear most often in the list are:",
    .prepare = prepare_cwe,
    .draw = draw_cwe,
    .add_answers = add_cwe_answers,
};

/* fwe. Its length is that of the prompt; the reference does not leave room for the answer, upstream takes it off first. */
static int prepare_fwe(struct maker *maker)
{
    if (maker_upstream(maker)) maker->length = maker->length > maker->budget ? maker->length - maker->budget : 0;
    maker->step = maker->length / 32;
    return maker->length / 50 >= 4 ? EXIT_DONE : maker_too_short(maker, "too short, four coded words need 200 tokens");
}

static void sort_strings(struct strings *strings)
{
    qsort(strings->items, strings->n, sizeof *strings->items, by_text);
}

/* Coded words, each once, in random order; the most frequent of all is noise. */
static int draw_vocabulary(struct maker *maker, struct strings *words)
{
    const size_t n = maker->length / 50;
    char word[LETTERS + 1];
    size_t distinct;
    do {
        for (size_t missing = words->n < n ? n - words->n : 1; missing > 0; missing--) {
            random_letters(&maker->python, 'a', LETTERS, word);
            strings_add(words, word);
        }
        if (words->failed || !words->items) return maker_fail(maker, "no memory for the vocabulary");
        sort_strings(words);
        distinct = 0;
        for (size_t i = 0; i < words->n; i++) distinct += i == 0 || strcmp(words->items[i - 1], words->items[i]) != 0;
    } while (distinct < n);
    for (size_t i = 0, kept = 0, last = words->n; i < last; i++) {
        if (kept && strcmp(words->items[kept - 1], words->items[i]) == 0) {
            free(words->items[i]);
            words->n--;
        } else {
            words->items[kept++] = words->items[i];
        }
    }
    random_shuffle(maker->job->seed, words->items, words->n, sizeof *words->items);
    memcpy(words->items[0], "...", sizeof "...");
    return EXIT_DONE;
}

/* A text of about n words with zeta-distributed counts, and its tokens. */
static int code_text(struct maker *maker, const struct strings *words, size_t n, struct text *out, size_t *tokens)
{
    static const double zeta_of_2 = 1.6449340668482264;
    struct text context = { 0 };
    size_t total = 0;
    const char **list = malloc((n ? n : 1) * sizeof *list);
    for (size_t i = 0; list && i < words->n; i++) {
        const size_t count = (size_t)((double)n * pow((double)(i + 1), -2.0) / zeta_of_2);
        for (size_t r = 0; r < count; r++) list[total++] = words->items[i];
    }
    if (list) {
        random_shuffle(maker->job->seed, list, total, sizeof *list);
        text_add_joined(&context, " ", list, total);
        text_add(&context, "");
    }
    const bool ready = list && !context.failed;
    text_clear(out);
    if (ready) fill(maker, &context, out);
    text_free(&context);
    free(list);
    if (!ready || out->failed) return maker_fail(maker, "no memory for the text");
    return maker_count(maker, out, tokens);
}

static int find_fwe(struct maker *maker, size_t *size)
{
    struct strings words = { 0 };
    struct text text = { 0 };
    size_t tokens = 0, n = maker->length / 6;
    int code = draw_vocabulary(maker, &words);
    if (code == EXIT_DONE) code = code_text(maker, &words, n, &text, &tokens);
    while (code == EXIT_DONE && tokens < maker->length) {
        n += maker->step;
        code = code_text(maker, &words, n, &text, &tokens);
    }
    strings_free(&words);
    text_free(&text);
    *size = n - maker->step;
    return code;
}

static int sample_fwe(struct maker *maker, size_t index, size_t size, struct prompt *out, size_t *length)
{
    (void)index;
    struct strings words = { 0 };
    size_t tokens = 0;
    int code = draw_vocabulary(maker, &words);
    if (code == EXIT_DONE) code = code_text(maker, &words, size, &out->text, &tokens);
    while (code == EXIT_DONE && tokens > maker->length) {
        if (size <= maker->step) {
            code = maker_too_short(maker, "too short for the task's text");
            break;
        }
        size -= maker->step;
        code = code_text(maker, &words, size, &out->text, &tokens);
    }
    strings_clear(&out->outputs);
    for (size_t i = 1; i <= 3 && code == EXIT_DONE; i++) strings_add(&out->outputs, words.items[i]);
    strings_free(&words);
    *length = tokens + maker->budget;
    return code == EXIT_DONE ? maker_check(maker, out) : code;
}

const struct ruler_family ruler_fwe = {
    .template =
        "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared "
        "coded words. {context}\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three "
        "most frequently appeared words in the above coded text?",
    .prefix = " Answer: According to the coded text above, the three most frequently appeared words are:",
    .prepare = prepare_fwe,
    .find = find_fwe,
    .sample = sample_fwe,
};
