/* SeerAttention's gate: pooled queries against the projected pools of the keys, softmax, threshold (spec/selectors-learned.md A.6,
 * A.7, A.10). Queries are pooled per Q block of the absolute grid, over the tokens that the chunk has of it, and rotated at the first
 * of them. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "select/select.h"

/* A probability, or a multiple of the mean one. */
static bool is_threshold(const ca_seer_opt *o, float threshold)
{
    return threshold >= 0.0F && (o->relative ? isfinite(threshold) : threshold <= 1.0F);
}

static ca_status check(const ca_select_opt *opt)
{
    const ca_seer_opt *o = &opt->seer;
    const char *range = o->relative ? "a number >= 0" : "in [0, 1]";
    if (!o->gate) return ca_fail(CA_E_ARG, "seer: no gate given (see ca_gate_open)");
    if (!is_threshold(o, o->threshold)) return ca_fail(CA_E_ARG, "seer: threshold %g is not %s", (double)o->threshold, range);
    if (o->n_steps > CA_SEER_MAX_STEPS) return ca_fail(CA_E_ARG, "seer: %u steps, at most %d", o->n_steps, CA_SEER_MAX_STEPS);
    for (uint32_t i = 0; i < o->n_steps; i++)
        if (!is_threshold(o, o->steps[i].threshold) || (i > 0 && o->steps[i].max_kv <= o->steps[i - 1].max_kv))
            return ca_fail(CA_E_ARG, "seer: step %u (up to %u tokens, threshold %g): lengths must rise, thresholds be %s", i,
                           o->steps[i].max_kv, (double)o->steps[i].threshold, range);
    return CA_OK;
}

static float threshold_at(const ca_seer_opt *o, uint32_t kv_tokens)
{
    float threshold = o->threshold;
    for (uint32_t i = o->n_steps; i-- > 0;)
        if (kv_tokens <= o->steps[i].max_kv || i == o->n_steps - 1) threshold = o->steps[i].threshold;
    return threshold;
}

typedef struct scratch {
    float *feature; /* [n_qblocks][width]: pooled queries */
    float *q;       /* [n_qblocks][hidden]: projected and rotated */
    float *score;   /* [n_qblocks][n_kblocks rounded up] */
} scratch;

static size_t feature_width(const ca_gate *gate)
{
    const ca_gate_dims d = ca_gate_get_dims(gate);
    return ca_max_u32(d.q_in, gate->opt.hidden);
}

static size_t scratch_floats(const ca_gate *gate, uint32_t n_qblocks, uint32_t n_kblocks)
{
    return ca_align_up(n_qblocks * (feature_width(gate) + gate->opt.hidden + ca_align_up(n_kblocks, 16)), 16);
}

static scratch cut_scratch(const ca_gate *gate, uint32_t n_qblocks, void *mem)
{
    scratch s = { .feature = mem };
    s.q = s.feature + n_qblocks * feature_width(gate);
    s.score = s.q + (size_t)n_qblocks * gate->opt.hidden;
    return s;
}

static size_t ws_bytes(const ca_cache *cache, const ca_select_opt *opt, uint32_t n_heads, uint32_t n_tokens, uint32_t kv_tokens)
{
    (void)n_heads;
    const uint32_t bs = cache->opt.page_tokens;
    if (!opt->seer.gate) return 0; /* ca_select says so */
    return (size_t)omp_get_max_threads() * sizeof(float) *
               scratch_floats(opt->seer.gate, ca_ceil_div(n_tokens, bs) + 1, ca_ceil_div(kv_tokens, bs)) +
           64;
}

/* Gate queries of one score head, all Q blocks: s->q. */
static void gate_queries(const ca_select_job *job, uint32_t score_head, const scratch *s)
{
    const ca_gate *gate = job->opt->seer.gate;
    const ca_mask *mask = job->mask;
    const ca_gate_dims d = ca_gate_get_dims(gate);
    const uint32_t dim = gate->opt.head_dim, hidden = gate->opt.hidden, heads = mask->n_heads / d.score_heads;
    const size_t width = d.q_heads ? d.q_in : hidden;
    float cos_sin[CA_GATE_MAX_HIDDEN], pool[3 * 256];
    for (uint32_t i = 0; i < mask->n_qblocks; i++) {
        uint32_t from, to;
        ca_qblock_span(job->cache, mask, i, &from, &to);
        for (uint32_t h = 0; h < heads; h++) {
            const float *q = job->q->q_raw + (size_t)(from - job->chunk->pos) * job->q->raw_stride +
                             ((size_t)score_head * heads + h) * dim;
            ca_gate_pool(pool, dim, true, q, job->q->raw_stride, to - from);
            ca_gate_feature(pool, dim, gate->opt.q_pool, to - from, s->feature + i * width + h * (width / heads));
        }
    }
    if (d.q_heads)
        job->cache->opt.kern->panel_dot(s->feature, width, mask->n_qblocks,
                                        gate->wq[job->chunk->layer] + (size_t)score_head * d.q_in * hidden, d.q_in, hidden, s->q,
                                        hidden);
    else
        memcpy(s->q, s->feature, (size_t)mask->n_qblocks * hidden * sizeof(float));
    for (uint32_t i = 0; i < mask->n_qblocks; i++) {
        uint32_t from, to;
        ca_qblock_span(job->cache, mask, i, &from, &to);
        ca_gate_cos_sin(gate, from, cos_sin);
        ca_gate_rotate(gate, cos_sin, s->q + (size_t)i * hidden);
    }
}

