/* The selectors without weights of their own against double-precision implementations of their definitions (spec/attention.md 3,
 * spec/selectors-learned.md C, E.1, E.3, E.8), for chunks and masks that start and end anywhere. */
#include "unit/select_case.h"

#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Relative distance of two scores, or of a score to its cut, below which either choice is right; and the error of a score. */
#define NEAR 4e-5

static const select_case cases[] = {
    /* q_len kv_len hq hkv dim page */
    { { 128, 512, 4, 1, 64, 64, "everything divides" }, 0, 0, 0 },
    { { 100, 517, 6, 2, 80, 32, "nothing divides" }, 0, 0, 0 },
    { { 200, 731, 2, 2, 96, 128, "MHA, the cache goes on" }, 77, 0, 0 },
    { { 130, 500, 3, 1, 96, 64, "the mask begins after the chunk" }, 40, 37, 93 },
    { { 90, 400, 6, 2, 80, 32, "part of the chunk, inside it" }, 0, 33, 40 },
    { { 150, 150, 2, 2, 64, 32, "first chunk" }, 0, 0, 0 },
    { { 1, 300, 3, 1, 80, 128, "one token" }, 0, 0, 0 },
    { { 5, 9, 2, 1, 32, 32, "not one whole block" }, 4, 0, 0 },
    { { 40, 2300, 2, 1, 16, 32, "two words of blocks" }, 0, 0, 0 },
};
enum { N_CASES = sizeof cases / sizeof *cases };

/* A case without a cache: the arrays that every kernel set gets, and the mask's place on the grid. */
typedef struct setting {
    const select_case *c;
    const attn_data *d;
    const ca_mask *m;
    uint32_t group;
} setting;

static const float *query(const setting *s, uint32_t head, uint32_t pos)
{
    return s->d->q + (pos - s->d->chunk.pos) * s->d->q_stride + (size_t)head * s->c->shape.dim;
}

static const float *key(const setting *s, uint32_t head, uint32_t pos)
{
    return s->d->k + pos * s->d->kv_stride + (size_t)(head / s->group) * s->c->shape.dim;
}

static double dot(const float *a, const float *b, uint32_t n)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static bool has_query(const setting *s, uint32_t pos)
{
    return pos >= s->m->first_token && pos - s->m->first_token < s->m->n_tokens;
}

/* A[I][J] of C.1: strides of queries and keys, one softmax per query stride up to the diagonal tile. */
static void xattention_scores(const setting *s, const ca_select_opt *opt, uint32_t h, uint32_t i, double *score)
{
    const uint32_t bs = s->c->shape.page, dim = s->c->shape.dim, len = s->c->shape.kv_len, stride = opt->xattention.stride;
    const uint32_t diag = s->m->first_qblock + i;
    for (uint32_t r = diag * bs / stride; r < (diag + 1) * bs / stride; r++) {
        double *e = calloc(r + 1, sizeof *e), top = -INFINITY, sum = 0.0;
        bool counts = false;
        for (uint32_t t = 0; t < stride; t++) counts |= has_query(s, r * stride + t);
        for (uint32_t c = 0; counts && c <= r; c++) {
            for (uint32_t t = 0; t < stride; t++) {
                const uint32_t qpos = (r + 1) * stride - 1 - t, kpos = c * stride + t;
                if (has_query(s, qpos) && kpos < len) e[c] += dot(query(s, h, qpos), key(s, h, kpos), dim);
            }
            e[c] /= stride * sqrt(dim);
            top = fmax(top, e[c]);
        }
        for (uint32_t c = 0; counts && c <= r; c++) sum += exp(e[c] - top);
        for (uint32_t c = 0; counts && c <= r; c++) score[c * stride / bs] += exp(e[c] - top) / sum;
        free(e);
    }
}

