/* Attention of 8-bit integers with AVX-512 VNNI (attn_int8.h). vpdpbusd takes bytes without a sign by bytes with one: ki + 128 by qi,
 * from sums that start at -128 sum qi, and p by vi.
 *
 * Tiles of MR query vectors x one panel, as in attn_body.h:
 *   QK  per 4 dims 4 vectors of a panel of 64 keys and a word of each query vector: 24 vpdpbusd
 *   PV  per 4 tokens 4 vectors of a panel of 64 dims and a word of each row of P: 24 vpdpbusd
 * K panel [head_dim/4][64 tokens][4], V panel [group/4][dims][4], Q [tiles][head_dim/4][MR][4], P [vector][group] bytes. Both panels lie
 * in L1 while all tiles of a job pass by.
 *
 * Packing 4 vectors of 16 scores to bytes puts the words of 4 tokens in another order: word w of a panel's 16 holds those from
 * 4 word_tokens(w) on, and V's panel has them in that order. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kern/attn_int8.h"
#include "kern/vec_common.h"

enum {
    MR = 6,
    NV = 4,
    VW = 16,
    PANEL = CA_ATTN_INT8_PANEL,
    WORDS = PANEL / 4,
    GROUP = CA_ATTN_INT8_GROUP,
    PANELS = GROUP / PANEL, /* of keys, in a group */
    JOB = 768,
    TILES = JOB / MR,
    AHEAD = 16,  /* query vectors */
    FINE = 2048, /* steps of a unit of log2 */
    C1 = 11022,  /* of 2^-f, in 14 bits */
    C2 = 2850,
    L_STEPS = 64, /* of a step of p in the sum of probabilities, which shifts then round finely enough */
};
#define LOWEST (-1e6F) /* below every score */

/* gcc 12 keeps arrays of its own integer type in registers, those of __m512i in memory. */
typedef int32_t vi __attribute__((vector_size(64)));
typedef __m512 vf;

/* What a tile knows of its query vectors: vector r in lane lane_of(r), where row_tops() leaves its maximum. */
typedef struct tile_state {
    float a[VW], a_fine[VW]; /* log2(e) scale sq; FINE times that */
    int32_t offset[VW];      /* -128 sum qi */
    float e[VW], e_fine[VW]; /* of the group at hand; FINE times that */
    float m[VW];             /* the highest e so far: reference of o and l */
    float keep[VW], add[VW]; /* o = keep o + add (sums of the group) */
    int32_t shift[PANELS][VW];
} tile_state;

typedef struct scratch {
    int8_t *q;
    uint8_t *p;
    float *o;         /* [JOB][head_dim] */
    float *l;         /* [JOB][VW] partial sums of probabilities, p in steps */
    int32_t *l_group; /* [JOB][VW] the same of the group, in steps of a step */
    tile_state *tiles;
    int32_t *pos; /* [JOB] absolute position of the query vector */
    uint8_t *k;   /* the panel of keys, and its scales */
    float *sk;
    int8_t *v; /* the panel of values of a group, and its scales */
    float *sv;
    float *mu;  /* [head_dim] */
    bool pairs; /* pages hold bf16, else floats */
} scratch;

/* A panel of keys of the group at hand: the tokens of it that a tile's last vector sees, 0 = none. */
typedef struct panel_view {
    uint8_t seen[TILES];
} panel_view;

static inline uint32_t lane_of(uint32_t r)
{
    return r < 4 ? r : r + 4;
}

static inline uint32_t word_tokens(uint32_t w)
{
    return w % 4 * 4 + w / 4;
}

static uint32_t group_pages(uint32_t page_tokens)
{
    return ca_max_u32(GROUP / page_tokens, 1);
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
    if (pairs) {
        const __m512i units = _mm512_loadu_si512(p);
        *first = _mm512_castsi512_ps(_mm512_slli_epi32(units, 16));
        *second = _mm512_castsi512_ps(_mm512_and_si512(units, _mm512_set1_epi32((int)0xffff0000U)));
    } else {
        *first = _mm512_loadu_ps(p);
        *second = _mm512_loadu_ps(p + row);
    }
}

V_INLINE vf magnitude(vf a)
{
    return _mm512_and_ps(a, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff)));
}

/* 127 / top, and top / 127 to scale; 0 and 0 where top is next to nothing. */
V_INLINE vf steps_of(vf top, float *scale)
{
    const __mmask16 some = _mm512_cmp_ps_mask(top, _mm512_set1_ps(0x1p-100F), _CMP_GT_OQ);
    _mm512_storeu_ps(scale, _mm512_maskz_mul_ps(some, top, _mm512_set1_ps(1.0F / 127.0F)));
    return _mm512_maskz_div_ps(some, _mm512_set1_ps(127.0F), top);
}

