#include "needle.h"

#include "message.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct needle needle_default = {
    .fact = "The magic number for the lighthouse is 7481.",
    .question = "What is the magic number for the lighthouse?",
    .answer_start = "The magic number for the lighthouse is",
    .expected = "7481",
};

/* True when a sentence ends right before byte i: punctuation, perhaps a closing quote, then a blank or the end. */
static bool ends_sentence(const char *text, size_t size, size_t i)
{
    if (i < 2 || (i < size && text[i] != ' ' && text[i] != '\n')) return false;
    const char last = text[i - 1] == '"' || text[i - 1] == '\'' ? text[i - 2] : text[i - 1];
    return last == '.' || last == '!' || last == '?';
}

size_t needle_boundary(const char *text, size_t size, size_t want)
{
    for (size_t distance = 0; distance <= size; distance++) {
        if (distance <= want && ends_sentence(text, size, want - distance)) return want - distance;
        if (want + distance <= size && ends_sentence(text, size, want + distance)) return want + distance;
    }
    return size;
}

char *needle_hide(const char *text, size_t size, double depth, const char *fact)
{
    const size_t at = needle_boundary(text, size, (size_t)(depth * (double)size)), cap = size + strlen(fact) + 2;
    char *out = malloc(cap);
    if (out) snprintf(out, cap, "%.*s %s%.*s", (int)at, text, fact, (int)(size - at), text + at);
    return out;
}

/* malloc'ed; NULL when memory is short. */
static char *join(const char *a, const char *between, const char *b)
{
    const size_t cap = strlen(a) + strlen(between) + strlen(b) + 1;
    char *out = malloc(cap);
    if (out) snprintf(out, cap, "%s%s%s", a, between, b);
    return out;
}

int needle_prompt(const struct engine *engine, const struct needle *needle, const char *text, size_t size, double depth,
                  uint32_t **ids, size_t *n_ids)
{
    char *hidden = needle_hide(text, size, depth, needle->fact);
    char *content = hidden ? join(hidden, "\n\n", needle->question) : NULL, *rendered = NULL, *prompt = NULL;
    size_t length = 0;
    int code = content ? EXIT_DONE : fail("no memory for the prompt");
    if (content) {
        const ca_message message = { "user", content };
        const ca_status status = ca_chat_render(engine->tokenizer, &message, 1, true, &rendered, &length);
        if (status != CA_OK) code = fail_library(status);
    }
    if (rendered && !(prompt = join(rendered, "", needle->answer_start))) code = fail("no memory for the prompt");
    if (prompt) code = engine_tokenize(engine, prompt, strlen(prompt), CA_TOK_PARSE_SPECIAL, ids, n_ids);
    free(prompt);
    ca_free(rendered);
    free(content);
    free(hidden);
    return code;
}
