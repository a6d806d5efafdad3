/* Flash attention over a list of pages, written once for every vector ISA; included by kern_<isa>.c after its vec_<isa>.h.
 *
 * A job is up to ATTN_JOB query vectors that share a page list. Per group of pages (ATTN_GROUP tokens):
 *   S = Q K^T   page by page, in register tiles of V_TILE_MR query vectors x one K panel, softmax right on the accumulators, P to
 *               scratch
 *   O += P V    in register tiles of V_TILE_MR query vectors x one V panel, over all tokens of the group: O moves once per group
 * The reference m of the online softmax (log2 units) is an integer that is raised only when a score exceeds it by more than
 * SLACK. So every rescaling of O, l and P is by a power of two, which is exact: the result of a query vector depends on its page
 * list alone, not on the tiles it shares nor on where a group ends. Probabilities reach 2^SLACK, harmless in a floating-point
 * format. */
#ifndef CA_KERN_ATTN_BODY_H
#define CA_KERN_ATTN_BODY_H

#include <math.h>
#include <string.h>

#include "kern/kern.h"
#include "kern/page_body.h"
#include "kern/tile_body.h"

enum { ATTN_JOB = V_JOB, ATTN_UNIT = CA_ATTN_TILE };
#define ATTN_BYTE_FLOP 2.0
#define ATTN_JOB_FLOP 1e5
enum { ATTN_SLACK = 6, ATTN_TILES = ATTN_JOB / V_TILE_MR, ATTN_GROUP = V_KS == 2 ? 256 : 128, ATTN_GROUP_PAGES = ATTN_GROUP / 16 };
enum { ATTN_AHEAD = 16 /* query vectors */ };

typedef struct attn_scratch {
    float *q;          /* units [ATTN_TILES][head_dim/KS][V_TILE_MR] */
    v_elt *p;          /* [ATTN_JOB][p_stride] */
    float *o;          /* [ATTN_JOB][head_dim] */
    float *l;          /* [ATTN_JOB][VW] partial sums of probabilities */
    float *m;          /* [ATTN_JOB] */
    int32_t *pos;      /* [ATTN_JOB] absolute position of the query vector */
    float *wide;       /* the panel of keys, or the panels of values of a group, as floats, where PAGE_WIDENS */
    tile_form first;   /* how the first tile of a panel reads it; the others read wide, or what the first one read */
    uint32_t p_stride; /* tokens of a group */
    uint32_t group;    /* pages of a group */
} attn_scratch;

/* One page of a group: the tokens that a tile may see, 0 = none. */
typedef struct attn_view {
    const float *v, *next_v; /* values, and those that the same place of the next group has, NULL = none */
    const float *panel;      /* the values of the panel at hand, as the products read them */
    int seen[ATTN_TILES];
} attn_view;

static inline uint32_t attn_group_pages(uint32_t page_tokens)
{
    return page_tokens >= ATTN_GROUP ? 1 : ca_min_u32(ATTN_GROUP / page_tokens, ATTN_GROUP_PAGES);
}

static size_t attn_scratch_bytes(uint32_t head_dim, uint32_t page_tokens)
{
    const size_t n = ATTN_JOB, panel = V_TILE_NV * VW;
    const size_t p_stride = (size_t)attn_group_pages(page_tokens) * page_tokens;
    const size_t wide = PAGE_WIDENS ? panel * (p_stride > head_dim ? p_stride : head_dim) : 0;
    return n * head_dim * sizeof(v_elt) + n * p_stride * sizeof(v_elt) + n * head_dim * 4 + n * VW * 4 + 2 * n * 4 + wide * 4;
}

static attn_scratch attn_scratch_cut(void *mem, uint32_t head_dim, uint32_t page_tokens, uint32_t n_tiles)
{
    const size_t n = ATTN_JOB;
    unsigned char *at = mem;
    attn_scratch s;
    s.group = attn_group_pages(page_tokens);
    s.p_stride = s.group * page_tokens;
    s.q = (float *)(void *)at, at += n * head_dim * sizeof(v_elt);
    s.p = (v_elt *)(void *)at, at += n * s.p_stride * sizeof(v_elt);
    s.o = (float *)(void *)at, at += n * head_dim * 4;
    s.l = (float *)(void *)at, at += n * VW * 4;
    s.m = (float *)(void *)at, at += n * 4;
    s.pos = (int32_t *)(void *)at, at += n * 4;
    s.wide = (float *)(void *)at;
    s.first = !PAGE_WIDENS ? TILE_FLOATS : n_tiles == 1 ? TILE_PAIRS : TILE_KEPT;
    return s;
}

