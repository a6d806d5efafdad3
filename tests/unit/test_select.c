/* FlashPrefill against a double-precision oracle written from the definition (spec/attention.md 2.2 and 2.3), with fp32 mean keys and
 * without queries past the end of the chunk, for chunks and masks that start and end anywhere. */
#include "unit/select_case.h"

#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Relative distance to the threshold, or between two scores, below which either choice is right; and the error of a score. */
#define NEAR 2e-5

static const select_case cases[] = {
    /* q_len kv_len hq hkv dim page */
    { { 128, 512, 4, 1, 128, 64, "everything divides" }, 0, 0, 0 },
    { { 100, 517, 6, 2, 64, 32, "nothing divides" }, 0, 0, 0 },
    { { 200, 731, 4, 4, 80, 128, "MHA, the cache goes on" }, 77, 0, 0 },
    { { 260, 900, 3, 1, 16, 64, "the mask ends before the chunk" }, 0, 0, 170 },
    { { 260, 900, 3, 1, 96, 64, "the mask begins after the chunk" }, 40, 100, 160 },
    { { 90, 700, 2, 1, 256, 32, "part of the chunk, inside it" }, 0, 33, 40 },
    { { 150, 150, 2, 2, 64, 32, "first chunk" }, 0, 0, 0 },
    { { 1, 300, 4, 2, 64, 128, "one token" }, 0, 0, 0 },
    { { 5, 9, 2, 1, 32, 32, "not one whole block" }, 4, 0, 0 },
    { { 70, 2500, 2, 1, 48, 32, "two words of blocks" }, 0, 0, 0 },
};
enum { N_CASES = sizeof cases / sizeof *cases };

/* Sink and window in tokens: none of them is a whole number of the pages of all cases. */
#define OPTIONS(ALPHA, SINK, WINDOW, DENSE, MUTE, BUDGET, FREE)                                                                    \
    {                                                                                                                              \
        .alpha = (ALPHA), .sink = (SINK), .window = (WINDOW), .last_dense = (DENSE), .last_mute = (MUTE), .min_budget = (BUDGET),  \
        .free_max = (FREE)                                                                                                         \
    }
static const ca_flashprefill_opt options[] = {
    OPTIONS(0.06F, 70, 200, 0, 0, 0, false),      OPTIONS(0.3F, 0, 1, 0, 0, 0, false),
    OPTIONS(0.5F, 1, 65, 0, 0, 0, false),         OPTIONS(0.9F, 129, 64, 0, 0, 0, false),
    OPTIONS(1.0F, 0, 1, 0, 0, 0, false),          OPTIONS(0.0F, 0, 1, 0, 0, 0, false),
    OPTIONS(2.0F, 0, 1, 0, 0, 0, false),          OPTIONS(2.0F, 200, 100, 0, 0, 0, false),
    OPTIONS(2.0F, UINT32_MAX, 1, 0, 0, 0, false), OPTIONS(2.0F, 0, UINT32_MAX, 0, 0, 0, false),
    OPTIONS(2.0F, 0, 1, 0, 0, 3, false),          OPTIONS(0.6F, 0, 1, 0, 0, 6, false),
    OPTIONS(2.0F, 0, 1, 0, 0, 100000, false),     OPTIONS(0.5F, 0, 1, 1, 0, 0, false),
    OPTIONS(0.5F, 0, 1, 2, 1, 4, false),          OPTIONS(0.5F, 0, 1, 0, 2, 0, false),
    OPTIONS(0.5F, 0, 1, UINT32_MAX, 0, 0, false), OPTIONS(0.5F, 0, 1, 0, UINT32_MAX, 0, false),
    OPTIONS(0.5F, 33, 65, 0, 0, 0, true),         OPTIONS(1.0F, 128, 129, 0, 0, 0, true),
    OPTIONS(0.8F, 1, 1, 0, 0, 2, true),
};
enum { N_OPTIONS = sizeof options / sizeof *options };

static attn_data data_of(const select_case *c, const ca_kern *kern)
{
    return select_data(c, kern, &(ca_select_opt){ .selector = CA_SELECT_FLASHPREFILL });
}

