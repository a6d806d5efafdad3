/* compactattn chat: a conversation. Each turn reads only what the last one left unread: the cache of the common start is kept. */
#include "commands.h"
#include "engine.h"
#include "generate.h"
#include "interrupt.h"
#include "message.h"
#include "method.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct chat {
    const struct engine *engine;
    const struct options *options;
    ca_session *session;
    ca_sampler sampler;
    ca_message *messages; /* contents are malloc'ed */
    size_t n_messages;
    bool failed; /* a message did not fit */
};

static bool add_message(struct chat *chat, const char *role, const char *content)
{
    ca_message *more = realloc(chat->messages, (chat->n_messages + 1) * sizeof *more);
    char *copy = strdup(content);
    if (more) chat->messages = more;
    if (!more || !copy) {
        free(copy);
        return false;
    }
    more[chat->n_messages].role = role;
    more[chat->n_messages++].content = copy;
    return true;
}

static void drop_messages(struct chat *chat, size_t keep)
{
    while (chat->n_messages > keep) free((char *)(uintptr_t)chat->messages[--chat->n_messages].content);
}

static int make_ids(const struct chat *chat, uint32_t **ids, size_t *n_ids)
{
    const struct options *o = chat->options;
    const ca_status status = ca_chat_tokenize(chat->engine->tokenizer, o->chat_template, engine_thinking(o), chat->messages,
                                              chat->n_messages, true, ids, n_ids, NULL);
    return status == CA_OK ? EXIT_DONE : fail_library(status);
}

/* Whether the conversation and the first token of an answer fit; a message that does not is forgotten aloud. */
static bool has_room(struct chat *chat, size_t n_ids)
{
    const uint32_t context = ca_session_context(chat->session);
    if (n_ids < context) return true;
    note(
        "the conversation has %zu tokens now, and the context holds %u: the message is forgotten; /reset starts anew, --ctx raises it",
        n_ids, context);
    drop_messages(chat, chat->n_messages - 1);
    chat->failed = true;
    return false;
}

static void tell_turn(const struct result *result, size_t n_ids, size_t reused)
{
    char rate[40] = "";
    if (!isnan(result->decode_tok_s)) snprintf(rate, sizeof rate, ", %.1f tokens/s", result->decode_tok_s);
    note("%zu tokens, %zu of them reused, first token after %.0f ms%s", n_ids, reused, result->ttft_ms, rate);
}

/* One answer; the text of the assistant's turn becomes a message. */
static int take_turn(struct chat *chat)
{
    const struct options *o = chat->options;
    struct method method = { 0 };
    struct result result;
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    int code = make_ids(chat, &ids, &n_ids);
    if (code != EXIT_DONE) return code;
    if (!has_room(chat, n_ids)) {
        ca_free(ids);
        return EXIT_DONE;
    }
    const size_t reused = engine_reuse(chat->session, ids, n_ids);
    result_init(&result, &method);
    interrupt_catch();
    ca_status status = measure_prefill(chat->engine, chat->session, ids + reused, n_ids - reused,
                                       progress_style(o->progress, PROGRESS_OFF), &chat->sampler, NULL, &result);
    if (status == CA_OK)
        status = generate(chat->engine, chat->session, &chat->sampler, (size_t)o->max_tokens, &o->stops, stdout, &result);
    putchar('\n');
    const bool unsaid = status == CA_E_CANCELED && result.n_tokens == 0;
    if (status == CA_E_CANCELED) { /* what was said stays said */
        note(unsaid ? "interrupted: the message is forgotten" : "interrupted");
        interrupt_flag = 0;
        status = CA_OK;
    }
    if (status != CA_OK) code = fail_library(status);
    if (o->stats && status == CA_OK && !unsaid) tell_turn(&result, n_ids, reused);
    if (result.ended == ENDED_CONTEXT)
        note("the answer ends where the context of %u tokens does: /reset starts anew, --ctx raises it",
             ca_session_context(chat->session));
    if (unsaid)
        drop_messages(chat, chat->n_messages - 1);
    else if (code == EXIT_DONE && !add_message(chat, "assistant", result.text ? result.text : ""))
        code = fail("no memory for the answer");
    result_free(&result);
    ca_free(ids);
    return code;
}

