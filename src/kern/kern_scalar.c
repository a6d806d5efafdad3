/* Kernel set scalar: the reference. Plain C from the definitions, nothing vectorised by hand; every other set is checked against
 * it. Pages hold plain rows: k_panel 1 makes K [page_tokens][head_dim], one V panel as wide as the head makes V the same. */
#include <math.h>
#include <string.h>

#include "kern/int8_round.h"
#include "kern/sets.h"

static size_t attn_scratch_bytes(uint32_t head_dim, uint32_t page_tokens)
{
    (void)page_tokens;
    return (size_t)head_dim * 4;
}

/* Online softmax, one query vector and one key at a time. */
static void attn(const ca_attn_job *job)
{
    const uint32_t dim = job->head_dim;
    float *acc = job->scratch;
    for (uint32_t i = 0; i < job->count; i++) {
        const float *q = job->q + ca_attn_at(job, i, job->q_stride);
        const uint64_t pos = (uint64_t)job->pos + ca_attn_token(job, i);
        float m = -INFINITY, l = 0.0F;
        memset(acc, 0, (size_t)dim * 4);
        for (uint32_t p = 0; p < job->n_pages; p++) {
            const ca_page_ref *page = &job->pages[p];
            const float *k = page->data, *v = k + (size_t)job->page_tokens * dim;
            for (uint32_t t = 0; t < page->len && (uint64_t)page->pos + t <= pos; t++) {
                if (job->window > 0 && (uint64_t)page->pos + t + job->window <= pos) continue;
                float s = 0.0F;
                for (uint32_t d = 0; d < dim; d++) s += q[d] * k[(size_t)t * dim + d];
                s *= job->scale;
                if (s > m) {
                    const float f = expf(m - s);
                    for (uint32_t d = 0; d < dim; d++) acc[d] *= f;
                    l *= f;
                    m = s;
                }
                const float e = expf(s - m);
                l += e;
                for (uint32_t d = 0; d < dim; d++) acc[d] += e * v[(size_t)t * dim + d];
            }
        }
        if (job->sums) {
            float *sums = job->sums + i * ca_attn_sums(dim);
            memcpy(sums, acc, (size_t)dim * 4);
            sums[dim] = l, sums[dim + 1] = m * 1.44269504F;
            continue;
        }
        const float inv = l != 0.0F ? 1.0F / l : 0.0F;
        const size_t at = ca_attn_at(job, i, job->o_stride);
        for (uint32_t d = 0; d < dim; d++) {
            if (job->o_type == CA_F32)
                ((float *)job->o)[at + d] = acc[d] * inv;
            else
                ((uint16_t *)job->o)[at + d] = ca_f32_to_bf16(acc[d] * inv);
        }
    }
}

static void score(const ca_score_job *job)
{
    const float c = job->scale * 1.44269504F;
    for (uint32_t j = 0; j < ca_align_up(job->n_means, 16); j++) {
        const float *mean = job->means + (size_t)j / 16 * job->head_dim * 16 + j % 16;
        float m = -INFINITY, e = 0.0F;
        for (uint32_t r = 0; r < job->n_rows && j < job->n_means; r++) {
            if ((uint64_t)job->pos + r + 1 < ((uint64_t)j + 1) * job->block) continue;
            float z = 0.0F;
            for (uint32_t d = 0; d < job->head_dim; d++) z += job->q[(size_t)r * job->q_stride + d] * mean[(size_t)d * 16];
            z *= c;
            if (z > m) {
                e *= exp2f(m - z);
                m = z;
            }
            e += exp2f(z - m);
        }
        job->m[j] = m;
        job->e[j] = e;
    }
}

/* Packed vectors are plain rows; those of an antidiagonal row are its tokens in order. */
static void pack_q(const float *q, size_t stride, uint32_t count, uint32_t head_dim, void *packed)
{
    for (uint32_t i = 0; i < count; i++) memcpy((float *)packed + (size_t)i * head_dim, q + i * stride, (size_t)head_dim * 4);
}

