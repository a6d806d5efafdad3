/* RULER's prompts against the hashes of the published generators: both random streams, all 13 tasks on counted words, and rows made with
 * a real tokenizer. */
#include "cli/message.h"
#include "eval/ledger.h"
#include "eval/random.h"
#include "eval/ruler.h"
#include "eval/ruler_tasks.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { HEX = 64, SEED = 42 };

/* What the tests share; the data folder is found from the folder that the repository's data is in. */
static struct {
    struct words *words;
    struct essay essay;
    struct questions squad, hotpotqa;
    ca_tokenizer *tokenizer;
} shared;

/* B5's check values. */
static void streams_match(void **state)
{
    (void)state;
    struct random random = { .next = 0 };
    random_seed_python(&random, SEED);
    assert_int_equal(random_u32(&random), 2746317213U);
    assert_int_equal(random_u32(&random), 478163327U);
    assert_int_equal(random_u32(&random), 107420369U);

    random_seed_python(&random, SEED);
    assert_true(random_real(&random) == 0.6394267984578837);
    assert_true(random_real(&random) == 0.025010755222666936);

    static const uint32_t below[] = { 1, 0, 4, 3, 3, 2, 1, 8 };
    random_seed_python(&random, SEED);
    for (size_t i = 0; i < 8; i++) assert_int_equal(random_below(&random, 10), below[i]);

    int digits[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    static const int shuffled[] = { 7, 3, 2, 8, 5, 6, 9, 4, 0, 1 };
    random_shuffle(SEED, digits, 10, sizeof *digits);
    assert_memory_equal(digits, shuffled, sizeof shuffled);

    static const size_t many[] = { 654, 114, 25, 759, 281, 250, 228, 142, 754, 104 }, few[] = { 3, 0, 8, 7, 16 };
    size_t drawn[10];
    random_seed_python(&random, SEED);
    assert_true(random_sample(&random, 1000, 10, drawn));
    assert_memory_equal(drawn, many, sizeof many);
    random_seed_python(&random, SEED);
    assert_true(random_sample(&random, 20, 5, drawn));
    assert_memory_equal(drawn, few, sizeof few);

    uint32_t bits[4];
    char letters[6];
    random_seed_python(&random, SEED);
    random_bits128(&random, bits);
    assert_int_equal(bits[3], 0xbdd640fbU);
    assert_int_equal(bits[2], 0x06671ad1U);
    assert_int_equal(bits[1], 0x1c80317fU);
    assert_int_equal(bits[0], 0xa3b1799dU);
    random_seed_python(&random, SEED);
    random_letters(&random, 'A', 5, letters);
    assert_string_equal(letters, "QAHFT");

    static const uint32_t numbers[] = { 25795, 10860, 86820, 64886 };
    random_seed_numpy(&random, SEED);
    for (size_t i = 0; i < 4; i++) assert_int_equal(random_numpy_range(&random, 10000, 99999), numbers[i]);
}

static void words_match(void **state)
{
    (void)state;
    /* pairs of "blue" and "blue-eyed" mix; the indices are those of Python's sorted list */
    static const struct {
        uint32_t index;
        const char *word;
    } cases[] = {
        { 0, "Early-ATM" },
        { 6171619, "zonked-zucchini" },
        { 612609, "blue-extremist" },
        { 612610, "blue-eye" },
        { 612613, "blue-eyebrows" },
        { 612614, "blue-eyed-ATM" },
        { 619394, "blue-eyed-zoot-suit" },
        { 619395, "blue-eyed-zucchini" },
        { 619403, "blue-eyrie" },
        { 619404, "blue-fabric" },
        { 2509322, "high-yurt" },
        { 2509323, "high-zampone" },
        { 3793414, "old-fascia" },
        { 3793415, "old-fashion" },
        { 5323255, "teeny-tintype" },
        { 5323256, "teeny-tiny-ATM" },
        { 5971322, "wide-eyed-casualty" },
        { 5971323, "wide-eyed-cat" },
    };
    struct random random = { .next = 0 };
    struct text word = { 0 };
    assert_int_equal(words_pairs(shared.words), 6171620);
    assert_int_equal(words_common(shared.words)->n, 8166);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        text_clear(&word);
        words_add_pair(shared.words, cases[i].index, &word);
        assert_string_equal(word.at, cases[i].word);
    }
    random_seed_python(&random, SEED);
    text_clear(&word);
    words_add_pair(shared.words, random_below(&random, words_pairs(shared.words)), &word);
    assert_string_equal(word.at, "tenuous-thirst");
    assert_int_equal(1000000 + random_below(&random, 9000000), 2867825);
    text_free(&word);
}

