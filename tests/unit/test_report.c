/* Tables in their three forms, and pictures checked by what they show. */
#include "report/chart.h"
#include "report/lines.h"
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
    assert_non_null(chart_write_png(&chart, "/dev/full"));
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

/* Columns and lines [x0, x1) x [y0, y1) that show the color. */
struct box {
    int x0, x1, y0, y1;
};

static struct box bounds(cairo_surface_t *surface, unsigned rgb, int under)
{
    struct box box = { 1 << 20, 0, 1 << 20, 0 };
    for (int y = under; y < cairo_image_surface_get_height(surface); y++) {
        for (int x = 0; x < cairo_image_surface_get_width(surface); x++) {
            if (pixel(surface, x, y) != rgb) continue;
            box.x0 = x < box.x0 ? x : box.x0;
            box.x1 = x + 1 > box.x1 ? x + 1 : box.x1;
            box.y0 = y < box.y0 ? y : box.y0;
            box.y1 = y + 1 > box.y1 ? y + 1 : box.y1;
        }
    }
    return box;
}

/* The axes go from 0 to 1 and from 0.5 to 1 over 840 x 390 pixels; a point is a square of 8 pixels. */
static void lines_pass_their_points(void **state)
{
    (void)state;
    enum { LEFT = 90, WIDTH = 840, BOTTOM = 540, HEIGHT = 390, UNDER_LEGEND = 110 };
    static const double x[] = { 0, 0.5, 1 }, low[] = { 0.5, 0.6, 0.7 }, high[] = { 0.75, NAN, 1 };
    const struct lines_series series[] = { { "low", x, low, 3, false }, { "high", x, high, 3, false } };
    const struct lines lines = {
        .title = "t", .subtitle = "s", .x_axis = "x", .y_axis = "y", .series = series, .n_series = 2, .mark = NAN
    };
    char path[] = "/tmp/test_lines_XXXXXX";
    close(mkstemp(path));
    assert_null(lines_write_png(&lines, path));
    cairo_surface_t *surface = load_picture(path);
    remove(path);
    const struct box a = bounds(surface, second_series, UNDER_LEGEND), b = bounds(surface, past, UNDER_LEGEND);
    assert_in_range(a.x0, LEFT - 6, LEFT - 2);
    assert_in_range(a.x1, LEFT + WIDTH + 2, LEFT + WIDTH + 6);
    assert_in_range(a.y1, BOTTOM + 2, BOTTOM + 6);
    assert_in_range(a.y0, BOTTOM - HEIGHT * 2 / 5 - 6, BOTTOM - HEIGHT * 2 / 5 - 2); /* 0.7 lies at 2/5 */
    assert_in_range(b.y0, BOTTOM - HEIGHT - 6, BOTTOM - HEIGHT - 2);
    assert_in_range(b.y1, BOTTOM - HEIGHT / 2 + 2, BOTTOM - HEIGHT / 2 + 6);
    /* The line leaves the missing point out: it passes the middle of its ends. */
    const int middle = BOTTOM - HEIGHT * 3 / 4;
    int hits = 0;
    for (int y = middle - 2; y <= middle + 2; y++) hits += pixel(surface, LEFT + WIDTH / 2, y) == past;
    assert_in_range(hits, 1, 3);
    cairo_surface_destroy(surface);
    assert_non_null(lines_write_png(&lines, "/dev/null/lines.png"));
}

static void a_mark_widens_the_axis(void **state)
{
    (void)state;
    static const double x[] = { 0.2, 0.2 }, y[] = { 0.3, NAN };
    const struct lines_series series[] = { { "one", x, y, 2, true }, { "none", x, y + 1, 1, false } };
    struct lines lines = {
        .title = "t", .x_axis = "x", .y_axis = "y", .series = series, .n_series = 2, .mark = 0.9, .mark_name = "m"
    };
    char path[] = "/tmp/test_mark_XXXXXX";
    close(mkstemp(path));
    assert_null(lines_write_png(&lines, path));
    cairo_surface_t *surface = load_picture(path);
    remove(path);
    /* 0.3 to 0.9 in steps of 0.2: the axis is 0.2 to 1 and the point's middle lies at an eighth of its height. */
    int y0 = 0;
    for (int line = 500; line > 150 && !y0; line--)
        if (pixel(surface, 508, line) == 0x1f2933 && pixel(surface, 512, line) == 0x1f2933) y0 = line;
    assert_in_range(y0, 540 - 390 / 8, 540 - 390 / 8 + 6);
    cairo_surface_destroy(surface);
    lines.n_series = 0;
    lines.mark = NAN;
    assert_null(lines_write_png(&lines, "/dev/null")); /* nothing to show */
}

