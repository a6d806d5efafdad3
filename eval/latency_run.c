#include "eval/latency.h"

#include "cli/clock.h"
#include "cli/interrupt.h"
#include "cli/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A line of a file of /proc, in bytes; 0 when it is not there. */
static uint64_t memory_line(const char *path, const char *key)
{
    char line[128];
    uint64_t kib = 0;
    FILE *in = fopen(path, "r");
    while (in && fgets(line, sizeof line, in)) {
        if (strncmp(line, key, strlen(key)) == 0) kib = strtoull(line + strlen(key), NULL, 10);
    }
    if (in) fclose(in);
    return kib * 1024;
}

uint64_t latency_resident(void)
{
    return memory_line("/proc/self/status", "VmRSS:");
}

double latency_gflop(const ca_model_info *info, double n, double keep)
{
    const double attn = (double)info->n_heads * info->head_dim, kv = (double)info->n_kv_heads * info->head_dim;
    const double ffn = info->n_experts > 0 ? (double)info->experts_per_token * info->expert_ffn : info->ffn;
    const double token = info->hidden * (2 * attn + 2 * kv + 3 * ffn + info->n_experts) * info->n_layers; /* multiplications */
    const double window = info->n_sliding > 0 && info->window < n ? info->window : n;
    const double whole = n * n / 2 * keep, near = window * window / 2 + (n - window) * window; /* (query, key) pairs */
    return 2e-9 * (token * n + 2 * attn * (whole * (info->n_layers - info->n_sliding) + near * info->n_sliding));
}

/* Lets the high-water mark start anew; false where the system does not. */
static bool reset_peak(void)
{
    FILE *out = fopen("/proc/self/clear_refs", "w");
    const bool written = out && fputs("5", out) >= 0;
    return out && fclose(out) == 0 && written;
}

struct steps {
    const struct latency_job *job;
    double done; /* tokens of the steps before this one */
};

static void on_progress(void *user, double done, double total)
{
    const struct steps *steps = user;
    (void)total;
    if (steps->job->on_progress) steps->job->on_progress(steps->job->user, steps->done + done);
}

/* Where the last call of ca_session_prefill starts: at a chunk's start, with room for the dense tail behind it. */
static uint32_t last_step(const struct latency_job *job)
{
    const uint32_t chunk = job->opt->chunk, tail = job->opt->dense_tail;
    uint32_t from = (job->length - 1) / chunk * chunk;
    while (from > 0 && job->length - from < tail) from -= chunk;
    return from;
}

static ca_status read_batch(const struct latency_job *job, json_t *chunk_ms)
{
    struct steps steps = { .job = job };
    const uint32_t last = last_step(job);
    for (uint32_t at = 0, n = 0; at < job->length; at += n) {
        const double start = clock_ms();
        n = at < last ? job->opt->chunk : job->length - at;
        const ca_prefill_opt opt = {
            .user = &steps, .on_progress = on_progress, .cancel = &interrupt_flag, .more_follows = at < last
        };
        for (uint32_t b = 0; b < job->batch; b++) {
            const ca_status status = ca_session_prefill(job->sessions[b], job->ids + (size_t)b * job->length + at, n, &opt);
            if (status != CA_OK) return status;
            steps.done += n;
        }
        json_array_append_new(chunk_ms, json_number(clock_ms() - start));
    }
    return CA_OK;
}

/* Sums over the sessions, and over layers that slide and layers that do not. */
struct sums {
    double select, table, kernel, gemm, module, module_gemm, layers, kept;
    double module_of[2];
    uint32_t n_of[2];
};

static void add_session(const struct latency_job *job, const ca_session *session, struct sums *sums, double *layer_ms)
{
    ca_session_stats s;
    ca_layer_stats layer;
    ca_session_get_stats(session, &s);
    sums->select += s.select_ms;
    sums->table += s.table_ms;
    sums->kernel += s.kernel_ms;
    sums->gemm += s.gemm_ms;
    sums->module += s.module_ms;
    sums->module_gemm += s.module_gemm_ms;
    sums->layers += s.layers_ms;
    sums->kept += s.kept_fraction / job->batch;
    sums->n_of[0] = sums->n_of[1] = 0;
    for (uint32_t l = 0; ca_session_get_layer_stats(session, l, &layer) == CA_OK; l++) {
        layer_ms[l] += layer.module_ms;
        sums->module_of[layer.window > 0] += layer.module_ms;
        sums->n_of[layer.window > 0]++;
    }
}

