/* A llama read from GGUF against the formulas in double precision, whole and split, and what each kind of wrong file or folder is
 * called. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <compactattn/session.h>

#include "model/config.h"
#include "tiny_model.h"

static const char *const isas[] = { "amxbf16", "avx512bf16", "avx512mixed", "avx512", "avx2mixed",
                                    "avx2",    "neonbf16",   "neonmixed",   "neon",   "scalar" };

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
        if (strcmp(isa, "neonbf16") == 0 && strstr(ca_last_error(), "oneDNN refuses") != NULL) return -1.0; /* some versions do */
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
            const double bound = strstr(isas[i], "bf16") ? 0.05 : strstr(isas[i], "mixed") ? 0.02 : 1e-5;
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
    { { PLAIN, .u32_key = "llama.expert_count", .u32_value = 8 }, CA_E_UNSUPPORTED, "'llama.expert_count' is 8: a mixture" },
    { { PLAIN, .str_key = "llama.rope.scaling.type", .str_value = "longrope" }, CA_E_UNSUPPORTED, "RoPE scaling 'longrope'" },
    { { PLAIN, .str_key = "llama.rope.scaling.type", .str_value = "llama3" }, CA_E_UNSUPPORTED, "llama.rope.scaling.type" },
    { { PLAIN, .str_key = "llama.rope.scaling.type", .str_value = "yarn" }, CA_E_FORMAT, "llama.rope.scaling.factor" },
    { { PLAIN, .skip_tensor = "token_embd.weight" }, CA_E_FORMAT, "token_embd.weight" },
    { { PLAIN, .skip_tensor = "output_norm.weight" }, CA_E_FORMAT, "output_norm.weight" },
    { { PLAIN, .skip_tensor = "blk.1.ffn_up.weight" }, CA_E_FORMAT, "blk.1.ffn_up.weight" },
    { { PLAIN, .grow_tensor = "token_embd.weight" }, CA_E_FORMAT, "token_embd.weight" },
    { { PLAIN, .grow_tensor = "blk.0.attn_q.weight" }, CA_E_FORMAT, "blk.0.attn_q.weight" },
    { { PLAIN, .grow_tensor = "blk.1.attn_v.weight" }, CA_E_FORMAT, "blk.1.attn_v.weight" },
    { { PLAIN, .grow_tensor = "blk.0.attn_output.weight" }, CA_E_FORMAT, "blk.0.attn_output.weight" },
    { { PLAIN, .grow_tensor = "blk.0.attn_norm.weight" }, CA_E_FORMAT, "blk.0.attn_norm.weight" },
    { { PLAIN, .extra_tensor = "blk.0.attn_q.bias" }, CA_E_FORMAT, "'blk.0.attn_k.bias' is missing" },
    { { PLAIN, .extra_tensor = "blk.1.attn_q.bias" }, CA_E_UNSUPPORTED, "blk.1.attn_q.bias" },
    { { PLAIN, .extra_tensor = "blk.0.attn_q_norm.weight" }, CA_E_UNSUPPORTED, "blk.0.attn_q_norm.weight" },
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

/* ---- split files ---- */

enum { N_PARTS = 3 };

/* Writes part i of N_PARTS of a model: the first has the keys, tensor t lies in part t % N_PARTS. count and number go into its keys. */
static void write_part(const tiny_model *m, const char *path, uint32_t i, uint32_t count, uint32_t number, uint32_t n_tensors)
{
    bytes keys = { 0 }, list = { 0 }, image = { 0 }, data = { 0 };
    uint64_t n_keys = 0, n = 0;
    if (i == 0) tiny_keys(&m->spec, &keys, &n_keys);
    image_id(&keys, &n_keys, "split.count", count);
    image_id(&keys, &n_keys, "split.no", number);
    image_id(&keys, &n_keys, "split.tensors.count", n_tensors);
    for (size_t t = i; t < m->n_tensors; t += N_PARTS, n++) {
        const tiny_tensor *tensor = &m->tensors[t];
        bytes_str(&list, tensor->name, strlen(tensor->name));
        bytes_u32(&list, tensor->n_dims);
        for (uint32_t d = 0; d < tensor->n_dims; d++) bytes_u64(&list, tensor->dims[d]);
        bytes_u32(&list, 0); /* F32 */
        bytes_u64(&list, data.len);
        bytes_add(&data, tensor->data, (size_t)(tensor->dims[0] * tensor->dims[1]) * sizeof(float));
        tiny_pad(&data);
    }
    bytes_add(&image, "GGUF", 4);
    bytes_u32(&image, 3);
    bytes_u64(&image, n);
    bytes_u64(&image, n_keys);
    bytes_add(&image, keys.data, keys.len);
    bytes_add(&image, list.data, list.len);
    tiny_pad(&image);
    bytes_add(&image, data.data, data.len);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(image.data, image.len, 1, f), 1);
    assert_int_equal(fclose(f), 0);
    free(keys.data);
    free(list.data);
    free(image.data);
    free(data.data);
}