/* Mean query . mean key over the tokens that the cache has of each block. */
static void minference_scores(const setting *s, const ca_select_opt *opt, uint32_t h, uint32_t i, double *score)
{
    (void)opt;
    const uint32_t bs = s->c->shape.page, dim = s->c->shape.dim, len = s->c->shape.kv_len, diag = s->m->first_qblock + i;
    double mean[256] = { 0 }, n = 0.0;
    for (uint32_t pos = diag * bs; pos < (diag + 1) * bs; pos++)
        if (has_query(s, pos)) {
            n++;
            for (uint32_t d = 0; d < dim; d++) mean[d] += (double)query(s, h, pos)[d];
        }
    for (uint32_t j = 0; j <= diag; j++) {
        const uint32_t end = ca_min_u32((j + 1) * bs, len);
        for (uint32_t pos = j * bs; pos < end; pos++)
            for (uint32_t d = 0; d < dim; d++) score[j] += mean[d] / n * (double)key(s, h, pos)[d] / (end - j * bs);
    }
}

/* Attention mass of each block, averaged over the queries. */
static void oracle_scores(const setting *s, const ca_select_opt *opt, uint32_t h, uint32_t i, double *score)
{
    const uint32_t bs = s->c->shape.page, dim = s->c->shape.dim, diag = s->m->first_qblock + i;
    const double scale = opt->oracle.scale > 0.0F ? (double)opt->oracle.scale : 1.0 / sqrt(dim);
    double *e = malloc((size_t)(diag + 1) * bs * sizeof *e), n = 0.0;
    for (uint32_t pos = diag * bs; pos < (diag + 1) * bs; pos++) n += has_query(s, pos);
    for (uint32_t pos = diag * bs; pos < (diag + 1) * bs; pos++) {
        double top = -INFINITY, sum = 0.0;
        if (!has_query(s, pos)) continue;
        for (uint32_t k = 0; k <= pos; k++) {
            e[k] = dot(query(s, h, pos), key(s, h, k), dim) * scale;
            top = fmax(top, e[k]);
        }
        for (uint32_t k = 0; k <= pos; k++) sum += exp(e[k] - top);
        for (uint32_t k = 0; k <= pos; k++) score[k / bs] += exp(e[k] - top) / sum / n;
    }
    free(e);
}

/* What the rule makes of a row's scores. */
typedef choice (*rule_fn)(const ca_select_opt *opt, const double *score, uint32_t diag, uint32_t j);

static choice xattention_rule(const ca_select_opt *opt, const double *score, uint32_t diag, uint32_t j)
{
    return among_share(score, diag, j, (double)opt->xattention.threshold, NEAR);
}

static choice oracle_rule(const ca_select_opt *opt, const double *score, uint32_t diag, uint32_t j)
{
    return among_share(score, diag, j, (double)opt->oracle.mass, NEAR);
}

/* Products are signed sums: their error is measured against the largest one. */
static double largest(const double *score, uint32_t n)
{
    double top = 0.0;
    for (uint32_t j = 0; j < n; j++) top = fmax(top, fabs(score[j]));
    return top;
}

static choice minference_rule(const ca_select_opt *opt, const double *score, uint32_t diag, uint32_t j)
{
    if (j == 0 || j == diag) return IN;
    return among_best(score, diag + 1, j, opt->minference.top_k, NEAR * largest(score, diag + 1));
}

typedef struct method {
    ca_select_opt opt;
    void (*scores)(const setting *s, const ca_select_opt *opt, uint32_t h, uint32_t i, double *score);
    rule_fn rule;
    bool is_signed;
} method;

#define XATTENTION(STRIDE, THRESHOLD)                                                                                              \
    {                                                                                                                              \
        .opt = { .selector = CA_SELECT_XATTENTION, .xattention = { .stride = (STRIDE), .threshold = (THRESHOLD) } },               \
        .scores = xattention_scores, .rule = xattention_rule                                                                       \
    }
#define ORACLE(MASS, SCALE)                                                                                                        \
    {                                                                                                                              \
        .opt = { .selector = CA_SELECT_ORACLE, .oracle = { .mass = (MASS), .scale = (SCALE) } }, .scores = oracle_scores,          \
        .rule = oracle_rule                                                                                                        \
    }
#define MINFERENCE(TOP)                                                                                                            \
    {                                                                                                                              \
        .opt = { .selector = CA_SELECT_MINFERENCE, .minference = { .top_k = (TOP) } }, .scores = minference_scores,                \
        .rule = minference_rule, .is_signed = true                                                                                 \
    }
