/* Chat templates. A file carries a program in a template language; the few shapes known here are recognized from its text and
 * rendered natively. What is not surely known is refused, because a prompt that is slightly off costs quality silently. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/arith.h"
#include "text/vocab.h"

typedef struct chat_format {
    const char *name;
    const char *needs[4];    /* the template's text, with \n read as a newline, holds all of these */
    const char *refuses[12]; /* and none of these */
    /* A message is open, role, middle, content, close. */
    const char *open, *middle, *close;
    /* NULL: a system block is there when the messages start with one, or with the default that the template's text has.
     * Else: there is always one, and this stands in front of its content. */
    const char *system_intro;
    bool bos;  /* starts with the BOS token's text */
    bool trim; /* white space around each content is cut */
} chat_format;

static const chat_format formats[] = {
    { .name = "chatml",
      .needs = { "'<|im_start|>' + message", " + '<|im_end|>' + '\n'", "'<|im_start|>assistant\n'" },
      .refuses = { "<think>", "enable_thinking", "reasoning_content", "bos_token", "eos_token", "raise_exception", "strftime_now",
                   "trim", "strip", "split", "replace" },
      .open = "<|im_start|>",
      .middle = "\n",
      .close = "<|im_end|>\n" },
    { .name = "llama-3.1",
      .needs = { "'<|start_header_id|>' + message", "message['content'] | trim + '<|eot_id|>'",
                 "\"Cutting Knowledge Date: December 2023\n\"", "date_string = \"26 Jul 2024\"" },
      .refuses = { "strftime_now" },
      .open = "<|start_header_id|>",
      .middle = "<|end_header_id|>\n\n",
      .close = "<|eot_id|>",
      .system_intro = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
      .bos = true,
      .trim = true },
};
enum { N_FORMATS = sizeof formats / sizeof formats[0] };

static const char *const roles[] = { "system", "user", "assistant" };

/* ---- recognizing ---- */

/* The character that an escape in a string literal of a template stands for. */
static char unescaped(char c)
{
    if (c == 'n') return '\n';
    if (c == 't') return '\t';
    return c;
}

/* Copy with \n read as a newline. */
static ca_status plain_newlines(const char *text, char **out)
{
    char *at = *out = malloc(strlen(text) + 1);
    if (!at) return ca_fail(CA_E_MEMORY, "chat template: no memory for its text");
    while (*text) {
        if (text[0] == '\\' && text[1] == 'n') {
            *at++ = '\n';
            text += 2;
        } else {
            *at++ = *text++;
        }
    }
    *at = '\0';
    return CA_OK;
}

static bool fits(const chat_format *format, const char *text)
{
    for (size_t i = 0; i < sizeof format->needs / sizeof format->needs[0] && format->needs[i]; i++)
        if (!strstr(text, format->needs[i])) return false;
    for (size_t i = 0; i < sizeof format->refuses / sizeof format->refuses[0] && format->refuses[i]; i++)
        if (strstr(text, format->refuses[i])) return false;
    return true;
}

static ca_status unsupported(const char *what)
{
    char known[128] = "";
    size_t at = 0;
    for (size_t i = 0; i < N_FORMATS && at < sizeof known; i++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", formats[i].name);
    return ca_fail(CA_E_UNSUPPORTED, "the model's file %s; known: %s; give the prompt as plain text instead", what, known);
}

static ca_status recognize(const ca_tokenizer *tok, const chat_format **out)
{
    *out = NULL;
    if (!tok->chat_template[0]) return unsupported("has no tokenizer.chat_template");
    char *text;
    CA_TRY(plain_newlines(tok->chat_template, &text));
    for (size_t i = 0; i < N_FORMATS && !*out; i++)
        if (fits(&formats[i], text)) *out = &formats[i];
    free(text);
    return *out ? CA_OK : unsupported("has a chat template that is not recognized");
}

/* ---- writing ---- */

typedef struct writer {
    char *text;
    size_t len, cap;
    ca_status status; /* first failure */
} writer;

static void put(writer *w, const char *text, size_t n)
{
    size_t need;
    if (w->status == CA_OK) w->status = ca_add_size(w->len, n, &need);
    if (w->status == CA_OK) w->status = ca_add_size(need, 1, &need);
    if (w->status != CA_OK) return;
    if (!w->text || need > w->cap) {
        const size_t cap = need / 2 > w->cap ? need : need + w->cap;
        char *grown = realloc(w->text, cap);
        if (!grown) {
            w->status = ca_fail(CA_E_MEMORY, "chat template: no memory for %zu bytes", cap);
            return;
        }
        w->text = grown;
        w->cap = cap;
    }
    memcpy(w->text + w->len, text, n);
    w->len += n;
    w->text[w->len] = '\0';
}

static void put_str(writer *w, const char *text)
{
    put(w, text, strlen(text));
}

static bool is_space(utf8proc_int32_t c)
{
    if ((c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f) || c == 0x85) return true;
    const utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

static void put_content(writer *w, const chat_format *format, const char *text)
{
    const size_t n = strlen(text);
    if (!format->trim) {
        put(w, text, n);
        return;
    }
    size_t from = n, to = n;
    for (size_t i = 0, step; i < n; i += step) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t read = utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n - i), &c);
        step = read > 0 ? (size_t)read : 1;
        if (read > 0 && is_space(c)) continue;
        if (from == n) from = i;
        to = i + step;
    }
    put(w, text + from, to - from);
}

