#include "cache/cache.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/arith.h"

enum { MEAN_PANEL = 16 };

typedef struct sizes {
    size_t n_heads, n_lens, blocks_cap, n_pages, page_bytes;
    size_t n_pool, n_gather;
    size_t pool, heads, lens, starts, info, free_pages, pages;
    size_t mean_k, open_sum, inv_norm, gate_k, gate_pool; /* 0 without the summary */
    size_t arena, total;
} sizes;

static ca_status check(const ca_cache_opt *o)
{
    if (!o->kern) return ca_fail(CA_E_ARG, "cache: no kernel set given (see ca_kern_choose)");
    if (o->n_layers == 0 || o->n_kv_heads == 0 || o->max_seqs == 0 || o->capacity_tokens == 0)
        return ca_fail(CA_E_ARG, "cache: layers, KV heads, sequences and capacity must be at least 1");
    if (o->head_dim == 0 || o->head_dim % 16 != 0 || o->head_dim > 256)
        return ca_fail(CA_E_ARG, "cache: head_dim %u is not a multiple of 16 up to 256", o->head_dim);
    if (o->page_tokens != 32 && o->page_tokens != 64 && o->page_tokens != 128)
        return ca_fail(CA_E_ARG, "cache: page_tokens %u is not 32, 64 or 128", o->page_tokens);
    if (o->capacity_tokens > UINT32_MAX / 2)
        return ca_fail(CA_E_ARG, "cache: capacity of %llu tokens is above %u", (unsigned long long)o->capacity_tokens,
                       UINT32_MAX / 2);
    if (o->gather_tokens > o->capacity_tokens)
        return ca_fail(CA_E_ARG, "cache: gather_tokens %u is above the capacity", o->gather_tokens);
    return o->summaries & CA_SUMMARY_GATE ? ca_gate_check_cache(o->gate, o) : CA_OK;
}

/* n * a * b, aligned, added to the arena's running total. */
static ca_status arena_part(sizes *s, size_t n, size_t bytes, size_t *part)
{
    CA_TRY(ca_mul_size(n, bytes, part));
    *part = ca_align_up(*part, 64);
    return ca_add_size(s->arena, *part, &s->arena);
}

static ca_status measure(const ca_cache_opt *o, sizes *s)
{
    *s = (sizes){ 0 };
    CA_TRY(ca_mul_size(o->max_seqs, o->n_layers, &s->n_lens));
    CA_TRY(ca_mul_size(s->n_lens, o->n_kv_heads, &s->n_heads));
    s->blocks_cap = ca_align_up(ca_ceil_div((uint32_t)o->capacity_tokens, o->page_tokens), MEAN_PANEL);
    /* Each sequence can leave one page unfilled. */
    for (uint32_t l = 0; l < o->n_layers; l++) {
        const uint32_t held = o->layer_tokens ? ca_min_u32(o->layer_tokens[l], (uint32_t)o->capacity_tokens)
                                              : (uint32_t)o->capacity_tokens;
        CA_TRY(ca_add_size(s->n_pages, (size_t)ca_ceil_div(held, o->page_tokens) + o->max_seqs - 1, &s->n_pages));
    }
    CA_TRY(ca_mul_size(s->n_pages, o->n_kv_heads, &s->n_pages));
    s->n_pool = s->n_pages;
    s->n_gather = ca_ceil_div(o->gather_tokens, o->page_tokens);
    CA_TRY(ca_add_size(s->n_pages, s->n_gather * o->n_kv_heads, &s->n_pages));
    if (s->n_pages >= UINT32_MAX) return ca_fail(CA_E_MEMORY, "cache: %zu pages are more than page ids can name", s->n_pages);
    s->page_bytes = ca_page_bytes(o->kern, o->page_tokens, o->head_dim);
    CA_TRY(ca_mul_size(s->n_pages, s->page_bytes, &s->pool));

    CA_TRY(arena_part(s, s->n_heads, sizeof(ca_head), &s->heads));
    CA_TRY(arena_part(s, s->n_lens, sizeof(uint32_t), &s->lens));
    CA_TRY(arena_part(s, s->n_lens, sizeof(uint32_t), &s->starts));
    CA_TRY(arena_part(s, s->n_pages, sizeof(ca_page_info), &s->info));
    CA_TRY(arena_part(s, s->n_pages, sizeof(uint32_t), &s->free_pages));
    size_t per_head = 0;
    CA_TRY(ca_mul_size(s->n_heads, s->blocks_cap, &per_head));
    CA_TRY(arena_part(s, per_head, sizeof(uint32_t), &s->pages));
    if (o->summaries & CA_SUMMARY_MEAN_K) {
        CA_TRY(arena_part(s, per_head, sizeof(float) * o->head_dim, &s->mean_k));
        CA_TRY(arena_part(s, s->n_heads, sizeof(float) * o->head_dim, &s->open_sum));
    }
    if (o->summaries & CA_SUMMARY_NORM_K) CA_TRY(arena_part(s, per_head, sizeof(float) * o->page_tokens, &s->inv_norm));
    if (o->summaries & CA_SUMMARY_GATE) {
        CA_TRY(arena_part(s, per_head, sizeof(float) * ca_gate_k_heads(o->gate) * o->gate->opt.hidden, &s->gate_k));
        CA_TRY(arena_part(s, s->n_heads, sizeof(float) * 3 * o->head_dim, &s->gate_pool));
    }
    return ca_add_size(s->pool, s->arena, &s->total);
}

