/* compactattn run: reads a prompt, prefills it in chunks, writes what the model answers. */
#include "commands.h"
#include "engine.h"
#include "file.h"
#include "generate.h"
#include "interrupt.h"
#include "message.h"
#include "method.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
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

/* The chat template is to be used, and not only when there is one. */
static bool asks_for_chat(const struct options *options)
{
    return options->chat || options->chat_template || options->thinking;
}

static int tokenize_chat(const struct engine *engine, const struct options *options, const char *text, size_t size, uint32_t **ids,
                         size_t *n_ids)
{
    const ca_message message = { "user", text };
    bool spelled = false;
    if (memchr(text, '\0', size)) return fail("the text holds a NUL byte, which a chat message cannot: remove it or use --raw");
    const ca_status status = ca_chat_tokenize(engine->tokenizer, options->chat_template, engine_thinking(options), &message, 1,
                                              true, ids, n_ids, &spelled);
    if (status == CA_E_UNSUPPORTED && !asks_for_chat(options)) /* not asked for: a model without a template continues the text */
        return engine_tokenize(engine, text, size, CA_TOK_ADD_BOS, ids, n_ids);
    if (spelled) note("the text holds control tokens of the model; they are read as plain text");
    return status == CA_OK ? EXIT_DONE : fail_library(status);
}

/* Document and question. *text is malloc'ed. */
static int read_prompt(const struct options *options, char **text, size_t *size)
{
    int code = read_document(options, text, size);
    if (code == EXIT_DONE && *size == 0) code = fail("the prompt is empty: give text with -f, -p or on standard input");
    if (code == EXIT_DONE && options->ask) code = join_question(text, size, options->ask);
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
    char rate[40] = "";
    ca_session_get_stats(session, &stats);
    getrusage(RUSAGE_SELF, &usage);
    if (!isnan(r->decode_tok_s)) snprintf(rate, sizeof rate, ", %.1f tokens/s", r->decode_tok_s); /* the first token is prefill's */
    fprintf(stderr,
            "method      %s, kernels %s, %d threads\n"
            "prefill     %zu tokens in %.0f ms: %.0f tokens/s, first token after %.0f ms, %.0f %% of peak\n"
            "attention   %.0f ms (selecting %.0f ms, tables %.0f ms), matrix products %.0f ms, %.0f %% of past KV pages read\n"
            "decode      %zu tokens%s\n"
            "memory      weights %.0f MiB, KV pages %.0f MiB, workspace %.0f MiB, process peak %.0f MiB\n",
            r->method, engine->kernels, engine->n_threads, r->prompt_tokens, r->prefill_ms, result_prefill_rate(r), r->ttft_ms,
            100 * r->share_of_peak, r->attention_ms, r->select_ms, stats.table_ms, stats.gemm_ms, 100 * r->kept_fraction,
            r->n_tokens, rate, mib(engine->info.packed_bytes), mib(stats.kv_bytes), mib(stats.workspace_bytes),
            (double)usage.ru_maxrss / 1024);
    layers_print(session, engine->info.n_layers, stderr);
}

/* Fills the session with what a cache file and the prompt have in common. *reused: how many tokens need not be read. */
static int load_cache(const struct options *options, ca_session *session, const uint32_t *ids, size_t n_ids, size_t *reused)
{
    if (!options->load_cache) return EXIT_DONE;
    const ca_status loaded = ca_session_load(session, options->load_cache);
    if (loaded != CA_OK) return fail_library(loaded);
    *reused = engine_reuse(session, ids, n_ids);
    note("%zu of %zu prompt tokens are in %s", *reused, n_ids, options->load_cache);
    return EXIT_DONE;
}

