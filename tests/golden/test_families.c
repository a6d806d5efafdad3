/* Every family against Hugging Face transformers in fp32, from folders and from GGUF files: logits, hidden states, greedy tokens.
 *
 * The models are tiny and random, their logits spread by about 2. How far two correct programs lie apart was measured between
 * transformers and llama.cpp, both fp32 (last four positions, largest difference): 2e-5 at 37 tokens, up to 5e-4 at 1,100. An fp32
 * kernel set must stay within 1e-4 up to 37 tokens and 1e-3 above. A bf16 run of transformers differs from fp32 by what each
 * meta.json says (0.04 to 0.6); the bf16 set keeps the residual stream in fp32 and must stay within 1.5 times that, and within 3 times
 * with experts: the router's second and third choice lie as close as 7e-4, and another expert is another function. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <compactattn/session.h>

#include "model/model.h"

enum { PATH = 1024, GREEDY = 16, LAST = 4, MAX_HIDDEN = 1024, MAX_LAYERS = 16 };

static const uint32_t lengths[] = { 1, 37, 300, 1100 };
enum { N_LENGTHS = sizeof lengths / sizeof *lengths };

/* A model and the folder of its right answers; ids lie in the folder of the model's own. */
typedef struct golden {
    char model[PATH], ref[PATH], ids[PATH];
} golden;

static const char *fp32_isa(void)
{
    static const char *const isas[] = { "avx512", "avx2", "scalar" };
    const ca_kern *kern = NULL;
    for (size_t i = 0; i < 3; i++)
        if (ca_kern_choose(isas[i], &kern) == CA_OK) return isas[i];
    fail_msg("no kernel set");
    return NULL;
}

/* Items of 4 bytes of ref/lenN.WHAT.npy; NULL when there is no such file. */
static void *load(const char *folder, uint32_t n_tokens, const char *what, size_t *n)
{
    char path[PATH + 64];
    unsigned char head[10];
    (void)snprintf(path, sizeof path, "%s/len%04u.%s.npy", folder, n_tokens, what);
    FILE *f = fopen(path, "rb");
    if (f == NULL) return NULL;
    assert_int_equal(fread(head, 1, sizeof head, f), sizeof head);
    assert_memory_equal(head, "\x93NUMPY\x01", 7);
    const long start = 10 + head[8] + 256L * head[9];
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *n = (size_t)(ftell(f) - start) / 4;
    void *items = malloc(*n * 4 + 1);
    assert_non_null(items);
    assert_int_equal(fseek(f, start, SEEK_SET), 0);
    assert_int_equal(fread(items, 4, *n, f), *n);
    (void)fclose(f);
    return items;
}

/* The largest difference; infinite when a value is no number. */
static double largest(const float *a, const float *b, size_t n)
{
    double worst = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)a[i] - (double)b[i]);
        worst = isnan(d) ? INFINITY : fmax(worst, d);
    }
    return worst;
}

/* ---- one run ---- */

typedef struct seen {
    uint32_t vocab, n, hidden_size;
    float *logits;                            /* [LAST][vocab] */
    uint32_t n_logits;                        /* rows of it */
    float layers[MAX_LAYERS + 1][MAX_HIDDEN]; /* of the last position */
} seen;

static ca_status keep_logits(void *user, uint32_t position, const float *logits)
{
    seen *s = user;
    (void)position;
    memcpy(s->logits + (size_t)s->n_logits++ * s->vocab, logits, s->vocab * sizeof *logits);
    return CA_OK;
}

static void keep_hidden(void *user, uint32_t layer, uint32_t pos, uint32_t n, const float *x)
{
    seen *s = user;
    if (pos + n != s->n) return;
    assert_in_range(layer, 0, MAX_LAYERS);
    memcpy(s->layers[layer], x + (size_t)(n - 1) * s->hidden_size, s->hidden_size * sizeof *x);
}

