/* LongBench-v2: prompts as the specification spells them (spec: evaluation, C2), the cut in the middle (C3), files of items. */
#include "eval/longbench_data.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The six fields are stripped of white space of any kind; what looks like a placeholder in them is text. */
#define ITEM                                                                                                                       \
    "{\"context\": \"\\n\\u00a0A {question} <b>.\\n\\nEnd. \\t\", \"question\": \" Who?\\n\", \"choice_A\": \"a \", "              \
    "\"choice_B\": \"\\u2003b\", \"choice_C\": \"c\\r\\n\", \"choice_D\": \"d d\"}"

#define CHOICES "What is the correct answer to this question: Who?\nChoices:\n(A) a\n(B) b\n(C) c\n(D) d d\n"
#define FORMAT "Format your response as follows: \"The correct answer is (insert answer here)\"."

static void test_prompts(void **state)
{
    static const struct {
        enum longbench_form form;
        const char *want;
    } cases[] = {
        { LONGBENCH_REFERENCE,
          "Please read the following text and answer the question below.\n\nA {question} <b>.\n\nEnd.\n\n" CHOICES FORMAT },
        { LONGBENCH_OFFICIAL, "Please read the following text and answer the question below.\n\n<text>\nA {question} <b>.\n\nEnd.\n"
                              "</text>\n\n" CHOICES "\n" FORMAT },
        { LONGBENCH_COT, "Please read the following text and answer the questions below.\n\n<text>\nA {question} <b>.\n\nEnd.\n"
                         "</text>\n\n" CHOICES "\nLet’s think step by step:" },
        { LONGBENCH_COT_ANSWER,
          "Please read the following text and answer the questions below.\n\nThe text is too long and omitted "
          "here.\n\n" CHOICES "\nLet’s think step by step: It is {context}.\n\nBased on the above, what is the "
          "single, most likely answer choice? " FORMAT },
    };
    json_t *item = json_loads(ITEM, 0, NULL);
    (void)state;
    assert_non_null(item);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text text = { 0 };
        longbench_add_prompt(item, cases[i].form, "It is {context}.", &text);
        assert_false(text.failed);
        assert_string_equal(text.at, cases[i].want);
        text_free(&text);
    }
    json_decref(item);
}

/* The words are one token each, and so is each of the digits. */
static void test_cut(void **state)
{
    static const struct {
        const char *text;
        size_t n, most;
        const char *want;
    } cases[] = {
        { "one two three four five six seven", 7, 7, "one two three four five six seven" },
        { "one two three four five six seven", 7, 6, "one two three five six seven" }, /* 3 and 3 */
        { "one two three four five six seven", 7, 5, "one two five six seven" },       /* 2 and 3 */
        { "one two three four five six seven", 7, 2, "one seven" },
        { "one two three four five six seven", 7, 1, " seven" }, /* none and 1 */
        { "one two three four five six seven", 7, 0, "" },
        { "12345678", 8, 4, "1278" },
        { "<|im_start|>1234<|im_end|>", 6, 4, "14" }, /* special tokens count, and are lost */
        { "\xf0\x9d\x94\xb8", 3, 2, "\xef\xbf\xbd" }, /* bytes of a character: the seam makes it none */
    };
    ca_tokenizer *tokenizer = NULL;
    (void)state;
    assert_int_equal(ca_tokenizer_open(CA_TEST_MODEL, &tokenizer), CA_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text text = { 0 };
        uint32_t *ids = NULL;
        size_t n = 0;
        assert_int_equal(ca_tokenize(tokenizer, cases[i].text, strlen(cases[i].text), CA_TOK_PARSE_SPECIAL, &ids, &n), CA_OK);
        if (n != cases[i].n) fail_msg("\"%s\" has %zu tokens, expected %zu", cases[i].text, n, cases[i].n);
        assert_int_equal(longbench_add_cut(tokenizer, ids, n, cases[i].most, &text), 0);
        if (strcmp(text.at ? text.at : "", cases[i].want) != 0)
            fail_msg("\"%s\" cut to %zu is \"%s\", expected \"%s\"", cases[i].text, cases[i].most, text.at, cases[i].want);
        text_free(&text);
        ca_free(ids);
    }
    ca_tokenizer_close(tokenizer);
}