/* Raises the reference of query vector r to the score top (log2 units): O, l and the P of this group scale by a power of two. */
static __attribute__((noinline, cold)) void attn_raise(const attn_scratch *s, uint32_t r, float top, uint32_t head_dim,
                                                       uint32_t p_done)
{
    const float old = s->m[r], m = ceilf(top);
    s->m[r] = m;
    if (old == -INFINITY) return; /* nothing was added yet */
    const float f = exp2f(old - m);
    for (uint32_t i = 0; i < VW; i++) s->l[(size_t)r * VW + i] *= f;
    for (uint32_t i = 0; i < head_dim; i++) s->o[(size_t)r * head_dim + i] *= f;
    v_elt *p = s->p + (size_t)r * s->p_stride;
    for (uint32_t i = 0; i < p_done; i++) p[i] = v_elt_of(v_elt_float(p[i]) * f);
}

/* Scores and probabilities of mr query vectors against nv*VW tokens of a K panel, P from column p0 on; c = scale log2 e.
 * When masked, vector r sees the tokens [hidden[r], seen[r]) of the panel. */
V_INLINE void attn_qk_tile(const int mr, const int nv, const bool masked, const tile_form form, const attn_scratch *s,
                           uint32_t row0, const float *q, const float *k, uint32_t head_dim, uint32_t p0, float c,
                           const tile_ahead *ahead, const int *hidden, const int *seen)
{
    vf acc[V_TILE_MR][V_TILE_NV];
    tile_dots(mr, nv, 1, form, acc, q, k, head_dim / (form == TILE_FLOATS ? V_KS : PAGE_KS), s->wide, ahead);
    vm live[V_TILE_MR][V_TILE_NV];
    const vf vc = v_set1(c);
    vf over = v_set1(-INFINITY); /* the most that a score exceeds its row's reference by */
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        if (masked) {
            V_UNROLL
            for (int j = 0; j < nv; j++) {
                live[r][j] = v_first(seen[r] - j * VW);
                acc[r][j] = v_select(live[r][j], acc[r][j], v_set1(-1e30F));
                acc[r][j] = v_select(v_first(hidden[r] - j * VW), v_set1(-1e30F), acc[r][j]);
            }
        }
        vf top = acc[r][0];
        V_UNROLL
        for (int j = 1; j < nv; j++) top = v_max(top, acc[r][j]);
        over = v_max(v_fma(top, vc, v_set1(-s->m[row0 + (uint32_t)r])), over); /* a NaN score hides no other row */
    }
    if (__builtin_expect(v_any_gt(over, (float)ATTN_SLACK), 0)) {
        V_UNROLL
        for (int r = 0; r < mr; r++) {
            /* Where nothing is visible, top is no score. */
            const bool sees = !masked || (seen[r] > 0 && seen[r] > hidden[r] && hidden[r] < nv * VW);
            vf top = acc[r][0];
            V_UNROLL
            for (int j = 1; j < nv; j++) top = v_max(top, acc[r][j]);
            const uint32_t row = row0 + (uint32_t)r;
            const float highest = v_hmax(top) * c;
            if (sees && highest - s->m[row] > (float)ATTN_SLACK) attn_raise(s, row, highest, head_dim, p0);
        }
    }
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        const uint32_t row = row0 + (uint32_t)r;
        v_elt *p = s->p + (size_t)row * s->p_stride + p0;
        const vf neg_m = v_set1(-s->m[row]);
        vf sum = v_load(s->l + (size_t)row * VW);
        V_UNROLL
        for (int j = 0; j < nv; j++) {
            vf e = v_exp2_prob(v_fma(acc[r][j], vc, neg_m));
            if (masked) e = v_select(v_first(hidden[r] - j * VW), v_zero(), v_select(live[r][j], e, v_zero()));
            acc[r][j] = e;
            sum = v_add(sum, e);
        }
        v_store(s->l + (size_t)row * VW, sum);
        V_UNROLL
        for (int j = 0; j + 1 < nv; j += 2) v_store_elts2(p + j * VW, acc[r][j], acc[r][j + 1]);
        if (nv & 1) v_store_elts(p + (nv - 1) * VW, acc[r][nv - 1]);
    }
}