static ca_session *open_session(const ca_model *model, ca_executor executor, uint32_t chunk)
{
    ca_session_opt opt;
    ca_session *session = NULL;
    ca_session_defaults(executor, &opt);
    opt.chunk = chunk;
    opt.page_tokens = 64;
    opt.context = 1100 + GREEDY;
    opt.n_threads = 2;
    if (executor == CA_EXEC_COMPACT) opt.select.flashprefill.alpha = 0.0F; /* every block passes */
    if (ca_session_create(model, &opt, &session) != CA_OK) fail_msg("%s", ca_last_error());
    return session;
}

/* Prefills ids and fills *s; the caller frees s->logits. */
static void run(const ca_model *model, ca_session *session, const uint32_t *ids, uint32_t n, seen *s)
{
    ca_model_info info;
    ca_model_get_info(model, &info);
    assert_in_range(info.hidden, 1, MAX_HIDDEN);
    *s = (seen){ .vocab = info.vocab, .n = n, .hidden_size = info.hidden };
    s->logits = calloc(LAST * (size_t)info.vocab, sizeof *s->logits);
    assert_non_null(s->logits);
    const ca_prefill_opt opt = { .user = s, .n_logits = n < LAST ? n : LAST, .on_logits = keep_logits, .on_hidden = keep_hidden };
    if (ca_session_prefill(session, ids, n, &opt) != CA_OK) fail_msg("%s", ca_last_error());
}

static ca_model *open_model(const char *path, const char *isa)
{
    ca_model *model = NULL;
    const ca_model_opt opt = { .isa = isa, .n_threads = 2 };
    if (ca_model_open(path, &opt, &model) != CA_OK) fail_msg("%s", ca_last_error());
    return model;
}

/* ---- against the right answers ---- */

/* Hidden states are compared by the norm of the difference, relative to the row's norm. */
static double relative(const float *right, const float *got, size_t n)
{
    double differences = 0.0, squares = 0.0;
    for (size_t i = 0; i < n; i++) {
        differences += ((double)right[i] - (double)got[i]) * ((double)right[i] - (double)got[i]);
        squares += (double)right[i] * (double)right[i];
    }
    return isfinite(differences) ? sqrt(differences / squares) : INFINITY;
}

static void check_hidden(const golden *g, const ca_model *model, const seen *s, double bound)
{
    size_t n = 0;
    const uint32_t hidden = s->hidden_size, n_layers = model->config.n_layers;
    float *layers = load(g->ref, s->n, "layers", &n);
    assert_non_null(layers);
    assert_int_equal(n, (n_layers + 1) * (size_t)hidden);
    for (uint32_t l = 0; l <= n_layers; l++) {
        const double error = relative(layers + (size_t)l * hidden, s->layers[l], hidden);
        if (!(error <= bound)) fail_msg("%s, %u tokens: hidden state %u differs by %g, bound %g", g->model, s->n, l, error, bound);
    }
    free(layers);
    float *final = load(g->ref, s->n, "final", &n);
    if (final == NULL) return; /* GGUF references have none */
    assert_int_equal(n, hidden);
    const float *x = s->layers[n_layers];
    float normed[MAX_HIDDEN];
    double squares = 0.0;
    for (uint32_t i = 0; i < hidden; i++) squares += (double)x[i] * (double)x[i];
    const double inverse = 1.0 / sqrt(squares / hidden + (double)model->config.rms_eps);
    for (uint32_t i = 0; i < hidden; i++) normed[i] = (float)((double)x[i] * inverse * (double)model->final_norm[i]);
    const double error = relative(final, normed, hidden);
    if (!(error <= bound)) fail_msg("%s, %u tokens: the final norm differs by %g, bound %g", g->model, s->n, error, bound);
    free(final);
}

/* Feeds the golden continuation. Another token than the golden one needs a margin that two logits can make up. */
static void check_greedy(const golden *g, uint32_t n_tokens, ca_session *session, uint32_t vocab, double bound)
{
    size_t n = 0, n_margins = 0;
    uint32_t *tokens = load(g->ref, n_tokens, "greedy", &n);
    float *margins = load(g->ref, n_tokens, "margin", &n_margins);
    assert_true(tokens != NULL && margins != NULL && n == GREEDY && n_margins == n);
    for (size_t i = 0; i < n; i++) {
        ca_sampler greedy = { .temperature = 0.0F, .top_p = 1.0F };
        uint32_t token = 0;
        assert_int_equal(ca_sample(&greedy, ca_session_logits(session), vocab, &token), CA_OK);
        if (token != tokens[i] && (double)margins[i] > 2 * bound)
            fail_msg("%s, %u tokens, step %zu: token %u, expected %u; margin %g", g->model, n_tokens, i, token, tokens[i],
                     (double)margins[i]);
        if (ca_session_decode(session, tokens[i]) != CA_OK) fail_msg("%s", ca_last_error());
    }
    free(tokens);
    free(margins);
}

