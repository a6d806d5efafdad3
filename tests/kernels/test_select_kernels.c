/* The kernels of selectors (page scores, antidiagonals, log-sum-exp, panel products) of every kernel set against their definitions
 * in double precision, from the values that the set stores. */
#include "kern_list.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "kern/kern.h"

static const uint32_t dims[] = { 16, 64, 80, 96, 128, 256 };
static const uint32_t pages[] = { 32, 64, 128 };
enum { N_DIMS = sizeof dims / sizeof *dims, N_PAGES = sizeof pages / sizeof *pages };

static const float untouched = 12345.0F;

/* A dot product and the sum of its absolute terms, which its rounding errors are measured in. */
typedef struct exact {
    double dot, spread;
} exact;

static exact exact_add(exact sum, double a, double b)
{
    return (exact){ sum.dot + a * b, sum.spread + fabs(a * b) };
}

/* f32 sums of n products in any order: each product and each addition rounds once. */
static bool close_to(float got, exact want, uint32_t n)
{
    return fabs((double)got - want.dot) <= 6e-8 * (n + 1) * want.spread;
}

static float *guarded(size_t n)
{
    float *x = aligned_alloc(64, ca_align_up(n * sizeof *x, 64));
    for (size_t i = 0; i < n; i++) x[i] = untouched;
    return x;
}

static double rounded(ca_dtype type, float x)
{
    return (double)(type == CA_BF16 ? ca_bf16_to_f32(ca_f32_to_bf16(x)) : x);
}

/* More bits than bf16 has. */
static float *long_values(size_t n, uint64_t seed)
{
    float *x = random_values(n, 1.0F, seed);
    for (size_t i = 0; i < n; i++) x[i] *= 1.0037F;
    return x;
}

/* Keys of one page, len of them, put there in two pieces; NaN as values, which no kernel here may read. */
typedef struct keys {
    float *k, *v;
    size_t stride;
    uint32_t len;
} keys;

static keys keys_create(uint32_t len, uint32_t dim)
{
    keys x = { .stride = dim + 3, .len = len };
    x.k = long_values(len * x.stride, len * 7 + dim);
    x.v = malloc(len * x.stride * sizeof *x.v);
    for (size_t i = 0; i < len * x.stride; i++) x.v[i] = NAN;
    return x;
}

static void keys_destroy(keys *x)
{
    free(x->k);
    free(x->v);
}

static void *page_create(const ca_kern *kern, const keys *x, uint32_t page_tokens, uint32_t dim)
{
    const size_t bytes = ca_page_bytes(kern, page_tokens, dim);
    void *page = memset(aligned_alloc(64, bytes), 0, bytes);
    const uint32_t half = x->len / 2;
    kern->page_put(page, page_tokens, dim, 0, half, x->k, x->v, x->stride, NULL);
    kern->page_put(page, page_tokens, dim, half, x->len - half, x->k + half * x->stride, x->v + half * x->stride, x->stride, NULL);
    return page;
}

typedef struct page_case {
    uint32_t count, page, len, dim;  /* vectors or rows; slots, and tokens in them */
    uint32_t diag_stride, skip, n_q; /* antidiagonals only */
} page_case;

static void check_qk(const ca_kern *kern, const page_case *c, const keys *x, const float *q, size_t q_stride)
{
    void *page = page_create(kern, x, c->page, c->dim);
    const size_t packed_bytes = ca_pack_q_bytes(c->count, c->dim), n = (size_t)c->count * c->page;
    void *packed = memset(aligned_alloc(64, packed_bytes), 0xff, packed_bytes);
    float *s = guarded(n + 16);
    kern->pack_q(q, q_stride, c->count, c->dim, packed);
    kern->qk(&(ca_qk_job){ .packed = packed, .count = c->count, .page = page, .page_tokens = c->page, .head_dim = c->dim, .s = s });
    for (uint32_t i = 0; i < c->count; i++)
        for (uint32_t t = 0; t < c->page; t++) {
            exact want = { 0.0, 0.0 };
            for (uint32_t d = 0; t < c->len && d < c->dim; d++)
                want = exact_add(want, rounded(kern->flow, q[i * q_stride + d]), rounded(kern->type, x->k[t * x->stride + d]));
            const float got = s[(size_t)i * c->page + t];
            if (!close_to(got, want, c->dim))
                fail_msg("%s: qk of %u vectors, page of %u/%u, dim %u: s[%u][%u] is %.9g, must be %.9g", kern->name, c->count,
                         c->len, c->page, c->dim, i, t, (double)got, want.dot);
        }
    for (size_t i = n; i < n + 16; i++)
        if (s[i] != untouched) fail_msg("%s: qk of %u vectors, page of %u: wrote past its end", kern->name, c->count, c->page);
    free(page);
    free(packed);
    free(s);
}