/* What all layers would take: layers of a kind are alike, what is outside of them is there once. NaN when a kind was not built. */
static void extrapolate(const struct latency_job *job, const struct sums *sums, double e2e, json_t *row)
{
    const ca_model_info *whole = job->whole;
    const uint32_t n[2] = { whole->n_layers - whole->n_sliding, whole->n_sliding }, built = sums->n_of[0] + sums->n_of[1];
    double module = 0, rest = (sums->layers - sums->module) / built * whole->n_layers;
    if (built == whole->n_layers) return;
    for (int kind = 0; kind < 2; kind++) {
        if (n[kind] > 0) module += sums->n_of[kind] > 0 ? sums->module_of[kind] / sums->n_of[kind] * n[kind] : NAN;
    }
    json_object_set_new(row, "e2e_extrapolated_ms", json_number(e2e - sums->layers + rest + module));
    json_object_set_new(row, "attn_module_extrapolated_ms", json_number(module));
}

static ca_status describe(const struct latency_job *job, double e2e, json_t *chunk_ms, json_t *row)
{
    struct sums s = { 0 };
    ca_model_info info;
    ca_model_get_info(job->model, &info);
    double *layer_ms = calloc(info.n_layers, sizeof *layer_ms);
    if (!layer_ms) return CA_E_MEMORY;
    for (uint32_t b = 0; b < job->batch; b++) add_session(job, job->sessions[b], &s, layer_ms);
    const double core = s.select + s.table + s.kernel;
    json_t *layers = json_array();
    for (uint32_t l = 0; l < info.n_layers; l++) json_array_append_new(layers, json_number(layer_ms[l]));
    free(layer_ms);
    (void)json_object_update_new(
        row,
        json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:O, s:o, s:I}", "e2e_ms", json_number(e2e), "attn_module_ms",
                  json_number(s.module), "attn_core_ms", json_number(core), "kernel_ms", json_number(s.kernel), "select_ms",
                  json_number(s.select), "table_ms", json_number(s.table), "gemm_ms", json_number(s.gemm), "attn_gemm_ms",
                  json_number(s.module_gemm), "other_ms", json_number(e2e - core - s.gemm), "per_layer_attn_ms", layers,
                  "per_chunk_ms", chunk_ms, "kept_block_fraction", json_number(s.kept), "peak_mem_bytes", (json_int_t)*job->peak));
    extrapolate(job, &s, e2e, row);
    return CA_OK;
}

static ca_status prepare(const struct latency_job *job)
{
    for (uint32_t b = 0; b < job->batch; b++) {
        const ca_status status = job->sessions[b] ? ca_session_truncate(job->sessions[b], 0)
                                                  : ca_session_create(job->model, job->opt, &job->sessions[b]);
        if (status != CA_OK) return status;
    }
    return CA_OK;
}

/* A session takes its memory in its first run. What other methods' sessions hold by then is not counted. */
ca_status latency_run(const struct latency_job *job, json_t *row)
{
    const uint64_t before = latency_resident();
    const bool resets = *job->peak == 0 && reset_peak();
    ca_status status = prepare(job);
    if (status != CA_OK) return status;
    json_t *chunk_ms = json_array();
    const double start = clock_ms();
    status = read_batch(job, chunk_ms);
    const double e2e = clock_ms() - start;
    const uint64_t peak = resets ? memory_line("/proc/self/status", "VmHWM:") : latency_resident();
    if (*job->peak == 0) *job->peak = job->baseline + (peak > before ? peak - before : 0);
    if (status == CA_OK) status = describe(job, e2e, chunk_ms, row);
    json_decref(chunk_ms);
    return status;
}
