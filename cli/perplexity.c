/* compactattn perplexity: how well the model predicts a text, read through the same chunked prefill. */
#include "commands.h"
#include "interrupt.h"
#include "likelihood.h"
#include "measure.h"
#include "message.h"
#include "method.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int print_result(const struct options *options, struct result *result, const struct likelihood *score)
{
    result->mean_nll = likelihood_mean(score);
    const double perplexity = exp(result->mean_nll);
    if (!options->json) {
        printf("method         %s\ntokens         %zu\nscored         %zu\nmean_nll       %.6f\nperplexity     %.6f\n"
               "kept_fraction  %.3f\n",
               result->method, score->n_ids, score->n_scored, result->mean_nll, perplexity, result->kept_fraction);
        return EXIT_DONE;
    }
    json_t *json = result_json(result);
    json_object_set_new(json, "perplexity", json_number(perplexity));
    json_object_set_new(json, "scored_tokens", json_integer((json_int_t)score->n_scored));
    return json_print(json);
}

static int measure_text(const struct engine *engine, const struct options *options, const struct method *method,
                        const uint32_t *ids, size_t n_ids)
{
    struct likelihood score = { .ids = ids, .n_ids = n_ids, .vocab = engine->info.vocab };
    const size_t from = (size_t)options->from;
    if (from >= n_ids) return fail("the text has %zu tokens, so none is left to score from token %zu on", n_ids, from);
    const ca_prefill_opt hooks = { .user = &score, .n_logits = (uint32_t)(n_ids - from + 1), .on_logits = likelihood_add };
    ca_session *session = NULL;
    int code = engine_session(engine, options, method, n_ids, 0, &session);
    if (code != EXIT_DONE) return code;
    interrupt_catch();
    const ca_status status = measure_feed(session, ids, n_ids, method->name, progress_style(options->progress, PROGRESS_OFF),
                                          &hooks);
    if (status == CA_OK) {
        struct result result;
        result_init(&result, method);
        measure_stats(session, &result); /* times include the logits of all positions: no share of peak */
        code = print_result(options, &result, &score);
        if (code == EXIT_DONE && isnan(likelihood_mean(&score)))
            code = fail("%s: logits that are no numbers: the model's weights are broken, or its computation overflows",
                        options->model);
    } else {
        code = fail_library(status);
    }
    ca_session_destroy(session);
    return code;
}

/* One of ids and text is given. */
static int measure(const struct options *options, const struct method *method, const char *text, size_t size, uint32_t **ids,
                   size_t *n_ids)
{
    struct engine engine;
    int code = engine_open(options, &engine);
    if (code == EXIT_DONE)
        code = text ? engine_tokenize(&engine, text, size, 0, ids, n_ids)
                    : engine_check_ids(&engine, options->tokens, *ids, *n_ids);
    if (code == EXIT_DONE) code = measure_text(&engine, options, method, *ids, *n_ids);
    engine_close(&engine);
    return code;
}

static int run(const struct options *options)
{
    struct method method;
    uint32_t *ids = NULL;
    char *text = NULL;
    size_t n_ids = 0, size = 0;
    if (!options->tokens == !options->file) return usage_error("give either --tokens FILE.npy or -f FILE");
    int code = method_from_options(options, "dense", &method);
    if (code == EXIT_DONE)
        code = options->tokens ? engine_read_ids(options->tokens, &ids, &n_ids) : engine_read_text(options->file, &text, &size);
    if (code == EXIT_DONE) code = measure(options, &method, text, size, &ids, &n_ids);
    ca_free(ids);
    free(text);
    return code;
}

const struct command command_perplexity = {
    .name = "perplexity",
    .summary = "Measure how well the model predicts a text",
    .synopsis = "-m MODEL (--tokens FILE.npy | -f FILE) [OPTIONS]",
    .details =
        "mean_nll = mean of -ln softmax(logits[i-1])[token i] over the tokens i from --from on; perplexity = exp(mean_nll).\n"
        "The text is read through the same chunks, so the number shows what a method costs in quality.\n\n"
        "Examples:\n"
        "  compactattn perplexity -m model.gguf -f book.txt\n"
        "  compactattn perplexity -m model.gguf -f book.txt --executor compactattn --alpha 0.1 --from 4096",
    .bit = CMD_PERPLEXITY,
    .run = run,
};
