/* AttnGate: weights, pools and projected keys (spec/selectors-learned.md A.2, A.3, A.5, A.9). */
#include "cache/gate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "base/hash.h"
#include "cache/cache.h"

static uint32_t n_pools(uint32_t bits)
{
    return (uint32_t)__builtin_popcount(bits);
}

ca_gate_dims ca_gate_get_dims(const ca_gate *gate)
{
    const ca_gate_opt *o = &gate->opt;
    const uint32_t group = o->n_heads / o->n_kv_heads, q_in = n_pools(o->q_pool) * o->head_dim;
    ca_gate_dims d = { .k_heads = o->n_kv_heads, .k_in = n_pools(o->k_pool) * o->head_dim, .score_heads = o->n_heads };
    switch (o->layout) {
    case CA_GATE_SINGLE: d.k_heads = o->n_heads; break;
    case CA_GATE_DOUBLE: d.q_heads = o->n_heads, d.q_in = q_in; break;
    case CA_GATE_GROUP: d.q_heads = d.score_heads = o->n_kv_heads, d.q_in = group * q_in; break;
    }
    return d;
}

uint32_t ca_gate_k_heads(const ca_gate *gate)
{
    return gate->opt.layout == CA_GATE_SINGLE ? gate->opt.n_heads / gate->opt.n_kv_heads : 1;
}

uint64_t ca_gate_fingerprint(const ca_gate *gate)
{
    const ca_gate_opt *o = &gate->opt;
    const ca_gate_dims d = ca_gate_get_dims(gate);
    const uint32_t numbers[] = { (uint32_t)o->layout, o->q_pool, o->k_pool, o->hidden, o->block, o->rotary };
    uint64_t hash = ca_hash(CA_HASH_START, numbers, sizeof numbers);
    hash = ca_hash(hash, &o->rope_scale, sizeof o->rope_scale);
    hash = ca_hash(hash, o->inv_freq, o->rotary / 2 * sizeof *o->inv_freq);
    for (uint32_t l = 0; l < o->n_layers; l++) {
        hash = ca_hash(hash, gate->wk[l], (size_t)d.k_heads * d.k_in * o->hidden * sizeof **gate->wk);
        if (gate->wq[l]) hash = ca_hash(hash, gate->wq[l], (size_t)d.q_heads * d.q_in * o->hidden * sizeof **gate->wq);
    }
    return hash;
}

static ca_status check(const ca_gate_opt *o)
{
    const uint32_t all = CA_POOL_MAX | CA_POOL_MIN | CA_POOL_AVG;
    if (o->n_layers == 0 || o->n_heads == 0 || o->n_kv_heads == 0 || o->n_heads % o->n_kv_heads != 0)
        return ca_fail(CA_E_ARG, "gate: %u layers, %u query heads and %u KV heads do not make a model", o->n_layers, o->n_heads,
                       o->n_kv_heads);
    if (o->head_dim == 0 || o->head_dim % 16 != 0 || o->head_dim > 256)
        return ca_fail(CA_E_ARG, "gate: head_dim %u is not a multiple of 16 up to 256", o->head_dim);
    if (o->hidden == 0 || o->hidden % 16 != 0 || o->hidden > CA_GATE_MAX_HIDDEN)
        return ca_fail(CA_E_ARG, "gate: hidden %u is not a multiple of 16 up to %d", o->hidden, CA_GATE_MAX_HIDDEN);
    if (o->block != 32 && o->block != 64 && o->block != 128)
        return ca_fail(CA_E_ARG, "gate: block %u is not 32, 64 or 128 tokens", o->block);
    if (o->q_pool == 0 || o->k_pool == 0 || ((o->q_pool | o->k_pool) & ~all))
        return ca_fail(CA_E_ARG, "gate: pools %#x of queries and %#x of keys are not among max, min, avg", o->q_pool, o->k_pool);
    if ((unsigned)o->layout > CA_GATE_GROUP) return ca_fail(CA_E_ARG, "gate: layout %d is unknown", (int)o->layout);
    if (o->layout == CA_GATE_SINGLE && (n_pools(o->q_pool) != 1 || o->hidden != o->head_dim))
        return ca_fail(CA_E_ARG, "gate: the single layout needs one pool of queries and hidden = head_dim, got %u and %u, %u",
                       n_pools(o->q_pool), o->hidden, o->head_dim);
    if (o->rotary % 2 != 0 || o->rotary > o->hidden || (o->rotary > 0 && !o->inv_freq))
        return ca_fail(CA_E_ARG, "gate: %u rotated channels of %u: an even number with frequencies is needed", o->rotary,
                       o->hidden);
    const uint32_t key_rotary = o->key_freq ? o->key_rotary : o->rotary;
    if (key_rotary % 2 != 0 || key_rotary > o->head_dim)
        return ca_fail(CA_E_ARG, "gate: the model is said to rotate %u channels of a head of %u: give key_freq and key_rotary",
                       key_rotary, o->head_dim);
    return o->rope_scale > 0.0F ? CA_OK : ca_fail(CA_E_ARG, "gate: rope_scale %g is not positive", (double)o->rope_scale);
}