typedef struct split {
    char part[N_PARTS][96];
    tiny_model *tiny;
} split;

static split split_new(void)
{
    split s = { .tiny = tiny_new(&tiny_plain) };
    for (uint32_t i = 0; i < N_PARTS; i++) {
        snprintf(s.part[i], sizeof s.part[i], "%.60s-%05u-of-%05u.gguf", s.tiny->path, i + 1, (unsigned)N_PARTS);
        write_part(s.tiny, s.part[i], i, N_PARTS, i, (uint32_t)s.tiny->n_tensors);
    }
    return s;
}

static void split_free(split *s)
{
    for (uint32_t i = 0; i < N_PARTS; i++) unlink(s->part[i]);
    tiny_free(s->tiny);
}

static void logits_of(const char *path, float out[TINY_VOCAB])
{
    static const uint32_t tokens[] = { 3, 1, 4, 1, 5, 9, 2, 6 };
    ca_model *model = NULL;
    ca_session *session = NULL;
    ca_session_opt opt;
    if (ca_model_open(path, NULL, &model) != CA_OK) fail_msg("%s", ca_last_error());
    ca_session_defaults(CA_EXEC_DENSE, &opt);
    assert_int_equal(ca_session_create(model, &opt, &session), CA_OK);
    assert_int_equal(ca_session_prefill(session, tokens, 8, NULL), CA_OK);
    memcpy(out, ca_session_logits(session), TINY_VOCAB * sizeof *out);
    ca_session_destroy(session);
    ca_model_close(model);
}

/* Any part opens the whole. */
static void test_split(void **state)
{
    (void)state;
    split s = split_new();
    float whole[TINY_VOCAB], parts[TINY_VOCAB];
    logits_of(s.tiny->path, whole);
    for (uint32_t i = 0; i < N_PARTS; i++) {
        logits_of(s.part[i], parts);
        assert_memory_equal(whole, parts, sizeof whole);
    }
    split_free(&s);
}

static void check_split(const split *s, ca_status status, const char *says)
{
    ca_model *model = NULL;
    const ca_status st = ca_model_open(s->part[0], NULL, &model);
    if (st != status || strstr(ca_last_error(), says) == NULL || strchr(ca_last_error(), '\n') != NULL)
        fail_msg("\"%s\": status %d, \"%s\"", says, (int)st, ca_last_error());
    assert_null(model);
}

static void test_bad_split(void **state)
{
    (void)state;
    split s = split_new();
    const uint32_t n = (uint32_t)s.tiny->n_tensors;
    ca_model *model = NULL;
    char renamed[128];
    write_part(s.tiny, s.part[1], 1, N_PARTS, 2, n);
    check_split(&s, CA_E_FORMAT, "is part 3 of 3 by its keys");
    write_part(s.tiny, s.part[1], 1, 2, 1, n);
    check_split(&s, CA_E_FORMAT, "is part 2 of 2 by its keys");
    write_part(s.tiny, s.part[1], 0, N_PARTS, 1, n);
    check_split(&s, CA_E_FORMAT, "is in two of its files");
    write_part(s.tiny, s.part[1], 1, N_PARTS, 1, n);
    write_part(s.tiny, s.part[0], 0, N_PARTS, 0, n + 1);
    check_split(&s, CA_E_FORMAT, "split.tensors.count");
    write_part(s.tiny, s.part[0], 0, N_PARTS, 0, n);
    snprintf(renamed, sizeof renamed, "%s-first.gguf", s.tiny->path);
    assert_int_equal(rename(s.part[0], renamed), 0);
    check_split(&s, CA_E_IO, "part 1 of 3 is missing");
    assert_int_equal(ca_model_open(renamed, NULL, &model), CA_E_UNSUPPORTED);
    assert_non_null(strstr(ca_last_error(), "one of 3 parts of a split model"));
    unlink(renamed);
    split_free(&s);
}

