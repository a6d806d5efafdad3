/* Pages: what is appended is what is read back, whatever the pieces it came in, and freed pages leave no trace. */
#include "kernels/kern_list.h"

#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "kern/kern.h"

enum { MAX_PAGE = 128 * 256, N_LAYERS = 2, N_KV = 2, MAX_SEQS = 3 };

/* Keys and values [n][N_KV * dim + 3], none of which fits in bf16: rounding must show. */
typedef struct tokens {
    float *k, *v;
    size_t stride;
} tokens;

static tokens random_tokens(uint32_t n, uint32_t dim, uint64_t seed)
{
    const size_t stride = (size_t)N_KV * dim + 3, count = n * stride;
    const tokens t = { random_values(count, 1.0F, seed), random_values(count, 2.0F, seed + 1000), stride };
    for (size_t i = 0; i < count; i++) {
        t.k[i] = t.k[i] * 1.0037F + 0.01F; /* a mean that is not about zero */
        t.v[i] *= 1.0037F;
    }
    return t;
}

static void free_tokens(tokens *t)
{
    free(t->k);
    free(t->v);
}

static ca_cache_opt options(const ca_kern *kern, uint32_t page, uint32_t dim, uint64_t capacity)
{
    return (ca_cache_opt){ .n_layers = N_LAYERS,
                           .n_kv_heads = N_KV,
                           .head_dim = dim,
                           .page_tokens = page,
                           .max_seqs = MAX_SEQS,
                           .capacity_tokens = capacity,
                           .summaries = CA_SUMMARY_MEAN_K,
                           .kern = kern };
}

static ca_cache *create(const ca_cache_opt *opt)
{
    ca_cache *cache = NULL;
    must(ca_cache_create(opt, &cache), "create");
    return cache;
}

/* Tokens [from, to) of t, in pieces; 0 = all at once. */
static void append(ca_cache *cache, uint32_t seq, uint32_t layer, const tokens *t, uint32_t from, uint32_t to, uint32_t piece)
{
    for (uint32_t at = from; at < to;) {
        const uint32_t n = ca_min_u32(piece ? piece : to - from, to - at);
        must(ca_cache_append(cache, seq, layer,
                             &(ca_kv){ .k = t->k + at * t->stride, .v = t->v + at * t->stride, .stride = t->stride }, n),
             "append");
        at += n;
    }
}

static float stored(const ca_kern *kern, float x)
{
    return ca_kern_dtype(kern) == CA_BF16 ? ca_bf16_to_f32(ca_f32_to_bf16(x)) : x;
}

typedef struct place {
    const ca_cache_opt *opt;
    uint32_t seq, layer;
} place;

#define FAIL(p, head, slot, what)                                                                                                  \
    fail_msg("%s page %u dim %u, sequence %u layer %u head %u position %u: %s", ca_kern_name((p).opt->kern), (p).opt->page_tokens, \
             (p).opt->head_dim, (p).seq, (p).layer, head, slot, what)

static void check_mean(const ca_cache *cache, place p, uint32_t head, uint32_t page, const float *k)
{
    const uint32_t dim = p.opt->head_dim, len = ca_page_len(cache, page);
    float mean[256];
    must(ca_page_mean_k(cache, page, mean), "mean");
    for (uint32_t d = 0; d < dim; d++) {
        double sum = 0.0;
        for (uint32_t t = 0; t < len; t++) sum += (double)k[(size_t)t * dim + d];
        if (!(fabs((double)mean[d] - sum / len) <= 2e-6)) FAIL(p, head, ca_page_pos(cache, page), "wrong mean key");
    }
}

