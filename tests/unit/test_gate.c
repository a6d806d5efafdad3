/* The learned gate: seer's masks and scores against a double-precision implementation of spec/selectors-learned.md A.2 to A.10 for
 * every layout, and the summaries that a cache keeps for it. */
#include "unit/select_case.h"

#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Relative error of a score, and distance to the threshold below which either choice is right. */
#define NEAR 1e-4

enum { N_LAYERS = 2, LAYER = 1, SEQ = 1 };

typedef struct gate_case {
    attn_shape shape;
    uint32_t after, first, n; /* as in select_case */
    ca_gate_layout layout;
    uint32_t hidden, rotary, q_pool, k_pool;
    float rope_scale;
} gate_case;

enum { MAX = CA_POOL_MAX, MIN = CA_POOL_MIN, AVG = CA_POOL_AVG };

static const gate_case cases[] = {
    /* q_len kv_len hq hkv dim page */
    { { 128, 512, 4, 1, 64, 64, "published form" }, 0, 0, 0, CA_GATE_SINGLE, 64, 64, AVG, MAX | MIN | AVG, 1.0F },
    { { 130, 517, 6, 2, 32, 64, "single, nothing divides" }, 0, 0, 0, CA_GATE_SINGLE, 32, 32, AVG, MAX | MIN | AVG, 1.0F },
    { { 100, 431, 3, 1, 32, 32, "single, max of queries, YaRN" }, 31, 0, 0, CA_GATE_SINGLE, 32, 32, MAX, AVG, 1.25F },
    { { 150, 500, 6, 2, 64, 32, "double, narrower than a head" }, 0, 37, 90, CA_GATE_DOUBLE, 32, 32, MAX | AVG, AVG, 1.0F },
    { { 90, 300, 3, 1, 32, 64, "double, wider than a head" }, 0, 0, 0, CA_GATE_DOUBLE, 64, 32, MIN, MAX | MIN, 1.0F },
    { { 200, 700, 6, 2, 32, 128, "group-aware" }, 50, 0, 150, CA_GATE_GROUP, 32, 32, AVG, MAX | MIN | AVG, 1.0F },
    { { 70, 333, 3, 1, 64, 32, "group-aware, two pools" }, 0, 0, 0, CA_GATE_GROUP, 48, 48, MAX | MIN, AVG, 1.0F },
    { { 80, 80, 2, 2, 32, 32, "first chunk" }, 0, 0, 0, CA_GATE_SINGLE, 32, 0, AVG, MAX | AVG, 1.0F },
    { { 1, 200, 6, 3, 32, 64, "one token" }, 0, 0, 0, CA_GATE_DOUBLE, 32, 16, AVG, MAX | MIN | AVG, 1.0F },
    { { 40, 1203, 2, 1, 32, 32, "many blocks" }, 0, 0, 0, CA_GATE_SINGLE, 32, 32, AVG, MAX | MIN | AVG, 1.0F },
};
enum { N_CASES = sizeof cases / sizeof *cases };

typedef struct world {
    const gate_case *c;
    ca_gate *gate;
    ca_cache *cache;
    ca_chunk chunk;
    double freq[128], key_freq[128];    /* of the gate, and of the model, which rotates whole heads */
    float *wk, *wq, *q_raw, *k_raw, *k; /* of LAYER; k is k_raw after RoPE */
    size_t q_stride, kv_stride;
    uint32_t k_in, q_in, k_heads, q_heads; /* q_heads 0: no wq */
    ca_workspace ws;
} world;

static uint32_t n_pools(uint32_t bits)
{
    return (bits & 1) + (bits >> 1 & 1) + (bits >> 2 & 1);
}

static void rope(const double *freq, uint32_t rotary, double scale, uint32_t pos, double *x)
{
    const uint32_t half = rotary / 2;
    for (uint32_t i = 0; i < half; i++) {
        const double a = x[i], b = x[half + i], c = cos(pos * freq[i]), s = sin(pos * freq[i]);
        x[i] = (a * c - b * s) * scale;
        x[half + i] = (b * c + a * s) * scale;
    }
}