/* ---- folders ---- */

/* A copy of a golden model in /tmp whose config.json, or another file, is changed. */
typedef struct folder {
    char path[64];
} folder;

static void put_file(const folder *f, const char *name, const char *text, size_t n)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", f->path, name);
    unlink(path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(n == 0 || fwrite(text, n, 1, file) == 1);
    assert_int_equal(fclose(file), 0);
}

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    (void)fclose(file);
    return text;
}

static const char *const folder_files[] = { "config.json",           "model.safetensors",      "tokenizer.json",
                                            "tokenizer_config.json", "generation_config.json", "model.safetensors.index.json",
                                            "shard.safetensors" };
enum { N_FOLDER_FILES = sizeof folder_files / sizeof *folder_files };

static folder folder_new(const char *model)
{
    folder f = { "/tmp/ca-folder-XXXXXX" };
    assert_non_null(mkdtemp(f.path));
    for (size_t i = 0; i < N_FOLDER_FILES - 2; i++) {
        char from[512], to[128];
        snprintf(from, sizeof from, "%s/models/%s/%s", CA_TEST_DATA, model, folder_files[i]);
        snprintf(to, sizeof to, "%s/%s", f.path, folder_files[i]);
        assert_int_equal(symlink(from, to), 0);
    }
    return f;
}

static void folder_free(const folder *f)
{
    for (size_t i = 0; i < N_FOLDER_FILES; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", f->path, folder_files[i]);
        unlink(path);
    }
    rmdir(f->path);
}

/* config.json with the first `from` replaced; NULL: the whole of it. */
static void change_config(const folder *f, const char *from, const char *to)
{
    char path[128];
    snprintf(path, sizeof path, "%s/config.json", f->path);
    char *text = read_text(path), *at = from != NULL ? strstr(text, from) : text;
    bytes changed = { 0 };
    assert_non_null(at);
    bytes_add(&changed, text, (size_t)(at - text));
    bytes_add(&changed, to, strlen(to));
    if (from != NULL) bytes_add(&changed, at + strlen(from), strlen(at + strlen(from)));
    put_file(f, "config.json", changed.data, changed.len);
    free(changed.data);
    free(text);
}

static void check_folder(const folder *f, ca_status status, const char *says)
{
    ca_model *model = NULL;
    const ca_status st = ca_model_open(f->path, NULL, &model);
    if (st != status || (st != CA_OK && (strstr(ca_last_error(), says) == NULL || strstr(ca_last_error(), f->path) == NULL ||
                                         strchr(ca_last_error(), '\n') != NULL)))
        fail_msg("\"%s\": status %d, \"%s\"", says, (int)st, st != CA_OK ? ca_last_error() : "");
    assert_true((model != NULL) == (status == CA_OK));
    ca_model_close(model);
}