/* Sequence and layer hold the first n tokens of t and nothing else. */
static void check_tokens(const ca_cache *cache, place p, const tokens *t, uint32_t n)
{
    static float k[MAX_PAGE], v[MAX_PAGE];
    const uint32_t bs = p.opt->page_tokens, dim = p.opt->head_dim;
    if (ca_cache_len(cache, p.seq, p.layer) != n) FAIL(p, 0U, ca_cache_len(cache, p.seq, p.layer), "wrong length");
    for (uint32_t h = 0; h < N_KV; h++) {
        uint32_t n_pages = 0;
        const uint32_t *pages = ca_cache_pages(cache, p.seq, p.layer, h, &n_pages);
        if (n_pages != (n + bs - 1) / bs) FAIL(p, h, n, "wrong number of pages");
        for (uint32_t b = 0; b < n_pages; b++) {
            const uint32_t len = ca_min_u32(bs, n - b * bs);
            if (ca_page_pos(cache, pages[b]) != b * bs) FAIL(p, h, b * bs, "wrong page position");
            if (ca_page_len(cache, pages[b]) != len) FAIL(p, h, b * bs, "wrong page length");
            must(ca_page_read(cache, pages[b], k, v), "read");
            for (uint32_t s = 0; s < bs; s++)
                for (uint32_t d = 0; d < dim; d++) {
                    const size_t from = (size_t)(b * bs + s) * t->stride + (size_t)h * dim + d, to = (size_t)s * dim + d;
                    const float want_k = s < len ? stored(p.opt->kern, t->k[from]) : 0.0F;
                    const float want_v = s < len ? stored(p.opt->kern, t->v[from]) : 0.0F;
                    if (memcmp(&k[to], &want_k, 4) != 0) FAIL(p, h, b * bs + s, s < len ? "wrong key" : "stale key");
                    if (memcmp(&v[to], &want_v, 4) != 0) FAIL(p, h, b * bs + s, s < len ? "wrong value" : "stale value");
                }
            check_mean(cache, p, h, pages[b], k);
        }
    }
}

/* Means of two places are the same to the bit. */
static void check_same_means(const ca_cache *a, place pa, const ca_cache *b, place pb)
{
    for (uint32_t h = 0; h < N_KV; h++) {
        uint32_t na = 0, nb = 0;
        const uint32_t *pages_a = ca_cache_pages(a, pa.seq, pa.layer, h, &na),
                       *pages_b = ca_cache_pages(b, pb.seq, pb.layer, h, &nb);
        assert_int_equal(na, nb);
        for (uint32_t i = 0; i < na; i++) {
            float ma[256], mb[256];
            must(ca_page_mean_k(a, pages_a[i], ma), "mean");
            must(ca_page_mean_k(b, pages_b[i], mb), "mean");
            if (memcmp(ma, mb, pa.opt->head_dim * sizeof *ma) != 0)
                FAIL(pa, h, ca_page_pos(a, pages_a[i]), "mean key depends on the pieces");
        }
    }
}

/* No page is in two lists. */
static void check_unique_pages(const ca_cache *cache, const ca_cache_opt *opt)
{
    bool seen[4096] = { false };
    for (uint32_t i = 0; i < opt->max_seqs * N_LAYERS * N_KV; i++) {
        uint32_t n = 0;
        const uint32_t *pages = ca_cache_pages(cache, i / (N_LAYERS * N_KV), i / N_KV % N_LAYERS, i % N_KV, &n);
        for (uint32_t b = 0; b < n; b++) {
            assert_true(pages[b] < 4096);
            assert_false(seen[pages[b]]);
            seen[pages[b]] = true;
        }
    }
}

/* Layer 0 gets everything at once, layer 1 in pieces: both hold the rounded input, and the same means to the bit. */
static void pieces_do_not_matter(void **state)
{
    (void)state;
    static const uint32_t page_sizes[] = { 32, 64, 128 }, dims[] = { 16, 48, 64, 80, 96, 112, 128, 256 };
    const kern_list kerns = usable_kerns();
    for (size_t i = 0; i < kerns.n * 3 * 8; i++) {
        const uint32_t bs = page_sizes[i / 8 % 3], dim = dims[i % 8], n = 2 * bs + 19;
        const ca_cache_opt opt = options(kerns.kern[i / 24], bs, dim, n);
        tokens t = random_tokens(n, dim, i);
        const uint32_t pieces[] = { 1, 29, bs - 1, bs, n };
        for (size_t piece = 0; piece < 5; piece++) {
            ca_cache *cache = create(&opt);
            append(cache, 1, 0, &t, 0, n, 0);
            append(cache, 1, 1, &t, 0, n, pieces[piece]);
            check_tokens(cache, (place){ &opt, 1, 1 }, &t, n);
            if (piece == 0) check_tokens(cache, (place){ &opt, 1, 0 }, &t, n);
            check_same_means(cache, (place){ &opt, 1, 1 }, cache, (place){ &opt, 1, 0 });
            ca_cache_destroy(cache);
        }
        free_tokens(&t);
    }
}

