/* Tokenizers against golden ids, an independent merge loop, damaged vocabularies and hostile text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <unistd.h>

#include <compactattn/tokenizer.h>

#include "text/normalize.h"
#include "text/tokenizer_gguf.h"
#include "text/tokenizer_hf.h"
#include "text/utf8.h"
#include "vocab_image.h"

#define SMOLLM2 CA_TEST_DATA "/tokenizers/smollm2"

/* ---- helpers ---- */

static ca_tokenizer *model_tokenizer(void)
{
    ca_tokenizer *tok;
    if (ca_tokenizer_open(CA_TEST_MODEL, &tok) != CA_OK) fail_msg("%s", ca_last_error());
    return tok;
}

/* The image is gone when the tokenizer is used: it must have copied what it needs. */
static ca_status open_vocab(vocab *v, ca_tokenizer **out)
{
    bytes image = vocab_image(v);
    ca_gguf *gguf;
    if (ca_gguf_open_memory(image.data, image.len, "test.gguf", &gguf) != CA_OK) fail_msg("%s", ca_last_error());
    const ca_status st = ca_tokenizer_from_gguf(gguf, out);
    ca_gguf_close(gguf);
    memset(image.data, 0, image.len);
    free(image.data);
    return st;
}

static ca_tokenizer *vocab_tokenizer(vocab *v)
{
    ca_tokenizer *tok;
    if (open_vocab(v, &tok) != CA_OK) fail_msg("%s", ca_last_error());
    return tok;
}

static uint32_t *tokenize(const ca_tokenizer *tok, const char *text, size_t n, unsigned flags, size_t *n_ids)
{
    uint32_t *ids;
    if (ca_tokenize(tok, text, n, flags, &ids, n_ids) != CA_OK) fail_msg("%s", ca_last_error());
    assert_non_null(ids);
    return ids;
}

static void expect_ids(const ca_tokenizer *tok, const char *text, unsigned flags, const uint32_t *want, size_t n_want)
{
    size_t n;
    uint32_t *ids = tokenize(tok, text, strlen(text), flags, &n);
    assert_int_equal(n, n_want);
    assert_memory_equal(ids, want, n_want * sizeof *want);
    ca_free(ids);
}
#define EXPECT_IDS(tok, text, flags, ...)                                                                                          \
    expect_ids(tok, text, flags, (const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t))

/* Text of ids through the streaming decoder; every part that comes out is whole UTF-8. */
static bytes decode(const ca_tokenizer *tok, const uint32_t *ids, size_t n, bool show_special)
{
    bytes text = { 0 };
    ca_detokenizer state = { 0 };
    const size_t cap = ca_tokenizer_max_piece(tok) + 8;
    char *buf = malloc(cap);
    size_t len;
    assert_non_null(buf);
    for (size_t i = 0; i <= n; i++) {
        const ca_status st = i < n ? ca_detokenize(tok, &state, ids[i], show_special, buf, cap, &len)
                                   : ca_detokenize_end(&state, buf, cap, &len);
        if (st != CA_OK) fail_msg("%s", ca_last_error());
        assert_true(ca_utf8_valid(buf, len));
        assert_int_equal(buf[len], 0);
        bytes_add(&text, buf, len);
    }
    free(buf);
    return text;
}

/* A file of one JSON value per line, as an array. */
static json_t *read_jsonl(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("cannot open %s", path);
    json_t *rows = json_array();
    char *line = NULL;
    size_t cap = 0;
    for (ssize_t len; (len = getline(&line, &cap, file)) > 0;) {
        json_error_t error;
        json_t *row = json_loadb(line, (size_t)len, JSON_ALLOW_NUL, &error);
        if (!row) fail_msg("%s:%zu: %s", path, json_array_size(rows) + 1, error.text);
        assert_int_equal(json_array_append_new(rows, row), 0);
    }
    free(line);
    assert_int_equal(fclose(file), 0);
    return rows;
}

static bool ids_equal(const json_t *want, const uint32_t *ids, size_t n)
{
    if (!json_is_array(want) || json_array_size(want) != n) return false;
    for (size_t i = 0; i < n; i++)
        if (json_integer_value(json_array_get(want, i)) != (json_int_t)ids[i]) return false;
    return true;
}

/* ---- golden ids ---- */

static bool one_way(const ca_tokenizer *tok, const json_t *row, const json_t *want, unsigned flags)
{
    const json_t *text = json_object_get(row, "text");
    size_t n;
    uint32_t *ids = tokenize(tok, json_string_value(text), json_string_length(text), flags, &n);
    const bool same = ids_equal(want, ids, n);
    ca_free(ids);
    return same;
}

/* Number of rows; fails on the first wrong one. */
static size_t check_vectors(const ca_tokenizer *tok, const char *path)
{
    json_t *rows = read_jsonl(path);
    const size_t n = json_array_size(rows);
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(rows, i);
        const json_t *ids = json_object_get(row, "ids");
        const json_t *plain = json_object_get(row, "ids_no_parse_special");
        const char *cat = json_string_value(json_object_get(row, "cat"));
        if (!one_way(tok, row, ids, CA_TOK_PARSE_SPECIAL)) fail_msg("%s row %zu (%s): ids differ", path, i, cat);
        if (!one_way(tok, row, plain ? plain : ids, 0)) fail_msg("%s row %zu (%s): ids_no_parse_special differ", path, i, cat);
    }
    json_decref(rows);
    return n;
}

static size_t check_invalid(const ca_tokenizer *tok, const char *path)
{
    json_t *rows = read_jsonl(path);
    const size_t n_rows = json_array_size(rows);
    for (size_t i = 0; i < n_rows; i++) {
        const json_t *row = json_array_get(rows, i);
        const char *hex = json_string_value(json_object_get(row, "hex"));
        char text[64];
        size_t n = 0, n_ids;
        for (; hex[2 * n] && n < sizeof text; n++)
            text[n] = (char)strtoul((const char[]){ hex[2 * n], hex[2 * n + 1], '\0' }, NULL, 16);
        uint32_t *ids = tokenize(tok, text, n, CA_TOK_PARSE_SPECIAL, &n_ids);
        if (!ids_equal(json_object_get(row, "ids_of_replaced"), ids, n_ids)) fail_msg("%s: %s: ids differ", path, hex);
        ca_free(ids);
    }
    json_decref(rows);
    return n_rows;
}

static void test_smollm2_vectors(void **state)
{
    (void)state;
    ca_tokenizer *tok = model_tokenizer();
    assert_int_equal(check_vectors(tok, SMOLLM2 "/vectors.jsonl"), 575);
    assert_int_equal(check_invalid(tok, SMOLLM2 "/invalid_utf8.jsonl"), 20);
    ca_tokenizer_close(tok);
}

/* Text without the bytes that have no token, each part that is not UTF-8 then shown as U+FFFD. */
static bytes as_shown(const char *text, size_t n)
{
    static const char no_token[] = "\x04\x06\x13\x14\x16\x1d\xc0\xc1\xf1\xf2\xf5\xf6\xf7\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff";
    bytes kept = { 0 }, out = { 0 };
    for (size_t i = 0; i < n; i++)
        if (!memchr(no_token, text[i], sizeof no_token - 1)) bytes_add(&kept, text + i, 1);
    for (size_t i = 0, step; i < kept.len; i += step) {
        ca_utf8_kind kind;
        step = ca_utf8_step(kept.data + i, kept.len - i, &kind);
        if (kind == CA_UTF8_GOOD)
            bytes_add(&out, kept.data + i, step);
        else
            bytes_add(&out, CA_UTF8_REPLACEMENT, CA_UTF8_REPLACEMENT_LEN);
    }
    free(kept.data);
    return out;
}

/* decode(encode(x)) is x, less the 21 bytes that have no token; special tokens shown as they are. */
static void test_smollm2_round_trip(void **state)
{
    (void)state;
    static const unsigned flag_sets[] = { 0, CA_TOK_PARSE_SPECIAL };
    ca_tokenizer *tok = model_tokenizer();
    json_t *rows = read_jsonl(SMOLLM2 "/vectors.jsonl");
    size_t n_changed = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *json = json_object_get(json_array_get(rows, i), "text");
        const char *text = json_string_value(json);
        const size_t n = json_string_length(json);
        bytes want = as_shown(text, n);
        n_changed += want.len != n || (n && memcmp(want.data, text, n) != 0);
        for (size_t f = 0; f < 2; f++) {
            size_t n_ids;
            uint32_t *ids = tokenize(tok, text, n, flag_sets[f], &n_ids);
            bytes got = decode(tok, ids, n_ids, true);
            if (got.len != want.len || (want.len && memcmp(got.data, want.data, want.len) != 0))
                fail_msg("row %zu does not come back", i);
            free(got.data);
            ca_free(ids);
        }
        free(want.data);
    }
    assert_int_equal(n_changed, 22); /* the vectors that have such bytes */
    json_decref(rows);
    ca_tokenizer_close(tok);
}

static void test_smollm2_facts(void **state)
{
    (void)state;
    ca_tokenizer *tok = model_tokenizer();
    assert_int_equal(ca_tokenizer_size(tok), 49152);
    assert_int_equal(ca_tokenizer_bos(tok), 1);
    assert_int_equal(ca_tokenizer_eos(tok), 2);
    for (uint32_t id = 0; id < 49152 + 2; id++) assert_int_equal(ca_tokenizer_is_end(tok, id), id == 0 || id == 2);
    EXPECT_IDS(tok, "Hi", CA_TOK_ADD_BOS, 26843); /* the file asks for none */
    EXPECT_IDS(tok, "<|im_end|>", CA_TOK_PARSE_SPECIAL, 2);
    ca_tokenizer_close(tok);
}

