/* SmolLM2-135M-Instruct against Hugging Face transformers in fp32: logits, likelihood and greedy tokens.
 *
 * How far two correct programs may lie apart was measured with llama.cpp against transformers on these prompts (last-position
 * logits, whose standard deviation is about 4):
 *   fp32 against fp32             max |difference| up to 6e-4, KL below 1e-8, mean negative log-likelihood equal to 2e-6;
 *   activations rounded to 8 bits max |difference| 0.39 to 0.87, KL 0.001 to 0.0165, mean negative log-likelihood +0.002 to +0.007.
 * The fp32 kernel sets must stay near the first line (another order of sums, angles rounded once from double): 2e-3 and 1e-6. The
 * bf16 set, which rounds inputs of products to 8 bits of mantissa, must stay inside the second, and so must products on 8-bit integers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <compactattn/session.h>

typedef struct bounds {
    double logit, kl, nll;
} bounds;

static const bounds f32_bounds = { 2e-3, 1e-6, 1e-5 };
static const bounds bits8_bounds = { 0.87, 0.0165, 0.007 };

static const struct prompt {
    const char *name;
    double mean_nll; /* 0 = not recorded */
    bool shared;     /* only where the larger golden folder is */
} prompts[] = {
    { "p0012", 0.0, false },
    { "p0700", 0.0, false },
    { "p1500", 2.6812748122457, false },
    { "p6000", 2.572357848868219, true },
};

/* Items of 4 bytes of a one-dimensional .npy file of version 1; NULL when there is no such file. */
static void *load(const char *folder, const char *prompt, const char *what, size_t *n)
{
    char path[512];
    unsigned char head[10];
    snprintf(path, sizeof path, "%s/smollm2/%s.%s.npy", folder, prompt, what);
    FILE *f = fopen(path, "rb");
    if (f == NULL) return NULL;
    assert_int_equal(fread(head, 1, sizeof head, f), sizeof head);
    assert_memory_equal(head, "\x93NUMPY\x01", 7);
    const long start = 10 + head[8] + 256L * head[9];
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *n = (size_t)(ftell(f) - start) / 4;
    void *items = malloc(*n * 4);
    assert_non_null(items);
    assert_int_equal(fseek(f, start, SEEK_SET), 0);
    assert_int_equal(fread(items, 4, *n, f), *n);
    fclose(f);
    return items;
}

static double log_sum(const float *logits, uint32_t n)
{
    double top = (double)logits[0];
    for (uint32_t i = 1; i < n; i++) top = fmax(top, (double)logits[i]);
    double sum = exp((double)logits[0] - top);
    for (uint32_t i = 1; i < n; i++) sum += exp((double)logits[i] - top);
    return top + log(sum);
}

/* KL(golden || got) in nats. */
static double divergence(const float *golden, const float *got, uint32_t n)
{
    const double a = log_sum(golden, n), b = log_sum(got, n);
    double kl = 0.0;
    for (uint32_t i = 0; i < n; i++) kl += exp((double)golden[i] - a) * (((double)golden[i] - a) - ((double)got[i] - b));
    return kl;
}

typedef struct likelihood {
    const uint32_t *ids;
    size_t n;
    uint32_t vocab;
    double sum;
} likelihood;

static ca_status add_likelihood(void *user, uint32_t position, const float *logits)
{
    likelihood *l = user;
    if (position + 1 < l->n) l->sum += log_sum(logits, l->vocab) - (double)logits[l->ids[position + 1]];
    return CA_OK;
}

static double largest(const float *golden, const float *got, const uint32_t *ids, size_t n)
{
    double worst = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)golden[i] - (double)got[ids != NULL ? ids[i] : i]);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

static void check_logits(const char *folder, const struct prompt *p, const bounds *bound, const float *got, uint32_t vocab)
{
    size_t n = 0, n_ids = 0;
    uint32_t *ids = load(folder, p->name, "top64_ids", &n_ids);
    float *top = load(folder, p->name, "top64_logits", &n);
    assert_true(ids != NULL && top != NULL && n == n_ids);
    const double worst_top = largest(top, got, ids, n);
    if (!(worst_top <= bound->logit)) fail_msg("%s: the best logits differ by %g, bound %g", p->name, worst_top, bound->logit);
    float *all = load(folder, p->name, "logits", &n);
    if (all != NULL) {
        assert_int_equal(n, vocab);
        const double worst = largest(all, got, NULL, n);
        const double kl = divergence(all, got, vocab);
        if (!(worst <= bound->logit)) fail_msg("%s: logits differ by %g, bound %g", p->name, worst, bound->logit);
        if (!(kl <= bound->kl)) fail_msg("%s: KL divergence %g, bound %g", p->name, kl, bound->kl);
    }
    free(all);
    free(top);
    free(ids);
}

/* Feeds the golden continuation. At each step the golden token must be the best wherever its lead exceeds what two logits can move
 * by, and nowhere may another token lead it by more than that. */
