/* What the subcommands that compute share: the model, the prompt's tokens, and sessions that fit them. */
#ifndef CLI_ENGINE_H
#define CLI_ENGINE_H

#include "method.h"

#include <compactattn/compactattn.h>
#include <stddef.h>

struct engine {
    ca_model *model;
    const ca_tokenizer *tokenizer; /* NULL for a shape */
    ca_model_info info;
    ca_gate *gate; /* of --gate; NULL without */
    int n_threads;
    char kernels[32]; /* kernel set, and +int8 when matrix products are */
};

/* All functions that return int print their message and return an exit code. */

/* Opens the model of --model (and the gate of --gate) with --isa and --threads. engine_close is allowed after a failure too. */
int engine_open(const struct options *options, struct engine *engine);
/* The same with a shape: a config.json whose first n_layers (0 = all) get random weights of --seed, and no tokenizer. forecast: no weights. */
int engine_open_shape(const struct options *options, const char *path, uint32_t n_layers, bool forecast, struct engine *engine);
void engine_close(struct engine *engine);

/* A session for n_prompt tokens and n_more to come, and a check that they fit the context (--ctx, else just what is needed). */
int engine_session_opt(const struct engine *engine, const struct options *options, const struct method *method, size_t n_prompt,
                       size_t n_more, ca_session_opt *out);
int engine_session(const struct engine *engine, const struct options *options, const struct method *method, size_t n_prompt,
                   size_t n_more, ca_session **out);

/* Cuts the session to what it has in common with a prompt, less the last token, which must be read again to have logits. Returns how
 * many of the prompt's tokens need not be read. */
size_t engine_reuse(ca_session *session, const uint32_t *ids, size_t n_ids);

/* A whole file (NULL or "-" = standard input), and the ids of an .npy file. Outputs are malloc'ed, and untouched on failure. They need
 * no engine: what is wrong with them is told before the model is opened. */
int engine_read_text(const char *path, char **text, size_t *size);
int engine_read_ids(const char *path, uint32_t **ids, size_t *n_ids);

/* That all ids are in the vocabulary; and the ids of a text (*ids is malloc'ed: free it with ca_free). */
int engine_check_ids(const struct engine *engine, const char *path, const uint32_t *ids, size_t n_ids);
int engine_tokenize(const struct engine *engine, const char *text, size_t size, unsigned flags, uint32_t **ids, size_t *n_ids);

/* What --thinking asks for. */
ca_thinking engine_thinking(const struct options *options);

/* Threads that --threads asks for, with 0 resolved. */
int engine_threads(const struct options *options);

/* The machine's peak in GFLOP/s with the engine's kernels and threads. */
double engine_peak(const struct engine *engine);

#endif
