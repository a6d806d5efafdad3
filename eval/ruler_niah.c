/* Needles in a haystack: niah_single_*, niah_multikey_*, niah_multivalue, niah_multiquery. */
#include "ruler_maker.h"

#include "cli/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum hay { NOISE, ESSAY, NEEDLE };
enum kind { WORDS, NUMBERS, UUIDS };
enum { DEPTHS = 40, MAX_NEEDLES = 4 };

static const struct niah {
    enum hay hay;
    enum kind key, value;
    size_t keys, values, queries;
} tasks[] = {
    { NOISE, WORDS, NUMBERS, 1, 1, 1 }, { ESSAY, WORDS, NUMBERS, 1, 1, 1 },  { ESSAY, WORDS, UUIDS, 1, 1, 1 },
    { ESSAY, WORDS, NUMBERS, 4, 1, 1 }, { NEEDLE, WORDS, NUMBERS, 1, 1, 1 }, { NEEDLE, UUIDS, UUIDS, 1, 1, 1 },
    { ESSAY, WORDS, NUMBERS, 1, 4, 1 }, { ESSAY, WORDS, NUMBERS, 4, 1, 4 },
};

static const char *const kind_names[] = { "words", "numbers", "uuids" };

/* Where needles may stand in an essay, in percent. */
static const unsigned char depths[DEPTHS] = { 0,  3,  5,  8,  10, 13, 15, 18, 21, 23, 26, 28, 31, 33, 36, 38, 41, 44, 46, 49,
                                              51, 54, 56, 59, 62, 64, 67, 69, 72, 74, 77, 79, 82, 85, 87, 90, 92, 95, 97, 100 };

/* What one draw works on. */
struct stack {
    struct strings keys, values, needles, hay;
    struct text one, two, context;
};

static const struct niah *task_of(const struct maker *maker)
{
    return &tasks[maker->job->task];
}

/* In the singular form, "A special magic number is hidden", wherever the words occur, the wrapper included. */
static int prepare(struct maker *maker)
{
    static const char *const singular[][2] = { { "Some", "A" }, { "are all", "is" }, { "are", "is" }, { "answers", "answer" } };
    const struct niah *task = task_of(maker);
    maker->step = task->hay == ESSAY ? 500 : maker->job->length < 4096 ? 5 : 25;
    for (size_t i = 0; i < sizeof singular / sizeof *singular && task->queries * task->values == 1; i++) {
        struct text changed = { 0 };
        text_add_replaced(&changed, maker->template.at, singular[i][0], singular[i][1]);
        text_free(&maker->template);
        maker->template = changed;
        if (changed.failed) return maker_fail(maker, "no memory for the template");
    }
    return EXIT_DONE;
}

static void draw_random(struct maker *maker, enum kind kind, struct text *out)
{
    const struct words *words = maker->job->pool.words;
    uint32_t u[4];
    text_clear(out);
    switch (kind) {
    case WORDS: words_add_pair(words, random_below(&maker->python, words_pairs(words)), out); break;
    case NUMBERS: text_print(out, "%u", 1000000 + random_below(&maker->python, 9000000)); break;
    case UUIDS:
        random_bits128(&maker->python, u);
        u[2] = (u[2] & 0xFFFF0FFFU) | 0x4000U;
        u[1] = (u[1] & 0x3FFFFFFFU) | 0x80000000U;
        text_print(out, "%08x-%04x-%04x-%04x-%04x%08x", u[3], u[2] >> 16, u[2] & 0xFFFF, u[1] >> 16, u[1] & 0xFFFF, u[0]);
        break;
    }
}

/* A needle for the key with a value drawn now. */
static void draw_needle(struct maker *maker, const char *key, struct text *value, struct text *line, struct strings *out)
{
    const struct niah *task = task_of(maker);
    draw_random(maker, task->value, value);
    out->failed = out->failed || value->failed;
    if (out->failed) return;
    text_clear(line);
    text_print(line, "One of the special magic %s for %s is: %s.", kind_names[task->value], key, value->at);
    strings_add(out, line->at);
}

static void draw_needles(struct maker *maker, struct stack *stack)
{
    const struct niah *task = task_of(maker);
    for (size_t k = 0; k < task->keys; k++) {
        draw_random(maker, task->key, &stack->one);
        strings_add(&stack->keys, stack->one.at);
        for (size_t v = 0; v < task->values && !stack->keys.failed; v++) {
            draw_needle(maker, stack->keys.items[k], &stack->one, &stack->two, &stack->needles);
            strings_add(&stack->values, stack->one.at);
        }
    }
    random_shuffle(maker->job->seed, stack->needles.items, stack->needles.n, sizeof *stack->needles.items);
}

/* The first size words of the essay, which upstream repeats where it ends. */
static void add_essay(const struct maker *maker, size_t size, struct text *out)
{
    const struct essay *essay = maker->job->pool.essay;
    for (; maker_upstream(maker) && size > essay->n_words; size -= essay->n_words) {
        text_add(out, essay->text.at);
        text_add(out, " ");
    }
    text_add_bytes(out, essay->text.at, essay->ends[size < essay->n_words ? size - 1 : essay->n_words - 1]);
}

/* Cuts text into sentences in place: at white space after a period, question or exclamation mark. */
static size_t cut_sentences(char *text, const char **sentences)
{
    size_t n = 0;
    text += strspn(text, " ");
    for (size_t length = strlen(text); length && text[length - 1] == ' '; length--) text[length - 1] = '\0';
    for (sentences[n++] = text; (text = strchr(text, ' ')); text += strspn(text, " ")) {
        if (!strchr(".!?", text[-1])) continue;
        *text++ = '\0';
        text += strspn(text, " ");
        sentences[n++] = text;
    }
    return n;
}