/* Bytes of four vectors of integers, those of a lane beside each other. */
V_INLINE __m512i four_bytes(const bool with_sign, __m512i a, __m512i b, __m512i c, __m512i d)
{
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i ab = _mm512_packs_epi32(a, b), cd = _mm512_packs_epi32(c, d);
    return _mm512_shuffle_epi8(with_sign ? _mm512_packs_epi16(ab, cd) : _mm512_packus_epi16(ab, cd), order);
}

/* mu[d] = mean over the tokens of a page, whose later slots hold zeros. */
V_INLINE void mean_key_of(const bool pairs, const ca_page_ref *page, uint32_t page_tokens, uint32_t head_dim, float *mu)
{
    const size_t unit = pairs ? 1 : 2, panel = (size_t)PANEL * head_dim / (3 - unit);
    const float inv = 1.0F / (float)ca_max_u32(page->len, 1);
    for (uint32_t d = 0; d < head_dim; d += 2) {
        vf low = _mm512_setzero_ps(), high = low, a, b;
        for (uint32_t t = 0; t < page_tokens; t += VW) {
            load_two(pairs, (const float *)page->data + t / PANEL * panel + d / 2 * unit * PANEL + t % PANEL, PANEL, &a, &b);
            low = _mm512_add_ps(low, a), high = _mm512_add_ps(high, b);
        }
        mu[d] = _mm512_reduce_add_ps(low) * inv;
        mu[d + 1] = _mm512_reduce_add_ps(high) * inv;
    }
}

