/* Greedy and temperature/top-p sampling. Logits that are not numbers are never drawn. */
#include <compactattn/session.h>

#include <math.h>
#include <stdlib.h>

#include "base/error.h"

typedef struct candidate {
    float p; /* not normalised: exp((logit - best) / temperature) */
    uint32_t id;
} candidate;

/* Best logit; the lowest id wins a tie. vocab when there is no number above -inf. */
static uint32_t best_of(const float *logits, uint32_t vocab)
{
    uint32_t best = vocab;
    for (uint32_t i = 0; i < vocab; i++)
        if (logits[i] > (best < vocab ? logits[best] : -INFINITY)) best = i;
    return best;
}

/* splitmix64: uniform in [0, 1). */
static double next_uniform(uint64_t *state)
{
    *state += UINT64_C(0x9E3779B97F4A7C15);
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

static int by_probability(const void *a, const void *b)
{
    const candidate *x = a;
    const candidate *y = b;
    if (x->p != y->p) return x->p > y->p ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Draws from the fewest likeliest tokens whose probabilities reach top_p of the sum. */
static uint32_t draw(candidate *c, uint32_t n, double sum, double top_p, double u)
{
    double kept = 0.0;
    uint32_t n_kept = 0;
    while (n_kept < n && (n_kept == 0 || kept < top_p * sum)) kept += (double)c[n_kept++].p;
    double left = u * kept;
    for (uint32_t i = 0; i < n_kept; i++) {
        left -= (double)c[i].p;
        if (left < 0.0) return c[i].id;
    }
    return c[n_kept - 1].id; /* what rounding left over */
}

ca_status ca_sample(ca_sampler *sampler, const float *logits, uint32_t vocab, uint32_t *token)
{
    const float temperature = sampler->temperature;
    if (!(temperature >= 0.0F) || isinf(temperature))
        return ca_fail(CA_E_ARG, "sampling: temperature %g: give 0 (greedy) or more", (double)temperature);
    if (!(sampler->top_p > 0.0F && sampler->top_p <= 1.0F))
        return ca_fail(CA_E_ARG, "sampling: top-p %g: give more than 0, at most 1", (double)sampler->top_p);
    const uint32_t best = best_of(logits, vocab);
    if (best == vocab) return ca_fail(CA_E_ARG, "sampling: none of the %u logits is a number", vocab);
    *token = best;
    if (temperature == 0.0F || isinf(logits[best])) return CA_OK;

    candidate *c = malloc(vocab * sizeof *c);
    if (c == NULL) return ca_fail(CA_E_MEMORY, "sampling: no memory for %u candidates", vocab);
    double sum = 0.0;
    for (uint32_t i = 0; i < vocab; i++) {
        const float p = expf((logits[i] - logits[best]) / temperature);
        c[i] = (candidate){ p > 0.0F ? p : 0.0F, i }; /* NaN becomes 0 */
        sum += (double)c[i].p;
    }
    /* All tokens below (1 - top_p)/vocab of the sum together have less than 1 - top_p of it: they are never needed. */
    const double floor = (1.0 - (double)sampler->top_p) * sum / vocab;
    uint32_t n = 0;
    for (uint32_t i = 0; i < vocab; i++)
        if (c[i].p > 0.0F && (double)c[i].p >= floor) c[n++] = c[i];
    qsort(c, n, sizeof *c, by_probability);
    *token = draw(c, n, sum, (double)sampler->top_p, next_uniform(&sampler->state));
    free(c);
    return CA_OK;
}
