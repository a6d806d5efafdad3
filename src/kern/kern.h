/* The table of CPU kernels: one struct of function pointers per ISA, listed best first in kern.c. Above this line nothing knows an
 * ISA. A kernel set also owns the inside of a KV page.
 *
 * Page layout, the same formula for every set: units of 32 bits hold ks consecutive elements (1 float, or 2 bf16).
 *   K  [page_tokens/kp][head_dim/ks][kp][ks]   kp = min(k_panel, page_tokens): ks consecutive dims of one token are a unit
 *   V  [head_dim/vp][page_tokens/ks][vp][ks]   vp = v_panel, the last panel narrower: ks consecutive tokens of one dim are a unit
 * A page is K, then V: 2 * page_tokens * head_dim elements, 64-byte aligned. */
#ifndef CA_KERN_KERN_H
#define CA_KERN_KERN_H

#include <compactattn/cpu.h>

#include "base/arith.h"
#include "kern/coded.h"

/* CPU feature bits (kern.c fills them from cpuid or the auxiliary vector, OS support included). */
enum {
    CA_CPU_AVX2_FMA = 1 << 0, /* and F16C */
    CA_CPU_AVX512 = 1 << 1,   /* F, BW, DQ, VL */
    CA_CPU_AVX512_BF16 = 1 << 2,
    CA_CPU_NEON = 1 << 3,
    CA_CPU_NEON_BF16 = 1 << 4,
    CA_CPU_AVX512_VNNI = 1 << 5,
    CA_CPU_NEON_DOT = 1 << 6,
    CA_CPU_AMX_BF16 = 1 << 7, /* and the system gives the tiles to this process */
    CA_CPU_AMX_INT8 = 1 << 8,
    CA_CPU_SLOW_BF16 = 1 << 9, /* products of CA_CPU_AVX512_BF16 are slower than those of floats */
    CA_CPU_AVX_VNNI = 1 << 10, /* vpdpbusd on vectors of 256 bits, without AVX-512 */
    CA_CPU_NEON_I8MM = 1 << 11
};

/* One page of a row, as the kernel sees it. */
typedef struct ca_page_ref {
    const void *data;
    uint32_t pos; /* absolute position of slot 0 */
    uint32_t len; /* tokens in it; later slots hold zeros */
} ca_page_ref;

/* Tokens of a page that a query at position pos may see. */
static inline int ca_page_seen(const ca_page_ref *page, int32_t pos)
{
    const int64_t n = (int64_t)pos - (int64_t)page->pos + 1;
    return n < 0 ? 0 : n > (int64_t)page->len ? (int)page->len : (int)n;
}

/* The first tokens of a page that lie before the window of a query at position pos. */
static inline int ca_page_hidden(const ca_page_ref *page, int32_t pos, uint32_t window)
{
    const int64_t n = window == 0 ? 0 : (int64_t)pos + 1 - (int64_t)window - (int64_t)page->pos;
    return n < 0 ? 0 : n > (int64_t)page->len ? (int)page->len : (int)n;
}

/* One unit of attention work: query vectors that share a page list. Vector i of a row is its token i / n_heads, head
 * i % n_heads; those of [first, first + count) are computed. */
typedef struct ca_attn_job {
    const ca_page_ref *pages;
    uint32_t n_pages;
    uint32_t n_ahead; /* pages behind them that may be fetched: the next job's */
    uint32_t page_tokens, head_dim;
    const float *q;  /* of the row's first token and first head */
    size_t q_stride; /* floats between tokens */
    void *o;
    size_t o_stride; /* elements between tokens */
    ca_dtype o_type;
    uint32_t pos; /* absolute position of the row's first token */
    uint32_t n_heads;
    uint32_t first, count; /* count <= attn_job of the set */
    uint32_t window;       /* a query at p sees the keys at p - window + 1 .. p; 0 = all up to p */
    float scale;
    float *sums;   /* NULL: o is written; else vector first + i's sums go to sums + i * ca_attn_sums(head_dim), 64-byte aligned */
    void *scratch; /* attn_scratch_bytes, 64-byte aligned, one per thread */
} ca_attn_job;

/* The token of the row that query vector i of a job belongs to, and where the vector begins in Q, and its result in O: elements from
 * those of the row's first token and head. */
static inline uint32_t ca_attn_token(const ca_attn_job *job, uint32_t i)
{
    return (job->first + i) / job->n_heads;
}

