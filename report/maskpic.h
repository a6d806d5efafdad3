/* A picture of what block selection does in one layer: a head's block scores and mask, the unions, the table rows that come out. */
#ifndef REPORT_MASKPIC_H
#define REPORT_MASKPIC_H

#include <stddef.h>
#include <stdint.h>

/* A row of the table: some of the heads, some tokens, and the pages that they read. */
struct maskpic_row {
    uint32_t head, n_heads;
    uint32_t first_qblock, n_qblocks; /* absolute blocks that its tokens lie in */
    const uint32_t *blocks, *pages;   /* [n_pages] K block and page id of each page, ascending */
    size_t n_pages;
};

/* Bit j of a row of bits (word j / 64, least significant first) says that K block j is read. */
struct maskpic {
    const char *title, *subtitle;
    uint32_t head, first_head, n_heads;   /* the head of scores and mask; the heads of its KV head */
    uint32_t n_qblocks, n_kblocks, words; /* words = 64-bit words of a row */
    uint32_t first_qblock;                /* absolute block index of Q block 0; K blocks from here on are the chunk itself */
    const float *scores;                  /* [n_qblocks][n_kblocks] of that head; NULL: no heat map */
    const uint64_t *mask;                 /* [n_qblocks][words] of that head */
    const uint64_t *q_union;              /* [n_heads][words] */
    const uint64_t *g_union;              /* [words] */
    const struct maskpic_row *rows; /* what is executed for these heads. One row is drawn as a list of pages, more as strips */
    size_t n_rows;
};

/* NULL when written, else why not (static text). */
const char *maskpic_write_png(const struct maskpic *pic, const char *path);

#endif
