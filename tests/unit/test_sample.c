/* Sampling: greedy ties, the nucleus against its definition, frequencies, determinism, and logits that are not numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include <compactattn/session.h>

static uint32_t sample(ca_sampler *sampler, const float *logits, uint32_t vocab)
{
    uint32_t token = UINT32_MAX;
    assert_int_equal(ca_sample(sampler, logits, vocab, &token), CA_OK);
    assert_true(token < vocab);
    return token;
}

static const struct greedy_case {
    float logits[4];
    uint32_t token;
    const char *covers;
} greedy_cases[] = {
    { { 1.0F, 3.0F, 2.0F, 0.0F }, 1, "largest" },
    { { 2.0F, 5.0F, 5.0F, 5.0F }, 1, "the lowest id wins a tie" },
    { { NAN, -3.0F, NAN, -4.0F }, 1, "NaN is never drawn" },
    { { -INFINITY, -INFINITY, -1e30F, -INFINITY }, 2, "only one is possible" },
    { { 0.0F, NAN, INFINITY, 3e38F }, 2, "infinity is the largest" },
};

static void test_greedy(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof greedy_cases / sizeof *greedy_cases; i++) {
        ca_sampler s = { .temperature = 0.0F, .top_p = 1.0F, .state = 7 };
        if (sample(&s, greedy_cases[i].logits, 4) != greedy_cases[i].token) fail_msg("%s", greedy_cases[i].covers);
        assert_int_equal(s.state, 7); /* nothing was drawn */
    }
}

/* Probabilities .5 .25 .125 .125 at temperature 1: exact in fp32 arithmetic up to rounding. */
static const float halves[] = { -0.6931472F, -1.3862944F, -2.0794415F, -2.0794415F };

static void count(ca_sampler *s, const float *logits, uint32_t vocab, uint32_t draws, uint32_t *counts)
{
    memset(counts, 0, vocab * sizeof *counts);
    for (uint32_t i = 0; i < draws; i++) counts[sample(s, logits, vocab)]++;
}

static const struct nucleus_case {
    float temperature, top_p;
    double expected[4];
} nucleus_cases[] = {
    { 1.0F, 1.0F, { 0.5, 0.25, 0.125, 0.125 } },
    { 1.0F, 0.8F, { 0.5 / 0.875, 0.25 / 0.875, 0.125 / 0.875, 0.0 } }, /* the lowest id of a tie is in the nucleus */
    { 1.0F, 0.7F, { 2.0 / 3, 1.0 / 3, 0.0, 0.0 } },
    { 1.0F, 0.4F, { 1.0, 0.0, 0.0, 0.0 } },
    { 1.0F, 1e-6F, { 1.0, 0.0, 0.0, 0.0 } },
    { 0.5F, 1.0F, { 0.25 / 0.34375, 0.0625 / 0.34375, 0.015625 / 0.34375, 0.015625 / 0.34375 } },
    { 1e-30F, 1.0F, { 1.0, 0.0, 0.0, 0.0 } },
    { 1e30F, 1.0F, { 0.25, 0.25, 0.25, 0.25 } },
};

/* 40,000 draws: the standard deviation of a frequency is at most 0.0025; five of them. */
static void test_frequencies(void **state)
{
    (void)state;
    enum { DRAWS = 40000 };
    for (size_t c = 0; c < sizeof nucleus_cases / sizeof *nucleus_cases; c++) {
        ca_sampler s = { nucleus_cases[c].temperature, nucleus_cases[c].top_p, 11 };
        uint32_t counts[4];
        count(&s, halves, 4, DRAWS, counts);
        for (size_t i = 0; i < 4; i++) {
            const double expected = nucleus_cases[c].expected[i];
            const double got = (double)counts[i] / DRAWS;
            if (expected == 0.0 ? counts[i] != 0 : fabs(got - expected) > 0.0125)
                fail_msg("case %zu, token %zu: frequency %g, expected %g", c, i, got, expected);
        }
    }
}

static void test_same_seed_same_tokens(void **state)
{
    (void)state;
    ca_sampler a = { 1.0F, 0.95F, 5 }, b = a, other = { 1.0F, 0.95F, 6 };
    unsigned different = 0;
    for (int i = 0; i < 200; i++) {
        const uint32_t token = sample(&a, halves, 4);
        assert_int_equal(token, sample(&b, halves, 4));
        different += token != sample(&other, halves, 4);
    }
    assert_true(different > 50);
}

static void test_not_numbers(void **state)
{
    (void)state;
    const float mixed[] = { NAN, 0.0F, -INFINITY, 0.0F, NAN };
    ca_sampler s = { 1.0F, 0.99F, 1 };
    uint32_t counts[5];
    count(&s, mixed, 5, 2000, counts);
    assert_int_equal(counts[1] + counts[3], 2000);
    assert_true(counts[1] > 800 && counts[3] > 800);
    const float none[] = { NAN, -INFINITY };
    uint32_t token = 0;
    assert_int_equal(ca_sample(&s, none, 2, &token), CA_E_ARG);
    assert_int_equal(ca_sample(&s, none, 0, &token), CA_E_ARG);
}

static void test_bad_settings(void **state)
{
    (void)state;
    static const float bad[][2] = { { -1.0F, 1.0F }, { NAN, 1.0F },  { INFINITY, 1.0F },
                                    { 1.0F, 0.0F },  { 1.0F, 1.1F }, { 1.0F, NAN } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ca_sampler s = { bad[i][0], bad[i][1], 0 };
        uint32_t token = 0;
        assert_int_equal(ca_sample(&s, halves, 4, &token), CA_E_ARG);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),      cmocka_unit_test(test_frequencies),  cmocka_unit_test(test_same_seed_same_tokens),
        cmocka_unit_test(test_not_numbers), cmocka_unit_test(test_bad_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