static void truncate_then_append(void **state)
{
    (void)state;
    enum { BS = 64, N = 3 * BS + 21 };
    static const uint32_t lens[] = { 0, 1, BS - 1, BS, BS + 1, 2 * BS, 3 * BS + 1, 3 * BS + 20, N, N + 5, UINT32_MAX };
    const kern_list kerns = usable_kerns();
    for (size_t i = 0; i < kerns.n * (sizeof lens / sizeof *lens); i++) {
        const uint32_t len = lens[i / kerns.n], left = ca_min_u32(len, N);
        const ca_cache_opt opt = options(kerns.kern[i % kerns.n], BS, 48, N);
        tokens t = random_tokens(N, 48, 5), other = random_tokens(N, 48, 6);
        ca_cache *fresh = create(&opt), *cache = create(&opt);
        append(fresh, 0, 0, &t, 0, N, 0);
        append(cache, 0, 0, &t, 0, left, 17);
        append(cache, 0, 0, &other, left, N, 31); /* to be forgotten */
        append(cache, 0, 1, &other, 0, 70, 0);
        must(ca_cache_truncate(cache, 0, len), "truncate");
        check_tokens(cache, (place){ &opt, 0, 0 }, &t, left);
        check_tokens(cache, (place){ &opt, 0, 1 }, &other, ca_min_u32(len, 70)); /* all layers are cut */
        append(cache, 0, 0, &t, left, N, 13);
        check_tokens(cache, (place){ &opt, 0, 0 }, &t, N);
        check_same_means(cache, (place){ &opt, 0, 0 }, fresh, (place){ &opt, 0, 0 });
        ca_cache_destroy(fresh);
        ca_cache_destroy(cache);
        free_tokens(&t);
        free_tokens(&other);
    }
}

typedef struct walk {
    ca_cache_opt opt;
    ca_cache *cache;
    tokens t[MAX_SEQS][N_LAYERS];
    uint32_t len[MAX_SEQS][N_LAYERS];
    uint64_t seed;
    unsigned n_full, n_ok;
} walk;

static bool within_capacity(const walk *w)
{
    for (uint32_t l = 0; l < N_LAYERS; l++) {
        uint64_t sum = 0;
        for (uint32_t s = 0; s < MAX_SEQS; s++) sum += w->len[s][l];
        if (sum > w->opt.capacity_tokens) return false;
    }
    return true;
}

static void walk_append(walk *w, uint32_t seq, uint32_t layer, uint32_t n)
{
    tokens *t = &w->t[seq][layer];
    uint32_t *len = &w->len[seq][layer];
    const size_t at = *len * t->stride, count = n * t->stride;
    float *k = random_values(count, 1.0F, w->seed), *v = random_values(count, 100.0F, w->seed + 1);
    const ca_status st = ca_cache_append(w->cache, seq, layer, &(ca_kv){ .k = k, .v = v, .stride = t->stride }, n);
    *len += n;
    const bool fits = within_capacity(w);
    if (st == CA_OK) {
        memcpy(t->k + at, k, count * sizeof *k);
        memcpy(t->v + at, v, count * sizeof *v);
        w->n_ok++;
    } else {
        assert_int_equal(st, CA_E_FULL);
        assert_false(fits); /* what was asked for at creation always fits */
        *len -= n;
        w->n_full++;
    }
    free(k);
    free(v);
}

/* Random appends and truncates of three sequences in a small pool, each step checked against plain arrays: sequences and layers do
 * not disturb each other, freed pages come back clean, and a refused append changes nothing. */
static void random_walk(void **state)
{
    (void)state;
    enum { MAX_TOKENS = 512, STEPS = 120 };
    const kern_list kerns = usable_kerns();
    for (size_t i = 0; i < kerns.n; i++) {
        walk w = { .opt = options(kerns.kern[i], 32, 32, 200), .seed = 77 };
        w.cache = create(&w.opt);
        for (uint32_t s = 0; s < MAX_SEQS * N_LAYERS; s++) w.t[s / N_LAYERS][s % N_LAYERS] = random_tokens(MAX_TOKENS, 32, s);
        for (unsigned step = 0; step < STEPS; step++) {
            const uint64_t x = mix64(&w.seed);
            const uint32_t seq = (uint32_t)(x >> 8) % MAX_SEQS, layer = (uint32_t)(x >> 16) % N_LAYERS,
                           n = (uint32_t)(x >> 24) % 90;
            if (x % 4 != 0) {
                walk_append(&w, seq, layer, n);
            } else {
                must(ca_cache_truncate(w.cache, seq, n), "truncate");
                for (uint32_t l = 0; l < N_LAYERS; l++) w.len[seq][l] = ca_min_u32(w.len[seq][l], n);
            }
            for (uint32_t s = 0; s < MAX_SEQS; s++)
                for (uint32_t l = 0; l < N_LAYERS; l++) check_tokens(w.cache, (place){ &w.opt, s, l }, &w.t[s][l], w.len[s][l]);
            check_unique_pages(w.cache, &w.opt);
        }
        assert_true(w.n_full > 3);
        assert_true(w.n_ok > 20);
        for (uint32_t s = 0; s < MAX_SEQS * N_LAYERS; s++) free_tokens(&w.t[s / N_LAYERS][s % N_LAYERS]);
        ca_cache_destroy(w.cache);
    }
}