/* Both tables of frequencies in one block, which inv_freq starts. */
static bool copy_frequencies(ca_gate_opt *o)
{
    const double *key_freq = o->key_freq ? o->key_freq : o->inv_freq;
    o->key_rotary = o->key_freq ? o->key_rotary : o->rotary;
    const size_t n = o->rotary / 2, n_keys = o->key_rotary / 2;
    double *freq = malloc((n + n_keys + 1) * sizeof *freq);
    if (!freq) return false;
    if (n > 0) memcpy(freq, o->inv_freq, n * sizeof *freq);
    if (n_keys > 0) memcpy(freq + n, key_freq, n_keys * sizeof *freq);
    o->inv_freq = freq;
    o->key_freq = freq + n;
    return true;
}

ca_status ca_gate_create(const ca_gate_opt *opt, ca_gate **out)
{
    *out = NULL;
    CA_TRY(check(opt));
    ca_gate_opt own = *opt;
    ca_gate *g = calloc(1, sizeof *g);
    float **wk = calloc(opt->n_layers, sizeof *wk), **wq = calloc(opt->n_layers, sizeof *wq);
    if (!g || !wk || !wq || !copy_frequencies(&own)) {
        free(g), free(wk), free(wq);
        return ca_fail(CA_E_MEMORY, "gate: no memory for %u layers", opt->n_layers);
    }
    *g = (ca_gate){ .opt = own, .wk = wk, .wq = wq };
    *out = g;
    return CA_OK;
}

void ca_gate_destroy(ca_gate *gate)
{
    if (!gate) return;
    for (uint32_t l = 0; l < gate->opt.n_layers; l++) {
        free(gate->wk[l]);
        free(gate->wq[l]);
    }
    free(gate->wk);
    free(gate->wq);
    free((void *)(uintptr_t)gate->opt.inv_freq);
    free(gate);
}

/* [heads][in][hidden] -> [heads][hidden/16][in][16]. */
static ca_status pack(const float *w, uint32_t heads, uint32_t in, uint32_t hidden, float **out)
{
    size_t n = 0, bytes = 0;
    CA_TRY(ca_mul_size((size_t)heads * hidden, in, &n));
    CA_TRY(ca_mul_size(n, sizeof *w, &bytes));
    float *panels = aligned_alloc(64, ca_align_up(bytes, 64));
    if (!panels) return ca_fail(CA_E_MEMORY, "gate: no memory for %zu bytes of weights", bytes);
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < in; i++)
            for (size_t j = 0; j < hidden; j++)
                panels[((h * (hidden / 16) + j / 16) * in + i) * 16 + j % 16] = w[(h * in + i) * hidden + j];
    free(*out);
    *out = panels;
    return CA_OK;
}

ca_status ca_gate_set_layer(ca_gate *gate, uint32_t layer, const float *wk, const float *wq)
{
    const ca_gate_dims d = ca_gate_get_dims(gate);
    if (layer >= gate->opt.n_layers) return ca_fail(CA_E_ARG, "gate: layer %u of %u", layer, gate->opt.n_layers);
    if (!wk || !wq != (d.q_heads == 0))
        return ca_fail(CA_E_ARG, "gate: layer %u: this layout takes %s", layer, d.q_heads ? "wk and wq" : "wk and no wq");
    CA_TRY(pack(wk, d.k_heads, d.k_in, gate->opt.hidden, &gate->wk[layer]));
    return wq ? pack(wq, d.q_heads, d.q_in, gate->opt.hidden, &gate->wq[layer]) : CA_OK;
}

