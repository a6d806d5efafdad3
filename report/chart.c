#include "chart.h"

#include "draw.h"

#include <math.h>
#include <stdio.h>

enum { WIDTH = 960, HEIGHT = 560, LEFT = 90, RIGHT = 930, TOP = 140, BOTTOM = 500 };

static double largest(const struct chart *chart)
{
    double top = 0;
    for (size_t i = 0; i < chart->n_groups * chart->n_series; i++) top = fmax(top, chart->values[i]);
    return top > 0 ? top : 1;
}

static void draw_axis(cairo_t *cr, const char *name, double step, double scale)
{
    char label[32];
    for (int i = 0; step * i * scale <= BOTTOM - TOP; i++) {
        const double y = BOTTOM - step * i * scale;
        draw_line(cr, LEFT, y, RIGHT, y, 1, i ? DRAW_RULE : DRAW_INK);
        snprintf(label, sizeof label, "%.6g", step * i);
        draw_text(cr, LEFT - 10, y + 5, 14, false, DRAW_GRAY, DRAW_RIGHT, label);
    }
    draw_text_upwards(cr, 26, (TOP + BOTTOM) / 2.0, 14, DRAW_GRAY, name);
}

static void draw_bar(cairo_t *cr, const struct chart *chart, size_t series, size_t group, double scale)
{
    const double slot = (double)(RIGHT - LEFT) / (double)chart->n_groups;
    const double width = fmin(96, slot * 0.8 / (double)chart->n_series);
    const double left = LEFT + slot * ((double)group + 0.5) - width * (double)chart->n_series / 2 + width * (double)series;
    const size_t at = series * chart->n_groups + group;
    const double y = BOTTOM - chart->values[at] * scale;
    char label[32];
    draw_box(cr, left + 4, y, width - 8, BOTTOM - y, draw_series_color(series));
    snprintf(label, sizeof label, "%.*f", chart->values[at] < 10 ? 2 : 1, chart->values[at]);
    draw_text(cr, left + width / 2, y - 6, 13, false, DRAW_INK, DRAW_CENTER, label);
    if (chart->notes) draw_text(cr, left + width / 2, y - 23, 15, true, DRAW_INK, DRAW_CENTER, chart->notes[at]);
}

const char *chart_write_png(const struct chart *chart, const char *path)
{
    cairo_t *cr = draw_create(WIDTH, HEIGHT);
    const double top = largest(chart), scale = (BOTTOM - TOP - 40) / top; /* 40: room for the labels of the highest bar */
    draw_text(cr, 30, 40, 22, true, DRAW_INK, DRAW_LEFT, chart->title);
    if (chart->subtitle) draw_text(cr, 30, 66, 14, false, DRAW_GRAY, DRAW_LEFT, chart->subtitle);
    double x = 30;
    for (size_t s = 0; s < chart->n_series; s++) x = draw_legend(cr, x, 100, draw_series_color(s), chart->series[s]);
    draw_axis(cr, chart->axis, draw_tick_step(top), scale);
    for (size_t g = 0; g < chart->n_groups; g++) {
        for (size_t s = 0; s < chart->n_series; s++) draw_bar(cr, chart, s, g, scale);
        const double middle = LEFT + (double)(RIGHT - LEFT) * ((double)g + 0.5) / (double)chart->n_groups;
        draw_text(cr, middle, BOTTOM + 30, 16, true, DRAW_INK, DRAW_CENTER, chart->groups[g]);
    }
    return draw_finish(cr, path);
}