/* ---- other vocabularies, when they are there ---- */
#ifdef CA_SHARED_GOLDEN

static char *unpack(const char *path, size_t *n)
{
    char command[512];
    bytes out = { 0 };
    char block[65536];
    assert_true(snprintf(command, sizeof command, "/usr/bin/xz -dc '%s'", path) < (int)sizeof command);
    FILE *pipe = popen(command, "r"); /* NOLINT(cert-env33-c): a fixed command on a path of the build */
    assert_non_null(pipe);
    for (size_t got; (got = fread(block, 1, sizeof block, pipe)) > 0;) bytes_add(&out, block, got);
    assert_int_equal(pclose(pipe), 0);
    *n = out.len;
    return out.data;
}

static ca_tokenizer *from_gguf(const char *path)
{
    size_t n;
    char *data = unpack(path, &n);
    ca_gguf *gguf;
    ca_tokenizer *tok = NULL;
    if (ca_gguf_open_memory(data, n, path, &gguf) != CA_OK || ca_tokenizer_from_gguf(gguf, &tok) != CA_OK)
        fail_msg("%s", ca_last_error());
    ca_gguf_close(gguf);
    free(data);
    return tok;
}

static ca_tokenizer *from_json(const char *path)
{
    size_t n;
    char *data = unpack(path, &n);
    ca_tokenizer *tok;
    if (ca_tokenizer_from_json_memory(data, n, path, &tok) != CA_OK) fail_msg("%s", ca_last_error());
    memset(data, 0, n); /* nothing of it is in use */
    free(data);
    return tok;
}

/* What GGUF and Hugging Face are known to differ in; the tokenizer of either file gives Hugging Face's ids. */
static void test_shared_vocabularies(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *file;
        uint32_t hi; /* token of "Hi" */
        int64_t bos; /* what ADD_BOS puts in front */
        size_t n_rows;
    } rows[] = {
        { "gpt-2", "ggml-vocab-gpt-2.gguf.xz", 17250, -1, 539 },
        { "gpt-2", "tokenizer.json.xz", 17250, -1, 539 },
        { "llama-bpe", "ggml-vocab-llama-bpe.gguf.xz", 13347, 128000, 575 },
        { "llama-bpe", "tokenizer.json.xz", 13347, 128000, 575 },
        { "llama-spm", "ggml-vocab-llama-spm.gguf.xz", 6324, 1, 557 },
        { "llama-spm", "tokenizer.json.xz", 6324, 1, 557 },
        { "qwen2", "tokenizer.json.xz", 13048, -1, 557 },
        { "smollm2", "tokenizer.json.xz", 26843, -1, 575 },
        { "gemma-4", "tokenizer.json.xz", 10979, 2, 575 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char folder[256], path[320];
        (void)snprintf(folder, sizeof folder, "%s/tokenizers/%s", CA_SHARED_GOLDEN, rows[i].folder);
        if (access(folder, R_OK) != 0 || access("/usr/bin/xz", X_OK) != 0) skip();
        (void)snprintf(path, sizeof path, "%s/%s", folder, rows[i].file);
        ca_tokenizer *tok = strstr(rows[i].file, "json") ? from_json(path) : from_gguf(path);
        if (rows[i].bos >= 0)
            EXPECT_IDS(tok, "Hi", CA_TOK_ADD_BOS, (uint32_t)rows[i].bos, rows[i].hi);
        else
            EXPECT_IDS(tok, "Hi", CA_TOK_ADD_BOS, rows[i].hi);
        (void)snprintf(path, sizeof path, "%s/vectors.jsonl", folder);
        assert_int_equal(check_vectors(tok, path), rows[i].n_rows);
        (void)snprintf(path, sizeof path, "%s/invalid_utf8.jsonl", folder);
        assert_int_equal(check_invalid(tok, path), 20);
        ca_tokenizer_close(tok);
    }
}
#endif

/* ---- tokenizer.json ---- */

static ca_status open_json(const json_t *root, ca_tokenizer **out)
{
    char *text = json_dumps(root, JSON_ENSURE_ASCII);
    assert_non_null(text);
    const ca_status st = ca_tokenizer_from_json_memory(text, strlen(text), "test.json", out);
    memset(text, 0, strlen(text));
    free(text);
    return st;
}

/* Every step that a tokenizer.json can have here, against Hugging Face's library (steps/make_steps.py). */
static void test_steps(void **state)
{
    (void)state;
    json_t *rows = read_jsonl(CA_TEST_DATA "/tokenizers/steps/steps.jsonl");
    json_t *vocabularies = json_array_get(rows, 0);
    size_t n_cases = 0;
    for (size_t i = 1; i < json_array_size(rows); i++) {
        json_t *row = json_array_get(rows, i), *root = json_object_get(row, "tokenizer");
        const char *name = json_string_value(json_object_get(row, "name"));
        json_t *vocabulary = json_object_get(vocabularies, json_string_value(json_object_get(row, "vocabulary")));
        assert_int_equal(json_object_update(json_object_get(root, "model"), vocabulary), 0);
        ca_tokenizer *tok;
        if (open_json(root, &tok) != CA_OK) fail_msg("%s: %s", name, ca_last_error());
        const json_t *cases = json_object_get(row, "cases"), *one;
        size_t c;
        json_array_foreach(cases, c, one)
        {
            const json_t *text = json_object_get(one, "text"), *want = json_object_get(one, "ids");
            const json_t *plain = json_object_get(one, "plain"), *shown = json_object_get(one, "shown");
            for (unsigned flags = CA_TOK_ADD_BOS; flags <= (CA_TOK_ADD_BOS | CA_TOK_PARSE_SPECIAL); flags += CA_TOK_PARSE_SPECIAL) {
                const bool special = flags & CA_TOK_PARSE_SPECIAL, shows = special && shown;
                size_t n;
                uint32_t *ids = tokenize(tok, json_string_value(text), json_string_length(text), flags, &n);
                if (!ids_equal(special || !plain ? want : plain, ids, n))
                    fail_msg("%s: '%s': %s differ", name, json_string_value(text), special ? "ids" : "plain ids");
                bytes got = shows ? decode(tok, ids, n, true) : (bytes){ 0 };
                if (special &&
                    (got.len != json_string_length(shown) || (got.len && memcmp(got.data, json_string_value(shown), got.len) != 0)))
                    fail_msg("%s: '%s': '%.*s' is shown", name, json_string_value(text), (int)got.len, got.data);
                free(got.data);
                ca_free(ids);
                n_cases++;
            }
        }
        ca_tokenizer_close(tok);
    }
    assert_int_equal(json_array_size(rows), 1 + 35);
    assert_int_equal(n_cases, 35 * 23 * 2);
    json_decref(rows);
}

/* Names that are different, and the same or nothing once they are normalized. */
static void test_normalized_names(void **state)
{
    (void)state;
    static const char root[] =
        "{\"added_tokens\":[{\"id\":4,\"content\":\"q a\",\"normalized\":true},"
        "{\"id\":5,\"content\":\"q\xE2\x96\x81"
        "a\",\"normalized\":true,\"special\":true},"
        "{\"id\":6,\"content\":\"q~ a\",\"normalized\":true},"
        "{\"id\":7,\"content\":\"q ab!\",\"normalized\":true},{\"id\":8,\"content\":\"~~\",\"normalized\":true}],"
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":["
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\"~\"},\"content\":\"\"}]},\"decoder\":{\"type\":\"Fuse\"},"
        "\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"q\":2,\"\xE2\x96\x81\":3},\"merges\":[]}}";
    ca_tokenizer *tok;
    if (ca_tokenizer_from_json_memory(root, sizeof root - 1, "test.json", &tok) != CA_OK) fail_msg("%s", ca_last_error());
    EXPECT_IDS(tok, "q a", 0, 4);
    EXPECT_IDS(tok, "bq ab", 0, 1, 4, 1);
    EXPECT_IDS(tok,
               "q\xE2\x96\x81"
               "a~b",
               CA_TOK_PARSE_SPECIAL, 4, 1);
    EXPECT_IDS(tok, "aq ab!q b", 0, 0, 7, 2, 3, 1);
    EXPECT_IDS(tok, "a~~b", 0, 0, 1);
    ca_tokenizer_close(tok);
}

/* Steps that make much of little are stopped before memory is taken for it. */
static void test_growing_steps(void **state)
{
    (void)state;
    ca_normalizer growing = { .n = CA_NORM_STEPS };
    for (size_t i = 0; i < growing.n; i++) {
        growing.steps[i].kind = CA_NORM_REPLACE;
        assert_true(ca_short_text_set(&growing.steps[i].from, "a", 1));
        assert_true(ca_short_text_set(&growing.steps[i].to, "aaaaaaaa", i < 4 ? 8 : 1));
    }
    for (size_t max = 8191; max <= 8192; max++) {
        const char *text = "aa";
        size_t n = 2;
        char *owned;
        const ca_status st = ca_normalize(&growing, true, max, &text, &n, &owned);
        assert_int_equal(st, max == 8192 ? CA_OK : CA_E_ARG);
        if (st == CA_OK)
            assert_int_equal(n, 8192);
        else
            assert_non_null(strstr(ca_last_error(), "8192 bytes when normalized, at most 8191"));
        free(owned);
    }
    /* U+0958 is three bytes, and six in form C. */
    const char *text = "\xe0\xa5\x98";
    size_t n = 3;
    char *owned;
    assert_int_equal(ca_normalize(&(ca_normalizer){ { { .kind = CA_NORM_NFC } }, 1 }, true, 5, &text, &n, &owned), CA_E_ARG);
    free(owned);
}