/* A panel of keys as ki + 128, and its scales. */
V_INLINE void round_keys_of(const bool pairs, const float *panel, uint32_t head_dim, const scratch *s)
{
    const size_t unit = pairs ? PANEL : 2 * PANEL; /* floats of two dims */
    const __m512 middle = _mm512_set1_ps(128.0F);
    for (uint32_t t = 0; t < PANEL; t += VW) {
        const float *at = panel + t;
        vf top = _mm512_setzero_ps(), a, b;
        for (uint32_t d = 0; d < head_dim; d += 2, at += unit) {
            load_two(pairs, at, PANEL, &a, &b);
            a = magnitude(_mm512_sub_ps(a, _mm512_set1_ps(s->mu[d])));
            b = magnitude(_mm512_sub_ps(b, _mm512_set1_ps(s->mu[d + 1])));
            top = _mm512_max_ps(top, _mm512_max_ps(a, b));
        }
        const vf up = steps_of(top, s->sk + t);
        at = panel + t;
        for (uint32_t d = 0; d < head_dim; d += 4, at += 2 * unit) {
            vf x[4];
            __m512i i[4];
            load_two(pairs, at, PANEL, &x[0], &x[1]);
            load_two(pairs, at + unit, PANEL, &x[2], &x[3]);
            V_UNROLL
            for (uint32_t j = 0; j < 4; j++)
                i[j] = _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_sub_ps(x[j], _mm512_set1_ps(s->mu[d + j])), up, middle));
            _mm512_storeu_si512(s->k + (size_t)d * PANEL + (size_t)t * 4, four_bytes(false, i[0], i[1], i[2], i[3]));
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
        vf top = _mm512_setzero_ps(), a, b;
        for (uint32_t i = 0; i < n; i++) {
            const float *at = (const float *)pages[i].data + begin + j;
            for (uint32_t t = 0; t < page_tokens; t += 2, at += unit) {
                load_two(pairs, at, width, &a, &b);
                top = _mm512_max_ps(top, _mm512_max_ps(magnitude(a), magnitude(b)));
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
                    __m512i q[4];
                    load_two(pairs, at, width, &x[0], &x[1]);
                    load_two(pairs, at + unit, width, &x[2], &x[3]);
                    V_UNROLL
                    for (uint32_t r = 0; r < 4; r++) q[r] = _mm512_cvtps_epi32(_mm512_mul_ps(x[r], up));
                    _mm512_storeu_si512(to + (size_t)w * 4 * width, four_bytes(true, q[0], q[1], q[2], q[3]));
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

/* The largest lane of each of 6 vectors, that of vector r in lane lane_of(r). */
V_INLINE vf row_tops(const vf *t)
{
    vf pair[3];
    V_UNROLL
    for (int i = 0; i < 3; i++)
        pair[i] = _mm512_max_ps(_mm512_unpacklo_ps(t[2 * i], t[2 * i + 1]), _mm512_unpackhi_ps(t[2 * i], t[2 * i + 1]));
    const vf a = _mm512_max_ps(_mm512_shuffle_ps(pair[0], pair[1], 0x44), _mm512_shuffle_ps(pair[0], pair[1], 0xee));
    const vf b = _mm512_max_ps(pair[2], _mm512_shuffle_ps(pair[2], pair[2], 0x4e));
    const vf two = _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    return _mm512_max_ps(two, _mm512_shuffle_f32x4(two, two, 0xb1));
}

/* round(255 * 2^-z) of 32 z in steps of 1/FINE, 0 <= z < 16. */
V_INLINE __m512i powers(__m512i z)
{
    const __m512i f = _mm512_slli_epi16(z, 5); /* the fraction in 16 bits */
    /* 2^14 2^-f as 2^14 (1 - f (c1 - c2 f)) */
    const __m512i slope = _mm512_sub_epi16(_mm512_set1_epi16(C1), _mm512_mulhi_epu16(f, _mm512_set1_epi16(C2)));
    const __m512i p = _mm512_sub_epi16(_mm512_set1_epi16(1 << 14), _mm512_mulhi_epu16(f, slope));
    return _mm512_mulhrs_epi16(_mm512_srlv_epi16(p, _mm512_srli_epi16(z, 11)), _mm512_set1_epi16(510));
}

/* The first n of 16 lanes; n may be outside 0..16. */
static inline __mmask16 first_lanes(int n)
{
    return (__mmask16)(n <= 0 ? 0U : n >= VW ? 0xffffU : (1U << n) - 1U);
}

/* Probabilities of a tile against panel `index` of a group. When masked, vector r sees the tokens [hidden[r], seen[r]). */
V_INLINE void qk_tile(const bool masked, const scratch *s, uint32_t t, uint32_t head_dim, uint32_t index, const int *hidden,
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
        for (int j = 0; j < NV; j++) acc[r][j] = (vi)_mm512_set1_epi32(state->offset[lane_of(r)]);
    }
    for (uint32_t d = 0; d < head_dim; d += 4) {
        vi kv[NV];
        V_UNROLL
        for (int j = 0; j < NV; j++) kv[j] = (vi)_mm512_load_si512(k + (size_t)j * 64);
        V_UNROLL
        for (int r = 0; r < MR; r++) {
            int32_t word;
            memcpy(&word, q + (size_t)r * 4, 4);
            const __m512i b = _mm512_set1_epi32(word);
            V_UNROLL
            for (int j = 0; j < NV; j++) acc[r][j] = (vi)_mm512_dpbusd_epi32((__m512i)acc[r][j], (__m512i)kv[j], b);
        }
        k += (size_t)4 * PANEL;
        q += (size_t)4 * MR;
    }
    __mmask16 live[MR][NV];
    V_UNROLL
    for (int r = 0; r < MR; r++) {
        V_UNROLL
        for (int j = 0; j < NV; j++) {
            x[r][j] = _mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)acc[r][j]), _mm512_load_ps(s->sk + (size_t)j * VW));
            if (masked) {
                live[r][j] = first_lanes(seen[r] - j * VW) & (__mmask16)~first_lanes(hidden[r] - j * VW);
                x[r][j] = _mm512_mask_blend_ps(live[r][j], _mm512_set1_ps(-1e30F), x[r][j]);
            }
        }
        top[r] = _mm512_max_ps(_mm512_max_ps(x[r][0], x[r][1]), _mm512_max_ps(x[r][2], x[r][3]));
    }
    const vf old = _mm512_loadu_ps(state->e);
    const vf e = _mm512_max_ps(old, _mm512_roundscale_ps(_mm512_mul_ps(row_tops(top), _mm512_loadu_ps(state->a)),
                                                         _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC));
    _mm512_storeu_ps(state->e, e);
    _mm512_storeu_ps(state->e_fine, _mm512_mul_ps(e, _mm512_set1_ps(FINE)));
    _mm512_storeu_si512(state->shift[index], _mm512_cvtps_epi32(_mm512_min_ps(_mm512_sub_ps(e, old), _mm512_set1_ps(31.0F))));
    uint8_t *p = s->p + (size_t)t * MR * GROUP + (size_t)index * PANEL;
    int32_t *l = s->l_group + (size_t)t * MR * VW;
    V_UNROLL
    for (uint32_t r = 0; r < MR; r++) {
        const vf a = _mm512_set1_ps(state->a_fine[lane_of(r)]), top_z = _mm512_set1_ps(state->e_fine[lane_of(r)]);
        __m512i z[NV];
        V_UNROLL
        for (int j = 0; j < NV; j++) {
            const vf under = _mm512_fnmadd_ps(x[r][j], a, top_z);
            z[j] = masked ? _mm512_mask_cvtps_epi32(_mm512_set1_epi32(0x7fffffff), live[r][j], under) : _mm512_cvtps_epi32(under);
        }
        const __m512i bytes = _mm512_packus_epi16(powers(_mm512_packs_epi32(z[0], z[1])), powers(_mm512_packs_epi32(z[2], z[3])));
        _mm512_storeu_si512(p + (size_t)r * GROUP, bytes);
        const __m512i shift = _mm512_set1_epi32(state->shift[index][lane_of(r)]);
        const __m512i sum = _mm512_srav_epi32(_mm512_loadu_si512(l + (size_t)r * VW), shift);
        _mm512_storeu_si512(l + (size_t)r * VW, _mm512_dpbusd_epi32(sum, bytes, _mm512_set1_epi8(L_STEPS)));
    }
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
        if (index > 0) {
            V_UNROLL
            for (uint32_t r = 0; r < MR; r++) {
                const __m512i shift = _mm512_set1_epi32(state->shift[index][lane_of(r)]);
                V_UNROLL
                for (int j = 0; j < nv; j++) acc[r][j] = (vi)_mm512_srav_epi32((__m512i)acc[r][j], shift);
            }
        }
        for (uint32_t w = 0; w < WORDS; w++) {
            vi vv[NV];
            V_UNROLL
            for (int j = 0; j < nv; j++) vv[j] = (vi)_mm512_load_si512(v + (size_t)j * 64);
            V_UNROLL
            for (int r = 0; r < MR; r++) {
                int32_t word;
                memcpy(&word, p + (size_t)r * GROUP + (size_t)w * 4, 4);
                const __m512i b = _mm512_set1_epi32(word);
                V_UNROLL
                for (int j = 0; j < nv; j++) acc[r][j] = (vi)_mm512_dpbusd_epi32((__m512i)acc[r][j], b, (__m512i)vv[j]);
            }
            v += (size_t)nv * 64;
        }
    }
    float *o = s->o + (size_t)t * MR * head_dim + d0;
    V_UNROLL
    for (uint32_t r = 0; r < MR; r++) {
        const vf keep = _mm512_set1_ps(state->keep[lane_of(r)]), add = _mm512_set1_ps(state->add[lane_of(r)]);
        V_UNROLL
        for (int j = 0; j < nv; j++) {
            float *at = o + (size_t)r * head_dim + (size_t)j * VW;
            const vf sum = _mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)acc[r][j]), _mm512_load_ps(s->sv + (size_t)j * VW));
            _mm512_storeu_ps(at, _mm512_fmadd_ps(sum, add, _mm512_mul_ps(_mm512_loadu_ps(at), keep)));
        }
    }
}

