#include "draw.h"

#include "cli/file.h"

#include <errno.h>
#include <math.h>
#include <string.h>

cairo_t *draw_create(int width, int height)
{
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height);
    cairo_t *cr = cairo_create(surface);
    cairo_surface_destroy(surface); /* the context keeps its own reference */
    cairo_set_source_rgb(cr, 1, 1, 1);
    cairo_paint(cr);
    return cr;
}

static cairo_status_t write_some(void *file, const unsigned char *data, unsigned n)
{
    return fwrite(data, 1, n, file) == n ? CAIRO_STATUS_SUCCESS : CAIRO_STATUS_WRITE_ERROR;
}

const char *draw_finish(cairo_t *cr, const char *path)
{
    struct file_result result;
    const char *why = NULL;
    cairo_status_t status = cairo_status(cr);
    if (status == CAIRO_STATUS_SUCCESS && !file_begin(&result, path)) {
        why = strerror(errno);
    } else if (status == CAIRO_STATUS_SUCCESS) {
        status = cairo_surface_write_to_png_stream(cairo_get_target(cr), write_some, result.file);
        if (!file_end(&result, status == CAIRO_STATUS_SUCCESS)) why = strerror(errno);
    }
    if (status != CAIRO_STATUS_SUCCESS) why = cairo_status_to_string(status);
    cairo_destroy(cr);
    return why;
}

static void set_color(cairo_t *cr, unsigned rgb)
{
    cairo_set_source_rgb(cr, (rgb >> 16 & 255) / 255.0, (rgb >> 8 & 255) / 255.0, (rgb & 255) / 255.0);
}

static void set_font(cairo_t *cr, double size, bool bold)
{
    cairo_select_font_face(cr, "sans-serif", CAIRO_FONT_SLANT_NORMAL, bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr, size);
}

double draw_text_width(cairo_t *cr, double size, bool bold, const char *text)
{
    cairo_text_extents_t extents;
    set_font(cr, size, bold);
    cairo_text_extents(cr, text, &extents);
    return extents.x_advance;
}

void draw_text(cairo_t *cr, double x, double y, double size, bool bold, unsigned rgb, enum draw_align align, const char *text)
{
    const double width = draw_text_width(cr, size, bold, text);
    set_color(cr, rgb);
    cairo_move_to(cr, x - (align == DRAW_LEFT ? 0 : align == DRAW_CENTER ? width / 2 : width), y);
    cairo_show_text(cr, text);
}

void draw_text_upwards(cairo_t *cr, double x, double y, double size, unsigned rgb, const char *text)
{
    cairo_save(cr);
    cairo_translate(cr, x, y);
    cairo_rotate(cr, -1.5707963267948966);
    draw_text(cr, 0, size * 0.36, size, false, rgb, DRAW_CENTER, text);
    cairo_restore(cr);
}

void draw_box(cairo_t *cr, double x, double y, double width, double height, unsigned rgb)
{
    set_color(cr, rgb);
    cairo_rectangle(cr, x, y, width, height);
    cairo_fill(cr);
}

void draw_frame(cairo_t *cr, double x, double y, double width, double height, unsigned rgb)
{
    set_color(cr, rgb);
    cairo_set_line_width(cr, 1);
    cairo_rectangle(cr, x, y, width, height);
    cairo_stroke(cr);
}

void draw_line(cairo_t *cr, double x0, double y0, double x1, double y1, double width, unsigned rgb)
{
    set_color(cr, rgb);
    cairo_set_line_width(cr, width);
    cairo_move_to(cr, x0, y0);
    cairo_line_to(cr, x1, y1);
    cairo_stroke(cr);
}

double draw_legend(cairo_t *cr, double x, double y, unsigned rgb, const char *text)
{
    draw_box(cr, x, y - 12, 14, 14, rgb);
    draw_frame(cr, x + 0.5, y - 11.5, 13, 13, DRAW_GRAY);
    draw_text(cr, x + 20, y, 14, false, DRAW_INK, DRAW_LEFT, text);
    return x + 20 + draw_text_width(cr, 14, false, text) + 26;
}

unsigned draw_series_color(size_t series)
{
    static const unsigned colors[] = { 0x9aa5b1, 0xe8a33d, 0x2563a8, 0x3f9b6c, 0xb5485d, 0x7a4fa3, 0x2a9fb5, 0x8c6d31 };
    return colors[series % (sizeof colors / sizeof *colors)];
}

double draw_tick_step(double span)
{
    const double power = pow(10, floor(log10(span / 5)));
    const double digit = span / 5 / power;
    return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}
