/* Attention of 8-bit integers for every ISA that has them (attn_int8.h): ki + 128 as bytes without a sign by qi with one, from sums that
 * start at -128 sum qi, and p by vi. Tiles of MR query vectors x one panel, as in attn_body.h:
 *   QK  per 4 dims NV vectors of a panel of keys and a word of each query vector: MR * NV dots
 *   PV  per 4 tokens NV vectors of a panel of dims and a word of each row of P: MR * NV dots
 * K panel [head_dim/4][PANEL tokens][4], V panel [group/4][dims][4], Q [tiles][head_dim/4][MR][4], P [vector][group] bytes. Both panels
 * lie in L1 while all tiles of a job pass by.
 *
 * attn_int8_<isa>.c includes vec_<isa>.h and defines before:
 *   vi                          VW sums of 32 bits
 *   a8_load, a8_word            from memory; a word for all lanes
 *   a8_dot                      acc + the sums of 4 products of bytes without a sign by bytes with one, of each lane
 *   a8_float, a8_round, a8_up   integers to floats, floats to the nearest integers, floats rounded up
 *   a8_shift                    arithmetic shift of all lanes to the right
 *   a8_select, a8_most          as v_select; the largest integer
 *   a8_abs, a8_equal, v_min     magnitudes; which lanes are equal; the smaller ones
 *   a8_bytes                    VW integers to bytes, in order
 *   a8_four                     four vectors of integers to bytes, with a sign or without, those of a lane beside each other
 *   a8_tops, lane_of            the largest lane of each of MR vectors, that of vector r in lane lane_of(r)
 *   a8_powers                   probabilities from NV vectors of z to P; adds CA_ATTN_INT8_L times their sums to l
 * a8_powers packs the scores of a panel so that word w of its PANEL / 4 holds the tokens from 4 word_tokens(w) on, and V's panel has them
 * in that order, too. */
#ifndef CA_KERN_ATTN_INT8_BODY_H
#define CA_KERN_ATTN_INT8_BODY_H

#include <math.h>
#include <string.h>

#include "kern/attn_int8.h"

enum {
    MR = V_TILE_MR,
    NV = V_TILE_NV,
    PANEL = NV * VW,
    WORDS = PANEL / 4,
    GROUP = CA_ATTN_INT8_GROUP,
    PANELS = GROUP / PANEL, /* of keys, in a group */
    JOB = 768,
    TILES = JOB / MR,
    AHEAD = 16, /* query vectors */
};
#define LOWEST (-1e6F) /* below every score */
#define HIDDEN (-1e30F)

/* What a tile knows of its query vectors: vector r in lane lane_of(r), where a8_tops leaves its maximum. */
typedef struct tile_state {
    float a[VW], a_fine[VW]; /* log2(e) scale sq; times CA_ATTN_INT8_FINE */
    int32_t offset[VW];      /* -128 sum qi */
    float e[VW], e_fine[VW]; /* of the group at hand; times CA_ATTN_INT8_FINE */
    float m[VW];             /* the highest e so far: reference of o and l */
    float keep[VW], add[VW]; /* o = keep o + add (sums of the group) */
    int32_t shift[PANELS][VW];
} tile_state;

typedef struct scratch {
    int8_t *q;
    uint8_t *p;
    float *o;         /* [JOB][head_dim] */
    float *l;         /* [JOB][VW] partial sums of probabilities, p in steps */
    int32_t *l_group; /* [JOB][VW] the same of the group, CA_ATTN_INT8_L to a step */
    tile_state *tiles;
    int32_t *pos; /* [JOB] absolute position of the query vector */
    uint8_t *k;   /* the panel of keys, and its scales */
    float *sk;
    int8_t *v; /* the panel of values of a group, and its scales */
    float *sv;
    float *mu;  /* [head_dim] */
    bool pairs; /* pages hold bf16, else floats */
} scratch;

/* A panel of keys of the group at hand: whether a tile sees any of it, and whether a reference rose there. */
typedef struct panel_view {
    uint8_t seen[TILES], rises[TILES];
} panel_view;

