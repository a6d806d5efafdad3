/* compactattn run: reads a prompt, prefills it in chunks, writes what the model answers. */
#include "commands.h"
#include "engine.h"
#include "generate.h"
#include "interrupt.h"
#include "message.h"
#include "method.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* The document: -p, -f or standard input. *text is malloc'ed. */
static int read_document(const struct options *options, char **text, size_t *size)
{
    if (options->prompt) {
        *size = strlen(options->prompt);
        *text = strdup(options->prompt);
        return *text ? EXIT_DONE : fail("no memory for the prompt");
    }
    if (!options->file && isatty(STDIN_FILENO)) note("reading the prompt from the terminal; end it with Ctrl-D");
    return engine_read_text(options->file, text, size);
}

/* document, blank line, question. *text is malloc'ed. */
static int join_question(char **text, size_t *size, const char *question)
{
    const size_t more = strlen(question) + 2;
    char *joined = realloc(*text, *size + more + 1);
    if (!joined) return fail("no memory for the prompt");
    memcpy(joined + *size, "\n\n", 2);
    memcpy(joined + *size + 2, question, more - 1);
    *text = joined;
    *size += more;
    return EXIT_DONE;
}

/* True when the text holds what would become control tokens, such as "<|im_end|>". */
static int holds_control_tokens(const struct engine *engine, const char *text, size_t size, bool *out)
{
    uint32_t *plain = NULL, *parsed = NULL;
    size_t n_plain = 0, n_parsed = 0;
    int code = engine_tokenize(engine, text, size, 0, &plain, &n_plain);
    if (code == EXIT_DONE) code = engine_tokenize(engine, text, size, CA_TOK_PARSE_SPECIAL, &parsed, &n_parsed);
    *out = code == EXIT_DONE && (n_plain != n_parsed || (n_plain > 0 && memcmp(plain, parsed, n_plain * sizeof *plain) != 0));
    ca_free(plain);
    ca_free(parsed);
    return code;
}

/* Tokens of a piece, appended to *ids. */
static int append_piece(const struct engine *engine, const char *text, size_t size, unsigned flags, uint32_t **ids, size_t *n_ids)
{
    uint32_t *piece = NULL;
    size_t n = 0;
    const int code = engine_tokenize(engine, text, size, flags, &piece, &n);
    uint32_t *all = code == EXIT_DONE ? realloc(*ids, (*n_ids + n + 1) * sizeof *all) : NULL;
    if (all) {
        if (n > 0) memcpy(all + *n_ids, piece, n * sizeof *all);
        *ids = all;
        *n_ids += n;
    }
    ca_free(piece);
    return code != EXIT_DONE || all ? code : fail("no memory for the prompt's tokens");
}

/* The template's control tokens count, those inside the text do not: a document cannot end its own turn. Templates may trim what they
 * are given, so the text is looked for without the blanks around it. */
static int tokenize_rendered(const struct engine *engine, const char *rendered, size_t length, const char *text, size_t size,
                             uint32_t **ids, size_t *n_ids)
{
    static const char blanks[] = " \t\r\n\v\f";
    bool control = false;
    const int code = holds_control_tokens(engine, text, size, &control);
    if (code != EXIT_DONE) return code;
    const char *first = text + strspn(text, blanks), *end = text + size;
    while (end > first && strchr(blanks, end[-1])) end--;
    char *inner = control ? strndup(first, (size_t)(end - first)) : NULL;
    const char *at = inner ? strstr(rendered, inner) : NULL;
    free(inner);
    if (control && !at) return fail("the text holds control tokens of the model, which its template hides: use --raw");
    if (!at) return append_piece(engine, rendered, length, CA_TOK_PARSE_SPECIAL, ids, n_ids);
    const size_t before = (size_t)(at - rendered), inside = (size_t)(end - first);
    note("the text holds control tokens of the model; they are read as plain text");
    int done = append_piece(engine, rendered, before, CA_TOK_PARSE_SPECIAL, ids, n_ids);
    if (done == EXIT_DONE) done = append_piece(engine, at, inside, 0, ids, n_ids);
    if (done == EXIT_DONE) done = append_piece(engine, at + inside, length - before - inside, CA_TOK_PARSE_SPECIAL, ids, n_ids);
    return done;
}

static ca_thinking thinking(const struct options *options)
{
    if (!options->thinking) return CA_THINKING_DEFAULT;
    return strcmp(options->thinking, "on") == 0 ? CA_THINKING_ON : CA_THINKING_OFF;
}

