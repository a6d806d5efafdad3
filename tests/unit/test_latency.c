/* bench latency: prompts, the share of --keep, and what the summary makes of rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/latency.h"

static void test_prompts(void **state)
{
    (void)state;
    enum { LENGTH = 50, BATCH = 3 };
    uint32_t a[BATCH * LENGTH], b[BATCH * LENGTH], given[] = { 7, 8, 9, 110, 11, 12, 13 };
    char why[LATENCY_WHY];
    struct latency_input random = { .source = LATENCY_RANDOM, .seed = 4, .vocab = 100 };
    assert_null(latency_prompts(&random, LENGTH, BATCH, 0, a, why));
    assert_null(latency_prompts(&random, LENGTH, BATCH, 1, b, why));
    assert_memory_equal(a, b, sizeof a); /* fixed: the same in each run */
    assert_memory_not_equal(a, a + LENGTH, LENGTH * sizeof *a);
    for (size_t i = 0; i < BATCH * LENGTH; i++) assert_true(a[i] < 100);
    random.cycle = true;
    assert_null(latency_prompts(&random, LENGTH, BATCH, 1, b, why));
    assert_memory_equal(a + LENGTH, b, (BATCH - 1) * LENGTH * sizeof *a); /* the next run's first prompt is this one's second */

    struct latency_input repeated = { .source = LATENCY_TEXT, .vocab = 100, .ids = given, .n_ids = 7 };
    assert_null(latency_prompts(&repeated, LENGTH, BATCH, 5, a, why));
    for (size_t i = 0; i < BATCH * LENGTH; i++) assert_int_equal(a[i], given[i % 7] % 100);

    struct latency_input missing = { .source = LATENCY_RULER, .vocab = 100, .root = "/nowhere", .task = "vt" };
    assert_string_equal(latency_prompts(&missing, LENGTH, 1, 0, a, why),
                        "/nowhere/synthetic/50/data/vt/validation.jsonl: no prompts can be read from it");
}

/* Every head of a KV head reads the same blocks of the past: the share, with the first and the last. */
static void test_keep(void **state)
{
    (void)state;
    enum { KV = 2, HEADS = 6, QBLOCKS = 3, PAST = 90, WORDS = 2 };
    static const struct {
        double keep;
        unsigned blocks;
    } cases[] = { { 0, 0 }, { 0.005, 0 }, { 0.01, 1 }, { 0.1, 9 }, { 0.5, 45 }, { 1, 90 } };
    uint64_t first[KV][WORDS] = { { 0 } };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint64_t bits[HEADS * QBLOCKS * WORDS] = { 0 };
        ca_mask mask = {
            .bits = bits, .n_heads = HEADS, .n_qblocks = QBLOCKS, .n_kblocks = 93, .words = WORDS, .first_qblock = PAST
        };
        struct latency_method method = { .keep = cases[c].keep, .n_kv_heads = KV };
        const ca_chunk chunk = { .layer = 1, .pos = PAST * 32, .n_tokens = 96, .n_heads = HEADS };
        assert_int_equal(latency_keep_share(&method, NULL, &chunk, NULL, &mask), CA_OK);
        for (size_t row = 0; row < HEADS * QBLOCKS; row++) {
            const uint64_t *r = bits + row * WORDS;
            assert_int_equal((unsigned)(__builtin_popcountll(r[0]) + __builtin_popcountll(r[1])), cases[c].blocks);
            assert_int_equal(r[1] >> (PAST - 64), 0);
            if (cases[c].blocks > 1) assert_true((r[0] & 1) && (r[1] >> (PAST - 65) & 1));
            if (row % (HEADS / KV * QBLOCKS) == 0)
                memcpy(first[row / (HEADS / KV * QBLOCKS)], r, sizeof first[0]);
            else
                assert_memory_equal(r, first[row / (HEADS / KV * QBLOCKS)], sizeof first[0]);
        }
        if (cases[c].blocks == 45) assert_memory_not_equal(first[0], first[1], sizeof first[0]);
    }
}

