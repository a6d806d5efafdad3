/* Latency of chunked prefill (spec: evaluation, A): prompts, one run of one method, and the summary of all runs.
 *
 * A row is a JSON object that says what was run (method, threads, chunk_size, batch_size, seq_len, phase, index, ..), its status ("ok",
 * "oom" or "failed", with error) and what was measured; it is one line of runs.jsonl. */
#ifndef EVAL_LATENCY_H
#define EVAL_LATENCY_H

#include "cli/method.h"
#include "eval/dataset.h"

#include <compactattn/compactattn.h>
#include <jansson.h>
#include <stdio.h>

/* ---- prompts ---- */

enum latency_source { LATENCY_RANDOM, LATENCY_TEXT, LATENCY_RULER };

/* Where prompts come from. Ids are taken modulo the vocabulary: a shape may be read with another model's tokenizer. */
struct latency_input {
    enum latency_source source;
    bool cycle; /* another batch each run */
    uint64_t seed;
    uint32_t vocab;
    const ca_tokenizer *tokenizer; /* NULL for random ids */
    uint32_t *ids;                 /* [n_ids] of the text, ca_free */
    size_t n_ids;
    const char *root, *task; /* ROOT/synthetic/LENGTH/data/TASK/validation.jsonl */
    struct dataset rows;     /* of the length that was read last */
    size_t rows_of, told_of; /* lengths: of the rows; of which it was told that they do not fill it */
};

enum { LATENCY_WHY = 256 };

/* Prompts of a run, out [batch][length]. Record b of run t is (cycle ? t : 0) + b, modulo the number of records: lines of the RULER file,
 * starts in the text that lie a length apart, or draws. A RULER prompt is cut at length or filled up with id 0. NULL, or why not
 * (in why). */
const char *latency_prompts(struct latency_input *input, uint32_t length, uint32_t batch, uint32_t run, uint32_t *out,
                            char why[LATENCY_WHY]);
/* The RULER file of a length; false when the path is too long. */
bool latency_ruler_path(const struct latency_input *input, uint32_t length, char *path, size_t cap);
void latency_input_free(struct latency_input *input);
const char *latency_source_name(enum latency_source source);

/* ---- a method ---- */

struct latency_method {
    struct method method;
    double keep; /* NaN, or the share of the past that it reads: random pages */
    uint32_t n_kv_heads;
};

/* The selector of a method with a share: the first page, the last one and pages drawn per KV head and chunk, the same for all heads and
 * Q blocks of a KV head, so that the union is that share of the past pages. */
ca_status latency_keep_share(void *user, const ca_cache *cache, const ca_chunk *chunk, const ca_queries *q, ca_mask *mask);

/* ---- a run ---- */

struct latency_job {
    const ca_model *model;
    const ca_model_info *whole; /* with all layers */
    const ca_session_opt *opt;
    uint32_t batch, length;
    const uint32_t *ids;   /* [batch][length] */
    ca_session **sessions; /* [batch]; one that is NULL is created and stays with the caller, also on failure */
    uint64_t baseline;     /* bytes that the process holds without any session */
    uint64_t *peak;        /* of the sessions' first run; 0 = this is the first */
    void *user;
    void (*on_progress)(void *user, double tokens_done); /* of batch * length */
};

/* Reads the batch, chunk by chunk for every sequence in turn, and adds what was measured to the row. */
ca_status latency_run(const struct latency_job *job, json_t *row);

/* Floating-point operations in 1e9 of the first n tokens of a prompt: matrix products, which grow with n, and attention, which grows with
 * n * n (in layers with a window up to its length), over the share keep of the keys. For estimates. */
double latency_gflop(const ca_model_info *info, double n, double keep);

/* Bytes that the process holds now; 0 where the system does not say. */
uint64_t latency_resident(void);

/* ---- the summary ---- */

/* Over rows, which are borrowed. */
struct latency_summary;
struct latency_summary *latency_summarize(const json_t *rows, uint32_t warmup);
void latency_summary_free(struct latency_summary *summary);
size_t latency_summary_lines(const struct latency_summary *summary);
void latency_print(const struct latency_summary *summary, FILE *out); /* a table for people */
json_t *latency_json(const struct latency_summary *summary);
/* summary.csv, summary.md, and speedup.png (one per batch, chunk and threads, with names that say which when there are several).
 * Returns an exit code. */
int latency_write(const struct latency_summary *summary, const char *folder);

#endif