static char *read_text(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("cannot open %s", path);
    bytes text = { 0 };
    char block[65536];
    for (size_t got; (got = fread(block, 1, sizeof block, file)) > 0;) bytes_add(&text, block, got);
    assert_int_equal(fclose(file), 0);
    *n = text.len;
    return text.data;
}

static void expect_same_ids(const ca_tokenizer *a, const ca_tokenizer *b, const char *text, size_t n, unsigned flags)
{
    size_t n_a, n_b;
    uint32_t *ids_a = tokenize(a, text, n, flags, &n_a), *ids_b = tokenize(b, text, n, flags, &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(ids_a, ids_b, n_a * sizeof *ids_a);
    ca_free(ids_a);
    ca_free(ids_b);
}

/* The tiny models' folders, their tokenizer.json alone, and their GGUF files. */
static void test_folders(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *gguf;
        int64_t bos, eos;
        uint32_t end; /* another token that ends generation, in the folder's files */
        bool add_bos;
    } rows[] = {
        { "gemma3", "gemma3-Q8_0", 2, 1, 5, true },         { "gemma3_nested", NULL, 2, 1, 5, true },
        { "llama_tied", "llama_tied-Q8_0", 0, 1, 4, true }, { "llama_untied", NULL, 0, 1, 4, true },
        { "qwen2", "qwen2-F16", -1, 1, 0, false },          { "qwen2_yarn", NULL, -1, 1, 0, false },
        { "qwen3", "qwen3-Q8_0", -1, 1, 0, false },         { "qwen3_moe", "qwen3_moe-Q8_0", -1, 1, 0, false },
    };
    size_t n;
    if (access(CA_SHARED_GOLDEN "/models", R_OK) != 0) skip();
    char *text = read_text(CA_TEST_DATA "/smollm2/p1500.txt", &n);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char path[512];
        ca_tokenizer *folder, *bare, *gguf;
        (void)snprintf(path, sizeof path, CA_SHARED_GOLDEN "/models/%s", rows[i].folder);
        if (ca_tokenizer_open(path, &folder) != CA_OK) fail_msg("%s", ca_last_error());
        assert_int_equal(ca_tokenizer_bos(folder), rows[i].bos);
        assert_int_equal(ca_tokenizer_eos(folder), rows[i].eos);
        assert_true(ca_tokenizer_is_end(folder, (uint32_t)rows[i].eos) && ca_tokenizer_is_end(folder, rows[i].end));
        assert_false(ca_tokenizer_is_end(folder, 200));
        (void)snprintf(path, sizeof path, CA_SHARED_GOLDEN "/models/%s/tokenizer.json", rows[i].folder);
        if (ca_tokenizer_open(path, &bare) != CA_OK) fail_msg("%s", ca_last_error());
        assert_int_equal(ca_tokenizer_eos(bare), -1);
        expect_same_ids(folder, bare, text, n, CA_TOK_ADD_BOS);
        uint32_t *ids = tokenize(folder, text, n, CA_TOK_ADD_BOS, &(size_t){ 0 });
        assert_int_equal(ids[0] == (uint32_t)rows[i].bos, rows[i].add_bos);
        ca_free(ids);
        if (rows[i].gguf) {
            (void)snprintf(path, sizeof path, CA_SHARED_GOLDEN "/models/%s/gguf/%s.gguf", rows[i].folder, rows[i].gguf);
            if (ca_tokenizer_open(path, &gguf) != CA_OK) fail_msg("%s", ca_last_error());
            expect_same_ids(folder, gguf, text, n, CA_TOK_ADD_BOS);
            expect_same_ids(folder, gguf, "<bos>\xE4\xB8\xAD  \n<|im_end|>\xf0\x9f\x91\x8b", 24, CA_TOK_PARSE_SPECIAL);
            ca_tokenizer_close(gguf);
        }
        ca_tokenizer_close(folder);
        ca_tokenizer_close(bare);
    }
    free(text);
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!text) {
        (void)unlink(path);
        return;
    }
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fputs(text, file) >= 0, 1);
    assert_int_equal(fclose(file), 0);
}

#define FOLDER_TOKENS                                                                                                              \
    "{\"added_tokens\":[{\"id\":2,\"content\":\"<s>\",\"special\":true},{\"id\":3,\"content\":\"<e>\",\"special\":true}],"         \
    "\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}"
#define FOLDER_BOS                                                                                                                 \
    ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{}}],"     \
    "\"special_tokens\":{\"<s>\":{\"ids\":[2]}}}}"

static void test_folder_files(void **state)
{
    (void)state;
    static const struct {
        const char *tokens, *config, *generation, *chat;
        const char *error; /* NULL: opens */
        int64_t bos, eos;
        bool adds, a_ends;
        const char *rendered; /* of "hi"; NULL: no template is recognized */
    } rows[] = {
        { FOLDER_TOKENS "}", NULL, NULL, NULL, NULL, -1, -1, false, false, NULL },
        { FOLDER_TOKENS FOLDER_BOS, NULL, NULL, NULL, NULL, 2, -1, true, false, NULL },
        { FOLDER_TOKENS FOLDER_BOS, "{\"add_bos_token\":false,\"eos_token\":{\"content\":\"<e>\"}}", "{\"eos_token_id\":[3,0]}",
          NULL, NULL, 2, 3, false, true, NULL },
        { FOLDER_TOKENS "}", "{\"add_bos_token\":true,\"bos_token\":\"<s>\"}", "{\"eos_token_id\":0}", NULL, NULL, 2, -1, true,
          true, NULL },
        { FOLDER_TOKENS "}", "{\"chat_template\":\"x\"}", NULL,
          "{{'<|im_start|>' + message + '<|im_end|>' + '\\n'}}{{ '<|im_start|>assistant\\n' }}", NULL, -1, -1, false, false,
          "<|im_start|>user\nhi<|im_end|>\n" },
        { FOLDER_TOKENS "}",
          "{\"chat_template\":[{\"name\":\"tool\",\"template\":\"x\"},{\"name\":\"default\",\"template\":"
          "\"{{'<|im_start|>' + message + '<|im_end|>' + '\\\\n'}}{{ '<|im_start|>assistant\\\\n' }}\"}]}",
          NULL, NULL, NULL, -1, -1, false, false, "<|im_start|>user\nhi<|im_end|>\n" },
        { NULL, "{}", NULL, NULL, "tokenizer.json", 0, 0, false, false, NULL },
        { FOLDER_TOKENS "}", "[]", NULL, NULL, "tokenizer_config.json: a JSON object is needed", 0, 0, false, false, NULL },
        { FOLDER_TOKENS "}", "{\"eos_token\":\"<x>\"}", NULL, NULL, "eos_token: '<x>' is not a token", 0, 0, false, false, NULL },
        { FOLDER_TOKENS "}", "{\"eos_token\":7}", NULL, NULL, "eos_token: '' is not a token", 0, 0, false, false, NULL },
        { FOLDER_TOKENS "}", "{\"add_bos_token\":true}", NULL, NULL, "there is no bos_token", 0, 0, false, false, NULL },
        { FOLDER_TOKENS FOLDER_BOS, "{\"bos_token\":\"<e>\"}", NULL, NULL, "puts token 2 first, but", 0, 0, false, false, NULL },
        { FOLDER_TOKENS "}", NULL, "{\"eos_token_id\":4}", NULL, "eos_token_id is 4, but there are 4", 0, 0, false, false, NULL },
        { FOLDER_TOKENS "}", NULL, "{\"eos_token_id\":[-1]}", NULL, "eos_token_id is -1", 0, 0, false, false, NULL },
        { FOLDER_TOKENS "}", NULL, "{", NULL, "generation_config.json: line 1", 0, 0, false, false, NULL },
    };
    char folder[] = "/tmp/ca-tokenizer-XXXXXX";
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_file(folder, "tokenizer.json", rows[i].tokens);
        write_file(folder, "tokenizer_config.json", rows[i].config);
        write_file(folder, "generation_config.json", rows[i].generation);
        write_file(folder, "chat_template.jinja", rows[i].chat);
        ca_tokenizer *tok;
        const ca_status st = ca_tokenizer_open(folder, &tok);
        if ((st == CA_OK) != !rows[i].error || (rows[i].error && !strstr(ca_last_error(), rows[i].error)))
            fail_msg("row %zu: %s: %s", i, ca_status_name(st), ca_last_error());
        assert_int_equal(tok != NULL, st == CA_OK);
        if (!tok) continue;
        assert_int_equal(ca_tokenizer_bos(tok), rows[i].bos);
        assert_int_equal(ca_tokenizer_eos(tok), rows[i].eos);
        assert_int_equal(ca_tokenizer_is_end(tok, 0), rows[i].a_ends);
        if (rows[i].adds)
            EXPECT_IDS(tok, "ab", CA_TOK_ADD_BOS, 2, 0, 1);
        else
            EXPECT_IDS(tok, "ab", CA_TOK_ADD_BOS, 0, 1);
        char *text;
        size_t len;
        const ca_status chat = ca_chat_render(tok, &(ca_message){ "user", "hi" }, 1, false, &text, &len);
        assert_int_equal(chat, rows[i].rendered ? CA_OK : CA_E_UNSUPPORTED);
        if (text) assert_string_equal(text, rows[i].rendered);
        ca_free(text);
        ca_tokenizer_close(tok);
    }
    static const char *const names[] = { "tokenizer.json", "tokenizer_config.json", "generation_config.json",
                                         "chat_template.jinja" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) write_file(folder, names[i], NULL);
    assert_int_equal(rmdir(folder), 0);
}