static const method xattention[] = { XATTENTION(8, 0.9F), XATTENTION(16, 0.6F), XATTENTION(16, 0.0F), XATTENTION(8, 1.0F) };
static const method oracle[] = { ORACLE(0.0F, 0.0F), ORACLE(0.5F, 0.0F), ORACLE(0.9F, 0.0F), ORACLE(1.0F, 0.0F),
                                 ORACLE(0.9F, 0.05F) };
static const method minference[] = { MINFERENCE(1), MINFERENCE(5), MINFERENCE(100000) };

static double *scores_of(const setting *s, const method *how)
{
    double *all = calloc((size_t)s->m->n_heads * s->m->n_qblocks * s->m->n_kblocks, sizeof *all);
    for (uint32_t r = 0; r < s->m->n_heads * s->m->n_qblocks; r++)
        how->scores(s, &how->opt, r / s->m->n_qblocks, r % s->m->n_qblocks, all + (size_t)r * s->m->n_kblocks);
    return all;
}

static void check_row(const setting *s, const method *how, const ca_kern *kern, uint32_t r, const double *want, const float *got,
                      tally *count)
{
    const uint32_t nk = s->m->n_kblocks, diag = s->m->first_qblock + r % s->m->n_qblocks;
    const char *name = ca_selector_name(how->opt.selector);
    const double size = how->is_signed ? largest(want, diag + 1) : 0.0;
    for (uint32_t j = 0; j < s->m->words * 64; j++) {
        const choice c = j <= diag ? how->rule(&how->opt, want, diag, j) : OUT;
        count->kept += c == IN;
        count->dropped += c == OUT && j <= diag;
        count->either += c == EITHER;
        if (c != EITHER && bit(s->m->bits + (size_t)r * s->m->words, j) != (c == IN))
            fail_msg("%s %s (%s): row %u block %u of %u must %sbe kept", name, ca_kern_name(kern), s->c->shape.what, r, j, diag,
                     c == IN ? "" : "not ");
        if (j < nk && !(fabs((double)got[j] - (j <= diag ? want[j] : 0.0)) <= NEAR * (size > 0.0 ? size : want[j])))
            fail_msg("%s %s (%s): row %u block %u has score %g, not %g", name, ca_kern_name(kern), s->c->shape.what, r, j,
                     (double)got[j], want[j]);
    }
}

/* Every method over every case and kernel set; what may go either way is a small part. */
static void against_definition(const method *methods, size_t n_methods)
{
    const kern_list kerns = usable_kerns();
    tally all = { 0 };
    for (size_t n = 0; n < N_CASES * n_methods; n++) {
        const select_case *c = &cases[n / n_methods];
        const method *how = &methods[n % n_methods];
        double *want = NULL;
        for (size_t i = 0; i < kerns.n; i++) {
            attn_data d = select_data(c, kerns.kern[i], &how->opt);
            ca_mask m = mask_of(c, &d);
            const setting s = { c, &d, &m, c->shape.hq / c->shape.hkv };
            const size_t n_rows = (size_t)m.n_heads * m.n_qblocks, used = d.ws.used;
            float *scores = malloc(n_rows * m.n_kblocks * sizeof *scores);
            const ca_queries q = queries_of(&d);
            if (!want) want = scores_of(&s, how);
            must(ca_select(d.cache, &how->opt, &d.chunk, &q, &d.ws, &m, scores), "select");
            assert_int_equal(d.ws.used, used);
            for (uint32_t r = 0; r < n_rows; r++)
                check_row(&s, how, kerns.kern[i], r, want + (size_t)r * m.n_kblocks, scores + (size_t)r * m.n_kblocks, &all);
            uint64_t *bits = malloc(n_rows * m.words * sizeof *bits); /* without scores the same */
            memcpy(bits, m.bits, n_rows * m.words * sizeof *bits);
            m = mask_of(c, &d);
            must(ca_select(d.cache, &how->opt, &d.chunk, &q, &d.ws, &m, NULL), "select");
            assert_memory_equal(bits, m.bits, n_rows * m.words * sizeof *bits);
            free(bits);
            free(scores);
            attn_data_destroy(&d);
        }
        free(want);
    }
    assert_true(all.kept > 500 && all.dropped > 500);
    if (all.either * 100 > all.kept + all.dropped)
        fail_msg("%u of %u blocks may go either way", all.either, all.kept + all.dropped);
}