void ca_gate_get_opt(const ca_gate *gate, ca_gate_opt *out)
{
    *out = gate->opt;
}

ca_status ca_gate_check_cache(const ca_gate *gate, const ca_cache_opt *opt)
{
    if (!gate) return ca_fail(CA_E_ARG, "cache: CA_SUMMARY_GATE needs a gate");
    const ca_gate_opt *o = &gate->opt;
    if (o->n_layers != opt->n_layers || o->n_kv_heads != opt->n_kv_heads || o->head_dim != opt->head_dim)
        return ca_fail(CA_E_SHAPE, "cache: the gate is for %u layers, %u KV heads of %u, the cache has %u, %u of %u", o->n_layers,
                       o->n_kv_heads, o->head_dim, opt->n_layers, opt->n_kv_heads, opt->head_dim);
    if (o->block != opt->page_tokens)
        return ca_fail(CA_E_SHAPE, "cache: the gate's blocks have %u tokens, the pages %u: use pages of %u tokens", o->block,
                       opt->page_tokens, o->block);
    for (uint32_t l = 0; l < o->n_layers; l++)
        if (!gate->wk[l]) return ca_fail(CA_E_ARG, "gate: layer %u has no weights", l);
    return CA_OK;
}

void ca_gate_pool(float *pool, uint32_t dim, bool empty, const float *x, size_t stride, uint32_t n)
{
    float *max = pool, *min = pool + dim, *sum = pool + 2 * (size_t)dim;
    for (uint32_t d = 0; empty && d < dim; d++) max[d] = -INFINITY, min[d] = INFINITY, sum[d] = 0.0F;
    for (uint32_t t = 0; t < n; t++, x += stride)
        for (uint32_t d = 0; d < dim; d++) {
            max[d] = x[d] > max[d] ? x[d] : max[d];
            min[d] = x[d] < min[d] ? x[d] : min[d];
            sum[d] += x[d];
        }
}

void ca_gate_feature(const float *pool, uint32_t dim, uint32_t bits, uint32_t count, float *feature)
{
    const size_t bytes = dim * sizeof *pool;
    if (bits & CA_POOL_MAX) memcpy(feature, pool, bytes), feature += dim;
    if (bits & CA_POOL_MIN) memcpy(feature, pool + dim, bytes), feature += dim;
    for (uint32_t d = 0; (bits & CA_POOL_AVG) && d < dim; d++) feature[d] = pool[2 * (size_t)dim + d] / (float)count;
}

void ca_gate_cos_sin(const ca_gate *gate, uint32_t pos, float *cos_sin)
{
    const uint32_t half = gate->opt.rotary / 2;
    for (uint32_t i = 0; i < half; i++) {
        const double angle = pos * gate->opt.inv_freq[i];
        cos_sin[i] = (float)cos(angle) * gate->opt.rope_scale;
        cos_sin[half + i] = (float)sin(angle) * gate->opt.rope_scale;
    }
}

void ca_gate_rotate(const ca_gate *gate, const float *cos_sin, float *x)
{
    const uint32_t half = gate->opt.rotary / 2;
    for (uint32_t i = 0; i < half; i++) {
        const float a = x[i], b = x[half + i], c = cos_sin[i], s = cos_sin[half + i];
        x[i] = a * c - b * s;
        x[half + i] = b * c + a * s;
    }
}

/* Projects n features of blocks [block, +n) of one KV head, rotates them and puts them into its panels. */
static void project(const ca_cache *c, const ca_head *head, uint32_t layer, uint32_t kv_head, uint32_t block, uint32_t n,
                    const float *features, const float *cos_sin)
{
    const ca_gate *gate = c->opt.gate;
    const uint32_t hidden = gate->opt.hidden, heads = ca_gate_k_heads(gate), in = ca_gate_get_dims(gate).k_in;
    const size_t one_head = (size_t)c->blocks_cap * hidden;
    for (uint32_t h = 0; h < heads; h++) {
        float out[CA_GATE_BATCH * CA_GATE_MAX_HIDDEN];
        const float *w = gate->wk[layer] + ((size_t)kv_head * heads + h) * in * hidden;
        c->opt.kern->panel_dot(features, in, n, w, in, hidden, out, hidden);
        for (uint32_t b = 0; b < n; b++) {
            ca_gate_rotate(gate, cos_sin + (size_t)b * gate->opt.rotary, out + (size_t)b * hidden);
            float *panel = head->gate_k + h * one_head + (size_t)((block + b) / 16) * hidden * 16 + (block + b) % 16;
            for (uint32_t d = 0; d < hidden; d++) panel[(size_t)d * 16] = out[(size_t)b * hidden + d];
        }
    }
}