static inline uint32_t word_tokens(uint32_t w)
{
    return w % NV * (VW / 4) + w / NV;
}

static size_t scratch_bytes(uint32_t head_dim)
{
    const size_t n = JOB, dim = ca_align_up(head_dim, 64);
    return n * dim + n * GROUP + n * dim * 4 + 2 * n * VW * 4 + TILES * sizeof(tile_state) + n * 4 + PANEL * dim + PANEL * 4 +
           (size_t)GROUP * PANEL + PANEL * 4 + dim * 4;
}

static scratch scratch_cut(void *mem, uint32_t head_dim, bool pairs)
{
    const size_t n = JOB, dim = ca_align_up(head_dim, 64);
    unsigned char *at = mem;
    scratch s;
    s.q = (int8_t *)at, at += n * dim;
    s.p = at, at += n * GROUP;
    s.o = (float *)(void *)at, at += n * dim * 4;
    s.l = (float *)(void *)at, at += n * VW * 4;
    s.l_group = (int32_t *)(void *)at, at += n * VW * 4;
    s.tiles = (tile_state *)(void *)at, at += TILES * sizeof(tile_state);
    s.pos = (int32_t *)(void *)at, at += n * 4;
    s.k = at, at += PANEL * dim;
    s.sk = (float *)(void *)at, at += PANEL * 4;
    s.v = (int8_t *)at, at += (size_t)GROUP * PANEL;
    s.sv = (float *)(void *)at, at += PANEL * 4;
    s.mu = (float *)(void *)at;
    s.pairs = pairs;
    return s;
}

/* ---- pages as floats ---- */

/* Elements i and i + 1 of VW units, from units of pairs or from rows of floats that lie `row` floats apart. */
V_INLINE void load_two(const bool pairs, const float *p, size_t row, vf *first, vf *second)
{
    const vf one = v_load(p);
    *first = pairs ? v_low(one) : one;
    *second = pairs ? v_high(one) : v_load(p + row);
}

/* 127 / top, and top / 127 to scale; 0 and 0 where top is next to nothing. */
V_INLINE vf steps_of(vf top, float *scale)
{
    enum { STEPS = 127 };
    const vf some = v_max(top, v_set1(0x1p-100F)), zero = v_zero();
    const vm none = a8_equal(some, v_set1(0x1p-100F));
    v_store(scale, v_select(none, zero, v_mul(top, v_set1(1.0F / STEPS))));
    return v_select(none, zero, v_div(v_set1(STEPS), some));
}

/* mu[d] = mean over the tokens of a page, whose later slots hold zeros. */
V_INLINE void mean_key_of(const bool pairs, const ca_page_ref *page, uint32_t page_tokens, uint32_t head_dim, float *mu)
{
    const size_t unit = pairs ? 1 : 2, panel = (size_t)PANEL * head_dim / (3 - unit);
    const float inv = 1.0F / (float)ca_max_u32(page->len, 1);
    for (uint32_t d = 0; d < head_dim; d += 2) {
        vf low = v_zero(), high = low, a, b;
        for (uint32_t t = 0; t < page_tokens; t += VW) {
            load_two(pairs, (const float *)page->data + t / PANEL * panel + d / 2 * unit * PANEL + t % PANEL, PANEL, &a, &b);
            low = v_add(low, a), high = v_add(high, b);
        }
        mu[d] = v_hadd(low) * inv;
        mu[d + 1] = v_hadd(high) * inv;
    }
}

