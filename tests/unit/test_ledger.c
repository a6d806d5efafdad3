/* A folder of results: settings are kept apart, rows survive any interruption. */
#include "eval/ledger.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_ROWS = 5 };

static char folder[64], errors[96];
static int saved_stderr = -1;

/* From here on standard error goes to a file. */
static void catch_stderr(void)
{
    fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    const int file = open(errors, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert_true(saved_stderr >= 0 && file >= 0 && dup2(file, STDERR_FILENO) >= 0);
    close(file);
}

static void expect_message(const char *words)
{
    char text[1024] = "";
    fflush(stderr);
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    FILE *in = fopen(errors, "r");
    assert_non_null(in);
    const size_t n = fread(text, 1, sizeof text - 1, in);
    fclose(in);
    text[n] = '\0';
    if (!strstr(text, words)) fail_msg("the message is \"%s\", without \"%s\"", text, words);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1); /* one line */
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/ca-ledger-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(errors, sizeof errors, "%s.err", folder);
    return 0;
}

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int remove_folder(void **state)
{
    static const char *const names[] = { "manifest.json", "pred/8/x.jsonl", "pred/8", "pred", "t.jsonl",
                                         "b.jsonl",       "d.jsonl",        "abd",    "large" };
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) (void)remove(in_folder(names[i]));
    (void)remove(errors);
    return rmdir(folder); /* which says so when a test has left anything else */
}

static void write_file(const char *name, const char *bytes, size_t size)
{
    FILE *out = fopen(in_folder(name), "w");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, size, out), size);
    fclose(out);
}

static size_t read_file(const char *name, char *bytes, size_t cap)
{
    FILE *in = fopen(in_folder(name), "r");
    assert_non_null(in);
    const size_t n = fread(bytes, 1, cap, in);
    fclose(in);
    return n;
}

static int begin(const char *text)
{
    json_t *settings = json_loads(text, 0, NULL);
    assert_non_null(settings);
    const int code = ledger_begin(folder, settings);
    json_decref(settings);
    return code;
}

static void settings_are_kept_apart(void **state)
{
    static const char first[] =
        "{\"model\": \"m\", \"session\": {\"chunk\": 1024, \"alpha\": 0.1}, \"inputs\": {\"essay\": \"e\"}, \"note\": {\"a\": 1, "
        "\"in\": {\"x\": 1}}}";
    static const struct {
        const char *settings, *words; /* words NULL: accepted */
    } cases[] = {
        { first, NULL },
        { "{\"session\": {\"alpha\": 0.1, \"chunk\": 1024}, \"model\": \"m\"}", NULL }, /* order does not matter */
        { "{\"model\": \"m\", \"session\": {\"chunk\": 1024, \"alpha\": 0.1}, \"note\": {\"a\": 2, \"in\": {\"y\": 1}}}", NULL },
        { "{\"model\": \"n\", \"session\": {\"chunk\": 1024, \"alpha\": 0.1}}",
          "manifest.json: model was \"m\" and is now \"n\": " },
        { "{\"session\": {\"alpha\": 0.1, \"chunk\": 1024}, \"model\": \"m\", \"inputs\": {\"squad\": \"q\"}}", NULL },
        { "{\"session\": {\"alpha\": 0.1, \"chunk\": 1024}, \"model\": \"m\", \"inputs\": {\"squad\": \"r\"}}",
          ": inputs.squad was \"q\" and is now \"r\": " },
        { "{\"session\": {\"alpha\": 0.1, \"chunk\": 1024}, \"model\": \"m\", \"inputs\": {\"essay\": \"e\", \"squad\": \"q\"}}",
          NULL },
        { "{\"model\": \"m\", \"session\": {\"chunk\": 512, \"alpha\": 0.1}}", ": session.chunk was 1024 and is now 512: " },
        { "{\"model\": \"m\", \"session\": {\"chunk\": 1024}}", ": session.alpha was 0.1 and is now not given: " },
        { "{\"model\": \"m\"}", ": session was {\"chunk\":1024,\"alpha\":0.1} and is now not given: " },
        { "{\"model\": \"m\", \"session\": {\"chunk\": 1024, \"alpha\": 0.1}, \"seed\": 7}",
          ": seed was not given and is now 7: " },
        { "{\"model\": \"m\", \"session\": 3}", ": session was {" },
    };
    (void)state;
    assert_int_equal(begin(first), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].words) catch_stderr();
        assert_int_equal(begin(cases[i].settings), cases[i].words ? 1 : 0);
        if (cases[i].words) expect_message(cases[i].words);
    }
    json_t *kept = json_load_file(in_folder("manifest.json"), 0, NULL);
    const json_t *note = json_object_get(kept, "note");
    assert_int_equal(json_integer_value(json_object_get(note, "a")), 2); /* notes are updated.. */
    assert_int_equal(json_object_size(json_object_get(note, "in")), 2);  /* ..and what they said before stays */
    assert_int_equal(json_object_size(json_object_get(kept, "inputs")), 2);
    json_decref(kept);

    static const char *const broken[] = { "{\"model\": ", "[1]", "", "{\"a\": 1, \"a\": 1}" };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        write_file("manifest.json", broken[i], strlen(broken[i]));
        catch_stderr();
        assert_int_equal(begin(first), 1);
        expect_message("manifest.json: line 1: ");
    }
}