/* Refused for want of pages, and for want of room in the lists of one sequence. */
static void full(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    ca_cache_opt opt = options(kern, 32, 16, 100);
    opt.max_seqs = 1;
    tokens t = random_tokens(2000, 16, 1);
    ca_cache *cache = create(&opt), *twin = create(&opt);
    append(cache, 0, 0, &t, 0, 100, 0);
    append(cache, 0, 1, &t, 0, 70, 0);
    append(twin, 0, 0, &t, 0, 100, 0);
    append(twin, 0, 1, &t, 0, 70, 0);
    static const uint32_t too_many[] = { 200, 1900, UINT32_MAX };
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(ca_cache_append(cache, 0, 0, &(ca_kv){ .k = t.k, .v = t.v, .stride = t.stride }, too_many[i]), CA_E_FULL);
        assert_non_null(strstr(ca_last_error(), "cache: "));
        for (uint32_t l = 0; l < N_LAYERS; l++) {
            check_tokens(cache, (place){ &opt, 0, l }, &t, l ? 70 : 100);
            check_same_means(cache, (place){ &opt, 0, l }, twin, (place){ &opt, 0, l });
        }
    }
    assert_int_equal(ca_cache_append(cache, 0, 0, &(ca_kv){ .k = t.k, .v = t.v, .stride = t.stride }, 0), CA_OK);
    append(cache, 0, 1, &t, 70, 100, 7); /* the other layer still has its share */
    check_tokens(cache, (place){ &opt, 0, 1 }, &t, 100);
    ca_cache_destroy(cache);
    ca_cache_destroy(twin);
    free_tokens(&t);
}

/* Appends whose first and last blocks are both open, by more threads than there are cores. */
static void many_threads(void **state)
{
    (void)state;
    enum { N = 1980 };
    const ca_kern *kern = NULL;
    must(ca_kern_choose("scalar", &kern), "kern");
    const ca_cache_opt opt = options(kern, 32, 16, N);
    tokens t = random_tokens(N, 16, 1);
    ca_cache *cache = create(&opt);
    append(cache, 0, 0, &t, 0, N, 0);
    omp_set_num_threads(6);
    for (unsigned round = 0; round < 8; round++) {
        append(cache, 1, 0, &t, 0, N, 97);
        check_same_means(cache, (place){ &opt, 1, 0 }, cache, (place){ &opt, 0, 0 });
        must(ca_cache_truncate(cache, 1, 0), "truncate");
    }
    omp_set_num_threads(1);
    ca_cache_destroy(cache);
    free_tokens(&t);
}