static const struct bad_config {
    const char *model, *from, *to;
    ca_status status;
    const char *says;
} bad_configs[] = {
    { "qwen2_yarn", NULL, "[]", CA_E_FORMAT, "config.json: is no JSON object" },
    { "qwen2_yarn", NULL, "{\"model_type\": ", CA_E_FORMAT, "config.json: line 1" },
    { "qwen2_yarn", NULL, "{}", CA_E_FORMAT, "'model_type' is missing" },
    { "qwen2_yarn", "\"qwen2\"", "\"mamba\"", CA_E_UNSUPPORTED, "architecture 'mamba' is not supported ('model_type')" },
    { "qwen2_yarn", "\"qwen2\"", "7", CA_E_FORMAT, "'model_type' is a whole number" },
    { "qwen2_yarn", "num_hidden_layers", "layers", CA_E_FORMAT, "'num_hidden_layers' is missing" },
    { "qwen2_yarn", "layers\": 3", "layers\": 4", CA_E_FORMAT, "tensor 'model.layers.3.input_layernorm.weight' is missing" },
    { "qwen2_yarn", "layers\": 3", "layers\": 2", CA_E_UNSUPPORTED, "model.layers.2." },
    { "qwen2_yarn", "layers\": 3", "layers\": 0", CA_E_FORMAT, "'num_hidden_layers' is 0" },
    { "qwen2_yarn", "layers\": 3", "layers\": -3", CA_E_FORMAT, "'num_hidden_layers' is -3" },
    { "qwen2_yarn", "layers\": 3", "layers\": 2.5", CA_E_FORMAT, "'num_hidden_layers' is 2.5" },
    { "qwen2_yarn", "layers\": 3", "layers\": \"3\"", CA_E_FORMAT, "'num_hidden_layers' is a string" },
    { "qwen2_yarn", "layers\": 3", "layers\": NaN", CA_E_FORMAT, "config.json: line" },
    { "qwen2_yarn", "layers\": 3", "layers\": 1e300", CA_E_FORMAT, "'num_hidden_layers' is 1e+300" },
    { "qwen2_yarn", "layers\": 3", "layers\": 99999999999999999999", CA_E_FORMAT, "config.json: line" },
    { "qwen2_yarn", "hidden_size\": 128", "hidden_size\": 64", CA_E_FORMAT,
      "tensor 'model.embed_tokens.weight' has dims [512, 128], expected [512, 64]" },
    { "qwen2_yarn", "intermediate_size\": 256", "intermediate_size\": 255", CA_E_FORMAT, "mlp.gate_proj.weight" },
    { "qwen2_yarn", "vocab_size\": 512", "vocab_size\": 511", CA_E_FORMAT, "model.embed_tokens.weight" },
    { "qwen2_yarn", "attention_heads\": 2", "attention_heads\": 3", CA_E_FORMAT, "'head_dim' is missing" },
    { "qwen2_yarn", "key_value_heads\": 1", "key_value_heads\": 0", CA_E_FORMAT, "'num_key_value_heads' is 0" },
    { "qwen2_yarn", "key_value_heads\": 1", "key_value_heads\": 2", CA_E_FORMAT, "self_attn.k_proj.weight" },
    { "qwen2_yarn", "rms_norm_eps\": 1e-06", "rms_norm_eps\": -1", CA_E_FORMAT, "'rms_norm_eps' is -1" },
    { "qwen2_yarn", "rms_norm_eps\": 1e-06", "rms_norm_eps\": null", CA_E_FORMAT, "'rms_norm_eps' is missing" },
    { "qwen2_yarn", "rope_theta\": 1000000.0", "rope_theta\": 0.5", CA_E_FORMAT, "'rope_theta' is 0.5" },
    { "qwen2_yarn", "rope_theta\": 1000000.0", "rope_theta\": 1.0", CA_E_FORMAT, "YaRN needs" },
    { "qwen2_yarn", "\"yarn\"", "\"dynamic\"", CA_E_UNSUPPORTED,
      "RoPE scaling 'dynamic' is not supported (rope_scaling.rope_type)" },
    { "qwen2_yarn", "\"factor\": 4.0", "\"factor\": 0", CA_E_FORMAT, "'rope_scaling.factor' is 0" },
    { "qwen2_yarn", "\"factor\": 4.0", "\"other\": 4.0", CA_E_FORMAT, "'rope_scaling.factor' is missing" },
    { "qwen2_yarn", "\"silu\"", "\"gelu\"", CA_E_UNSUPPORTED, "activation 'gelu'" },
    { "qwen2_yarn", "\"max_window_layers\": 99", "\"quantization_config\": {}", CA_E_UNSUPPORTED, "quantization_config" },
    { "qwen2_yarn", "\"max_window_layers\": 99", "\"layer_types\": [\"full_attention\"]", CA_E_FORMAT, "lists 1 layers" },
    { "qwen2_yarn", "\"max_window_layers\": 99", "\"layer_types\": [\"full_attention\", \"full_attention\", \"mamba\"]",
      CA_E_UNSUPPORTED, "layer 2 is 'mamba'" },
    { "qwen2_yarn", "\"max_window_layers\": 99", "\"layer_types\": [\"full_attention\", \"full_attention\", \"sliding_attention\"]",
      CA_E_FORMAT, "makes layer 2 slide" },
    { "qwen2_yarn", "embeddings\": false", "embeddings\": true", CA_OK, "" },
    { "gemma3_nested", "\"gemma3\"", "\"qwen3\"", CA_E_FORMAT, "" },
    { "gemma3_nested", "sliding_window\": 64", "sliding_window\": 0", CA_E_FORMAT, "'text_config.sliding_window' is 0" },
    { "gemma3_nested", "final_logit_softcapping\": null", "final_logit_softcapping\": 30.0", CA_E_UNSUPPORTED,
      "'text_config.final_logit_softcapping' is 30: a cap of logits" },
    { "gemma3_nested", "query_pre_attn_scalar\": 96", "query_pre_attn_scalar\": 0", CA_E_FORMAT, "query_pre_attn_scalar" },
    { "gemma3_nested", "\"sliding_window_pattern\": 6", "\"tie_word_embeddings\": false", CA_E_FORMAT,
      "tensor 'language_model.lm_head.weight' is missing" },
    { "llama_untied", "mlp_bias\": false", "mlp_bias\": true", CA_E_FORMAT, "model.layers.0.mlp.gate_proj.bias" },
    { "llama_untied", "attention_bias\": false", "attention_bias\": true", CA_E_FORMAT, "model.layers.0.self_attn.q_proj.bias" },
    { "llama_untied", "high_freq_factor\": 4.0", "high_freq_factor\": 1.0", CA_E_FORMAT, "must be above 'low_freq_factor'" },
    { "qwen3_moe", "num_experts\": 8", "num_experts\": 9", CA_E_FORMAT, "mlp.gate.weight" },
    { "qwen3_moe", "num_experts\": 8", "num_experts\": 1", CA_E_FORMAT, "'num_experts_per_tok' is 2" },
    { "qwen3_moe", "per_tok\": 2", "per_tok\": 0", CA_E_FORMAT, "'num_experts_per_tok' is 0" },
    { "qwen3_moe", "sparse_step\": 1", "sparse_step\": 2", CA_E_FORMAT, "model.layers.0.mlp.gate_proj.weight" },
    { "qwen3_moe", "only_layers\": []", "only_layers\": [1]", CA_E_FORMAT, "model.layers.1.mlp.gate_proj.weight" },
    { "qwen3_moe", "only_layers\": []", "only_layers\": [2]", CA_E_FORMAT, "'mlp_only_layers': element 0 is no layer" },
    { "qwen3_moe", "moe_intermediate_size\": 64", "moe_intermediate_size\": 65", CA_E_FORMAT, "mlp.experts.0.gate_proj.weight" },
};