/* Every number of vectors, and every shape with whole, ragged and empty pages. */
static void scores_of_pages(void **state)
{
    (void)state;
    const kern_list kerns = usable_kerns();
    uint64_t seed = 1;
    for (uint32_t i = 0; i < CA_ATTN_BLOCK + 3 * N_DIMS * N_PAGES; i++) {
        const uint64_t r = mix64(&seed);
        const uint32_t j = i % (N_DIMS * N_PAGES), page = pages[j % N_PAGES];
        const uint32_t random_len = (uint32_t)(r >> 32) % (page + 1);
        const page_case c = { .count = i < CA_ATTN_BLOCK ? i + 1 : (uint32_t)r % 14 + 1,
                              .page = page,
                              .len = (r & (1U << 16)) ? page : random_len,
                              .dim = dims[j / N_PAGES] };
        const size_t q_stride = c.dim + r % 7;
        keys x = keys_create(c.len, c.dim);
        float *q = long_values(c.count * q_stride, i);
        for (size_t k = 0; k < kerns.n; k++) check_qk(kerns.kern[k], &c, &x, q, q_stride);
        keys_destroy(&x);
        free(q);
    }
}

static void check_diag(const ca_kern *kern, const page_case *c, const keys *x, const float *q, size_t q_stride)
{
    enum { GAP = 5 }; /* between rows of the result, and before it: off the alignment, nothing written there */
    const uint32_t stride = c->diag_stride, n_groups = c->page / stride;
    const size_t e_stride = n_groups + GAP, n = GAP + c->count * e_stride;
    void *page = page_create(kern, x, c->page, c->dim);
    const size_t packed_bytes = ca_pack_diag_bytes(c->count, c->dim);
    void *packed = memset(aligned_alloc(64, packed_bytes), 0xff, packed_bytes);
    float *e = guarded(n);
    /* in two pieces: rows up to `first`, and behind them */
    const uint32_t first = c->count * 2 / 3, cut = ca_min_u32(ca_max_u32(first * stride, c->skip) - c->skip, c->n_q);
    kern->pack_diag(q, q_stride, c->skip, cut, 0, first, stride, c->dim, packed);
    kern->pack_diag(q + cut * q_stride, q_stride, ca_max_u32(first * stride, c->skip) - first * stride, c->n_q - cut, first,
                    c->count - first, stride, c->dim, packed);
    kern->diag(&(ca_diag_job){ .packed = packed,
                               .n_rows = c->count,
                               .stride = stride,
                               .page = page,
                               .next = c->n_q & 1 ? page : NULL,
                               .page_tokens = c->page,
                               .head_dim = c->dim,
                               .e = e + GAP,
                               .e_stride = e_stride });
    for (uint32_t r = 0; r < c->count; r++)
        for (uint32_t g = 0; g < n_groups; g++) {
            exact want = { 0.0, 0.0 };
            for (uint32_t t = 0; t < stride; t++) {
                const uint32_t qt = (r + 1) * stride - 1 - t, kt = g * stride + t;
                if (qt < c->skip || qt >= c->skip + c->n_q || kt >= c->len) continue;
                for (uint32_t d = 0; d < c->dim; d++)
                    want = exact_add(want, rounded(kern->flow, q[(qt - c->skip) * q_stride + d]),
                                     rounded(kern->type, x->k[kt * x->stride + d]));
            }
            const float got = e[GAP + r * e_stride + g];
            if (!close_to(got, want, c->dim * stride))
                fail_msg("%s: diag of %u rows of %u, tokens %u..%u, page of %u/%u, dim %u: e[%u][%u] is %.9g, must be %.9g",
                         kern->name, c->count, stride, c->skip, c->skip + c->n_q, c->len, c->page, c->dim, r, g, (double)got,
                         want.dot);
        }
    for (size_t i = 0; i < n; i++)
        if ((i < GAP || (i - GAP) % e_stride >= n_groups) && e[i] != untouched)
            fail_msg("%s: diag of %u rows of %u, page of %u: wrote outside its rows", kern->name, c->count, stride, c->page);
    free(page);
    free(packed);
    free(e);
}

