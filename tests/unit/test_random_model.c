/* Models of a shape: config.json and weights that are drawn at random. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <compactattn/compactattn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load/draw.h"

#define COMMON                                                                                                                     \
    "\"hidden_size\": 96, \"intermediate_size\": 160, \"num_hidden_layers\": 3, \"num_attention_heads\": 6, "                      \
    "\"num_key_value_heads\": 2, \"head_dim\": 32, \"vocab_size\": 300, \"max_position_embeddings\": 2048, "                       \
    "\"rms_norm_eps\": 1e-6"

static const struct family_case {
    const char *architecture, *config;
    uint64_t n_params;
    uint32_t n_sliding;
} families[] = {
    { "llama", "{\"model_type\": \"llama\", " COMMON ", \"attention_bias\": true}",
      2 * 300 * 96 + 96 + 3 * (2 * 96 + (6 + 4) * 32 * 97 + 96 * 193 + 3 * 96 * 160), 0 },
    { "qwen2", "{\"model_type\": \"qwen2\", " COMMON ", \"tie_word_embeddings\": true}",
      300 * 96 + 96 + 3 * (2 * 96 + (6 + 4) * 32 * 97 + 96 * 192 + 3 * 96 * 160), 0 },
    { "qwen3", "{\"model_type\": \"qwen3\", " COMMON "}",
      2 * 300 * 96 + 96 + 3 * (2 * 96 + 2 * 32 + (6 + 4) * 32 * 96 + 96 * 192 + 3 * 96 * 160), 0 },
    { "qwen3moe",
      "{\"model_type\": \"qwen3_moe\", " COMMON
      ", \"num_experts\": 4, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 48, \"mlp_only_layers\": [0]}",
      2 * 300 * 96 + 96 + 3 * (2 * 96 + 2 * 32 + (6 + 4) * 32 * 96 + 96 * 192) + 3 * 96 * 160 + 2 * (4 * 96 + 4 * 3 * 96 * 48), 0 },
    { "gemma3",
      "{\"model_type\": \"gemma3_text\", " COMMON
      ", \"sliding_window\": 128, \"sliding_window_pattern\": 2, \"query_pre_attn_scalar\": 32}",
      300 * 96 + 96 + 3 * (4 * 96 + 2 * 32 + (6 + 4) * 32 * 96 + 96 * 192 + 3 * 96 * 160), 2 },
};

enum { N_FAMILIES = sizeof families / sizeof *families, TOKENS = 700, VOCAB = 300 };

static char path[] = "/tmp/ca_random_XXXXXX.json";

static void write_config(const char *text)
{
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

static ca_model *open_random(uint64_t seed, uint32_t n_layers, int n_threads)
{
    ca_model *model = NULL;
    const ca_model_opt opt = { .n_threads = n_threads };
    if (ca_model_open_random(path, seed, n_layers, &opt, &model) != CA_OK) fail_msg("%s", ca_last_error());
    return model;
}

/* The logits behind TOKENS tokens; the caller frees them. full: an executor of tables, of which everything is asked. */
static float *logits_of(const ca_model *model, bool full)
{
    ca_session_opt opt;
    ca_session *session = NULL;
    uint32_t ids[TOKENS];
    float *copy = malloc(VOCAB * sizeof *copy);
    assert_non_null(copy);
    for (uint32_t i = 0; i < TOKENS; i++) ids[i] = i * 7919 % VOCAB;
    ca_session_defaults(full ? CA_EXEC_COMPACT : CA_EXEC_DENSE, &opt);
    opt.chunk = 256;
    opt.page_tokens = 32;
    opt.n_threads = 1;
    opt.context = TOKENS;
    opt.dense_tail = 0;
    opt.select.flashprefill.alpha = 0.0F;
    opt.select.flashprefill.min_budget = TOKENS;
    if (ca_session_create(model, &opt, &session) != CA_OK) fail_msg("%s", ca_last_error());
    if (ca_session_prefill(session, ids, TOKENS, NULL) != CA_OK) fail_msg("%s", ca_last_error());
    memcpy(copy, ca_session_logits(session), VOCAB * sizeof *copy);
    ca_session_destroy(session);
    return copy;
}

static bool same(const float *a, const float *b)
{
    return memcmp(a, b, VOCAB * sizeof *a) == 0;
}