ca_status ca_cache_forecast(const ca_cache_opt *opt, size_t *bytes)
{
    sizes s;
    CA_TRY(check(opt));
    CA_TRY(measure(opt, &s));
    *bytes = s.total;
    return CA_OK;
}

static ca_cache planned(const ca_cache_opt *opt, const sizes *s)
{
    ca_cache c = { .opt = *opt,
                   .int8 = ca_attn_int8_choose(opt->kern, opt->page_tokens),
                   .page_bytes = s->page_bytes,
                   .n_pages = (uint32_t)s->n_pages,
                   .blocks_cap = (uint32_t)s->blocks_cap,
                   .n_pool = (uint32_t)s->n_pool,
                   .n_gather = (uint32_t)s->n_gather,
                   .data_bytes = s->pool,
                   .arena_bytes = s->arena };
    c.opt.layer_tokens = NULL;
    return c;
}

ca_status ca_cache_plan(const ca_cache_opt *opt, ca_cache *out)
{
    sizes s;
    CA_TRY(check(opt));
    CA_TRY(measure(opt, &s));
    *out = planned(opt, &s);
    return CA_OK;
}

static void *map_bytes(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    (void)madvise(p, bytes, MADV_HUGEPAGE); /* fewer TLB misses when the table jumps between pages; fine without */
    return p;
}

/* Gives every head its n floats of a part of the arena, which has bytes (0: the part is not there); *at moves behind it. */
static void share(ca_head *heads, size_t n_heads, size_t field, size_t n, size_t bytes, unsigned char **at)
{
    for (size_t h = 0; bytes > 0 && h < n_heads; h++) {
        float *mine = (float *)(void *)*at + h * n;
        memcpy((unsigned char *)&heads[h] + field, &mine, sizeof mine);
    }
    *at += bytes;
}

ca_status ca_cache_create(const ca_cache_opt *opt, ca_cache **out)
{
    sizes s;
    CA_TRY(check(opt));
    CA_TRY(measure(opt, &s));
    ca_cache *c = calloc(1, sizeof *c);
    unsigned char *data = c ? map_bytes(s.pool) : NULL;
    unsigned char *arena = data ? map_bytes(s.arena) : NULL;
    if (!arena) {
        if (data) (void)munmap(data, s.pool);
        free(c);
        return ca_fail(CA_E_MEMORY, "cache: %zu bytes of KV pages cannot be mapped: use a shorter context", s.total);
    }
    *c = planned(opt, &s);
    c->data = data;
    c->arena = arena;
    unsigned char *at = arena;
    c->heads = (ca_head *)(void *)at, at += s.heads;
    c->lens = (uint32_t *)(void *)at, at += s.lens;
    c->starts = (uint32_t *)(void *)at, at += s.starts;
    c->info = (ca_page_info *)(void *)at, at += s.info;
    c->free_pages = (uint32_t *)(void *)at, at += s.free_pages;
    for (size_t h = 0; h < s.n_heads; h++) c->heads[h].pages = (uint32_t *)(void *)at + h * s.blocks_cap;
    at += s.pages;
    share(c->heads, s.n_heads, offsetof(ca_head, mean_k), s.blocks_cap * opt->head_dim, s.mean_k, &at);
    share(c->heads, s.n_heads, offsetof(ca_head, open_sum), opt->head_dim, s.open_sum, &at);
    share(c->heads, s.n_heads, offsetof(ca_head, inv_norm), s.blocks_cap * opt->page_tokens, s.inv_norm, &at);
    if (s.gate_k) {
        const size_t width = (size_t)ca_gate_k_heads(opt->gate) * opt->gate->opt.hidden;
        share(c->heads, s.n_heads, offsetof(ca_head, gate_k), s.blocks_cap * width, s.gate_k, &at);
        share(c->heads, s.n_heads, offsetof(ca_head, gate_pool), (size_t)3 * opt->head_dim, s.gate_pool, &at);
    }
    for (uint32_t p = 0; p < c->n_pool; p++) c->free_pages[p] = c->n_pool - 1 - p; /* taken from the end: ids ascend */
    c->n_free = c->n_pool;
    *out = c;
    return CA_OK;
}