/* One part of a good file is put in place of another; what is not done here is refused by name. */
static void test_damaged_json(void **state)
{
    (void)state;
    static const char good[] = "{\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true}],\"normalizer\":null,"
                               "\"pre_tokenizer\":null,\"post_processor\":null,\"decoder\":{\"type\":\"Fuse\"},\"model\":"
                               "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"c\":3},\"merges\":[\"a b\"]}}";
#define PRE(x) "\"pre_tokenizer\":null", "\"pre_tokenizer\":" x
#define REGEX(x) PRE("{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"" x "\"}}")
#define NORM(x) "\"normalizer\":null", "\"normalizer\":" x
#define DEC(x) "{\"type\":\"Fuse\"}", x
#define POST(x) "\"post_processor\":null", "\"post_processor\":" x
#define MODEL(x) "\"type\":\"BPE\"", "\"type\":\"BPE\"," x
#define A32 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    static const struct {
        const char *from, *to;
        ca_status status;
        const char *message;
    } rows[] = {
        { "null", "null", CA_OK, "" },
        { "\"type\":\"BPE\",", "", CA_OK, "" },
        { "{\"added", "[\"added", CA_E_FORMAT, "line 1" },
        { "\"b\":1", "\"a\":1", CA_E_FORMAT, "duplicate" },
        { "\"b\":1", "\"b\":0", CA_E_FORMAT, "token 0 is 'a' and 'b'" },
        { "\"b\":1", "\"b\":-1", CA_E_FORMAT, "token 'b' has the id -1" },
        { "\"b\":1", "\"b\":99999", CA_E_FORMAT, "id 99999; with 5 tokens 0 to 1033" },
        { "\"b\":1", "\"b\":1.5", CA_E_FORMAT, "token 'b' has the id" },
        { "\"vocab\":{", "\"vocabs\":{", CA_E_FORMAT, "'vocab' is missing" },
        { "\"merges\":[", "\"merge\":[", CA_E_FORMAT, "'merges' is missing" },
        { "\"a b\"", "\"a x\"", CA_E_FORMAT, "merges[0] 'a x': 'x' is not a token" },
        { "\"a b\"", "\"b a\"", CA_E_FORMAT, "'ba' is not a token" },
        { "\"a b\"", "\"ab\"", CA_E_FORMAT, "merges[0] is not two tokens" },
        { "\"a b\"", "[\"a\"]", CA_E_FORMAT, "merges[0] is not two tokens" },
        { "\"a b\"", "[\"a\",\"b\"]", CA_OK, "" },
        { "\"a b\"", "7", CA_E_FORMAT, "merges[0] is not two tokens" },
        { "\"BPE\"", "\"Unigram\"", CA_E_UNSUPPORTED, "model: 'Unigram' is not supported; known: BPE" },
        { MODEL("\"dropout\":0.1"), CA_E_UNSUPPORTED, "'dropout'" },
        { MODEL("\"dropout\":0"), CA_OK, "" },
        { MODEL("\"end_of_word_suffix\":\"</w>\""), CA_E_UNSUPPORTED, "'end_of_word_suffix'" },
        { MODEL("\"end_of_word_suffix\":\"\""), CA_OK, "" },
        { MODEL("\"unk_token\":\"?\""), CA_E_FORMAT, "'unk_token'" },
        { MODEL("\"byte_fallback\":true"), CA_E_UNSUPPORTED, "'byte_fallback'" },
        { MODEL("\"ignore_merges\":1"), CA_E_FORMAT, "'ignore_merges'" },
        { "\"id\":4", "\"id\":3", CA_E_FORMAT, "token 3 is 'c' and '<s>'" },
        { "\"<s>\"", "\"ab\"", CA_E_FORMAT, "token 'ab' has two ids, 2 and 4" },
        { "\"content\":\"<s>\"", "\"content\":8", CA_E_FORMAT, "'content'" },
        { "\"special\"", "\"single_word\"", CA_E_UNSUPPORTED, "added_tokens: '<s>' is not supported; known: single_word false" },
        { NORM("{\"type\":\"NFKC\"}"), CA_E_UNSUPPORTED, "normalizer: 'NFKC' is not supported; known: NFC, Replace" },
        { NORM("7"), CA_E_FORMAT, "'normalizer'" },
        { NORM("{\"type\":\"Sequence\"}"), CA_E_FORMAT, "'normalizers'" },
        { NORM("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Sequence\"}]}"), CA_E_UNSUPPORTED, "'Sequence'" },
        { NORM("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":\"\"}"), CA_E_UNSUPPORTED, "Replace by Regex" },
        { NORM("{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}"), CA_E_FORMAT, "'String'" },
        { NORM("{\"type\":\"Prepend\",\"prepend\":\"0123456789012345678901234567890123\"}"), CA_E_UNSUPPORTED, "has 34 bytes" },
        { "}],\"normalizer\":null",
          "},{\"id\":5,\"content\":\"" A32 "\",\"normalized\":true}],\"normalizer\":{\"type\":\"Replace\",\"pattern\":"
          "{\"String\":\"a\"},\"content\":\"" A32 "\"}",
          CA_E_UNSUPPORTED, "special token 5: tokenize: the text has 1024 bytes when normalized, at most 512" },
        { PRE("{\"type\":\"Whitespace\"}"), CA_E_UNSUPPORTED, "pre_tokenizer: 'Whitespace' is not supported; known: Split" },
        { PRE("{\"type\":\"ByteLevel\"}"), CA_E_UNSUPPORTED, "decoder: 'ByteLevel'" },
        { PRE("{\"type\":\"Split\"}"), CA_E_FORMAT, "'String'" },
        { PRE("{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Odd\"}"), CA_E_UNSUPPORTED, "'Odd'" },
        { PRE("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"},{\"type\":\"Metaspace\"}]}"), CA_E_UNSUPPORTED,
          "'Metaspace'" },
        { REGEX("(a"), CA_E_UNSUPPORTED, "cannot compile" },
        { REGEX("a*"), CA_E_UNSUPPORTED, "matches empty text" },
        { REGEX("[a[b]]"), CA_E_UNSUPPORTED, "a class in a class" },
        { REGEX("[^\\\\S]"), CA_E_UNSUPPORTED, "an escape" },
        { REGEX("\\\\w+"), CA_E_UNSUPPORTED, "an escape" },
        { REGEX("\\\\h"), CA_E_UNSUPPORTED, "an escape" },
        { REGEX("a{1,3}+"), CA_E_UNSUPPORTED, "a group or a count" },
        { REGEX("a(?i)b"), CA_E_UNSUPPORTED, "a group or a count" },
        { REGEX("(?i)a[\\\\s\\\\p{L}\\\\]]+\\\\u4e00"), CA_OK, "" },
        { REGEX("(a+)+b"), CA_OK, "" },
        { DEC("null"), CA_E_FORMAT, "'decoder'" },
        { DEC("{\"type\":\"WordPiece\"}"), CA_E_UNSUPPORTED, "decoder: 'WordPiece'" },
        { DEC("{\"type\":\"Strip\",\"content\":\" \",\"start\":2,\"stop\":0}"), CA_E_UNSUPPORTED, "'Strip'" },
        { POST("{\"type\":\"BertProcessing\"}"), CA_E_UNSUPPORTED, "post_processor: 'BertProcessing'" },
        { POST("{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{}},{\"SpecialToken\":{\"id\":\"<e>\"}}]}"),
          CA_E_UNSUPPORTED, "'<e>' is not supported; known: one token before" },
        { POST("{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<e>\"}}]}"), CA_E_FORMAT, "'ids'" },
        { POST("{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"e\"}}],\"special_tokens\":{\"e\":{\"ids\":"
               "[5]}}}"),
          CA_E_FORMAT, "token 5, but there are 5" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[2048];
        const char *at = strstr(good, rows[i].from);
        assert_non_null(at);
        (void)snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, rows[i].to, at + strlen(rows[i].from));
        ca_tokenizer *tok;
        const ca_status st = ca_tokenizer_from_json_memory(text, strlen(text), "test.json", &tok);
        if (st != rows[i].status || !strstr(st ? ca_last_error() : "", rows[i].message))
            fail_msg("row %zu, %s: %s: %s", i, rows[i].to, ca_status_name(st), ca_last_error());
        assert_int_equal(tok != NULL, st == CA_OK);
        ca_tokenizer_close(tok);
    }
    /* A pattern that runs away on some text says so. */
    char text[1024];
    const char *const pattern =
        "\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"(a+)+[bd]\"}}";
    const char *at = strstr(good, "\"pre_tokenizer\":null");
    (void)snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, pattern, at + strlen("\"pre_tokenizer\":null"));
    ca_tokenizer *tok;
    assert_int_equal(ca_tokenizer_from_json_memory(text, strlen(text), "test.json", &tok), CA_OK);
    uint32_t *ids;
    size_t n;
    assert_int_equal(ca_tokenize(tok, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", 44, 0, &ids, &n), CA_E_UNSUPPORTED);
    assert_non_null(strstr(ca_last_error(), "pcre2 error"));
    ca_tokenizer_close(tok);
}

/* ---- merging ---- */

/* A small vocabulary over a..d with every pair of short strings merged, in an order of ranks that is not the order of lengths. */
typedef struct toy {
    char name[400][8];
    uint32_t n_names;
    struct {
        uint32_t left, right, id;
    } merge[400];
    uint32_t n_merges;
} toy;

static uint32_t random_below(uint32_t *seed, uint32_t n)
{
    *seed = *seed * 1664525U + 1013904223U;
    return (*seed >> 8) % n;
}

static uint32_t toy_find(const toy *t, const char *name)
{
    uint32_t i = 0;
    while (i < t->n_names && strcmp(t->name[i], name) != 0) i++;
    return i;
}

static ca_tokenizer *toy_tokenizer(toy *t, uint32_t seed)
{
    vocab v = vocab_new("gpt-2");
    memset(t, 0, sizeof *t);
    for (; t->n_names < 4; t->n_names++) {
        (void)snprintf(t->name[t->n_names], sizeof t->name[0], "%c", (int)('a' + t->n_names));
        vocab_token(&v, t->name[t->n_names], TOKEN_NORMAL);
    }
    struct {
        uint32_t left, right;
    } pairs[400] = { { 0, 0 } };
    uint32_t n_pairs = 0;
    for (int tries = 0; tries < 300; tries++) {
        const uint32_t left = random_below(&seed, t->n_names), right = random_below(&seed, t->n_names);
        char joined[16];
        (void)snprintf(joined, sizeof joined, "%s%s", t->name[left], t->name[right]);
        if (strlen(joined) > 6) continue;
        if (toy_find(t, joined) == t->n_names) {
            memcpy(t->name[t->n_names++], joined, 8);
            vocab_token(&v, joined, TOKEN_NORMAL);
        }
        bool known = false;
        for (uint32_t i = 0; i < n_pairs; i++) known = known || (pairs[i].left == left && pairs[i].right == right);
        if (known) continue;
        pairs[n_pairs].left = left;
        pairs[n_pairs++].right = right;
    }
    while (n_pairs > 0) { /* ranks in random order: a merge may outrank those that make its parts */
        const uint32_t pick = random_below(&seed, n_pairs);
        char line[32], joined[16];
        const char *left = t->name[pairs[pick].left], *right = t->name[pairs[pick].right];
        (void)snprintf(line, sizeof line, "%s %s", left, right);
        (void)snprintf(joined, sizeof joined, "%s%s", left, right);
        vocab_merge(&v, line);
        t->merge[t->n_merges].left = pairs[pick].left;
        t->merge[t->n_merges].right = pairs[pick].right;
        t->merge[t->n_merges++].id = toy_find(t, joined);
        pairs[pick] = pairs[--n_pairs];
    }
    return vocab_tokenizer(&v);
}

/* The definition: again and again, the leftmost pair of the lowest rank. */
static size_t merge_by_definition(const toy *t, uint32_t *ids, size_t n)
{
    for (;;) {
        uint32_t best = t->n_merges;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (uint32_t m = 0; m < best; m++)
                if (t->merge[m].left == ids[i] && t->merge[m].right == ids[i + 1]) {
                    best = m;
                    at = i;
                }
        if (best == t->n_merges) return n;
        ids[at] = t->merge[best].id;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

static void test_merges_by_definition(void **state)
{
    (void)state;
    toy *t = malloc(sizeof *t);
    assert_non_null(t);
    for (uint32_t seed = 1; seed <= 12; seed++) {
        ca_tokenizer *tok = toy_tokenizer(t, seed);
        uint32_t rng = seed;
        for (int round = 0; round < 40; round++) {
            char text[301];
            uint32_t want[300];
            const size_t n = 1 + random_below(&rng, round % 2 ? 300 : 60);
            const uint32_t letters = 1 + random_below(&rng, 4);
            for (size_t i = 0; i < n; i++) {
                want[i] = random_below(&rng, letters);
                text[i] = (char)('a' + want[i]);
            }
            text[n] = '\0';
            const size_t n_want = merge_by_definition(t, want, n);
            size_t n_ids;
            uint32_t *ids = tokenize(tok, text, n, 0, &n_ids);
            if (n_ids != n_want || memcmp(ids, want, n_want * sizeof *want) != 0) fail_msg("seed %u: '%s' differs", seed, text);
            ca_free(ids);
        }
        ca_tokenizer_close(tok);
    }
    free(t);
}

/* ---- SentencePiece ---- */

/* A vocabulary of the letters a to c, strings of them, and bytes; scores come in few values, so that many are equal. */
typedef struct scored_toy {
    char name[200][8];
    float score[200];
    uint32_t n_names;
} scored_toy;

enum { SCORED_FIRST = 1 + 256 + 1 }; /* tokens before the names: <unk>, the bytes, the word mark */

static ca_tokenizer *scored_tokenizer(scored_toy *t, uint32_t seed, int add_space_prefix)
{
    vocab v = vocab_new("default");
    v.model = "llama";
    v.add_space_prefix = add_space_prefix;
    memset(t, 0, sizeof *t);
    (void)vocab_token(&v, "<unk>", TOKEN_UNKNOWN);
    vocab_score(&v, 0);
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        (void)snprintf(name, sizeof name, "<0x%02X>", b);
        (void)vocab_token(&v, name, TOKEN_BYTE);
        vocab_score(&v, 0);
    }
    (void)vocab_token(&v, "\xE2\x96\x81", TOKEN_NORMAL);
    vocab_score(&v, 0);
    for (int tries = 0; tries < 150; tries++) {
        char name[8] = "";
        const size_t len = tries < 3 ? 1 : 2 + random_below(&seed, 4);
        for (size_t i = 0; i < len; i++) name[i] = (char)('a' + (tries < 3 ? (uint32_t)tries : random_below(&seed, 3)));
        uint32_t i = 0;
        while (i < t->n_names && strcmp(t->name[i], name) != 0) i++;
        if (i < t->n_names) continue;
        memcpy(t->name[i], name, sizeof name);
        t->score[i] = -(float)random_below(&seed, 6);
        (void)vocab_token(&v, name, TOKEN_NORMAL);
        vocab_score(&v, t->score[i]);
        t->n_names++;
    }
    return vocab_tokenizer(&v);
}

/* The definition: again and again, the pair that makes the token of the highest score, leftmost among equals. */
static size_t merge_scored(const scored_toy *t, const char *text, uint32_t *ids)
{
    char parts[100][8];
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) (void)snprintf(parts[i], sizeof parts[i], "%c", text[i]);
    for (;;) {
        size_t best = n;
        float score = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            char both[16];
            (void)snprintf(both, sizeof both, "%s%s", parts[i], parts[i + 1]);
            for (uint32_t k = 0; k < t->n_names; k++)
                if (strcmp(both, t->name[k]) == 0 && (best == n || t->score[k] > score)) {
                    best = i;
                    score = t->score[k];
                }
        }
        if (best == n) break;
        char both[16];
        (void)snprintf(both, sizeof both, "%s%s", parts[best], parts[best + 1]);
        memcpy(parts[best], both, sizeof parts[best]);
        memmove(parts + best + 1, parts + best + 2, (n - best - 2) * sizeof *parts);
        n--;
    }
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < t->n_names; k++)
            if (strcmp(parts[i], t->name[k]) == 0) ids[i] = SCORED_FIRST + k;
    return n;
}