static ca_gate *new_gate(const gate_case *c, const double *freq, const double *key_freq)
{
    ca_gate *gate = NULL;
    must(ca_gate_create(&(ca_gate_opt){ .n_layers = N_LAYERS,
                                        .n_heads = c->shape.hq,
                                        .n_kv_heads = c->shape.hkv,
                                        .head_dim = c->shape.dim,
                                        .hidden = c->hidden,
                                        .block = c->shape.page,
                                        .q_pool = c->q_pool,
                                        .k_pool = c->k_pool,
                                        .layout = c->layout,
                                        .inv_freq = freq,
                                        .rotary = c->rotary,
                                        .rope_scale = c->rope_scale,
                                        .key_freq = key_freq,
                                        .key_rotary = c->shape.dim },
                        &gate),
         "gate");
    return gate;
}

static ca_cache_opt cache_opt(const world *w, const ca_kern *kern)
{
    const attn_shape *s = &w->c->shape;
    return (ca_cache_opt){ .n_layers = N_LAYERS,
                           .n_kv_heads = s->hkv,
                           .head_dim = s->dim,
                           .page_tokens = s->page,
                           .max_seqs = 2,
                           .capacity_tokens = (uint64_t)2 * s->kv_len,
                           .summaries = CA_SUMMARY_GATE,
                           .gate = w->gate,
                           .kern = kern };
}

/* Tokens [from, to) in pieces of `piece` (0: at once). */
static void append(const world *w, ca_cache *cache, uint32_t from, uint32_t to, uint32_t piece)
{
    for (uint32_t at = from; at < to;) {
        const uint32_t n = ca_min_u32(piece ? piece : to - from, to - at);
        const size_t first = at * w->kv_stride;
        must(ca_cache_append(cache, SEQ, LAYER,
                             &(ca_kv){ .k = w->k + first,
                                       .v = w->k + first,
                                       .stride = w->kv_stride,
                                       .k_raw = w->k_raw + first,
                                       .raw_stride = w->kv_stride },
                             n),
             "append");
        at += n;
    }
}