/* acc[r][j] += one unit of row r of P times units of the values. */
V_INLINE void attn_pv_products(const int mr, const int nv, vf (*acc)[V_TILE_NV], const v_elt *p, uint32_t p_stride, const vf *vv)
{
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        float unit;
        memcpy(&unit, p + (size_t)r * p_stride, 4);
        const vf b = v_set1(unit);
        V_UNROLL
        for (int j = 0; j < nv; j++) acc[r][j] = v_dot(acc[r][j], b, vv[j]);
    }
}

/* O[mr][nv*VW] += P V panel over the pages of a group; tile: which of a view's tiles, next: where the panel begins in values, wide:
 * where the panels of all pages are kept. */
V_INLINE void attn_pv_tile(const int mr, const int nv, const tile_form form, float *o, uint32_t head_dim, const v_elt *p,
                           uint32_t p_stride, const attn_view *views, uint32_t n_views, uint32_t tile, size_t next,
                           uint32_t page_tokens, uint32_t n_tiles, float *wide)
{
    vf acc[V_TILE_MR][V_TILE_NV];
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        V_UNROLL
        for (int j = 0; j < nv; j++) acc[r][j] = v_load(o + (size_t)r * head_dim + j * VW);
    }
    for (uint32_t g = 0; g < n_views; g++, p += page_tokens) {
        const float *v = views[g].panel;
        const uint32_t ks = form == TILE_FLOATS ? V_KS : PAGE_KS, n_units = ((uint32_t)views[g].seen[tile] + ks - 1) / ks;
        const tile_ahead ahead = tile_share(views[g].next_v ? views[g].next_v + next : NULL, page_tokens / PAGE_KS, tile, n_tiles);
        for (uint32_t u = 0; u < n_units; u++) {
            vf vv[V_TILE_NV], low[V_TILE_NV];
            V_UNROLL
            for (int j = 0; j < nv; j++) vv[j] = v_load(v + j * VW);
            tile_fetch(&ahead, u, nv);
            const v_elt *unit = p + u * ks;
            if (form != TILE_FLOATS) {
                wide = tile_widen(nv, form, vv, low, vv, wide);
                attn_pv_products(mr, nv, acc, unit++, p_stride, low);
            }
            attn_pv_products(mr, nv, acc, unit, p_stride, vv);
            v += nv * VW;
        }
        if (form == TILE_KEPT)
            wide = page_widen(v, page_tokens / PAGE_KS - n_units, (uint32_t)(nv * VW), wide); /* later rows see more */
    }
    V_UNROLL
    for (int r = 0; r < mr; r++) {
        V_UNROLL
        for (int j = 0; j < nv; j++) v_store(o + (size_t)r * head_dim + j * VW, acc[r][j]);
    }
}

static void attn_qk_full(tile_form form, int mr, int nv, const attn_scratch *s, uint32_t row0, const float *q, const float *k,
                         uint32_t head_dim, uint32_t p0, float c, const tile_ahead *ahead)
{
#define CALL(MR, NV, FORM) attn_qk_tile(MR, NV, false, FORM, s, row0, q, k, head_dim, p0, c, ahead, NULL, NULL)
    if (PAGE_WIDENS && form == TILE_KEPT) {
        if (nv == V_TILE_NV)
            CALL(V_TILE_MR, V_TILE_NV, TILE_KEPT);
        else
            CALL(V_TILE_MR, 2, TILE_KEPT);
    } else if (PAGE_WIDENS && form == TILE_PAIRS) {
        if (nv == V_TILE_NV) {
            TILE_MR_CASES(mr, CALL, V_TILE_NV, TILE_PAIRS)
        } else {
            TILE_MR_CASES(mr, CALL, 2, TILE_PAIRS)
        }
    } else if (nv == V_TILE_NV) {
        TILE_MR_CASES(mr, CALL, V_TILE_NV, TILE_FLOATS)
    } else {
        TILE_MR_CASES(mr, CALL, 2, TILE_FLOATS)
    }
#undef CALL
}