/* A panel of keys as ki + 128, and its scales. */
V_INLINE void round_keys_of(const bool pairs, const float *panel, uint32_t head_dim, const scratch *s)
{
    const size_t unit = pairs ? PANEL : 2 * PANEL; /* floats of two dims */
    const vf middle = v_set1(128.0F);
    for (uint32_t t = 0; t < PANEL; t += VW) {
        const float *at = panel + t;
        vf top = v_zero(), a, b;
        for (uint32_t d = 0; d < head_dim; d += 2, at += unit) {
            load_two(pairs, at, PANEL, &a, &b);
            a = a8_abs(v_sub(a, v_set1(s->mu[d])));
            b = a8_abs(v_sub(b, v_set1(s->mu[d + 1])));
            top = v_max(top, v_max(a, b));
        }
        const vf up = steps_of(top, s->sk + t);
        at = panel + t;
        for (uint32_t d = 0; d < head_dim; d += 4, at += 2 * unit) {
            vf x[4];
            vi i[4];
            load_two(pairs, at, PANEL, &x[0], &x[1]);
            load_two(pairs, at + unit, PANEL, &x[2], &x[3]);
            V_UNROLL
            for (uint32_t j = 0; j < 4; j++) i[j] = a8_round(v_fma(v_sub(x[j], v_set1(s->mu[d + j])), up, middle));
            const vi bytes = a8_four(false, i[0], i[1], i[2], i[3]);
            memcpy(s->k + (size_t)d * PANEL + (size_t)t * 4, &bytes, sizeof bytes);
        }
    }
}

/* The values of dims [d0, d0 + width) of n pages as vi, and their scales. */
V_INLINE void round_values_of(const bool pairs, const ca_page_ref *pages, uint32_t n, uint32_t page_tokens, uint32_t head_dim,
                              uint32_t d0, uint32_t width, const scratch *s)
{
    const size_t unit = pairs ? width : 2 * (size_t)width; /* floats of two tokens */
    const size_t begin = (size_t)page_tokens * (head_dim + d0) / (pairs ? 2 : 1);
    for (uint32_t j = 0; j < width; j += VW) {
        vf top = v_zero(), a, b;
        for (uint32_t i = 0; i < n; i++) {
            const float *at = (const float *)pages[i].data + begin + j;
            for (uint32_t t = 0; t < page_tokens; t += 2, at += unit) {
                load_two(pairs, at, width, &a, &b);
                top = v_max(top, v_max(a8_abs(a), a8_abs(b)));
            }
        }
        const vf up = steps_of(top, s->sv + j);
        for (uint32_t i = 0; i < n; i++) {
            const float *page = (const float *)pages[i].data + begin + j;
            for (uint32_t t = 0; t < page_tokens; t += PANEL) {
                int8_t *to = s->v + ((size_t)i * page_tokens + t) * width + (size_t)j * 4;
                for (uint32_t w = 0; w < WORDS; w++) {
                    const float *at = page + (t / 2 + (size_t)word_tokens(w) * 2) * unit;
                    vf x[4];
                    vi q[4];
                    load_two(pairs, at, width, &x[0], &x[1]);
                    load_two(pairs, at + unit, width, &x[2], &x[3]);
                    V_UNROLL
                    for (uint32_t r = 0; r < 4; r++) q[r] = a8_round(v_mul(x[r], up));
                    const vi bytes = a8_four(true, q[0], q[1], q[2], q[3]);
                    memcpy(to + (size_t)w * 4 * width, &bytes, sizeof bytes);
                }
            }
        }
    }
}

static void mean_key(const scratch *s, const ca_page_ref *page, uint32_t page_tokens, uint32_t head_dim)
{
    if (s->pairs)
        mean_key_of(true, page, page_tokens, head_dim, s->mu);
    else
        mean_key_of(false, page, page_tokens, head_dim, s->mu);
}

/* The panel of a page that begins with token t0. */
static void round_keys(const scratch *s, const ca_page_ref *page, uint32_t t0, uint32_t head_dim)
{
    const float *k = page->data;
    if (s->pairs)
        round_keys_of(true, k + (size_t)t0 * (head_dim / 2), head_dim, s);
    else
        round_keys_of(false, k + (size_t)t0 * head_dim, head_dim, s);
}

static void round_values(const scratch *s, const ca_attn_job *job, const ca_page_ref *pages, uint32_t n, uint32_t d0,
                         uint32_t width)
{
    if (s->pairs)
        round_values_of(true, pages, n, job->page_tokens, job->head_dim, d0, width, s);
    else
        round_values_of(false, pages, n, job->page_tokens, job->head_dim, d0, width, s);
}