static float dot(const float *a, const float *b, uint32_t n)
{
    float s = 0.0F;
    for (uint32_t i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

static void qk(const ca_qk_job *job)
{
    const uint32_t bs = job->page_tokens, dim = job->head_dim;
    const float *q = job->packed, *k = job->page;
    for (uint32_t i = 0; i < job->count; i++)
        for (uint32_t t = 0; t < bs; t++) job->s[(size_t)i * bs + t] = dot(q + (size_t)i * dim, k + (size_t)t * dim, dim);
}

static void pack_diag(const float *q, size_t stride, uint32_t skip, uint32_t n, uint32_t row0, uint32_t n_rows,
                      uint32_t diag_stride, uint32_t head_dim, void *packed)
{
    for (uint32_t t = 0; t < n_rows * diag_stride; t++) {
        float *dst = (float *)packed + ((size_t)row0 * diag_stride + t) * head_dim;
        if (t >= skip && t - skip < n)
            memcpy(dst, q + (size_t)(t - skip) * stride, (size_t)head_dim * 4);
        else
            memset(dst, 0, (size_t)head_dim * 4);
    }
}

static void diag(const ca_diag_job *job)
{
    const uint32_t stride = job->stride, dim = job->head_dim;
    const float *q = job->packed, *k = job->page;
    for (uint32_t r = 0; r < job->n_rows; r++)
        for (uint32_t c = 0; c < job->page_tokens / stride; c++) {
            float sum = 0.0F;
            for (uint32_t t = 0; t < stride; t++)
                sum += dot(q + ((size_t)(r + 1) * stride - 1 - t) * dim, k + ((size_t)c * stride + t) * dim, dim);
            job->e[r * job->e_stride + c] = sum;
        }
}

static float lse(const float *x, uint32_t n, float c, float *sum)
{
    float most = -INFINITY;
    double s = 0.0; /* one chain of many terms */
    for (uint32_t i = 0; i < n; i++) most = fmaxf(most, x[i]);
    for (uint32_t i = 0; i < n && most != -INFINITY; i++) s += (double)exp2f(c * (x[i] - most));
    *sum = (float)s;
    return c * most;
}

static float powers(float *x, uint32_t n, float c)
{
    float most = -INFINITY;
    double s = 0.0;
    for (uint32_t i = 0; i < n; i++) most = fmaxf(most, x[i]);
    for (uint32_t i = 0; i < n; i++) {
        x[i] = most == -INFINITY ? 0.0F : exp2f(c * (x[i] - most));
        s += (double)x[i];
    }
    return (float)s;
}

static void panel_dot(const float *x, size_t x_stride, uint32_t n, const float *panels, uint32_t depth, uint32_t n_cols, float *out,
                      size_t out_stride)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < ca_align_up(n_cols, 16); j++) {
            const float *col = panels + (size_t)(j / 16) * depth * 16 + j % 16;
            float s = 0.0F;
            for (uint32_t d = 0; d < depth; d++) s += x[i * x_stride + d] * col[(size_t)d * 16];
            out[i * out_stride + j] = s;
        }
}

static void page_put(void *page, uint32_t page_tokens, uint32_t head_dim, uint32_t slot, uint32_t n, const float *k, const float *v,
                     size_t stride, float *mean_sum)
{
    float *kd = (float *)page + (size_t)slot * head_dim, *vd = kd + (size_t)page_tokens * head_dim;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t d = 0; d < head_dim; d++) {
            kd[(size_t)i * head_dim + d] = k[(size_t)i * stride + d];
            vd[(size_t)i * head_dim + d] = v[(size_t)i * stride + d];
            if (mean_sum) mean_sum[d] += k[(size_t)i * stride + d];
        }
}

static void rmsnorm(const float *x, const float *w, float eps, size_t n, void *out)
{
    float sum = 0.0F;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    const float inv = 1.0F / sqrtf(sum / (float)n + eps);
    for (size_t i = 0; i < n; i++) ((float *)out)[i] = x[i] * inv * w[i];
}

static void rope(float *x, uint32_t n_heads, uint32_t head_dim, const float *cos_sin)
{
    const uint32_t half = head_dim / 2;
    for (uint32_t h = 0; h < n_heads; h++, x += head_dim)
        for (uint32_t i = 0; i < half; i++) {
            const float a = x[i], b = x[half + i];
            x[i] = a * cos_sin[i] - b * cos_sin[half + i];
            x[half + i] = b * cos_sin[i] + a * cos_sin[half + i];
        }
}

static void swiglu(const float *gate, const float *up, size_t n, void *out)
{
    for (size_t i = 0; i < n; i++) ((float *)out)[i] = gate[i] / (1.0F + expf(-gate[i])) * up[i];
}

static void geglu(const float *gate, const float *up, size_t n, void *out)
{
    for (size_t i = 0; i < n; i++) {
        const float g = gate[i], u = 0.797884561F * (g + 0.044715F * g * g * g);
        ((float *)out)[i] = g / (1.0F + expf(-2.0F * u)) * up[i];
    }
}

CA_INT8_QUANTIZE(float, )

static void convert(const float *x, size_t n, void *out)
{
    memcpy(out, x, n * 4);
}

static double peak(uint64_t iters)
{
    volatile float sink;
    float a[8] = { 0 };
    for (uint64_t it = 0; it < iters; it++)
        for (int i = 0; i < 8; i++) a[i] = a[i] * 0.999F + (float)i;
    sink = a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
    (void)sink;
    return (double)iters * 16;
}

const ca_kern ca_kern_scalar = {
    .name = "scalar",
    .cpu_flags = 0,
    .type = CA_F32,
    .flow = CA_F32,
    .ks = 1,
    .k_panel = 1,
    .v_panel = 256,
    .attn_job = CA_ATTN_BLOCK,
    .attn_unit = CA_ATTN_TILE,
    .byte_flop = 2.0,
    .job_flop = 1e5,
    .attn_scratch_bytes = attn_scratch_bytes,
    .attn = attn,
    .score = score,
    .pack_q = pack_q,
    .qk = qk,
    .pack_diag = pack_diag,
    .diag = diag,
    .lse = lse,
    .powers = powers,
    .panel_dot = panel_dot,
    .page_put = page_put,
    .rmsnorm = rmsnorm,
    .rope = rope,
    .swiglu = swiglu,
    .geglu = geglu,
    .quantize = quantize,
    .convert = convert,
    .peak = peak,
};