void ca_cache_destroy(ca_cache *cache)
{
    if (!cache) return;
    (void)munmap(cache->data, cache->data_bytes);
    (void)munmap(cache->arena, cache->arena_bytes);
    free(cache);
}

static uint32_t *len_of(const ca_cache *c, uint32_t seq, uint32_t layer)
{
    return &c->lens[(size_t)seq * c->opt.n_layers + layer];
}

uint32_t ca_cache_start(const ca_cache *cache, uint32_t seq, uint32_t layer)
{
    return seq < cache->opt.max_seqs && layer < cache->opt.n_layers ? cache->starts[(size_t)seq * cache->opt.n_layers + layer] : 0;
}

static ca_status check_seq(const ca_cache *c, uint32_t seq, uint32_t layer)
{
    if (seq >= c->opt.max_seqs) return ca_fail(CA_E_ARG, "cache: sequence %u of %u", seq, c->opt.max_seqs);
    if (layer >= c->opt.n_layers) return ca_fail(CA_E_ARG, "cache: layer %u of %u", layer, c->opt.n_layers);
    return CA_OK;
}

/* Mean of a block = sum of its stored keys in token order / tokens. */
static void set_mean(const ca_cache *c, const ca_head *head, uint32_t block, const float *sum, uint32_t n)
{
    const uint32_t dim = c->opt.head_dim;
    float *panel = head->mean_k + (size_t)(block / MEAN_PANEL) * dim * MEAN_PANEL + block % MEAN_PANEL;
    for (uint32_t d = 0; d < dim; d++) panel[(size_t)d * MEAN_PANEL] = n ? sum[d] / (float)n : 0.0F;
}

/* 1 / max(|k|, 1e-6) of n keys as they are stored. */
static void set_norms(const ca_cache *c, float *out, uint32_t n, const float *k, size_t stride)
{
    for (uint32_t i = 0; i < n; i++) {
        float sum = 0.0F;
        for (uint32_t d = 0; d < c->opt.head_dim; d++) {
            const float x = k[(size_t)i * stride + d];
            const float stored = c->opt.kern->type == CA_BF16 ? ca_bf16_to_f32(ca_f32_to_bf16(x)) : x;
            sum += stored * stored;
        }
        out[i] = 1.0F / fmaxf(sqrtf(sum), 1e-6F);
    }
}

/* The part of an append that falls into one block of one head. */
static void put_block(const ca_cache *c, const ca_head *head, uint32_t block, uint32_t slot, uint32_t n, const float *k,
                      const float *v, size_t stride)
{
    const uint32_t bs = c->opt.page_tokens, dim = c->opt.head_dim;
    ca_page_info *info = &c->info[head->pages[block]];
    float sum[256] = { 0 };
    if (head->mean_k && slot > 0)
        for (uint32_t d = 0; d < dim; d++) sum[d] = head->open_sum[d];
    if (head->inv_norm) set_norms(c, head->inv_norm + (size_t)block * bs + slot, n, k, stride);
    c->opt.kern->page_put(ca_page_data(c, head->pages[block]), bs, dim, slot, n, k, v, stride, head->mean_k ? sum : NULL);
    info->len = slot + n;
    if (!head->mean_k) return;
    set_mean(c, head, block, sum, info->len);
    if (info->len < bs)
        for (uint32_t d = 0; d < dim; d++) head->open_sum[d] = sum[d];
}

typedef struct append {
    const ca_cache *cache;
    uint32_t seq, layer, start, n_tokens;
    const ca_kv *kv;
} append;