static void test_families(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        const struct family_case *c = &families[i];
        ca_model_info info;
        write_config(c->config);
        ca_model *model = open_random(1, 0, 1), *threads = open_random(1, 0, 3), *other = open_random(2, 0, 1);
        ca_model_get_info(model, &info);
        assert_string_equal(info.architecture, c->architecture);
        assert_int_equal(info.n_layers, 3);
        assert_int_equal(info.n_layers_whole, 3);
        assert_int_equal(info.n_params, c->n_params);
        assert_int_equal(info.n_sliding, c->n_sliding);
        assert_int_equal(info.vocab, VOCAB);
        assert_int_equal(info.file_bytes, 0);
        assert_true(info.packed_bytes > c->n_params);
        assert_null(ca_model_tokenizer(model));
        assert_memory_equal(info.name, "ca_random_", 10);

        float *dense = logits_of(model, false), *full = logits_of(model, true), *threaded = logits_of(threads, false),
              *reseeded = logits_of(other, false), spread = 0.0F;
        for (size_t j = 0; j < VOCAB; j++) {
            assert_true(isfinite(dense[j]) && fabsf(dense[j]) < 10.0F);
            spread = fmaxf(spread, fabsf(dense[j] - dense[0]));
        }
        assert_true(spread > 0.05F);
        assert_true(same(dense, full));
        assert_true(same(dense, threaded));
        assert_false(same(dense, reseeded));
        free(dense);
        free(full);
        free(threaded);
        free(reseeded);
        ca_model_close(model);
        ca_model_close(threads);
        ca_model_close(other);
    }
}

struct hidden {
    uint32_t layer;
    float x[TOKENS * 96];
};

static void keep_hidden(void *user, uint32_t layer, uint32_t pos, uint32_t n, const float *x)
{
    struct hidden *h = user;
    if (layer == h->layer) memcpy(h->x + (size_t)pos * 96, x, (size_t)n * 96 * sizeof *x);
}

/* The first layers do not depend on how many are built. */
static void test_layers(void **state)
{
    (void)state;
    static struct hidden hidden[2];
    uint32_t ids[TOKENS];
    for (uint32_t i = 0; i < TOKENS; i++) ids[i] = i % VOCAB;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        write_config(families[i].config);
        for (uint32_t part = 0; part < 2; part++) {
            ca_model *model = open_random(5, part == 0 ? 2 : 3, 1);
            ca_model_info info;
            ca_session *session = NULL;
            ca_session_opt opt;
            ca_model_get_info(model, &info);
            assert_int_equal(info.n_layers, part == 0 ? 2 : 3);
            assert_int_equal(info.n_layers_whole, 3);
            ca_session_defaults(CA_EXEC_DENSE, &opt);
            opt.n_threads = 1;
            hidden[part].layer = 2; /* the output of the second */
            assert_int_equal(ca_session_create(model, &opt, &session), CA_OK);
            const ca_prefill_opt prefill = { .user = &hidden[part], .on_hidden = keep_hidden };
            assert_int_equal(ca_session_prefill(session, ids, TOKENS, &prefill), CA_OK);
            ca_session_destroy(session);
            ca_model_close(model);
        }
        assert_memory_equal(hidden[0].x, hidden[1].x, sizeof hidden[0].x);
    }
}

/* Mean, deviation and range of what is drawn; rows are the same however they are read. */
static void test_draws(void **state)
{
    (void)state;
    enum { ROWS = 512, WIDTH = 192 };
    const uint64_t dims[] = { WIDTH, ROWS };
    const ca_tensor t = ca_draw_tensor(3, "a", 2, dims), u = ca_draw_tensor(3, "b", 2, dims);
    float *x = malloc((size_t)ROWS * WIDTH * sizeof *x), row[WIDTH];
    double sum = 0.0, squares = 0.0, fourth = 0.0, top = 0.0, along = 0.0;
    assert_non_null(x);
    ca_draw_rows(&t, 0, ROWS, x);
    const double n = (double)ROWS * WIDTH;
    for (size_t i = 0; i < (size_t)ROWS * WIDTH; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
        fourth += pow((double)x[i], 4);
        top = fmax(top, fabs((double)x[i]));
        if (i > 0) along += (double)x[i] * (double)x[i - 1];
    }
    const double variance = squares / n;
    assert_true(fabs(sum / n) < 4 * 0.02 / sqrt(n));
    assert_true(fabs(sqrt(variance) - 0.02) < 2e-4);
    assert_true(top > 0.06 && top < 0.0693);
    assert_true(fabs(fourth / n / variance / variance - 2.7) < 0.05); /* kurtosis of four uniform numbers: 3 - 1.2/4 */
    assert_true(fabs(along / squares) < 0.02);
    ca_draw_rows(&t, 77, 1, row);
    assert_memory_equal(row, x + (size_t)77 * WIDTH, sizeof row);
    ca_draw_rows(&u, 77, 1, row);
    assert_memory_not_equal(row, x + (size_t)77 * WIDTH, sizeof row);
    free(x);
}

