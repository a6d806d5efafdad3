/* A llama read from GGUF against the formulas in double precision, and what each kind of wrong file is called. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <compactattn/session.h>

#include "tiny_model.h"

static const char *const isas[] = { "avx512bf16", "avx512", "avx2", "scalar" };

static ca_status open_isa(const char *path, const char *isa, ca_model **out)
{
    const ca_model_opt opt = { .isa = isa };
    return ca_model_open(path, &opt, out);
}

typedef struct seen {
    double *got; /* [n][TINY_VOCAB] */
    uint32_t next;
} seen;

static ca_status keep_logits(void *user, uint32_t position, const float *logits)
{
    seen *s = user;
    assert_int_equal(position, s->next++);
    for (size_t i = 0; i < TINY_VOCAB; i++) s->got[position * (size_t)TINY_VOCAB + i] = (double)logits[i];
    return CA_OK;
}

/* sqrt(sum of squared differences / sum of squares) over all positions; -1 when the machine lacks the ISA. */
static double forward_error(const tiny_model *tiny, const char *isa, const uint32_t *tokens, uint32_t n, const double *expected)
{
    ca_model *model = NULL;
    ca_session *session = NULL;
    if (open_isa(tiny->path, isa, &model) != CA_OK) {
        if (strstr(ca_last_error(), "CPU") != NULL) return -1.0; /* this machine lacks the ISA */
        fail_msg("%s", ca_last_error());
    }
    ca_session_opt opt;
    ca_session_defaults(CA_EXEC_DENSE, &opt);
    opt.chunk = 37;
    opt.page_tokens = 32;
    opt.n_threads = 2;
    seen s = { .got = calloc((size_t)n * TINY_VOCAB, sizeof(double)) };
    assert_non_null(s.got);
    assert_int_equal(ca_session_create(model, &opt, &session), CA_OK);
    const ca_prefill_opt prefill = { .user = &s, .n_logits = n, .on_logits = keep_logits };
    assert_int_equal(ca_session_prefill(session, tokens, n, &prefill), CA_OK);
    assert_int_equal(s.next, n);
    double differences = 0.0, squares = 0.0;
    for (size_t i = 0; i < (size_t)n * TINY_VOCAB; i++) {
        differences += (s.got[i] - expected[i]) * (s.got[i] - expected[i]);
        squares += expected[i] * expected[i];
    }
    ca_session_destroy(session);
    ca_model_close(model);
    free(s.got);
    return sqrt(differences / squares);
}

static const struct shape_case {
    tiny_spec spec;
    const char *covers;
} shapes[] = {
    { { .hidden = 64, .n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .head_dim = 16, .ffn = 96, .context = 640 }, "GQA 2, tied" },
    { { .hidden = 48, .n_layers = 1, .n_heads = 6, .n_kv_heads = 2, .head_dim = 32, .ffn = 80, .context = 128, .untied = true },
      "heads wider than the hidden state, untied output" },
    { { .hidden = 40, .n_layers = 3, .n_heads = 1, .n_kv_heads = 1, .head_dim = 48, .ffn = 17, .context = 128, .rope_freqs = true },
      "one head, frequency divisors, nothing divides" },
    { { .hidden = 32, .n_layers = 1, .n_heads = 3, .n_kv_heads = 3, .head_dim = 64, .ffn = 64, .context = 128 },
      "no sharing of KV heads" },
};

/* fp32 sums of a hundred terms through a few layers: some 1e-6. bf16 rounds every input of a product by up to 2^-9, half of that on
 * average, through attention that these weights make sharp: some percent. A wrong row order, frequency or head map: about 1. */
