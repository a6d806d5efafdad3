#include "capture.h"

#include "report/maskpic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void capture_free(struct capture *capture)
{
    free(capture->mask.bits);
    free(capture->pages);
    free(capture->q_union);
    free(capture->g_union);
    *capture = (struct capture){ .layer = capture->layer, .chunk = capture->chunk };
}

/* Unions of all heads; the row's part of them is kept. */
static bool keep_unions(struct capture *to, const ca_mask *mask)
{
    const size_t words = mask->words, first = to->row.head;
    uint64_t *q_union = calloc(mask->n_heads * words, sizeof *q_union), *g_union = calloc(mask->n_heads * words, sizeof *g_union);
    to->q_union = calloc(to->row.n_heads * words, sizeof *to->q_union);
    to->g_union = calloc(words, sizeof *to->g_union);
    const bool ok = q_union && g_union && to->q_union && to->g_union;
    if (ok) {
        ca_mask_union(mask, to->row.n_heads, q_union, g_union);
        memcpy(to->q_union, q_union + first * words, to->row.n_heads * words * sizeof *q_union);
        memcpy(to->g_union, g_union + first / to->row.n_heads * words, words * sizeof *g_union);
    }
    free(q_union);
    free(g_union);
    return ok;
}

void capture_trace(void *user, const ca_trace *trace)
{
    struct capture *to = user;
    const ca_mask *mask = trace->mask;
    if (trace->layer != to->layer || mask->n_tokens != to->chunk || trace->table->n_rows == 0) return;
    capture_free(to);
    const size_t n_words = (size_t)mask->n_heads * mask->n_qblocks * mask->words;
    to->row = trace->table->rows[0];
    to->mask = *mask;
    to->mask.bits = malloc(n_words * sizeof *mask->bits);
    to->pages = malloc(to->row.n_pages * sizeof *to->pages);
    if (!to->mask.bits || !to->pages || !keep_unions(to, mask)) return;
    memcpy(to->mask.bits, mask->bits, n_words * sizeof *mask->bits);
    memcpy(to->pages, trace->table->pages + to->row.first_page, to->row.n_pages * sizeof *to->pages);
    to->taken = true;
}

const char *capture_draw(const struct capture *capture, const char *path)
{
    const ca_mask *mask = &capture->mask;
    char subtitle[160];
    snprintf(subtitle, sizeof subtitle, "Layer %u, tokens %u to %u: columns are K blocks = KV pages, rows are Q blocks or heads",
             capture->layer, mask->first_token, mask->first_token + mask->n_tokens - 1);
    const struct maskpic pic = {
        .title = "From a block mask to a page table",
        .subtitle = subtitle,
        .head = capture->row.head,
        .first_head = capture->row.head,
        .n_heads = capture->row.n_heads,
        .n_qblocks = mask->n_qblocks,
        .n_kblocks = mask->n_kblocks,
        .words = mask->words,
        .first_qblock = mask->first_qblock,
        .mask = mask->bits + (size_t)capture->row.head * mask->n_qblocks * mask->words,
        .q_union = capture->q_union,
        .g_union = capture->g_union,
        .pages = capture->pages,
        .n_pages = capture->row.n_pages,
    };
    return maskpic_write_png(&pic, path);
}
