/* LongBench-v2: the published vectors of choices (spec: evaluation, C4), and the summaries of a few rows. */
#include "eval/longbench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_choices(void **state)
{
    static const struct {
        const char *response;
        int published, official;
    } cases[] = {
        { "The correct answer is (B).", 'B', 'B' },
        { "**The correct answer is (c)**", 'C', 0 },
        { "the correct answer is\n\nD", 'D', 0 },
        { "Answer: A", 'A', 0 },
        { "answer is B", 'B', 0 },
        { "answer isB", 0, 0 },
        { "answer:B", 'B', 0 },
        { "A", 'A', 0 },
        { "B.", 'B', 0 },
        { "x\nB) y", 'B', 0 },
        { "I think (d) fits", 'D', 0 },
        { "correct answer is (A) foo", 'A', 0 },
        { "Answer is option C", 0, 0 },
        { "The correct answer is option C", 0, 0 },
        { "The correct answer is: B", 0, 0 },
        { "The correct answer is  (E)", 0, 0 },
        { "Final: B", 0, 0 },
        { "(A) x\n(B) y", 'A', 0 },
        { "", 0, 0 },
        { "The correct answer is (insert answer here)", 0, 0 },
        { "The correct answer is definitely C", 'D', 0 },
        { "The correct answer is based on (C)", 'B', 0 },
        { "A long story (C)", 'A', 0 },
        { "a dog is here. (B)", 'A', 0 },
        { "The correct answer is Baltic", 'B', 'B' },
        { "The correct answer is A, no: The correct answer is (C)", 'A', 'C' },
        { "*The* correct answer is **(D)**", 'D', 'D' },
        { "A\xc3\xa9", 0, 0 },            /* a letter of another alphabet goes on with the word */
        { "A\xe2\x80\x94 or B", 'A', 0 }, /* a dash does not */
        { "\xc2\xa0 C", 'C', 0 },         /* a space that does not break is white space */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int published = longbench_choice(cases[i].response, false), official = longbench_choice(cases[i].response, true);
        if (published != cases[i].published || official != cases[i].official)
            fail_msg("\"%s\": %c %c, expected %c %c", cases[i].response, published ? published : '-', official ? official : '-',
                     cases[i].published ? cases[i].published : '-', cases[i].official ? cases[i].official : '-');
    }
}

/* Blank lines before what is no choice: this would run for hours if each of them read all that follow. */
static void test_blank_lines(void **state)
{
    (void)state;
    enum { N = 1 << 22 };
    static char response[N + 16];
    response[0] = 'x'; /* white space in front is taken off */
    for (size_t i = 1; i < N; i++) response[i] = i % 4 ? '\n' : '\t';
    memcpy(response + N, "x\n \n", 4);
    assert_int_equal(longbench_choice(response, false), 0);
    memcpy(response + N + 4, "(c)", 3);
    assert_int_equal(longbench_choice(response, false), 'C');
}

static const char *add(struct longbench_scores *scores, const char *row, bool official)
{
    json_t *json = json_loads(row, 0, NULL);
    assert_non_null(json);
    const char *why = longbench_add(scores, json, official);
    json_decref(json);
    return why;
}

#define ROW(id, answer, rest)                                                                                                      \
    "{\"_id\": \"" id "\", \"answer\": \"" answer "\", \"difficulty\": \"easy\", \"length\": \"long\", \"domain\": \"Z\", " rest "}"

static void test_summaries(void **state)
{
    (void)state;
    struct longbench_scores scores = { 0 };
    assert_null(add(&scores, ROW("a", "A", "\"pred_answer\": \" a \""), false));
    assert_null(add(&scores, ROW("a", "A", "\"pred_answer\": \"B\""), false)); /* seen before */
    assert_null(add(&scores, ROW("b", "B", "\"pred_answer\": null, \"response\": \"Answer: B\""), false));
    assert_null(add(&scores, ROW("c", "C", "\"pred_answer\": null, \"response\": \"who knows\""), false));
    assert_null(
        add(&scores,
            "{\"_id\": 7, \"answer\": \"d\", \"difficulty\": \"hard\", \"length\": \"short\", \"domain\": \"B, \\\"q\\\"\", "
            "\"response\": \"D\"}",
            false));
    assert_non_null(add(&scores, ROW("e", "E", "\"response\": \"A\""), false));
    assert_non_null(add(&scores, ROW("f", "A", "\"pred_answer\": null"), false));
    assert_non_null(add(&scores, "{\"answer\": \"A\", \"response\": \"A\"}", false));
    assert_non_null(add(
        &scores, "{\"_id\": \"g\", \"answer\": \"A\", \"response\": \"A\", \"difficulty\": \"easy\", \"domain\": \"x\"}", false));

    json_t *summary = longbench_json(&scores);
    char *text = json_dumps(summary, JSON_COMPACT | JSON_REAL_PRECISION(4));
    assert_string_equal(
        text, "{\"count\":4,\"overall\":75.0,\"easy\":66.7,\"hard\":100.0,\"short\":100.0,\"medium\":0.0,\"long\":66.7,"
              "\"nulls\":1,\"domains\":{\"B, \\\"q\\\"\":{\"count\":1,\"score\":100.0},\"Z\":{\"count\":3,\"score\":66.7}}}");
    char *csv = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&csv, &size);
    assert_non_null(out);
    longbench_write_csv(summary, out);
    fclose(out);
    assert_string_equal(
        csv, "metric,value\r\ncount,4\r\noverall,75.0\r\neasy,66.7\r\nhard,100.0\r\nshort,100.0\r\nmedium,0.0\r\nlong,66.7\r\n"
             "nulls,1\r\n\r\ndomain,count,score\r\n\"B, \"\"q\"\"\",1,100.0\r\nZ,3,66.7\r\n");
    free(csv);
    free(text);
    json_decref(summary);
    longbench_free(&scores);

    /* The strict rule looks at the response, whatever was written beside it. */
    assert_null(add(&scores, ROW("a", "A", "\"pred_answer\": \"A\", \"response\": \"A\""), true));
    assert_int_equal(scores.buckets[LONGBENCH_OVERALL].right, 0);
    assert_int_equal(scores.nulls, 1);
    longbench_free(&scores);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_choices), cmocka_unit_test(test_blank_lines),
                                        cmocka_unit_test(test_summaries) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