static void test_forward(void **state)
{
    (void)state;
    enum { N = 90 };
    uint32_t tokens[N];
    for (uint32_t i = 0; i < N; i++) tokens[i] = (i * i * 7 + i / 3) % TINY_VOCAB;
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++) {
        tiny_model *tiny = tiny_new(&shapes[c].spec);
        double *expected = tiny_forward(tiny, tokens, N);
        int n_run = 0;
        for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
            const double error = forward_error(tiny, isas[i], tokens, N, expected);
            if (error < 0.0) continue;
            n_run++;
            const double bound = i == 0 ? 0.05 : 1e-5;
            if (!(error <= bound)) fail_msg("%s, %s: relative error %g, bound %g", shapes[c].covers, isas[i], error, bound);
        }
        assert_true(n_run > 0);
        free(expected);
        tiny_free(tiny);
    }
}

static void test_info(void **state)
{
    (void)state;
    tiny_model *tiny = tiny_new(&tiny_plain);
    ca_model *model = NULL;
    ca_model_info info;
    assert_int_equal(ca_model_open(tiny->path, NULL, &model), CA_OK);
    ca_model_get_info(model, &info);
    assert_string_equal(info.architecture, "llama");
    assert_string_equal(info.name, "tiny");
    assert_int_equal(info.n_layers, 2);
    assert_int_equal(info.hidden, 64);
    assert_int_equal(info.n_heads, 4);
    assert_int_equal(info.n_kv_heads, 2);
    assert_int_equal(info.head_dim, 16);
    assert_int_equal(info.ffn, 96);
    assert_int_equal(info.vocab, 256);
    assert_int_equal(info.max_context, 640);
    assert_true(info.tied_output);
    assert_true(info.rope_theta == tiny_theta && info.rms_eps == tiny_eps);
    uint64_t n_params = 0;
    for (size_t i = 0; i < tiny->n_tensors; i++) n_params += tiny->tensors[i].dims[0] * tiny->tensors[i].dims[1];
    assert_int_equal(info.n_params, n_params);
    assert_true(info.packed_bytes >= 2 * (n_params - (5 * 64)));
    assert_true(info.file_bytes > 4 * n_params);
    assert_int_equal(ca_tokenizer_size(ca_model_tokenizer(model)), 256);
    ca_model_close(model);
    ca_model_close(NULL);
    tiny_free(tiny);
}

#define PLAIN .hidden = 64, .n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .head_dim = 16, .ffn = 96, .context = 640