static world world_create(const gate_case *c, const ca_kern *kern)
{
    const attn_shape *s = &c->shape;
    const uint32_t group = s->hq / s->hkv;
    world w = { .c = c, .q_stride = (size_t)s->hq * s->dim + 16, .kv_stride = (size_t)s->hkv * s->dim };
    for (uint32_t i = 0; i < c->rotary / 2; i++) w.freq[i] = pow(10000.0, -2.0 * i / c->rotary);
    for (uint32_t i = 0; i < s->dim / 2; i++) w.key_freq[i] = pow(10000.0, -2.0 * i / s->dim);
    w.k_in = n_pools(c->k_pool) * s->dim;
    w.k_heads = c->layout == CA_GATE_SINGLE ? s->hq : s->hkv;
    w.q_heads = c->layout == CA_GATE_SINGLE ? 0 : c->layout == CA_GATE_DOUBLE ? s->hq : s->hkv;
    w.q_in = (c->layout == CA_GATE_GROUP ? group : 1) * n_pools(c->q_pool) * s->dim;
    w.wk = random_values((size_t)w.k_heads * w.k_in * c->hidden, 1.0F / sqrtf((float)w.k_in), 31);
    if (w.q_heads) w.wq = random_values((size_t)w.q_heads * w.q_in * c->hidden, 1.0F / sqrtf((float)w.q_in), 32);
    w.gate = new_gate(c, w.freq, w.key_freq);
    float *other_k = random_values((size_t)w.k_heads * w.k_in * c->hidden, 1.0F, 33);
    must(ca_gate_set_layer(w.gate, 0, other_k, w.wq), "layer 0"); /* another layer's weights must not matter */
    must(ca_gate_set_layer(w.gate, LAYER, w.wk, w.wq), "layer 1");
    free(other_k);

    w.chunk =
        (ca_chunk){ .seq = SEQ, .layer = LAYER, .pos = s->kv_len - c->after - s->q_len, .n_tokens = s->q_len, .n_heads = s->hq };
    w.k_raw = random_values((size_t)s->kv_len * w.kv_stride, 0.6F, 34);
    float *q = random_values((size_t)s->q_len * s->hq * s->dim, 0.6F, 35);
    lean(w.k_raw, s->kv_len, s->hkv, s->dim, 0, s->page, 500);
    lean(q, s->q_len, s->hq, s->dim, w.chunk.pos, s->page, 700000);
    w.q_raw = calloc((size_t)s->q_len * w.q_stride, sizeof *w.q_raw);
    for (uint32_t t = 0; t < s->q_len; t++)
        memcpy(w.q_raw + t * w.q_stride, q + (size_t)t * s->hq * s->dim, (size_t)s->hq * s->dim * sizeof *q);
    free(q);
    w.k = malloc((size_t)s->kv_len * w.kv_stride * sizeof *w.k);
    for (uint32_t i = 0; i < s->kv_len * s->hkv; i++) {
        double x[256];
        for (uint32_t d = 0; d < s->dim; d++) x[d] = (double)w.k_raw[(size_t)i * s->dim + d];
        rope(w.key_freq, s->dim, (double)c->rope_scale, i / s->hkv, x);
        for (uint32_t d = 0; d < s->dim; d++) w.k[(size_t)i * s->dim + d] = (float)x[d];
    }
    const ca_cache_opt opt = cache_opt(&w, kern);
    must(ca_cache_create(&opt, &w.cache), "cache");
    const ca_select_opt select = { .selector = CA_SELECT_SEER, .seer = { .gate = w.gate } };
    w.ws.size = ca_table_ws_bytes(w.cache, s->hq, s->q_len, s->kv_len) +
                ca_select_ws_bytes(w.cache, &select, s->hq, s->q_len, s->kv_len);
    w.ws.base = aligned_alloc(64, ca_align_up(w.ws.size, 64));
    return w;
}

static void world_destroy(world *w)
{
    ca_cache_destroy(w->cache);
    ca_gate_destroy(w->gate);
    free(w->wk);
    free(w->wq);
    free(w->q_raw);
    free(w->k_raw);
    free(w->k);
    free(w->ws.base);
}

/* Pools of tokens [from, to) of a head, side by side in the order max, min, mean; returns how many values. */
static uint32_t feature(const float *x, size_t stride, uint32_t from, uint32_t to, uint32_t dim, uint32_t bits, double *out)
{
    uint32_t n = 0;
    for (uint32_t pool = CA_POOL_MAX; pool <= CA_POOL_AVG; pool <<= 1)
        for (uint32_t d = 0; (bits & pool) && d < dim; d++, n++) {
            out[n] = pool == CA_POOL_AVG ? 0.0 : (double)x[from * stride + d];
            for (uint32_t t = from; t < to; t++) {
                const double value = (double)x[t * stride + d];
                if (pool == CA_POOL_AVG) out[n] += value / (to - from);
                if (pool == CA_POOL_MAX) out[n] = fmax(out[n], value);
                if (pool == CA_POOL_MIN) out[n] = fmin(out[n], value);
            }
        }
    return n;
}

/* y = x W[head]. */
static void project(const float *weights, uint32_t head, uint32_t in, uint32_t hidden, const double *x, double *y)
{
    for (uint32_t j = 0; j < hidden; j++) {
        y[j] = 0.0;
        for (uint32_t i = 0; i < in; i++) y[j] += x[i] * (double)weights[((size_t)head * in + i) * hidden + j];
    }
}

static ca_mask seer_mask_of(world *w)
{
    ca_mask m;
    w->ws.used = 0;
    must(ca_mask_create(w->cache, &w->chunk, w->c->first, w->c->n ? w->c->n : w->c->shape.q_len - w->c->first, &w->ws, &m), "mask");
    return m;
}