static void test_bad_configs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_configs / sizeof *bad_configs; i++) {
        const struct bad_config *b = &bad_configs[i];
        const folder f = folder_new(b->model);
        change_config(&f, b->from, b->to);
        check_folder(&f, b->status, b->says);
        folder_free(&f);
    }
}

/* {"weight_map": ...} over a shard of the two names, one of which the index calls otherwise. */
static void test_bad_folders(void **state)
{
    (void)state;
    folder f = folder_new("qwen2_yarn");
    char path[128], to[128];
    snprintf(path, sizeof path, "%s/model.safetensors", f.path);
    snprintf(to, sizeof to, "%s/shard.safetensors", f.path);
    ca_model *model = NULL;
    assert_int_equal(ca_model_open(path, NULL, &model), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "give the folder"));
    unlink(path);
    check_folder(&f, CA_E_IO, "holds neither model.safetensors nor model.safetensors.index.json");
    static const struct {
        const char *index, *says;
        ca_status status;
    } indexes[] = {
        { "{}", "weight_map", CA_E_FORMAT },
        { "{\"weight_map\": {}}", "weight_map", CA_E_FORMAT },
        { "{\"weight_map\": {\"a\": 3}}", "the file of tensor 'a' is no plain file name", CA_E_FORMAT },
        { "{\"weight_map\": {\"a\": \"../b\"}}", "the file of tensor 'a' is no plain file name", CA_E_FORMAT },
        { "{\"weight_map\": {\"a\": \"x.safetensors\"}}", "x.safetensors: is missing", CA_E_IO },
        { "{\"weight_map\": {\"a\": \"config.json\"}}", "config.json", CA_E_FORMAT },
        { "{\"weight_map\": {\"a\": \"shard.safetensors\"}}", "tensor 'a' is said to be in 'shard.safetensors'", CA_E_FORMAT },
        { "{\"weight_map\": {\"lm_head.weight\": \"shard.safetensors\"}}", "", CA_OK },
    };
    char shard[512];
    snprintf(shard, sizeof shard, "%s/models/qwen2_yarn/model.safetensors", CA_TEST_DATA);
    assert_int_equal(symlink(shard, to), 0);
    for (size_t i = 0; i < sizeof indexes / sizeof *indexes; i++) {
        put_file(&f, "model.safetensors.index.json", indexes[i].index, strlen(indexes[i].index));
        check_folder(&f, indexes[i].status, indexes[i].says);
    }
    put_file(&f, "model.safetensors", "\2\0\0\0\0\0\0\0{}", 10);
    check_folder(&f, CA_E_FORMAT, "tensor 'model.embed_tokens.weight' is missing");
    put_file(&f, "config.json", "", 0);
    check_folder(&f, CA_E_IO, "config.json: is empty");
    snprintf(path, sizeof path, "%s/config.json", f.path);
    unlink(path);
    check_folder(&f, CA_E_IO, "is a folder without config.json");
    folder_free(&f);
}

