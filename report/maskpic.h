/* A picture of what block selection does in one layer: a head's block mask, the unions, the page table row that comes out. */
#ifndef REPORT_MASKPIC_H
#define REPORT_MASKPIC_H

#include <stddef.h>
#include <stdint.h>

/* Bit j of a row (word j / 64, least significant first) says that K block j is read. */
struct maskpic {
    const char *title, *subtitle;
    uint32_t head, first_head, n_heads;   /* the head of the mask; the heads that share the table row */
    uint32_t n_qblocks, n_kblocks, words; /* words = 64-bit words of a row */
    uint32_t first_qblock;                /* absolute block index of Q block 0; K blocks from here on are the chunk itself */
    const uint64_t *mask;                 /* [n_qblocks][words] of that head */
    const uint64_t *q_union;              /* [n_heads][words] */
    const uint64_t *g_union;              /* [words] */
    const uint32_t *pages;                /* [n_pages] page ids of the row, ascending by position */
    size_t n_pages;
};

/* NULL when written, else why not (static text). */
const char *maskpic_write_png(const struct maskpic *pic, const char *path);

#endif