/* Four K blocks, the last two are the chunk; two heads share the rows. */
static const uint64_t mask_bits[] = { 0x4, 0xc }, q_union_bits[] = { 0xc, 0xd }, g_union_bits[] = { 0xd };
static const uint32_t all_blocks[] = { 0, 2, 3 }, all_pages[] = { 10, 12, 13 };

static struct maskpic sample_mask(const struct maskpic_row *rows, size_t n_rows)
{
    return (struct maskpic){
        .title = "t",
        .subtitle = "s",
        .n_heads = 2,
        .n_qblocks = 2,
        .n_kblocks = 4,
        .words = 1,
        .first_qblock = 2,
        .mask = mask_bits,
        .q_union = q_union_bits,
        .g_union = g_union_bits,
        .rows = rows,
        .n_rows = n_rows,
    };
}

static cairo_surface_t *draw_mask(const struct maskpic *pic)
{
    char path[] = "/tmp/test_mask_XXXXXX";
    close(mkstemp(path));
    assert_null(maskpic_write_png(pic, path));
    cairo_surface_t *surface = load_picture(path);
    remove(path);
    return surface;
}

static void mask_picture_shows_the_bits(void **state)
{
    (void)state;
    static const struct maskpic_row row = { 0, 2, 2, 2, all_blocks, all_pages, 3 };
    const struct maskpic pic = sample_mask(&row, 1);
    cairo_surface_t *surface = draw_mask(&pic);
    /* A cell fills 23 x 23 pixels. Past: one in q_union, one in g_union; chunk: 1 + 2 in the mask, 2 + 2 and 2 in the unions. Then the
     * table row (page numbers and links take or add some pixels) and the legend. */
    const long cell = 23L * 23, page = 23L * 46, legend = 12L * 12;
    assert_in_range(count(surface, past), 2 * cell + page * 7 / 10 + legend, 2 * cell + page + 400);
    assert_in_range(count(surface, own), 9 * cell + 2 * page * 7 / 10 + legend, 9 * cell + 2 * page + 600);
    cairo_surface_destroy(surface);
    assert_non_null(maskpic_write_png(&pic, "/dev/null/mask.png"));
}

/* Two rows: head 0 reads blocks 2 and 3, head 1 reads 0 and 2. */
static void mask_picture_shows_every_row(void **state)
{
    (void)state;
    static const struct maskpic_row rows[] = {
        { 0, 1, 2, 2, all_blocks + 1, all_pages + 1, 2 },
        { 1, 1, 2, 1, all_blocks, all_pages, 2 },
    };
    const struct maskpic pic = sample_mask(rows, 2);
    cairo_surface_t *surface = draw_mask(&pic);
    const long cell = 23L * 23, strip = 23L * 15, legend = 14L * 14;
    assert_in_range(count(surface, past), 2 * cell + strip + legend / 2, 2 * cell + strip + legend);
    assert_in_range(count(surface, own), 9 * cell + 3 * strip + legend / 2, 9 * cell + 3 * strip + legend);
    cairo_surface_destroy(surface);
}

/* The best score of a row is the darkest color, also when all are below 0. */
static void heat_map_shows_the_scores(void **state)
{
    (void)state;
    static const float scores[] = { 0.0F, 0.5F, 0.5F, 9.0F, -3.0F, -2.0F, -1.0F, -3.0F }; /* 9 lies in the future */
    static const struct maskpic_row row = { 0, 2, 2, 2, all_blocks, all_pages, 3 };
    struct maskpic pic = sample_mask(&row, 1);
    pic.scores = scores;
    cairo_surface_t *surface = draw_mask(&pic);
    const long cell = 23L * 23, legend = 3L * 12;
    assert_in_range(count(surface, 0x5f0000), 3 * cell + 1, 3 * cell + legend); /* two of the first row, one of the second */
    assert_in_range(count(surface, 0xfff7ec), 3 * cell + 1, 3 * cell + legend);
    cairo_surface_destroy(surface);
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
        cmocka_unit_test(lines_pass_their_points),
        cmocka_unit_test(a_mark_widens_the_axis),
        cmocka_unit_test(mask_picture_shows_the_bits),
        cmocka_unit_test(mask_picture_shows_every_row),
        cmocka_unit_test(heat_map_shows_the_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