/* ---- tiles ---- */

/* Probabilities of a tile against panel `index` of a group. When masked, vector r sees the tokens [hidden[r], seen[r]). Returns whether
 * the reference of any vector rose. */
V_INLINE bool qk_tile(const bool masked, const scratch *s, uint32_t t, uint32_t head_dim, uint32_t index, const int *hidden,
                      const int *seen)
{
    tile_state *state = &s->tiles[t];
    const int8_t *q = s->q + (size_t)t * MR * head_dim;
    const uint8_t *k = s->k;
    vi acc[MR][NV];
    vf x[MR][NV], top[MR];
    V_UNROLL
    for (uint32_t r = 0; r < MR; r++) {
        V_UNROLL
        for (int j = 0; j < NV; j++) acc[r][j] = a8_word(&state->offset[lane_of(r)]);
    }
    for (uint32_t d = 0; d < head_dim; d += 4) {
        vi kv[NV];
        V_UNROLL
        for (int j = 0; j < NV; j++) kv[j] = a8_load(k + (size_t)j * VW * 4);
        V_UNROLL
        for (int r = 0; r < MR; r++) {
            const vi b = a8_word(q + (size_t)r * 4);
            V_UNROLL
            for (int j = 0; j < NV; j++) acc[r][j] = a8_dot(acc[r][j], kv[j], b);
        }
        k += (size_t)4 * PANEL;
        q += (size_t)4 * MR;
    }
    V_UNROLL
    for (int r = 0; r < MR; r++) {
        V_UNROLL
        for (int j = 0; j < NV; j++) {
            x[r][j] = v_mul(a8_float(acc[r][j]), v_load(s->sk + (size_t)j * VW));
            if (masked) {
                x[r][j] = v_select(v_first(seen[r] - j * VW), x[r][j], v_set1(HIDDEN));
                x[r][j] = v_select(v_first(hidden[r] - j * VW), v_set1(HIDDEN), x[r][j]);
            }
        }
        top[r] = x[r][0];
        V_UNROLL
        for (int j = 1; j < NV; j++) top[r] = v_max(top[r], x[r][j]);
    }
    /* The product rounds: without what is added, scores above 2^12 could exceed their reference. */
    const vf highest = v_mul(a8_tops(top), v_load(state->a)), more = v_fma(a8_abs(highest), v_set1(0x1p-23F), highest);
    const vf old = v_load(state->e), e = v_max(old, a8_up(more));
    const vi rise = a8_round(v_min(v_sub(e, old), v_set1(31.0F)));
    v_store(state->e, e);
    v_store(state->e_fine, v_mul(e, v_set1(CA_ATTN_INT8_FINE)));
    memcpy(state->shift[index], &rise, sizeof rise);
    const bool rises = v_any_gt(v_sub(e, old), 0.0F);
    uint8_t *p = s->p + (size_t)t * MR * GROUP + (size_t)index * PANEL;
    int32_t *l = s->l_group + (size_t)t * MR * VW;
    V_UNROLL
    for (uint32_t r = 0; r < MR; r++) {
        const vf a = v_set1(state->a_fine[lane_of(r)]), from = v_set1(state->e_fine[lane_of(r)]);
        vi z[NV], sum;
        V_UNROLL
        for (int j = 0; j < NV; j++) {
            z[j] = a8_round(v_fnma(x[r][j], a, from));
            if (masked) {
                z[j] = a8_select(v_first(seen[r] - j * VW), z[j], a8_most());
                z[j] = a8_select(v_first(hidden[r] - j * VW), a8_most(), z[j]);
            }
        }
        memcpy(&sum, l + (size_t)r * VW, sizeof sum);
        sum = a8_powers(z, p + (size_t)r * GROUP, a8_shift(sum, state->shift[index][lane_of(r)]));
        memcpy(l + (size_t)r * VW, &sum, sizeof sum);
    }
    return rises;
}