/* Processes that begin a folder together: of two settings one wins, with all its processes, and nothing else is left behind. */
static void processes_begin_together(void **state)
{
    enum { ROUNDS = 20, PROCESSES = 8 };
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        pid_t ids[PROCESSES];
        int n[2] = { 0, 0 }, go[2];
        char byte;
        (void)remove(in_folder("manifest.json"));
        assert_int_equal(pipe(go), 0);
        catch_stderr();
        for (int i = 0; i < PROCESSES; i++) {
            ids[i] = fork();
            if (ids[i] != 0) continue;
            close(go[1]);
            (void)!read(go[0], &byte, 1); /* returns when the parent closes its end */
            _exit(begin(i % 2 ? "{\"model\": \"m\"}" : "{\"model\": \"n\"}"));
        }
        close(go[0]);
        close(go[1]);
        for (int i = 0; i < PROCESSES; i++) {
            int status = -1;
            assert_int_equal(waitpid(ids[i], &status, 0), ids[i]);
            n[i % 2] += status == 0;
        }
        fflush(stderr);
        dup2(saved_stderr, STDERR_FILENO);
        close(saved_stderr);
        assert_int_equal(n[0] > n[1] ? n[0] : n[1], PROCESSES / 2);
        assert_int_equal(n[0] < n[1] ? n[0] : n[1], 0);
    }
}

static json_t *row(int i)
{
    return json_pack("{s:i, s:s, s:f}", "index", i, "pred", i % 2 ? "two\nlines \xc3\xa9" : "", "ms", i / 3.0);
}

static size_t count_rows(void)
{
    json_t *rows = NULL;
    assert_int_equal(ledger_read(folder, "pred/8/x", &rows), 0);
    const size_t n = json_array_size(rows);
    for (size_t i = 0; i < n; i++) {
        json_t *expected = row((int)i);
        assert_true(json_equal(json_array_get(rows, i), expected));
        json_decref(expected);
    }
    json_decref(rows);
    return n;
}

/* Whatever byte the file ends at, the finished rows are read, and what is appended then makes the file whole again. */
static void rows_survive_a_cut(void **state)
{
    char whole[1024], after[1024];
    (void)state;
    assert_int_equal(count_rows(), 0);
    for (int i = 0; i < N_ROWS; i++) {
        assert_int_equal(ledger_append(folder, "pred/8/x", row(i)), 0);
        assert_int_equal(count_rows(), i + 1); /* each is on disk at once */
    }
    const size_t size = read_file("pred/8/x.jsonl", whole, sizeof whole);
    for (size_t cut = 0; cut <= size; cut++) {
        size_t finished = 0;
        write_file("pred/8/x.jsonl", whole, cut);
        for (size_t i = 0; i < cut; i++) finished += whole[i] == '\n';
        assert_int_equal(count_rows(), finished);
        for (size_t i = finished; i < N_ROWS; i++) assert_int_equal(ledger_append(folder, "pred/8/x", row((int)i)), 0);
        assert_int_equal(read_file("pred/8/x.jsonl", after, sizeof after), size);
        assert_memory_equal(after, whole, size);
    }
}