static void xattention_mask(void **state)
{
    (void)state;
    against_definition(xattention, sizeof xattention / sizeof *xattention);
}

static void oracle_mask(void **state)
{
    (void)state;
    against_definition(oracle, sizeof oracle / sizeof *oracle);
}

static void minference_mask(void **state)
{
    (void)state;
    against_definition(minference, sizeof minference / sizeof *minference);
}

static void trishape_mask(void **state)
{
    (void)state;
    const kern_list kerns = usable_kerns();
    static const ca_trishape_opt shapes[] = { { 0, 1 }, { 1, 1 }, { 100, 129 }, { 64, 64 }, { 33, 4000 }, { UINT32_MAX, 1 } };
    for (size_t n = 0; n < N_CASES * (sizeof shapes / sizeof *shapes); n++) {
        const select_case *c = &cases[n % N_CASES];
        const ca_select_opt opt = { .selector = CA_SELECT_TRISHAPE, .trishape = shapes[n / N_CASES] };
        attn_data d = select_data(c, kerns.kern[0], &opt);
        ca_mask m = mask_of(c, &d);
        const ca_queries q = queries_of(&d);
        const uint64_t bs = c->shape.page;
        must(ca_select(d.cache, &opt, &d.chunk, &q, &d.ws, &m, NULL), "select");
        for (uint32_t r = 0; r < m.n_heads * m.n_qblocks; r++)
            for (uint64_t j = 0, diag = m.first_qblock + r % m.n_qblocks; j < m.words * 64U; j++) {
                /* A block of the first sink tokens, or one of those before the diagonal that hold a whole window (E.1). */
                const bool want = j <= diag && (j * bs < opt.trishape.sink || (diag - j) * bs < opt.trishape.window + bs);
                if (bit(m.bits + (size_t)r * m.words, (uint32_t)j) != want)
                    fail_msg("%s, sink %u window %u: row %u block %u", c->shape.what, opt.trishape.sink, opt.trishape.window, r,
                             (unsigned)j);
            }
        attn_data_destroy(&d);
    }
}

static uint32_t share_of(float ratio, uint32_t n)
{
    const uint32_t part = (uint32_t)((double)ratio * n);
    return part < 1 ? 1 : part;
}

/* The chosen queries of a head, ascending: the smallest cosines to the mean query. False when the cut is too close to call. */
static bool unlike_queries(const setting *s, uint32_t h, uint32_t n, uint32_t *out)
{
    const uint32_t dim = s->c->shape.dim, len = s->c->shape.q_len, pos = s->d->chunk.pos;
    double mean[256] = { 0 }, size = 0.0, *unlike = malloc(len * sizeof *unlike);
    bool clear = true;
    uint32_t found = 0;
    for (uint32_t t = 0; t < len; t++)
        for (uint32_t d = 0; d < dim; d++) mean[d] += (double)query(s, h, pos + t)[d] / len;
    for (uint32_t d = 0; d < dim; d++) size += mean[d] * mean[d];
    for (uint32_t t = 0; t < len; t++) {
        const float *q = query(s, h, pos + t);
        unlike[t] = 0.0;
        for (uint32_t d = 0; d < dim; d++) unlike[t] -= (double)q[d] * mean[d];
        unlike[t] /= sqrt(dot(q, q, dim) * size);
    }
    for (uint32_t t = 0; t < len; t++) {
        const choice c = among_best(unlike, len, t, n, 1e-6);
        clear &= c != EITHER;
        if (c == IN) out[found++] = t;
    }
    free(unlike);
    return clear && found == n;
}