static void test_scores_by_definition(void **state)
{
    (void)state;
    scored_toy t;
    for (uint32_t seed = 1; seed <= 12; seed++) {
        ca_tokenizer *tok = scored_tokenizer(&t, seed, 0);
        uint32_t rng = seed;
        for (int round = 0; round < 60; round++) {
            char text[100] = "";
            uint32_t want[100] = { 0 };
            const size_t len = 1 + random_below(&rng, 98), letters = 1 + random_below(&rng, 3);
            for (size_t i = 0; i < len; i++) text[i] = (char)('a' + random_below(&rng, (uint32_t)letters));
            expect_ids(tok, text, 0, want, merge_scored(&t, text, want));
        }
        ca_tokenizer_close(tok);
    }
}

/* Word marks, bytes of characters without a token, and the space in front, which the decoder takes off again. */
static void test_sentences(void **state)
{
    (void)state;
    enum { MARK = 1 + 256, A, MARK_A, MARKS, SLASH };
    for (int prefix = 0; prefix < 2; prefix++) {
        vocab v = vocab_new("default");
        v.model = "llama";
        v.add_space_prefix = prefix;
        (void)vocab_token(&v, "<unk>", TOKEN_UNKNOWN);
        for (unsigned b = 0; b < 256; b++) {
            char name[8];
            (void)snprintf(name, sizeof name, "<0x%02X>", b);
            (void)vocab_token(&v, name, TOKEN_BYTE);
        }
        static const char *const names[] = { "\xE2\x96\x81", "a", "\342\226\201a", "\xE2\x96\x81\xE2\x96\x81", "/" };
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) (void)vocab_token(&v, names[i], TOKEN_NORMAL);
        (void)vocab_token(&v, "</s>", TOKEN_CONTROL);
        for (uint64_t i = 0; i < v.n_tokens; i++) vocab_score(&v, -(float)i);
        v.bos = 0;
        ca_tokenizer *tok = vocab_tokenizer(&v);
        if (prefix) {
            EXPECT_IDS(tok, "a a", CA_TOK_ADD_BOS, 0, MARK_A, MARK_A);
            EXPECT_IDS(tok, "</s>a", CA_TOK_PARSE_SPECIAL, SLASH + 1, MARK_A);
            EXPECT_IDS(tok, " ", 0, MARKS);
        } else {
            EXPECT_IDS(tok, "a a", CA_TOK_ADD_BOS, 0, A, MARK_A);
            EXPECT_IDS(tok, "a  a", 0, A, MARK, MARK_A);
            EXPECT_IDS(tok, "/\xc3\xa9\xE2\x96\x81", 0, SLASH, 1 + 0xc3, 1 + 0xa9, MARK);
        }
        static const char *const texts[] = { "a a", " a", "a  a\xc3\xa9 \n", "  ", "\xf0\x9f\x91\x8b" };
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            size_t n;
            uint32_t *ids = tokenize(tok, texts[i], strlen(texts[i]), 0, &n);
            bytes got = decode(tok, ids, n, true);
            assert_int_equal(got.len, strlen(texts[i]));
            assert_memory_equal(got.data, texts[i], got.len);
            free(got.data);
            ca_free(ids);
        }
        ca_detokenizer dec = { .started = true };
        char buf[16];
        size_t len;
        assert_int_equal(ca_detokenize(tok, &dec, MARK_A, false, buf, sizeof buf, &len), CA_OK);
        assert_string_equal(buf, " a");
        dec.started = false;
        assert_int_equal(ca_detokenize(tok, &dec, MARK_A, false, buf, sizeof buf, &len), CA_OK);
        assert_string_equal(buf, prefix ? "a" : " a");
        ca_tokenizer_close(tok);
    }
}

