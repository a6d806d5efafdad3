/* A cache filled with random keys and values, and random queries: what the attention tests share. */
#ifndef CA_TESTS_ATTN_CASE_H
#define CA_TESTS_ATTN_CASE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <compactattn/compactattn.h>

#include "base/arith.h"

typedef struct attn_shape {
    uint32_t q_len, kv_len, hq, hkv, dim, page;
    const char *what;
} attn_shape;

typedef struct attn_data {
    attn_shape shape;
    ca_cache *cache;
    ca_chunk chunk;
    float *k, *v, *q; /* token-major; every value fits in bf16 */
    size_t kv_stride, q_stride;
    ca_workspace ws;
} attn_data;

static inline uint64_t mix64(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* About normal with standard deviation sd, rounded to bf16. */
static inline float random_value(uint64_t *state, float sd)
{
    const uint64_t x = mix64(state);
    float sum = 0.0F;
    for (unsigned i = 0; i < 4; i++) sum += (float)((x >> (16 * i)) & 0xffffU) / 65536.0F - 0.5F;
    return ca_bf16_to_f32(ca_f32_to_bf16(sum * 1.732F * sd));
}

static inline float *random_values(size_t n, float sd, uint64_t seed)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = random_value(&seed, sd);
    return x;
}

static inline void must(ca_status st, const char *what)
{
    if (st == CA_OK) return;
    fprintf(stderr, "%s: %s: %s\n", what, ca_status_name(st), ca_last_error());
    exit(1);
}

/* Keys are appended in pieces of `piece` tokens (0 = all at once). */
static inline attn_data attn_data_create(attn_shape s, const ca_kern *kern, uint32_t summaries, uint32_t piece, float q_sd)
{
    attn_data d = { .shape = s, .kv_stride = (size_t)s.hkv * s.dim, .q_stride = (size_t)s.hq * s.dim };
    d.k = random_values((size_t)s.kv_len * d.kv_stride, 1.0F, 11);
    d.v = random_values((size_t)s.kv_len * d.kv_stride, 1.0F, 12);
    d.q = random_values((size_t)s.q_len * d.q_stride, q_sd, 13);
    const ca_cache_opt opt = { .n_layers = 1,
                               .n_kv_heads = s.hkv,
                               .head_dim = s.dim,
                               .page_tokens = s.page,
                               .max_seqs = 1,
                               .capacity_tokens = s.kv_len,
                               .summaries = summaries,
                               .kern = kern };
    must(ca_cache_create(&opt, &d.cache), "cache");
    for (uint32_t at = 0; at < s.kv_len;) {
        const uint32_t n = ca_min_u32(piece ? piece : s.kv_len, s.kv_len - at);
        must(ca_cache_append(d.cache, 0, 0,
                             &(ca_kv){ .k = d.k + at * d.kv_stride, .v = d.v + at * d.kv_stride, .stride = d.kv_stride }, n),
             "append");
        at += n;
    }
    d.chunk = (ca_chunk){ .pos = s.kv_len - s.q_len, .n_tokens = s.q_len, .n_heads = s.hq };
    d.ws.size = ca_table_ws_bytes(d.cache, s.hq, s.q_len, s.kv_len) * 2 + ca_attend_ws_bytes(d.cache, s.hq, s.q_len, 4) +
                ((size_t)1 << 20);
    d.ws.base = aligned_alloc(64, ca_align_up(d.ws.size, 64));
    return d;
}

static inline void attn_data_destroy(attn_data *d)
{
    ca_cache_destroy(d->cache);
    free(d->k);
    free(d->v);
    free(d->q);
    free(d->ws.base);
}

/* NaN-filled output, so that what is not written shows. */
static inline float *new_output(const attn_data *d)
{
    const size_t n = (size_t)d->shape.q_len * d->q_stride;
    float *o = malloc(n * sizeof *o);
    for (size_t i = 0; i < n; i++) o[i] = NAN;
    return o;
}

/* ||a - b|| / ||b||; infinite when a value is not finite. */
static inline double relative_error(const float *a, const float *b, size_t n)
{
    double num = 0.0, den = 0.0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i])) return INFINITY;
        num += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        den += (double)b[i] * (double)b[i];
    }
    return sqrt(num / (den > 0.0 ? den : 1.0));
}

#endif