static void lists_are_written_as_python_does(void **state)
{
    (void)state;
    static const struct {
        const char *item, *list;
    } cases[] = {
        { "plain", "['plain']" },           { "it's", "[\"it's\"]" },         { "'a\"", "['\\'a\"']" },
        { "a\\b\n\t", "['a\\\\b\\n\\t']" }, { "\x01\x7f", "['\\x01\\x7f']" }, { "\xc2\xa0\xc3\xa9", "['\\xa0\xc3\xa9']" },
        { "\xe2\x80\x8b", "['\\u200b']" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct strings strings = { 0 };
        struct text text = { 0 };
        strings_add(&strings, cases[i].item);
        text_add_list(&text, &strings);
        assert_string_equal(text.at, cases[i].list);
        text_free(&text);
        strings_free(&strings);
    }
}

static int count_words(void *context, const char *text, size_t n, size_t *tokens)
{
    (void)context;
    *tokens = 0;
    bool inside = false;
    for (size_t i = 0; i < n; i++) {
        const bool space = strchr(" \n\t\r\v\f", text[i]) != NULL;
        *tokens += !space && !inside;
        inside = !space;
    }
    return EXIT_DONE;
}

static int count_tokens(void *context, const char *text, size_t n, size_t *tokens)
{
    uint32_t *ids = NULL;
    const ca_status status = ca_tokenize(context, text, n, CA_TOK_PARSE_SPECIAL, &ids, tokens);
    ca_free(ids);
    return status == CA_OK ? EXIT_DONE : EXIT_FAILED;
}

static int keep_row(void *context, json_t *row)
{
    return json_array_append_new(context, row) == 0 ? EXIT_DONE : EXIT_FAILED;
}

static size_t task_called(const char *name)
{
    size_t t = 0;
    while (t < RULER_TASKS && strcmp(ruler_tasks[t].name, name) != 0) t++;
    assert_true(t < RULER_TASKS);
    return t;
}

static struct ruler_job job_for(const char *task, size_t length, const char *wrapper, bool real_tokens)
{
    return (struct ruler_job){
        .task = task_called(task),
        .length = length,
        .n_samples = 2,
        .seed = SEED,
        .wrapper = wrapper,
        .counter = { real_tokens ? count_tokens : count_words, shared.tokenizer },
        .pool = { shared.words, &shared.essay, &shared.squad, &shared.hotpotqa },
    };
}

static json_t *make_rows(const struct ruler_job *job)
{
    json_t *rows = json_array();
    assert_int_equal(ruler_make_rows(job, keep_row, rows), EXIT_DONE);
    assert_int_equal(json_array_size(rows), job->n_samples);
    return rows;
}

static const char *string_at(const json_t *row, const char *key)
{
    const char *value = json_string_value(json_object_get(row, key));
    assert_non_null(value);
    return value;
}

static void assert_input_hash(const char *name, size_t sample, const json_t *row, const char *sha256)
{
    char hash[LEDGER_HASH];
    const char *input = string_at(row, "input");
    ledger_hash_bytes(input, strlen(input), hash);
    if (strncmp(hash + strlen("sha256:"), sha256, strlen(sha256)) != 0)
        fail_msg("%s, sample %zu: %s, not %s; length %lld", name, sample, hash, sha256,
                 json_integer_value(json_object_get(row, "length")));
}

static char *wrapper_called(const char *name)
{
    char *text = NULL;
    assert_int_equal(ruler_wrapper(name, shared.tokenizer, &text), EXIT_DONE);
    return text;
}

/* B9: llama-3 wrapper, 4096 words. */
static void counted_words_match(void **state)
{
    (void)state;
    static const struct {
        const char *task;
        struct {
            const char *sha256;
            int length;
            const char *answer;
        } rows[2];
    } cases[] = {
        { "niah_single_1", { { "437773bdff918713", 3987, "2556017" }, { "58fcebe857091e28", 3987, "6770619" } } },
        { "niah_single_2", { { "6fbe25bdb0bf181c", 3687, "3608513" }, { "74bf7102cd6239aa", 3687, "2556017" } } },
        { "niah_single_3",
          { { "a17a5c6179150454", 3687, "9e574f7a-a0ee-49ae-9453-dd324b0dbb41" },
            { "caff37338ae23482", 3687, "3a578a8e-a948-4d99-8bbb-259911ce5dd2" } } },
        { "niah_multikey_1", { { "bae2ad0a2a8ea238", 3717, "7700828" }, { "624dd22d5d4e6419", 3717, "3684052" } } },
        { "niah_multikey_2", { { "b9eb3e6668a51d13", 3937, "3190059" }, { "47a44534eee9c304", 3937, "4359863" } } },
        { "niah_multikey_3",
          { { "a866b87f86cd2c79", 3937, "297e86fe-3f8b-415e-b6a3-54091c20d86b" },
            { "c6c7f64b3cc6c58f", 3937, "6b7c7396-f942-4cb2-ae3a-da8b84f900cb" } } },
        { "niah_multivalue", { { "31b063095b1d7d8c", 3718, "1538552" }, { "73e8300fe7db78b0", 3718, "9375710" } } },
        { "niah_multiquery", { { "9f8bfebb67d77fc8", 3726, "6707197" }, { "653499dc8be14bce", 3726, "9517169" } } },
        { "vt", { { "f4cd378929bd922b", 3979, "PRDVY" }, { "64da2be3f79b51f9", 3979, "ALPHG" } } },
        { "cwe", { { "837525aa49bfe3dd", 4037, "matter" }, { "e1908dc4ae050b7e", 4037, "geometry" } } },
        { "fwe", { { "c393337dff6795c0", 4048, "fkmgoo" }, { "3795ee06278fe365", 4048, "eumsqv" } } },
        { "qa_1", { { "06330aa0e0169612", 3770, "w0" }, { "b6939f8ab6455276", 3770, "w17" } } },
        { "qa_2", { { "f1438b275557270b", 4044, "w0" }, { "a6f62c0f8d1659f1", 4044, "w3" } } },
    };
    char *wrapper = wrapper_called("llama-3");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct ruler_job job = job_for(cases[i].task, 4096, wrapper, false);
        json_t *rows = make_rows(&job);
        for (size_t s = 0; s < 2; s++) {
            const json_t *row = json_array_get(rows, s);
            assert_input_hash(cases[i].task, s, row, cases[i].rows[s].sha256);
            assert_int_equal(json_integer_value(json_object_get(row, "length")), cases[i].rows[s].length);
            assert_string_equal(json_string_value(json_array_get(json_object_get(row, "outputs"), 0)), cases[i].rows[s].answer);
            assert_int_equal(json_integer_value(json_object_get(row, "index")), s);
        }
        json_decref(rows);
    }
    free(wrapper);
}