static const struct bad_case {
    tiny_spec spec;
    ca_status status;
    const char *says;
} bad[] = {
    { { PLAIN, .architecture = "mamba" }, CA_E_UNSUPPORTED, "architecture 'mamba' is not supported" },
    { { PLAIN, .skip_key = "llama.block_count" }, CA_E_FORMAT, "llama.block_count" },
    { { PLAIN, .skip_key = "llama.attention.layer_norm_rms_epsilon" }, CA_E_FORMAT, "layer_norm_rms_epsilon" },
    { { PLAIN, .u32_key = "llama.block_count", .u32_value = 0 }, CA_E_FORMAT, "llama.block_count" },
    { { PLAIN, .u32_key = "llama.block_count", .u32_value = 70000 }, CA_E_FORMAT, "llama.block_count" },
    { { PLAIN, .u32_key = "llama.block_count", .u32_value = 3 }, CA_E_FORMAT, "blk.2." },
    { { PLAIN, .u32_key = "llama.block_count", .u32_value = 1 }, CA_E_UNSUPPORTED, "blk.1." },
    { { PLAIN, .u32_key = "llama.embedding_length", .u32_value = 65 }, CA_E_FORMAT, "token_embd.weight" },
    { { PLAIN, .u32_key = "llama.feed_forward_length", .u32_value = 95 }, CA_E_FORMAT, "ffn_gate" },
    { { PLAIN, .u32_key = "llama.context_length", .u32_value = 0 }, CA_E_FORMAT, "llama.context_length" },
    { { PLAIN, .u32_key = "llama.attention.head_count", .u32_value = 0 }, CA_E_FORMAT, "head_count" },
    { { PLAIN, .u32_key = "llama.attention.head_count_kv", .u32_value = 3 }, CA_E_FORMAT, "share 3 KV heads" },
    { { PLAIN, .u32_key = "llama.attention.head_count_kv", .u32_value = 8 }, CA_E_FORMAT, "head_count_kv" },
    { { PLAIN, .u32_key = "llama.attention.key_length", .u32_value = 24 }, CA_E_UNSUPPORTED, "multiple of 16" },
    { { PLAIN, .u32_key = "llama.attention.key_length", .u32_value = 512 }, CA_E_FORMAT, "key_length" },
    { { PLAIN, .u32_key = "llama.attention.value_length", .u32_value = 32 }, CA_E_UNSUPPORTED, "equal" },
    { { PLAIN, .u32_key = "llama.rope.dimension_count", .u32_value = 8 }, CA_E_UNSUPPORTED, "equal" },
    { { PLAIN, .u32_key = "llama.expert_count", .u32_value = 8 }, CA_E_UNSUPPORTED, "8 experts" },
    { { PLAIN, .str_key = "llama.rope.scaling.type", .str_value = "yarn" }, CA_E_UNSUPPORTED, "RoPE scaling 'yarn'" },
    { { PLAIN, .skip_tensor = "token_embd.weight" }, CA_E_FORMAT, "token_embd.weight" },
    { { PLAIN, .skip_tensor = "output_norm.weight" }, CA_E_FORMAT, "output_norm.weight" },
    { { PLAIN, .skip_tensor = "blk.1.ffn_up.weight" }, CA_E_FORMAT, "blk.1.ffn_up.weight" },
    { { PLAIN, .grow_tensor = "token_embd.weight" }, CA_E_FORMAT, "token_embd.weight" },
    { { PLAIN, .grow_tensor = "blk.0.attn_q.weight" }, CA_E_FORMAT, "blk.0.attn_q.weight" },
    { { PLAIN, .grow_tensor = "blk.1.attn_v.weight" }, CA_E_FORMAT, "blk.1.attn_v.weight" },
    { { PLAIN, .grow_tensor = "blk.0.attn_output.weight" }, CA_E_FORMAT, "blk.0.attn_output.weight" },
    { { PLAIN, .grow_tensor = "blk.0.attn_norm.weight" }, CA_E_FORMAT, "blk.0.attn_norm.weight" },
    { { PLAIN, .extra_tensor = "blk.0.attn_q.bias" }, CA_E_UNSUPPORTED, "blk.0.attn_q.bias" },
    { { PLAIN, .extra_tensor = "vision.weight" }, CA_E_UNSUPPORTED, "vision.weight" },
};

static void test_bad_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tiny_model *tiny = tiny_new(&bad[i].spec);
        ca_model *model = NULL;
        const ca_status st = ca_model_open(tiny->path, NULL, &model);
        if (st != bad[i].status || strstr(ca_last_error(), bad[i].says) == NULL || strstr(ca_last_error(), tiny->path) == NULL)
            fail_msg("case %zu (%s): status %d, \"%s\"", i, bad[i].says, (int)st, ca_last_error());
        assert_null(model);
        tiny_free(tiny);
    }
}

static void test_bad_options(void **state)
{
    (void)state;
    tiny_model *tiny = tiny_new(&tiny_plain);
    ca_model *model = NULL;
    assert_int_equal(ca_model_open("/nonexistent/model.gguf", NULL, &model), CA_E_IO);
    assert_non_null(strstr(ca_last_error(), "/nonexistent/model.gguf"));
    assert_int_equal(ca_model_open(tiny->path, &(ca_model_opt){ .n_threads = -1 }, &model), CA_E_ARG);
    assert_int_equal(open_isa(tiny->path, "mmx", &model), CA_E_ARG);
    assert_null(model);
    tiny_free(tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_bad_models),
        cmocka_unit_test(test_bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