/* score[t] = max over slots a of ubar[a] . k[t] / |k[t]|; ubar is rounded to the kernel set's type like every query. */
static bool quoka_scores(const setting *s, const ca_select_opt *opt, ca_dtype type, uint32_t kv, uint32_t past, double *score)
{
    const uint32_t dim = s->c->shape.dim, nq = share_of(opt->quoka.query_ratio, s->c->shape.q_len), group = s->group;
    uint32_t *chosen = malloc((size_t)group * nq * sizeof *chosen);
    bool clear = true;
    for (uint32_t h = 0; h < group; h++) clear &= unlike_queries(s, kv * group + h, nq, chosen + (size_t)h * nq);
    for (uint32_t t = 0; t < past; t++) score[t] = -INFINITY;
    for (uint32_t a = 0; clear && a < nq; a++) {
        float ubar[256];
        for (uint32_t d = 0; d < dim; d++) {
            double u = 0.0;
            for (uint32_t h = 0; h < group; h++) {
                const float *q = query(s, kv * group + h, s->d->chunk.pos + chosen[(size_t)h * nq + a]);
                u += (double)q[d] / sqrt(dot(q, q, dim)) / group;
            }
            ubar[d] = type == CA_BF16 ? ca_bf16_to_f32(ca_f32_to_bf16((float)u)) : (float)u;
        }
        for (uint32_t t = 0; t < past; t++) {
            const float *k = key(s, kv * group, t);
            score[t] = fmax(score[t], dot(ubar, k, dim) / sqrt(dot(k, k, dim)));
        }
    }
    free(chosen);
    return clear;
}

static void check_tokens(const setting *s, const ca_kern *kern, uint32_t kv, uint32_t past, const double *want, const float *got,
                         const uint32_t *tokens, uint32_t n, tally *count)
{
    /* A value of ubar at the middle between two numbers of the type may be rounded either way. */
    const double margin = ca_kern_dtype(kern) == CA_BF16 ? 1e-4 : 2e-6;
    uint8_t *taken = calloc(past, 1);
    for (uint32_t i = 0; i < n; i++) {
        if (tokens[i] >= past || (i > 0 && tokens[i] <= tokens[i - 1])) fail_msg("%s: tokens do not ascend", s->c->shape.what);
        taken[tokens[i]] = 1;
    }
    for (uint32_t t = 0; t < past; t++) {
        const choice c = among_best(want, past, t, n, margin);
        count->kept += c == IN;
        count->dropped += c == OUT;
        count->either += c == EITHER;
        if (!(fabs((double)got[t] - want[t]) <= margin))
            fail_msg("quoka %s (%s): KV head %u token %u has score %g, not %g", ca_kern_name(kern), s->c->shape.what, kv, t,
                     (double)got[t], want[t]);
        if (c != EITHER && taken[t] != (c == IN))
            fail_msg("quoka %s (%s): KV head %u token %u must %sbe read", ca_kern_name(kern), s->c->shape.what, kv, t,
                     c == IN ? "" : "not ");
    }
    free(taken);
}

static void quoka_tokens(void **state)
{
    (void)state;
    const kern_list kerns = usable_kerns();
    static const ca_quoka_opt ratios[] = { { 0.25F, 0.25F }, { 1.0F, 1.0F }, { 0.001F, 0.001F }, { 0.5F, 0.1F } };
    enum { N_RATIOS = sizeof ratios / sizeof *ratios };
    tally all = { 0 };
    unsigned unclear = 0;
    for (size_t n = 0; n < kerns.n * N_CASES * N_RATIOS; n++) {
        const select_case *c = &cases[n % N_CASES];
        const ca_kern *kern = kerns.kern[n / N_CASES % kerns.n];
        const ca_select_opt opt = { .selector = CA_SELECT_QUOKA, .quoka = ratios[n / N_CASES / kerns.n] };
        attn_data d = select_data(c, kern, &opt);
        const uint32_t past = d.chunk.pos / c->shape.page * c->shape.page;
        const uint32_t cap = ca_select_gather_tokens(&opt, c->shape.kv_len);
        ca_mask no_mask = { 0 };
        const setting s = { c, &d, &no_mask, c->shape.hq / c->shape.hkv };
        const ca_queries q = queries_of(&d);
        uint32_t *tokens = malloc((size_t)c->shape.hkv * cap * sizeof *tokens), n_tokens = 77;
        float *scores = malloc((size_t)c->shape.hkv * (past + 1) * sizeof *scores);
        double *want = malloc((past + 1) * sizeof *want);
        must(ca_select_tokens(d.cache, &opt, &d.chunk, &q, &d.ws, tokens, &n_tokens, scores), "select");
        assert_int_equal(d.ws.used, 0);
        assert_int_equal(n_tokens, past ? share_of(opt.quoka.kv_ratio, past) : 0);
        for (uint32_t kv = 0; past > 0 && kv < c->shape.hkv; kv++) {
            if (quoka_scores(&s, &opt, ca_kern_flow_dtype(kern), kv, past, want))
                check_tokens(&s, kern, kv, past, want, scores + (size_t)kv * past, tokens + (size_t)kv * cap, n_tokens, &all);
            else
                unclear++;
        }
        free(tokens);
        free(scores);
        free(want);
        attn_data_destroy(&d);
    }
    assert_int_equal(unclear, 0);
    assert_true(all.kept > 500 && all.dropped > 500);
    if (all.either * 100 > all.kept) fail_msg("%u of %u tokens may go either way", all.either, all.kept);
}