static void greet(const struct chat *chat)
{
    note("%s, context of %u tokens. /reset starts anew, /bye or Ctrl-D ends, Ctrl-C stops an answer.", chat->engine->info.name,
         ca_session_context(chat->session));
}

/* The next line without its end. False when there is none: then *code says why. A terminal's Ctrl-C begins the line anew. */
static bool read_line(bool terminal, char **line, size_t *cap, ssize_t *n, int *code)
{
    for (;;) {
        interrupt_catch_reading();
        if (terminal) {
            fputs("> ", stdout);
            fflush(stdout);
        }
        errno = 0;
        *n = getline(line, cap, stdin);
        if (*n >= 0) break;
        if (!ferror(stdin)) return false;
        if (errno != EINTR) *code = fail("standard input: %s", strerror(errno));
        if (errno == EINTR && !terminal) *code = EXIT_INTERRUPTED;
        if (*code != EXIT_DONE) return false;
        clearerr(stdin);
        putchar('\n');
    }
    if (*n > 0 && (*line)[*n - 1] == '\n') (*line)[--*n] = '\0';
    if (*n > 0 && (*line)[*n - 1] == '\r') (*line)[--*n] = '\0';
    while (**line == '/' && *n > 1 && (*line)[*n - 1] == ' ') (*line)[--*n] = '\0'; /* of a command */
    return true;
}

/* Lines of standard input until it ends. */
static int converse(struct chat *chat)
{
    const bool terminal = isatty(STDIN_FILENO);
    const size_t first = chat->n_messages; /* the system's message stays */
    char *line = NULL;
    size_t cap = 0;
    ssize_t n = 0;
    int code = EXIT_DONE;
    if (terminal) greet(chat);
    while (code == EXIT_DONE && read_line(terminal, &line, &cap, &n, &code)) {
        if (strlen(line) != (size_t)n) {
            code = fail("a line holds a NUL byte, which a message cannot");
        } else if (strcmp(line, "/bye") == 0) {
            break;
        } else if (strcmp(line, "/reset") == 0) {
            drop_messages(chat, first);
        } else if (n > 0) {
            code = add_message(chat, "user", line) ? take_turn(chat) : fail("no memory for the message");
        }
    }
    free(line);
    return code == EXIT_DONE && chat->failed ? EXIT_FAILED : code;
}

static int run(const struct options *options)
{
    enum { CONTEXT = 8192 };
    struct engine engine = { 0 };
    struct method method;
    struct options with_context = *options;
    struct chat chat = { .engine = &engine, .options = options };
    int code = method_from_options(options, "auto", &method);
    if (code == EXIT_DONE) code = engine_open(options, &engine);
    if (code == EXIT_DONE && options->context < 0)
        with_context.context = engine.info.max_context < CONTEXT ? engine.info.max_context : CONTEXT;
    if (code == EXIT_DONE) code = engine_session(&engine, &with_context, &method, 1, 0, &chat.session);
    chat.sampler = (ca_sampler){ (float)options->temperature, (float)options->top_p, (uint64_t)options->seed };
    if (code == EXIT_DONE && options->system && !add_message(&chat, "system", options->system))
        code = fail("no memory for the message");
    if (code == EXIT_DONE) code = converse(&chat);
    drop_messages(&chat, 0);
    free(chat.messages);
    ca_session_destroy(chat.session);
    engine_close(&engine);
    return code;
}

const struct command command_chat = {
    .name = "chat",
    .summary = "Talk with a model, line by line",
    .synopsis = "-m MODEL [--system TEXT] [OPTIONS]",
    .details =
        "Each line of standard input is a message; the answer is written as it comes. A turn reads only what is new: the KV cache\n"
        "of what was said before is kept. /reset forgets the conversation, /bye ends it.\n\n"
        "Examples:\n"
        "  compactattn chat -m model.gguf --system \"You answer in one sentence.\"\n"
        "  printf 'Name a river.\\nAnd another.\\n' | compactattn chat -m model.gguf --stats",
    .bit = CMD_CHAT,
    .run = run,
};