/* Softmax of scale * x over [0, n). */
static void softmax(float *x, uint32_t n, float scale)
{
    float top = -INFINITY, sum = 0.0F;
    for (uint32_t j = 0; j < n; j++) top = fmaxf(top, x[j]);
    for (uint32_t j = 0; j < n; j++) {
        x[j] = expf((x[j] - top) * scale);
        sum += x[j];
    }
    for (uint32_t j = 0; j < n; j++) x[j] /= sum;
}

static void keep_row(const ca_seer_opt *o, const float *score, uint32_t diag, float threshold, uint64_t *row)
{
    const float bar = o->relative ? threshold / (float)(diag + 1) : threshold;
    for (uint32_t j = 0; j <= diag; j++)
        if (score[j] > bar) ca_mask_keep(row, j);
    if (o->bare) return;
    ca_mask_keep(row, 0);
    ca_mask_keep(row, diag);
}

static ca_status run(const ca_select_job *job)
{
    const ca_cache *cache = job->cache;
    const ca_mask *mask = job->mask;
    const ca_gate *gate = job->opt->seer.gate;
    const ca_gate_dims d = ca_gate_get_dims(gate);
    const uint32_t hidden = gate->opt.hidden, nk = mask->n_kblocks, nk16 = (uint32_t)ca_align_up(nk, 16),
                   heads = mask->n_heads / d.score_heads;
    const uint32_t group = mask->n_heads / cache->opt.n_kv_heads, k_heads = ca_gate_k_heads(gate);
    const float threshold = threshold_at(&job->opt->seer, mask->first_token + mask->n_tokens);
    const int n_threads = omp_get_max_threads();
    if (cache->opt.gate != gate) return ca_fail(CA_E_ARG, "seer: the cache keeps the summaries of another gate");
    if (gate->opt.n_heads != mask->n_heads)
        return ca_fail(CA_E_SHAPE, "seer: the gate is for %u query heads, the chunk has %u", gate->opt.n_heads, mask->n_heads);
    void *mem = NULL;
    CA_TRY(ca_ws_take(job->ws, "seer", (size_t)n_threads, scratch_floats(gate, mask->n_qblocks, nk) * sizeof(float), &mem));
#pragma omp parallel for schedule(dynamic) num_threads(n_threads)
    for (uint32_t sh = 0; sh < d.score_heads; sh++) {
        const scratch s = cut_scratch(gate, mask->n_qblocks,
                                      (float *)mem + (size_t)omp_get_thread_num() * scratch_floats(gate, mask->n_qblocks, nk));
        const uint32_t first = sh * heads; /* query heads [first, +heads) share the scores */
        const float *keys = ca_cache_head(cache, job->chunk->seq, job->chunk->layer, first / group)->gate_k +
                            (size_t)(k_heads == 1 ? 0 : first % group) * cache->blocks_cap * hidden;
        gate_queries(job, sh, &s);
        cache->opt.kern->panel_dot(s.q, hidden, mask->n_qblocks, keys, hidden, nk, s.score, nk16);
        for (uint32_t i = 0; i < mask->n_qblocks; i++) {
            const uint32_t diag = mask->first_qblock + i;
            float *score = s.score + (size_t)i * nk16;
            softmax(score, diag + 1, 1.0F / sqrtf((float)hidden));
            for (uint32_t h = first; h < first + heads; h++) {
                keep_row(&job->opt->seer, score, diag, threshold, ca_mask_row(mask, h, i));
                if (job->scores) memcpy(job->scores + ((size_t)h * mask->n_qblocks + i) * nk, score, (diag + 1) * sizeof *score);
            }
        }
    }
    return CA_OK;
}

const ca_selector_vt ca_select_seer = {
    .name = "seer",
    .summaries = CA_SUMMARY_GATE,
    .check = check,
    .ws_bytes = ws_bytes,
    .run = run,
};
