/* Keeps what block selection did in one layer of a prefill, for its picture. */
#ifndef CLI_CAPTURE_H
#define CLI_CAPTURE_H

#include <compactattn/compactattn.h>
#include <stdbool.h>

struct capture {
    uint32_t layer, chunk; /* set these two: which layer, and the tokens of a full chunk; the last full chunk is kept */
    bool taken;
    ca_mask mask; /* bits are ours */
    ca_row row;   /* the first row of compactattn's table */
    uint32_t *pages;
    uint64_t *q_union; /* [row.n_heads][words] */
    uint64_t *g_union; /* [words] */
};

/* For ca_prefill_opt.on_trace; user is the capture. */
void capture_trace(void *user, const ca_trace *trace);

/* Draws it. NULL when written, else why not (static text). */
const char *capture_draw(const struct capture *capture, const char *path);

void capture_free(struct capture *capture);

#endif