/* Blocks [first, end) of all heads. The block that was open comes in a call of its own: it reads the sum that the last block of the
 * same append writes. */
static void put_blocks(const append *a, uint32_t first, uint32_t end)
{
    const uint32_t n_kv = a->cache->opt.n_kv_heads, bs = a->cache->opt.page_tokens;
    const uint32_t n = end > first ? n_kv * (end - first) : 0;
#pragma omp parallel for schedule(dynamic) if (n > n_kv)
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t h = i % n_kv, b = first + i / n_kv;
        const uint32_t from = ca_max_u32(a->start, b * bs), to = ca_min_u32(a->start + a->n_tokens, (b + 1) * bs);
        const size_t at = (size_t)(from - a->start) * a->kv->stride + (size_t)h * a->cache->opt.head_dim;
        put_block(a->cache, ca_cache_head(a->cache, a->seq, a->layer, h), b, from - b * bs, to - from, a->kv->k + at, a->kv->v + at,
                  a->kv->stride);
    }
}

/* Pages for blocks [have, want) of every head, for positions that end at `end`. */
static ca_status take_pages(ca_cache *cache, uint32_t seq, uint32_t layer, uint32_t have, uint32_t want, uint64_t end)
{
    const uint32_t bs = cache->opt.page_tokens, n_kv = cache->opt.n_kv_heads;
    if (end > (uint64_t)cache->blocks_cap * bs)
        return ca_fail(CA_E_FULL, "cache: %llu tokens are more than the %u a sequence can hold", (unsigned long long)end,
                       cache->blocks_cap * bs);
    if ((uint64_t)(want - have) * n_kv > cache->n_free)
        return ca_fail(CA_E_FULL, "cache: %u pages needed, %u free: truncate a sequence or create a larger pool",
                       (want - have) * n_kv, cache->n_free);
    for (uint32_t h = 0; h < n_kv; h++) {
        const ca_head *head = ca_cache_head(cache, seq, layer, h);
        for (uint32_t b = have; b < want; b++) {
            const uint32_t page = cache->free_pages[--cache->n_free];
            head->pages[b] = page;
            cache->info[page] = (ca_page_info){ .pos = b * bs, .len = 0, .head = (uint32_t)(head - cache->heads) };
            /* A page that was in use holds old values; slots past the end must be zero for the kernels. */
            if ((uint64_t)(b + 1) * bs > end) memset(ca_page_data(cache, page), 0, cache->page_bytes);
        }
    }
    return CA_OK;
}

ca_status ca_cache_reserve(ca_cache *cache, uint32_t seq, uint32_t layer, uint32_t start, uint32_t len)
{
    const uint32_t bs = cache->opt.page_tokens, n_blocks = ca_ceil_div(len, bs);
    if (start % bs != 0 || start > len)
        return ca_fail(CA_E_FORMAT,
                       "cache: layer %u holds positions [%u, %u), which is not the end of a sequence of %u-token pages", layer,
                       start, len, bs);
    CA_TRY(take_pages(cache, seq, layer, start / bs, n_blocks, len));
    for (uint32_t h = 0; h < cache->opt.n_kv_heads; h++) {
        const ca_head *head = ca_cache_head(cache, seq, layer, h);
        for (uint32_t b = 0; b < start / bs; b++) head->pages[b] = UINT32_MAX;
        for (uint32_t b = start / bs; b < n_blocks; b++) cache->info[head->pages[b]].len = ca_min_u32(bs, len - b * bs);
    }
    *len_of(cache, seq, layer) = len;
    cache->starts[(size_t)seq * cache->opt.n_layers + layer] = start;
    return CA_OK;
}

static ca_status check_kv(const ca_cache *c, const ca_kv *kv)
{
    const bool gate = c->opt.summaries & CA_SUMMARY_GATE;
    const size_t width = (size_t)c->opt.n_kv_heads * c->opt.head_dim;
    if (gate && !kv->k_raw) return ca_fail(CA_E_ARG, "cache: the gate's summary needs k_raw, the keys before RoPE");
    if (kv->stride >= width && (!gate || kv->raw_stride >= width)) return CA_OK;
    return ca_fail(CA_E_SHAPE, "cache: token stride %zu is below %u KV heads x %u",
                   kv->stride < width ? kv->stride : kv->raw_stride, c->opt.n_kv_heads, c->opt.head_dim);
}