/* O[MR][nv*VW] = keep O + add P V over a group. */
V_INLINE void pv_tile(const int nv, const scratch *s, uint32_t t, uint32_t head_dim, uint32_t d0, const panel_view *views,
                      uint32_t n_panels)
{
    const tile_state *state = &s->tiles[t];
    const uint8_t *p = s->p + (size_t)t * MR * GROUP;
    vi acc[MR][NV];
    V_UNROLL
    for (int r = 0; r < MR; r++) {
        V_UNROLL
        for (int j = 0; j < nv; j++) acc[r][j] = (vi){ 0 };
    }
    for (uint32_t index = 0; index < n_panels; index++, p += PANEL) {
        if (views[index].seen[t] == 0) continue;
        const int8_t *v = s->v + (size_t)index * PANEL * (uint32_t)nv * VW;
        if (index > 0 && views[index].rises[t]) {
            V_UNROLL
            for (uint32_t r = 0; r < MR; r++) {
                V_UNROLL
                for (int j = 0; j < nv; j++) acc[r][j] = a8_shift(acc[r][j], state->shift[index][lane_of(r)]);
            }
        }
        for (uint32_t w = 0; w < WORDS; w++) {
            vi vv[NV];
            V_UNROLL
            for (int j = 0; j < nv; j++) vv[j] = a8_load(v + (size_t)j * VW * 4);
            V_UNROLL
            for (int r = 0; r < MR; r++) {
                const vi b = a8_word(p + (size_t)r * GROUP + (size_t)w * 4);
                V_UNROLL
                for (int j = 0; j < nv; j++) acc[r][j] = a8_dot(acc[r][j], b, vv[j]);
            }
            v += (size_t)nv * VW * 4;
        }
    }
    float *o = s->o + (size_t)t * MR * head_dim + d0;
    V_UNROLL
    for (uint32_t r = 0; r < MR; r++) {
        const vf keep = v_set1(state->keep[lane_of(r)]), add = v_set1(state->add[lane_of(r)]);
        V_UNROLL
        for (int j = 0; j < nv; j++) {
            float *at = o + (size_t)r * head_dim + (size_t)j * VW;
            const vf sum = v_mul(a8_float(acc[r][j]), v_load(s->sv + (size_t)j * VW));
            v_store(at, v_fma(sum, add, v_mul(v_load(at), keep)));
        }
    }
}

/* ---- a job ---- */

/* Query vector to integers in its lane of a tile; src NULL: zeros. Returns sq, and *sum = sum of qi. Magnitudes are ordered as integers
 * are, and those that are no number lie above infinity. */
static float round_query(const float *src, uint32_t head_dim, int8_t *dst, int32_t *sum)
{
    uint32_t top = 0;
    for (uint32_t d = 0; d < head_dim && src; d++) {
        uint32_t bits;
        memcpy(&bits, src + d, sizeof bits);
        bits &= 0x7fffffffU;
        top = bits > top ? bits : top;
    }
    float most;
    memcpy(&most, &top, sizeof most);
    const bool none = most <= 0x1p-100F;
    const vf up = v_set1(none ? 0.0F : 127.0F / most);
    int32_t total = 0;
    for (uint32_t d = 0; d < head_dim; d += VW) {
        int8_t bytes[VW];
        a8_bytes(bytes, a8_round(v_mul(src ? v_load(src + d) : v_zero(), up)));
        for (uint32_t i = 0; i < VW; i++) total += bytes[i];
        for (uint32_t w = 0; w < VW / 4; w++) memcpy(dst + (size_t)(d / 4 + w) * MR * 4, bytes + (size_t)w * 4, 4);
    }
    *sum = total;
    return none ? 0.0F : most / 127.0F;
}