/* Runs of sentences, empty ones too, with a needle after each but the last. */
static int put_into_essay(struct maker *maker, struct stack *stack, size_t size)
{
    size_t drawn[MAX_NEEDLES], at = 0, most = 2;
    text_clear(&stack->one);
    add_essay(maker, size, &stack->one);
    for (size_t i = 0; i < stack->one.n; i++) most += stack->one.at[i] == ' ';
    const char **sentences = stack->one.failed ? NULL : malloc(most * sizeof *sentences);
    if (!sentences || !random_sample(&maker->python, DEPTHS, stack->needles.n, drawn)) {
        free(sentences);
        return maker_fail(maker, "no memory for the essay");
    }
    const size_t n = cut_sentences(stack->one.at, sentences);
    for (size_t i = 0; i < stack->needles.n; i++) drawn[i] = (size_t)((double)n * (depths[drawn[i]] / 100.0));
    maker_sort(drawn, stack->needles.n);
    for (size_t i = 0; i <= stack->needles.n; i++) {
        const size_t end = i < stack->needles.n ? drawn[i] : n;
        if (i) text_print(&stack->context, " %s ", stack->needles.items[i - 1]);
        text_add_joined(&stack->context, " ", sentences + at, end - at);
        at = end;
    }
    free(sentences);
    return EXIT_DONE;
}

static int put_into_lines(struct maker *maker, struct stack *stack, size_t size)
{
    size_t drawn[MAX_NEEDLES];
    char *needles[MAX_NEEDLES];
    const size_t n = stack->needles.n;
    for (size_t i = 0; i < size && task_of(maker)->hay == NEEDLE; i++) {
        draw_random(maker, task_of(maker)->key, &stack->context);
        if (!stack->context.failed) draw_needle(maker, stack->context.at, &stack->one, &stack->two, &stack->hay);
    }
    text_clear(&stack->context);
    const char **lines = malloc((size + 1) * sizeof *lines);
    if (!lines || stack->hay.failed || !random_sample(&maker->python, size, n, drawn)) {
        free(lines);
        return maker_fail(maker, "no memory for the haystack");
    }
    for (size_t i = 0; i < size; i++) lines[i] = task_of(maker)->hay == NEEDLE ? stack->hay.items[i] : RULER_NOISE;
    maker_sort(drawn, n);
    for (size_t i = 0; i < n; i++) needles[i] = stack->needles.items[n - 1 - i]; /* the first needle stands last */
    maker_weave(&stack->context, "\n", lines, size, drawn, needles, n);
    free(lines);
    return EXIT_DONE;
}

/* Draws which keys are asked for, and fills the template: "a, b, c, and d". */
static int ask(struct maker *maker, struct stack *stack, struct prompt *out)
{
    const struct niah *task = task_of(maker);
    const char *name = kind_names[task->value];
    size_t asked[MAX_NEEDLES];
    char type[16];
    if (!random_sample(&maker->python, task->keys, task->queries, asked)) return maker_fail(maker, "no memory to draw");
    text_clear(&stack->two);
    for (size_t i = 0; i < task->queries; i++) {
        text_add(&stack->two, i == 0 ? "" : i + 1 < task->queries ? ", " : ", and ");
        text_add(&stack->two, stack->keys.items[asked[i]]);
        for (size_t v = 0; v < task->values; v++) strings_add(&out->outputs, stack->values.items[asked[i] * task->values + v]);
    }
    const bool singular = task->queries * task->values == 1;
    (void)snprintf(type, sizeof type, "%.*s", (int)(strlen(name) - singular), name);
    if (stack->two.failed || stack->context.failed) return maker_fail(maker, "no memory for the prompt");
    text_add_filled(&out->text, maker->template.at,
                    (const struct text_field[]){
                        { "type", type }, { "context", stack->context.at }, { "query", stack->two.at }, { NULL, NULL } });
    return EXIT_DONE;
}

static int draw(struct maker *maker, size_t index, size_t size, struct prompt *out)
{
    (void)index;
    struct stack stack = { 0 };
    draw_needles(maker, &stack);
    const bool failed = stack.keys.failed || stack.values.failed || stack.needles.failed;
    int code = failed                         ? maker_fail(maker, "no memory for the needles")
               : size < stack.needles.n       ? DRAW_AGAIN
               : task_of(maker)->hay == ESSAY ? put_into_essay(maker, &stack, size)
                                              : put_into_lines(maker, &stack, size);
    if (code == EXIT_DONE) code = ask(maker, &stack, out);
    strings_free(&stack.keys);
    strings_free(&stack.values);
    strings_free(&stack.needles);
    strings_free(&stack.hay);
    text_free(&stack.one);
    text_free(&stack.two);
    text_free(&stack.context);
    return code;
}

static void add_answers(const struct prompt *prompt, struct text *out)
{
    text_add_joined(out, " ", (const char *const *)prompt->outputs.items, prompt->outputs.n);
}

const struct ruler_family ruler_niah = {
    .template =
        "Some special magic {type} are hidden within the following text. Make sure to memorize it. I will quiz you about the "
        "{type} afterwards.\n{context}\nWhat are all the special magic {type} for {query} mentioned in the provided text?",
    .prefix = " The special magic {type} for {query} mentioned in the provided text are",
    .prepare = prepare,
    .draw = draw,
    .add_answers = add_answers,
};