/* Masks, tokens and scores do not depend on the number of threads. */
static void threads(void **state)
{
    (void)state;
    static const select_case c = { { 200, 1000, 6, 2, 80, 32, "work for many threads" }, 0, 0, 0 };
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    for (ca_selector selector = CA_SELECT_XATTENTION; selector <= CA_SELECT_ORACLE; selector++) {
        ca_select_opt opt;
        ca_select_defaults(selector, &opt);
        omp_set_num_threads(5); /* the workspace is asked for with as many */
        attn_data d = select_data(&c, kern, &opt);
        const ca_queries q = queries_of(&d);
        ca_mask m = mask_of(&c, &d);
        const size_t n_words = (size_t)m.n_heads * m.n_qblocks * m.words, n_scores = (size_t)m.n_heads * m.n_qblocks * m.n_kblocks;
        uint64_t *bits = malloc(n_words * sizeof *bits);
        float *scores = malloc(n_scores * sizeof *scores), *again = malloc(n_scores * sizeof *again);
        omp_set_num_threads(1);
        must(ca_select(d.cache, &opt, &d.chunk, &q, &d.ws, &m, scores), "select");
        memcpy(bits, m.bits, n_words * sizeof *bits);
        omp_set_num_threads(5);
        m = mask_of(&c, &d);
        must(ca_select(d.cache, &opt, &d.chunk, &q, &d.ws, &m, again), "select");
        assert_memory_equal(bits, m.bits, n_words * sizeof *bits);
        assert_memory_equal(scores, again, n_scores * sizeof *scores);
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
    static const struct {
        ca_select_opt opt;
        const char *says;
    } bad[] = {
        { { .selector = CA_SELECT_XATTENTION, .xattention = { 12, 0.5F } }, "stride 12" },
        { { .selector = CA_SELECT_XATTENTION, .xattention = { 4, 0.5F } }, "stride 4" },
        { { .selector = CA_SELECT_XATTENTION, .xattention = { 8, -0.1F } }, "threshold -0.1" },
        { { .selector = CA_SELECT_XATTENTION, .xattention = { 8, 1.1F } }, "threshold 1.1" },
        { { .selector = CA_SELECT_XATTENTION, .xattention = { 8, NAN } }, "threshold" },
        { { .selector = CA_SELECT_MINFERENCE, .minference = { 0 } }, "top_k 0" },
        { { .selector = CA_SELECT_TRISHAPE, .trishape = { 64, 0 } }, "window 0" },
        { { .selector = CA_SELECT_ORACLE, .oracle = { .mass = -0.5F } }, "mass -0.5" },
        { { .selector = CA_SELECT_ORACLE, .oracle = { .mass = 1.5F } }, "mass 1.5" },
        { { .selector = CA_SELECT_ORACLE, .oracle = { .mass = NAN } }, "mass" },
        { { .selector = CA_SELECT_ORACLE, .oracle = { .mass = 0.5F, .scale = -1.0F } }, "scale -1" },
        { { .selector = CA_SELECT_ORACLE, .oracle = { .mass = 0.5F, .scale = INFINITY } }, "scale" },
        { { .selector = CA_SELECT_QUOKA, .quoka = { 0.0F, 0.5F } }, "query_ratio 0" },
        { { .selector = CA_SELECT_QUOKA, .quoka = { 0.5F, 0.0F } }, "kv_ratio 0" },
        { { .selector = CA_SELECT_QUOKA, .quoka = { 1.5F, 0.5F } }, "query_ratio 1.5" },
        { { .selector = CA_SELECT_QUOKA, .quoka = { 0.5F, 2.0F } }, "kv_ratio 2" },
        { { .selector = CA_SELECT_QUOKA, .quoka = { NAN, 0.5F } }, "query_ratio" },
        { { .selector = CA_SELECT_QUOKA, .quoka = { 0.5F, NAN } }, "kv_ratio" },
        { { .selector = CA_SELECT_FLASHPREFILL, .flashprefill = { .alpha = -1.0F, .window = 1 } }, "alpha -1" },
        { { .selector = CA_SELECT_SEER }, "gate" },
        { { .selector = CA_SELECT_USER }, "no function" },
        { { .selector = (ca_selector)77 }, "selector 77" },
        { { .selector = (ca_selector)-1 }, "selector -1" },
    };
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    const ca_select_opt plain = { .selector = CA_SELECT_TRISHAPE };
    attn_data d = select_data(&cases[1], kern, &plain);
    const ca_queries q = queries_of(&d);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ca_mask m = mask_of(&cases[1], &d);
        uint32_t tokens[1], n = 9;
        if (ca_select_check(&bad[i].opt) != CA_E_ARG || !strstr(ca_last_error(), bad[i].says))
            fail_msg("case %zu ('%s'): '%s'", i, bad[i].says, ca_last_error());
        assert_int_equal(ca_select(d.cache, &bad[i].opt, &d.chunk, &q, &d.ws, &m, NULL), CA_E_ARG);
        for (size_t w = 0; w < (size_t)m.n_heads * m.n_qblocks * m.words; w++) assert_true(m.bits[w] == 0);
        assert_int_equal(ca_select_tokens(d.cache, &bad[i].opt, &d.chunk, &q, &d.ws, tokens, &n, NULL), CA_E_ARG);
        assert_int_equal(n, 0);
    }
    attn_data_destroy(&d);
}