ca_status ca_cache_append(ca_cache *cache, uint32_t seq, uint32_t layer, const ca_kv *kv, uint32_t n_tokens)
{
    CA_TRY(check_seq(cache, seq, layer));
    CA_TRY(check_kv(cache, kv));
    const uint32_t bs = cache->opt.page_tokens;
    uint32_t *len = len_of(cache, seq, layer);
    if (n_tokens == 0) return CA_OK;
    const uint64_t end = (uint64_t)*len + n_tokens;
    if (end > UINT32_MAX) return ca_fail(CA_E_FULL, "cache: %u + %u tokens", *len, n_tokens);
    const uint32_t first = *len / bs, want = ca_ceil_div((uint32_t)end, bs);
    CA_TRY(take_pages(cache, seq, layer, ca_ceil_div(*len, bs), want, end));
    const append a = { cache, seq, layer, *len, n_tokens, kv };
    put_blocks(&a, first, first + 1);
    put_blocks(&a, first + 1, want);
    if (cache->opt.summaries & CA_SUMMARY_GATE) ca_gate_append(cache, seq, layer, kv->k_raw, kv->raw_stride, *len, n_tokens);
    *len += n_tokens;
    return CA_OK;
}

uint32_t ca_cache_len(const ca_cache *cache, uint32_t seq, uint32_t layer)
{
    return seq < cache->opt.max_seqs && layer < cache->opt.n_layers ? *len_of(cache, seq, layer) : 0;
}

/* Drops the slots [n, len) of the block that stays open: zeros them and rebuilds its sum as an append would have left it. */
static void reopen_block(const ca_cache *c, const ca_head *head, uint32_t block, uint32_t n)
{
    const uint32_t bs = c->opt.page_tokens, dim = c->opt.head_dim;
    const ca_kern *kern = c->opt.kern;
    const uint32_t page = head->pages[block];
    unsigned char *data = ca_page_data(c, page);
    const size_t elt = 4 / kern->ks;
    float sum[256] = { 0 };
    for (uint32_t t = 0; t < c->info[page].len; t++)
        for (uint32_t d = 0; d < dim; d++) {
            const size_t k = ca_page_k_index(kern, bs, dim, t, d), v = ca_page_v_index(kern, bs, dim, t, d);
            if (t < n) {
                sum[d] += ca_page_element(kern, data, k);
                continue;
            }
            memset(data + k * elt, 0, elt);
            memset(data + v * elt, 0, elt);
        }
    c->info[page].len = n;
    if (!head->mean_k) return;
    set_mean(c, head, block, sum, n);
    memcpy(head->open_sum, sum, (size_t)dim * 4);
}

ca_status ca_cache_forget(ca_cache *cache, uint32_t seq, uint32_t layer, uint32_t before)
{
    CA_TRY(check_seq(cache, seq, layer));
    uint32_t *start = &cache->starts[(size_t)seq * cache->opt.n_layers + layer];
    const uint32_t bs = cache->opt.page_tokens, end = ca_min_u32(before, *len_of(cache, seq, layer)) / bs;
    for (uint32_t h = cache->opt.n_kv_heads; h-- > 0;) {
        const ca_head *head = ca_cache_head(cache, seq, layer, h);
        for (uint32_t b = *start / bs; b < end; b++) {
            cache->info[head->pages[b]].len = 0;
            cache->free_pages[cache->n_free++] = head->pages[b];
            head->pages[b] = UINT32_MAX;
        }
    }
    *start = ca_max_u32(*start, end * bs);
    return CA_OK;
}