/* S of query head h and Q block i over the blocks 0..diag. */
static void reference_row(const world *w, const ca_mask *m, uint32_t h, uint32_t i, double *score)
{
    const gate_case *c = w->c;
    const attn_shape *s = &c->shape;
    const uint32_t group = s->hq / s->hkv, diag = m->first_qblock + i, pos = w->chunk.pos;
    const uint32_t from = ca_max_u32(m->first_token, diag * s->page);
    const uint32_t to = ca_min_u32(m->first_token + m->n_tokens, (diag + 1) * s->page);
    double in[3 * 256 * 4] = { 0 }, q[256], k[256], top = -INFINITY, sum = 0.0;
    const uint32_t first = c->layout == CA_GATE_GROUP ? h / group * group : h, heads = c->layout == CA_GATE_GROUP ? group : 1;
    for (uint32_t g = 0, n = 0; g < heads; g++)
        n += feature(w->q_raw + (size_t)(first + g) * s->dim, w->q_stride, from - pos, to - pos, s->dim, c->q_pool, in + n);
    if (w->q_heads)
        project(w->wq, c->layout == CA_GATE_GROUP ? h / group : h, w->q_in, c->hidden, in, q);
    else
        memcpy(q, in, c->hidden * sizeof *q);
    rope(w->freq, w->c->rotary, (double)w->c->rope_scale, from, q);
    for (uint32_t j = 0; j <= diag; j++) {
        const uint32_t end = ca_min_u32((j + 1) * s->page, s->kv_len);
        feature(w->k_raw + (size_t)(h / group) * s->dim, w->kv_stride, j * s->page, end, s->dim, c->k_pool, in);
        project(w->wk, c->layout == CA_GATE_SINGLE ? h : h / group, w->k_in, c->hidden, in, k);
        rope(w->freq, w->c->rotary, (double)w->c->rope_scale, j * s->page, k);
        score[j] = 0.0;
        for (uint32_t d = 0; d < c->hidden; d++) score[j] += q[d] * k[d] / sqrt(c->hidden);
        top = fmax(top, score[j]);
    }
    for (uint32_t j = 0; j <= diag; j++) sum += exp(score[j] - top);
    for (uint32_t j = 0; j <= diag; j++) score[j] = exp(score[j] - top) / sum;
}

/* What is compared with the scores of a mask whose last token is at kv - 1. */
static double bar_of(const ca_seer_opt *o, uint32_t kv, uint32_t diag)
{
    double threshold = (double)o->threshold;
    for (uint32_t i = 0; i < o->n_steps; i++) {
        threshold = (double)o->steps[i].threshold;
        if (kv <= o->steps[i].max_kv) break;
    }
    return o->relative ? threshold / (diag + 1) : threshold;
}

static ca_queries raw_queries(const world *w)
{
    return (ca_queries){ .q = w->q_raw, .stride = w->q_stride, .q_raw = w->q_raw, .raw_stride = w->q_stride };
}

static float *seer_scores(world *w, const ca_cache *cache, const ca_seer_opt *o, ca_mask *m)
{
    *m = seer_mask_of(w);
    float *scores = malloc((size_t)m->n_heads * m->n_qblocks * m->n_kblocks * sizeof *scores);
    const ca_queries q = raw_queries(w);
    must(ca_select(cache, &(ca_select_opt){ .selector = CA_SELECT_SEER, .seer = *o }, &w->chunk, &q, &w->ws, m, scores), "select");
    return scores;
}

static void check_row(const world *w, const ca_seer_opt *o, const ca_kern *kern, const ca_mask *m, uint32_t r, const double *want,
                      const float *got, tally *count)
{
    const uint32_t diag = m->first_qblock + r % m->n_qblocks;
    const double bar = bar_of(o, m->first_token + m->n_tokens, diag);
    for (uint32_t j = 0; j < m->words * 64; j++) {
        choice c = j > diag ? OUT : want[j] > bar ? IN : OUT;
        if (j <= diag && fabs(want[j] - bar) <= NEAR * bar) c = EITHER;
        if (!o->bare && (j == 0 || j == diag)) c = IN;
        count->kept += c == IN;
        count->dropped += c == OUT && j <= diag;
        count->either += c == EITHER;
        if (c != EITHER && bit(m->bits + (size_t)r * m->words, j) != (c == IN))
            fail_msg("%s %s: row %u block %u with score %g must %sbe above %g", ca_kern_name(kern), w->c->shape.what, r, j, want[j],
                     c == IN ? "" : "not ", bar);
        const double score = j <= diag ? want[j] : 0.0;
        if (j < m->n_kblocks && !(fabs((double)got[j] - score) <= NEAR * score))
            fail_msg("%s %s: row %u block %u has score %g, not %g", ca_kern_name(kern), w->c->shape.what, r, j, (double)got[j],
                     score);
    }
}

