/* Flash attention over a list of pages with AMX tiles; included by kern_amxbf16.c after vec_avx512.h. The definition, the page layout
 * and the rules that make a result exact are those of attn_body.h; docs/kernels.md has the costs.
 *
 * A tile of keys or values is read from the page as it lies. Work is cut into stages: a block of 32 query vectors x a span of 128
 * tokens in two halves.
 *   S = Q K^T   from tiles to memory
 *   P           row by row from S: the softmax, on vectors
 *   O += P V    O passes through tiles once per stage
 * A stage keeps the tile unit busy for about as long as its softmax keeps the vector units busy, and both work at the same time only
 * when their instructions lie close together. So rows of softmax stand between the products:
 *   QK of stage i       beside the softmax of the second half of stage i - 1
 *   PV of stage i - 1   beside the softmax of the first half of stage i
 * A result depends on its own operations in their own order, never on what stands between them. */
#ifndef CA_KERN_ATTN_AMX_H
#define CA_KERN_ATTN_AMX_H

#include <math.h>
#include <string.h>

#include "kern/amx_tiles.h"
#include "kern/kern.h"
#include "kern/tile_body.h"

enum {
    ATTN_JOB = 384,
    ATTN_UNIT = 32,
    AMX_STEP = 32,                  /* inner dimension of a product of tiles; tokens of a strip */
    AMX_TILE = AMX_ROWS * AMX_STEP, /* bf16 of a tile */
    AMX_SUMS = AMX_ROWS * 16,       /* floats of a tile */
    AMX_BLOCK = 2 * AMX_ROWS,       /* query vectors of a stage */
    AMX_HALF = 64,                  /* tokens */
    AMX_SPAN = 2 * AMX_HALF,
    AMX_STRIPS = AMX_SPAN / AMX_STEP,
    AMX_TAIL_BYTES = 4096 /* an inner step of the keys of a panel */
};

#define ATTN_BYTE_FLOP 7.0
#define ATTN_JOB_FLOP 4e6

/* A row's reference rises when four of its probabilities in one lane sum to more than this. */
#define AMX_LIMIT 64.0F

/* 32 tokens of a page. */
typedef struct amx_strip {
    const ca_page_ref *page;
    const unsigned char *k, *k_tail; /* tail: the last inner step where head_dim is no multiple of 32, padded with zeros */
    const unsigned char *v;          /* the page's values */
    uint32_t token;                  /* its first, in the page */
} amx_strip;

/* Tokens of a stage that some row sees, 64 or the list's last 32. whole: every row sees all 64. */
typedef struct amx_half {
    const amx_strip *strips;
    uint32_t n_strips;
    bool whole;
    float *s; /* [AMX_BLOCK][AMX_HALF] */
} amx_half;

typedef struct amx_stage {
    uint32_t first_row, n_rows, n_tiles, n_halves;
    amx_half half[2];
    bool raised; /* rows of O wait for a factor */
    float factor[AMX_BLOCK];
    uint16_t *p; /* [AMX_BLOCK][AMX_SPAN] */
} amx_stage;

typedef struct amx {
    const ca_attn_job *job;
    uint32_t kp;      /* tokens of a panel of keys */
    uint32_t n_steps; /* inner steps of head_dim */
    float c;          /* scale log2 e */
    uint16_t *q;      /* tiles [ATTN_JOB/16][n_steps] */
    float *s[3];      /* of a first half, and of second ones in turn */
    float *o;         /* tiles [ATTN_JOB/16][head_dim/16] */
    float *l;         /* [ATTN_JOB][16] partial sums of probabilities */
    float *m;         /* [ATTN_JOB] */
    int32_t *pos;     /* [ATTN_JOB] */
    unsigned char *tails;
    amx_stage stage[2];

    /* Rows of softmax that wait: a whole half. */
    struct {
        amx_stage *stage;
        uint32_t half, left;
        const float *s;
        uint16_t *p;
        float *l, *m;
    } task;
    /* Lines of the pages behind this span that are fetched while products run: [ahead, ahead_end) of them, some at a time. */
    const ca_page_ref *ahead_pages;
    uint32_t ahead, ahead_end, ahead_pace, page_lines;
} amx;

/* No lane is above limit, nor a NaN. */
V_INLINE bool v_none_above(vf a, float limit)
{
    return _mm512_cmp_ps_mask(a, v_set1(limit), _CMP_LE_OQ) == 0xffff;
}

