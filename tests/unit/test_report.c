/* Tables in their three forms, and pictures checked by what they show. */
#include "report/chart.h"
#include "report/maskpic.h"
#include "report/table.h"

#include <cairo.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const struct table_column columns[] = {
    { "name", "name", -1, NULL },
    { "time ms", "time_ms", 1, NULL },
    { "gain", "gain", 2, "x" },
    { "note", "note", -1, NULL },
};

static struct table *sample(void)
{
    static const struct table_cell rows[][4] = {
        { { "dense", 0 }, { NULL, 1234.56 }, { NULL, 1 }, { "plain", 0 } },
        { { "\xe6\x97\xa5\xe6\x9c\xac", 0 }, { NULL, 0.25 }, { NULL, NAN }, { "a|b, \"c\"\nd\x01", 0 } }, /* two wide characters */
        { { "", 0 }, { NULL, NAN }, { NULL, 1.0 / 3 }, { NULL, 0 } },
    };
    struct table *table = table_create(columns, 4);
    assert_non_null(table);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) assert_true(table_add(table, rows[i]));
    return table;
}

static void expect_output(void (*write)(const struct table *table, FILE *out), const char *expected)
{
    struct table *table = sample();
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    write(table, out);
    fclose(out);
    table_free(table);
    assert_string_equal(text, expected);
    free(text);
}

static void table_as_text(void **state)
{
    (void)state;
    expect_output(table_write_text, "name   time ms   gain  note\n"
                                    "-----------------------------------\n"
                                    "dense   1234.6  1.00x  plain\n"
                                    "\xe6\x97\xa5\xe6\x9c\xac       0.2      -  a|b, \"c\"\\nd?\n"
                                    "             -  0.33x  \n");
}

static void table_as_markdown(void **state)
{
    (void)state;
    expect_output(table_write_markdown, "| name | time ms | gain | note |\n"
                                        "| --- | ---: | ---: | --- |\n"
                                        "| dense | 1234.6 | 1.00x | plain |\n"
                                        "| \xe6\x97\xa5\xe6\x9c\xac | 0.2 | - | a\\|b, \"c\"\\nd? |\n"
                                        "|  | - | 0.33x |  |\n");
}

static void table_as_csv(void **state)
{
    (void)state;
    expect_output(table_write_csv, "name,time_ms,gain,note\n"
                                   "dense,1234.56,1,plain\n"
                                   "\xe6\x97\xa5\xe6\x9c\xac,0.25,,\"a|b, \"\"c\"\"\nd\x01\"\n"
                                   ",,0.333333333,\n");
}

static void table_grows(void **state)
{
    (void)state;
    static const struct table_column one[] = { { "n", "n", 0, NULL } };
    struct table *table = table_create(one, 1);
    char *text = NULL;
    size_t size = 0, lines = 0;
    assert_non_null(table);
    for (int i = 0; i < 1000; i++) assert_true(table_add(table, &(struct table_cell){ NULL, i }));
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    table_write_csv(table, out);
    fclose(out);
    for (size_t i = 0; i < size; i++) lines += text[i] == '\n';
    assert_int_equal(lines, 1001);
    assert_string_equal(text + size - 8, "998\n999\n");
    free(text);
    table_free(table);
}

/* A picture that a writer made, read back. */
static cairo_surface_t *load_picture(const char *path)
{
    cairo_surface_t *surface = cairo_image_surface_create_from_png(path);
    assert_int_equal(cairo_surface_status(surface), CAIRO_STATUS_SUCCESS);
    return surface;
}

static unsigned pixel(cairo_surface_t *surface, int x, int y)
{
    uint32_t value;
    memcpy(&value, cairo_image_surface_get_data(surface) + (ptrdiff_t)y * cairo_image_surface_get_stride(surface) + 4L * x, 4);
    return value & 0xffffff;
}

/* Number of lines below y that show the color: the height of a bar. */
static int lines_with(cairo_surface_t *surface, unsigned rgb, int x0, int x1, int y0)
{
    int lines = 0;
    for (int y = y0; y < cairo_image_surface_get_height(surface); y++) {
        int x = x0;
        while (x < x1 && pixel(surface, x, y) != rgb) x++;
        lines += x < x1;
    }
    return lines;
}