/* Defaults are in range, names are theirs, and what a selector needs is refused by name when it is not there. */
static void needs(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    const ca_select_opt none = { .selector = CA_SELECT_TRISHAPE };
    attn_data d = select_data(&cases[1], kern, &none);
    const ca_queries q = queries_of(&d);
    ca_select_opt opt;
    for (ca_selector selector = CA_SELECT_FLASHPREFILL; selector <= CA_SELECT_ORACLE; selector++) {
        ca_mask m = mask_of(&cases[1], &d);
        ca_select_defaults(selector, &opt);
        assert_int_equal(opt.selector, selector);
        assert_non_null(ca_selector_name(selector));
        if (selector == CA_SELECT_SEER) continue; /* its gate is the caller's */
        assert_int_equal(ca_select_check(&opt), CA_OK);
        if (ca_select_summaries(&opt) == CA_SUMMARY_NONE || selector == CA_SELECT_QUOKA) continue;
        assert_int_equal(ca_select(d.cache, &opt, &d.chunk, &q, &d.ws, &m, NULL), CA_E_ARG);
        assert_non_null(strstr(ca_last_error(), ca_selector_name(selector)));
        assert_non_null(strstr(ca_last_error(), "ca_select_summaries"));
    }
    assert_null(ca_selector_name((ca_selector)77));
    assert_string_equal(ca_selector_name(CA_SELECT_NONE), "none");

    uint32_t tokens[1000], n = 0;
    ca_mask m = mask_of(&cases[1], &d);
    ca_select_defaults(CA_SELECT_QUOKA, &opt);
    assert_int_equal(ca_select(d.cache, &opt, &d.chunk, &q, &d.ws, &m, NULL), CA_E_ARG); /* tokens, not blocks */
    assert_non_null(strstr(ca_last_error(), "no block scores"));
    assert_int_equal(ca_select_tokens(d.cache, &opt, &d.chunk, &q, &d.ws, tokens, &n, NULL), CA_E_ARG); /* no key lengths kept */
    assert_non_null(strstr(ca_last_error(), "quoka"));
    assert_int_equal(ca_select_tokens(d.cache, &none, &d.chunk, &q, &d.ws, tokens, &n, NULL), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "does not choose tokens"));
    attn_data_destroy(&d);

    d = select_data(&cases[1], kern, &opt); /* 417 tokens before the chunk, gathering was asked for 129 */
    ca_select_opt more = opt;
    more.quoka.kv_ratio = 0.5F;
    assert_int_equal(ca_select_tokens(d.cache, &more, &d.chunk, &q, &d.ws, tokens, &n, NULL), CA_E_FULL);
    assert_non_null(strstr(ca_last_error(), "ca_select_gather_tokens"));
    d.ws.size = 4096;
    assert_int_equal(
        ca_select_tokens(d.cache, &opt, &d.chunk, &(ca_queries){ .q = d.q, .stride = d.q_stride }, &d.ws, tokens, &n, NULL),
        CA_E_WORKSPACE);
    assert_int_equal(d.ws.used, 0);
    attn_data_destroy(&d);
}