static void see_meta(void *user, const char *key, const char *type, const char *value)
{
    static const char *const expected[][3] = { { "general.architecture", "string", "gemma3" },
                                               { "gemma3.mm_tokens_per_image", "integer", "256" },
                                               { "gemma3.text_config.attention_bias", "bool", "false" },
                                               { "gemma3.text_config.rms_norm_eps", "number", "1e-6" } };
    for (size_t i = 0; i < 4; i++)
        *(unsigned *)user += strcmp(key, expected[i][0]) == 0 && strcmp(type, expected[i][1]) == 0 &&
                             strcmp(value, expected[i][2]) == 0;
}

static void see_tensor(void *user, const char *name, const char *type, const uint64_t *dims, unsigned n_dims, uint64_t offset,
                       uint64_t size)
{
    if (strcmp(name, "language_model.model.embed_tokens.weight") != 0) return;
    assert_string_equal(type, "BF16");
    assert_true(n_dims == 2 && dims[0] == 128 && dims[1] == 512 && size == 131072 && offset > 0);
    *(unsigned *)user += 10;
}

static void test_inspect(void **state)
{
    (void)state;
    unsigned seen_items = 0;
    const ca_file_visitor visitor = { &seen_items, see_meta, see_tensor };
    assert_int_equal(ca_model_inspect(CA_TEST_DATA "/models/gemma3_nested", &visitor), CA_OK);
    assert_int_equal(seen_items, 14);
}

/* ---- both generations of config.json ---- */

static ca_config config_of(const char *text)
{
    ca_config c;
    const ca_family *family = NULL;
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    if (ca_config_read_json(json, "test", &family, &c) != CA_OK) fail_msg("%s: %s", text, ca_last_error());
    json_decref(json);
    return c;
}

static void check_rope(const ca_rope *a, const ca_rope *b)
{
    double x[64], y[64];
    ca_rope_frequencies(a, 128, x);
    ca_rope_frequencies(b, 128, y);
    assert_memory_equal(x, y, sizeof x);
    assert_true(a->magnitude == b->magnitude && a->kind == b->kind);
}