static inline size_t ca_attn_at(const ca_attn_job *job, uint32_t i, size_t token_stride)
{
    return ca_attn_token(job, i) * token_stride + (size_t)((job->first + i) % job->n_heads) * job->head_dim;
}

/* Sums over a part of a row's pages, with s = log2(e) scale q.k:  [head_dim] sum of 2^(s - m) v,  then l = sum of 2^(s - m),  then m;
 * l = 0 where no key is visible. */
static inline size_t ca_attn_sums(uint32_t head_dim)
{
    return head_dim + 16;
}

/* Query vectors that are packed together, and those of one register tile. */
enum { CA_ATTN_BLOCK = 96, CA_ATTN_TILE = 6 };

/* Block scores of one Q block of one head against pooled keys (spec/attention.md 2.2):
 *   z[r][j] = q[r].mean[j] * log2(e) * scale, counted where pos + r >= (j + 1) * block - 1
 *   m[j] = max over counted r, e[j] = sum of 2^(z - m[j]);  m = -inf and e = 0 where nothing is counted. */
typedef struct ca_score_job {
    const float *q;
    size_t q_stride;
    uint32_t n_rows, pos, block, head_dim;
    const float *means; /* [ceil(n_means/16)][head_dim][16]: panels of 16 pooled keys, zero padded */
    uint32_t n_means;
    float scale;
    float *m, *e; /* [n_means rounded up to 16] */
} ca_score_job;

/* Query vectors packed for qk: the set's type and order. */
typedef struct ca_qk_job {
    const void *packed; /* from pack_q */
    uint32_t count;     /* vectors, <= CA_ATTN_BLOCK */
    const void *page;
    uint32_t page_tokens, head_dim;
    float *s; /* [count][page_tokens], 64-byte aligned */
} ca_qk_job;

/* XAttention's antidiagonals of one page (spec/selectors-learned.md C.1); stride 8 or 16. Rows of stride query tokens, packed by
 * pack_diag:  e[r][c] = sum over t < stride of q[(r + 1) stride - 1 - t] . k[c stride + t] */
typedef struct ca_diag_job {
    const void *packed;
    uint32_t n_rows, stride;
    const void *page, *next; /* the page that will be asked about next, or NULL */
    uint32_t page_tokens, head_dim;
    float *e;        /* row r starts at e + r * e_stride; page_tokens/stride values each */
    size_t e_stride; /* floats */
} ca_diag_job;

struct ca_kern {
    const char *name;
    uint32_t cpu_flags; /* all must be there */
    ca_dtype type;      /* of pages */
    ca_dtype flow;      /* of GEMM inputs, packed queries and probabilities: "the set's type" below */
    uint32_t ks;        /* elements per 32-bit unit of a page: 1 or 2 */
    uint32_t k_panel, v_panel;

    uint32_t attn_job;  /* query vectors that a job has at most */
    uint32_t attn_unit; /* jobs are cut into whole ones of these where that is possible */
    double byte_flop;   /* operations that a byte of a page costs as much as, and a job's setup (ca_cost) */
    double job_flop;
    size_t (*attn_scratch_bytes)(uint32_t head_dim, uint32_t page_tokens);
    void (*attn)(const ca_attn_job *job);
    void (*score)(const ca_score_job *job);

    /* Vector i is q + i * stride; rounded once to the set's type. packed: ca_pack_q_bytes, 64-byte aligned. */
    void (*pack_q)(const float *q, size_t stride, uint32_t count, uint32_t head_dim, void *packed);
    /* s[i][t] = q[i] . k[t] for every slot of a page, f32 sums; slots past the page's end hold zeros and give 0. */
    void (*qk)(const ca_qk_job *job);
    /* Rows [row0, row0 + n_rows) of packed: their token t is q + (t - skip) * stride for skip <= t < skip + n, zero outside; n_rows *
     * diag_stride tokens in all. packed: ca_pack_diag_bytes of all rows, 64-byte aligned. */
    void (*pack_diag)(const float *q, size_t stride, uint32_t skip, uint32_t n, uint32_t row0, uint32_t n_rows,
                      uint32_t diag_stride, uint32_t head_dim, void *packed);
    void (*diag)(const ca_diag_job *job);
    /* Log-sum-exp in base 2 of n values: returns m = max(c x), *sum = sum of 2^(c x - m), both -inf, 0 for n = 0; c > 0. */
    float (*lse)(const float *x, uint32_t n, float c, float *sum);
    /* x[i] = 2^(c (x[i] - largest)) in place, all 0 where that is -inf; returns their sum, 0 for n = 0; c > 0. */
    float (*powers)(float *x, uint32_t n, float c);
    /* out[i][j] = sum over d < depth of x[i][d] panels[j/16][d][j%16], f32, for j < n_cols rounded up to 16. Row i of x and out
     * starts at i times its stride; panels as ca_score_job.means. */
    void (*panel_dot)(const float *x, size_t x_stride, uint32_t n, const float *panels, uint32_t depth, uint32_t n_cols, float *out,
                      size_t out_stride);