typedef struct caller {
    int calls;
    uint64_t fill;
    bool reshape, refuse;
} caller;

static ca_status users_rule(void *user, const ca_cache *cache, const ca_chunk *chunk, const ca_queries *q, ca_mask *mask)
{
    caller *u = user;
    u->calls++;
    assert_non_null(cache);
    assert_true(chunk->n_tokens > 0 && q->q);
    const size_t n = (size_t)mask->n_heads * mask->n_qblocks * mask->words;
    for (size_t w = 0; w < n; w++) {
        assert_true(mask->bits[w] == 0);
        mask->bits[w] = u->fill;
    }
    if (u->reshape) mask->n_kblocks--;
    return u->refuse ? CA_E_CANCELED : CA_OK;
}

/* The caller's function fills the mask; what lies in the future of a Q block is gone; another shape and an error come back. */
static void user_mask(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    caller u = { .fill = UINT64_C(0xfffffffffffffff5) };
    caller reshapes = { .reshape = true }, refuses = { .refuse = true };
    ca_select_opt opt = { .selector = CA_SELECT_USER, .user = { users_rule, &u } };
    for (size_t n = 0; n < N_CASES; n++) {
        const select_case *c = &cases[n];
        attn_data d = select_data(c, kern, &opt);
        const ca_queries q = queries_of(&d);
        ca_mask m = mask_of(c, &d);
        opt.user.user = &u;
        float *scores = malloc((size_t)m.n_heads * m.n_qblocks * m.n_kblocks * sizeof *scores);
        must(ca_select(d.cache, &opt, &d.chunk, &q, &d.ws, &m, scores), "select");
        for (uint32_t r = 0; r < m.n_heads * m.n_qblocks; r++)
            for (uint32_t j = 0; j < m.words * 64; j++) {
                const bool want = j <= m.first_qblock + r % m.n_qblocks && j % 64 != 1 && j % 64 != 3;
                if (bit(m.bits + (size_t)r * m.words, j) != want) fail_msg("%s: row %u block %u", c->shape.what, r, j);
                assert_true(j >= m.n_kblocks || scores[(size_t)r * m.n_kblocks + j] == 0.0F);
            }
        free(scores);
        m = mask_of(c, &d);
        const ca_mask shape = m;
        opt.user.user = &reshapes;
        assert_int_equal(ca_select(d.cache, &opt, &d.chunk, &q, &d.ws, &m, NULL), CA_E_SHAPE);
        assert_non_null(strstr(ca_last_error(), "shape"));
        assert_memory_equal(&shape, &m, sizeof m);
        m = mask_of(c, &d);
        opt.user.user = &refuses;
        assert_int_equal(ca_select(d.cache, &opt, &d.chunk, &q, &d.ws, &m, NULL), CA_E_CANCELED);
        attn_data_destroy(&d);
    }
    assert_true(u.calls == N_CASES && reshapes.calls == N_CASES && refuses.calls == N_CASES);
}

int main(void)
{
    omp_set_num_threads(1); /* the cases are tiny: threads would only wait for each other */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xattention_mask), cmocka_unit_test(oracle_mask),  cmocka_unit_test(minference_mask),
        cmocka_unit_test(trishape_mask),   cmocka_unit_test(quoka_tokens), cmocka_unit_test(threads),
        cmocka_unit_test(bad_options),     cmocka_unit_test(needs),        cmocka_unit_test(user_mask),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