static void swapped_pages(void **state)
{
    (void)state;
    const kern_list kerns = usable_kerns();
    for (size_t i = 0; i < kerns.n; i++) {
        const ca_cache_opt opt = options(kerns.kern[i], 32, 64, 300);
        ca_cache *cache = create(&opt);
        tokens t[2] = { random_tokens(130, 64, 1), random_tokens(130, 64, 2) };
        append(cache, 0, 0, &t[0], 0, 100, 0);
        append(cache, 2, 1, &t[1], 0, 75, 0);
        uint64_t seed = 9;
        for (unsigned n = 0; n < 60; n++) {
            uint32_t page[2];
            for (unsigned j = 0; j < 2; j++) {
                const uint64_t x = mix64(&seed);
                const bool first = x & 1;
                uint32_t n_pages = 0;
                const uint32_t *pages = ca_cache_pages(cache, first ? 0 : 2, first ? 0 : 1, (uint32_t)(x >> 1) & 1, &n_pages);
                page[j] = pages[(uint32_t)(x >> 8) % n_pages];
            }
            const uint32_t pos = ca_page_pos(cache, page[0]), len = ca_page_len(cache, page[0]);
            must(ca_cache_swap_pages(cache, page[0], page[1]), "swap");
            assert_int_equal(ca_page_pos(cache, page[1]), pos);
            assert_int_equal(ca_page_len(cache, page[1]), len);
        }
        check_tokens(cache, (place){ &opt, 0, 0 }, &t[0], 100);
        check_tokens(cache, (place){ &opt, 2, 1 }, &t[1], 75);
        must(ca_cache_truncate(cache, 0, 90), "truncate");
        append(cache, 0, 0, &t[0], 90, 130, 3);
        append(cache, 2, 1, &t[1], 75, 130, 0);
        check_tokens(cache, (place){ &opt, 0, 0 }, &t[0], 130);
        check_tokens(cache, (place){ &opt, 2, 1 }, &t[1], 130);
        check_unique_pages(cache, &opt);
        ca_cache_destroy(cache);
        free_tokens(&t[0]);
        free_tokens(&t[1]);
    }
}

static void bad_options(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    static const struct {
        size_t field; /* offset of a uint32_t; SIZE_MAX = the capacity */
        uint64_t value;
        ca_status status;
        const char *message;
    } cases[] = {
        { offsetof(ca_cache_opt, n_layers), 0, CA_E_ARG, "at least 1" },
        { offsetof(ca_cache_opt, n_kv_heads), 0, CA_E_ARG, "at least 1" },
        { offsetof(ca_cache_opt, max_seqs), 0, CA_E_ARG, "at least 1" },
        { SIZE_MAX, 0, CA_E_ARG, "at least 1" },
        { offsetof(ca_cache_opt, head_dim), 0, CA_E_ARG, "head_dim 0" },
        { offsetof(ca_cache_opt, head_dim), 72, CA_E_ARG, "head_dim 72" },
        { offsetof(ca_cache_opt, head_dim), 272, CA_E_ARG, "head_dim 272" },
        { offsetof(ca_cache_opt, page_tokens), 0, CA_E_ARG, "page_tokens 0" },
        { offsetof(ca_cache_opt, page_tokens), 96, CA_E_ARG, "page_tokens 96" },
        { offsetof(ca_cache_opt, page_tokens), 256, CA_E_ARG, "page_tokens 256" },
        { SIZE_MAX, UINT64_C(1) << 31, CA_E_ARG, "capacity" },
        { SIZE_MAX, UINT64_MAX, CA_E_ARG, "capacity" },
        { offsetof(ca_cache_opt, n_layers), UINT32_MAX, CA_E_MEMORY, "pages" },
        { offsetof(ca_cache_opt, max_seqs), UINT32_MAX, CA_E_MEMORY, "pages" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ca_cache_opt opt = options(kern, 32, 64, 1000);
        const uint32_t value = (uint32_t)cases[i].value;
        if (cases[i].field == SIZE_MAX)
            opt.capacity_tokens = cases[i].value;
        else
            memcpy((unsigned char *)&opt + cases[i].field, &value, sizeof value);
        size_t bytes = 0;
        ca_cache *cache = NULL;
        if (ca_cache_forecast(&opt, &bytes) != cases[i].status || !strstr(ca_last_error(), cases[i].message))
            fail_msg("forecast, case %zu ('%s'): '%s'", i, cases[i].message, ca_last_error());
        if (ca_cache_create(&opt, &cache) != cases[i].status || !strstr(ca_last_error(), cases[i].message))
            fail_msg("create, case %zu ('%s'): '%s'", i, cases[i].message, ca_last_error());
        assert_null(cache);
    }
    ca_cache_opt opt = options(NULL, 32, 64, 1000);
    ca_cache *cache = NULL;
    assert_int_equal(ca_cache_create(&opt, &cache), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "kernel set"));
}

static size_t forecast(const ca_cache_opt *opt)
{
    size_t bytes = 0;
    must(ca_cache_forecast(opt, &bytes), "forecast");
    return bytes;
}

