/* Chat templates. A file carries a program in a template language; the few shapes known here are recognized from its text and
 * rendered natively. What is not surely known is refused, because a prompt that is slightly off costs quality silently. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/arith.h"
#include "text/vocab.h"

typedef enum chat_shape {
    CHAT_PLAIN,   /* messages as they are */
    CHAT_QWEN3,   /* thoughts of earlier answers are left out */
    CHAT_GEMMA_2, /* turns of user and model in alternation, no system message */
    CHAT_GEMMA_3  /* the same, and the system message goes before the first turn's text */
} chat_shape;

typedef struct chat_format {
    const char *name;
    const char *needs[5];    /* the template's text, with \n read as a newline, holds all of these */
    const char *refuses[12]; /* and none of these */
    /* A message is open, role, middle, content, close. */
    const char *open, *middle, *close;
    chat_shape shape;
    bool system_always;         /* there is a system message even when none is given */
    const char *system_intro;   /* stands in front of its content; NULL: nothing */
    const char *system_default; /* its content when none is given; NULL: the one that the template's text has, or no message */
    bool bos;                   /* starts with the BOS token's text */
    bool trim;                  /* white space around each content is cut */
} chat_format;

#define CHATML_NEEDS "'<|im_start|>' + message", " + '<|im_end|>' + '\n'", "'<|im_start|>assistant\n'"
#define CHATML_REFUSES                                                                                                             \
    "<think>", "enable_thinking", "reasoning_content", "bos_token", "eos_token", "raise_exception", "strftime_now", "trim",        \
        "strip", "split", "replace"
#define QWEN25_SYSTEM "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
#define CHATML .open = "<|im_start|>", .middle = "\n", .close = "<|im_end|>\n"
#define LLAMA3 .open = "<|start_header_id|>", .middle = "<|end_header_id|>\n\n", .close = "<|eot_id|>", .bos = true, .trim = true
#define GEMMA .open = "<start_of_turn>", .middle = "\n", .close = "<end_of_turn>\n", .bos = true, .trim = true

