#include "maskpic.h"

#include "draw.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

enum { LEFT = 170, RIGHT_MARGIN = 90, TOP = 150, GAP = 34, LINKS = 90, PAGE_HEIGHT = 46, MIN_STRIP = 6, MAX_STRIP = 16 };

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

/* A single row: its pages, moved together, each joined to its block above. */
static void draw_page_list(const struct layout *at, double top, double y)
{
    const struct maskpic_row *row = at->pic->rows;
    char text[160];
    for (size_t i = 0; i < row->n_pages; i++) {
        const unsigned rgb = row->blocks[i] < at->pic->first_qblock ? past_color : chunk_color;
        const double x = LEFT + at->cell * (double)i;
        draw_line(at->cr, LEFT + at->cell * (row->blocks[i] + 0.5), top + 2, x + at->cell / 2, y - 2, 0.8, rgb);
        draw_box(at->cr, x, y, at->cell - (at->cell > 5 ? 1 : 0), PAGE_HEIGHT, rgb);
        if (at->cell < 11) continue;
        snprintf(text, sizeof text, "%u", row->pages[i]);
        draw_text_upwards(at->cr, x + at->cell / 2, y + PAGE_HEIGHT / 2.0, fmin(12, at->cell - 1), 0xffffff, text);
    }
    draw_frame(at->cr, LEFT - 0.5, y - 0.5, at->cell * (double)row->n_pages, PAGE_HEIGHT + 1, DRAW_GRAY);
    draw_text(at->cr, LEFT - 10, y + PAGE_HEIGHT / 2.0 + 5, 13, true, DRAW_INK, DRAW_RIGHT, "Page table row");
    snprintf(text, sizeof text, "%zu of %u pages, by page id: the list that the attention kernel walks for these heads",
             row->n_pages, at->pic->n_kblocks);
    draw_text(at->cr, LEFT, y + PAGE_HEIGHT + 26, 14, false, DRAW_GRAY, DRAW_LEFT, text);
}

static double strip_height(const struct layout *at)
{
    return fmax(MIN_STRIP, fmin(MAX_STRIP, at->cell));
}

/* "head 4, Q 40" or "heads 3-5, Q 40-47". */
static void name_row(const struct maskpic_row *row, char *text, size_t cap)
{
    char heads[32], qblocks[32];
    snprintf(heads, sizeof heads, row->n_heads > 1 ? "heads %u-%u" : "head %u", row->head, row->head + row->n_heads - 1);
    snprintf(qblocks, sizeof qblocks, row->n_qblocks > 1 ? "Q %u-%u" : "Q %u", row->first_qblock,
             row->first_qblock + row->n_qblocks - 1);
    snprintf(text, cap, "%s, %s", heads, qblocks);
}

/* Several rows: a strip each, its pages where their blocks are. */
static void draw_strips(const struct layout *at, double y)
{
    const double height = strip_height(at), inset = at->cell > 5 ? 1 : 0;
    const bool labeled = height >= 11;
    char text[96];
    draw_heading(at, y, "Rows of the page table, as they are executed");
    for (size_t r = 0; r < at->pic->n_rows; r++) {
        const struct maskpic_row *row = &at->pic->rows[r];
        const double top = y + height * (double)r;
        const uint32_t end = row->first_qblock + row->n_qblocks < at->pic->n_kblocks ? row->first_qblock + row->n_qblocks
                                                                                     : at->pic->n_kblocks;
        draw_box(at->cr, LEFT, top, at->cell * end - inset, height - 1, skipped_color);
        for (size_t i = 0; i < row->n_pages; i++)
            draw_box(at->cr, LEFT + at->cell * row->blocks[i], top, at->cell - inset, height - 1,
                     row->blocks[i] < at->pic->first_qblock ? past_color : chunk_color);
        if (!labeled) continue;
        name_row(row, text, sizeof text);
        draw_text(at->cr, LEFT - 10, top + height / 2 + 4, 12, false, DRAW_INK, DRAW_RIGHT, text);
        snprintf(text, sizeof text, "%zu pages", row->n_pages);
        draw_text(at->cr, LEFT + at->cell * at->pic->n_kblocks + 8, top + height / 2 + 4, 12, false, DRAW_GRAY, DRAW_LEFT, text);
    }
    snprintf(text, sizeof text, "%zu rows: each is a list of pages that the attention kernel walks for its heads and queries",
             at->pic->n_rows);
    draw_text(at->cr, LEFT, y + height * (double)at->pic->n_rows + 20, 14, false, DRAW_GRAY, DRAW_LEFT, text);
}

/* Heat 0 to 1 as white over orange to dark red. */
static unsigned heat_color(double heat)
{
    static const unsigned stops[] = { 0xfff7ec, 0xfdbb84, 0xd7301f, 0x5f0000 };
    const double place = 3 * fmax(0, fmin(1, heat));
    const int i = place < 3 ? (int)place : 2;
    unsigned rgb = 0;
    for (int shift = 16; shift >= 0; shift -= 8) {
        const double from = stops[i] >> shift & 255, to = stops[i + 1] >> shift & 255;
        rgb |= (unsigned)lround(from + (to - from) * (place - i)) << shift;
    }
    return rgb;
}