static void forecasts(void **state)
{
    (void)state;
    const kern_list kerns = usable_kerns();
    for (size_t i = 0; i < kerns.n; i++) {
        ca_cache_opt opt = options(kerns.kern[i], 64, 64, 1 << 16);
        const size_t bytes = forecast(&opt);
        const size_t values = (size_t)2 * N_LAYERS * N_KV * 64 * (1 << 16) * (ca_kern_dtype(opt.kern) == CA_BF16 ? 2 : 4);
        assert_in_range(bytes, values, values + values / 10); /* K and V are nearly all of it */
        opt.summaries = 0;
        assert_in_range(forecast(&opt), values, bytes - (size_t)N_LAYERS * N_KV * 64 * 4 * ((1 << 16) / 64));
        opt.capacity_tokens *= 2;
        assert_in_range(forecast(&opt), values * 2, values * 2 + values / 10);
    }
    /* Sums that overflow, and a pool that no address space has. */
    ca_cache_opt opt = options(kerns.kern[0], 32, 64, INT32_MAX);
    size_t bytes = 0;
    opt.n_layers = opt.n_kv_heads = opt.max_seqs = UINT32_MAX;
    assert_int_equal(ca_cache_forecast(&opt, &bytes), CA_E_MEMORY);
    assert_non_null(strstr(ca_last_error(), "overflow"));
    opt = options(kerns.kern[kerns.n - 1], 128, 256, INT32_MAX);
    opt.n_layers = 64;
    opt.n_kv_heads = 1;
    assert_true(forecast(&opt) > (size_t)1 << 47);
    ca_cache *cache = NULL;
    assert_int_equal(ca_cache_create(&opt, &cache), CA_E_MEMORY);
    assert_non_null(strstr(ca_last_error(), "cannot be mapped"));
    assert_null(cache);
}

static void bad_calls(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    ca_cache_opt opt = options(kern, 32, 16, 100);
    opt.summaries = CA_SUMMARY_NONE;
    ca_cache *cache = create(&opt);
    tokens t = random_tokens(100, 16, 1);
    float mean[16];
    append(cache, 0, 0, &t, 0, 40, 0);
    uint32_t n = 0;
    const uint32_t page = ca_cache_pages(cache, 0, 0, 1, &n)[1];
    assert_int_equal(ca_cache_append(cache, MAX_SEQS, 0, &(ca_kv){ .k = t.k, .v = t.v, .stride = t.stride }, 1), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "sequence 3"));
    assert_int_equal(ca_cache_append(cache, 0, N_LAYERS, &(ca_kv){ .k = t.k, .v = t.v, .stride = t.stride }, 1), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "layer 2"));
    assert_int_equal(ca_cache_append(cache, 0, 0, &(ca_kv){ .k = t.k, .v = t.v, .stride = (size_t)N_KV * 16 - 1 }, 1), CA_E_SHAPE);
    assert_non_null(strstr(ca_last_error(), "token stride"));
    assert_int_equal(ca_cache_len(cache, 0, 0), 40);
    assert_int_equal(ca_cache_truncate(cache, UINT32_MAX, 0), CA_E_ARG);
    assert_int_equal(ca_cache_len(cache, MAX_SEQS, 0), 0);
    assert_int_equal(ca_cache_len(cache, 0, N_LAYERS), 0);
    static const place nowhere[] = { { NULL, MAX_SEQS, 0 }, { NULL, 0, N_LAYERS }, { NULL, UINT32_MAX, UINT32_MAX } };
    for (size_t i = 0; i < 3; i++) {
        assert_null(ca_cache_pages(cache, nowhere[i].seq, nowhere[i].layer, 0, &n));
        assert_int_equal(n, 0);
    }
    assert_null(ca_cache_pages(cache, 0, 0, N_KV, &n));
    assert_int_equal(n, 0);
    assert_int_equal(ca_page_read(cache, 1000000, mean, mean), CA_E_ARG);
    assert_int_equal(ca_page_pos(cache, 1000000), 0);
    assert_int_equal(ca_page_len(cache, 1000000), 0);
    assert_int_equal(ca_page_mean_k(cache, page, mean), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "CA_SUMMARY_MEAN_K"));
    assert_int_equal(ca_cache_swap_pages(cache, page, 1000000), CA_E_ARG);
    must(ca_cache_truncate(cache, 0, 32), "truncate");
    const uint32_t used = ca_cache_pages(cache, 0, 0, 0, &n)[0];
    assert_int_equal(ca_cache_swap_pages(cache, used, page), CA_E_ARG); /* freed above */
    assert_non_null(strstr(ca_last_error(), "not in use"));
    float k[32 * 16], v[32 * 16];
    must(ca_page_read(cache, page, k, v), "read"); /* a free page reads as zeros */
    for (unsigned i = 0; i < 32 * 16; i++) assert_true(k[i] == 0.0F && v[i] == 0.0F);
    must(ca_page_read(cache, used, NULL, v), "read");
    assert_true(v[0] == stored(kern, t.v[0]));
    must(ca_page_read(cache, used, k, NULL), "read");
    assert_true(k[16] == stored(kern, t.k[t.stride]));
    ca_cache_destroy(cache);
    ca_cache_destroy(NULL);
    free_tokens(&t);
}

