/* Block scores of every kernel set against double precision: each number of rows and of pooled keys, anywhere on the grid. */
#include "kern_list.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "kern/kern.h"

enum { MAX_ROWS = 130, MAX_MEANS = 304 };

typedef struct score_case {
    uint32_t n_rows, n_means, pos, block, dim;
    float sd; /* of the queries */
} score_case;

typedef struct score_data {
    ca_score_job job;
    float *q, *means, m[MAX_MEANS + 1], e[MAX_MEANS + 1];
    double max[MAX_MEANS], sum[MAX_MEANS], spread[MAX_MEANS]; /* max z, log2 of the sum of 2^z, largest sum of |q mean| */
} score_data;

/* Panels are full: later blocks of the cache stand beyond n_means, and must not count. */
static score_data data_of(const score_case *c)
{
    score_data d;
    const size_t stride = c->dim + 5, n_panels = ((size_t)c->n_means + 15) / 16;
    d.q = random_values((size_t)c->n_rows * stride, c->sd, c->n_rows + 1);
    d.means = random_values(n_panels * 16 * c->dim, 1.0F, c->n_means + 1000);
    for (size_t i = 0; i < (size_t)c->n_rows * stride; i++) d.q[i] *= 1.0037F; /* more bits than bf16 has */
    for (size_t i = 0; i < n_panels * 16 * c->dim; i++)
        d.means[i] = i % 16 + i / ((size_t)16 * c->dim) * 16 < c->n_means ? d.means[i] * 1.0037F : 100.0F;
    d.job = (ca_score_job){ .q = d.q,
                            .q_stride = stride,
                            .n_rows = c->n_rows,
                            .pos = c->pos,
                            .block = c->block,
                            .head_dim = c->dim,
                            .means = d.means,
                            .n_means = c->n_means,
                            .scale = 1.0F / sqrtf((float)c->dim) };
    return d;
}

static void free_data(score_data *d)
{
    free(d->q);
    free(d->means);
}

static void oracle(const score_case *c, score_data *d)
{
    double z[MAX_ROWS];
    for (uint32_t j = 0; j < c->n_means; j++) {
        uint32_t n = 0;
        d->max[j] = -INFINITY;
        d->sum[j] = d->spread[j] = 0.0;
        for (uint32_t r = 0; r < c->n_rows; r++) {
            if ((uint64_t)c->pos + r < (uint64_t)j * c->block + c->block - 1) continue;
            double dot = 0.0, spread = 0.0;
            for (uint32_t i = 0; i < c->dim; i++) {
                const double p = (double)d->q[r * d->job.q_stride + i] *
                                 (double)d->means[((size_t)j / 16 * c->dim + i) * 16 + j % 16];
                dot += p;
                spread += fabs(p);
            }
            z[n] = dot * 1.4426950408889634 / sqrt(c->dim);
            d->max[j] = fmax(d->max[j], z[n++]);
            d->spread[j] = fmax(d->spread[j], spread * 1.4427 / sqrt(c->dim));
        }
        for (uint32_t r = 0; r < n; r++) d->sum[j] += exp2(z[r] - d->max[j]);
        d->sum[j] = n ? d->max[j] + log2(d->sum[j]) : -INFINITY;
    }
}

static void check_score(const score_case *c, score_data *d, const ca_kern *kern)
{
    const uint32_t n = (c->n_means + 15) / 16 * 16;
    for (uint32_t j = 0; j <= MAX_MEANS; j++) d->m[j] = d->e[j] = 12345.0F;
    d->job.m = d->m;
    d->job.e = d->e;
    kern->score(&d->job);
    for (uint32_t j = 0; j <= MAX_MEANS; j++) {
        const double m = (double)d->m[j], e = (double)d->e[j];
        bool ok;
        if (j >= n) { /* not touched */
            ok = m == 12345.0 && e == 12345.0;
        } else if (j >= c->n_means || d->max[j] == -INFINITY) {
            ok = m == -INFINITY && e == 0.0;
        } else {
            const double bound = 1e-6 * d->spread[j] + 1e-6; /* fp32 products and sums, never above 256 of them */
            ok = fabs(m - d->max[j]) <= bound && fabs(m + log2(e) - d->sum[j]) <= bound + 4e-6;
        }
        if (!ok)
            fail_msg("%s: %u rows from %u on, %u means of %u keys, dim %u: block %u: m %.9g e %.9g, must be %.9g and 2^%.9g",
                     kern->name, c->n_rows, c->pos, c->n_means, c->block, c->dim, j, m, e, j < c->n_means ? d->max[j] : -INFINITY,
                     j < c->n_means ? d->sum[j] - d->max[j] : -INFINITY);
    }
}

static void check_all(const score_case *c)
{
    const kern_list kerns = usable_kerns();
    score_data d = data_of(c);
    oracle(c, &d);
    for (size_t i = 0; i < kerns.n; i++) check_score(c, &d, kerns.kern[i]);
    free_data(&d);
}

/* Every count of rows and of means, the rest drawn at random: the diagonal runs through the means, off the grid. */
static void every_count(void **state)
{
    (void)state;
    static const uint32_t blocks[] = { 32, 64, 128 };
    uint64_t seed = 4;
    for (uint32_t i = 0; i < MAX_ROWS + 70; i++) {
        const uint64_t x = mix64(&seed);
        score_case c = { .n_rows = i < MAX_ROWS ? i + 1 : (uint32_t)x % MAX_ROWS + 1,
                         .n_means = i < MAX_ROWS ? (uint32_t)x % 70 + 1 : i - MAX_ROWS + 1,
                         .block = blocks[(x >> 20) % 3],
                         .dim = ((uint32_t)(x >> 24) % 16 + 1) * 16,
                         .sd = 1.0F };
        c.pos = (uint32_t)(x >> 32) % (c.n_means * c.block + 40);
        check_all(&c);
    }
}

static void chosen_cases(void **state)
{
    (void)state;
    static const score_case cases[] = {
        { 128, 300, 299 * 128, 128, 64, 1.0F },    /* many blocks, one whole Q block on the grid */
        { 97, 300, 150 * 32 + 17, 32, 128, 1.0F }, /* half of them in the future */
        { 1, 1, 0, 32, 16, 1.0F },                 /* nothing is counted */
        { 1, 1, 31, 32, 16, 1.0F },                /* the first query that has a block behind it */
        { 31, 1, 0, 32, 16, 1.0F },                /* one row short of it */
        { 64, 70, 4000000000U, 64, 80, 1.0F },     /* far away: all is counted */
        { 130, 70, UINT32_MAX - 129, 64, 80, 1.0F },
        { 130, 70, 2000, 32, 256, 40.0F }, /* scores of hundreds: the reference of the sum moves far */
        { 130, 70, 2000, 32, 64, 1e-30F }, /* all scores equal */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_all(&cases[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_count), cmocka_unit_test(chosen_cases) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