static uint32_t amx_steps(uint32_t head_dim)
{
    return ca_ceil_div(head_dim, AMX_STEP);
}

static size_t attn_scratch_bytes(uint32_t head_dim, uint32_t page_tokens)
{
    (void)page_tokens;
    const size_t n = ATTN_JOB;
    return n * amx_steps(head_dim) * AMX_STEP * 2 + n * head_dim * 4 + (size_t)AMX_BLOCK * (3 * AMX_HALF * 4 + 2 * AMX_SPAN * 2) +
           (size_t)AMX_STRIPS * AMX_TAIL_BYTES + n * 16 * 4 + 2 * n * 4;
}

static void amx_cut(amx *a, uint32_t head_dim)
{
    const size_t n = ATTN_JOB;
    unsigned char *at = a->job->scratch;
    for (int i = 0; i < 3; i++) a->s[i] = (float *)(void *)at, at += (size_t)AMX_BLOCK * AMX_HALF * 4;
    for (int i = 0; i < 2; i++) a->stage[i].p = (uint16_t *)(void *)at, at += (size_t)AMX_BLOCK * AMX_SPAN * 2;
    a->q = (uint16_t *)(void *)at, at += n * a->n_steps * AMX_STEP * 2;
    a->o = (float *)(void *)at, at += n * head_dim * 4;
    a->tails = at, at += (size_t)AMX_STRIPS * AMX_TAIL_BYTES;
    a->l = (float *)(void *)at, at += n * 16 * 4;
    a->m = (float *)(void *)at, at += n * 4;
    a->pos = (int32_t *)(void *)at;
}

/* Raises the reference of a row to the score top (log2 units): l and what this stage has of P scale by a power of two now, O before
 * its next product. */
static void amx_raise(amx *a, amx_stage *st, uint32_t half, uint32_t r, float top)
{
    const uint32_t row = st->first_row + r;
    const float m = ceilf(top), old = a->m[row];
    if (!(top > old)) return;
    a->m[row] = m;
    if (old == -INFINITY) return; /* nothing was added yet */
    const float f = exp2f(old - m);
    float *l = a->l + (size_t)row * 16;
    v_store(l, v_mul(v_load(l), v_set1(f)));
    for (uint32_t i = 0; i < AMX_BLOCK && !st->raised; i++) st->factor[i] = 1.0F;
    st->raised = true;
    st->factor[r] *= f;
    uint16_t *p = st->p + (size_t)r * AMX_SPAN;
    for (uint32_t i = 0; i < half * AMX_HALF; i++) p[i] = ca_f32_to_bf16(ca_bf16_to_f32(p[i]) * f);
}

/* Probabilities of 16 scores. */
V_INLINE vf amx_prob(const float *s, float c, vf neg_m)
{
    return v_exp2_prob(v_fma(v_load(s), v_set1(c), neg_m));
}

/* A row of softmax in full: masks, and references that rise. */
static __attribute__((noinline)) void amx_row_slow(amx *a, amx_stage *st, uint32_t half, uint32_t r)
{
    const amx_half *h = &st->half[half];
    const uint32_t row = st->first_row + r;
    const float *s = h->s + (size_t)r * AMX_HALF;
    vf e[4], sum = v_zero();
    vm live[4];
    for (int j = 0; j < 4; j++) {
        live[j] = (vm)(j / 2 < (int)h->n_strips ? 0xffff : 0);
        if (h->whole || live[j] == 0) continue;
        const amx_strip *strip = &h->strips[j / 2];
        const int first = (int)strip->token + j % 2 * 16;
        live[j] = (vm)(v_first(ca_page_seen(strip->page, a->pos[row]) - first) &
                       ~v_first(ca_page_hidden(strip->page, a->pos[row], a->job->window) - first));
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int j = 0; j < 4; j++) e[j] = v_select(live[j], amx_prob(s + j * 16, a->c, v_set1(-a->m[row])), v_zero());
        sum = v_add(v_add(e[0], e[1]), v_add(e[2], e[3]));
        if (pass > 0 || v_none_above(sum, AMX_LIMIT)) break;
        vf top = v_set1(-INFINITY);
        for (int j = 0; j < 4; j++) top = v_max(v_select(live[j], v_load(s + j * 16), top), top);
        amx_raise(a, st, half, r, v_hmax(top) * a->c);
    }
    float *l = a->l + (size_t)row * 16;
    v_store(l, v_add(v_load(l), sum));
    uint16_t *p = st->p + (size_t)r * AMX_SPAN + half * AMX_HALF;
    v_store_elts2(p, e[0], e[1]);
    v_store_elts2(p + 32, e[2], e[3]);
}