static void seer_masks(void **state)
{
    (void)state;
    static const ca_seer_opt options[] = {
        { .threshold = 0.0F },
        { .threshold = 0.05F },
        { .threshold = 0.05F, .bare = true },
        { .threshold = 1.0F, .bare = true },
        { .threshold = 0.7F, .relative = true },
        { .threshold = 1.0F, .steps = { { 300, 0.3F }, { 500, 0.1F }, { 600, 0.01F } }, .n_steps = 3, .bare = true },
    };
    const kern_list kerns = usable_kerns();
    tally all = { 0 };
    for (size_t n = 0; n < N_CASES; n++)
        for (size_t i = 0; i < kerns.n; i++) {
            world w = world_create(&cases[n], kerns.kern[i]);
            append(&w, w.cache, 0, w.c->shape.kv_len, 97);
            ca_mask m = seer_mask_of(&w);
            const size_t n_rows = (size_t)m.n_heads * m.n_qblocks;
            double *want = malloc(n_rows * m.n_kblocks * sizeof *want);
            for (uint32_t r = 0; r < n_rows; r++)
                reference_row(&w, &m, r / m.n_qblocks, r % m.n_qblocks, want + (size_t)r * m.n_kblocks);
            for (size_t k = 0; k < sizeof options / sizeof *options; k++) {
                ca_seer_opt o = options[k];
                o.gate = w.gate;
                float *got = seer_scores(&w, w.cache, &o, &m);
                for (uint32_t r = 0; r < n_rows; r++)
                    check_row(&w, &o, kerns.kern[i], &m, r, want + (size_t)r * m.n_kblocks, got + (size_t)r * m.n_kblocks, &all);
                free(got);
            }
            free(want);
            world_destroy(&w);
        }
    assert_true(all.kept > 500 && all.dropped > 500);
    if (all.either * 200 > all.kept) fail_msg("%u of %u blocks may go either way", all.either, all.kept + all.dropped);
}

/* Largest relative difference of two score arrays. */
static double difference(const float *a, const float *b, size_t n)
{
    double worst = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double size = fmax(fabs((double)a[i]), fabs((double)b[i]));
        if (!(size <= 1.0)) return INFINITY;
        if (size > 0.0) worst = fmax(worst, fabs((double)a[i] - (double)b[i]) / size);
    }
    return worst;
}

/* Pools of pieces are those of the whole: only the order of the sums differs. */
static void pieces(void **state)
{
    (void)state;
    static const uint32_t sizes[] = { 1, 7, 33, 64, 129 };
    const kern_list kerns = usable_kerns();
    for (size_t n = 0; n < N_CASES; n++)
        for (size_t i = 0; i < kerns.n; i++) {
            world w = world_create(&cases[n], kerns.kern[i]);
            const ca_seer_opt o = { .gate = w.gate };
            const uint32_t len = w.c->shape.kv_len;
            ca_mask m;
            append(&w, w.cache, 0, len, 0);
            float *whole = seer_scores(&w, w.cache, &o, &m);
            for (size_t p = 0; p < sizeof sizes / sizeof *sizes; p++) {
                must(ca_cache_truncate(w.cache, SEQ, 0), "truncate");
                append(&w, w.cache, 0, len, sizes[p]);
                float *again = seer_scores(&w, w.cache, &o, &m);
                const double d = difference(whole, again, (size_t)m.n_heads * m.n_qblocks * m.n_kblocks);
                if (d > 2e-5) fail_msg("%s, pieces of %u: scores differ by %g", w.c->shape.what, sizes[p], d);
                free(again);
            }
            free(whole);
            world_destroy(&w);
        }
}

