/* Variable tracking: a chain of assignments among noise, after an example that all rows of a file share. */
#include "ruler_maker.h"

#include "cli/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES = 5, NAME = 8, LINE = 64 };

#define TASK_START "Memorize and track t"
#define PREFIX_START " Answer: A"
#define EXAMPLE_VALUE "12345"

static bool are_distinct(char names[NAMES][NAME])
{
    for (int i = 0; i < NAMES; i++) {
        for (int j = 0; j < i; j++) {
            if (strcmp(names[i], names[j]) == 0) return false;
        }
    }
    return true;
}

/* The names, and the lines that assign a value to the first and each to the next. Where names coincide, the generators draw names until
 * five differ and a second value, and then fail over a second chain that is too short. */
static int draw_chain(struct maker *maker, char names[NAMES][NAME], char lines[NAMES][LINE], char value[NAME])
{
    const size_t letters = maker->example ? 3 : 5;
    for (int i = 0; i < NAMES; i++) random_letters(&maker->python, 'A', letters, names[i]);
    const bool fixed = maker->example && maker_upstream(maker), distinct = are_distinct(names);
    if (!distinct) {
        struct strings all = { 0 };
        size_t differ = 0;
        for (int i = 0; i < NAMES; i++) strings_add(&all, names[i]);
        while (differ < NAMES && !all.failed) {
            char name[NAME];
            random_letters(&maker->python, 'A', letters, name);
            strings_add(&all, name);
            differ = 0;
            for (size_t i = 0; i < all.n; i++) {
                size_t j = 0;
                while (j < i && strcmp(all.items[j], all.items[i]) != 0) j++;
                differ += j == i;
            }
        }
        strings_free(&all);
    }
    if (!fixed)
        (void)snprintf(value, NAME, "%u", random_numpy_range(&maker->numpy, 10000, 99999));
    else
        memcpy(value, EXAMPLE_VALUE, sizeof EXAMPLE_VALUE);
    if (!distinct) {
        if (!fixed) (void)random_numpy_range(&maker->numpy, 10000, 99999);
        return DRAW_AGAIN;
    }
    (void)snprintf(lines[0], LINE, "VAR %s = %s", names[0], value);
    for (int i = 1; i < NAMES; i++) (void)snprintf(lines[i], LINE, "VAR %s = VAR %s ", names[i], names[i - 1]);
    return EXIT_DONE;
}

/* In the reference, noise ends with a newline and few copies of it are cut at their periods, to have places enough. */
static int weave_chain(struct maker *maker, size_t size, char lines[NAMES][LINE], struct text *context)
{
    static const char *const pieces[] = { "The grass is green.", " The sky is blue.",      " The sun is yellow.",
                                          " Here we go.",        " There and back again.", "\n" };
    enum { N_PIECES = sizeof pieces / sizeof *pieces };
    const bool upstream = maker_upstream(maker), cut = !upstream && size <= NAMES;
    const size_t n = cut ? size * N_PIECES : size;
    size_t positions[NAMES];
    char *items[NAMES];
    struct text joined = { 0 };
    if (n < NAMES) return DRAW_AGAIN;
    const char **sentences = malloc(n * sizeof *sentences);
    if (!sentences || !random_sample(&maker->python, n, NAMES, positions)) {
        free(sentences);
        return maker_fail(maker, "no memory for the haystack");
    }
    for (size_t i = 0; i < n; i++) sentences[i] = cut ? pieces[i % N_PIECES] : upstream ? RULER_NOISE : RULER_NOISE "\n";
    maker_sort(positions, NAMES);
    for (int i = 0; i < NAMES; i++) items[i] = lines[i];
    maker_weave(&joined, upstream ? "\n" : " ", sentences, n, positions, items, NAMES);
    free(sentences);
    if (!joined.failed) text_add_replaced(context, joined.at, ". \n", ".\n");
    const bool failed = joined.failed || context->failed;
    text_free(&joined);
    return failed ? maker_fail(maker, "no memory for the haystack") : EXIT_DONE;
}

/* The example's template has no wrapper. The reference takes the text from the task's start to the answer prefix, word by word, and
 * leaves out the last word, for the wrapper's end hangs on it. */
static void add_template(const struct maker *maker, struct text *out)
{
    const char *task = maker->template.at, *prefix = strstr(task, PREFIX_START);
    if (!maker->example) {
        text_add(out, task);
    } else if (maker_upstream(maker)) {
        text_add(out, maker->family->template);
        text_add(out, prefix);
    } else {
        task = strstr(task, TASK_START);
        text_add_words(out, task, (size_t)(prefix - task), 1);
        text_add(out, prefix);
    }
}