static void attn_qk_masked(tile_form form, int nv, const attn_scratch *s, uint32_t row0, const float *q, const float *k,
                           uint32_t head_dim, uint32_t p0, float c, const tile_ahead *ahead, const int *hidden, const int *seen)
{
#define CALL(NV, FORM) attn_qk_tile(V_TILE_MR, NV, true, FORM, s, row0, q, k, head_dim, p0, c, ahead, hidden, seen)
#define FORMS(NV)                                                                                                                  \
    if (PAGE_WIDENS && form == TILE_KEPT)                                                                                          \
        CALL(NV, TILE_KEPT);                                                                                                       \
    else if (PAGE_WIDENS && form == TILE_PAIRS)                                                                                    \
        CALL(NV, TILE_PAIRS);                                                                                                      \
    else                                                                                                                           \
        CALL(NV, TILE_FLOATS)
    if (nv == V_TILE_NV) {
        FORMS(V_TILE_NV);
    } else {
        FORMS(2);
    }
#undef FORMS
#undef CALL
}

V_INLINE void attn_pv(const tile_form form, int mr, int nv, float *o, uint32_t head_dim, const v_elt *p, uint32_t p_stride,
                      const attn_view *views, uint32_t n_views, uint32_t tile, size_t next, uint32_t page_tokens, uint32_t n_tiles,
                      float *wide)
{
#define CALL(MR, NV) attn_pv_tile(MR, NV, form, o, head_dim, p, p_stride, views, n_views, tile, next, page_tokens, n_tiles, wide)
#define ROWS(NV)                                                                                                                   \
    if (form == TILE_KEPT) {                                                                                                       \
        CALL(V_TILE_MR, NV);                                                                                                       \
    } else {                                                                                                                       \
        TILE_MR_CASES(mr, CALL, NV)                                                                                                \
    }
    switch (nv) {
    case 1: ROWS(1) break;
    case 2: ROWS(2) break;
#if defined(__AVX512F__)
    case 3: ROWS(3) break;
    default: ROWS(4) break;
#endif
    }
#undef ROWS
#undef CALL
}

/* Query vectors to the kernel's type, interleaved by tile so that a tile's broadcasts are adjacent. Unused lanes are zero. A vector's
 * lines, far apart from the next token's, are asked for ATTN_AHEAD vectors before they are read. */
static void attn_pack_q(const ca_attn_job *job, const attn_scratch *s, uint32_t n_tiles)
{
    const uint32_t units = job->head_dim / V_KS;
    for (uint32_t step = 0; step < n_tiles * V_TILE_MR + ATTN_AHEAD; step++) {
        if (step < job->count) {
            const float *src = job->q + ca_attn_at(job, step, job->q_stride);
            for (uint32_t d = 0; d < job->head_dim; d += 16) __builtin_prefetch(src + d, 0, 3);
        }
        if (step < ATTN_AHEAD) continue;
        const uint32_t i = step - ATTN_AHEAD;
        float *dst = s->q + (size_t)(i / V_TILE_MR) * units * V_TILE_MR + i % V_TILE_MR;
        s->pos[i] = (int32_t)(job->pos + ca_attn_token(job, ca_min_u32(i, job->count - 1)));
        pack_vector(dst, V_TILE_MR, i < job->count ? job->q + ca_attn_at(job, i, job->q_stride) : NULL, units);
    }
}

/* Asks for the lines that the results go to. */
static void attn_fetch_o(const ca_attn_job *job)
{
    const size_t size = job->o_type == CA_F32 ? 4 : 2;
    for (uint32_t i = 0; i < job->count && !job->sums; i++) {
        const char *o = (const char *)job->o + ca_attn_at(job, i, job->o_stride) * size;
        for (size_t at = 0; at < job->head_dim * size; at += 64) __builtin_prefetch(o + at, 1, 2);
    }
}

