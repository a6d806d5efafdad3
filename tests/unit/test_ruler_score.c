/* RULER's scores: vectors worked out by hand and with Python; the intervals; the rows of data files; the picture. */
#include "eval/dataset.h"
#include "eval/ruler_score.h"
#include "report/heatmap.h"

#include <cairo.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static void answers(void **state)
{
    static const struct {
        const char *answer, *references[4];
        bool part;
        double score;
    } cases[] = {
        { "The number is 1234567.", { "1234567" }, false, 1 },
        { "The number is 12345670.", { "1234567" }, false, 1 }, /* no word boundaries */
        { "The number is 1,234,567.", { "1234567" }, false, 0 },
        { "", { "1234567" }, false, 0 },
        { "anything", { "" }, false, 1 }, /* the empty text is in every text */
        { "", { "" }, true, 1 },
        { "ABC def", { "abc", "DEF" }, false, 1 },
        { "one two four", { "one", "two", "three", "four" }, false, 0.75 },
        { "one two four", { "one", "two", "three", "four" }, true, 1 },
        { "none", { "two", "three" }, true, 0 },
        { "none", { "two", "three", "non" }, false, 1.0 / 3 },
        { "\xc3\x89"
          "COLE",
          { "\xc3\xa9"
            "cole" },
          false,
          1 },                                                                                    /* E with acute */
        { "\xce\x9f\xce\x94\xce\x9f\xce\xa3", { "\xce\xbf\xce\xb4\xce\xbf\xcf\x82" }, false, 1 }, /* sigma at the end */
        { "\xce\x9f\xce\x94\xce\x9f\xce\xa3", { "\xce\xbf\xce\xb4\xce\xbf\xcf\x83" }, false, 0 },
        { "stra\xc3\x9f"
          "e",
          { "STRASSE" },
          false,
          0 }, /* lower case, no folding */
        { "\xff\xfe"
          "ABC\xff",
          { "abc" },
          false,
          1 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = 0;
        while (n < 4 && cases[i].references[n]) n++;
        const double score = ruler_score(cases[i].answer, cases[i].references, n, cases[i].part);
        if (score != cases[i].score) fail_msg("case %zu: %g, not %g", i, score, cases[i].score);
    }
}

/* Right-hand sides: Python's str.lower and str.strip. */
static void texts(void **state)
{
    static const char *const lower[][2] = {
        { "AbC \xc3\x96", "abc \xc3\xb6" },
        { "\xce\x91\xce\xa3 \xce\x91\xce\xa3\xce\x91 \xce\xa3 \xce\x91\xce\xa3\xcc\x81 \xce\x91.\xce\xa3",
          "\xce\xb1\xcf\x82 \xce\xb1\xcf\x83\xce\xb1 \xcf\x83 \xce\xb1\xcf\x82\xcc\x81 \xce\xb1.\xcf\x82" },
        { "\xc4\xb0 \xe1\xba\x9e \xc8\xba", "i\xcc\x87 \xc3\x9f \xe2\xb1\xa5" },
    };
    static const char *const strip[][2] = {
        { "  a b\n", "a b" }, { "", "" }, { " \t\r\n\x1c", "" }, { "\xc2\xa0\xe3\x80\x80x\xe2\x80\xa9", "x" }, { "\xff ", "\xff" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof lower / sizeof *lower; i++) {
        char *text = ruler_lower(lower[i][0]);
        assert_string_equal(text, lower[i][1]);
        free(text);
    }
    for (size_t i = 0; i < sizeof strip / sizeof *strip; i++) {
        char text[32];
        snprintf(text, sizeof text, "%s", strip[i][0]);
        ruler_strip(text);
        assert_string_equal(text, strip[i][1]);
    }
}

static void rounding(void **state)
{
    static const double python[][2] = { { 2.675, 2.67 },   { 0.125, 0.12 },   { 0.375, 0.38 }, { 100.0 / 3, 33.33 },
                                        { 66.665, 66.67 }, { 12.345, 12.35 }, { 0.004999, 0 }, { 100, 100 } };
    static const double thirds[] = { 1.0 / 3, 1.0 / 3, 1 }, eighths[] = { 0.75, 1, 0, 0.25, 0.5, 1, 1, 0.125 };
    (void)state;
    for (size_t i = 0; i < sizeof python / sizeof *python; i++) assert_true(ruler_round(python[i][0], 2) == python[i][1]);
    assert_true(ruler_percent(thirds, 3) == 55.56);
    assert_true(ruler_percent(eighths, 8) == 57.81); /* 57.8125 */
    assert_true(ruler_percent(eighths + 1, 1) == 100);
    assert_true(ruler_percent(NULL, 0) == 0);
}

static void intervals(void **state)
{
    double coin[100], same[10], shifted[100];
    (void)state;
    for (int i = 0; i < 100; i++) coin[i] = i % 2, shifted[i] = coin[i] + 1;
    for (int i = 0; i < 10; i++) same[i] = 0.7;
    const struct ruler_group groups[] = { { coin, 100 }, { same, 10 }, { NULL, 0 }, { shifted, 100 } };

    /* The mean of 100 coins has standard deviation 0.05: +- 0.098. */
    const struct ruler_interval one = ruler_bootstrap(groups, 1);
    assert_true(fabs(one.low - 0.402) < 0.025 && fabs(one.high - 0.598) < 0.025);
    const struct ruler_interval again = ruler_bootstrap(groups, 1);
    assert_true(one.low == again.low && one.high == again.high);
    const struct ruler_interval more = ruler_bootstrap(groups + 3, 1); /* the same draws of other numbers */
    assert_true(fabs(more.low - one.low - 1) < 1e-12 && fabs(more.high - one.high - 1) < 1e-12);

    const struct ruler_interval constant = ruler_bootstrap(groups + 1, 1);
    assert_true(fabs(constant.low - 0.7) < 1e-12 && fabs(constant.high - 0.7) < 1e-12);

    /* Groups weigh the same whatever their size, and an empty one does not count: (coin + 0.7) / 2, half as wide. */
    const struct ruler_interval both = ruler_bootstrap(groups, 3);
    assert_true(fabs(both.low - 0.551) < 0.0125 && fabs(both.high - 0.649) < 0.0125);
    const struct ruler_interval none = ruler_bootstrap(groups + 2, 1);
    assert_true(isnan(none.low) && isnan(none.high));
}

static const char data[] = "{\"index\": 3, \"input\": \"a\", \"outputs\": [\"x\", \"y\"], \"length\": 7}\n" /* the reference's */
                           "\n"
                           "{\"index\": 4, \"input\": \"b\"}\n"
                           "{\"index\": 5, \"input\": \"b\", \"outputs\": []}\n"
                           "{\"index\": 5, \"input\": \"b\", \"outputs\": [1]}\n"
                           "{\"input\": \"b\", \"outputs\": [\"x\"]}\n"
                           "{\"index\": 3, \"input\": \"b\", \"outputs\": [\"x\"]}\n"
                           "{\"index\": 6, \"inp\n"
                           "[]\n"
                           "{\"index\": 900, \"input\": \"c\", \"answer_prefix\": \" d\", \"outputs\": [\"x\"]}\n" /* upstream's */
                           "{\"index\": 1, \"input\": \"last\", \"outputs\": [\"z\"]}";                            /* no line end */

static void data_files(void **state)
{
    char path[] = "/tmp/ca-data-XXXXXX", told[] = "/tmp/ca-told-XXXXXX", text[4096] = "";
    const int file = mkstemp(path), errors = mkstemp(told), saved = dup(STDERR_FILENO);
    struct dataset set;
    (void)state;
    assert_true(file >= 0 && errors >= 0 && saved >= 0);
    assert_int_equal(write(file, data, sizeof data - 1), sizeof data - 1);
    dup2(errors, STDERR_FILENO);
    const int code = dataset_read(path, &set);
    assert_int_equal(ftruncate(file, 3), 0);
    struct dataset none;
    const int empty = dataset_read(path, &none), absent = dataset_read("/tmp/ca-no-such-file", &none);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    assert_true(pread(errors, text, sizeof text - 1, 0) > 0);
    close(errors);
    close(file);
    unlink(path);
    unlink(told);

    assert_int_equal(code, 0);
    assert_int_equal(set.n_rows, 3);
    assert_int_equal(set.n_bad, 7);
    assert_int_equal(set.rows[0].index, 3);
    assert_int_equal(set.rows[0].length, 7);
    assert_int_equal(set.rows[0].n_outputs, 2);
    assert_string_equal(set.rows[0].outputs[1], "y");
    assert_int_equal(set.rows[1].index, 9); /* the line's number, from 0 */
    assert_string_equal(set.rows[1].input, "c d");
    assert_string_equal(set.rows[2].input, "last");
    dataset_free(&set);
    dataset_free(&none);
    assert_int_equal(empty, 1);
    assert_int_equal(absent, 1);
    static const char *const words[] = {
        ": line 3: no list of texts \"outputs\"; it is left out",
        ": line 4: no list of texts",
        ": line 5: no list of texts",
        ": line 6: no whole number \"index\"",
        ": line 7: index 3 is there",
        ": 2 more such lines",
        ": no line can be used",
        "/tmp/ca-no-such-file: No such",
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strstr(text, words[i])) fail_msg("\"%s\" is not in %s", words[i], text);
}

/* Many rows, in an order that lets none be told from the last one. */
static void many_rows(void **state)
{
    enum { N = 1 << 18, SECONDS = 20 };
    char path[] = "/tmp/ca-data-XXXXXX";
    const int file = mkstemp(path);
    struct dataset set;
    (void)state;
    assert_true(file >= 0);
    FILE *out = fdopen(file, "w");
    assert_non_null(out);
    for (int i = N; i > 0; i--) fprintf(out, "{\"index\": %d, \"input\": \"a\", \"outputs\": [\"x\"]}\n", i);
    fclose(out);
    const clock_t start = clock();
    const int code = dataset_read(path, &set);
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    unlink(path);
    assert_int_equal(code, 0);
    assert_int_equal(set.n_rows, N);
    assert_int_equal(set.n_bad, 0);
    dataset_free(&set);
    if (seconds > SECONDS) fail_msg("%d rows take %.0f s", N, seconds);
}

static unsigned pixel(cairo_surface_t *surface, int x, int y)
{
    unsigned rgb;
    memcpy(&rgb, cairo_image_surface_get_data(surface) + y * cairo_image_surface_get_stride(surface) + 4 * x, sizeof rgb);
    return rgb & 0xffffff;
}

static void picture(void **state)
{
    static const char *const panels[] = { "a", "b" }, *const rows[] = { "r", "s", "t" }, *const columns[] = { "1", "2" };
    static const double values[] = { 0, 100, 50, NAN, 25, 75, 100, 100, 100, 0, 0, 0 };
    const struct heatmap map = { "Title", "subtitle", panels, rows, columns, 2, 3, 2, values, 100, 1 };
    char path[] = "/tmp/ca-heatmap-XXXXXX";
    const int file = mkstemp(path);
    (void)state;
    assert_true(file >= 0);
    close(file);
    assert_null(heatmap_write_png(&map, path));
    cairo_surface_t *surface = cairo_image_surface_create_from_png(path);
    unlink(path);
    assert_int_equal(cairo_surface_status(surface), CAIRO_STATUS_SUCCESS);
    unsigned seen[2] = { 0, 0 };
    for (int y = 0; y < cairo_image_surface_get_height(surface); y++)
        for (int x = 0; x < cairo_image_surface_get_width(surface); x++) {
            seen[0] += pixel(surface, x, y) == 0xb5485d;
            seen[1] += pixel(surface, x, y) == 0x2563a8;
        }
    cairo_surface_destroy(surface);
    /* Four cells each of the lowest and of the highest value, 61 x 25 pixels less their text. */
    for (int i = 0; i < 2; i++) assert_in_range(seen[i], 4 * 61 * 25 * 7 / 10, 4 * 61 * 25);
    assert_string_equal(heatmap_write_png(&map, "/tmp/ca-no-such-folder/x.png"), "No such file or directory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers),    cmocka_unit_test(texts),     cmocka_unit_test(rounding), cmocka_unit_test(intervals),
        cmocka_unit_test(data_files), cmocka_unit_test(many_rows), cmocka_unit_test(picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