/* The system message that a template writes when the messages have none: [*from, *to) of the string literal that opens a system
 * message and goes on to its end. */
static bool find_default_system(const chat_format *format, const char *template, const char **from, const char **to)
{
    const size_t n_close = strcspn(format->close, "\n");
    for (const char *at = template; (at = strstr(at, format->open)) != NULL;) {
        const char quote = at[at > template ? -1 : 0];
        at += strlen(format->open);
        const char *p = at;
        if ((quote != '\'' && quote != '"') || strncmp(p, "system", 6) != 0) continue;
        p += 6;
        if (*p != '\n' && strncmp(p, "\\n", 2) != 0) continue;
        p += *p == '\n' ? 1 : 2;
        *from = p;
        while (*p && *p != quote && strncmp(p, format->close, n_close) != 0) p += p[0] == '\\' && p[1] ? 2 : 1;
        *to = p;
        if (*p && *p != quote) return true;
        at = p;
    }
    return false;
}

static void put_open(writer *w, const chat_format *format, const char *role)
{
    put_str(w, format->open);
    put_str(w, role);
    put_str(w, format->middle);
}

static ca_status check_messages(const ca_message *messages, size_t n)
{
    if (n == 0) return ca_fail(CA_E_ARG, "chat: at least one message is needed");
    for (size_t i = 0; i < n; i++) {
        bool known = false;
        if (!messages[i].role || !messages[i].content) return ca_fail(CA_E_ARG, "chat: message %zu has no role or no content", i);
        for (size_t r = 0; r < sizeof roles / sizeof roles[0]; r++) known = known || strcmp(messages[i].role, roles[r]) == 0;
        if (!known)
            return ca_fail(CA_E_ARG, "chat: message %zu has the role '%.32s'; known: system, user, assistant", i, messages[i].role);
    }
    return CA_OK;
}

ca_status ca_chat_render(const ca_tokenizer *tok, const ca_message *messages, size_t n_messages, bool add_generation_prompt,
                         char **text, size_t *len)
{
    if (!tok || !text || !len || (!messages && n_messages > 0))
        return ca_fail(CA_E_ARG, "ca_chat_render: tok, messages, text and len are needed");
    *text = NULL;
    *len = 0;
    CA_TRY(check_messages(messages, n_messages));
    const chat_format *format;
    CA_TRY(recognize(tok, &format));

    writer w = { .status = CA_OK };
    if (format->bos && tok->bos >= 0) put(&w, tok->text[tok->bos].data, tok->text[tok->bos].len);
    const bool given = strcmp(messages[0].role, "system") == 0;
    const char *from = NULL, *to = NULL;
    const bool own = !given && !format->system_intro && find_default_system(format, tok->chat_template, &from, &to);
    if (given || format->system_intro || own) {
        put_open(&w, format, "system");
        if (format->system_intro) put_str(&w, format->system_intro);
        if (given) put_content(&w, format, messages[0].content);
        while (own && from < to) {
            const bool escape = *from == '\\';
            const char c = escape ? unescaped(from[1]) : *from;
            put(&w, &c, 1);
            from += escape ? 2 : 1;
        }
        put_str(&w, format->close);
    }
    for (size_t i = given; i < n_messages; i++) {
        put_open(&w, format, messages[i].role);
        put_content(&w, format, messages[i].content);
        put_str(&w, format->close);
    }
    if (add_generation_prompt) put_open(&w, format, "assistant");
    if (w.status != CA_OK) {
        free(w.text);
        return w.status;
    }
    *text = w.text;
    *len = w.len;
    return CA_OK;
}
