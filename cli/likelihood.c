#include "likelihood.h"

#include <math.h>

/* -ln softmax(logits)[id] in double precision */
static double negative_log(const float *logits, uint32_t vocab, uint32_t id)
{
    float top = logits[0];
    for (uint32_t i = 1; i < vocab; i++) top = logits[i] > top ? logits[i] : top;
    double sum = exp((double)logits[0] - (double)top);
    for (uint32_t i = 1; i < vocab; i++) sum += exp((double)logits[i] - (double)top);
    return log(sum) - ((double)logits[id] - (double)top);
}

ca_status likelihood_add(void *user, uint32_t position, const float *logits)
{
    struct likelihood *l = user;
    if ((size_t)position + 1 < l->n_ids) {
        const double value = negative_log(logits, l->vocab, l->ids[position + 1]);
        if (l->each) l->each[l->n_scored] = (float)value;
        l->sum += value;
        l->n_scored++;
    }
    return CA_OK;
}

double likelihood_mean(const struct likelihood *likelihood)
{
    return likelihood->n_scored > 0 ? likelihood->sum / (double)likelihood->n_scored : NAN;
}

double likelihood_error(const float *a, const float *b, size_t n)
{
    double mean = 0, squares = 0;
    if (n < 2) return NAN;
    for (size_t i = 0; i < n; i++) mean += ((double)a[i] - (double)b[i]) / (double)n;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)a[i] - (double)b[i] - mean;
        squares += d * d;
    }
    return sqrt(squares / ((double)n - 1) / (double)n);
}