/* Scores of a row from its smallest (or 0, when none is below) to its largest, on a square-root scale: most are small. */
static void draw_heat_row(const struct layout *at, double y, const float *scores, uint32_t last)
{
    const double inset = at->cell > 5 ? 1 : 0;
    double low = 0, high = 0;
    for (uint32_t j = 0; j <= last; j++) {
        low = fmin(low, (double)scores[j]);
        high = j > 0 ? fmax(high, (double)scores[j]) : (double)scores[j];
    }
    for (uint32_t j = 0; j <= last; j++)
        draw_box(at->cr, LEFT + at->cell * j, y, at->cell - inset, at->cell - inset,
                 heat_color(high > low ? sqrt(((double)scores[j] - low) / (high - low)) : 0));
    draw_frame(at->cr, LEFT - 0.5, y - 0.5, at->cell * at->pic->n_kblocks, at->cell, DRAW_RULE);
}

/* What the colors of the heat map mean, right of the heading. */
static void draw_heat_legend(const struct layout *at, double y)
{
    enum { STEPS = 48, STEP = 3 };
    double x = 330;
    draw_text(at->cr, x - 8, y - 10, 12, false, DRAW_GRAY, DRAW_RIGHT, "least of the row");
    for (int i = 0; i < STEPS; i++) draw_box(at->cr, x + i * STEP, y - 20, STEP, 12, heat_color(i / (STEPS - 1.0)));
    x += STEPS * STEP + 8;
    draw_text(at->cr, x, y - 10, 12, false, DRAW_GRAY, DRAW_LEFT, "best of the row (square-root scale)");
}

static void draw_legends(const struct layout *at)
{
    double x = 20;
    x = draw_legend(at->cr, x, 100, past_color, "past block, read");
    x = draw_legend(at->cr, x, 100, chunk_color, "block of the chunk, read");
    x = draw_legend(at->cr, x, 100, skipped_color, "skipped");
    draw_legend(at->cr, x, 100, future_color, "future");
}

/* One row per Q block: the scores, or the mask. */
static void draw_qblocks(const struct layout *at, double top, bool heat)
{
    const struct maskpic *pic = at->pic;
    char text[48];
    for (uint32_t i = 0; i < pic->n_qblocks; i++) {
        const double y = top + at->cell * i;
        if (heat)
            draw_heat_row(at, y, pic->scores + (size_t)i * pic->n_kblocks, pic->first_qblock + i);
        else
            draw_blocks(at, y, pic->mask + (size_t)i * pic->words, pic->first_qblock + i);
        snprintf(text, sizeof text, "Q block %u", pic->first_qblock + i);
        if (at->cell >= 12) draw_row_label(at, y, text);
    }
}

static void draw_unions(const struct layout *at, double q_union_y, double g_union_y)
{
    const struct maskpic *pic = at->pic;
    char text[48];
    draw_heading(at, q_union_y, "Q-block union of each head of the KV head");
    for (uint32_t h = 0; h < pic->n_heads; h++) {
        const double y = q_union_y + at->cell * h;
        draw_blocks(at, y, pic->q_union + (size_t)h * pic->words, pic->n_kblocks);
        snprintf(text, sizeof text, "head %u", pic->first_head + h);
        if (at->cell >= 12) draw_row_label(at, y, text);
    }
    draw_heading(at, g_union_y, "Group union");
    draw_blocks(at, g_union_y, pic->g_union, pic->n_kblocks);
    snprintf(text, sizeof text, "heads %u-%u", pic->first_head, pic->first_head + pic->n_heads - 1);
    draw_row_label(at, g_union_y, text);
}

const char *maskpic_write_png(const struct maskpic *pic, const char *path)
{
    struct layout at = { NULL, pic, fmax(2, fmin(24, floor(1200.0 / pic->n_kblocks))) };
    const double mask_y = pic->scores ? TOP + at.cell * pic->n_qblocks + GAP : TOP;
    const double q_union_y = mask_y + at.cell * pic->n_qblocks + GAP, g_union_y = q_union_y + at.cell * pic->n_heads + GAP;
    const double table_y = g_union_y + at.cell + (pic->n_rows == 1 ? LINKS : GAP);
    const double table_height = pic->n_rows == 1 ? PAGE_HEIGHT : strip_height(&at) * (double)pic->n_rows;
    const double width = fmax(LEFT + at.cell * pic->n_kblocks + RIGHT_MARGIN, 860);
    char text[48];

    at.cr = draw_create((int)width, (int)(table_y + table_height + 50));
    draw_text(at.cr, 20, 38, 22, true, DRAW_INK, DRAW_LEFT, pic->title);
    draw_text(at.cr, 20, 64, 14, false, DRAW_GRAY, DRAW_LEFT, pic->subtitle);
    draw_legends(&at);
    if (pic->scores) {
        snprintf(text, sizeof text, "Block scores of head %u", pic->head);
        draw_heading(&at, TOP, text);
        draw_heat_legend(&at, TOP);
        draw_qblocks(&at, TOP, true);
    }
    snprintf(text, sizeof text, "Mask of head %u", pic->head);
    draw_heading(&at, mask_y, text);
    draw_scale(&at, mask_y);
    draw_qblocks(&at, mask_y, false);
    draw_unions(&at, q_union_y, g_union_y);
    if (pic->n_rows == 1)
        draw_page_list(&at, g_union_y + at.cell, table_y);
    else
        draw_strips(&at, table_y);
    return draw_finish(at.cr, path);
}
