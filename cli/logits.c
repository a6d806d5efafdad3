/* compactattn logits: the model's output at the last positions of a token sequence, for comparing with other programs. */
#include "commands.h"
#include "interrupt.h"
#include "measure.h"
#include "message.h"
#include "method.h"
#include "npy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ca_status write_row(void *user, uint32_t position, const float *logits)
{
    (void)position;
    return npy_write_row(user, logits) ? CA_OK : CA_E_IO;
}

static int write_logits(const struct engine *engine, const struct options *options, ca_session *session, const uint32_t *ids,
                        size_t n_ids)
{
    struct npy_writer writer;
    const ca_prefill_opt hooks = { .user = &writer, .n_logits = (uint32_t)options->last, .on_logits = write_row };
    if (!npy_create(&writer, options->out, (size_t)options->last, engine->info.vocab))
        return fail("%s: %s", options->out, strerror(errno));
    interrupt_catch();
    const ca_status status = measure_feed(session, ids, n_ids, "logits", progress_style(options->progress, PROGRESS_OFF), &hooks);
    const bool cut_short = status != CA_OK && status != CA_E_IO; /* CA_E_IO comes from write_row */
    const int code = cut_short ? fail_library(status) : EXIT_DONE;
    if (!npy_finish(&writer) && !cut_short) return fail("%s: %s", options->out, strerror(errno));
    return code;
}

static int print_json(const struct engine *engine, const ca_session *session, const struct method *method)
{
    struct result result;
    result_init(&result, method);
    measure_stats(session, &result);
    measure_share(&result, engine_peak(engine));
    return json_print(result_json(&result));
}

static int compute(const struct options *options, const struct method *method, const uint32_t *ids, size_t n_ids)
{
    struct engine engine;
    ca_session *session = NULL;
    if ((size_t)options->last > n_ids)
        return fail("%s: --last %lld asks for more positions than its %zu tokens", options->tokens, (long long)options->last,
                    n_ids);
    int code = engine_open(options, &engine);
    if (code == EXIT_DONE) code = engine_check_ids(&engine, options->tokens, ids, n_ids);
    if (code == EXIT_DONE) code = engine_session(&engine, options, method, n_ids, 0, &session);
    if (code == EXIT_DONE) code = write_logits(&engine, options, session, ids, n_ids);
    if (code == EXIT_DONE && options->json) code = print_json(&engine, session, method);
    ca_session_destroy(session);
    engine_close(&engine);
    return code;
}

static int run(const struct options *options)
{
    struct method method;
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    int code = method_from_options(options, "dense", &method);
    if (code == EXIT_DONE) code = engine_read_ids(options->tokens, &ids, &n_ids);
    if (code == EXIT_DONE) code = compute(options, &method, ids, n_ids);
    free(ids);
    return code;
}

const struct command command_logits = {
    .name = "logits",
    .summary = "Write the logits of the last positions of a token sequence",
    .synopsis = "-m MODEL --tokens FILE.npy --last K --out FILE.npy [OPTIONS]",
    .details = "Writes a float32 array [K, vocabulary] in the order of positions; the last row predicts the next token.\n\n"
               "Example:\n"
               "  compactattn logits -m model.gguf --tokens ids.npy --last 4 --out logits.npy",
    .bit = CMD_LOGITS,
    .run = run,
};
