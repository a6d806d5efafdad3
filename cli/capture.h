/* Keeps what block selection did for one KV head in one layer and chunk of a prefill: for its picture, and as numbers. */
#ifndef CLI_CAPTURE_H
#define CLI_CAPTURE_H

#include <compactattn/compactattn.h>
#include <jansson.h>
#include <stdbool.h>

struct capture {
    /* Set these. The query heads of a KV head are [head / group * group, +group). */
    uint32_t layer, head, group;
    uint32_t chunk, page_tokens; /* tokens of a full chunk and of a page */
    int64_t index;               /* the chunk to keep, counted from 0; below 0: the last of those with the most selected tokens */

    /* The rest is filled. */
    bool taken, failed; /* failed: no memory */
    uint32_t first_head;
    ca_mask mask;      /* of the KV head's heads; bits are ours */
    float *scores;     /* [n_qblocks][n_kblocks] of the head; NULL when the selector has none */
    uint64_t *q_union; /* [group][words] */
    uint64_t *g_union; /* [words] */
    ca_row *rows;      /* the table's rows of these heads, first_page into pages and blocks */
    uint32_t *pages, *blocks;
    uint32_t n_rows;
    ca_mask_count asked, layer_asked;        /* of the heads, of the layer */
    ca_table_count executed, layer_executed; /* the same, over the tokens that the mask covers */
};

/* For ca_prefill_opt.on_trace; user is the capture. */
void capture_trace(void *user, const ca_trace *trace);

/* Draws it. NULL when written, else why not (static text). */
const char *capture_draw(const struct capture *capture, const char *path);

/* Adds scores, mask, unions and rows to an object. Blocks are listed by index. */
void capture_json(const struct capture *capture, json_t *object);

void capture_free(struct capture *capture);

#endif
