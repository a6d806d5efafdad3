#include "measure.h"

#include "clock.h"
#include "interrupt.h"
#include "message.h"
#include "method.h"
#include "report/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void result_init(struct result *result, const struct method *method)
{
    *result = (struct result){ .method = method->name };
    result->ttft_ms = result->prefill_ms = result->attention_ms = result->select_ms = result->kept_fraction = NAN;
    result->gemm_ms = result->gemm_gflop_s = result->gflop = result->share_of_peak = result->decode_tok_s = result->mean_nll = NAN;
}

void result_free(struct result *result)
{
    free(result->tokens);
    free(result->text);
    result->tokens = NULL;
    result->text = NULL;
}

/* The library's callbacks share one user pointer: this passes on what the hooks ask for. */
struct relay {
    struct progress progress;
    const ca_prefill_opt *hooks;
};

static void relay_progress(void *user, double done, double total)
{
    struct relay *relay = user;
    progress_update(&relay->progress, done, total);
}

static ca_status relay_logits(void *user, uint32_t position, const float *logits)
{
    const struct relay *relay = user;
    return relay->hooks->on_logits(relay->hooks->user, position, logits);
}

static void relay_trace(void *user, const ca_trace *trace)
{
    const struct relay *relay = user;
    relay->hooks->on_trace(relay->hooks->user, trace);
}

ca_status measure_feed(ca_session *session, const uint32_t *ids, size_t n, const char *label, enum progress_style style,
                       const ca_prefill_opt *hooks)
{
    struct relay relay = { .hooks = hooks };
    ca_prefill_opt opt = { .user = &relay, .on_progress = relay_progress, .cancel = &interrupt_flag };
    if (hooks && hooks->on_logits) {
        opt.n_logits = hooks->n_logits;
        opt.on_logits = relay_logits;
    }
    if (hooks && hooks->on_trace) opt.on_trace = relay_trace;
    progress_begin(&relay.progress, label, style);
    const ca_status status = ca_session_prefill(session, ids, n, &opt);
    progress_end(&relay.progress);
    return status;
}

bool measure_merges(const struct options *options)
{
    return options->last_chunk && strcmp(options->last_chunk, "merge") == 0;
}

int measure_session(const struct engine *engine, const struct options *options, const struct method *method, size_t n_prompt,
                    size_t n_more, uint32_t *chunk, ca_session **out)
{
    ca_session_opt opt;
    const int code = engine_session_opt(engine, options, method, n_prompt, n_more, &opt);
    if (code != EXIT_DONE) return code;
    *chunk = measure_merges(options) ? opt.chunk : 0;
    if (*chunk > 0) opt.chunk = 2 * *chunk - 1; /* a prompt that is shorter needs less: the library cuts it to the context */
    const ca_status status = ca_session_create(engine->model, &opt, out);
    if (status == CA_E_MEMORY) note("%s", ca_last_error());
    return status == CA_OK || status == CA_E_MEMORY ? EXIT_DONE : fail_library(status);
}

/* Progress of one call among several. */
struct part {
    const ca_prefill_opt *hooks;
    double before, total;
};

static void part_progress(void *user, double done, double total)
{
    const struct part *part = user;
    (void)total;
    part->hooks->on_progress(part->hooks->user, part->before + done, part->total);
}

ca_status measure_merged(ca_session *session, const uint32_t *ids, size_t n, uint32_t chunk, const ca_prefill_opt *hooks)
{
    struct part part = { .hooks = hooks, .total = (double)n };
    ca_prefill_opt opt = { .user = &part, .on_progress = hooks->on_progress ? part_progress : NULL, .cancel = hooks->cancel };
    ca_status status = CA_OK;
    if (chunk == 0) return ca_session_prefill(session, ids, n, hooks);
    for (size_t at = 0, size; at < n && status == CA_OK; at += size) {
        size = (n - at) / 2 < chunk ? n - at : chunk;
        part.before = (double)at;
        opt.more_follows = at + size < n;
        status = ca_session_prefill(session, ids + at, size, &opt);
    }
    return status;
}

ca_status measure_prefill(const struct engine *engine, ca_session *session, const uint32_t *ids, size_t n,
                          enum progress_style style, ca_sampler *sampler, const ca_prefill_opt *hooks, struct result *result)
{
    const double start = clock_ms();
    ca_status status = measure_feed(session, ids, n, result->method, style, hooks);
    if (status == CA_OK) status = ca_sample(sampler, ca_session_logits(session), engine->info.vocab, &result->first_token);
    if (status != CA_OK) return status;
    result->ttft_ms = clock_ms() - start;
    measure_stats(session, result);
    return CA_OK;
}

