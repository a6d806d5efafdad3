#include "heatmap.h"

#include "draw.h"

#include <math.h>
#include <stdio.h>

enum { CELL_WIDTH = 62, CELL_HEIGHT = 26, MARGIN = 30, HEAD = 100, PANEL_HEAD = 58, GAP = 34, WIDEST = 1500, MOST = 16000 };

struct grid {
    double label_width, panel_width, panel_height;
    size_t across; /* panels beside each other */
};

/* From red over pale to blue: told apart by all eyes. */
static unsigned color(double share)
{
    static const unsigned stops[] = { 0xb5485d, 0xf5ecd7, 0x2563a8 };
    const double at = 2 * fmin(1, fmax(0, share));
    const unsigned from = stops[at >= 1], to = stops[1 + (at >= 1)];
    const double t = at >= 1 ? at - 1 : at;
    unsigned rgb = 0;
    for (unsigned shift = 0; shift <= 16; shift += 8) {
        const double a = from >> shift & 255, b = to >> shift & 255;
        rgb |= (unsigned)lround(a + (b - a) * t) << shift;
    }
    return rgb;
}

static void draw_cell(cairo_t *cr, const struct heatmap *map, double x, double y, double value)
{
    char text[32];
    if (isnan(value)) {
        draw_text(cr, x + CELL_WIDTH / 2.0, y + 18, 13, false, DRAW_GRAY, DRAW_CENTER, "-");
        return;
    }
    const double share = value / map->top;
    draw_box(cr, x, y, CELL_WIDTH - 1, CELL_HEIGHT - 1, color(share));
    snprintf(text, sizeof text, "%.*f", map->decimals, value);
    draw_text(cr, x + CELL_WIDTH / 2.0, y + 18, 13, false, share < 0.2 || share > 0.8 ? 0xffffffU : DRAW_INK, DRAW_CENTER, text);
}

static void draw_panel(cairo_t *cr, const struct heatmap *map, const struct grid *grid, size_t panel)
{
    const size_t row = panel / grid->across, column = panel % grid->across;
    const double left = MARGIN + grid->label_width + (double)column * (grid->panel_width + GAP);
    const double top = HEAD + (double)row * (grid->panel_height + GAP), cells = top + PANEL_HEAD;
    draw_text(cr, left, top + 22, 16, true, DRAW_INK, DRAW_LEFT, map->panels[panel]);
    for (size_t c = 0; c < map->n_columns; c++)
        draw_text(cr, left + CELL_WIDTH * ((double)c + 0.5), cells - 8, 13, false, DRAW_GRAY, DRAW_CENTER, map->columns[c]);
    for (size_t r = 0; r < map->n_rows; r++) {
        const double y = cells + CELL_HEIGHT * (double)r;
        if (column == 0) draw_text(cr, left - 10, y + 18, 14, false, DRAW_INK, DRAW_RIGHT, map->rows[r]);
        for (size_t c = 0; c < map->n_columns; c++)
            draw_cell(cr, map, left + CELL_WIDTH * (double)c, y, map->values[(panel * map->n_rows + r) * map->n_columns + c]);
    }
}

/* How the panels fit. A panel is at least as wide as its name. */
static struct grid arrange(const struct heatmap *map)
{
    struct grid grid = { .panel_width = CELL_WIDTH * (double)map->n_columns,
                         .panel_height = PANEL_HEAD + CELL_HEIGHT * (double)map->n_rows };
    cairo_t *cr = draw_create(1, 1);
    for (size_t r = 0; r < map->n_rows; r++)
        grid.label_width = fmax(grid.label_width, draw_text_width(cr, 14, false, map->rows[r]));
    for (size_t p = 0; p < map->n_panels; p++)
        grid.panel_width = fmax(grid.panel_width, draw_text_width(cr, 16, true, map->panels[p]));
    cairo_destroy(cr);
    grid.label_width = ceil(grid.label_width) + 10;
    grid.panel_width = ceil(grid.panel_width);
    grid.across = 1;
    while (grid.across < map->n_panels &&
           2 * MARGIN + grid.label_width + (double)(grid.across + 1) * (grid.panel_width + GAP) - GAP <= WIDEST)
        grid.across++;
    return grid;
}

const char *heatmap_write_png(const struct heatmap *map, const char *path)
{
    const struct grid grid = arrange(map);
    const size_t down = (map->n_panels + grid.across - 1) / grid.across;
    const double width = 2 * MARGIN + grid.label_width + (double)grid.across * (grid.panel_width + GAP) - GAP;
    const double height = HEAD + (double)down * (grid.panel_height + GAP) - GAP + MARGIN;
    if (width > MOST || height > MOST) return "too many cells for a picture";
    cairo_t *cr = draw_create((int)fmax(width, 760), (int)height);
    draw_text(cr, MARGIN, 40, 22, true, DRAW_INK, DRAW_LEFT, map->title);
    if (map->subtitle) draw_text(cr, MARGIN, 66, 14, false, DRAW_GRAY, DRAW_LEFT, map->subtitle);
    for (size_t p = 0; p < map->n_panels; p++) draw_panel(cr, map, &grid, p);
    return draw_finish(cr, path);
}
