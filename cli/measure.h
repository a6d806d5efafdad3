/* One prefill, measured; and what every subcommand reports of it. */
#ifndef CLI_MEASURE_H
#define CLI_MEASURE_H

#include "engine.h"
#include "progress.h"

#include <jansson.h>
#include <stdio.h>

/* Numbers that do not apply are NaN, pointers NULL. */
struct result {
    const char *method; /* borrowed */
    size_t prompt_tokens;
    double ttft_ms; /* from the first prompt token going in to the first new token */
    double prefill_ms, attention_ms, select_ms, gemm_ms, kept_fraction, gflop;
    double gemm_gflop_s;  /* rate of the matrix products */
    double share_of_peak; /* gflop / prefill time / measured peak */
    double decode_tok_s, mean_nll;
    enum { ENDED_STOP, ENDED_LENGTH, ENDED_CONTEXT, ENDED_INTERRUPTED } ended; /* why the model's text ends where it does */
    uint32_t first_token;
    uint32_t *tokens; /* what the model wrote; malloc'ed */
    size_t n_tokens;
    char *text; /* the same as text; malloc'ed */
};

/* The method's name is borrowed. */
void result_init(struct result *result, const struct method *method);
void result_free(struct result *result);

/* Feeds ids to a session that is empty, with progress and Ctrl-C. hooks may be NULL; its on_progress and cancel are not used. */
ca_status measure_feed(ca_session *session, const uint32_t *ids, size_t n, const char *label, enum progress_style style,
                       const ca_prefill_opt *hooks);

/* The same and then one sampled token; fills the prefill part of the result except share_of_peak. */
ca_status measure_prefill(const struct engine *engine, ca_session *session, const uint32_t *ids, size_t n,
                          enum progress_style style, ca_sampler *sampler, const ca_prefill_opt *hooks, struct result *result);

/* --last-chunk merge: accuracy is published with a last chunk that joins the one before it when it is shorter (latency is not). */
bool measure_merges(const struct options *options);
/* engine_session with what measure_merged needs: *chunk is for it, 0 when nothing is merged; the session's own has room for two. Where
 * the memory is short, that is told, *out is NULL and the call has succeeded. */
int measure_session(const struct engine *engine, const struct options *options, const struct method *method, size_t n_prompt,
                    size_t n_more, uint32_t *chunk, ca_session **out);
/* Feeds ids to a session that is empty, chunk by chunk. A dense tail must not be longer than a chunk. Of hooks, on_progress and cancel
 * are used. */
ca_status measure_merged(ca_session *session, const uint32_t *ids, size_t n, uint32_t chunk, const ca_prefill_opt *hooks);

/* Copies the session's statistics into the prefill part of the result. */
void measure_stats(const ca_session *session, struct result *result);

/* Sets share_of_peak from gflop and prefill_ms. */
void measure_share(struct result *result, double peak_gflops);

/* Prompt tokens per second of prefill. */
double result_prefill_rate(const struct result *result);

/* A JSON object with the keys that every subcommand shares; not applicable = null. NULL when memory is short. */
json_t *result_json(const struct result *result);

/* Per layer: kept fractions as asked, after each union and as executed, row shapes, times. A JSON array; a table. */
json_t *layers_json(const ca_session *session, uint32_t n_layers);
void layers_print(const ca_session *session, uint32_t n_layers, FILE *out);

/* json_real, or null for NaN. json_string, with bytes that are not UTF-8 as "?". */
json_t *json_number(double value);
json_t *json_text(const char *text);

/* Prints the value on standard output and releases it. Returns an exit code. */
int json_print(json_t *value);

#endif