/* The chat template is to be used, and not only when there is one. */
static bool asks_for_chat(const struct options *options)
{
    return options->chat || options->chat_template || options->thinking;
}

static int tokenize_chat(const struct engine *engine, const struct options *options, const char *text, size_t size, uint32_t **ids,
                         size_t *n_ids)
{
    const ca_message message = { "user", text };
    char *rendered = NULL;
    size_t length = 0;
    if (memchr(text, '\0', size)) return fail("the text holds a NUL byte, which a chat message cannot: remove it or use --raw");
    const ca_status status = ca_chat_render_as(engine->tokenizer, options->chat_template, thinking(options), &message, 1, true,
                                               &rendered, &length);
    if (status == CA_E_UNSUPPORTED && !asks_for_chat(options)) /* not asked for: a model without a template continues the text */
        return engine_tokenize(engine, text, size, CA_TOK_ADD_BOS, ids, n_ids);
    if (status != CA_OK) return fail_library(status);
    const int code = tokenize_rendered(engine, rendered, length, text, size, ids, n_ids);
    ca_free(rendered);
    return code;
}

/* Document and question. *text is malloc'ed. */
static int read_prompt(const struct options *options, char **text, size_t *size)
{
    int code = read_document(options, text, size);
    if (code == EXIT_DONE && options->ask) code = join_question(text, size, options->ask);
    if (code == EXIT_DONE && *size == 0) code = fail("the prompt is empty: give text with -f, -p or on standard input");
    return code;
}

static int tokenize_prompt(const struct engine *engine, const struct options *options, const char *text, size_t size,
                           uint32_t **ids, size_t *n_ids)
{
    const bool chat = asks_for_chat(options) || (!options->raw && (options->prompt || options->ask));
    const int code = chat ? tokenize_chat(engine, options, text, size, ids, n_ids)
                          : engine_tokenize(engine, text, size, CA_TOK_ADD_BOS, ids, n_ids);
    if (code == EXIT_DONE && *n_ids == 0) return fail("the prompt holds no token: its bytes are unknown to the model");
    return code;
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

static int print_forecast(const struct engine *engine, const struct options *options, const struct method *method, size_t n_prompt)
{
    ca_session_opt opt;
    ca_session_memory memory;
    const int code = engine_session_opt(engine, options, method, n_prompt, (size_t)options->max_tokens, &opt);
    if (code != EXIT_DONE) return code;
    const ca_status status = ca_session_forecast(engine->model, &opt, &memory);
    if (status != CA_OK) return fail_library(status);
    const uint64_t weights = engine->info.packed_bytes, total = weights + memory.kv_bytes + memory.workspace_bytes;
    if (options->json)
        return json_print(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "method", method->name, "prompt_tokens",
                                    (json_int_t)n_prompt, "context", (json_int_t)opt.context, "weights_bytes", (json_int_t)weights,
                                    "kv_bytes", (json_int_t)memory.kv_bytes, "workspace_bytes", (json_int_t)memory.workspace_bytes,
                                    "total_bytes", (json_int_t)total));
    printf("prompt      %10zu tokens, context %u, %s\nweights     %10.1f MiB\nKV pages    %10.1f MiB\nworkspace   %10.1f MiB\n"
           "total       %10.1f MiB\n",
           n_prompt, opt.context, method->name, mib(weights), mib(memory.kv_bytes), mib(memory.workspace_bytes), mib(total));
    return EXIT_DONE;
}

static void print_stats(const struct engine *engine, const ca_session *session, const struct result *r)
{
    ca_session_stats stats;
    struct rusage usage = { 0 };
    ca_session_get_stats(session, &stats);
    getrusage(RUSAGE_SELF, &usage);
    fprintf(stderr,
            "method      %s, kernels %s, %d threads\n"
            "prefill     %zu tokens in %.0f ms: %.0f tokens/s, first token after %.0f ms, %.0f %% of peak\n"
            "attention   %.0f ms (selecting %.0f ms, tables %.0f ms), matrix products %.0f ms, %.0f %% of past KV pages read\n"
            "decode      %zu tokens, %.1f tokens/s\n"
            "memory      weights %.0f MiB, KV pages %.0f MiB, workspace %.0f MiB, process peak %.0f MiB\n",
            r->method, engine->kernels, engine->n_threads, r->prompt_tokens, r->prefill_ms, result_prefill_rate(r), r->ttft_ms,
            100 * r->share_of_peak, r->attention_ms, r->select_ms, stats.table_ms, stats.gemm_ms, 100 * r->kept_fraction,
            r->n_tokens, r->decode_tok_s, mib(engine->info.packed_bytes), mib(stats.kv_bytes), mib(stats.workspace_bytes),
            (double)usage.ru_maxrss / 1024);
    layers_print(session, engine->info.n_layers, stderr);
}

