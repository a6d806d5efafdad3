#include "lines.h"

#include "draw.h"

#include <math.h>
#include <stdio.h>

enum { WIDTH = 960, HEIGHT = 620, LEFT = 90, RIGHT = 930, TOP = 150, BOTTOM = 540, LEGEND_LINE = 24 };

/* An axis from low to high, both multiples of step. */
struct axis {
    double low, high, step;
};

struct canvas {
    cairo_t *cr;
    struct axis x, y;
};

static struct axis axis_of(double low, double high)
{
    if (!(low <= high)) low = 0, high = 1; /* no point at all */
    if (low == high) low -= 0.5, high += 0.5;
    const double step = draw_tick_step(high - low);
    return (struct axis){ floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step, step };
}

static bool is_point(const struct lines_series *s, size_t i)
{
    return isfinite(s->x[i]) && isfinite(s->y[i]);
}

static void span(const struct lines *lines, struct axis *x, struct axis *y)
{
    double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
    if (isfinite(lines->mark)) y0 = y1 = lines->mark;
    for (size_t s = 0; s < lines->n_series; s++) {
        const struct lines_series *one = &lines->series[s];
        for (size_t i = 0; i < one->n; i++) {
            if (!is_point(one, i)) continue;
            x0 = fmin(x0, one->x[i]), x1 = fmax(x1, one->x[i]);
            y0 = fmin(y0, one->y[i]), y1 = fmax(y1, one->y[i]);
        }
    }
    *x = axis_of(x0, x1);
    *y = axis_of(y0, y1);
}

static double at_x(const struct canvas *c, double value)
{
    return LEFT + (value - c->x.low) / (c->x.high - c->x.low) * (RIGHT - LEFT);
}

static double at_y(const struct canvas *c, double value)
{
    return BOTTOM - (value - c->y.low) / (c->y.high - c->y.low) * (BOTTOM - TOP);
}

static void draw_axes(const struct canvas *c, const struct lines *lines)
{
    char label[32];
    const int n_x = (int)lround((c->x.high - c->x.low) / c->x.step), n_y = (int)lround((c->y.high - c->y.low) / c->y.step);
    for (int i = 0; i <= n_y; i++) {
        const double value = c->y.low + i * c->y.step, y = at_y(c, value);
        draw_line(c->cr, LEFT, y, RIGHT, y, 1, i ? DRAW_RULE : DRAW_INK);
        snprintf(label, sizeof label, "%.6g", fabs(value) < c->y.step / 1e6 ? 0 : value);
        draw_text(c->cr, LEFT - 10, y + 5, 14, false, DRAW_GRAY, DRAW_RIGHT, label);
    }
    for (int i = 0; i <= n_x; i++) {
        const double value = c->x.low + i * c->x.step, x = at_x(c, value);
        draw_line(c->cr, x, TOP, x, BOTTOM, 1, i ? DRAW_RULE : DRAW_INK);
        snprintf(label, sizeof label, "%.6g", fabs(value) < c->x.step / 1e6 ? 0 : value);
        draw_text(c->cr, x, BOTTOM + 22, 14, false, DRAW_GRAY, DRAW_CENTER, label);
    }
    draw_text(c->cr, (LEFT + RIGHT) / 2.0, BOTTOM + 52, 14, false, DRAW_GRAY, DRAW_CENTER, lines->x_axis);
    draw_text_upwards(c->cr, 26, (TOP + BOTTOM) / 2.0, 14, DRAW_GRAY, lines->y_axis);
}

static void draw_mark(const struct canvas *c, const struct lines *lines)
{
    const double dash[] = { 2, 4 }, y = at_y(c, lines->mark);
    cairo_set_dash(c->cr, dash, 2, 0);
    draw_line(c->cr, LEFT, y, RIGHT, y, 1.5, DRAW_GRAY);
    cairo_set_dash(c->cr, NULL, 0, 0);
    draw_text(c->cr, RIGHT - 4, y - 6, 13, false, DRAW_GRAY, DRAW_RIGHT, lines->mark_name);
}

static void draw_series(const struct canvas *c, const struct lines_series *s, unsigned rgb)
{
    const double dash[] = { 8, 5 };
    size_t before = s->n; /* the point before, or none */
    for (size_t i = 0; i < s->n; i++) {
        if (!is_point(s, i)) continue;
        cairo_set_dash(c->cr, dash, s->bound ? 2 : 0, 0);
        if (before < i)
            draw_line(c->cr, at_x(c, s->x[before]), at_y(c, s->y[before]), at_x(c, s->x[i]), at_y(c, s->y[i]), 2.5, rgb);
        cairo_set_dash(c->cr, NULL, 0, 0);
        draw_box(c->cr, round(at_x(c, s->x[i])) - 4, round(at_y(c, s->y[i])) - 4, 8, 8, rgb);
        before = i;
    }
}

const char *lines_write_png(const struct lines *lines, const char *path)
{
    struct canvas c = { .cr = draw_create(WIDTH, HEIGHT) };
    double x = 30, y = 100;
    span(lines, &c.x, &c.y);
    draw_text(c.cr, 30, 40, 22, true, DRAW_INK, DRAW_LEFT, lines->title);
    if (lines->subtitle) draw_text(c.cr, 30, 66, 14, false, DRAW_GRAY, DRAW_LEFT, lines->subtitle);
    draw_axes(&c, lines);
    if (isfinite(lines->mark)) draw_mark(&c, lines);
    for (size_t s = 0; s < lines->n_series; s++) {
        const struct lines_series *one = &lines->series[s];
        const unsigned rgb = one->bound ? DRAW_INK : draw_series_color(s + 1);
        if (x > 30 && x + 20 + draw_text_width(c.cr, 14, false, one->name) > RIGHT) x = 30, y += LEGEND_LINE;
        x = draw_legend(c.cr, x, y, rgb, one->name);
        draw_series(&c, one, rgb);
    }
    return draw_finish(c.cr, path);
}
