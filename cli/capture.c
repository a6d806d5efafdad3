#include "capture.h"

#include "report/maskpic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void capture_free(struct capture *capture)
{
    free(capture->mask.bits);
    free(capture->scores);
    free(capture->q_union);
    free(capture->g_union);
    free(capture->rows);
    free(capture->pages);
    free(capture->blocks);
    *capture = (struct capture){ .layer = capture->layer,
                                 .head = capture->head,
                                 .group = capture->group,
                                 .chunk = capture->chunk,
                                 .page_tokens = capture->page_tokens,
                                 .index = capture->index };
}

static void *copy_of(const void *from, size_t bytes)
{
    void *to = malloc(bytes);
    if (to) memcpy(to, from, bytes);
    return to;
}

/* NULL for a selector without scores: they are all 0. */
static bool keep_scores(struct capture *to, const ca_trace *trace)
{
    const size_t n = (size_t)to->mask.n_qblocks * to->mask.n_kblocks;
    const float *scores = trace->scores + to->head * n;
    size_t i = 0;
    while (i < n && scores[i] == 0.0F) i++;
    if (i == n) return true;
    to->scores = copy_of(scores, n * sizeof *scores);
    return to->scores != NULL;
}

static bool keep_mask(struct capture *to, const ca_mask *mask)
{
    const size_t head_words = (size_t)mask->n_qblocks * mask->words;
    to->mask = *mask;
    to->mask.n_heads = to->group;
    to->mask.bits = copy_of(mask->bits + to->first_head * head_words, to->group * head_words * sizeof *mask->bits);
    to->q_union = calloc(to->group * (size_t)mask->words, sizeof *to->q_union);
    to->g_union = calloc(mask->words, sizeof *to->g_union);
    if (!to->mask.bits || !to->q_union || !to->g_union) return false;
    ca_mask_union(&to->mask, to->group, to->q_union, to->g_union);
    return true;
}

/* Rows of the captured heads, or of all, whose queries the mask covers. The array is as long as the table. */
static uint32_t list_rows(const struct capture *to, const ca_table *table, bool all_heads, ca_row *rows)
{
    uint32_t n = 0;
    for (uint32_t r = 0; r < table->n_rows; r++) {
        const ca_row *row = &table->rows[r];
        if ((all_heads || row->head / to->group == to->first_head / to->group) && row->pos >= to->mask.first_token &&
            row->pos < to->mask.first_token + to->mask.n_tokens)
            rows[n++] = *row;
    }
    return n;
}

static void measure_rows(const ca_trace *trace, ca_row *rows, uint32_t n_rows, ca_table_count *out)
{
    ca_table part = *trace->table;
    part.rows = rows;
    part.n_rows = n_rows;
    ca_table_measure(trace->cache, &part, out);
}

/* Measures the rows, then keeps those of the captured heads with their pages. */
static bool keep_rows(struct capture *to, const ca_trace *trace)
{
    const ca_table *table = trace->table;
    size_t n_pages = 0;
    to->rows = calloc(table->n_rows + 1, sizeof *to->rows);
    to->pages = calloc(table->n_pages + 1, sizeof *to->pages);
    to->blocks = calloc(table->n_pages + 1, sizeof *to->blocks);
    if (!to->rows || !to->pages || !to->blocks) return false;
    measure_rows(trace, to->rows, list_rows(to, table, true, to->rows), &to->layer_executed);
    to->n_rows = list_rows(to, table, false, to->rows);
    measure_rows(trace, to->rows, to->n_rows, &to->executed);
    for (uint32_t r = 0; r < to->n_rows; r++) {
        const uint32_t *pages = table->pages + to->rows[r].first_page;
        to->rows[r].first_page = (uint32_t)n_pages;
        for (uint32_t i = 0; i < to->rows[r].n_pages; i++, n_pages++) {
            to->pages[n_pages] = pages[i];
            to->blocks[n_pages] = ca_page_pos(trace->cache, pages[i]) / to->page_tokens;
        }
    }
    return true;
}

void capture_trace(void *user, const ca_trace *trace)
{
    struct capture *to = user;
    const ca_mask *mask = trace->mask;
    if (trace->chunk.layer != to->layer || !mask) return;
    if (to->index >= 0 && trace->chunk.pos / to->chunk != (uint64_t)to->index) return;
    if (to->taken && mask->n_tokens < to->mask.n_tokens) return;
    capture_free(to);
    to->first_head = to->head / to->group * to->group;
    to->taken = keep_mask(to, mask) && keep_scores(to, trace) && keep_rows(to, trace);
    to->failed = !to->taken;
    if (to->failed) return;
    ca_mask_measure(trace->cache, &trace->chunk, &to->mask, to->group, &to->asked);
    ca_mask_measure(trace->cache, &trace->chunk, mask, to->group, &to->layer_asked);
}