static int answer(const struct engine *engine, const struct options *options, ca_session *session, const uint32_t *ids,
                  size_t n_ids, struct result *result)
{
    ca_sampler sampler = { (float)options->temperature, (float)options->top_p, (uint64_t)options->seed };
    const bool measures = options->json || options->stats;
    const double peak = measures ? engine_peak(engine) : 0;
    interrupt_catch();
    size_t reused = 0;
    if (options->load_cache) {
        const ca_status loaded = ca_session_load(session, options->load_cache);
        if (loaded != CA_OK) return fail_library(loaded);
        reused = engine_reuse(session, ids, n_ids);
        note("%zu of %zu prompt tokens are in %s", reused, n_ids, options->load_cache);
    }
    ca_status status = measure_prefill(engine, session, ids + reused, n_ids - reused,
                                       progress_style(options->progress, PROGRESS_OFF), &sampler, NULL, result);
    if (status != CA_OK) return fail_library(status);
    measure_share(result, peak);
    if (options->save_cache) {
        const ca_status saved = ca_session_save(session, options->save_cache);
        if (saved != CA_OK) return fail_library(saved);
    }
    status = generate(engine, session, &sampler, (size_t)options->max_tokens, &options->stops, options->json ? NULL : stdout,
                      result);
    if (!options->json) putchar('\n');
    if (status != CA_OK && status != CA_E_CANCELED) return fail_library(status);
    int code = EXIT_DONE;
    if (options->json) {
        json_t *json = result_json(result);
        if (json && options->stats) json_object_set_new(json, "layers", layers_json(session, engine->info.n_layers));
        code = json_print(json);
    }
    if (options->stats) print_stats(engine, session, result);
    return status == CA_E_CANCELED ? fail_library(status) : code;
}

static int run_prompt(const struct engine *engine, const struct options *options, const struct method *method, const char *text,
                      size_t size)
{
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    struct result result;
    ca_session *session = NULL;
    result_init(&result, method);
    int code = tokenize_prompt(engine, options, text, size, &ids, &n_ids);
    if (code == EXIT_DONE && options->dry_run) {
        code = print_forecast(engine, options, method, n_ids);
    } else if (code == EXIT_DONE) {
        code = engine_session(engine, options, method, n_ids, (size_t)options->max_tokens, &session);
        if (code == EXIT_DONE) code = answer(engine, options, session, ids, n_ids, &result);
    }
    ca_session_destroy(session);
    result_free(&result);
    ca_free(ids);
    return code;
}

static int run(const struct options *options)
{
    struct engine engine = { 0 };
    struct method method;
    char *text = NULL;
    size_t size = 0;
    if (options->prompt && options->file) return usage_error("-p and -f exclude each other");
    if (asks_for_chat(options) && options->raw)
        return usage_error("--raw and --chat, --chat-template or --thinking exclude each other");
    int code = method_from_options(options, "auto", &method);
    if (code == EXIT_DONE) code = read_prompt(options, &text, &size);
    if (code == EXIT_DONE) code = engine_open(options, &engine);
    if (code == EXIT_DONE) code = run_prompt(&engine, options, &method, text, size);
    engine_close(&engine);
    free(text);
    return code;
}

const struct command command_run = {
    .name = "run",
    .summary = "Answer a question about a text, or continue it",
    .synopsis = "-m MODEL [-f FILE | -p TEXT] [--ask TEXT] [OPTIONS]",
    .details = "The text comes from -f, -p or standard input and is read in chunks; the answer is written as it comes.\n\n"
               "Examples:\n"
               "  compactattn run -m model.gguf -p \"Name three rivers.\"\n"
               "  compactattn run -m model.gguf -f book.txt --ask \"Who is the captain?\" --stats\n"
               "  compactattn run -m model.gguf -f book.txt --raw -n 50 --executor dense --json",
    .bit = CMD_RUN,
    .run = run,
};