static long count(cairo_surface_t *surface, unsigned rgb)
{
    long n = 0;
    for (int y = 0; y < cairo_image_surface_get_height(surface); y++) {
        for (int x = 0; x < cairo_image_surface_get_width(surface); x++) n += pixel(surface, x, y) == rgb;
    }
    return n;
}

static const unsigned first_series = 0x9aa5b1, second_series = 0xe8a33d, past = 0x2563a8, own = 0x3f9b6c;

static void bars_are_as_high_as_their_values(void **state)
{
    (void)state;
    static const char *const groups[] = { "one", "two" }, *const series[] = { "first", "second" };
    static const double values[] = { 2, 4, 1, 0.5 }; /* first: 2 4, second: 1 0.5 */
    static const char notes[4][CHART_NOTE] = { "", "", "2.00x", "8.00x" };
    const struct chart chart = {
        .title = "title",
        .axis = "seconds",
        .groups = groups,
        .series = series,
        .n_groups = 2,
        .n_series = 2,
        .values = values,
        .notes = notes,
    };
    char path[] = "/tmp/test_chart_XXXXXX";
    close(mkstemp(path));
    assert_null(chart_write_png(&chart, path));
    cairo_surface_t *surface = load_picture(path);
    remove(path);
    const int width = cairo_image_surface_get_width(surface), half = 510, under_legend = 130;
    const int unit = lines_with(surface, first_series, 0, half, under_legend) / 2;
    assert_true(unit > 50);
    assert_in_range(lines_with(surface, first_series, half, width, under_legend), 4 * unit - 3, 4 * unit + 3);
    assert_in_range(lines_with(surface, second_series, 0, half, under_legend), unit - 3, unit + 3);
    assert_in_range(lines_with(surface, second_series, half, width, under_legend), unit / 2 - 3, unit / 2 + 3);
    cairo_surface_destroy(surface);
    assert_non_null(chart_write_png(&chart, "/dev/null/chart.png"));
}

static void all_zero_values_draw(void **state)
{
    (void)state;
    static const char *const names[] = { "x" };
    static const double values[] = { 0 };
    const struct chart chart = {
        .title = "t", .axis = "s", .groups = names, .series = names, .n_groups = 1, .n_series = 1, .values = values
    };
    assert_null(chart_write_png(&chart, "/dev/null"));
}

/* Four K blocks, the last two are the chunk; two heads share the row. */
static void mask_picture_shows_the_bits(void **state)
{
    (void)state;
    static const uint64_t mask[] = { 0x4, 0xc }, q_union[] = { 0xc, 0xd }, g_union[] = { 0xd };
    static const uint32_t pages[] = { 10, 12, 13 };
    const struct maskpic pic = {
        .title = "t",
        .subtitle = "s",
        .n_heads = 2,
        .n_qblocks = 2,
        .n_kblocks = 4,
        .words = 1,
        .first_qblock = 2,
        .mask = mask,
        .q_union = q_union,
        .g_union = g_union,
        .pages = pages,
        .n_pages = 3,
    };
    char path[] = "/tmp/test_mask_XXXXXX";
    close(mkstemp(path));
    assert_null(maskpic_write_png(&pic, path));
    cairo_surface_t *surface = load_picture(path);
    remove(path);
    /* A cell fills 23 x 23 pixels. Past: one in q_union, one in g_union; chunk: 1 + 2 in the mask, 2 + 2 and 2 in the unions. Then the
     * table row (page numbers and links take or add some pixels) and the legend. */
    const long cell = 23L * 23, page = 23L * 46, legend = 12L * 12;
    assert_in_range(count(surface, past), 2 * cell + page * 7 / 10 + legend, 2 * cell + page + 400);
    assert_in_range(count(surface, own), 9 * cell + 2 * page * 7 / 10 + legend, 9 * cell + 2 * page + 600);
    cairo_surface_destroy(surface);
    assert_non_null(maskpic_write_png(&pic, "/dev/null/mask.png"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_as_text),
        cmocka_unit_test(table_as_markdown),
        cmocka_unit_test(table_as_csv),
        cmocka_unit_test(table_grows),
        cmocka_unit_test(bars_are_as_high_as_their_values),
        cmocka_unit_test(all_zero_values_draw),
        cmocka_unit_test(mask_picture_shows_the_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