static int print_json(const struct engine *engine, const struct options *options, const ca_session *session, size_t n_prompt,
                      size_t reused, const struct result *result)
{
    static const char *const ends[] = {
        [ENDED_STOP] = "stop", [ENDED_LENGTH] = "length", [ENDED_CONTEXT] = "context", [ENDED_INTERRUPTED] = "interrupted"
    };
    json_t *json = result_json(result);
    if (!json) return json_print(NULL);
    json_object_set_new(json, "prompt_tokens", json_integer((json_int_t)n_prompt));
    json_object_set_new(json, "reused_tokens", json_integer((json_int_t)reused));
    json_object_set_new(json, "finish_reason", json_string(ends[result->ended]));
    if (options->stats) json_object_set_new(json, "layers", layers_json(session, engine->info.n_layers));
    return json_print(json);
}

static int answer(const struct engine *engine, const struct options *options, ca_session *session, const uint32_t *ids,
                  size_t n_ids, struct result *result)
{
    ca_sampler sampler = { (float)options->temperature, (float)options->top_p, (uint64_t)options->seed };
    const bool measures = options->json || options->stats;
    const double peak = measures ? engine_peak(engine) : 0;
    interrupt_catch();
    size_t reused = 0;
    int code = load_cache(options, session, ids, n_ids, &reused);
    if (code != EXIT_DONE) return code;
    ca_status status = measure_prefill(engine, session, ids + reused, n_ids - reused,
                                       progress_style(options->progress, PROGRESS_OFF), &sampler, NULL, result);
    if (status != CA_OK) return fail_library(status);
    measure_share(result, peak);
    if (options->save_cache) { /* when it fails, the answer still comes */
        const ca_status saved = ca_session_save(session, options->save_cache);
        if (saved != CA_OK) code = fail_library(saved);
    }
    status = generate(engine, session, &sampler, (size_t)options->max_tokens, &options->stops, options->json ? NULL : stdout,
                      result);
    if (!options->json) putchar('\n');
    if (status != CA_OK && status != CA_E_CANCELED) return fail_library(status);
    if (result->ended == ENDED_CONTEXT)
        note("the answer ends where the context of %u tokens does: raise --ctx", ca_session_context(session));
    const int printed = options->json ? print_json(engine, options, session, n_ids, reused, result) : EXIT_DONE;
    if (options->stats) print_stats(engine, session, result);
    if (status == CA_E_CANCELED) return fail_library(status);
    return code == EXIT_DONE ? printed : code;
}

/* A kept cache may hold more than this prompt and its answer: a context that is not given has room for it. */
static int make_room(const struct options *options, size_t n_ids, size_t *n_more)
{
    uint32_t kept = 0;
    if (!options->load_cache) return EXIT_DONE;
    const ca_status status = ca_session_saved_len(options->load_cache, &kept);
    if (status != CA_OK) return fail_library(status);
    if (kept > n_ids + *n_more) *n_more = kept - n_ids;
    return EXIT_DONE;
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
        size_t n_more = (size_t)options->max_tokens;
        code = make_room(options, n_ids, &n_more);
        if (code == EXIT_DONE) code = engine_session(engine, options, method, n_ids, n_more, &session);
        if (code == EXIT_DONE) code = answer(engine, options, session, ids, n_ids, &result);
    }
    ca_session_destroy(session);
    result_free(&result);
    ca_free(ids);
    return code;
}

/* A saved cache takes the place of an older one, or of an empty file, not of another file. */
static int check_cache_target(const char *path)
{
    struct stat about;
    uint32_t n_tokens;
    const bool there = stat(path, &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0;
    if (there && ca_session_saved_len(path, &n_tokens) == CA_E_FORMAT)
        return fail("--save-cache %s: there is a file that is no saved session: give another name", path);
    return file_check_target(path, false);
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
    if (code == EXIT_DONE && options->save_cache) code = check_cache_target(options->save_cache);
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
    .details = "The text comes from -f, -p or standard input and is read in chunks; the answer is written as it comes.\n"
               "--json prints it with its tokens and times, and why it ends: stop, length (-n), context or interrupted.\n\n"
               "Examples:\n"
               "  compactattn run -m model.gguf -p \"Name three rivers.\"\n"
               "  compactattn run -m model.gguf -f book.txt --ask \"Who is the captain?\" --stats\n"
               "  compactattn run -m model.gguf -f book.txt --raw -n 50 --executor dense --json",
    .bit = CMD_RUN,
    .run = run,
};