/* Largest difference of logits allowed: fp32's fixed one, or a multiple of that of transformers in bf16. */
static double logit_bound(const golden *g, const ca_model *model, uint32_t n, bool bf16)
{
    char path[PATH + 16], name[16];
    if (!bf16) return n <= 37 ? 1e-4 : 1e-3;
    (void)snprintf(path, sizeof path, "%s/meta.json", g->ids);
    json_t *meta = json_load_file(path, 0, NULL);
    (void)snprintf(name, sizeof name, "len%04u", n);
    const json_t *diff = json_object_get(json_object_get(json_object_get(meta, "cases"), name), "bf16_compute_max_abs_diff_last4");
    assert_true(json_is_real(diff));
    const double bound = (model->config.n_experts > 0 ? 3.0 : 1.5) * json_real_value(diff);
    json_decref(meta);
    return bound;
}

static void check_length(const golden *g, const ca_model *model, uint32_t n, uint32_t chunk, bool bf16)
{
    size_t n_ids = 0, n_logits = 0;
    static seen s;
    const double bound = logit_bound(g, model, n, bf16);
    uint32_t *ids = load(g->ids, n, "ids", &n_ids);
    float *logits = load(g->ref, n, "logits4", &n_logits);
    assert_true(ids != NULL && n_ids == n && logits != NULL);
    ca_session *session = open_session(model, CA_EXEC_DENSE, chunk);
    run(model, session, ids, n, &s);
    assert_int_equal(n_logits, s.n_logits * (size_t)s.vocab);
    const double worst = largest(logits, s.logits, n_logits);
    if (!(worst <= bound)) fail_msg("%s, %u tokens by %u: logits differ by %g, bound %g", g->model, n, chunk, worst, bound);
    check_hidden(g, model, &s, bf16 ? 0.1 : 2e-4);
    check_greedy(g, n, session, s.vocab, bound);
    ca_session_destroy(session);
    free(s.logits);
    free(logits);
    free(ids);
}

/* ---- every model that is there ---- */

typedef void model_check(const golden *g);

static bool exists(const char *folder, const char *name)
{
    char path[PATH + 64];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

/* The GGUF files of a model, NAME-FORMAT.gguf, with their answers: ref_FORMAT, or those of the folder. */
static unsigned visit_files(const char *model, model_check *check)
{
    char folder[PATH];
    unsigned n = 0;
    (void)snprintf(folder, sizeof folder, "%.900s/gguf", model);
    DIR *dir = opendir(folder);
    if (dir == NULL) return 0;
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        golden g = { 0 };
        const char *dash = strrchr(entry->d_name, '-'), *end = strstr(entry->d_name, ".gguf");
        if (dash == NULL || end == NULL) continue;
        (void)snprintf(g.model, sizeof g.model, "%.900s/%.100s", folder, entry->d_name);
        (void)snprintf(g.ref, sizeof g.ref, "%.900s/ref_%.*s", folder, (int)(end - dash - 1), dash + 1);
        (void)snprintf(g.ids, sizeof g.ids, "%.900s/ref", model);
        if (access(g.ref, F_OK) != 0) memcpy(g.ref, g.ids, sizeof g.ref);
        check(&g);
        n++;
    }
    (void)closedir(dir);
    return n;
}