/* Asks for a vector's lines, far apart from the next token's, some vectors before it is read. */
static void pack_queries(const ca_attn_job *job, const scratch *s, uint32_t n_tiles)
{
    for (uint32_t t = 0; t < n_tiles; t++) {
        v_store(s->tiles[t].a, v_zero()); /* of lanes that are no vector's, too */
        v_store(s->tiles[t].m, v_set1(LOWEST));
    }
    for (uint32_t step = 0; step < n_tiles * MR + AHEAD; step++) {
        if (step < job->count) {
            const float *src = job->q + ca_attn_at(job, step, job->q_stride);
            for (uint32_t d = 0; d < job->head_dim; d += 16) __builtin_prefetch(src + d, 0, 3);
        }
        if (step < AHEAD) continue;
        const uint32_t i = step - AHEAD, lane = lane_of(i % MR);
        tile_state *state = &s->tiles[i / MR];
        int32_t sum;
        const float sq = round_query(i < job->count ? job->q + ca_attn_at(job, i, job->q_stride) : NULL, job->head_dim,
                                     s->q + (size_t)(i / MR) * MR * job->head_dim + (size_t)(i % MR) * 4, &sum);
        s->pos[i] = (int32_t)(job->pos + ca_attn_token(job, ca_min_u32(i, job->count - 1)));
        state->a[lane] = sq * job->scale * 1.44269504F;
        state->a_fine[lane] = state->a[lane] * CA_ATTN_INT8_FINE;
        state->offset[lane] = -128 * sum;
    }
}

/* Probabilities of all tiles against the panels of a page, the first of which is panel `index` of the group. */
static void page_scores(const ca_attn_job *job, const scratch *s, const ca_page_ref *page, uint32_t n_tiles, uint32_t index,
                        panel_view *views)
{
    const uint32_t bs = job->page_tokens, dim = job->head_dim;
    for (uint32_t t0 = 0; t0 < bs; t0 += PANEL, index++) {
        bool rounded = false;
        for (uint32_t t = 0; t < n_tiles; t++) {
            const uint32_t row0 = t * MR;
            const int last = ca_page_seen(page, s->pos[row0 + MR - 1]) - (int)t0,
                      first = ca_page_seen(page, s->pos[row0]) - (int)t0;
            const int hidden_first = ca_page_hidden(page, s->pos[row0], job->window) - (int)t0;
            const int hidden_last = ca_page_hidden(page, s->pos[row0 + MR - 1], job->window) - (int)t0;
            views[index].seen[t] = last > 0 && hidden_first < PANEL && hidden_first < last;
            if (!views[index].seen[t]) continue;
            if (!rounded) round_keys(s, page, t0, dim);
            rounded = true;
            if (first >= PANEL && hidden_last <= 0) {
                views[index].rises[t] = qk_tile(false, s, t, dim, index, NULL, NULL);
                continue;
            }
            int hidden[MR], seen[MR];
            for (uint32_t r = 0; r < MR; r++) {
                hidden[r] = ca_page_hidden(page, s->pos[row0 + r], job->window) - (int)t0;
                seen[r] = ca_page_seen(page, s->pos[row0 + r]) - (int)t0;
            }
            views[index].rises[t] = qk_tile(true, s, t, dim, index, hidden, seen);
        }
    }
}

/* Begins a group: nothing seen yet. */
static void begin_group(const scratch *s, uint32_t n_tiles)
{
    for (uint32_t t = 0; t < n_tiles; t++) v_store(s->tiles[t].e, v_set1(LOWEST));
    memset(s->l_group, 0, (size_t)n_tiles * MR * VW * 4);
}

/* Ends it: the references of the sums, and l. */
static void end_group(const scratch *s, uint32_t n_tiles)
{
    for (uint32_t t = 0; t < n_tiles; t++) {
        tile_state *state = &s->tiles[t];
        const vf e = v_load(state->e), old = v_load(state->m), m = v_max(old, e);
        v_store(state->m, m);
        v_store(state->keep, v_exp2(v_sub(old, m))); /* of integers: exact */
        v_store(state->add, v_exp2(v_sub(e, m)));
        for (uint32_t r = 0; r < MR; r++) {
            float *l = s->l + (size_t)(t * MR + r) * VW;
            vi group;
            memcpy(&group, s->l_group + (size_t)(t * MR + r) * VW, sizeof group);
            const vf add = v_set1(state->add[lane_of(r)] * (1.0F / CA_ATTN_INT8_L)), keep = v_set1(state->keep[lane_of(r)]);
            v_store(l, v_fma(a8_float(group), add, v_mul(v_load(l), keep)));
        }
    }
}