/* Both strides, every tail of the row tile, every shape; queries that begin and end inside a row. */
static void antidiagonals(void **state)
{
    (void)state;
    const kern_list kerns = usable_kerns();
    uint64_t seed = 2;
    for (uint32_t i = 0; i < 8 * N_DIMS * N_PAGES; i++) {
        const uint64_t r = mix64(&seed);
        const uint32_t j = i % (N_DIMS * N_PAGES), stride = i & 1 ? 16 : 8, page = pages[j % N_PAGES];
        const uint32_t random_len = (uint32_t)(r >> 32) % (page + 1);
        page_case c = { .count = i % 19 + 1,
                        .page = page,
                        .len = (r & (1U << 16)) ? page : random_len,
                        .dim = dims[j / N_PAGES],
                        .diag_stride = stride };
        c.skip = (r & (1U << 17)) ? 0 : (uint32_t)(r >> 20) % ca_min_u32(stride + 2, c.count * stride);
        c.n_q = c.count * stride - c.skip;
        if (r & (1U << 18)) c.n_q = (uint32_t)(r >> 40) % (c.n_q + 1);
        const size_t q_stride = c.dim + r % 7;
        keys x = keys_create(c.len, c.dim);
        float *q = long_values(c.n_q * q_stride, i);
        for (size_t k = 0; k < kerns.n; k++) check_diag(kerns.kern[k], &c, &x, q, q_stride);
        keys_destroy(&x);
        free(q);
    }
}

static void check_lse(const ca_kern *kern, const float *x, uint32_t n, float c)
{
    double max = -INFINITY, total = 0.0;
    for (uint32_t i = 0; i < n; i++) max = fmax(max, (double)c * (double)x[i]);
    for (uint32_t i = 0; i < n && max > -INFINITY; i++) total += exp2((double)c * (double)x[i] - max);
    float sum = NAN;
    const float m = kern->lse(x, n, c, &sum);
    const double bound = 1.2e-7 * fabs(max); /* c x rounds once */
    const bool ok = max == -INFINITY
                        ? m == -INFINITY && sum == 0.0F
                        : fabs((double)m - max) <= bound && fabs((double)m + log2((double)sum) - max - log2(total)) <= bound + 4e-6;
    if (!ok)
        fail_msg("%s: lse of %u values, c %g: %.9g and %.9g, must be %.9g and %.9g", kern->name, n, (double)c, (double)m,
                 (double)sum, max, total);
}

static void check_powers(const ca_kern *kern, const float *x, uint32_t n, float c)
{
    double most = -INFINITY, total = 0.0;
    for (uint32_t i = 0; i < n; i++) most = fmax(most, (double)x[i]);
    float *p = malloc(n * sizeof *p); /* exactly n, likewise */
    memcpy(p, x, n * sizeof *p);
    const double sum = (double)kern->powers(p, n, c);
    for (uint32_t i = 0; i < n; i++) {
        const double z = most == -INFINITY ? -INFINITY : (double)c * ((double)x[i] - most), want = exp2(z);
        const double bound = z < -120.0 ? 1e-36 : want * (4e-7 + 1.2e-7 * fabs(z)); /* z rounds twice */
        if (!(fabs((double)p[i] - want) <= bound))
            fail_msg("%s: power %u of %u, c %g, is %.9g, must be %.9g", kern->name, i, n, (double)c, (double)p[i], want);
        total += (double)p[i];
    }
    if (!(fabs(sum - total) <= 6e-8 * n * total))
        fail_msg("%s: the sum of %u powers is %.9g, must be %.9g", kern->name, n, sum, total);
    free(p);
}