const char *capture_draw(const struct capture *capture, const char *path)
{
    const ca_mask *mask = &capture->mask;
    struct maskpic_row *rows = calloc(capture->n_rows + 1, sizeof *rows);
    char subtitle[160];
    if (!rows) return "no memory";
    for (uint32_t r = 0; r < capture->n_rows; r++) {
        const ca_row *row = &capture->rows[r];
        const uint32_t first = row->pos / capture->page_tokens;
        rows[r] = (struct maskpic_row){
            .head = row->head,
            .n_heads = row->n_heads,
            .first_qblock = first,
            .n_qblocks = (row->pos + row->n_tokens - 1) / capture->page_tokens - first + 1,
            .blocks = capture->blocks + row->first_page,
            .pages = capture->pages + row->first_page,
            .n_pages = row->n_pages,
        };
    }
    snprintf(subtitle, sizeof subtitle,
             "Layer %u, tokens %u to %u: columns are K blocks = KV pages of %u tokens, rows are Q blocks or heads", capture->layer,
             mask->first_token, mask->first_token + mask->n_tokens - 1, capture->page_tokens);
    const struct maskpic pic = {
        .title = "From a block mask to a page table",
        .subtitle = subtitle,
        .head = capture->head,
        .first_head = capture->first_head,
        .n_heads = capture->group,
        .n_qblocks = mask->n_qblocks,
        .n_kblocks = mask->n_kblocks,
        .words = mask->words,
        .first_qblock = mask->first_qblock,
        .scores = capture->scores,
        .mask = mask->bits + (size_t)(capture->head - capture->first_head) * mask->n_qblocks * mask->words,
        .q_union = capture->q_union,
        .g_union = capture->g_union,
        .rows = rows,
        .n_rows = capture->n_rows,
    };
    const char *why = maskpic_write_png(&pic, path);
    free(rows);
    return why;
}

static json_t *bits_json(const uint64_t *bits, uint32_t n)
{
    json_t *list = json_array();
    for (uint32_t j = 0; j < n; j++)
        if (bits[j / 64] >> (j % 64) & 1) json_array_append_new(list, json_integer(j));
    return list;
}

/* n rows of bits, each as the list of its blocks. */
static json_t *bit_rows_json(const uint64_t *bits, uint32_t n, const ca_mask *mask)
{
    json_t *rows = json_array();
    for (uint32_t i = 0; i < n; i++) json_array_append_new(rows, bits_json(bits + (size_t)i * mask->words, mask->n_kblocks));
    return rows;
}

/* Scores of the blocks that a Q block can see. */
static json_t *scores_json(const struct capture *capture)
{
    const ca_mask *mask = &capture->mask;
    if (!capture->scores) return json_null();
    json_t *rows = json_array();
    for (uint32_t i = 0; i < mask->n_qblocks; i++) {
        json_t *row = json_array();
        for (uint32_t j = 0; j <= mask->first_qblock + i; j++)
            json_array_append_new(row, json_real((double)capture->scores[(size_t)i * mask->n_kblocks + j]));
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *rows_json(const struct capture *capture)
{
    json_t *rows = json_array();
    for (uint32_t r = 0; r < capture->n_rows; r++) {
        const ca_row *row = &capture->rows[r];
        json_t *blocks = json_array(), *pages = json_array();
        for (uint32_t i = 0; i < row->n_pages; i++) {
            json_array_append_new(blocks, json_integer(capture->blocks[row->first_page + i]));
            json_array_append_new(pages, json_integer(capture->pages[row->first_page + i]));
        }
        json_array_append_new(rows, json_pack("{s:I, s:I, s:I, s:I, s:o, s:o}", "first_head", (json_int_t)row->head, "n_heads",
                                              (json_int_t)row->n_heads, "first_token", (json_int_t)row->pos, "n_tokens",
                                              (json_int_t)row->n_tokens, "blocks", blocks, "pages", pages));
    }
    return rows;
}

void capture_json(const struct capture *capture, json_t *object)
{
    const ca_mask *mask = &capture->mask;
    const uint64_t *head = mask->bits + (size_t)(capture->head - capture->first_head) * mask->n_qblocks * mask->words;
    json_object_set_new(object, "first_qblock", json_integer(mask->first_qblock));
    json_object_set_new(object, "n_kblocks", json_integer(mask->n_kblocks));
    json_object_set_new(object, "scores", scores_json(capture));
    json_object_set_new(object, "mask", bit_rows_json(head, mask->n_qblocks, mask));
    json_object_set_new(object, "q_union", bit_rows_json(capture->q_union, capture->group, mask));
    json_object_set_new(object, "g_union", bits_json(capture->g_union, mask->n_kblocks));
    json_object_set_new(object, "rows", rows_json(capture));
}