static void check_greedy(const char *folder, const struct prompt *p, const bounds *bound, ca_session *session, uint32_t vocab)
{
    size_t n = 0, n_margins = 0;
    uint32_t *golden = load(folder, p->name, "greedy", &n);
    float *margin = load(folder, p->name, "margin", &n_margins);
    assert_true(golden != NULL && margin != NULL && n == n_margins);
    for (size_t i = 0; i < n; i++) {
        const float *logits = ca_session_logits(session);
        ca_sampler greedy = { .temperature = 0.0F, .top_p = 1.0F };
        uint32_t token = 0;
        assert_int_equal(ca_sample(&greedy, logits, vocab, &token), CA_OK);
        const double lead = (double)logits[token] - (double)logits[golden[i]];
        if ((token != golden[i] && (double)margin[i] > 2 * bound->logit) || !(lead <= 2 * bound->logit))
            fail_msg("%s, step %zu: token %u leads the golden %u by %g; its margin is %g", p->name, i, token, golden[i], lead,
                     (double)margin[i]);
        assert_int_equal(ca_session_decode(session, golden[i]), CA_OK);
    }
    free(margin);
    free(golden);
}

static void check_prompt(const ca_model *model, ca_attention attention, const char *folder, const struct prompt *p,
                         const bounds *bound)
{
    ca_model_info info;
    ca_session_opt opt;
    ca_session *session = NULL;
    size_t n = 0;
    uint32_t *ids = load(folder, p->name, "ids", &n);
    if (ids == NULL && p->shared) return;
    assert_non_null(ids);
    ca_model_get_info(model, &info);
    ca_session_defaults(CA_EXEC_DENSE, &opt);
    opt.attention = attention;
    if (ca_session_create(model, &opt, &session) != CA_OK) fail_msg("%s", ca_last_error());
    likelihood l = { .ids = ids, .n = n, .vocab = info.vocab };
    const ca_prefill_opt all = { .user = &l, .n_logits = (uint32_t)n, .on_logits = add_likelihood };
    if (ca_session_prefill(session, ids, n, p->mean_nll > 0.0 ? &all : NULL) != CA_OK) fail_msg("%s", ca_last_error());
    check_logits(folder, p, bound, ca_session_logits(session), info.vocab);
    if (p->mean_nll > 0.0) {
        const double nll = l.sum / (double)(n - 1);
        if (!(fabs(nll - p->mean_nll) <= bound->nll))
            fail_msg("%s: mean negative log-likelihood %.6f, expected %.6f +- %g", p->name, nll, p->mean_nll, bound->nll);
    }
    check_greedy(folder, p, bound, session, info.vocab);
    ca_session_destroy(session);
    free(ids);
}

/* Runs the first n_prompts prompts where this machine has the kernel set. */
static void check_isa(const char *isa, ca_matmul matmul, ca_attention attention, size_t n_prompts)
{
    ca_model *model = NULL;
    const ca_model_opt opt = { .isa = isa, .matmul = matmul };
    const ca_kern *kern = NULL;
    if (ca_kern_choose(isa, &kern) != CA_OK) {
        print_message("%s: %s\n", isa, ca_last_error());
        skip();
    }
    if (ca_model_open(CA_TEST_MODEL, &opt, &model) != CA_OK) fail_msg("%s (`make model` fetches it)", ca_last_error());
    const bounds *bound = ca_kern_dtype(kern) == CA_BF16 || matmul == CA_MATMUL_INT8 || attention == CA_ATTENTION_INT8
                              ? &bits8_bounds
                              : &f32_bounds;
    for (size_t i = 0; i < n_prompts; i++)
        check_prompt(model, attention, prompts[i].shared ? CA_SHARED_GOLDEN : CA_TEST_DATA, &prompts[i], bound);
    ca_model_close(model);
}

static void test_bf16(void **state)
{
    (void)state;
    check_isa("avx512bf16", CA_MATMUL_NATIVE, CA_ATTENTION_NATIVE, 4);
}

static void test_avx512(void **state)
{
    (void)state;
    check_isa("avx512", CA_MATMUL_NATIVE, CA_ATTENTION_NATIVE, 4);
}

static void test_mixed(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    check_isa(ca_kern_choose("avx512mixed", &kern) == CA_OK ? "avx512mixed" : "avx2mixed", CA_MATMUL_NATIVE, CA_ATTENTION_NATIVE,
              3);
}

static void test_avx2(void **state)
{
    (void)state;
    check_isa("avx2", CA_MATMUL_NATIVE, CA_ATTENTION_NATIVE, 3);
}

static void test_scalar(void **state)
{
    (void)state;
    check_isa("scalar", CA_MATMUL_NATIVE, CA_ATTENTION_NATIVE, 1); /* slow */
}

static void test_int8(void **state)
{
    (void)state;
    const ca_kern *best = NULL;
    assert_int_equal(ca_kern_choose(NULL, &best), CA_OK);
    const bool fast = strcmp(ca_kern_int8_name(best), "portable") != 0;
    check_isa(NULL, CA_MATMUL_INT8, CA_ATTENTION_NATIVE, fast ? 4 : 1);
    if (fast && ca_kern_dtype(best) == CA_BF16) check_isa("avx512", CA_MATMUL_INT8, CA_ATTENTION_NATIVE, 3);
}

static void test_int8_attention(void **state)
{
    (void)state;
    const ca_kern *kern = NULL;
    if (ca_kern_choose("avx512", &kern) != CA_OK || !ca_kern_int8_attention_name(kern, 128)) skip();
    check_isa("avx512", CA_MATMUL_NATIVE, CA_ATTENTION_INT8, 4);
    check_isa("avx512", CA_MATMUL_INT8, CA_ATTENTION_INT8, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16),           cmocka_unit_test(test_avx512), cmocka_unit_test(test_mixed),
        cmocka_unit_test(test_avx2),           cmocka_unit_test(test_scalar), cmocka_unit_test(test_int8),
        cmocka_unit_test(test_int8_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