/* Three fifths of a Llama-3.1-8B's 32K prompt are matrix products; the rest grows with the square. */
static void test_gflop(void **state)
{
    (void)state;
    const ca_model_info llama = {
        .n_layers = 32, .hidden = 4096, .n_heads = 32, .n_kv_heads = 8, .head_dim = 128, .ffn = 14336, .vocab = 128256
    };
    const double params = 32.0 * (2 * 4096.0 * 4096 + 2 * 4096.0 * 1024 + 3 * 4096.0 * 14336); /* 6.98e9 */
    const double pairs = 32.0 * 32768 * 32768 / 2, heads = 4096;
    assert_true(fabs(latency_gflop(&llama, 32768, 1) - 2e-9 * (params * 32768 + 2 * heads * pairs)) < 1);
    assert_true(fabs(latency_gflop(&llama, 32768, 0) - 2e-9 * params * 32768) < 1);
    assert_true(fabs(latency_gflop(&llama, 32768, 0.5) * 2 - latency_gflop(&llama, 32768, 0) - latency_gflop(&llama, 32768, 1)) <
                1);
    assert_true(latency_gflop(&llama, 131072, 1) > 6 * latency_gflop(&llama, 32768, 1)); /* tokens alone: 4 */

    ca_model_info near = llama;
    near.n_sliding = 31, near.window = 1024;
    const double far_pairs = 32768.0 * 32768 / 2, near_pairs = 1024.0 * 1024 / 2 + (32768.0 - 1024) * 1024;
    assert_true(fabs(latency_gflop(&near, 32768, 1) - 2e-9 * (params * 32768 + 2 * heads * (far_pairs + 31 * near_pairs))) < 1);
    assert_true(fabs(latency_gflop(&near, 512, 1) - latency_gflop(&llama, 512, 1)) < 1e-3);

    ca_model_info experts = llama;
    experts.n_experts = 8, experts.experts_per_token = 2, experts.expert_ffn = 7168;
    assert_true(fabs(latency_gflop(&experts, 1000, 1) - latency_gflop(&llama, 1000, 1) - 2e-9 * 1000 * 32 * 4096 * 8) < 1e-3);
}

static void add_row(json_t *rows, const char *method, int length, const char *phase, const char *status, double e2e, double attn)
{
    json_t *row = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:s, s:f, s:f, s:f, s:f, s:i, s:s}", "model", "m",
                            "method", method, "threads", 1, "batch_size", 1, "chunk_size", 128, "seq_len", length, "layers", 2,
                            "layers_whole", 2, "phase", phase, "status", status, "e2e_ms", e2e, "attn_module_ms", attn, "kernel_ms",
                            attn / 2, "kept_block_fraction", 0.25, "peak_mem_bytes", 1 << 20, "error", "no room");
    assert_non_null(row);
    json_array_append_new(rows, row);
}

static double number(const json_t *lines, size_t i, const char *key)
{
    const json_t *value = json_object_get(json_array_get(lines, i), key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static const char *text(const json_t *lines, size_t i, const char *key)
{
    return json_string_value(json_object_get(json_array_get(lines, i), key));
}

static void test_summary(void **state)
{
    (void)state;
    json_t *rows = json_array();
    add_row(rows, "dense", 300, "warmup", "ok", 900, 900);
    add_row(rows, "auto", 300, "warmup", "ok", 900, 900);
    const double dense[] = { 10, 16, 12, 14 }, fast[] = { 5, 7 };
    for (size_t i = 0; i < 4; i++) add_row(rows, "dense", 300, "measured", "ok", dense[i], dense[i] / 2);
    for (size_t i = 0; i < 2; i++) add_row(rows, "auto", 300, "measured", "ok", fast[i], 2);
    add_row(rows, "dense", 600, "measured", "oom", 0, 0);
    add_row(rows, "auto", 600, "measured", "ok", 20, 8);
    struct latency_summary *summary = latency_summarize(rows, 1);
    assert_non_null(summary);
    assert_int_equal(latency_summary_lines(summary), 4);
    json_t *lines = latency_json(summary);
    assert_string_equal(text(lines, 0, "method"), "dense");
    assert_true(number(lines, 0, "runs") == 4 && number(lines, 0, "warmup") == 1);
    assert_true(number(lines, 0, "e2e_mean_ms") == 13);
    assert_float_equal((float)number(lines, 0, "e2e_std_ms"), sqrtf(5), 1e-6F); /* of the population */
    assert_true(number(lines, 0, "e2e_median_ms") == 13 && number(lines, 0, "e2e_min_ms") == 10);
    assert_true(number(lines, 0, "attn_mean_ms") == 6.5 && number(lines, 0, "attn_frac_pct") == 50);
    assert_true(number(lines, 0, "chunks") == 3 && number(lines, 0, "kept_block_pct") == 25);
    assert_true(number(lines, 0, "peak_mem_mib") == 1 && number(lines, 0, "e2e_speedup") == 1);
    assert_float_equal((float)number(lines, 1, "e2e_speedup"), 13.0F / 6, 1e-6F);
    assert_float_equal((float)number(lines, 1, "attn_speedup"), 3.25F, 1e-6F);
    assert_float_equal((float)number(lines, 1, "kernel_speedup"), 3.25F, 1e-6F);
    assert_string_equal(text(lines, 2, "status"), "oom");
    assert_string_equal(text(lines, 2, "error"), "no room");
    assert_true(isnan(number(lines, 2, "e2e_mean_ms")) && number(lines, 2, "runs") == 0);
    assert_true(number(lines, 3, "e2e_mean_ms") == 20 && isnan(number(lines, 3, "e2e_speedup")));
    json_decref(lines);
    json_decref(rows);
    latency_summary_free(summary);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_keep),
        cmocka_unit_test(test_gflop),
        cmocka_unit_test(test_summary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