static int draw(struct maker *maker, size_t index, size_t size, struct prompt *out)
{
    (void)index;
    char names[NAMES][NAME], lines[NAMES][LINE], value[NAME];
    struct text context = { 0 }, template = { 0 };
    int code = draw_chain(maker, names, lines, value);
    if (code == EXIT_DONE) code = weave_chain(maker, size, lines, &context);
    if (code == EXIT_DONE) {
        add_template(maker, &template);
        if (template.failed) code = maker_fail(maker, "no memory for the template");
    }
    if (code == EXIT_DONE) {
        text_add_filled(
            &out->text, template.at,
            (const struct text_field[]){ { "context", context.at }, { "query", value }, { "num_v", "5" }, { NULL, NULL } });
        for (int i = 0; i < NAMES; i++) strings_add(&out->outputs, names[i]);
    }
    text_free(&template);
    text_free(&context);
    return code;
}

/* Makes the example: a row of its own, with its answers. */
static int prepare(struct maker *maker)
{
    const bool upstream = maker_upstream(maker);
    const size_t length = maker->length, budget = maker->budget;
    struct prompt prompt = { 0 };
    size_t size, tokens;
    if (!strstr(maker->template.at, PREFIX_START)) return maker_fail(maker, "the wrapper hides the task");
    maker->example = true;
    maker->length = 500;
    maker->step = 5;
    if (upstream) maker->budget = 0;
    int code = maker_find(maker, &size);
    if (code == EXIT_DONE) code = maker_sample(maker, 0, size, &prompt, &tokens);
    if (code == EXIT_DONE) {
        text_add(&maker->example_text, prompt.text.at);
        text_add(&maker->example_text, " ");
        text_add_joined(&maker->example_text, " ", (const char *const *)prompt.outputs.items, prompt.outputs.n);
        text_add(&maker->example_text, upstream ? "\n" : "\n\n");
        for (size_t i = 0; i < prompt.outputs.n; i++) strings_add(&maker->example_names, prompt.outputs.items[i]);
        if (maker->example_text.failed || maker->example_names.failed) code = maker_fail(maker, "no memory for the example");
    }
    if (code == EXIT_DONE) code = maker_count(maker, &maker->example_text, &maker->overhead);
    maker->example = false;
    maker->length = length;
    maker->budget = budget;
    maker->step = upstream && length < 4096 ? 5 : 10;
    text_free(&prompt.text);
    strings_free(&prompt.outputs);
    return code;
}

/* Upstream draws the example's names and its value anew for every row, and replaces the old ones wherever they occur. */
static void add_example(struct maker *maker, struct text *out)
{
    struct text old = { 0 }, changed = { 0 };
    char drawn[NAME];
    text_add(&old, maker->example_text.at);
    for (size_t i = 0; i <= maker->example_names.n && !old.failed && maker_upstream(maker); i++) {
        const bool name = i < maker->example_names.n;
        if (name)
            random_letters(&maker->python, 'A', strlen(maker->example_names.items[i]), drawn);
        else
            (void)snprintf(drawn, sizeof drawn, "%u", random_numpy_range(&maker->numpy, 10000, 99999));
        text_add_replaced(&changed, old.at, name ? maker->example_names.items[i] : EXAMPLE_VALUE, drawn);
        text_free(&old);
        old = changed;
        changed = (struct text){ 0 };
    }
    if (old.failed)
        out->failed = true;
    else
        text_add(out, old.at);
    text_free(&old);
}

/* Puts the example before the task. */
static int finish(struct maker *maker, struct prompt *prompt)
{
    const bool upstream = maker_upstream(maker);
    struct text whole = { 0 };
    const char *task = prompt->text.at ? strstr(prompt->text.at, TASK_START) : NULL;
    if (!task) return maker_fail(maker, "no memory for the prompt");
    text_add_bytes(&whole, prompt->text.at, (size_t)(task - prompt->text.at));
    if (!upstream) text_add(&whole, " ");
    add_example(maker, &whole);
    text_add(&whole, upstream ? "\n" : "\n\n");
    text_add(&whole, task);
    text_free(&prompt->text);
    prompt->text = whole;
    return EXIT_DONE;
}

static void add_answers(const struct prompt *prompt, struct text *out)
{
    text_add(out, " ");
    text_add_list(out, &prompt->outputs);
}

const struct ruler_family ruler_vt = {
    .template =
        "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\nQuestion: Find all "
        "variables that are assigned the value {query} in the text above.",
    .prefix =
        " Answer: According to the chain(s) of variable assignment in the text above, {num_v} variables are assgined the value "
        "{query}, they are: ",
    .prefix_upstream =
        " Answer: According to the chain(s) of variable assignment in the text above, {num_v} variables are assigned "
        "the value {query}, they are: ",
    .prepare = prepare,
    .draw = draw,
    .add_answers = add_answers,
    .finish = finish,
};