/* Some rows of the task. */
V_INLINE void amx_rows(const int n, amx *a)
{
    V_UNROLL
    for (int i = 0; i < n; i++) {
        const float *s = a->task.s + i * AMX_HALF;
        uint16_t *p = a->task.p + i * AMX_SPAN;
        float *l = a->task.l + i * 16;
        const vf neg_m = v_set1(-a->task.m[i]);
        const vf e0 = amx_prob(s, a->c, neg_m), e1 = amx_prob(s + 16, a->c, neg_m);
        const vf e2 = amx_prob(s + 32, a->c, neg_m), e3 = amx_prob(s + 48, a->c, neg_m);
        const vf sum = v_add(v_add(e0, e1), v_add(e2, e3));
        if (__builtin_expect(!v_none_above(sum, AMX_LIMIT), 0)) {
            amx_row_slow(a, a->task.stage, a->task.half, (uint32_t)(a->task.m + i - a->m) - a->task.stage->first_row);
            continue;
        }
        v_store(l, v_add(v_load(l), sum));
        v_store_elts2(p, e0, e1);
        v_store_elts2(p + 32, e2, e3);
    }
    a->task.s += n * AMX_HALF;
    a->task.p += n * AMX_SPAN;
    a->task.l += n * 16;
    a->task.m += n;
    a->task.left -= (uint32_t)n;
}

/* What is left of the task. */
static void amx_drain(amx *a)
{
    while (a->task.left > 0) amx_rows(1, a);
}

/* The softmax of a half: at once where it has masks, else it waits for products to stand between. */
static void amx_queue(amx *a, amx_stage *st, uint32_t half)
{
    a->task.left = 0;
    if (half >= st->n_halves) return;
    if (!st->half[half].whole) {
        for (uint32_t r = 0; r < st->n_rows; r++) amx_row_slow(a, st, half, r);
        return;
    }
    a->task.stage = st;
    a->task.half = half;
    a->task.left = st->n_tiles * AMX_ROWS;
    a->task.s = st->half[half].s;
    a->task.p = st->p + half * AMX_HALF;
    a->task.l = a->l + (size_t)st->first_row * 16;
    a->task.m = a->m + st->first_row;
}

/* What stands between four products: rows of softmax, and requests for lines that will be read. pace: 1, 2 or 4. */
V_INLINE void amx_between(const int pace, amx *a)
{
    if (a->task.left > 0) amx_rows(pace, a);
    if (a->ahead == a->ahead_end) return;
    const uint32_t page = a->ahead / a->page_lines, line = a->ahead % a->page_lines;
    const uint32_t lines = ca_min_u32(ca_min_u32(a->ahead_pace, a->ahead_end - a->ahead), a->page_lines - line);
    const unsigned char *at = (const unsigned char *)a->ahead_pages[page].data + (size_t)line * 64;
    for (uint32_t i = 0; i < lines; i++) __builtin_prefetch(at + (size_t)i * 64, 0, 2);
    a->ahead += lines;
}