/* S of one (head, Q block): w[j] / (sum w + 1e-9), w[j] = sum over the rows that have block j behind them of 2^(z - max z). */
static void oracle_row(const attn_data *d, const ca_mask *m, uint32_t h, uint32_t i, double *score)
{
    const uint32_t bs = d->shape.page, dim = d->shape.dim, qblock = m->first_qblock + i;
    double top = -INFINITY, sum = 0.0;
    double *z = malloc((size_t)m->n_kblocks * bs * sizeof *z);
    for (uint32_t j = 0; j < m->n_kblocks; j++) {
        float mean[256];
        uint32_t n_pages = 0;
        must(ca_page_mean_k(d->cache, ca_cache_pages(d->cache, 0, 0, h / (d->shape.hq / d->shape.hkv), &n_pages)[j], mean), "mean");
        for (uint32_t r = 0; r < bs; r++) {
            const uint32_t pos = qblock * bs + r;
            double *at = &z[(size_t)j * bs + r];
            *at = -INFINITY;
            if (pos < m->first_token || pos >= m->first_token + m->n_tokens || pos < j * bs + bs - 1) continue;
            const float *q = d->q + (pos - d->chunk.pos) * d->q_stride + (size_t)h * dim;
            double dot = 0.0;
            for (uint32_t e = 0; e < dim; e++) dot += (double)q[e] * (double)mean[e];
            *at = dot * 1.4426950408889634 / sqrt(dim);
            top = fmax(top, *at);
        }
    }
    for (uint32_t j = 0; j < m->n_kblocks; j++) {
        score[j] = 0.0;
        for (uint32_t r = 0; r < bs; r++)
            if (isfinite(z[(size_t)j * bs + r])) score[j] += exp2(z[(size_t)j * bs + r] - top);
        sum += score[j];
    }
    for (uint32_t j = 0; j < m->n_kblocks; j++) score[j] /= sum + 1e-9;
    free(z);
}

static double *oracle_scores(const attn_data *d, const ca_mask *m)
{
    double *s = malloc((size_t)m->n_heads * m->n_qblocks * m->n_kblocks * sizeof *s);
    for (uint32_t r = 0; r < m->n_heads * m->n_qblocks; r++)
        oracle_row(d, m, r / m->n_qblocks, r % m->n_qblocks, s + (size_t)r * m->n_kblocks);
    return s;
}

static choice either_of(choice a, choice b)
{
    return a == IN || b == IN ? IN : a == EITHER || b == EITHER ? EITHER : OUT;
}

/* Rule 2.3 for a Q block that votes. A row without any visible block has only zero scores, and 0 >= alpha * 0 keeps them. Tokens of sink and window are
 * rounded up to blocks. With free_max the threshold's maximum is that of the blocks that neither keeps. */
static choice vote(const ca_flashprefill_opt *o, uint32_t page, const ca_mask *m, const double *s, uint32_t i, uint32_t j)
{
    const uint64_t sink = ((uint64_t)o->sink + page - 1) / page, window = ((uint64_t)o->window + page - 1) / page;
    const uint64_t diag = m->first_qblock + i;
    if (j > diag) return OUT;
    if ((uint64_t)i + o->last_dense >= m->n_qblocks || j < sink || diag - j < window) return IN;
    double top = 0.0;
    for (uint32_t k = 0; k < m->n_kblocks; k++)
        if (!o->free_max || (k >= sink && k <= diag && diag - k >= window)) top = fmax(top, s[k]);
    const double alpha = (double)o->alpha, ratio = top > 0.0 ? s[j] / top : alpha;
    if (alpha <= 1.0 && among_best(s, m->n_kblocks, j, 1, NEAR * s[j]) == IN)
        return IN; /* the maximum itself is never below the threshold */
    const choice best = o->min_budget ? among_best(s, m->n_kblocks, j, o->min_budget, NEAR * s[j]) : OUT;
    const choice threshold = top > 0.0 && alpha > 0.0 && fabs(ratio - alpha) <= NEAR * alpha ? EITHER : ratio >= alpha ? IN : OUT;
    return either_of(best, threshold);
}

/* Of all Q blocks: those that do not vote read what the voters of their head do. s: the scores of the head. */
static choice rule(const ca_flashprefill_opt *o, uint32_t page, const ca_mask *m, const double *s, uint32_t i, uint32_t j)
{
    const uint32_t n_voters = m->n_qblocks - ca_min_u32(o->last_mute, m->n_qblocks - 1);
    choice want = OUT;
    if (i < n_voters) return vote(o, page, m, s + (size_t)i * m->n_kblocks, i, j);
    for (uint32_t v = 0; v < n_voters; v++) want = either_of(want, vote(o, page, m, s + (size_t)v * m->n_kblocks, v, j));
    return want;
}

