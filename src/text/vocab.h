/* A tokenizer's tables: what each token stands for, which pairs merge, which tokens are found in text as they are. */
#ifndef CA_TEXT_VOCAB_H
#define CA_TEXT_VOCAB_H

#include <compactattn/tokenizer.h>

#include "load/gguf.h"
#include "text/pretok.h"

enum {
    CA_TOKEN_SPECIAL = 1 << 0, /* control: found in text only when asked for, shown only when asked for */
    CA_TOKEN_ADDED = 1 << 1,   /* user-defined: always found in text, before anything else is done to it */
    CA_TOKEN_END = 1 << 2,     /* generation ends here */
    CA_TOKEN_LITERAL = 1 << 3  /* ordinary, but its name is not in the byte alphabet: it stands for its name */
};

typedef struct ca_merge {
    uint32_t left, right; /* token ids */
    uint32_t rank;        /* lowest goes first; UINT32_MAX: the slot is empty */
    uint32_t id;          /* the token of both together */
} ca_merge;

struct ca_tokenizer {
    uint32_t n_tokens;
    ca_str *text;   /* [n_tokens] the bytes a token stands for, in bytes */
    uint8_t *flags; /* [n_tokens] CA_TOKEN_* */
    char *bytes;
    size_t max_piece;

    int32_t byte_id[256]; /* token of each single byte; -1: none, the byte is dropped from text */
    ca_merge *merges;     /* hash table, linear probing */
    size_t merge_mask;    /* slots - 1 */
    uint32_t *pieces;     /* hash table text -> id + 1 of the ordinary tokens; NULL unless merges are ignored for whole pieces */
    size_t piece_mask;

    uint32_t *added; /* [n_added] special and user-defined tokens, sorted by their bytes */
    uint32_t n_added;
    uint32_t added_from[257]; /* those that start with byte b: added[added_from[b] .. added_from[b + 1]) */

    ca_pretok pretok;
    int64_t bos, eos;
    bool add_bos;
    char *chat_template; /* empty when the file has none */
};

/* The merge of two tokens, or NULL. */
const ca_merge *ca_vocab_merge(const ca_tokenizer *tok, uint32_t left, uint32_t right);
/* Id of the ordinary token with exactly these bytes, or -1. Only when tok->pieces is there. */
int64_t ca_vocab_piece(const ca_tokenizer *tok, const char *text, size_t n);
/* The longest special or user-defined token that text starts with: its length, 0 when there is none. */
size_t ca_vocab_added_at(const ca_tokenizer *tok, const char *text, size_t n, uint32_t *id);

uint64_t ca_text_hash(const char *text, size_t n);

#endif