/* Rows of the reference's generator with SmolLM2's tokenizer, under "WRAPPER/TASK". */
static void real_tokens_match(void **state)
{
    (void)state;
    json_error_t error;
    const char *key;
    json_t *golden;
    json_t *index = json_load_file(CA_TEST_DATA "/ruler/index.json", 0, &error);
    assert_non_null(index);
    assert_int_equal(json_object_size(index), 6);
    json_object_foreach(index, key, golden)
    {
        char name[32];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(key, "/"), key);
        char *wrapper = wrapper_called(name);
        const struct ruler_job job = job_for(strchr(key, '/') + 1, 4096, wrapper, true);
        json_t *rows = make_rows(&job), *row;
        size_t i;
        json_array_foreach(rows, i, row)
        {
            const json_t *expected = json_array_get(golden, i);
            assert_input_hash(key, i, row, string_at(expected, "sha256_input"));
            assert_true(json_equal(json_object_get(row, "outputs"), json_object_get(expected, "outputs")));
            assert_true(json_equal(json_object_get(row, "length"), json_object_get(expected, "length")));
        }
        json_decref(rows);
        free(wrapper);
    }
    json_decref(index);
}

/* Rows of NVIDIA/RULER's generators (c3f5e3b) on counted words, with the same essay and questions. */
static void upstream_matches(void **state)
{
    (void)state;
    json_error_t error;
    const char *key;
    json_t *golden;
    json_t *index = json_load_file(CA_TEST_DATA "/ruler/upstream.json", 0, &error);
    assert_non_null(index);
    assert_int_equal(json_object_size(index), 26);
    char *wrapper = wrapper_called("meta-llama3");
    json_object_foreach(index, key, golden) /* LENGTH/TASK */
    {
        struct ruler_job job = job_for(strchr(key, '/') + 1, strtoul(key, NULL, 10), wrapper, false);
        job.profile = RULER_UPSTREAM;
        json_t *rows = make_rows(&job), *row;
        size_t i;
        json_array_foreach(rows, i, row)
        {
            const json_t *expected = json_array_get(golden, i);
            const char *field;
            json_t *value;
            assert_input_hash(key, i, row, string_at(expected, "sha256_input"));
            json_object_foreach((json_t *)(size_t)expected, field, value)
            {
                if (strcmp(field, "sha256_input") != 0 && !json_equal(json_object_get(row, field), value))
                    fail_msg("%s, sample %zu: %s differs", key, i, field);
            }
            assert_int_equal(json_object_size(row), json_object_size(expected));
        }
        json_decref(rows);
    }
    json_decref(index);
    free(wrapper);
}