    /* Writes token rows [slot, slot+n) of one page. k, v: first token's head row; stride in floats. mean_sum f32 [head_dim] gets
     * the keys, as stored, added in token order; NULL = no summary. */
    void (*page_put)(void *page, uint32_t page_tokens, uint32_t head_dim, uint32_t slot, uint32_t n, const float *k, const float *v,
                     size_t stride, float *mean_sum);

    /* out[i] = x[i] / sqrt(mean(x^2) + eps) * w[i], in the set's type. */
    void (*rmsnorm)(const float *x, const float *w, float eps, size_t n, void *out);
    /* Rotates halves of each head in place: (a, b) -> (a cos - b sin, b cos + a sin). cos_sin: f32 [head_dim/2] cos then
     * [head_dim/2] sin of the token's position. */
    void (*rope)(float *x, uint32_t n_heads, uint32_t head_dim, const float *cos_sin);
    /* out[i] = gate[i] / (1 + exp(-gate[i])) * up[i], in the set's type. */
    void (*swiglu)(const float *gate, const float *up, size_t n, void *out);
    /* The same with GELU's tanh form: out[i] = gate[i] / (1 + exp(-2 u)) * up[i], u = sqrt(2/pi) (gate[i] + 0.044715 gate[i]^3). */
    void (*geglu)(const float *gate, const float *up, size_t n, void *out);
    /* A row of the set's type as integers, in groups with scales and offsets (int8.h); out has n rounded up to 4, padded with zeros.
     * A group without a magnitude above 2^-100 gets scale 0; one with an infinity or a NaN gets NaN. */
    void (*quantize)(const void *x, uint32_t n, int8_t *out, float *scales, int32_t *offsets);
    /* Rows by a panel of weights in codes (coded.h); NULL: weights are unpacked. */
    void (*coded)(const ca_coded_job *job);
    /* float -> the set's type. */
    void (*convert)(const float *x, size_t n, void *out);

    /* Runs iters rounds of independent multiply-adds of this ISA and returns the floating-point operations done. */
    double (*peak)(uint64_t iters);
};

uint32_t ca_cpu_features(void);

/* Bytes of an element of the set's type. */
static inline size_t ca_flow_bytes(const ca_kern *kern)
{
    return kern->flow == CA_BF16 ? 2 : 4;
}

/* Element offsets inside a page; the definition of the layout. */
static inline size_t ca_page_k_index(const ca_kern *kern, uint32_t page_tokens, uint32_t head_dim, uint32_t t, uint32_t d)
{
    const size_t kp = ca_min_u32(kern->k_panel, page_tokens);
    const size_t ks = kern->ks;
    return (((size_t)t / kp * (head_dim / ks) + d / ks) * kp + t % kp) * ks + d % ks;
}

static inline size_t ca_page_v_index(const ca_kern *kern, uint32_t page_tokens, uint32_t head_dim, uint32_t t, uint32_t d)
{
    const size_t panel = d / kern->v_panel * kern->v_panel;
    const size_t width = ca_min_u32(kern->v_panel, head_dim - (uint32_t)panel);
    const size_t ks = kern->ks;
    return (size_t)page_tokens * head_dim + panel * page_tokens + (t / ks * width + (d - panel)) * ks + t % ks;
}

static inline size_t ca_page_bytes(const ca_kern *kern, uint32_t page_tokens, uint32_t head_dim)
{
    return (size_t)2 * page_tokens * head_dim * (4 / kern->ks);
}

/* Bytes of count packed query vectors, whole tiles; and of n_rows packed antidiagonal rows. */
static inline size_t ca_pack_q_bytes(uint32_t count, uint32_t head_dim)
{
    return ca_align_up(ca_align_up(count, CA_ATTN_TILE) * head_dim * 4, 64);
}

static inline size_t ca_pack_diag_bytes(uint32_t n_rows, uint32_t head_dim)
{
    return ca_align_up(ca_align_up(n_rows, CA_ATTN_TILE) * head_dim * 16 * 4, 64);
}

#endif