ca_status ca_cache_truncate(ca_cache *cache, uint32_t seq, uint32_t n_tokens)
{
    CA_TRY(check_seq(cache, seq, 0));
    for (uint32_t layer = 0; layer < cache->opt.n_layers && n_tokens > 0; layer++)
        if (n_tokens < *len_of(cache, seq, layer) && n_tokens < ca_cache_start(cache, seq, layer))
            return ca_fail(CA_E_ARG, "cache: cannot be cut to %u tokens: layer %u has forgotten those before %u; cut it to 0",
                           n_tokens, layer, ca_cache_start(cache, seq, layer));
    const uint32_t bs = cache->opt.page_tokens;
    const float zero[256] = { 0 };
    for (uint32_t layer = cache->opt.n_layers; layer-- > 0;) {
        uint32_t *len = len_of(cache, seq, layer);
        if (*len <= n_tokens) continue;
        uint32_t *start = &cache->starts[(size_t)seq * cache->opt.n_layers + layer];
        const uint32_t keep = ca_ceil_div(n_tokens, bs), have = ca_ceil_div(*len, bs), held = ca_max_u32(keep, *start / bs);
        for (uint32_t h = cache->opt.n_kv_heads; h-- > 0;) {
            const ca_head *head = ca_cache_head(cache, seq, layer, h);
            for (uint32_t b = have; b-- > held;) {
                cache->free_pages[cache->n_free++] = head->pages[b];
                cache->info[head->pages[b]].len = 0;
                if (head->mean_k) set_mean(cache, head, b, zero, 0);
            }
            if (n_tokens % bs != 0) reopen_block(cache, head, keep - 1, n_tokens % bs);
        }
        if (n_tokens % bs != 0 && (cache->opt.summaries & CA_SUMMARY_GATE)) ca_gate_reopen(cache, seq, layer, n_tokens);
        *len = n_tokens;
        *start = ca_min_u32(*start, n_tokens);
    }
    return CA_OK;
}

const uint32_t *ca_cache_pages(const ca_cache *cache, uint32_t seq, uint32_t layer, uint32_t kv_head, uint32_t *n_pages)
{
    *n_pages = kv_head < cache->opt.n_kv_heads ? ca_ceil_div(ca_cache_len(cache, seq, layer), cache->opt.page_tokens) : 0;
    if (*n_pages == 0) return NULL;
    return ca_cache_head(cache, seq, layer, kv_head)->pages;
}

uint32_t ca_page_pos(const ca_cache *cache, uint32_t page)
{
    return page < cache->n_pages ? cache->info[page].pos : 0;
}

uint32_t ca_page_len(const ca_cache *cache, uint32_t page)
{
    return page < cache->n_pages ? cache->info[page].len : 0;
}

ca_status ca_page_read(const ca_cache *cache, uint32_t page, float *k, float *v)
{
    if (page >= cache->n_pages) return ca_fail(CA_E_ARG, "cache: page %u of %u", page, cache->n_pages);
    const uint32_t bs = cache->opt.page_tokens, dim = cache->opt.head_dim;
    const ca_kern *kern = cache->opt.kern;
    const unsigned char *data = ca_page_data(cache, page);
    const bool used = cache->info[page].len > 0;
    for (uint32_t t = 0; t < bs; t++)
        for (uint32_t d = 0; d < dim; d++) {
            if (k) k[(size_t)t * dim + d] = used ? ca_page_element(kern, data, ca_page_k_index(kern, bs, dim, t, d)) : 0.0F;
            if (v) v[(size_t)t * dim + d] = used ? ca_page_element(kern, data, ca_page_v_index(kern, bs, dim, t, d)) : 0.0F;
        }
    return CA_OK;
}

ca_status ca_page_mean_k(const ca_cache *cache, uint32_t page, float *mean)
{
    if (page >= cache->n_pages) return ca_fail(CA_E_ARG, "cache: page %u of %u", page, cache->n_pages);
    if (!(cache->opt.summaries & CA_SUMMARY_MEAN_K)) return ca_fail(CA_E_ARG, "cache: created without CA_SUMMARY_MEAN_K");
    const ca_page_info *info = &cache->info[page];
    const uint32_t dim = cache->opt.head_dim, block = info->pos / cache->opt.page_tokens;
    const float *panel = cache->heads[info->head].mean_k + (size_t)(block / MEAN_PANEL) * dim * MEAN_PANEL + block % MEAN_PANEL;
    for (uint32_t d = 0; d < dim; d++) mean[d] = info->len ? panel[(size_t)d * MEAN_PANEL] : 0.0F;
    return CA_OK;
}

/* Copies token slots between pages of one cache: 32-bit units of K, single elements of V (see kern.h for the layout). The n tokens
 * go to slots 0..n-1 of the page at dst; src[i] is the page that holds token i and slot[i] its place in it. */