/* Probabilities of all tiles against one page, to the columns from p0 on; fills its view and fetches the keys of the next page. */
static void attn_page_scores(const ca_attn_job *job, const attn_scratch *s, const ca_page_ref *page, const float *next,
                             uint32_t n_tiles, uint32_t p0, attn_view *view)
{
    const uint32_t bs = job->page_tokens, dim = job->head_dim;
    const uint32_t units = dim / V_KS, page_units = dim / PAGE_KS;
    const uint32_t kp = ca_min_u32(V_TILE_NV * VW, bs);
    const float *k = page->data;
    const int32_t pos_min = s->pos[0];
    const float c = job->scale * 1.44269504F;
    const bool masked = page->len < bs || (int64_t)page->pos + bs - 1 > pos_min ||
                        ca_page_hidden(page, s->pos[n_tiles * V_TILE_MR - 1], job->window) > 0;
    view->v = k + (size_t)bs * page_units;
    for (uint32_t t = 0; t < n_tiles; t++) {
        view->seen[t] = masked ? ca_page_seen(page, s->pos[t * V_TILE_MR + V_TILE_MR - 1]) : (int)bs;
        if (ca_page_hidden(page, s->pos[t * V_TILE_MR], job->window) >= view->seen[t]) view->seen[t] = 0;
    }

    for (uint32_t t0 = 0; t0 < bs; t0 += kp) {
        const float *panel = k + (size_t)t0 * page_units, *next_k = next ? next + (size_t)t0 * page_units : NULL;
        tile_form form = s->first;
        for (uint32_t t = 0; t < n_tiles; t++) {
            if (view->seen[t] <= (int)t0) continue;
            const uint32_t row0 = t * V_TILE_MR;
            const int mr = (int)ca_min_u32(V_TILE_MR, job->count - row0);
            const float *q = s->q + (size_t)t * units * V_TILE_MR;
            const tile_ahead ahead = tile_share(next_k, page_units, t, n_tiles);
            const bool whole = !masked || (ca_page_seen(page, s->pos[row0]) >= (int)(t0 + kp) &&
                                           ca_page_hidden(page, s->pos[row0 + V_TILE_MR - 1], job->window) <= (int)t0);
            if (!whole) {
                int hidden[V_TILE_MR], seen[V_TILE_MR];
                for (uint32_t r = 0; r < V_TILE_MR; r++) {
                    hidden[r] = ca_page_hidden(page, s->pos[row0 + r], job->window) - (int)t0;
                    seen[r] = ca_page_seen(page, s->pos[row0 + r]) - (int)t0;
                }
                attn_qk_masked(form, (int)(kp / VW), s, row0, q, panel, dim, p0 + t0, c, &ahead, hidden, seen);
            } else {
                attn_qk_full(form, mr, (int)(kp / VW), s, row0, q, panel, dim, p0 + t0, c, &ahead);
            }
            if (form == TILE_KEPT) form = TILE_FLOATS, panel = s->wide;
        }
    }
}

/* O += P V over the pages of a group. */
static void attn_group_values(const ca_attn_job *job, const attn_scratch *s, attn_view *views, uint32_t n_views, uint32_t n_tiles)
{
    const uint32_t bs = job->page_tokens, dim = job->head_dim;
    for (uint32_t d0 = 0; d0 < dim; d0 += V_TILE_NV * VW) {
        const uint32_t width = ca_min_u32(V_TILE_NV * VW, dim - d0);
        const size_t begin = (size_t)d0 * (bs / PAGE_KS);
        for (uint32_t g = 0; g < n_views; g++) views[g].panel = views[g].v + begin;
        for (uint32_t t = 0; t < n_tiles; t++) {
            const uint32_t row0 = t * V_TILE_MR;
            const int mr = (int)ca_min_u32(V_TILE_MR, job->count - row0), nv = (int)(width / VW);
            float *o = s->o + (size_t)row0 * dim + d0;
            const v_elt *p = s->p + (size_t)row0 * s->p_stride;
#define CALL(FORM) attn_pv(FORM, mr, nv, o, dim, p, s->p_stride, views, n_views, t, begin, bs, n_tiles, s->wide)
            if (PAGE_WIDENS && t == 0 && s->first == TILE_PAIRS)
                CALL(TILE_PAIRS);
            else if (PAGE_WIDENS && t == 0)
                CALL(TILE_KEPT);
            else
                CALL(TILE_FLOATS);
#undef CALL
            for (uint32_t g = 0; g < n_views && PAGE_WIDENS && t == 0; g++) views[g].panel = s->wide + (size_t)g * bs * width;
        }
    }
}