static void check_mask(const select_case *c, const ca_flashprefill_opt *o, const ca_kern *kern, const ca_mask *m, const double *s,
                       tally *count)
{
    for (uint32_t r = 0; r < m->n_heads * m->n_qblocks; r++)
        for (uint32_t j = 0; j < m->words * 64; j++) {
            const bool got = bit(m->bits + (size_t)r * m->words, j);
            const uint32_t i = r % m->n_qblocks;
            const choice want = j < m->n_kblocks ? rule(o, c->shape.page, m, s + (size_t)(r - i) * m->n_kblocks, i, j) : OUT;
            count->kept += want == IN;
            count->dropped += want == OUT;
            count->either += want == EITHER;
            if (want != EITHER && got != (want == IN))
                fail_msg(
                    "%s %s, alpha %g sink %u window %u last_dense %u last_mute %u min_budget %u free_max %d: head %u Q block %u block %u is %d",
                    ca_kern_name(kern), c->shape.what, (double)o->alpha, o->sink, o->window, o->last_dense, o->last_mute,
                    o->min_budget, o->free_max, r / m->n_qblocks, m->first_qblock + i, j, got);
        }
}

static void check_scores(const select_case *c, const ca_kern *kern, const ca_mask *m, const float *got, const double *want)
{
    for (size_t i = 0; i < (size_t)m->n_heads * m->n_qblocks * m->n_kblocks; i++)
        if (!(fabs((double)got[i] - want[i]) <= NEAR * want[i]))
            fail_msg("%s %s: score %zu is %g, not %g", ca_kern_name(kern), c->shape.what, i, (double)got[i], want[i]);
}

static void against_oracle(void **state)
{
    (void)state;
    tally plain = { 0 };
    const kern_list kerns = usable_kerns();
    for (size_t n = 0; n < kerns.n * N_CASES; n++) {
        const ca_kern *kern = kerns.kern[n / N_CASES];
        const select_case *c = &cases[n % N_CASES];
        attn_data d = data_of(c, kern);
        ca_mask m = mask_of(c, &d);
        double *want = oracle_scores(&d, &m);
        const size_t n_scores = (size_t)m.n_heads * m.n_qblocks * m.n_kblocks;
        float *scores = malloc(n_scores * sizeof *scores);
        for (size_t i = 0; i < N_OPTIONS; i++) {
            const ca_select_opt opt = { .selector = CA_SELECT_FLASHPREFILL, .flashprefill = options[i] };
            tally count = { 0 };
            m = mask_of(c, &d);
            const size_t used = d.ws.used;
            for (size_t j = 0; j < n_scores; j++) scores[j] = NAN;
            must(ca_select(d.cache, &opt, &d.chunk, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &d.ws, &m,
                           i % 2 ? scores : NULL),
                 "select");
            assert_int_equal(d.ws.used, used);
            check_mask(c, &options[i], kern, &m, want, i == 2 ? &plain : &count);
            if (i % 2) check_scores(c, kern, &m, scores, want);
        }
        free(want);
        free(scores);
        attn_data_destroy(&d);
    }
    /* The cases do choose, and the borderline hides next to nothing. */
    assert_true(plain.kept > 500 && plain.dropped > 500);
    assert_true(plain.either * 200 < plain.kept);
}

/* With free_max the free blocks are compared with each other, however far above them the sink lies, and with min_budget always. */
static void dominant_sink(void **state)
{
    (void)state;
    static const float sinks[] = { 60.0F, 90.0F, 2000.0F }; /* of a key; e^75 and e^112 times the weight of a plain one, and more */
    static const select_case one = { { 32, 512, 1, 1, 64, 32, "a sink that takes all" }, 0, 0, 0 }, *const c = &one;
    const kern_list kerns = usable_kerns();
    const ca_select_opt ways[] = {
        { .selector = CA_SELECT_FLASHPREFILL, .flashprefill = { .alpha = 0.5F, .sink = 32, .window = 32, .free_max = true } },
        { .selector = CA_SELECT_FLASHPREFILL, .flashprefill = { .alpha = 2.0F, .sink = 0, .window = 32, .min_budget = 4 } }
    };
    for (size_t i = 0; i < kerns.n * sizeof sinks / sizeof *sinks; i++) {
        const ca_kern *kern = kerns.kern[i % kerns.n];
        attn_data d = data_of(c, kern);
        must(ca_cache_truncate(d.cache, 0, 0), "truncate");
        for (uint32_t t = 0; t < c->shape.kv_len; t++) {
            for (uint32_t e = 0; e < 64; e++) d.k[t * d.kv_stride + e] *= 0.01F;
            d.k[t * d.kv_stride] = t < 32 ? sinks[i / kerns.n] : t / 32 % 4 == 0 ? 6.0F : 0.0F;
        }
        for (uint32_t t = 0; t < c->shape.q_len; t++) d.q[t * d.q_stride] = 10.0F;
        must(ca_cache_append(d.cache, 0, 0, &(ca_kv){ .k = d.k, .v = d.v, .stride = d.kv_stride }, c->shape.kv_len), "append");
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            ca_mask m = mask_of(c, &d);
            must(ca_select(d.cache, &ways[w], &d.chunk, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &d.ws, &m, NULL),
                 "select");
            if (m.bits[0] != 0x9111) /* every fourth, and the window */
                fail_msg("%s, sink %g, way %zu: blocks %#llx", ca_kern_name(kern), (double)sinks[i / kerns.n], w,
                         (unsigned long long)m.bits[0]);
        }
        attn_data_destroy(&d);
    }
}

