/* BPE: one piece of text -> token ids. Its symbols, bytes or characters, are merged: the pair of lowest rank first, leftmost among
 * equals, until none is left. */
#ifndef CA_TEXT_BPE_H
#define CA_TEXT_BPE_H

#include "text/vocab.h"

enum { CA_BPE_CACHE = 4096 };

typedef struct ca_bpe_node ca_bpe_node;

/* Work space of one call, and the ids so far. */
typedef struct ca_bpe {
    const ca_tokenizer *tok;
    uint32_t *ids;
    size_t n_ids, cap_ids;
    ca_bpe_node *nodes; /* for long pieces */
    uint64_t *heap;
    size_t n_heap, cap_nodes;
    /* Pieces seen: where their ids lie in ids. A hit is proven by comparing the tokens' text with the piece. */
    struct {
        uint64_t hash;
        size_t first;
        uint32_t n, n_bytes;
    } cache[CA_BPE_CACHE];
} ca_bpe;

/* Makes room for n more ids. */
ca_status ca_bpe_reserve(ca_bpe *bpe, size_t n);
/* Appends the ids of one piece; n < 2^31. Time O(n log n). */
ca_status ca_bpe_piece(ca_bpe *bpe, const char *text, size_t n);
void ca_bpe_close(ca_bpe *bpe);

#endif