void ca_gate_append(const ca_cache *cache, uint32_t seq, uint32_t layer, const float *k_raw, size_t stride, uint32_t start,
                    uint32_t n)
{
    const uint32_t bs = cache->opt.page_tokens, dim = cache->opt.head_dim, end = start + n;
    const uint32_t in = ca_gate_get_dims(cache->opt.gate).k_in, rotary = cache->opt.gate->opt.rotary;
    for (uint32_t block = start / bs; block * bs < end; block += CA_GATE_BATCH) {
        const uint32_t n_blocks = ca_min_u32(CA_GATE_BATCH, ca_ceil_div(end, bs) - block);
        float cos_sin[CA_GATE_BATCH * CA_GATE_MAX_HIDDEN];
        for (uint32_t b = 0; b < n_blocks; b++) ca_gate_cos_sin(cache->opt.gate, (block + b) * bs, cos_sin + (size_t)b * rotary);
#pragma omp parallel for schedule(dynamic) if (n > 1)
        for (uint32_t h = 0; h < cache->opt.n_kv_heads; h++) {
            const ca_head *head = ca_cache_head(cache, seq, layer, h);
            float features[CA_GATE_BATCH * 3 * 256];
            for (uint32_t b = 0; b < n_blocks; b++) {
                const uint32_t first = (block + b) * bs, from = ca_max_u32(first, start), to = ca_min_u32(first + bs, end);
                ca_gate_pool(head->gate_pool, dim, from == first, k_raw + (size_t)(from - start) * stride + (size_t)h * dim, stride,
                             to - from);
                ca_gate_feature(head->gate_pool, dim, cache->opt.gate->opt.k_pool, to - first, features + (size_t)b * in);
            }
            project(cache, head, layer, h, block, n_blocks, features, cos_sin);
        }
    }
}

void ca_gate_reopen(const ca_cache *cache, uint32_t seq, uint32_t layer, uint32_t len)
{
    const ca_gate *gate = cache->opt.gate;
    const uint32_t bs = cache->opt.page_tokens, dim = cache->opt.head_dim, half = gate->opt.key_rotary / 2;
    const uint32_t block = len / bs;
    float cos_sin[CA_GATE_MAX_HIDDEN], feature[3 * 256], key[256] = { 0 };
    ca_gate_cos_sin(gate, block * bs, cos_sin);
    for (uint32_t h = 0; h < cache->opt.n_kv_heads; h++) {
        const ca_head *head = ca_cache_head(cache, seq, layer, h);
        const unsigned char *data = ca_page_data(cache, head->pages[block]);
        for (uint32_t t = 0; t < len % bs; t++) {
            for (uint32_t d = 0; d < dim; d++)
                key[d] = ca_page_element(cache->opt.kern, data, ca_page_k_index(cache->opt.kern, bs, dim, t, d));
            for (uint32_t i = 0; i < half; i++) { /* the inverse of the model's rotation */
                const double angle = (block * bs + t) * gate->opt.key_freq[i], scale = 1.0 / (double)gate->opt.rope_scale;
                const double a = (double)key[i], b = (double)key[half + i];
                key[i] = (float)((a * cos(angle) + b * sin(angle)) * scale);
                key[half + i] = (float)((b * cos(angle) - a * sin(angle)) * scale);
            }
            ca_gate_pool(head->gate_pool, dim, t == 0, key, dim, 1);
        }
        ca_gate_feature(head->gate_pool, dim, gate->opt.k_pool, len % bs, feature);
        project(cache, head, layer, h, block, 1, feature, cos_sin);
    }
}