/* A cut inside a page rebuilds its pools from the stored keys, which are rounded once: scores stay close; cuts between pages change
 * nothing. What was cut away leaves no trace. */
static void truncation(void **state)
{
    (void)state;
    const kern_list kerns = usable_kerns();
    for (size_t n = 0; n < N_CASES; n++)
        for (size_t i = 0; i < kerns.n; i++) {
            world w = world_create(&cases[n], kerns.kern[i]);
            const ca_seer_opt o = { .gate = w.gate };
            const uint32_t len = w.c->shape.kv_len, page = w.c->shape.page;
            const uint32_t cuts[] = { len / page * page - page, len / page * page - page + 1, len - len / 3, 17, len - 1 };
            ca_mask m;
            append(&w, w.cache, 0, len, 0);
            float *whole = seer_scores(&w, w.cache, &o, &m);
            for (size_t k = 0; k < sizeof cuts / sizeof *cuts; k++) {
                const double bound = cuts[k] % page == 0 ? 2e-5 : ca_kern_dtype(kerns.kern[i]) == CA_BF16 ? 3e-2 : 1e-4;
                float *k_raw = w.k_raw;
                must(ca_cache_truncate(w.cache, SEQ, 0), "truncate");
                append(&w, w.cache, 0, cuts[k], 50);
                w.k_raw = random_values((size_t)len * w.kv_stride, 9.0F, 77);
                append(&w, w.cache, cuts[k], len, 0); /* other tokens, that are then forgotten */
                free(w.k_raw);
                w.k_raw = k_raw;
                must(ca_cache_truncate(w.cache, SEQ, cuts[k]), "truncate");
                append(&w, w.cache, cuts[k], len, 33);
                float *again = seer_scores(&w, w.cache, &o, &m);
                const double d = difference(whole, again, (size_t)m.n_heads * m.n_qblocks * m.n_kblocks);
                if (d > bound)
                    fail_msg("%s %s, cut at %u: scores differ by %g", ca_kern_name(kerns.kern[i]), w.c->shape.what, cuts[k], d);
                free(again);
            }
            free(whole);
            world_destroy(&w);
        }
}

/* Masks and scores do not depend on the number of threads. */
static void threads(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    for (size_t n = 0; n < N_CASES; n++) {
        omp_set_num_threads(4); /* the workspace is asked for with as many */
        world w = world_create(&cases[n], kern);
        const ca_seer_opt o = { .gate = w.gate, .threshold = 0.05F };
        ca_mask m;
        append(&w, w.cache, 0, w.c->shape.kv_len, 0);
        float *many = seer_scores(&w, w.cache, &o, &m);
        must(ca_cache_truncate(w.cache, SEQ, 0), "truncate");
        omp_set_num_threads(1);
        append(&w, w.cache, 0, w.c->shape.kv_len, 0);
        float *one = seer_scores(&w, w.cache, &o, &m);
        assert_memory_equal(many, one, (size_t)m.n_heads * m.n_qblocks * m.n_kblocks * sizeof *one);
        free(many);
        free(one);
        world_destroy(&w);
    }
}