#define SIZES                                                                                                                      \
    "\"num_hidden_layers\": 4, \"hidden_size\": 64, \"intermediate_size\": 96, \"num_attention_heads\": 4, \"vocab_size\": 256, "  \
    "\"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-6, "

static void test_config_generations(void **state)
{
    (void)state;
    static const char *const same[][3] = {
        { "\"model_type\": \"llama\", ",
          "\"rope_theta\": 5e5, \"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4, "
          "\"original_max_position_embeddings\": 256}",
          "\"rope_parameters\": {\"rope_type\": \"llama3\", \"rope_theta\": 5e5, \"factor\": 8, \"low_freq_factor\": 1, "
          "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 256}" },
        { "\"model_type\": \"qwen2\", ", "\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4}",
          "\"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 1e6, \"factor\": 4.0, "
          "\"original_max_position_embeddings\": 512, \"attention_factor\": 1.1386294361119891}" },
        { "\"model_type\": \"qwen3\", ", "\"rope_scaling\": null", "\"rope_parameters\": {\"rope_type\": \"default\"}" },
        { "\"model_type\": \"gemma3_text\", ",
          "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8.0}, \"sliding_window_pattern\": 2",
          "\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"linear\", \"factor\": 8.0, \"rope_theta\": 1000000.0}, "
          "\"sliding_attention\": {\"rope_type\": \"default\", \"rope_theta\": 10000.0}}, \"layer_types\": [\"sliding_attention\", "
          "\"full_attention\", \"sliding_attention\", \"full_attention\"]" },
        { "\"model_type\": \"qwen2\", ", "\"use_sliding_window\": true, \"sliding_window\": 32, \"max_window_layers\": 2",
          "\"use_sliding_window\": true, \"sliding_window\": 32, \"layer_types\": [\"full_attention\", \"full_attention\", "
          "\"sliding_attention\", \"sliding_attention\"]" },
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char old[1024], new[1024];
        snprintf(old, sizeof old, "{%s%s%s}", same[i][0], SIZES, same[i][1]);
        snprintf(new, sizeof new, "{%s%s%s}", same[i][0], SIZES, same[i][2]);
        const ca_config a = config_of(old), b = config_of(new);
        check_rope(&a.rope[0], &b.rope[0]);
        check_rope(&a.rope[1], &b.rope[1]);
        assert_memory_equal(a.sliding, b.sliding, sizeof a.sliding);
        assert_int_equal(a.max_context, b.max_context);
        assert_int_equal(a.window, b.window);
    }
    const ca_config gemma = config_of(
        "{\"model_type\": \"gemma3\", \"text_config\": {\"hidden_size\": 2560, \"intermediate_size\": 10240, "
        "\"num_hidden_layers\": 34, \"sliding_window\": 1024, \"rope_scaling\": {\"factor\": 8.0, "
        "\"rope_type\": \"linear\"}}}"); /* as published for the 4B model */
    assert_int_equal(gemma.n_heads, 8);
    assert_int_equal(gemma.n_kv_heads, 4);
    assert_int_equal(gemma.head_dim, 256);
    assert_int_equal(gemma.vocab, 262208);
    assert_true(gemma.tied && gemma.sliding[4] && !gemma.sliding[5] && gemma.window == 1024);
    assert_true(gemma.attn_scale == 0.0625F && gemma.rope[0].theta == 1e6F && gemma.rope[1].theta == 1e4F);
    const ca_config moe = config_of("{\"model_type\": \"qwen3_moe\", " SIZES
                                    "\"num_experts\": 8, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 32, "
                                    "\"decoder_sparse_step\": 2, \"mlp_only_layers\": [3]}");
    assert_true(!moe.sparse[0] && moe.sparse[1] && !moe.sparse[2] && !moe.sparse[3] && !moe.norm_topk);
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
        cmocka_unit_test(test_forward),     cmocka_unit_test(test_info),      cmocka_unit_test(test_bad_models),
        cmocka_unit_test(test_split),       cmocka_unit_test(test_bad_split), cmocka_unit_test(test_bad_configs),
        cmocka_unit_test(test_bad_folders), cmocka_unit_test(test_inspect),   cmocka_unit_test(test_config_generations),
        cmocka_unit_test(test_bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