static void test_clean(void **state)
{
    static const char *const cases[][2] = {
        { "Hi , you . Who ? Me !", "Hi, you. Who? Me!" },
        { "I do n't , I 'm , it 's , we 've , you 're", "I don't, I'm, it's, we've, you're" },
        { "a ' b", "a'b" },
        { "a  .", "a ." },
        { "plain", "plain" },
        { "", "" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text text = { 0 };
        longbench_add_clean(cases[i][0], &text);
        assert_false(text.failed);
        assert_string_equal(text.at ? text.at : "", cases[i][1]);
        text_free(&text);
    }
}

#define LABELS "\"domain\": \"D\", \"difficulty\": \"easy\", \"length\": \"long\", \"answer\": \"A\""
#define FIELDS                                                                                                                     \
    "\"context\": \"\", \"question\": \"\", \"choice_A\": \"\", \"choice_B\": \"\", \"choice_C\": \"\", \"choice_D\": \"\""
#define WHOLE(id) "{" id FIELDS ", " LABELS "}"

static int read_text(const char *text, struct longbench_data *out)
{
    char path[] = "/tmp/ca-longbench-XXXXXX";
    const int file = mkstemp(path);
    assert_true(file >= 0);
    assert_true(write(file, text, strlen(text)) == (ssize_t)strlen(text));
    close(file);
    const int code = longbench_read(path, out);
    unlink(path);
    return code;
}

/* Bad rows are left out and counted, and the numbers of the others are those in the file. */
static void test_files(void **state)
{
    static const struct {
        const char *text, *ids[3]; /* of the items, in order */
        size_t rows[3], n, n_bad;
        int code;
    } cases[] = {
        { WHOLE("\"_id\": \"a\", ") "\n\n" WHOLE("\"_id\": 7, ") "\n" WHOLE(""), { "a", "7", "2" }, { 0, 1, 2 }, 3, 0, 0 },
        { "[" WHOLE("\"id\": \"a\", ") ", 5,\n" WHOLE("\"_id\": null, ") "\n]\n", { "a", "2" }, { 0, 2 }, 2, 1, 0 },
        { WHOLE("\"_id\": \"a\", ") "\n{\"_id\": \n" WHOLE("\"_id\": \"a\", ") "\n" WHOLE("\"_id\": [], ") "\n" WHOLE(
              "\"_id\": \"b\", "),
          { "a", "b" },
          { 0, 4 },
          2,
          3,
          0 },
        { "{" LABELS "}\n{" FIELDS "}\n" WHOLE("\"_id\": \"c\", "), { "c" }, { 2 }, 1, 2, 0 },
        { "[" WHOLE("") ", " WHOLE(""), { "0", "1" }, { 0, 1 }, 2, 0, 1 }, /* no end */
        { "[" WHOLE("") "]x", { "0" }, { 0 }, 1, 0, 1 },                   /* more behind it */
        { "[" WHOLE("") ",]", { "0" }, { 0 }, 1, 0, 1 },                   /* a comma too many */
        { "[" WHOLE("") WHOLE("") "]", { "0" }, { 0 }, 1, 0, 1 },          /* one too few */
        { "[]", { NULL }, { 0 }, 0, 0, 1 },
        { "", { NULL }, { 0 }, 0, 0, 1 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct longbench_data data;
        assert_int_equal(read_text(cases[i].text, &data), cases[i].code);
        assert_int_equal(data.n_items, cases[i].n);
        assert_int_equal(data.n_bad, cases[i].n_bad);
        for (size_t j = 0; j < data.n_items; j++) {
            assert_string_equal(data.items[j].id, cases[i].ids[j]);
            assert_int_equal(data.items[j].row, cases[i].rows[j]);
            json_t *again = json_loadb(data.items[j].json, data.items[j].size, JSON_DISABLE_EOF_CHECK, NULL);
            assert_true(json_is_object(again));
            json_decref(again);
            assert_string_equal(json_string_value(json_object_get(data.items[j].labels, "_id")), cases[i].ids[j]);
            assert_string_equal(json_string_value(json_object_get(data.items[j].labels, "sub_domain")), "");
        }
        longbench_data_free(&data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_prompts), cmocka_unit_test(test_cut), cmocka_unit_test(test_clean),
                                        cmocka_unit_test(test_files) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