static void too_short_is_told(void **state)
{
    (void)state;
    static const char *const tasks[] = { "niah_single_1", "niah_single_2", "niah_multikey_3", "vt", "cwe", "fwe", "qa_1", "qa_2" };
    for (int profile = 0; profile < 2; profile++) {
        for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) {
            struct ruler_job job = job_for(tasks[i], 150, "{}", false);
            job.profile = profile ? RULER_UPSTREAM : RULER_REFERENCE;
            const char *why = NULL;
            job.too_short = &why;
            json_t *rows = json_array();
            assert_int_equal(ruler_make_rows(&job, keep_row, rows), RULER_TOO_SHORT);
            assert_int_equal(json_array_size(rows), 0);
            assert_non_null(why);
            job.too_short = NULL;
            assert_int_equal(ruler_make_rows(&job, keep_row, rows), RULER_TOO_SHORT);
            json_decref(rows);
        }
    }
}

/* More samples than questions, a stop, and a sink that fails. */
static int refuse_row(void *context, json_t *row)
{
    ++*(int *)context;
    json_decref(row);
    return EXIT_BAD_USAGE;
}

static void work_can_be_ended(void **state)
{
    (void)state;
    int taken = 0;
    const int stopped = 1;
    const char *why = NULL;
    struct ruler_job job = job_for("qa_2", 4096, "{}", false);
    job.n_samples = 81;
    job.too_short = &why;
    assert_int_equal(ruler_make_rows(&job, refuse_row, &taken), RULER_TOO_SHORT);
    assert_non_null(strstr(why, "more samples"));
    assert_int_equal(taken, 0);
    job = job_for("vt", 1024, "{}", false);
    assert_int_equal(ruler_make_rows(&job, refuse_row, &taken), EXIT_BAD_USAGE);
    assert_int_equal(taken, 1);
    job.cancel = &stopped;
    assert_int_equal(ruler_make_rows(&job, refuse_row, &taken), EXIT_INTERRUPTED);
    job.cancel = NULL;
    job.wrapper = "no place";
    assert_int_equal(ruler_make_rows(&job, refuse_row, &taken), EXIT_FAILED);
    assert_int_equal(taken, 1);
}

static void add_words(FILE *out, unsigned start, unsigned step, unsigned n)
{
    for (unsigned i = 0; i < n; i++) fprintf(out, i ? " w%u" : "w%u", (start + step * i) % 997);
}

/* The toy data of B9. */
static void write_squad(FILE *out)
{
    fputs("{\"data\": [", out);
    for (unsigned a = 0; a < 60; a++) {
        fputs(a ? ", {\"paragraphs\": [" : "{\"paragraphs\": [", out);
        for (unsigned p = 0; p < 5; p++) {
            fprintf(out, "%s{\"context\": \"Article %u paragraph %u ", p ? ", " : "", a, p);
            add_words(out, 131 * a + 17 * p, 7, 40);
            fputs(".\", \"qas\": [", out);
            for (unsigned q = 0; q < 2; q++)
                fprintf(out,
                        "%s{\"question\": \"What is said in article %u paragraph %u question %u?\", \"is_impossible\": %s, "
                        "\"answers\": [{\"text\": \"w%u\"}, {\"text\": \"Article %u\"}]}",
                        q ? ", " : "", a, p, q, q ? "true" : "false", (131 * a + 17 * p) % 997, a);
            fputs("]}", out);
        }
        fputs("]}", out);
    }
    fputs("]}", out);
}

static void write_hotpotqa(FILE *out)
{
    for (unsigned a = 0; a < 80; a++) {
        fprintf(out, "%s{\"question\": \"Which hop is %u?\", \"answer\": \"w%u\", \"context\": [", a ? ", " : "[", a, 3 * a % 997);
        for (unsigned j = 0; j < 10; j++) {
            const unsigned t = (7 * a + j) % 300;
            fprintf(out, "%s[\"T%u\", [", j ? ", " : "", t);
            for (unsigned k = 0; k < 3; k++) {
                fprintf(out, "%s\"s%ux%u ", k ? ", " : "", t, k);
                add_words(out, 31 * t + 5 * k, 1, 10);
                fputs(". \"", out);
            }
            fputs("]]", out);
        }
        fputs("]}", out);
    }
    fputs("]", out);
}