/* Words that come again, and words that meet in the cache of pieces: each has the ids it has alone. */
static void test_words_alone_and_together(void **state)
{
    (void)state;
    ca_tokenizer *tok = model_tokenizer();
    bytes text = { 0 };
    enum { N_WORDS = 30000, MAX_WORD = 5 };
    uint32_t *want = calloc((size_t)N_WORDS * MAX_WORD, sizeof *want), seed = 7;
    size_t n_want = 0, n;
    assert_non_null(want);
    for (int i = 0; i < N_WORDS; i++) {
        char word[8] = " ";
        const size_t len = 2 + random_below(&seed, MAX_WORD - 1);
        for (size_t c = 1; c < len; c++) word[c] = (char)('a' + random_below(&seed, 26));
        bytes_add(&text, word, len);
        uint32_t *ids = tokenize(tok, word, len, 0, &n);
        memcpy(want + n_want, ids, n * sizeof *ids);
        n_want += n;
        ca_free(ids);
    }
    uint32_t *ids = tokenize(tok, text.data, text.len, 0, &n);
    assert_int_equal(n, n_want);
    assert_memory_equal(ids, want, n * sizeof *ids);
    ca_free(ids);
    free(want);
    free(text.data);
    ca_tokenizer_close(tok);
}

/* ---- special and user-defined tokens ---- */

static void test_added_tokens(void **state)
{
    (void)state;
    vocab v = vocab_new("gpt-2");
    vocab_bytes(&v);
    const uint32_t unknown = vocab_token(&v, "<unk>", TOKEN_UNKNOWN);
    const uint32_t control = vocab_token(&v, "<|x|>", TOKEN_CONTROL);
    const uint32_t longer = vocab_token(&v, "<|x|>y", TOKEN_CONTROL);
    const uint32_t user = vocab_token(&v, "<u>", TOKEN_USER_DEFINED);
    const uint32_t accent = vocab_token(&v, "\xc3\xa9\xc3\xa9", TOKEN_USER_DEFINED); /* literal, not the byte alphabet */
    const uint32_t hider = vocab_token(&v, "[<u>]", TOKEN_CONTROL);
    (void)vocab_token(&v, "", TOKEN_CONTROL); /* matches nothing */
    ca_tokenizer *tok = vocab_tokenizer(&v);
    const unsigned parse = CA_TOK_PARSE_SPECIAL;

    EXPECT_IDS(tok, "a<|x|>b", parse, 'a', control, 'b');
    EXPECT_IDS(tok, "a<|x|>b", 0, 'a', '<', '|', 'x', '|', '>', 'b');
    EXPECT_IDS(tok, "<|x|>y<|x|>", parse, longer, control);
    EXPECT_IDS(tok, "<|<|x|>", parse, '<', '|', control);
    EXPECT_IDS(tok, "<unk><u>", parse, unknown, user);
    EXPECT_IDS(tok, "<unk><u>", 0, '<', 'u', 'n', 'k', '>', user);
    EXPECT_IDS(tok, "[<u>]", parse, hider);
    EXPECT_IDS(tok, "[<u>]", 0, '[', '<', 'u', '>', ']');
    EXPECT_IDS(tok, "\xc3\xa9\xc3\xa9\xc3\xa9", 0, accent, 0xc3, 0xa9);
    size_t n;
    ca_free(tokenize(tok, NULL, 0, parse, &n));
    assert_int_equal(n, 0);

    bytes text = decode(tok, (const uint32_t[]){ 'a', control, user, accent, unknown }, 5, false);
    assert_int_equal(text.len, 8);
    assert_memory_equal(text.data, "a<u>\xc3\xa9\xc3\xa9", 8);
    free(text.data);
    text = decode(tok, (const uint32_t[]){ control, unknown }, 2, true);
    assert_memory_equal(text.data, "<|x|><unk>", 10);
    free(text.data);
    ca_tokenizer_close(tok);
}

static void test_bos_and_ends(void **state)
{
    (void)state;
    static const struct {
        const char *pre;
        int64_t bos;
        int add_bos;
        bool first; /* BOS comes first */
    } rows[] = {
        { "gpt-2", 97, -1, false },    { "gpt-2", 97, 0, false },     { "gpt-2", 97, 1, true },
        { "llama-bpe", 97, -1, true }, { "llama-bpe", 97, 0, false }, { "llama-bpe", -1, -1, false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        vocab v = vocab_new(rows[i].pre);
        vocab_bytes(&v);
        v.bos = rows[i].bos;
        v.add_bos = rows[i].add_bos;
        v.eos = 100;
        v.eot = 101;
        (void)vocab_token(&v, "<|im_end|>", TOKEN_CONTROL);         /* 256 */
        (void)vocab_token(&v, "<|eot_id|>", TOKEN_NORMAL);          /* 257 */
        (void)vocab_token(&v, "<end_of_turn>", TOKEN_CONTROL);      /* 258 */
        (void)vocab_token(&v, "<|im_start|>", TOKEN_CONTROL);       /* 259 */
        (void)vocab_token(&v, "<|endoftext|>", TOKEN_USER_DEFINED); /* 260 */
        ca_tokenizer *tok = vocab_tokenizer(&v);
        assert_int_equal(ca_tokenizer_bos(tok), rows[i].bos);
        if (rows[i].first)
            EXPECT_IDS(tok, "z", CA_TOK_ADD_BOS, 97, 'z');
        else
            EXPECT_IDS(tok, "z", CA_TOK_ADD_BOS, 'z');
        EXPECT_IDS(tok, "z", 0, 'z');
        for (uint32_t id = 0; id < 300; id++)
            assert_int_equal(ca_tokenizer_is_end(tok, id), id == 100 || id == 101 || id == 256 || id == 258);
        ca_tokenizer_close(tok);
    }
}

/* ---- streaming ---- */

static void test_stream_never_splits(void **state)
{
    (void)state;
    vocab v = vocab_new("gpt-2");
    vocab_bytes(&v);
    ca_tokenizer *tok = vocab_tokenizer(&v);
    static const struct {
        const char *bytes, *text;
        size_t n_out[6]; /* bytes that come out after each token; the last is the end's */
    } rows[] = {
        { "\xf0\x9f\x91\x8b", "\xf0\x9f\x91\x8b", { 0, 0, 0, 4, 0 } },
        { "\xe2\x82\xac!", "\xe2\x82\xac!", { 0, 0, 3, 1, 0 } },
        { "\xf0\x9f\x91", CA_UTF8_REPLACEMENT, { 0, 0, 0, 3 } },
        { "\xf0\x9f"
          "A",
          CA_UTF8_REPLACEMENT "A",
          { 0, 0, 4, 0 } },
        { "\xc3\xc3\xa9", CA_UTF8_REPLACEMENT "\xc3\xa9", { 0, 3, 2, 0 } },
        { "\xed\xa0\x80", CA_UTF8_REPLACEMENT CA_UTF8_REPLACEMENT CA_UTF8_REPLACEMENT, { 0, 6, 3, 0 } },
        { "\xff"
          "a\x80",
          CA_UTF8_REPLACEMENT "a" CA_UTF8_REPLACEMENT,
          { 3, 1, 3, 0 } },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ca_detokenizer dec = { 0 };
        bytes text = { 0 };
        const size_t n = strlen(rows[i].bytes);
        for (size_t j = 0; j <= n; j++) {
            char buf[16];
            size_t len;
            const ca_status st = j < n ? ca_detokenize(tok, &dec, (unsigned char)rows[i].bytes[j], false, buf, sizeof buf, &len)
                                       : ca_detokenize_end(&dec, buf, sizeof buf, &len);
            assert_int_equal(st, CA_OK);
            if (len != rows[i].n_out[j]) fail_msg("row %zu, token %zu: %zu bytes come out", i, j, len);
            bytes_add(&text, buf, len);
        }
        assert_int_equal(text.len, strlen(rows[i].text));
        assert_memory_equal(text.data, rows[i].text, text.len);
        free(text.data);
    }
    ca_tokenizer_close(tok);
}

static void test_stream_emoji_of_model(void **state)
{
    (void)state;
    ca_tokenizer *tok = model_tokenizer();
    const char *text = "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9 \xf0\x90\x8d\x88 \xf0\x9d\x84\x9e!";
    size_t n;
    uint32_t *ids = tokenize(tok, text, strlen(text), 0, &n);
    ca_detokenizer dec = { 0 };
    size_t n_held = 0;
    for (size_t i = 0; i < n; i++) {
        char buf[64];
        size_t len;
        assert_int_equal(ca_detokenize(tok, &dec, ids[i], false, buf, sizeof buf, &len), CA_OK);
        n_held += dec.n_held > 0;
    }
    assert_true(n_held >= 4); /* the vocabulary does split these characters */
    bytes got = decode(tok, ids, n, false);
    assert_int_equal(got.len, strlen(text));
    assert_memory_equal(got.data, text, got.len);
    free(got.data);
    ca_free(ids);
    ca_tokenizer_close(tok);
}

static void test_detokenize_errors(void **state)
{
    (void)state;
    vocab v = vocab_new("gpt-2");
    vocab_bytes(&v);
    const char bad[] = "\xc4\xa2\xc4\xa2\xc4\xa2\xc4\xa2\xc4\xa2"; /* five times byte 80 */
    const uint32_t five = vocab_token(&v, bad, TOKEN_NORMAL);
    ca_tokenizer *tok = vocab_tokenizer(&v);
    assert_int_equal(ca_tokenizer_max_piece(tok), 5 * CA_UTF8_REPLACEMENT_LEN);
    ca_detokenizer dec = { 0 };
    char buf[64];
    size_t len = 77;
    assert_int_equal(ca_detokenize(tok, &dec, 257, false, buf, sizeof buf, &len), CA_E_ARG);
    assert_non_null(strstr(ca_last_error(), "257"));
    assert_int_equal(len, 0);

    /* The largest output: a character cut short, then the worst token. A buffer that is too small changes nothing. */
    assert_int_equal(ca_detokenize(tok, &dec, 0xe2, false, buf, sizeof buf, &len), CA_OK);
    assert_int_equal(ca_detokenize(tok, &dec, five, false, buf, 12, &len), CA_E_WORKSPACE);
    assert_int_equal(ca_detokenize(tok, &dec, five, false, buf, 0, &len), CA_E_WORKSPACE);
    assert_int_equal(dec.n_held, 1);
    assert_int_equal(ca_detokenize(tok, &dec, five, false, buf, ca_tokenizer_max_piece(tok) + 8, &len), CA_OK);
    assert_int_equal(len, 4 * CA_UTF8_REPLACEMENT_LEN); /* e2 80 80 is one character */
    assert_int_equal(dec.n_held, 0);

    assert_int_equal(ca_detokenize(tok, &dec, 0xe2, false, buf, sizeof buf, &len), CA_OK);
    assert_int_equal(ca_detokenize_end(&dec, buf, 3, &len), CA_E_WORKSPACE);
    assert_int_equal(ca_detokenize_end(&dec, buf, 4, &len), CA_OK);
    assert_string_equal(buf, CA_UTF8_REPLACEMENT);
    dec.n_held = 4;
    assert_int_equal(ca_detokenize(tok, &dec, 'a', false, buf, sizeof buf, &len), CA_E_ARG);
    uint32_t *ids;
    assert_int_equal(ca_tokenize(tok, NULL, 1, 0, &ids, &len), CA_E_ARG);
    assert_int_equal(ca_tokenize(tok, "a", 1, 64, &ids, &len), CA_E_ARG);
    ca_tokenizer_close(tok);
    ca_tokenizer_close(NULL);
}

/* ---- hostile text: these would run for hours if anything were quadratic ---- */

static void check_long(const ca_tokenizer *tok, const char *unit, const char *end)
{
    bytes text = { 0 };
    const size_t n_unit = strlen(unit);
    while (text.len < (1U << 20)) bytes_add(&text, unit, n_unit);
    bytes_add(&text, end, strlen(end));
    size_t n;
    uint32_t *ids = tokenize(tok, text.data, text.len, CA_TOK_PARSE_SPECIAL, &n);
    bytes got = decode(tok, ids, n, true);
    if (got.len != text.len || memcmp(got.data, text.data, text.len) != 0) fail_msg("1 MiB of '%s' does not come back", unit);
    free(got.data);
    free(text.data);
    ca_free(ids);
}

static void test_hostile_lengths(void **state)
{
    (void)state;
    static const char *const units[] = {
        "a", "ab",    " ",     "\t",       "\n",           "\r\n",         " \n",      "1",  "!",   "'",  "'s",
        "<", "<|im_", "<|x|>", "\xc3\xa9", "\xe4\xb8\xad", "\xe3\x80\x80", "\xc2\xb2", "a ", "a  ", " 1", "\xcc\x81"
    };
    static const char *const pres[] = { "smollm", "gpt-2", "llama-bpe" };
    ca_tokenizer *tok = model_tokenizer();
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        check_long(tok, units[i], "");
        check_long(tok, units[i], "x");
    }
    ca_tokenizer_close(tok);
    for (size_t p = 0; p < sizeof pres / sizeof pres[0]; p++) {
        vocab v = vocab_new(pres[p]);
        vocab_bytes(&v);
        vocab_token(&v, "aa", TOKEN_NORMAL);
        vocab_token(&v, "aaaa", TOKEN_NORMAL);
        vocab_merge(&v, "a a");
        vocab_merge(&v, "aa aa");
        for (int i = 0; i < 300; i++) { /* many that start alike */
            char name[32];
            (void)snprintf(name, sizeof name, "<|im_%d|>", i);
            vocab_token(&v, name, TOKEN_CONTROL);
        }
        tok = vocab_tokenizer(&v);
        for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) check_long(tok, units[i], "x");
        ca_tokenizer_close(tok);
    }
    scored_toy t; /* whole texts are one piece */
    tok = scored_tokenizer(&t, 5, 0);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) check_long(tok, units[i], "x");
    check_long(tok, "abcacab", "x");
    ca_tokenizer_close(tok);
}