static void attn_write(const ca_attn_job *job, const attn_scratch *s)
{
    const uint32_t dim = job->head_dim;
    for (uint32_t i = 0; i < job->count; i++) {
        const size_t at = ca_attn_at(job, i, job->o_stride);
        const float l = v_hadd(v_load(s->l + (size_t)i * VW));
        const vf inv = v_set1(l != 0.0F ? 1.0F / l : 0.0F); /* no visible key: zero */
        const float *o = s->o + (size_t)i * dim;
        if (job->sums) {
            float *sums = job->sums + i * ca_attn_sums(dim);
            memcpy(sums, o, dim * sizeof *o);
            sums[dim] = l, sums[dim + 1] = s->m[i];
        } else if (job->o_type == CA_F32) {
            float *dst = (float *)job->o + at;
            for (uint32_t d = 0; d < dim; d += VW) v_store(dst + d, v_mul(v_load(o + d), inv));
        } else {
            uint16_t *dst = (uint16_t *)job->o + at;
            float row[VW];
            for (uint32_t d = 0; d < dim; d += VW) {
                v_store(row, v_mul(v_load(o + d), inv));
                for (uint32_t e = 0; e < VW; e++) dst[d + e] = ca_f32_to_bf16(row[e]);
            }
        }
    }
}

static void attn(const ca_attn_job *job)
{
    const uint32_t n_tiles = ca_ceil_div(job->count, V_TILE_MR);
    const attn_scratch s = attn_scratch_cut(job->scratch, job->head_dim, job->page_tokens, n_tiles);
    const uint32_t n = n_tiles * V_TILE_MR;
    attn_pack_q(job, &s, n_tiles);
    memset(s.o, 0, (size_t)n * job->head_dim * 4);
    memset(s.l, 0, (size_t)n * VW * 4);
    for (uint32_t i = 0; i < n; i++) s.m[i] = -INFINITY;

    const size_t v_at = (size_t)job->page_tokens * (job->head_dim / PAGE_KS);
    attn_view views[ATTN_GROUP_PAGES];
    const uint32_t n_known = job->n_pages + job->n_ahead;
    uint32_t n_views = 0;
    for (uint32_t i = 0; i < job->n_pages; i++) {
        if (i + 1 == job->n_pages) attn_fetch_o(job);
        if ((int64_t)job->pages[i].pos > s.pos[n - 1]) continue;
        const uint32_t same = i + s.group; /* the page that will have this one's place */
        views[n_views].next_v = same < n_known ? (const float *)job->pages[same].data + v_at : NULL;
        attn_page_scores(job, &s, &job->pages[i], i + 1 < n_known ? job->pages[i + 1].data : NULL, n_tiles,
                         n_views * job->page_tokens, &views[n_views]);
        if (++n_views < s.group) continue;
        attn_group_values(job, &s, views, n_views, n_tiles);
        n_views = 0;
    }
    if (n_views > 0) attn_group_values(job, &s, views, n_views, n_tiles);
    attn_write(job, &s);
}

/* Independent chains of the multiply-add that attention is made of, as many as hide its latency and fit the registers. */
static double peak(uint64_t iters)
{
    enum { CHAINS = VW == 16 ? 24 : 12 };
    vf acc[CHAINS];
    V_UNROLL
    for (int i = 0; i < CHAINS; i++) acc[i] = v_set1((float)i);
    const vf a = v_set1(1e-3F), b = v_set1(1e-3F);
    for (uint64_t it = 0; it < iters; it++) {
        V_UNROLL
        for (int i = 0; i < CHAINS; i++) acc[i] = v_opaque(v_dot(acc[i], a, b)); /* keeps the chain */
    }
    vf sum = v_zero();
    V_UNROLL
    for (int i = 0; i < CHAINS; i++) sum = v_add(sum, acc[i]);
    volatile float sink = v_hadd(sum);
    (void)sink;
    return (double)iters * CHAINS * VW * V_KS * 2;
}

#endif
