#include "maskpic.h"

#include "draw.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

enum { LEFT = 170, RIGHT_MARGIN = 30, TOP = 150, GAP = 34, LINKS = 90, PAGE_HEIGHT = 46 };

static const unsigned past_color = 0x2563a8, chunk_color = 0x3f9b6c, skipped_color = 0xe8ecf0, future_color = 0xffffff;

struct layout {
    cairo_t *cr;
    const struct maskpic *pic;
    double cell; /* width and height of a block */
};

static bool bit(const uint64_t *row, uint32_t j)
{
    return row[j / 64] >> (j % 64) & 1;
}

/* One row of blocks. Blocks after last are in the future of every query of the row. */
static void draw_blocks(const struct layout *at, double y, const uint64_t *row, uint32_t last)
{
    const double inset = at->cell > 5 ? 1 : 0;
    for (uint32_t j = 0; j < at->pic->n_kblocks; j++) {
        const unsigned rgb = bit(row, j) ? (j < at->pic->first_qblock ? past_color : chunk_color)
                             : j > last  ? future_color
                                         : skipped_color;
        draw_box(at->cr, LEFT + at->cell * j, y, at->cell - inset, at->cell - inset, rgb);
    }
    draw_frame(at->cr, LEFT - 0.5, y - 0.5, at->cell * at->pic->n_kblocks, at->cell, DRAW_RULE);
}

static void draw_row_label(const struct layout *at, double y, const char *text)
{
    draw_text(at->cr, LEFT - 10, y + at->cell / 2 + 5, 13, false, DRAW_INK, DRAW_RIGHT, text);
}

static void draw_heading(const struct layout *at, double y, const char *text)
{
    draw_text(at->cr, 20, y - 10, 14, true, DRAW_INK, DRAW_LEFT, text);
}

/* K block numbers above the mask, about every 60 pixels. */
static void draw_scale(const struct layout *at, double y)
{
    uint32_t step = 1;
    while (step * at->cell < 60) step *= 2;
    for (uint32_t j = 0; j < at->pic->n_kblocks; j += step) {
        char label[16];
        snprintf(label, sizeof label, "%u", j);
        draw_text(at->cr, LEFT + at->cell * (j + 0.5), y - 6, 12, false, DRAW_GRAY, DRAW_CENTER, label);
    }
}

/* The table row: the pages of the union, moved together, each joined to its block above. */
static void draw_table_row(const struct layout *at, double top, double y)
{
    const struct maskpic *pic = at->pic;
    size_t page = 0;
    for (uint32_t j = 0; j < pic->n_kblocks && page < pic->n_pages; j++) {
        if (!bit(pic->g_union, j)) continue;
        const unsigned rgb = j < pic->first_qblock ? past_color : chunk_color;
        const double x = LEFT + at->cell * (double)page;
        draw_line(at->cr, LEFT + at->cell * (j + 0.5), top + 2, x + at->cell / 2, y - 2, 0.8, rgb);
        draw_box(at->cr, x, y, at->cell - (at->cell > 5 ? 1 : 0), PAGE_HEIGHT, rgb);
        if (at->cell >= 11) {
            char label[16];
            snprintf(label, sizeof label, "%u", pic->pages[page]);
            draw_text_upwards(at->cr, x + at->cell / 2, y + PAGE_HEIGHT / 2.0, fmin(12, at->cell - 1), 0xffffff, label);
        }
        page++;
    }
    draw_frame(at->cr, LEFT - 0.5, y - 0.5, at->cell * (double)pic->n_pages, PAGE_HEIGHT + 1, DRAW_GRAY);
}

static void draw_legends(const struct layout *at)
{
    double x = 20;
    x = draw_legend(at->cr, x, 100, past_color, "past block, read");
    x = draw_legend(at->cr, x, 100, chunk_color, "block of the chunk, read");
    x = draw_legend(at->cr, x, 100, skipped_color, "skipped");
    draw_legend(at->cr, x, 100, future_color, "future");
}

const char *maskpic_write_png(const struct maskpic *pic, const char *path)
{
    struct layout at = { NULL, pic, fmax(2, fmin(24, floor(1200.0 / pic->n_kblocks))) };
    const double q_union_y = TOP + at.cell * pic->n_qblocks + GAP, g_union_y = q_union_y + at.cell * pic->n_heads + GAP;
    const double table_y = g_union_y + at.cell + LINKS;
    const double width = fmax(LEFT + at.cell * pic->n_kblocks + RIGHT_MARGIN, 860);
    char text[160];

    at.cr = draw_create((int)width, (int)(table_y + PAGE_HEIGHT + 50));
    draw_text(at.cr, 20, 38, 22, true, DRAW_INK, DRAW_LEFT, pic->title);
    draw_text(at.cr, 20, 64, 14, false, DRAW_GRAY, DRAW_LEFT, pic->subtitle);
    draw_legends(&at);

    snprintf(text, sizeof text, "Mask of head %u", pic->head);
    draw_heading(&at, TOP, text);
    draw_scale(&at, TOP);
    for (uint32_t i = 0; i < pic->n_qblocks; i++) {
        const double y = TOP + at.cell * i;
        draw_blocks(&at, y, pic->mask + (size_t)i * pic->words, pic->first_qblock + i);
        snprintf(text, sizeof text, "Q block %u", pic->first_qblock + i);
        if (at.cell >= 12) draw_row_label(&at, y, text);
    }
    draw_heading(&at, q_union_y, "Q-block union of each head that shares the row");
    for (uint32_t h = 0; h < pic->n_heads; h++) {
        const double y = q_union_y + at.cell * h;
        draw_blocks(&at, y, pic->q_union + (size_t)h * pic->words, pic->n_kblocks);
        snprintf(text, sizeof text, "head %u", pic->first_head + h);
        draw_row_label(&at, y, text);
    }
    draw_heading(&at, g_union_y, "Group union");
    draw_blocks(&at, g_union_y, pic->g_union, pic->n_kblocks);
    snprintf(text, sizeof text, "heads %u-%u", pic->first_head, pic->first_head + pic->n_heads - 1);
    draw_row_label(&at, g_union_y, text);
    draw_table_row(&at, g_union_y + at.cell, table_y);
    draw_text(at.cr, LEFT - 10, table_y + PAGE_HEIGHT / 2.0 + 5, 13, true, DRAW_INK, DRAW_RIGHT, "Page table row");
    snprintf(text, sizeof text, "%zu of %u pages, by page id: the list that the attention kernel walks for these heads",
             pic->n_pages, pic->n_kblocks);
    draw_text(at.cr, LEFT, table_y + PAGE_HEIGHT + 26, 14, false, DRAW_GRAY, DRAW_LEFT, text);
    return draw_finish(at.cr, path);
}