/* S of a block and a strip: tiles 0 to 3 are sums [query tile][token tile], 4 and 5 queries, 6 and 7 keys. */
V_INLINE void amx_scores(const int pace, const bool two, amx *a, const uint16_t *q, const amx_strip *strip, float *s)
{
    const uint32_t n_steps = a->n_steps;
    const long row_bytes = (long)a->kp * 4;
    const unsigned char *k = strip->k;
    _tile_zero(0);
    _tile_zero(1);
    if (two) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (uint32_t i = 0; i < n_steps; i++, k += 16 * row_bytes, q += AMX_TILE) {
        const unsigned char *from = strip->k_tail && i + 1 == n_steps ? strip->k_tail : k;
        AMX_FENCE();
        _tile_loadd(4, q, 64);
        _tile_loadd(6, from, row_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, from + 64, row_bytes);
        _tile_dpbf16ps(1, 4, 7);
        if (two) {
            _tile_loadd(5, q + (size_t)n_steps * AMX_TILE, 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        AMX_FENCE();
        amx_between(pace, a);
    }
    AMX_FENCE();
    _tile_stored(0, s, AMX_HALF * 4);
    _tile_stored(1, s + 16, AMX_HALF * 4);
    if (two) {
        _tile_stored(2, s + AMX_ROWS * AMX_HALF, AMX_HALF * 4);
        _tile_stored(3, s + AMX_ROWS * AMX_HALF + 16, AMX_HALF * 4);
    }
    AMX_FENCE();
}

/* O[32][wide ? 32 : 16] += P V over the strips of a stage; v: offset of the columns in a page's values, row_bytes of their panel. */
V_INLINE void amx_values(const int pace, const bool two, const bool wide, amx *a, const amx_stage *st, float *o, size_t o_next,
                         size_t v, long row_bytes)
{
    AMX_FENCE();
    _tile_loadd(0, o, 64);
    if (wide) _tile_loadd(1, o + AMX_SUMS, 64);
    if (two) _tile_loadd(2, o + o_next, 64);
    if (two && wide) _tile_loadd(3, o + o_next + AMX_SUMS, 64);
    for (uint32_t h = 0; h < st->n_halves; h++) {
        const uint16_t *p = st->p + h * AMX_HALF;
        const amx_strip *strip = st->half[h].strips;
        for (uint32_t i = 0; i < st->half[h].n_strips; i++, strip++, p += AMX_STEP) {
            const unsigned char *from = strip->v + v + (size_t)strip->token / 2 * (size_t)row_bytes;
            AMX_FENCE();
            _tile_loadd(4, p, AMX_SPAN * 2);
            _tile_loadd(6, from, row_bytes);
            _tile_dpbf16ps(0, 4, 6);
            if (wide) {
                _tile_loadd(7, from + 64, row_bytes);
                _tile_dpbf16ps(1, 4, 7);
            }
            if (two) {
                _tile_loadd(5, p + AMX_ROWS * AMX_SPAN, AMX_SPAN * 2);
                _tile_dpbf16ps(2, 5, 6);
                if (wide) _tile_dpbf16ps(3, 5, 7);
            }
            AMX_FENCE();
            amx_between(pace, a);
        }
    }
    AMX_FENCE();
    _tile_stored(0, o, 64);
    if (wide) _tile_stored(1, o + AMX_SUMS, 64);
    if (two) _tile_stored(2, o + o_next, 64);
    if (two && wide) _tile_stored(3, o + o_next + AMX_SUMS, 64);
    AMX_FENCE();
}

/* The rows of O whose reference rose. */
static __attribute__((noinline, cold)) void amx_rescale(const amx *a, const amx_stage *st, uint32_t n_columns)
{
    for (uint32_t r = 0; r < st->n_rows; r++) {
        const uint32_t row = st->first_row + r;
        float *o = a->o + (size_t)(row / AMX_ROWS) * n_columns * AMX_SUMS + row % AMX_ROWS * 16;
        if (st->factor[r] == 1.0F) continue;
        for (uint32_t i = 0; i < n_columns; i++, o += AMX_SUMS) v_store(o, v_mul(v_load(o), v_set1(st->factor[r])));
    }
}

/* S of all halves of a stage. */
V_INLINE void amx_stage_scores(const int pace, amx *a, amx_stage *st)
{
    const uint16_t *q = a->q + (size_t)(st->first_row / AMX_ROWS) * a->n_steps * AMX_TILE;
    for (uint32_t h = 0; h < st->n_halves; h++)
        for (uint32_t i = 0; i < st->half[h].n_strips; i++) {
            float *s = st->half[h].s + i * AMX_STEP;
            if (st->n_tiles == 2)
                amx_scores(pace, true, a, q, &st->half[h].strips[i], s);
            else
                amx_scores(pace, false, a, q, &st->half[h].strips[i], s);
        }
}

/* O += P V of a stage. */
V_INLINE void amx_stage_values(const int pace, amx *a, const amx_stage *st)
{
    const uint32_t dim = a->job->head_dim, n_columns = dim / 16, bs = a->job->page_tokens;
    const size_t o_next = (size_t)n_columns * AMX_SUMS;
    float *o = a->o + (size_t)(st->first_row / AMX_ROWS) * o_next;
    if (st->raised) amx_rescale(a, st, n_columns);
    for (uint32_t d = 0; d < dim; d += 32, o += 2 * AMX_SUMS) {
        const uint32_t first = d / 64 * 64, width = ca_min_u32(64, dim - first);
        const size_t v = (size_t)first * bs * 2 + (size_t)(d - first) * 4;
        const long row_bytes = (long)width * 4;
        const bool wide = dim - d > 16;
        if (wide && st->n_tiles == 2)
            amx_values(pace, true, true, a, st, o, o_next, v, row_bytes);
        else if (wide)
            amx_values(pace, false, true, a, st, o, o_next, v, row_bytes);
        else if (st->n_tiles == 2)
            amx_values(pace, true, false, a, st, o, o_next, v, row_bytes);
        else
            amx_values(pace, false, false, a, st, o, o_next, v, row_bytes);
    }
}

/* Fills a stage with the halves of a span that some row of the block sees; false: none. */
static bool amx_plan(const amx *a, amx_stage *st, uint32_t block, uint32_t turn, const amx_strip *strips, uint32_t n_strips)
{
    const ca_attn_job *job = a->job;
    const uint32_t first = block * AMX_BLOCK;
    st->first_row = first;
    st->n_rows = ca_min_u32(job->count - first, AMX_BLOCK);
    st->n_tiles = ca_ceil_div(st->n_rows, AMX_ROWS);
    st->n_halves = 0;
    st->raised = false;
    const int32_t low = a->pos[first], high = a->pos[first + st->n_rows - 1]; /* positions ascend */
    for (uint32_t i = 0; i < n_strips; i += 2) {
        amx_half *h = &st->half[st->n_halves];
        bool live = false;
        *h = (amx_half){ .strips = strips + i, .n_strips = ca_min_u32(2, n_strips - i), .whole = n_strips - i >= 2 };
        for (uint32_t j = 0; j < h->n_strips; j++) {
            const amx_strip *s = &h->strips[j];
            const int begin = (int)s->token, end = begin + AMX_STEP;
            live = live || (ca_page_seen(s->page, high) > begin && ca_page_hidden(s->page, low, job->window) < end);
            h->whole = h->whole && ca_page_seen(s->page, low) >= end && ca_page_hidden(s->page, high, job->window) <= begin;
        }
        if (!live) continue;
        h->s = a->s[st->n_halves == 0 ? 0 : 1 + turn];
        st->n_halves++;
    }
    return st->n_halves > 0;
}

/* The strips of pages [i, ..) that fill a span; returns the pages taken. */
static uint32_t amx_take(const amx *a, uint32_t i, amx_strip *strips, uint32_t *n_strips)
{
    const ca_attn_job *job = a->job;
    const uint32_t bs = job->page_tokens, n = ca_min_u32(ca_max_u32(AMX_SPAN / bs, 1), job->n_pages - i);
    const uint32_t row_bytes = a->kp * 4, steps = job->head_dim / AMX_STEP;
    *n_strips = 0;
    for (uint32_t g = 0; g < n; g++) {
        const ca_page_ref *page = &job->pages[i + g];
        const unsigned char *k = page->data;
        for (uint32_t t = 0; t < bs; t += AMX_STEP) {
            amx_strip *s = &strips[*n_strips];
            *s = (amx_strip){ .page = page, .v = k + (size_t)bs * job->head_dim * 2, .token = t };
            s->k = k + (size_t)(t / a->kp) * a->kp * job->head_dim * 2 + (size_t)(t % a->kp) * 4;
            if (job->head_dim % AMX_STEP != 0) {
                unsigned char *tail = a->tails + (size_t)*n_strips * AMX_TAIL_BYTES;
                for (uint32_t r = 0; r < 8; r++) memcpy(tail + r * row_bytes, s->k + (size_t)(steps * 16 + r) * row_bytes, 128);
                for (uint32_t r = 8; r < 16; r++) memset(tail + r * row_bytes, 0, 128);
                s->k_tail = tail;
            }
            ++*n_strips;
        }
    }
    return n;
}

/* Query vectors to tiles. Unused rows are zero. */
static void amx_pack_q(amx *a)
{
    const ca_attn_job *job = a->job;
    const uint32_t n = (uint32_t)ca_align_up(job->count, AMX_ROWS), dim = job->head_dim;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t from = ca_min_u32(i, job->count - 1);
        const float *src = job->q + ca_attn_at(job, from, job->q_stride);
        uint16_t *dst = a->q + (size_t)(i / AMX_ROWS) * a->n_steps * AMX_TILE + i % AMX_ROWS * AMX_STEP;
        a->pos[i] = (int32_t)(job->pos + ca_attn_token(job, from));
        for (uint32_t d = 0; d < a->n_steps * AMX_STEP; d += 16) {
            const bool some = i < job->count && d < dim;
            v_store_elts(dst + (size_t)d / AMX_STEP * AMX_TILE + d % AMX_STEP, some ? v_load(src + d) : v_zero());
        }
    }
}

static void amx_write(const amx *a)
{
    const ca_attn_job *job = a->job;
    const uint32_t dim = job->head_dim, n_columns = dim / 16;
    for (uint32_t i = 0; i < job->count; i++) {
        const size_t at = ca_attn_at(job, i, job->o_stride);
        const float l = v_hadd(v_load(a->l + (size_t)i * 16));
        const vf inv = v_set1(l != 0.0F ? 1.0F / l : 0.0F); /* no visible key: zero */
        const float *o = a->o + (size_t)(i / AMX_ROWS) * n_columns * AMX_SUMS + i % AMX_ROWS * 16;
        float *sums = job->sums ? job->sums + i * ca_attn_sums(dim) : NULL;
        if (sums) sums[dim] = l, sums[dim + 1] = a->m[i];
        for (uint32_t d = 0; d < dim; d += 16, o += AMX_SUMS) {
            const vf v = v_mul(v_load(o), inv);
            if (sums)
                v_store(sums + d, v_load(o));
            else if (job->o_type == CA_F32)
                v_store((float *)job->o + at + d, v);
            else
                v_store_elts((uint16_t *)job->o + at + d, v);
        }
    }
}

/* All stages: spans of pages, and for each the blocks. */
V_INLINE void amx_stages(const int pace, amx *a)
{
    const ca_attn_job *job = a->job;
    const uint32_t n_blocks = ca_ceil_div(job->count, AMX_BLOCK);
    amx_strip strips[2][AMX_STRIPS]; /* the last stage of a span is finished beside the first of the next */
    amx_stage *last = NULL;
    uint32_t turn = 0, span = 0, taken;
    for (uint32_t i = 0; i < job->n_pages; i += taken) {
        uint32_t n_strips;
        taken = amx_take(a, i, strips[span], &n_strips);
        const uint32_t next = i + taken, lines = a->page_lines * ca_min_u32(taken, job->n_pages + job->n_ahead - next);
        bool used = false;
        a->ahead_pages = job->pages + next;
        for (uint32_t b = 0; b < n_blocks; b++) {
            amx_stage *st = &a->stage[turn];
            if (!amx_plan(a, st, b, turn, strips[span], n_strips)) continue;
            a->ahead = lines * b / n_blocks; /* this stage's share */
            a->ahead_end = lines * (b + 1) / n_blocks;
            a->ahead_pace = ca_ceil_div(a->ahead_end - a->ahead, job->head_dim / 4);
            amx_stage_scores(pace, a, st);
            amx_drain(a);
            amx_queue(a, st, 0);
            if (last) amx_stage_values(pace, a, last);
            amx_drain(a);
            amx_queue(a, st, 1);
            last = st;
            turn ^= 1;
            used = true;
        }
        span ^= used;
    }
    amx_drain(a);
    if (last) amx_stage_values(pace, a, last);
}

static void attn(const ca_attn_job *job)
{
    const uint32_t dim = job->head_dim;
    amx a = { .job = job, .kp = ca_min_u32(64, job->page_tokens), .n_steps = amx_steps(dim), .c = job->scale * 1.44269504F };
    a.page_lines = ca_ceil_div(job->page_tokens * dim * 4, 64);
    amx_cut(&a, dim);
    amx_pack_q(&a);
    const size_t n = ca_align_up(job->count, AMX_ROWS);
    memset(a.o, 0, n * dim * 4);
    memset(a.l, 0, n * 16 * 4);
    for (size_t i = 0; i < n; i++) a.m[i] = -INFINITY;
    amx_configure();
    if (dim >= 256) /* products of a stage x rows between four of them: about the rows of a stage */
        amx_stages(1, &a);
    else if (dim >= 128)
        amx_stages(2, &a);
    else
        amx_stages(4, &a);
    _tile_release();
    amx_write(&a);
}

/* Four tiles of sums that take turns. */
static double peak(uint64_t iters)
{
    amx_configure();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (uint64_t i = 0; i < iters; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return (double)iters * 4 * AMX_ROWS * 16 * AMX_STEP * 2;
}

#endif
