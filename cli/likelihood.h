/* How well a model predicts known tokens. */
#ifndef CLI_LIKELIHOOD_H
#define CLI_LIKELIHOOD_H

#include <compactattn/compactattn.h>

struct likelihood {
    const uint32_t *ids; /* set these three */
    size_t n_ids;
    uint32_t vocab;
    float *each; /* [n_ids], or NULL: receives -ln p of each token that is scored, in their order */
    size_t n_scored;
    double sum; /* of -ln softmax(logits[i - 1])[token i] */
};

/* For ca_prefill_opt.on_logits; user is the struct. The logits at a position predict the next token; those of the last one predict
 * nothing that is known. */
ca_status likelihood_add(void *user, uint32_t position, const float *logits);

/* Standard error of the mean difference of two such arrays. */
double likelihood_error(const float *a, const float *b, size_t n);

/* Mean of what was added; NaN when nothing was. */
double likelihood_mean(const struct likelihood *likelihood);

#endif