static void gather_page(const ca_cache *c, unsigned char *dst, uint32_t n, unsigned char *const *src, const uint32_t *slot)
{
    const ca_kern *kern = c->opt.kern;
    const uint32_t bs = c->opt.page_tokens, dim = c->opt.head_dim, ks = kern->ks, units = dim / ks;
    const uint32_t kp = ca_min_u32(kern->k_panel, bs);
    const size_t elt = 4 / ks;
    if (n < bs) memset(dst, 0, c->page_bytes);
    for (uint32_t first = 0; first < n; first += kp)
        for (uint32_t u = 0; u < units; u++)
            for (uint32_t i = first; i < ca_min_u32(first + kp, n); i++) {
                const size_t from = ((size_t)slot[i] / kp * units + u) * kp + slot[i] % kp;
                memcpy(dst + (((size_t)i / kp * units + u) * kp + i % kp) * 4, src[i] + from * 4, 4);
            }
    for (uint32_t panel = 0; panel < dim; panel += kern->v_panel) {
        const uint32_t width = ca_min_u32(kern->v_panel, dim - panel);
        for (uint32_t i = 0; i < n; i++) {
            unsigned char *to = dst + ca_page_v_index(kern, bs, dim, i, panel) * elt;
            const unsigned char *from = src[i] + ca_page_v_index(kern, bs, dim, slot[i], panel) * elt;
            for (size_t d = 0; d < width; d++) memcpy(to + d * 4, from + d * 4, elt);
        }
    }
}

ca_status ca_cache_gather(ca_cache *cache, uint32_t seq, uint32_t layer, uint32_t kv_head, const uint32_t *tokens, uint32_t n,
                          uint32_t *pages)
{
    CA_TRY(check_seq(cache, seq, layer));
    const uint32_t bs = cache->opt.page_tokens, len = ca_cache_len(cache, seq, layer);
    if (kv_head >= cache->opt.n_kv_heads) return ca_fail(CA_E_ARG, "cache: KV head %u of %u", kv_head, cache->opt.n_kv_heads);
    if (n > 0 && tokens[0] < ca_cache_start(cache, seq, layer))
        return ca_fail(CA_E_ARG, "cache: token %u to gather was forgotten", tokens[0]);
    if (n > cache->opt.gather_tokens)
        return ca_fail(CA_E_FULL, "cache: %u tokens to gather, the cache was created for %u", n, cache->opt.gather_tokens);
    for (uint32_t i = 0; i < n; i++)
        if (tokens[i] >= len || (i > 0 && tokens[i] <= tokens[i - 1]))
            return ca_fail(CA_E_ARG, "cache: token %u at %u to gather: positions must ascend and be below %u", tokens[i], i, len);
    const ca_head *head = ca_cache_head(cache, seq, layer, kv_head);
    for (uint32_t first = 0, p = 0; first < n; first += bs, p++) {
        const uint32_t count = ca_min_u32(bs, n - first);
        unsigned char *src[128];
        uint32_t slot[128];
        for (uint32_t i = 0; i < count; i++) {
            src[i] = ca_page_data(cache, head->pages[tokens[first + i] / bs]);
            slot[i] = tokens[first + i] % bs;
        }
        pages[p] = cache->n_pool + kv_head * cache->n_gather + p;
        gather_page(cache, ca_page_data(cache, pages[p]), count, src, slot);
        /* The position is that of a token from which on everything here is visible: see attn_seen in the kernels. */
        cache->info[pages[p]] = (ca_page_info){ .pos = 0, .len = count, .head = (uint32_t)(head - cache->heads) };
    }
    return CA_OK;
}

ca_status ca_cache_swap_pages(ca_cache *cache, uint32_t a, uint32_t b)
{
    if (a >= cache->n_pages || b >= cache->n_pages) return ca_fail(CA_E_ARG, "cache: pages %u and %u of %u", a, b, cache->n_pages);
    if (a >= cache->n_pool || b >= cache->n_pool || cache->info[a].len == 0 || cache->info[b].len == 0)
        return ca_fail(CA_E_ARG, "cache: a page to swap is not in use");
    unsigned char *pa = ca_page_data(cache, a), *pb = ca_page_data(cache, b);
    for (size_t i = 0; i < cache->page_bytes; i++) {
        const unsigned char t = pa[i];
        pa[i] = pb[i];
        pb[i] = t;
    }
    const ca_page_info ia = cache->info[a], ib = cache->info[b];
    cache->info[a] = ib;
    cache->info[b] = ia;
    cache->heads[ia.head].pages[ia.pos / cache->opt.page_tokens] = b;
    cache->heads[ib.head].pages[ib.pos / cache->opt.page_tokens] = a;
    return CA_OK;
}
