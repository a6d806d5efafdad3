/* What the pictures share: a white canvas, colors, aligned text, boxes. Lengths are pixels. */
#ifndef REPORT_DRAW_H
#define REPORT_DRAW_H

#include <cairo.h>
#include <stdbool.h>
#include <stddef.h>

enum draw_align { DRAW_LEFT, DRAW_CENTER, DRAW_RIGHT };

#define DRAW_INK 0x1f2933U
#define DRAW_GRAY 0x616e7cU
#define DRAW_RULE 0xd9dee4U

/* A white canvas. Never NULL: what goes wrong is kept in it and told by draw_finish. */
cairo_t *draw_create(int width, int height);

/* Writes the canvas to a PNG file and frees it. NULL when written, else why not (static text). */
const char *draw_finish(cairo_t *cr, const char *path);

/* A line of UTF-8 text whose baseline is y. */
void draw_text(cairo_t *cr, double x, double y, double size, bool bold, unsigned rgb, enum draw_align align, const char *text);
double draw_text_width(cairo_t *cr, double size, bool bold, const char *text);
/* The same, reading upwards, centered on (x, y). */
void draw_text_upwards(cairo_t *cr, double x, double y, double size, unsigned rgb, const char *text);

void draw_box(cairo_t *cr, double x, double y, double width, double height, unsigned rgb);
void draw_frame(cairo_t *cr, double x, double y, double width, double height, unsigned rgb);
void draw_line(cairo_t *cr, double x0, double y0, double x1, double y1, double width, unsigned rgb);

/* A colored square and its meaning; returns the x where the next entry can start. */
double draw_legend(cairo_t *cr, double x, double y, unsigned rgb, const char *text);

/* Colors that tell series apart; after eight they start again. */
unsigned draw_series_color(size_t series);

/* The step among 1, 2, 5 times a power of ten that cuts the span (> 0) of an axis into at most five parts. */
double draw_tick_step(double span);

#endif