/* A tail longer than a block of the backward search. */
static void long_tail_is_cut(void **state)
{
    static char text[3000];
    char after[64];
    (void)state;
    assert_int_equal(ledger_append(folder, "t", row(0)), 0);
    const size_t first = read_file("t.jsonl", text, 64);
    memset(text + first, 'x', sizeof text - first);
    write_file("t.jsonl", text, sizeof text);
    assert_int_equal(ledger_append(folder, "t", json_pack("{}")), 0);
    assert_int_equal(read_file("t.jsonl", after, sizeof after), first + 3);
    assert_memory_equal(after + first, "{}\n", 3);
}

static void broken_rows_are_told(void **state)
{
    json_t *rows = NULL;
    (void)state;
    write_file("b.jsonl", "{}\n{\"a\"\n{}\n", 11);
    catch_stderr();
    assert_int_equal(ledger_read(folder, "b", &rows), 1);
    expect_message("b.jsonl: line 2: ");
    assert_null(rows);
    mkdir(in_folder("d.jsonl"), 0777);
    catch_stderr();
    assert_int_equal(ledger_read(folder, "d", &rows), 1);
    expect_message("d.jsonl: ");
    catch_stderr();
    assert_int_equal(ledger_append(folder, "d", row(0)), 1);
    expect_message("d.jsonl: cannot be written");
}

static void hashes(void **state)
{
    char hex[LEDGER_HASH], other[LEDGER_HASH];
    (void)state;
    write_file("abc", "abc", 3); /* FIPS 180-2's example */
    assert_int_equal(ledger_hash(in_folder("abc"), hex), 0);
    assert_string_equal(hex, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    ledger_hash_bytes("abc", 3, other);
    assert_string_equal(hex, other);
    ledger_hash_bytes("", 0, hex);
    assert_string_equal(hex, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");

    /* Names count in a folder, not only bytes. */
    assert_int_equal(ledger_hash(folder, hex), 0);
    assert_int_equal(unlink(in_folder("abc")), 0);
    write_file("abd", "abc", 3);
    assert_int_equal(ledger_hash(folder, other), 0);
    assert_string_not_equal(hex, other);

    /* A large file: its size and both ends count, its middle does not. It is sparse: no disk is filled. */
    const off_t size = ((off_t)64 << 20) + 100;
    const int file = open(in_folder("large"), O_RDWR | O_CREAT, 0666);
    assert_true(file >= 0 && ftruncate(file, size) == 0);
    assert_int_equal(ledger_hash(in_folder("large"), hex), 0);
    assert_memory_equal(hex, "sha256-ends:", 12);
    assert_int_equal(pwrite(file, "x", 1, size / 2), 1);
    assert_int_equal(ledger_hash(in_folder("large"), other), 0);
    assert_string_equal(hex, other);
    assert_int_equal(pwrite(file, "x", 1, size - 1), 1);
    assert_int_equal(ledger_hash(in_folder("large"), other), 0);
    assert_string_not_equal(hex, other);
    assert_true(ftruncate(file, size + 1) == 0 && pwrite(file, "\0", 1, size - 1) == 1);
    assert_int_equal(ledger_hash(in_folder("large"), other), 0);
    assert_string_not_equal(hex, other);
    close(file);

    catch_stderr();
    assert_int_equal(ledger_hash(in_folder("absent"), hex), 1);
    expect_message("absent: No such file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(settings_are_kept_apart, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(processes_begin_together, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(rows_survive_a_cut, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(long_tail_is_cut, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(broken_rows_are_told, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(hashes, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
