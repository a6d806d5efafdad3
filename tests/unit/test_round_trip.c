/* Whether tokens still say what the text says: a byte-level tokenizer always does, one that turns spaces into a mark does not where
 * the text has that mark itself. */
#include "eval/round_trip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool trip(const ca_tokenizer *tokenizer, const char *text, const char *against)
{
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    assert_int_equal(ca_tokenize(tokenizer, text, strlen(text), CA_TOK_ADD_BOS, &ids, &n_ids), CA_OK);
    const bool same = round_trips(tokenizer, against, strlen(against), ids, n_ids);
    ca_free(ids);
    return same;
}

static void test_trips(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *text;
        bool same;
    } cases[] = {
        { CA_TEST_DATA "/models/gemma3_nested", "One of the special magic numbers is 4812.\n\n  Two spaces, caf\xc3\xa9.", true },
        { CA_TEST_DATA "/models/gemma3_nested", "a mark \xe2\x96\x81 of its own", false },
        { CA_TEST_DATA "/models/llama_untied", "a mark \xe2\x96\x81 of its own", true },
        { CA_TEST_DATA "/models/llama_untied", " starts and ends with blanks \n", true },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ca_tokenizer *tokenizer = NULL;
        assert_int_equal(ca_tokenizer_open(cases[i].folder, &tokenizer), CA_OK);
        assert_int_equal(trip(tokenizer, cases[i].text, cases[i].text), cases[i].same);
        assert_false(trip(tokenizer, cases[i].text, "another text")); /* nor does anything else pass */
        assert_false(trip(tokenizer, "", "x"));
        ca_tokenizer_close(tokenizer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_trips) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