static const chat_format formats[] = {
    { .name = "qwen2.5",
      .needs = { CHATML_NEEDS, "'<|im_start|>system\n" QWEN25_SYSTEM "<|im_end|>\n'" },
      .refuses = { CHATML_REFUSES },
      .system_default = QWEN25_SYSTEM,
      CHATML },
    { .name = "chatml", .needs = { CHATML_NEEDS }, .refuses = { CHATML_REFUSES }, CHATML },
    { .name = "qwen3",
      .needs = { "'<|im_start|>system\n' + messages[0].content + '<|im_end|>\n'", "loop.index0 > ns.last_query_index",
                 "content.split('</think>')[-1].lstrip('\n')", "reasoning_content.strip('\n')",
                 "enable_thinking is defined and enable_thinking is false" },
      .refuses = { "bos_token", "eos_token", "raise_exception", "strftime_now", "trim", "replace",
                   "'<|im_start|>assistant\n<think>" },
      .shape = CHAT_QWEN3,
      CHATML },
    { .name = "llama-3",
      .needs = { "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>'",
                 "set content = bos_token + content", "{% if add_generation_prompt %}",
                 "'<|start_header_id|>assistant<|end_header_id|>\n\n'" },
      .refuses = { "strftime_now", "date_string", "tools", "raise_exception", "eos_token" },
      LLAMA3 },
    { .name = "llama-3.1",
      .needs = { "'<|start_header_id|>' + message", "message['content'] | trim + '<|eot_id|>'",
                 "\"Cutting Knowledge Date: December 2023\n\"", "date_string = \"26 Jul 2024\"" },
      .refuses = { "strftime_now" },
      .system_always = true,
      .system_intro = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
      LLAMA3 },
    { .name = "gemma-2",
      .needs = { "'<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n'", "System role not supported",
                 "Conversation roles must alternate", "'<start_of_turn>model\n'", "bos_token" },
      .refuses = { "first_user_prefix", "tools", "strftime_now", "eos_token" },
      .shape = CHAT_GEMMA_2,
      GEMMA },
    { .name = "gemma-3",
      .needs = { "'<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else \"\")", "message['content'] | trim",
                 "first_user_prefix = messages[0]['content'] + '\n\n'", "'<start_of_turn>model\n'", "bos_token" },
      .refuses = { "tools", "strftime_now", "eos_token" },
      .shape = CHAT_GEMMA_3,
      GEMMA },
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

/* Names of all formats, comma-separated. */
static void list_names(char *out, size_t cap)
{
    size_t at = 0;
    for (size_t i = 0; i < N_FORMATS && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s%s", i ? ", " : "", formats[i].name);
}

static ca_status unsupported(const char *what)
{
    char known[128];
    list_names(known, sizeof known);
    return ca_fail(CA_E_UNSUPPORTED, "the model %s; name one of %s, or give the prompt as plain text", what, known);
}

static ca_status by_name(const char *name, const chat_format **out)
{
    char known[128];
    *out = NULL;
    for (size_t i = 0; i < N_FORMATS; i++)
        if (strcmp(formats[i].name, name) == 0) *out = &formats[i];
    list_names(known, sizeof known);
    return *out ? CA_OK : ca_fail(CA_E_ARG, "there is no chat template '%.32s'; known: %s", name, known);
}

static ca_status recognize(const ca_tokenizer *tok, const chat_format **out)
{
    *out = NULL;
    if (!tok->chat_template[0]) return unsupported("has no chat template");
    char *text;
    CA_TRY(plain_newlines(tok->chat_template, &text));
    for (size_t i = 0; i < N_FORMATS && !*out; i++)
        if (fits(&formats[i], text)) *out = &formats[i];
    free(text);
    return *out ? CA_OK : unsupported("has a chat template that is not recognized");
}

/* ---- writing ---- */

/* A part of the text that comes from a message's content. */
typedef struct span {
    size_t from, to;
} span;

typedef struct writer {
    char *text;
    size_t len, cap;
    span *contents; /* NULL: nobody asks */
    size_t n_contents;
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

/* What a message says, in contrast to what the template says. */
static void put_said(writer *w, ca_str said)
{
    const size_t from = w->len;
    put(w, said.data, said.len);
    if (w->contents && w->len > from) w->contents[w->n_contents++] = (span){ from, w->len };
}

static bool is_space(utf8proc_int32_t c)
{
    if ((c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f) || c == 0x85) return true;
    const utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

/* Text without white space around it. */
static ca_str trimmed(ca_str text)
{
    size_t from = text.len, to = text.len;
    for (size_t i = 0, step; i < text.len; i += step) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t read = utf8proc_iterate((const utf8proc_uint8_t *)text.data + i, (utf8proc_ssize_t)(text.len - i),
                                                       &c);
        step = read > 0 ? (size_t)read : 1;
        if (read > 0 && is_space(c)) continue;
        if (from == text.len) from = i;
        to = i + step;
    }
    return (ca_str){ text.data + from, to - from };
}

static ca_str str_of(const char *text)
{
    return (ca_str){ text, strlen(text) };
}

static void put_content(writer *w, const chat_format *format, const char *text)
{
    put_said(w, format->trim ? trimmed(str_of(text)) : str_of(text));
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
    const bool gemma = format->shape == CHAT_GEMMA_2 || format->shape == CHAT_GEMMA_3;
    put_str(w, format->open);
    put_str(w, gemma && strcmp(role, "assistant") == 0 ? "model" : role);
    put_str(w, format->middle);
}

static void put_message(writer *w, const chat_format *format, const ca_message *message)
{
    put_open(w, format, message->role);
    put_content(w, format, message->content);
    put_str(w, format->close);
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

/* ---- shapes ---- */

/* The system message; the number of messages that it takes from the list. template: the file's, when the format was recognized. */
static size_t put_system(writer *w, const chat_format *format, const char *template, const ca_message *messages)
{
    const bool given = strcmp(messages[0].role, "system") == 0;
    const char *from = NULL, *to = NULL;
    const bool own = !given && !format->system_default && !format->system_always && template &&
                     find_default_system(format, template, &from, &to);
    if (!given && !own && !format->system_default && !format->system_always) return 0;
    put_open(w, format, "system");
    if (format->system_intro) put_str(w, format->system_intro);
    if (given)
        put_content(w, format, messages[0].content);
    else if (format->system_default)
        put_str(w, format->system_default);
    while (own && from < to) {
        const bool escape = *from == '\\';
        const char c = escape ? unescaped(from[1]) : *from;
        put(w, &c, 1);
        from += escape ? 2 : 1;
    }
    put_str(w, format->close);
    return given;
}

static bool is_role(const ca_message *message, const char *role)
{
    return strcmp(message->role, role) == 0;
}

static ca_str without_newlines(ca_str text, bool left, bool right)
{
    while (left && text.len > 0 && text.data[0] == '\n') {
        text.data++;
        text.len--;
    }
    while (right && text.len > 0 && text.data[text.len - 1] == '\n') text.len--;
    return text;
}

/* Where the last `what` in text starts; NULL: nowhere. */
static const char *last_of(ca_str text, const char *what)
{
    const size_t n = strlen(what);
    for (size_t i = text.len; i >= n; i--)
        if (memcmp(text.data + i - n, what, n) == 0) return text.data + i - n;
    return NULL;
}

/* A user's message that is no answer of a tool. */
static bool is_query(const ca_message *message)
{
    static const char open[] = "<tool_response>", close[] = "</tool_response>";
    const size_t n = strlen(message->content), n_open = sizeof open - 1, n_close = sizeof close - 1;
    if (!is_role(message, "user")) return false;
    return n < n_close || memcmp(message->content, open, n_open) != 0 ||
           memcmp(message->content + n - n_close, close, n_close) != 0;
}

/* An answer, with its thoughts only when it stands after the last question. */
static void put_answer(writer *w, const chat_format *format, const char *text, bool after, bool last)
{
    static const char begin[] = "<think>", end[] = "</think>";
    ca_str content = str_of(text), thoughts = { "", 0 };
    const char *first_end = strstr(text, end);
    if (first_end) {
        const char *last_end = last_of(content, end);
        thoughts = (ca_str){ text, (size_t)(first_end - text) };
        thoughts = without_newlines(thoughts, false, true);
        const char *thought = last_of(thoughts, begin);
        if (thought) {
            thoughts.len -= (size_t)(thought - text) + sizeof begin - 1;
            thoughts.data = thought + sizeof begin - 1;
        }
        thoughts = without_newlines(thoughts, true, false);
        content = without_newlines(str_of(last_end + sizeof end - 1), true, false);
    }
    put_open(w, format, "assistant");
    if (after && (last || thoughts.len > 0)) {
        thoughts = without_newlines(thoughts, true, true);
        content = without_newlines(content, true, false);
        put_str(w, "<think>\n");
        put_said(w, thoughts);
        put_str(w, "\n</think>\n\n");
    }
    put_said(w, content);
    put_str(w, format->close);
}

static void put_qwen3(writer *w, const chat_format *format, const ca_message *messages, size_t n)
{
    size_t query = n - 1; /* the last question */
    for (size_t i = n; i-- > 0;) {
        if (!is_query(&messages[i])) continue;
        query = i;
        break;
    }
    for (size_t i = 0; i < n; i++) {
        if (is_role(&messages[i], "assistant"))
            put_answer(w, format, messages[i].content, i > query, i + 1 == n);
        else
            put_message(w, format, &messages[i]);
    }
}

static ca_status put_gemma(writer *w, const chat_format *format, const ca_message *messages, size_t n)
{
    const bool system = is_role(&messages[0], "system");
    if (system && format->shape == CHAT_GEMMA_2)
        return ca_fail(CA_E_ARG, "chat template %s: a system message is not supported", format->name);
    for (size_t i = system; i < n; i++) {
        const size_t turn = i - system;
        if (is_role(&messages[i], "user") != (turn % 2 == 0))
            return ca_fail(CA_E_ARG, "chat template %s: message %zu has the role '%s', but user and assistant must alternate",
                           format->name, i, messages[i].role);
        put_open(w, format, messages[i].role);
        if (system && turn == 0) {
            put_said(w, str_of(messages[0].content));
            put_str(w, "\n\n");
        }
        put_content(w, format, messages[i].content);
        put_str(w, format->close);
    }
    return CA_OK;
}

static ca_status put_chat(writer *w, const ca_tokenizer *tok, const chat_format *format, const char *template,
                          const ca_message *messages, size_t n)
{
    if (format->bos && tok->bos >= 0) put(w, tok->text[tok->bos].data, tok->text[tok->bos].len);
    switch (format->shape) {
    case CHAT_PLAIN:
        for (size_t i = put_system(w, format, template, messages); i < n; i++) put_message(w, format, &messages[i]);
        break;
    case CHAT_QWEN3: put_qwen3(w, format, messages, n); break;
    case CHAT_GEMMA_2:
    case CHAT_GEMMA_3: return put_gemma(w, format, messages, n);
    }
    return CA_OK;
}

/* w->text is the caller's, on failure too. */
static ca_status render(const ca_tokenizer *tok, const char *name, ca_thinking thinking, const ca_message *messages,
                        size_t n_messages, bool add_generation_prompt, writer *w)
{
    const chat_format *format;
    CA_TRY(name ? by_name(name, &format) : recognize(tok, &format));
    if (thinking != CA_THINKING_DEFAULT && format->shape != CHAT_QWEN3)
        return ca_fail(CA_E_ARG, "chat template %s has no thinking to turn on or off", format->name);

    CA_TRY(put_chat(w, tok, format, name ? NULL : tok->chat_template, messages, n_messages));
    if (add_generation_prompt) put_open(w, format, "assistant");
    if (add_generation_prompt && thinking == CA_THINKING_OFF) put_str(w, "<think>\n\n</think>\n\n");
    put(w, "", 0); /* an empty text, too, is one */
    return w->status;
}

ca_status ca_chat_render_as(const ca_tokenizer *tok, const char *name, ca_thinking thinking, const ca_message *messages,
                            size_t n_messages, bool add_generation_prompt, char **text, size_t *len)
{
    if (!tok) return ca_fail(CA_E_ARG, "ca_chat_render: there is no tokenizer; a model of random weights has none");
    if (!text || !len || (!messages && n_messages > 0))
        return ca_fail(CA_E_ARG, "ca_chat_render: messages, text and len are needed");
    writer w = { .status = CA_OK };
    *text = NULL;
    *len = 0;
    CA_TRY(check_messages(messages, n_messages));
    const ca_status st = render(tok, name, thinking, messages, n_messages, add_generation_prompt, &w);
    if (st != CA_OK) {
        free(w.text);
        return st;
    }
    *text = w.text;
    *len = w.len;
    return CA_OK;
}

ca_status ca_chat_render(const ca_tokenizer *tok, const ca_message *messages, size_t n_messages, bool add_generation_prompt,
                         char **text, size_t *len)
{
    return ca_chat_render_as(tok, NULL, CA_THINKING_DEFAULT, messages, n_messages, add_generation_prompt, text, len);
}

/* ---- tokens ---- */

/* Tokens of a conversation that is read from its start to its end. */
typedef struct reader {
    const ca_tokenizer *tok;
    const char *text;
    uint32_t *ids;
    size_t n_ids;
} reader;

static ca_status read_part(reader *r, size_t from, size_t to, unsigned flags)
{
    uint32_t *part = NULL;
    size_t n = 0;
    CA_TRY(ca_tokenize(r->tok, r->text + from, to - from, flags, &part, &n));
    uint32_t *all = n > 0 ? realloc(r->ids, (r->n_ids + n) * sizeof *all) : r->ids;
    if (n > 0 && all) {
        memcpy(all + r->n_ids, part, n * sizeof *all);
        r->ids = all;
        r->n_ids += n;
    }
    free(part);
    return n > 0 && !all ? ca_fail(CA_E_MEMORY, "chat: no memory for %zu tokens", r->n_ids + n) : CA_OK;
}

/* Whether a part would be other tokens if its control tokens counted. */
static ca_status spells_control(const reader *r, span part, bool *out)
{
    uint32_t *plain = NULL, *parsed = NULL;
    size_t n_plain = 0, n_parsed = 0;
    CA_TRY(ca_tokenize(r->tok, r->text + part.from, part.to - part.from, 0, &plain, &n_plain));
    const ca_status st = ca_tokenize(r->tok, r->text + part.from, part.to - part.from, CA_TOK_PARSE_SPECIAL, &parsed, &n_parsed);
    *out = st == CA_OK && (n_plain != n_parsed || (n_plain > 0 && memcmp(plain, parsed, n_plain * sizeof *plain) != 0));
    free(plain);
    free(parsed);
    return st;
}

/* A text is split only where it must be: tokens may reach over the end of a content. */
static ca_status read_chat(reader *r, const writer *w, bool *spelled)
{
    size_t done = 0;
    for (size_t i = 0; i < w->n_contents; i++) {
        bool control = false;
        CA_TRY(spells_control(r, w->contents[i], &control));
        if (!control) continue;
        *spelled = true;
        CA_TRY(read_part(r, done, w->contents[i].from, CA_TOK_PARSE_SPECIAL));
        CA_TRY(read_part(r, w->contents[i].from, w->contents[i].to, 0));
        done = w->contents[i].to;
    }
    return read_part(r, done, w->len, CA_TOK_PARSE_SPECIAL);
}

ca_status ca_chat_tokenize(const ca_tokenizer *tok, const char *name, ca_thinking thinking, const ca_message *messages,
                           size_t n_messages, bool add_generation_prompt, uint32_t **ids, size_t *n_ids, bool *spelled)
{
    if (!tok) return ca_fail(CA_E_ARG, "ca_chat_tokenize: there is no tokenizer; a model of random weights has none");
    if (!ids || !n_ids || (!messages && n_messages > 0))
        return ca_fail(CA_E_ARG, "ca_chat_tokenize: messages, ids and n_ids are needed");
    writer w = { .status = CA_OK };
    reader r = { .tok = tok };
    bool any = false;
    *ids = NULL;
    *n_ids = 0;
    CA_TRY(check_messages(messages, n_messages));
    w.contents = calloc(n_messages, 2 * sizeof *w.contents); /* thoughts and answer */
    ca_status st = w.contents ? CA_OK : ca_fail(CA_E_MEMORY, "chat: no memory for %zu messages", n_messages);
    if (st == CA_OK) st = render(tok, name, thinking, messages, n_messages, add_generation_prompt, &w);
    r.text = w.text;
    if (st == CA_OK) st = read_chat(&r, &w, &any);
    free(w.text);
    free(w.contents);
    if (st != CA_OK) {
        free(r.ids);
        return st;
    }
    *ids = r.ids;
    *n_ids = r.n_ids;
    if (spelled) *spelled = any;
    return CA_OK;
}
