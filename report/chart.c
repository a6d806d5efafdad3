#include "chart.h"

#include "draw.h"

#include <math.h>
#include <stdio.h>

enum { LEFT = 90, PLOT = 360, FOOT = 60, LEGEND_LINE = 24, MIN_RIGHT = 930, BAR = 48 };

/* Where one chart lies on the canvas. */
struct frame {
    double right, top, bottom; /* of the plot */
    double scale;              /* pixels per unit */
};

static double largest(const struct chart *chart)
{
    double top = 0;
    for (size_t i = 0; i < chart->n_groups * chart->n_series; i++) top = fmax(top, chart->values[i]);
    return top > 0 ? top : 1;
}

/* Wide enough for a label over every bar. */
static double right_of(const struct chart *chart)
{
    return fmax(MIN_RIGHT, LEFT + (double)(chart->n_groups * chart->n_series * BAR) / 0.8);
}

static void draw_axis(cairo_t *cr, const char *name, double step, const struct frame *f)
{
    char label[32];
    for (int i = 0; step * i * f->scale <= f->bottom - f->top; i++) {
        const double y = f->bottom - step * i * f->scale;
        draw_line(cr, LEFT, y, f->right, y, 1, i ? DRAW_RULE : DRAW_INK);
        snprintf(label, sizeof label, "%.6g", step * i);
        draw_text(cr, LEFT - 10, y + 5, 14, false, DRAW_GRAY, DRAW_RIGHT, label);
    }
    draw_text_upwards(cr, 26, (f->top + f->bottom) / 2.0, 14, DRAW_GRAY, name);
}

static void draw_bar(cairo_t *cr, const struct chart *chart, size_t series, size_t group, const struct frame *f)
{
    const double slot = (f->right - LEFT) / (double)chart->n_groups;
    const double width = fmin(96, slot * 0.8 / (double)chart->n_series);
    const double left = LEFT + slot * ((double)group + 0.5) - width * (double)chart->n_series / 2 + width * (double)series;
    const size_t at = series * chart->n_groups + group;
    const double y = f->bottom - chart->values[at] * f->scale;
    char label[32];
    if (isnan(chart->values[at])) return;
    draw_box(cr, left + 4, y, width - 8, f->bottom - y, draw_series_color(series));
    snprintf(label, sizeof label, "%.*f", chart->values[at] < 10 ? 2 : 1, chart->values[at]);
    draw_text(cr, left + width / 2, y - 6, 13, false, DRAW_INK, DRAW_CENTER, label);
    if (chart->notes) draw_text(cr, left + width / 2, y - 23, 15, true, DRAW_INK, DRAW_CENTER, chart->notes[at]);
}

/* The legend from y on, in as many lines as it needs; returns the last one's y. Without draws it is only measured. */
static double draw_legends(cairo_t *cr, const struct chart *chart, double right, double y, bool draws)
{
    double x = 30;
    for (size_t s = 0; s < chart->n_series; s++) {
        const double width = draw_text_width(cr, 14, false, chart->series[s]) + 46;
        if (s > 0 && x + width > right) {
            x = 30;
            y += LEGEND_LINE;
        }
        if (draws) draw_legend(cr, x, y, draw_series_color(s), chart->series[s]);
        x += width;
    }
    return y;
}

/* Returns the y below the chart. */
static double draw_chart(cairo_t *cr, const struct chart *chart, double at)
{
    const double top = largest(chart), right = right_of(chart), legend = draw_legends(cr, chart, right, at + 100, false);
    const struct frame f = { .right = right, .top = legend + 40, .bottom = legend + 40 + PLOT, .scale = (PLOT - 40) / top };
    draw_text(cr, 30, at + 40, 22, true, DRAW_INK, DRAW_LEFT, chart->title);
    if (chart->subtitle) draw_text(cr, 30, at + 66, 14, false, DRAW_GRAY, DRAW_LEFT, chart->subtitle);
    draw_legends(cr, chart, right, at + 100, true);
    draw_axis(cr, chart->axis, draw_tick_step(top), &f);
    for (size_t g = 0; g < chart->n_groups; g++) {
        for (size_t s = 0; s < chart->n_series; s++) draw_bar(cr, chart, s, g, &f);
        const double middle = LEFT + (right - LEFT) * ((double)g + 0.5) / (double)chart->n_groups;
        draw_text(cr, middle, f.bottom + 30, 16, true, DRAW_INK, DRAW_CENTER, chart->groups[g]);
    }
    return f.bottom + FOOT;
}

const char *chart_write_panels(const struct chart *charts, size_t n, const char *path)
{
    double right = 0, height = 0, at = 0;
    cairo_t *ruler = draw_create(1, 1);
    for (size_t i = 0; i < n; i++) {
        right = fmax(right, right_of(&charts[i]));
        height = draw_legends(ruler, &charts[i], right_of(&charts[i]), height + 100, false) + 40 + PLOT + FOOT;
    }
    cairo_destroy(ruler);
    cairo_t *cr = draw_create((int)right + 30, (int)height);
    for (size_t i = 0; i < n; i++) at = draw_chart(cr, &charts[i], at);
    return draw_finish(cr, path);
}

const char *chart_write_png(const struct chart *chart, const char *path)
{
    return chart_write_panels(chart, 1, path);
}