static void log_sums(void **state)
{
    (void)state;
    const kern_list kerns = usable_kerns();
    static const struct {
        float sd, c;
        uint32_t hidden; /* of 8 values this many are -inf */
    } kinds[] = { { 1.0F, 1.0F, 0 },  { 60.0F, 0.18F, 0 }, { 60.0F, 1.44F, 3 }, { 1e-30F, 1.0F, 0 },
                  { 1e30F, 0.5F, 0 }, { 1.0F, 1.0F, 8 },   { 0.0F, 2.0F, 0 } };
    static const uint32_t long_rows[] = { 127, 1000, 4096, 16389 };
    uint64_t seed = 3;
    for (uint32_t i = 0; i < 70 + 4; i++) {
        const uint32_t n = i < 70 ? i : long_rows[i - 70];
        for (size_t j = 0; j < sizeof kinds / sizeof *kinds; j++) {
            float *x = random_values(n, kinds[j].sd, mix64(&seed)); /* exactly n: a sanitizer sees reads past them */
            for (uint32_t e = 0; e < n; e++)
                if (mix64(&seed) % 8 < kinds[j].hidden) x[e] = -INFINITY;
            for (size_t k = 0; k < kerns.n; k++) {
                check_lse(kerns.kern[k], x, n, kinds[j].c);
                check_powers(kerns.kern[k], x, n, kinds[j].c);
            }
            free(x);
        }
    }
}

typedef struct panel_case {
    uint32_t n, depth, n_cols;
} panel_case;

static void check_panel_dot(const ca_kern *kern, const panel_case *c, const float *x, size_t x_stride, const float *panels)
{
    const uint32_t cols = (uint32_t)ca_align_up(c->n_cols, 16);
    const size_t out_stride = cols + 3, n = c->n * out_stride;
    float *out = guarded(n);
    kern->panel_dot(x, x_stride, c->n, panels, c->depth, c->n_cols, out, out_stride);
    for (size_t at = 0; at < n; at++) {
        const size_t i = at / out_stride, j = at % out_stride;
        exact want = { 0.0, 0.0 };
        for (uint32_t d = 0; j < cols && d < c->depth; d++)
            want = exact_add(want, (double)x[i * x_stride + d], (double)panels[(j / 16 * c->depth + d) * 16 + j % 16]);
        if (j < cols ? !close_to(out[at], want, c->depth) : out[at] != untouched)
            fail_msg("%s: panel_dot of %u rows, depth %u, %u columns: out[%zu][%zu] is %.9g, must be %.9g", kern->name, c->n,
                     c->depth, c->n_cols, i, j, (double)out[at], j < cols ? want.dot : (double)untouched);
    }
    free(out);
}

static void panel_products(void **state)
{
    (void)state;
    const kern_list kerns = usable_kerns();
    uint64_t seed = 4;
    for (uint32_t i = 0; i < 150; i++) {
        const uint64_t r = mix64(&seed);
        const panel_case c = { .n = i % 21 + 1,
                               .depth = (uint32_t)r % 200 + 1,
                               .n_cols = i < 21 ? 16 * i + 1 : (uint32_t)(r >> 32) % 150 };
        const size_t x_stride = c.depth + (r >> 20) % 4;
        float *x = long_values(c.n * x_stride, i), *panels = long_values(ca_align_up(c.n_cols, 16) * c.depth, i + 1000);
        for (size_t k = 0; k < kerns.n; k++) check_panel_dot(kerns.kern[k], &c, x, x_stride, panels);
        free(x);
        free(panels);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(scores_of_pages), cmocka_unit_test(antidiagonals),
                                        cmocka_unit_test(log_sums), cmocka_unit_test(panel_products) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