void measure_stats(const ca_session *session, struct result *result)
{
    ca_session_stats stats;
    ca_session_get_stats(session, &stats);
    result->prompt_tokens = stats.prefill_tokens;
    result->prefill_ms = stats.prefill_ms;
    result->attention_ms = stats.attention_ms;
    result->select_ms = stats.select_ms;
    result->kept_fraction = stats.kept_fraction;
    result->gemm_ms = stats.gemm_ms;
    result->gemm_gflop_s = stats.gemm_ms > 0 ? stats.gemm_gflop / (stats.gemm_ms / 1e3) : NAN;
    result->gflop = stats.gflop;
}

void measure_share(struct result *result, double peak_gflops)
{
    if (peak_gflops > 0 && result->prefill_ms > 0) result->share_of_peak = result->gflop / (result->prefill_ms / 1e3) / peak_gflops;
}

double result_prefill_rate(const struct result *result)
{
    return result->prefill_ms > 0 ? (double)result->prompt_tokens / (result->prefill_ms / 1e3) : NAN;
}

json_t *json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *json_text(const char *text)
{
    if (!text) return json_null();
    json_t *value = json_string(text);
    char *ascii = value ? NULL : strdup(text);
    if (!ascii) return value;
    for (char *c = ascii; *c; c++) {
        if (*c & 0x80) *c = '?';
    }
    value = json_string(ascii);
    free(ascii);
    return value;
}

static json_t *tokens_json(const struct result *result)
{
    json_t *tokens = result->tokens ? json_array() : json_null();
    for (size_t i = 0; result->tokens && i < result->n_tokens; i++) json_array_append_new(tokens, json_integer(result->tokens[i]));
    return tokens;
}

json_t *result_json(const struct result *result)
{
    return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "method", result->method,
                     "prompt_tokens", (json_int_t)result->prompt_tokens, "ttft_ms", json_number(result->ttft_ms), "prefill_ms",
                     json_number(result->prefill_ms), "prefill_tok_s", json_number(result_prefill_rate(result)), "attention_ms",
                     json_number(result->attention_ms), "select_ms", json_number(result->select_ms), "gemm_ms",
                     json_number(result->gemm_ms), "gemm_gflop_s", json_number(result->gemm_gflop_s), "kept_fraction",
                     json_number(result->kept_fraction), "share_of_peak", json_number(result->share_of_peak), "decode_tok_s",
                     json_number(result->decode_tok_s), "text", json_text(result->text), "tokens", tokens_json(result), "mean_nll",
                     json_number(result->mean_nll));
}

json_t *layers_json(const ca_session *session, uint32_t n_layers)
{
    json_t *layers = json_array();
    ca_layer_stats s;
    for (uint32_t l = 0; l < n_layers && ca_session_get_layer_stats(session, l, &s) == CA_OK; l++)
        json_array_append_new(layers, json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "layer", (int)l, "asked",
                                                s.asked, "q_union", s.q_union, "group_union", s.g_union, "executed", s.executed,
                                                "row_heads", s.row_heads, "row_qblocks", s.row_qblocks, "dense_rows", s.dense_rows,
                                                "select_ms", s.select_ms, "table_ms", s.table_ms, "kernel_ms", s.kernel_ms));
    return layers;
}

void layers_print(const ca_session *session, uint32_t n_layers, FILE *out)
{
    static const struct table_column columns[] = {
        { "layer", "layer", 0, NULL },          { "asked", "asked", 3, NULL },
        { "Q union", "q_union", 3, NULL },      { "group union", "group_union", 3, NULL },
        { "executed", "executed", 3, NULL },    { "heads a row", "row_heads", 1, NULL },
        { "Q blocks", "row_qblocks", 1, NULL }, { "dense rows", "dense_rows", 2, NULL },
        { "select ms", "select_ms", 1, NULL },  { "table ms", "table_ms", 1, NULL },
        { "kernel ms", "kernel_ms", 1, NULL },
    };
    struct table *table = table_create(columns, sizeof columns / sizeof *columns);
    ca_layer_stats s;
    for (uint32_t l = 0; table && l < n_layers && ca_session_get_layer_stats(session, l, &s) == CA_OK; l++) {
        const struct table_cell cells[] = {
            { NULL, l },           { NULL, s.asked },     { NULL, s.q_union },     { NULL, s.g_union },
            { NULL, s.executed },  { NULL, s.row_heads }, { NULL, s.row_qblocks }, { NULL, s.dense_rows },
            { NULL, s.select_ms }, { NULL, s.table_ms },  { NULL, s.kernel_ms }
        };
        (void)table_add(table, cells);
    }
    if (table) table_write_text(table, out);
    table_free(table);
}

int json_print(json_t *value)
{
    if (!value) return fail("no memory for the JSON result");
    const int written = json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12) | JSON_ENCODE_ANY);
    json_decref(value);
    putchar('\n');
    return written == 0 ? EXIT_DONE : fail("standard output: cannot be written");
}