static void bad_gates(void **state)
{
    (void)state;
    static const double freq[16] = { 1.0 };
    const ca_gate_opt good = { .n_layers = 1,
                               .n_heads = 6,
                               .n_kv_heads = 2,
                               .head_dim = 32,
                               .hidden = 32,
                               .block = 64,
                               .q_pool = AVG,
                               .k_pool = MAX | MIN | AVG,
                               .layout = CA_GATE_SINGLE,
                               .inv_freq = freq,
                               .rotary = 32,
                               .rope_scale = 1.0F };
    ca_gate_opt bad[16];
    static const char *const says[] = { "0 layers", "KV heads",     "head_dim 24", "hidden 300", "block 48",   "pools",
                                        "pools",    "layout 3",     "single",      "single",     "33 rotated", "34",
                                        "freq",     "rope_scale 0", "key_freq",    "33 channels" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) bad[i] = good;
    bad[0].n_layers = 0;
    bad[1].n_heads = 7;
    bad[2].head_dim = 24;
    bad[3].hidden = 300;
    bad[4].block = 48;
    bad[5].q_pool = 0;
    bad[6].k_pool = 8;
    bad[7].layout = (ca_gate_layout)3;
    bad[8].q_pool = MAX | AVG;
    bad[9].hidden = 64;
    bad[10].rotary = 33;
    bad[11].rotary = 34;
    bad[12].inv_freq = NULL;
    bad[13].rope_scale = 0.0F;
    bad[14].layout = CA_GATE_DOUBLE;
    bad[14].hidden = bad[14].rotary = 64;
    bad[15].key_freq = freq;
    bad[15].key_rotary = 33;
    ca_gate *gate = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (ca_gate_create(&bad[i], &gate) != CA_E_ARG || gate || !strstr(ca_last_error(), says[i]))
            fail_msg("case %zu ('%s'): '%s'", i, says[i], ca_last_error());

    must(ca_gate_create(&good, &gate), "gate");
    float *w = random_values((size_t)6 * 96 * 32, 1.0F, 1);
    ca_gate_opt out;
    ca_gate_get_opt(gate, &out);
    assert_true(out.n_heads == 6 && out.hidden == 32 && out.inv_freq != freq && out.inv_freq[0] == 1.0);
    assert_int_equal(ca_gate_set_layer(gate, 1, w, NULL), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "layer 1 of 1"));
    assert_int_equal(ca_gate_set_layer(gate, 0, w, w), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "no wq"));
    assert_int_equal(ca_gate_set_layer(gate, 0, NULL, NULL), CA_E_ARG);

    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    const ca_cache_opt fits = { .n_layers = 1,
                                .n_kv_heads = 2,
                                .head_dim = 32,
                                .page_tokens = 64,
                                .max_seqs = 1,
                                .capacity_tokens = 256,
                                .summaries = CA_SUMMARY_GATE,
                                .gate = gate,
                                .kern = kern };
    ca_cache_opt unfit[6];
    static const struct {
        ca_status status;
        const char *says;
    } refused[] = { { CA_E_ARG, "needs a gate" },  { CA_E_SHAPE, "the cache has 2, 2 of 32" },
                    { CA_E_SHAPE, "4 of 32" },     { CA_E_SHAPE, "2 of 64" },
                    { CA_E_SHAPE, "pages of 64" }, { CA_E_ARG, "layer 0 has no weights" } };
    for (size_t i = 0; i < 6; i++) unfit[i] = fits;
    unfit[0].gate = NULL;
    unfit[1].n_layers = 2;
    unfit[2].n_kv_heads = 4;
    unfit[3].head_dim = 64;
    unfit[4].page_tokens = 128;
    ca_cache *cache = NULL;
    for (size_t i = 0; i < 6; i++) { /* the last one is right, but for the weights that the gate lacks */
        size_t bytes = 0;
        if (ca_cache_create(&unfit[i], &cache) != refused[i].status || cache || !strstr(ca_last_error(), refused[i].says))
            fail_msg("cache %zu ('%s'): '%s'", i, refused[i].says, ca_last_error());
        assert_int_equal(ca_cache_forecast(&unfit[i], &bytes), refused[i].status);
    }
    must(ca_gate_set_layer(gate, 0, w, NULL), "layer");
    must(ca_cache_create(&fits, &cache), "cache");
    assert_int_equal(ca_cache_append(cache, 0, 0, &(ca_kv){ .k = w, .v = w, .stride = 64 }, 10), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "k_raw"));
    assert_int_equal(ca_cache_append(cache, 0, 0, &(ca_kv){ w, w, 64, .k_raw = w, .raw_stride = 63 }, 10), CA_E_SHAPE);
    assert_non_null(strstr(ca_last_error(), "token stride 63"));
    assert_int_equal(ca_cache_len(cache, 0, 0), 0);
    ca_cache_destroy(cache);
    ca_gate_destroy(gate);
    ca_gate_destroy(NULL);
    free(w);
}