/* The shapes that come with the program, against the published numbers of parameters. */
static void test_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        uint64_t n_params;
        uint32_t n_layers;
    } shapes[] = {
        { "llama-3.1-8b", 8030261248, 32 },   { "qwen2.5-7b", 7615616512, 28 },   { "qwen3-8b", 8190735360, 36 },
        { "qwen3-30b-a3b", 30532122624, 48 }, { "gemma-3-12b", 11766034176, 48 }, { "smollm2-135m", 134515008, 30 },
    };
    const ca_model_opt forecast = { .forecast_only = true };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        char file[512];
        ca_model *model = NULL;
        ca_model_info info;
        snprintf(file, sizeof file, "%s/../../data/shapes/%s.json", CA_TEST_DATA, shapes[i].file);
        if (ca_model_open_random(file, 0, 0, &forecast, &model) != CA_OK) fail_msg("%s", ca_last_error());
        ca_model_get_info(model, &info);
        assert_string_equal(info.name, shapes[i].file);
        assert_int_equal(info.n_params, shapes[i].n_params);
        assert_int_equal(info.n_layers, shapes[i].n_layers);
        const uint64_t embedding = info.tied_output ? 0 : (uint64_t)info.vocab * info.hidden; /* not packed */
        assert_true((double)info.packed_bytes > 1.999 * (double)(info.n_params - embedding));
        ca_model_close(model);
    }
}

/* The experts of a token together are as wide as the network of the dense twin. */
static void test_dense_twin(void **state)
{
    (void)state;
    static const char *const files[] = { "qwen3-30b-a3b", "qwen3-30b-a3b-dense-equivalent" };
    const ca_model_opt forecast = { .forecast_only = true };
    ca_model_info info[2];
    for (size_t i = 0; i < 2; i++) {
        char file[512];
        ca_model *model = NULL;
        snprintf(file, sizeof file, "%s/../../data/shapes/%s.json", CA_TEST_DATA, files[i]);
        if (ca_model_open_random(file, 0, 1, &forecast, &model) != CA_OK) fail_msg("%s", ca_last_error());
        ca_model_get_info(model, &info[i]);
        ca_model_close(model);
    }
    assert_int_equal(info[1].ffn, info[0].experts_per_token * info[0].expert_ffn);
    assert_int_equal(info[1].n_experts, 0);
    assert_int_equal(info[1].hidden, info[0].hidden);
    assert_int_equal(info[1].n_heads, info[0].n_heads);
    assert_int_equal(info[1].n_kv_heads, info[0].n_kv_heads);
    assert_int_equal(info[1].n_layers_whole, info[0].n_layers_whole);
}

static void test_bad(void **state)
{
    (void)state;
    static const struct {
        const char *config; /* NULL: no such file */
        uint32_t n_layers;
        ca_status status;
        const char *says;
    } cases[] = {
        { NULL, 0, CA_E_IO, "ca_random_" },
        { "{", 0, CA_E_FORMAT, "line 1" },
        { "[1]", 0, CA_E_FORMAT, "no JSON object" },
        { "{}", 0, CA_E_FORMAT, "'model_type' is missing" },
        { "{\"model_type\": \"mamba\"}", 0, CA_E_UNSUPPORTED, "'mamba' is not supported" },
        { "{\"model_type\": \"llama\"}", 0, CA_E_FORMAT, "'num_hidden_layers' is missing" },
        { "{\"model_type\": \"llama\", " COMMON "}", 4, CA_E_ARG, "4 layers are asked for, the model has 3" },
        { "{\"model_type\": \"llama\", " COMMON ", \"hidden_act\": \"relu\"}", 0, CA_E_UNSUPPORTED, "'relu'" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ca_model *model = NULL;
        (void)unlink(path);
        if (cases[i].config != NULL) write_config(cases[i].config);
        assert_int_equal(ca_model_open_random(path, 0, cases[i].n_layers, NULL, &model), cases[i].status);
        assert_null(model);
        if (strstr(ca_last_error(), cases[i].says) == NULL) fail_msg("'%s' not in: %s", cases[i].says, ca_last_error());
    }
    assert_int_equal(ca_model_open_random(NULL, 0, 0, NULL, &(ca_model *){ NULL }), CA_E_ARG);
}

/* What needs a tokenizer says that there is none. */
static void test_no_tokenizer(void **state)
{
    (void)state;
    uint32_t *ids = NULL;
    size_t n = 0;
    assert_int_equal(ca_tokenize(NULL, "a", 1, 0, &ids, &n), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "no tokenizer"));
    char *text = NULL;
    assert_int_equal(ca_chat_render(NULL, NULL, 0, true, &text, &n), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "no tokenizer"));
}

int main(void)
{
    const int file = mkstemps(path, 5);
    if (file < 0) return 1;
    (void)close(file);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),     cmocka_unit_test(test_layers),     cmocka_unit_test(test_draws),
        cmocka_unit_test(test_shapes),       cmocka_unit_test(test_dense_twin), cmocka_unit_test(test_bad),
        cmocka_unit_test(test_no_tokenizer),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