/* Masks and scores do not depend on the number of threads. */
static void threads(void **state)
{
    (void)state;
    enum { ROUNDS = 5 };
    static const select_case large = { { 200, 3000, 8, 2, 64, 32, "work for many threads" }, 0, 0, 0 }, *const c = &large;
    const kern_list kerns = usable_kerns();
    const ca_select_opt opt = { .selector = CA_SELECT_FLASHPREFILL, .flashprefill = options[14] };
    for (size_t i = 0; i < kerns.n; i++) {
        omp_set_num_threads(5); /* the workspace is asked for with as many */
        attn_data d = data_of(c, kerns.kern[i]);
        ca_mask m = mask_of(c, &d);
        const size_t n_words = (size_t)m.n_heads * m.n_qblocks * m.words, n_scores = (size_t)m.n_heads * m.n_qblocks * m.n_kblocks;
        uint64_t *bits = malloc(n_words * sizeof *bits);
        float *scores = malloc(n_scores * sizeof *scores), *again = malloc(n_scores * sizeof *again);
        omp_set_num_threads(1);
        must(ca_select(d.cache, &opt, &d.chunk, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &d.ws, &m, scores), "select");
        memcpy(bits, m.bits, n_words * sizeof *bits);
        omp_set_num_threads(5);
        for (unsigned round = 0; round < ROUNDS; round++) {
            m = mask_of(c, &d);
            must(ca_select(d.cache, &opt, &d.chunk, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &d.ws, &m, again), "select");
            assert_memory_equal(bits, m.bits, n_words * sizeof *bits);
            assert_memory_equal(scores, again, n_scores * sizeof *scores);
        }
        free(bits);
        free(scores);
        free(again);
        attn_data_destroy(&d);
    }
    omp_set_num_threads(1);
}