/* Runs check on the models of a folder of models; returns how many there were. */
static unsigned visit(const char *folder, bool files, model_check *check)
{
    unsigned n = 0;
    DIR *dir = opendir(folder);
    if (dir == NULL) return 0;
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        golden g = { 0 };
        if (entry->d_name[0] == '.' || !exists(folder, entry->d_name)) continue;
        (void)snprintf(g.model, sizeof g.model, "%.700s/%.100s", folder, entry->d_name);
        (void)snprintf(g.ref, sizeof g.ref, "%.900s/ref", g.model);
        memcpy(g.ids, g.ref, sizeof g.ids);
        if (files) n += visit_files(g.model, check);
        if (files || !(exists(g.model, "model.safetensors") || exists(g.model, "model.safetensors.index.json"))) continue;
        check(&g);
        n++;
    }
    (void)closedir(dir);
    return n;
}

static void visit_all(bool files, model_check *check)
{
    assert_true(visit(CA_TEST_DATA "/models", files, check) >= (files ? 1 : 4));
    (void)visit(CA_SHARED_GOLDEN "/models", files, check);
}

/* ---- the tests ---- */

static void check_fp32(const golden *g)
{
    ca_model *model = open_model(g->model, fp32_isa());
    for (size_t i = 0; i < N_LENGTHS; i++) check_length(g, model, lengths[i], lengths[i], false);
    check_length(g, model, 300, 64, false);
    check_length(g, model, 1100, 37, false);
    ca_model_close(model);
}

/* Frequencies of both kinds of layers and the factor of cosines and sines, as transformers has them. */
static void check_rotation(const golden *g)
{
    static const char *const names[2][3] = { { "inv_freq", "full_attention_inv_freq", "full_attention" },
                                             { NULL, "sliding_attention_inv_freq", "sliding_attention" } };
    char path[PATH + 16];
    (void)snprintf(path, sizeof path, "%s/meta.json", g->ids);
    json_t *meta = json_load_file(path, 0, NULL);
    const json_t *all = json_object_get(meta, "rope_inv_freq"), *types = json_object_get(meta, "layer_types");
    const json_t *factors = json_object_get(meta, "attention_scaling");
    ca_model *model = NULL;
    assert_int_equal(ca_model_open(g->model, &(ca_model_opt){ .forecast_only = true }, &model), CA_OK);
    if (json_is_array(types)) assert_int_equal(json_array_size(types), model->config.n_layers);
    for (uint32_t r = 0; r < model->n_rotations; r++) {
        const json_t *freqs = NULL;
        for (size_t i = 0; i < 2 && freqs == NULL; i++) freqs = names[r][i] != NULL ? json_object_get(all, names[r][i]) : NULL;
        assert_int_equal(json_array_size(freqs), model->config.head_dim / 2);
        for (uint32_t i = 0; i < model->config.head_dim / 2; i++) {
            const double right = json_real_value(json_array_get(freqs, i));
            if (!(fabs(model->inv_freq[r][i] / right - 1.0) < 2e-6))
                fail_msg("%s: pair %u of rotation %u turns by %g, expected %g", g->model, i, r, model->inv_freq[r][i], right);
        }
    }
    const json_t *factor = json_object_get(factors, "attention_scaling");
    if (factor != NULL) assert_true(fabs((double)model->config.rope[0].magnitude - json_number_value(factor)) < 1e-6);
    for (size_t l = 0; l < json_array_size(types); l++)
        assert_int_equal(model->config.sliding[l], strcmp(json_string_value(json_array_get(types, l)), names[1][2]) == 0);
    ca_model_close(model);
    json_decref(meta);
}

static void test_rotation(void **state)
{
    (void)state;
    visit_all(false, check_rotation);
    visit_all(true, check_rotation);
}

static void check_avx2(const golden *g)
{
    ca_model *model = open_model(g->model, "avx2");
    check_length(g, model, 37, 37, false);
    check_length(g, model, 300, 128, false);
    ca_model_close(model);
}

static void test_avx2(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    if (ca_kern_choose("avx2", &kern) != CA_OK) skip();
    (void)visit(CA_TEST_DATA "/models", false, check_avx2);
}

static void check_bf16(const golden *g)
{
    ca_model *model = open_model(g->model, "avx512bf16");
    for (size_t i = 0; i < N_LENGTHS; i++) check_length(g, model, lengths[i], 512, true);
    ca_model_close(model);
}