/* ---- a job ---- */

/* Query vector to integers in its lane of a tile; src NULL: zeros. Returns sq, and *sum = sum of qi. Magnitudes are ordered as integers
 * are, and those that are no number lie above infinity. */
static float round_query(const float *src, uint32_t head_dim, int8_t *dst, int32_t *sum)
{
    __m512i top = _mm512_setzero_si512();
    for (uint32_t d = 0; d < head_dim && src; d += VW)
        top = _mm512_max_epu32(top, _mm512_castps_si512(magnitude(_mm512_loadu_ps(src + d))));
    const uint32_t bits = _mm512_reduce_max_epu32(top);
    float most;
    memcpy(&most, &bits, sizeof most);
    const bool none = most <= 0x1p-100F;
    const float up = none ? 0.0F : 127.0F / most;
    __m512i total = _mm512_setzero_si512();
    for (uint32_t d = 0; d < head_dim; d += VW) {
        const __m512i i = src ? _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(src + d), _mm512_set1_ps(up)))
                              : _mm512_setzero_si512();
        int8_t bytes[VW];
        _mm_storeu_si128((__m128i *)(void *)bytes, _mm512_cvtsepi32_epi8(i));
        for (uint32_t w = 0; w < VW / 4; w++) memcpy(dst + (size_t)(d / 4 + w) * MR * 4, bytes + (size_t)w * 4, 4);
        total = _mm512_add_epi32(total, i);
    }
    *sum = _mm512_reduce_add_epi32(total);
    return none ? 0.0F : most / 127.0F;
}