/* A sliding layer holds 3 pages of tokens at a time: what it forgets makes room, and cannot be read, gathered or cut back to. */
static void forgotten(void **state)
{
    (void)state;
    enum { PAGE = 32, DIM = 16, ALL = 20 * PAGE + 5 };
    const ca_kern *kern = NULL;
    must(ca_kern_choose("scalar", &kern), "scalar");
    const uint32_t layer_tokens[N_LAYERS] = { ALL, 3 * PAGE };
    ca_cache_opt opt = options(kern, PAGE, DIM, ALL);
    size_t whole = 0, sliding = 0;
    opt.max_seqs = 1;
    must(ca_cache_forecast(&opt, &whole), "forecast");
    opt.layer_tokens = layer_tokens;
    must(ca_cache_forecast(&opt, &sliding), "forecast");
    assert_true(sliding + 17 * N_KV * 2 * PAGE * DIM * 4 <= whole);
    ca_cache *cache = create(&opt);
    tokens t = random_tokens(ALL, DIM, 5);
    append(cache, 0, 0, &t, 0, ALL, 0);
    for (uint32_t at = 0; at < ALL; at += PAGE) {
        const uint32_t to = ca_min_u32(at + PAGE, ALL);
        append(cache, 0, 1, &t, at, to, 7);
        must(ca_cache_forget(cache, 0, 1, to > PAGE ? to - PAGE : 0), "forget");
    }
    assert_int_equal(ca_cache_len(cache, 0, 1), ALL);
    assert_int_equal(ca_cache_start(cache, 0, 1), 19 * PAGE);
    assert_int_equal(ca_cache_start(cache, 0, 0), 0);
    uint32_t n = 0;
    const uint32_t *pages = ca_cache_pages(cache, 0, 1, 1, &n);
    assert_int_equal(n, 21);
    assert_int_equal(pages[18], UINT32_MAX);
    float k[PAGE * DIM];
    must(ca_page_read(cache, pages[20], k, NULL), "read");
    assert_memory_equal(k, t.k + 20 * PAGE * t.stride + DIM, DIM * sizeof *k);

    unsigned char memory[1 << 16] __attribute__((aligned(64)));
    ca_workspace ws = { memory, sizeof memory, 0 };
    const ca_chunk chunk = { .layer = 1, .pos = ALL - 5, .n_tokens = 5, .n_heads = N_KV };
    ca_table table;
    must(ca_table_create(cache, &chunk, &ws, &table), "table");
    must(ca_table_add_window(cache, 0, 5, PAGE, &table), "window");
    assert_int_equal(table.rows[0].n_pages, 2);
    assert_int_equal(ca_table_add_dense(cache, 0, 5, &table), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "forgotten"));

    assert_int_equal(ca_cache_truncate(cache, 0, 18 * PAGE), CA_E_ARG);
    assert_int_equal(ca_cache_len(cache, 0, 0), ALL);
    must(ca_cache_truncate(cache, 0, 19 * PAGE + 3), "truncate");
    append(cache, 0, 1, &t, 19 * PAGE + 3, ALL, 0);
    must(ca_cache_truncate(cache, 0, 0), "truncate to nothing");
    assert_int_equal(ca_cache_start(cache, 0, 1), 0);
    append(cache, 0, 1, &t, 0, 3 * PAGE, 0);
    free_tokens(&t);
    ca_cache_destroy(cache);
}

int main(void)
{
    omp_set_num_threads(1); /* thousands of tiny appends: threads would only wait for each other */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_do_not_matter),
        cmocka_unit_test(truncate_then_append),
        cmocka_unit_test(random_walk),
        cmocka_unit_test(full),
        cmocka_unit_test(many_threads),
        cmocka_unit_test(swapped_pages),
        cmocka_unit_test(bad_options),
        cmocka_unit_test(forecasts),
        cmocka_unit_test(bad_calls),
        cmocka_unit_test(forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