static void write_essay(FILE *out)
{
    for (unsigned i = 0; i < 3000; i++)
        fprintf(out, "%sSentence number %u of the test essay talks about item %u and ends here.", i ? "\n" : "", i,
                7919 * i % 1000);
}

static void write_file(char path[32], void (*write)(FILE *out))
{
    memcpy(path, "/tmp/ruler-test-XXXXXX", sizeof "/tmp/ruler-test-XXXXXX");
    const int file = mkstemp(path);
    assert_true(file >= 0);
    FILE *out = fdopen(file, "w");
    assert_non_null(out);
    write(out);
    assert_int_equal(fclose(out), 0);
}

static void write_odd_squad(FILE *out)
{
    fputs("{\"data\": [{\"paragraphs\": [{\"context\": \"x\", \"qas\": [{\"question\": 3, \"answers\": []}]}]}]}", out);
}

static void write_odd_hotpotqa(FILE *out)
{
    fputs("[{\"question\": \"x\", \"answer\": \"y\", \"context\": [[\"title\", [1]]]}]", out);
}

static void write_nothing(FILE *out)
{
    fputs("{\"data\": [", out);
}

static void write_other_json(FILE *out)
{
    fputs("{\"words\": \"no text\"}", out);
}

static void write_broken_text(FILE *out)
{
    fputs("caf\xe9 noir", out);
}

static void write_wrapped_essay(FILE *out)
{
    fputs(" {\"text\": \" One.\\u00a0Two\\n\\nthree \"}", out);
}

/* Every way in which a file can be wrong, and both forms of an essay. */
static void files_are_checked(void **state)
{
    (void)state;
    void (*const odd[])(FILE *) = { write_odd_squad, write_odd_hotpotqa, write_nothing, write_other_json, write_broken_text };
    struct questions questions;
    struct essay essay;
    char path[32];
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        write_file(path, odd[i]);
        assert_int_equal(questions_read_squad(path, &questions), EXIT_FAILED);
        assert_int_equal(questions_read_hotpotqa(path, &questions), EXIT_FAILED);
        if (i != 1) assert_int_equal(essay_read(path, &essay), EXIT_FAILED);
        unlink(path);
    }
    assert_int_equal(essay_read("/nonexistent/essay", &essay), EXIT_FAILED);
    write_file(path, write_wrapped_essay);
    assert_int_equal(essay_read(path, &essay), EXIT_DONE);
    assert_string_equal(essay.text.at, " One. Two three ");
    assert_int_equal(essay.n_words, 5); /* with the empty ones at both ends */
    assert_int_equal(essay.ends[1], 5);
    essay_free(&essay);
    unlink(path);
    assert_int_equal(essay_read(NULL, &essay), EXIT_DONE);
    assert_true(essay.n_words >= 120000);
    assert_null(strpbrk(essay.text.at, "0123456789"));
    essay_free(&essay);
}

static int open_shared(void **state)
{
    (void)state;
    char path[32];
    if (chdir(CA_TEST_DATA "/../..") != 0) return -1; /* data/ is found from here */
    shared.words = words_open(SEED);
    write_file(path, write_essay);
    int code = essay_read(path, &shared.essay);
    unlink(path);
    write_file(path, write_squad);
    code |= questions_read_squad(path, &shared.squad);
    unlink(path);
    write_file(path, write_hotpotqa);
    code |= questions_read_hotpotqa(path, &shared.hotpotqa);
    unlink(path);
    return shared.words && code == EXIT_DONE && ca_tokenizer_open(CA_TEST_MODEL, &shared.tokenizer) == CA_OK ? 0 : -1;
}

static int close_shared(void **state)
{
    (void)state;
    words_close(shared.words);
    essay_free(&shared.essay);
    questions_free(&shared.squad);
    questions_free(&shared.hotpotqa);
    ca_tokenizer_close(shared.tokenizer);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_match),
        cmocka_unit_test(words_match),
        cmocka_unit_test(lists_are_written_as_python_does),
        cmocka_unit_test(counted_words_match),
        cmocka_unit_test(real_tokens_match),
        cmocka_unit_test(upstream_matches),
        cmocka_unit_test(too_short_is_told),
        cmocka_unit_test(work_can_be_ended),
        cmocka_unit_test(files_are_checked),
    };
    return cmocka_run_group_tests(tests, open_shared, close_shared);
}