/* Asks for a vector's lines, far apart from the next token's, some vectors before it is read. */
static void pack_queries(const ca_attn_job *job, const scratch *s, uint32_t n_tiles)
{
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
        state->a_fine[lane] = state->a[lane] * FINE;
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
                qk_tile(false, s, t, dim, index, NULL, NULL);
                continue;
            }
            int hidden[MR], seen[MR];
            for (uint32_t r = 0; r < MR; r++) {
                hidden[r] = ca_page_hidden(page, s->pos[row0 + r], job->window) - (int)t0;
                seen[r] = ca_page_seen(page, s->pos[row0 + r]) - (int)t0;
            }
            qk_tile(true, s, t, dim, index, hidden, seen);
        }
    }
}

/* Begins a group: nothing seen yet. */
static void begin_group(const scratch *s, uint32_t n_tiles)
{
    for (uint32_t t = 0; t < n_tiles; t++) _mm512_storeu_ps(s->tiles[t].e, _mm512_set1_ps(LOWEST));
    memset(s->l_group, 0, (size_t)n_tiles * MR * VW * 4);
}

/* Ends it: the references of the sums, and l. */
static void end_group(const scratch *s, uint32_t n_tiles)
{
    const vf one = _mm512_set1_ps(1.0F);
    for (uint32_t t = 0; t < n_tiles; t++) {
        tile_state *state = &s->tiles[t];
        const vf e = _mm512_loadu_ps(state->e), old = _mm512_loadu_ps(state->m), m = _mm512_max_ps(old, e);
        _mm512_storeu_ps(state->m, m);
        _mm512_storeu_ps(state->keep, _mm512_scalef_ps(one, _mm512_sub_ps(old, m)));
        _mm512_storeu_ps(state->add, _mm512_scalef_ps(one, _mm512_sub_ps(e, m)));
        for (uint32_t r = 0; r < MR; r++) {
            float *l = s->l + (size_t)(t * MR + r) * VW;
            const vf sum = _mm512_cvtepi32_ps(_mm512_loadu_si512(s->l_group + (size_t)(t * MR + r) * VW));
            const vf add = _mm512_set1_ps(state->add[lane_of(r)] * (1.0F / L_STEPS)),
                     keep = _mm512_set1_ps(state->keep[lane_of(r)]);
            _mm512_storeu_ps(l, _mm512_fmadd_ps(sum, add, _mm512_mul_ps(_mm512_loadu_ps(l), keep)));
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
            case 1: pv_tile(1, s, t, dim, d0, views, n_panels); break;
            case 2: pv_tile(2, s, t, dim, d0, views, n_panels); break;
            case 3: pv_tile(3, s, t, dim, d0, views, n_panels); break;
            default: pv_tile(4, s, t, dim, d0, views, n_panels); break;
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
        const float l = _mm512_reduce_add_ps(_mm512_loadu_ps(s->l + (size_t)i * VW));
        const float a = s->tiles[i / MR].a[lane_of(i % MR)];
        const float inv = !isfinite(a) ? NAN : l != 0.0F ? 1.0F / l : 0.0F; /* a query that is no number; no visible key: zero */
        const float *o = s->o + (size_t)i * dim;
        for (uint32_t d = 0; d < dim; d += VW) {
            const vf out = _mm512_mul_ps(_mm512_loadu_ps(o + d), _mm512_set1_ps(inv));
            float row[VW];
            if (job->o_type == CA_F32) {
                _mm512_storeu_ps((float *)job->o + at + d, out);
                continue;
            }
            _mm512_storeu_ps(row, out);
            for (uint32_t e = 0; e < VW; e++) ((uint16_t *)job->o)[at + d + e] = ca_f32_to_bf16(row[e]);
        }
    }
}

static void attn(const ca_attn_job *job, ca_dtype pages)
{
    const uint32_t n_tiles = ca_ceil_div(job->count, MR), n = n_tiles * MR, step = group_pages(job->page_tokens);
    const scratch s = scratch_cut(job->scratch, job->head_dim, pages == CA_BF16);
    pack_queries(job, &s, n_tiles);
    memset(s.o, 0, (size_t)n * job->head_dim * 4);
    memset(s.l, 0, (size_t)n * VW * 4);
    for (uint32_t t = 0; t < n_tiles; t++) _mm512_storeu_ps(s.tiles[t].m, _mm512_set1_ps(LOWEST));
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

const ca_attn_int8 ca_attn_int8_avx512vnni = {
    .name = "avx512vnni",
    .sets = CA_CPU_AVX512,
    .cpu_flags = CA_CPU_AVX512 | CA_CPU_AVX512_VNNI,
    .job = JOB,
    .unit = MR,
    .byte_flop = 41.0,
    .job_flop = 1e5,
    .scratch_bytes = scratch_bytes,
    .attn = attn,
};