static void bad_options(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    attn_data d = data_of(&cases[1], kern);
    static const struct {
        ca_selector selector;
        ca_flashprefill_opt o;
        const char *message;
    } bad[] = {
        { CA_SELECT_FLASHPREFILL, { .alpha = -0.1F, .window = 1 }, "alpha -0.1" },
        { CA_SELECT_FLASHPREFILL, { .alpha = NAN, .window = 1 }, "alpha" },
        { CA_SELECT_FLASHPREFILL, { .alpha = INFINITY, .window = 1 }, "alpha" },
        { CA_SELECT_FLASHPREFILL, { .alpha = 0.1F, .window = 0 }, "window 0" },
        { CA_SELECT_NONE, { .alpha = 0.1F, .window = 1 }, "selector 0" },
        { (ca_selector)99, { .alpha = 0.1F, .window = 1 }, "selector 99" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const ca_select_opt opt = { .selector = bad[i].selector, .flashprefill = bad[i].o };
        ca_mask m = mask_of(&cases[1], &d);
        if (ca_select(d.cache, &opt, &d.chunk, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &d.ws, &m, NULL) != CA_E_ARG ||
            !strstr(ca_last_error(), bad[i].message))
            fail_msg("case %zu ('%s'): '%s'", i, bad[i].message, ca_last_error());
        for (size_t w = 0; w < (size_t)m.n_heads * m.n_qblocks * m.words; w++) assert_true(m.bits[w] == 0);
    }
    attn_data_destroy(&d);
}

static void defaults(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    ca_select_opt opt;
    ca_select_defaults(CA_SELECT_FLASHPREFILL, &opt);
    assert_int_equal(opt.selector, CA_SELECT_FLASHPREFILL);
    assert_true(opt.flashprefill.alpha > 0.0F && opt.flashprefill.alpha < 1.0F);
    assert_true(opt.flashprefill.window >= 1);
    assert_int_equal(ca_select_summaries(&opt), CA_SUMMARY_MEAN_K);
    attn_data d = data_of(&cases[1], kern);
    ca_mask m = mask_of(&cases[1], &d);
    double *want = oracle_scores(&d, &m);
    tally count = { 0 };
    must(ca_select(d.cache, &opt, &d.chunk, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &d.ws, &m, NULL), "select");
    check_mask(&cases[1], &opt.flashprefill, kern, &m, want, &count);
    ca_select_defaults(CA_SELECT_NONE, &opt);
    assert_int_equal(opt.selector, CA_SELECT_NONE);
    assert_int_equal(ca_select_summaries(&opt), CA_SUMMARY_NONE);
    free(want);
    attn_data_destroy(&d);
}

static void bad_calls(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    const select_case *c = &cases[1]; /* 100 tokens from 417 on, 6 heads of 64 over 2, pages of 32 */
    const ca_select_opt opt = { .selector = CA_SELECT_FLASHPREFILL, .flashprefill = options[0] };
    attn_data d = data_of(c, kern);
    ca_mask m = mask_of(c, &d);
    assert_int_equal(ca_select(d.cache, &opt, &d.chunk, &(ca_queries){ .q = d.q, .stride = d.q_stride - 1 }, &d.ws, &m, NULL),
                     CA_E_SHAPE);
    assert_non_null(strstr(ca_last_error(), "stride 383"));

    ca_chunk other = d.chunk;
    other.n_heads = 4;
    assert_int_equal(ca_select(d.cache, &opt, &other, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &d.ws, &m, NULL),
                     CA_E_SHAPE);
    other = d.chunk;
    other.pos += 1;
    other.n_tokens -= 1;
    assert_int_equal(ca_select(d.cache, &opt, &other, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &d.ws, &m, NULL),
                     CA_E_SHAPE);
    other = d.chunk;
    other.n_tokens -= 1;
    assert_int_equal(ca_select(d.cache, &opt, &other, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &d.ws, &m, NULL),
                     CA_E_SHAPE);

    /* Scratch of one thread is missing, and the mask stays. */
    ca_workspace small = d.ws;
    small.size = small.used + 64;
    assert_int_equal(ca_select(d.cache, &opt, &d.chunk, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &small, &m, NULL),
                     CA_E_WORKSPACE);
    assert_non_null(strstr(ca_last_error(), "flashprefill: "));
    attn_data_destroy(&d);

    attn_data plain = attn_data_create(c->shape, kern, CA_SUMMARY_NONE, 0, 1.0F);
    m = mask_of(c, &plain);
    assert_int_equal(
        ca_select(plain.cache, &opt, &plain.chunk, &(ca_queries){ .q = plain.q, .stride = plain.q_stride }, &plain.ws, &m, NULL),
        CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "ca_select_summaries"));
    attn_data_destroy(&plain);
}

/* A mask on the grid of other pages, and a chunk that the cache does not hold, are refused. */
static void foreign_masks(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    select_case coarse = cases[1];
    coarse.shape.page = 128;
    const ca_select_opt opt = { .selector = CA_SELECT_FLASHPREFILL, .flashprefill = options[0] };
    attn_data d = data_of(&coarse, kern), fine = data_of(&cases[1], kern);
    ca_mask m = mask_of(&cases[1], &fine); /* pages of 32: other blocks than the cache's */
    d.ws.used = 0;
    assert_int_equal(ca_select(d.cache, &opt, &d.chunk, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &d.ws, &m, NULL),
                     CA_E_SHAPE);
    m = mask_of(&coarse, &d);
    ca_chunk other = d.chunk;
    other.seq = 1;
    assert_int_equal(ca_select(d.cache, &opt, &other, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &d.ws, &m, NULL), CA_E_ARG);
    other = d.chunk;
    other.layer = 1;
    assert_int_equal(ca_select(d.cache, &opt, &other, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &d.ws, &m, NULL), CA_E_ARG);
    must(ca_cache_truncate(d.cache, 0, 500), "truncate");
    assert_int_equal(ca_select(d.cache, &opt, &d.chunk, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &d.ws, &m, NULL),
                     CA_E_SHAPE);
    attn_data_destroy(&d);
    attn_data_destroy(&fine);
}

int main(void)
{
    omp_set_num_threads(1); /* the cases are tiny: threads would only wait for each other */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_oracle), cmocka_unit_test(dominant_sink), cmocka_unit_test(threads),
        cmocka_unit_test(bad_options),    cmocka_unit_test(defaults),      cmocka_unit_test(bad_calls),
        cmocka_unit_test(foreign_masks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