/* White space in which added tokens are found, each of which takes all that follows. */
static void test_hostile_blanks(void **state)
{
    (void)state;
    static const char root[] = "{\"added_tokens\":[{\"id\":1,\"content\":\" \",\"rstrip\":true},{\"id\":2,\"content\":\"\\t\"}],"
                               "\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}";
    ca_tokenizer *tok;
    if (ca_tokenizer_from_json_memory(root, sizeof root - 1, "test.json", &tok) != CA_OK) fail_msg("%s", ca_last_error());
    EXPECT_IDS(tok, " \t \r\na", 0, 1, 2, 1, 0);
    bytes text = { 0 };
    while (text.len < 1U << 22) bytes_add(&text, " \t", 2);
    bytes_add(&text, " \r\ra", 4);
    size_t n;
    uint32_t *ids = tokenize(tok, text.data, text.len, 0, &n);
    assert_int_equal(n, text.len - 2);
    for (size_t i = 0; i + 1 < n; i++) assert_int_equal(ids[i], 1 + i % 2);
    ca_free(ids);
    free(text.data);
    ca_tokenizer_close(tok);
}

/* ---- NFC ---- */

static void test_nfc(void **state)
{
    (void)state;
    vocab v = vocab_new("qwen2");
    vocab_bytes(&v);
    (void)vocab_token(&v, "<e\xcc\x81>", TOKEN_USER_DEFINED);
    ca_tokenizer *tok = vocab_tokenizer(&v);
    static const struct {
        const char *text, *nfc;
    } rows[] = {
        { "plain", "plain" },
        { "e\xcc\x81", "\xc3\xa9" },
        { "\xe2\x84\xab", "\xc3\x85" },                             /* ANGSTROM SIGN */
        { "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81" }, /* Hangul jamo */
        { "q\xcc\x87\xcc\xa3", "q\xcc\xa3\xcc\x87" },               /* marks change places */
        { "\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc" },             /* excluded from composition */
        { "\xcd\x84", "\xcc\x88\xcc\x81" },
        { "<e\xcc\x81>", "<e\xcc\x81>" }, /* user-defined tokens are found first */
        { "\xf0\x9d\x85\x9e", "\xf0\x9d\x85\x97\xf0\x9d\x85\xa5" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t n;
        uint32_t *ids = tokenize(tok, rows[i].text, strlen(rows[i].text), 0, &n);
        bytes got = decode(tok, ids, n, false);
        if (got.len != strlen(rows[i].nfc) || memcmp(got.data, rows[i].nfc, got.len) != 0) fail_msg("row %zu", i);
        free(got.data);
        ca_free(ids);
    }
    /* 2^19 marks in the wrong order: dot above and dot below in turn become all dots below, then all dots above. */
    bytes marks = { 0 };
    bytes_add(&marks, "q", 1);
    for (size_t i = 0; i < 1U << 18; i++) bytes_add(&marks, "\xcc\x87\xcc\xa3", 4);
    size_t n;
    uint32_t *ids = tokenize(tok, marks.data, marks.len, 0, &n);
    assert_int_equal(n, marks.len);
    assert_int_equal(ids[2], 0xa3);
    assert_int_equal(ids[(1U << 19) + 2], 0x87);
    ca_free(ids);
    free(marks.data);
    ca_tokenizer_close(tok);
}

/* ---- damaged vocabularies ---- */

/* Names and merges whose hashes collide, found by running the hash functions of text/vocab.c backwards or by trying: refused, because
 * reading many of them would take time of their number squared. */
static void expect_collision(vocab *v, const char *list)
{
    ca_tokenizer *tok;
    assert_int_equal(open_vocab(v, &tok), CA_E_FORMAT);
    if (!strstr(ca_last_error(), list) || !strstr(ca_last_error(), "collide")) fail_msg("%s", ca_last_error());
}

static void test_hostile_names(void **state)
{
    (void)state;
    const uint64_t factor = 0xD6E8FEB86659FD93U, start = 0x9E3779B97F4A7C15U ^ 8;
    uint64_t inverse = factor; /* each step doubles the bits that are right */
    for (int i = 0; i < 6; i++) inverse *= 2 - factor * inverse;
    for (size_t n = 100; n <= 300; n += 200) {
        vocab v = vocab_new("gpt-2");
        v.no_types = true;
        for (uint64_t i = 0; i < n; i++) {
            uint64_t h = (i << 44) * inverse; /* the table uses bits 20 and up */
            h ^= h >> 32;
            const uint64_t name = h * inverse ^ start;
            (void)vocab_token_n(&v, (const char *)&name, sizeof name, TOKEN_NORMAL);
        }
        if (n > 256)
            expect_collision(&v, "tokenizer.ggml.tokens");
        else
            ca_tokenizer_close(vocab_tokenizer(&v));
    }
}

static void test_hostile_merges(void **state)
{
    (void)state;
    enum { N = 400, SLOTS = 1024, WINDOW = 8 };
    static char name[2 * N];
    memset(name, 'a', sizeof name);
    vocab v = vocab_new("gpt-2");
    v.no_types = true;
    for (size_t i = 0; i < N; i++) (void)vocab_token_n(&v, name, i + 1, TOKEN_NORMAL);
    for (uint64_t left = 0; left < N; left++)
        for (uint64_t right = 0; left + right + 1 < N && v.n_merges < SLOTS / 2 - 1; right++) {
            if (((left << 32 | right) * 0x9E3779B97F4A7C15U >> 32) % SLOTS >= WINDOW) continue;
            char line[2 * N];
            (void)snprintf(line, sizeof line, "%.*s %.*s", (int)left + 1, name, (int)right + 1, name);
            vocab_merge(&v, line);
        }
    assert_true(v.n_merges > SLOTS / 4 + 64);
    expect_collision(&v, "tokenizer.ggml.merges");
}

enum { NO_TYPES = 1, NO_MERGES = 2, TYPE_TOO_MANY = 4, EMPTY = 8 };

static void test_damaged_vocabularies(void **state)
{
    (void)state;
    static char long_name[600];
    memset(long_name, 'x', sizeof long_name - 1);
    static const struct {
        const char *what, *model, *pre, *token;
        uint32_t type;
        const char *merge;
        int64_t bos, eos, eot;
        int add_bos;
        unsigned leave_out;
        ca_status status;
        const char *message;
    } rows[] = {
        { "good", "gpt2", "smollm", "ab", 1, "a b", 1, 2, 3, 1, 0, CA_OK, "" },
        { "no types is fine", "gpt2", "smollm", "ab", 1, "a b", 1, 2, 3, 1, NO_TYPES, CA_OK, "" },
        { "scores", "llama", "smollm", "ab", 1, "a b", 1, 2, 3, 1, 0, CA_E_FORMAT, "key 'tokenizer.ggml.scores' is missing" },
        { "model", "bert", "smollm", "ab", 1, "a b", 1, 2, 3, 1, 0, CA_E_UNSUPPORTED,
          "'bert' is not supported; known: gpt2, llama" },
        { "no model", NULL, "smollm", "ab", 1, "a b", 1, 2, 3, 1, 0, CA_E_FORMAT, "tokenizer.ggml.model" },
        { "pre", "gpt2", "dbrx", "ab", 1, "a b", 1, 2, 3, 1, 0, CA_E_UNSUPPORTED, "'dbrx' is not supported; known: smollm, gpt-2" },
        { "no pre", "gpt2", NULL, "ab", 1, "a b", 1, 2, 3, 1, 0, CA_E_FORMAT, "tokenizer.ggml.pre" },
        { "no tokens", "gpt2", "smollm", "ab", 1, "a b", -1, -1, -1, -1, EMPTY, CA_E_FORMAT,
          "tokenizer.ggml.tokens has 0 entries" },
        { "no merges", "gpt2", "smollm", "ab", 1, "a b", 1, 2, 3, 1, NO_MERGES, CA_E_FORMAT, "tokenizer.ggml.merges" },
        { "types", "gpt2", "smollm", "ab", 1, "a b", 1, 2, 3, 1, TYPE_TOO_MANY, CA_E_FORMAT, "token_type has 258 entries" },
        { "type", "gpt2", "smollm", "ab", 7, "a b", 1, 2, 3, 1, 0, CA_E_FORMAT, "token_type[256] is 7" },
        { "twice", "gpt2", "smollm", "a", 1, "a b", 1, 2, 3, 1, 0, CA_E_FORMAT, "'a' is there twice, as token 97 and 256" },
        { "merge left", "gpt2", "smollm", "ab", 1, "xy b", 1, 2, 3, 1, 0, CA_E_FORMAT, "merges[0] 'xy b': 'xy' is not a token" },
        { "merge right", "gpt2", "smollm", "ab", 1, "a xy", 1, 2, 3, 1, 0, CA_E_FORMAT, "'xy' is not a token" },
        { "merge result", "gpt2", "smollm", "ab", 1, "b a", 1, 2, 3, 1, 0, CA_E_FORMAT, "'ba' is not a token" },
        { "merge of one", "gpt2", "smollm", "ab", 1, "ab", 1, 2, 3, 1, 0, CA_E_FORMAT, "'ab' is not two tokens" },
        { "merge of none", "gpt2", "smollm", "ab", 1, "", 1, 2, 3, 1, 0, CA_E_FORMAT, "is not two tokens" },
        { "merge cut left", "gpt2", "smollm", "ab", 1, " b", 1, 2, 3, 1, 0, CA_E_FORMAT, "is not two tokens" },
        { "merge cut right", "gpt2", "smollm", "ab", 1, "a ", 1, 2, 3, 1, 0, CA_E_FORMAT, "is not two tokens" },
        { "merge of three", "gpt2", "smollm", "ab", 1, "a b c", 1, 2, 3, 1, 0, CA_E_FORMAT, "'b c' is not a token" },
        { "bos", "gpt2", "smollm", "ab", 1, "a b", 257, 2, 3, 1, 0, CA_E_FORMAT, "bos_token_id is 257, but there are 257" },
        { "eos", "gpt2", "smollm", "ab", 1, "a b", 1, 0xffffffff, 3, 1, 0, CA_E_FORMAT, "eos_token_id is 4294967295" },
        { "eot", "gpt2", "smollm", "ab", 1, "a b", 1, 2, 300, 1, 0, CA_E_FORMAT, "eot_token_id is 300" },
        { "bos missing", "gpt2", "smollm", "ab", 1, "a b", -1, 2, 3, 1, 0, CA_E_FORMAT, "there is no tokenizer.ggml.bos_token_id" },
        { "special bytes", "gpt2", "smollm", "a\xff", 3, NULL, 1, 2, 3, 1, 0, CA_E_FORMAT, "special token 256" },
        { "special length", "gpt2", "smollm", long_name, 4, NULL, 1, 2, 3, 1, 0, CA_E_UNSUPPORTED, "has 599 bytes, at most 512" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        vocab v = vocab_new(rows[i].pre);
        v.model = rows[i].model;
        v.bos = rows[i].bos;
        v.eos = rows[i].eos;
        v.eot = rows[i].eot;
        v.add_bos = rows[i].add_bos;
        v.no_types = rows[i].leave_out & NO_TYPES;
        v.no_merges = rows[i].leave_out & NO_MERGES;
        if (!(rows[i].leave_out & EMPTY)) {
            vocab_bytes(&v);
            vocab_token(&v, rows[i].token, rows[i].type);
            if (rows[i].merge) vocab_merge(&v, rows[i].merge);
        }
        if (rows[i].leave_out & TYPE_TOO_MANY) {
            bytes_u32(&v.types, 1);
            v.n_types++;
        }
        ca_tokenizer *tok;
        const ca_status st = open_vocab(&v, &tok);
        if (st != rows[i].status || !strstr(st ? ca_last_error() : "", rows[i].message))
            fail_msg("%s: %s: %s", rows[i].what, ca_status_name(st), ca_last_error());
        assert_int_equal(tok != NULL, st == CA_OK);
        ca_tokenizer_close(tok);
    }
    static const struct {
        float score;
        size_t n_scores, n_name;
        ca_status status;
        const char *message;
    } scored[] = {
        { 0, 2, 1, CA_OK, "" },
        { NAN, 2, 1, CA_E_FORMAT, "the score of token 0 is not a number" },
        { INFINITY, 2, 1, CA_OK, "" },
        { 0, 1, 1, CA_E_FORMAT, "scores has 1 entries for 2 tokens" },
        { 0, 2, 513, CA_E_UNSUPPORTED, "token 1 has 513 bytes, at most 512" },
    };
    for (size_t i = 0; i < sizeof scored / sizeof scored[0]; i++) {
        vocab v = vocab_new(NULL);
        v.model = "llama";
        (void)vocab_token(&v, "a", TOKEN_NORMAL);
        (void)vocab_token_n(&v, long_name, scored[i].n_name, TOKEN_NORMAL);
        for (size_t k = 0; k < scored[i].n_scores; k++) vocab_score(&v, scored[i].score);
        ca_tokenizer *tok;
        const ca_status st = open_vocab(&v, &tok);
        if (st != scored[i].status || !strstr(st ? ca_last_error() : "", scored[i].message))
            fail_msg("scored row %zu: %s: %s", i, ca_status_name(st), ca_last_error());
        ca_tokenizer_close(tok);
    }
    ca_tokenizer *tok;
    assert_int_equal(ca_tokenizer_open("/nonexistent.gguf", &tok), CA_E_IO);
    assert_null(tok);
    assert_int_equal(ca_tokenizer_open(NULL, &tok), CA_E_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smollm2_vectors),
        cmocka_unit_test(test_smollm2_round_trip),
        cmocka_unit_test(test_smollm2_facts),
#ifdef CA_SHARED_GOLDEN
        cmocka_unit_test(test_shared_vocabularies),
#endif
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_normalized_names),
        cmocka_unit_test(test_growing_steps),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_folder_files),
        cmocka_unit_test(test_damaged_json),
        cmocka_unit_test(test_merges_by_definition),
        cmocka_unit_test(test_scores_by_definition),
        cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_words_alone_and_together),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_bos_and_ends),
        cmocka_unit_test(test_stream_never_splits),
        cmocka_unit_test(test_stream_emoji_of_model),
        cmocka_unit_test(test_detokenize_errors),
        cmocka_unit_test(test_hostile_lengths),
        cmocka_unit_test(test_hostile_blanks),
        cmocka_unit_test(test_nfc),
        cmocka_unit_test(test_hostile_names),
        cmocka_unit_test(test_hostile_merges),
        cmocka_unit_test(test_damaged_vocabularies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