static void bad_calls(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    must(ca_kern_choose(NULL, &kern), "kern");
    world w = world_create(&cases[1], kern);
    append(&w, w.cache, 0, w.c->shape.kv_len, 0);
    static const ca_seer_opt bad[] = {
        { .threshold = -0.1F },
        { .threshold = 1.5F },
        { .threshold = NAN },
        { .n_steps = CA_SEER_MAX_STEPS + 1 },
        { .steps = { { 100, 0.1F }, { 100, 0.2F } }, .n_steps = 2 },
        { .steps = { { 100, 0.1F }, { 200, 2.0F } }, .n_steps = 2 },
        { .threshold = INFINITY, .relative = true },
        { .threshold = -0.1F, .relative = true },
    };
    static const char *const says[] = { "threshold -0.1", "threshold 1.5", "threshold",     "9 steps",
                                        "step 1",         "step 1",        "threshold inf", "threshold -0.1" };
    ca_select_opt opt = { .selector = CA_SELECT_SEER };
    ca_mask m = seer_mask_of(&w);
    ca_queries q = raw_queries(&w);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        opt.seer = bad[i];
        opt.seer.gate = w.gate;
        if (ca_select_check(&opt) != CA_E_ARG || !strstr(ca_last_error(), says[i]))
            fail_msg("case %zu ('%s'): '%s'", i, says[i], ca_last_error());
        assert_int_equal(ca_select(w.cache, &opt, &w.chunk, &q, &w.ws, &m, NULL), CA_E_ARG);
    }
    opt.seer = (ca_seer_opt){ 0 };
    assert_int_equal(ca_select_ws_bytes(w.cache, &opt, w.c->shape.hq, w.c->shape.q_len, w.c->shape.kv_len), 0);
    assert_int_equal(ca_select(w.cache, &opt, &w.chunk, &q, &w.ws, &m, NULL), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "no gate"));
    opt.seer = (ca_seer_opt){ .gate = w.gate, .threshold = 4.0F, .relative = true };
    must(ca_select(w.cache, &opt, &w.chunk, &q, &w.ws, &m, NULL), "multiples of the mean");
    opt.seer = (ca_seer_opt){ .gate = w.gate };
    q.q_raw = NULL;
    assert_int_equal(ca_select(w.cache, &opt, &w.chunk, &q, &w.ws, &m, NULL), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "q_raw"));
    q = raw_queries(&w);
    q.raw_stride = 6 * 32 - 1;
    assert_int_equal(ca_select(w.cache, &opt, &w.chunk, &q, &w.ws, &m, NULL), CA_E_ARG);
    q = raw_queries(&w);

    ca_gate *other = new_gate(w.c, w.freq, w.key_freq);
    opt.seer.gate = other;
    assert_int_equal(ca_select(w.cache, &opt, &w.chunk, &q, &w.ws, &m, NULL), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "another gate"));
    ca_gate_destroy(other);

    opt.seer.gate = w.gate;
    ca_chunk fewer = w.chunk;
    fewer.n_heads = 4;
    w.ws.used = 0;
    must(ca_mask_create(w.cache, &fewer, 0, fewer.n_tokens, &w.ws, &m), "mask");
    assert_int_equal(ca_select(w.cache, &opt, &fewer, &q, &w.ws, &m, NULL), CA_E_SHAPE);
    assert_non_null(strstr(ca_last_error(), "6 query heads"));
    world_destroy(&w);
}

int main(void)
{
    omp_set_num_threads(1); /* the cases are tiny: threads would only wait for each other */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seer_masks), cmocka_unit_test(pieces),    cmocka_unit_test(truncation),
        cmocka_unit_test(threads),    cmocka_unit_test(bad_gates), cmocka_unit_test(bad_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