static void test_folders_fp32(void **state)
{
    (void)state;
    visit_all(false, check_fp32);
}

static void test_files_fp32(void **state)
{
    (void)state;
    visit_all(true, check_fp32);
}

static void need_bf16(void)
{
    const ca_kern *kern = NULL;
    if (ca_kern_choose("avx512bf16", &kern) == CA_OK) return;
    print_message("%s\n", ca_last_error());
    skip();
}

static void test_folders_bf16(void **state)
{
    (void)state;
    need_bf16();
    visit_all(false, check_bf16);
}

static void test_files_bf16(void **state)
{
    (void)state;
    need_bf16();
    visit_all(true, check_bf16);
}

/* With every block passing, compactattn's tables hold what dense ones do: the same bits come out, sliding layers included. */
static void check_full_budget(const golden *g)
{
    size_t n_ids = 0;
    static seen dense, compact;
    ca_model *model = open_model(g->model, NULL);
    uint32_t *ids = load(g->ids, 1100, "ids", &n_ids);
    assert_non_null(ids);
    ca_session *a = open_session(model, CA_EXEC_DENSE, 256), *b = open_session(model, CA_EXEC_COMPACT, 256);
    run(model, a, ids, 1100, &dense);
    run(model, b, ids, 1100, &compact);
    ca_session_stats stats;
    ca_session_get_stats(b, &stats);
    assert_true(stats.kept_fraction > 0.999);
    if (memcmp(dense.logits, compact.logits, LAST * (size_t)dense.vocab * sizeof(float)) != 0)
        fail_msg("%s: compactattn at full budget differs from dense by %g", g->model,
                 largest(dense.logits, compact.logits, LAST * (size_t)dense.vocab));
    ca_session_destroy(a);
    ca_session_destroy(b);
    ca_model_close(model);
    free(dense.logits);
    free(compact.logits);
    free(ids);
}

static void test_full_budget(void **state)
{
    (void)state;
    visit_all(false, check_full_budget);
}

/* A folder's weights and their forecast: the bf16 set packs bf16 weights at their own size, but for padding. */
static void check_forecast(const golden *g)
{
    ca_model *model = NULL;
    ca_model_info forecast, info;
    ca_session *session = NULL;
    ca_session_opt opt;
    const ca_model_opt only = { .forecast_only = true };
    assert_int_equal(ca_model_open(g->model, &only, &model), CA_OK);
    ca_model_get_info(model, &forecast);
    ca_session_defaults(CA_EXEC_DENSE, &opt);
    assert_int_equal(ca_session_forecast(model, &opt, &(ca_session_memory){ 0 }), CA_OK);
    assert_int_equal(ca_session_create(model, &opt, &session), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "forecast only"));
    ca_model_close(model);
    model = open_model(g->model, NULL);
    ca_model_get_info(model, &info);
    assert_memory_equal(&forecast, &info, sizeof info);
    uint64_t packed = 0;
    for (uint32_t l = 0; l < info.n_layers; l++) {
        const ca_layer *layer = &model->layers[l];
        const ca_gemm_weight *const weights[] = { layer->qkv, layer->o, layer->gate_up, layer->down, layer->router };
        for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
            packed += weights[i] != NULL ? ca_gemm_weight_bytes(weights[i]) : 0;
        for (uint32_t e = 0; layer->experts != NULL && e < info.n_experts; e++)
            packed += ca_gemm_weight_bytes(layer->experts[e].gate_up) + ca_gemm_weight_bytes(layer->experts[e].down);
    }
    assert_int_equal(info.packed_bytes, packed + ca_gemm_weight_bytes(model->output));
    ca_model_close(model);
}

static void test_forecast(void **state)
{
    (void)state;
    visit_all(false, check_forecast);
    visit_all(true, check_forecast);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rotation),    cmocka_unit_test(test_avx2),         cmocka_unit_test(test_folders_fp32),
        cmocka_unit_test(test_files_fp32),  cmocka_unit_test(test_folders_bf16), cmocka_unit_test(test_files_bf16),
        cmocka_unit_test(test_full_budget), cmocka_unit_test(test_forecast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