static void group_values(const ca_attn_job *job, const scratch *s, const ca_page_ref *pages, uint32_t n, const panel_view *views,
                         uint32_t n_tiles)
{
    const uint32_t dim = job->head_dim, n_panels = n * job->page_tokens / PANEL;
    for (uint32_t d0 = 0; d0 < dim; d0 += PANEL) {
        const uint32_t width = ca_min_u32(PANEL, dim - d0);
        round_values(s, job, pages, n, d0, width);
        for (uint32_t t = 0; t < n_tiles; t++) {
            switch (width / VW) {
#if defined(__AVX512F__) /* NV 4 */
            case 1: pv_tile(1, s, t, dim, d0, views, n_panels); break;
            case 2: pv_tile(2, s, t, dim, d0, views, n_panels); break;
            case 3: pv_tile(3, s, t, dim, d0, views, n_panels); break;
#endif
            default: pv_tile(NV, s, t, dim, d0, views, n_panels); break;
            }
        }
    }
}

/* Asks for the lines that a result goes to some vectors before it is written. */
static void write_out(const ca_attn_job *job, const scratch *s)
{
    const uint32_t dim = job->head_dim;
    const size_t size = job->o_type == CA_F32 ? 4 : 2;
    for (uint32_t step = 0; step < job->count + AHEAD; step++) {
        if (step < job->count) {
            const char *ahead = (const char *)job->o + ca_attn_at(job, step, job->o_stride) * size;
            for (size_t line = 0; line < dim * size; line += 64) __builtin_prefetch(ahead + line, 1, 3);
        }
        if (step < AHEAD) continue;
        const uint32_t i = step - AHEAD;
        const size_t at = ca_attn_at(job, i, job->o_stride);
        const float l = v_hadd(v_load(s->l + (size_t)i * VW));
        const float a = s->tiles[i / MR].a[lane_of(i % MR)];
        const float inv = !isfinite(a) ? NAN : l != 0.0F ? 1.0F / l : 0.0F; /* a query that is no number; no visible key: zero */
        const float *o = s->o + (size_t)i * dim;
        for (uint32_t d = 0; d < dim; d += VW) {
            const vf out = v_mul(v_load(o + d), v_set1(inv));
            float row[VW];
            if (job->o_type == CA_F32) {
                v_store((float *)job->o + at + d, out);
                continue;
            }
            v_store(row, out);
            for (uint32_t e = 0; e < VW; e++) ((uint16_t *)job->o)[at + d + e] = ca_f32_to_bf16(row[e]);
        }
    }
}

static void attn(const ca_attn_job *job, ca_dtype pages)
{
    const uint32_t n_tiles = ca_ceil_div(job->count, MR), n = n_tiles * MR, step = GROUP / job->page_tokens;
    const scratch s = scratch_cut(job->scratch, job->head_dim, pages == CA_BF16);
    pack_queries(job, &s, n_tiles);
    memset(s.o, 0, (size_t)n * job->head_dim * 4);
    memset(s.l, 0, (size_t)n * VW * 4);
    if (job->n_pages > 0) mean_key(&s, &job->pages[0], job->page_tokens, job->head_dim);
    for (uint32_t first = 0; first < job->n_pages; first += step) {
        panel_view views[PANELS];
        const uint32_t count = ca_min_u32(step, job->n_pages - first);
        bool visible = false;
        for (uint32_t i = 0; i < count; i++) visible = visible || (int64_t)job->pages[first + i].pos <= s.pos[n - 1];
        if (!visible) continue;
        begin_group(&s, n_tiles);
        for (uint32_t i = 0; i < count; i++)
            page_scores(job, &s, &job->pages[first + i], n_tiles, i * job->page_tokens / PANEL, views);
        end_group(&s, n_tiles);
        group_values(job, &s, job->pages + first, count, views, n_tiles);
    }
    write_out(job, &s);
}

#endif
