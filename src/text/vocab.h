/* A tokenizer's tables: what each token stands for, which pairs merge, which tokens are found in text as they are; and how a reader
 * of files fills them. */
#ifndef CA_TEXT_VOCAB_H
#define CA_TEXT_VOCAB_H

#include <compactattn/tokenizer.h>

#include "load/gguf.h"
#include "text/normalize.h"
#include "text/pretok.h"

enum {
    CA_TOKEN_SPECIAL = 1 << 0,    /* control: found in text only when asked for, shown only when asked for */
    CA_TOKEN_ADDED = 1 << 1,      /* user-defined: always found in text, before anything else is done to it */
    CA_TOKEN_END = 1 << 2,        /* generation ends here */
    CA_TOKEN_ORDINARY = 1 << 3,   /* text can become it through merges */
    CA_TOKEN_LSTRIP = 1 << 4,     /* special or added: takes the white space before it */
    CA_TOKEN_RSTRIP = 1 << 5,     /* the same after it */
    CA_TOKEN_NORMALIZED = 1 << 6, /* special or added: found in normalized text, by its normalized name */
    CA_TOKEN_NAMED = 1 << 7       /* the file has this id */
};

typedef struct ca_merge {
    uint32_t left, right; /* token ids */
    uint32_t rank;        /* lowest goes first, leftmost among equals; UINT32_MAX: the slot is empty */
    uint32_t id;          /* the token of both together */
} ca_merge;

/* Tokens to find in text, sorted by their bytes; none is empty, no two have the same. */
typedef struct ca_added {
    struct ca_added_token {
        ca_str text;
        uint32_t id;
    } * tokens;
    uint32_t n;
    uint32_t from[257]; /* those that start with byte b: tokens[from[b] .. from[b + 1]) */
    char *bytes;        /* of the texts, when they are not the tokens' own */
} ca_added;

struct ca_tokenizer {
    uint32_t n_tokens;
    ca_str *piece;  /* [n_tokens] what a token is in the text that merges work on, in bytes */
    ca_str *text;   /* [n_tokens] what it is shown as; the same array when the two never differ */
    uint8_t *flags; /* [n_tokens] CA_TOKEN_* */
    char *bytes, *shown;
    size_t max_piece;
    bool strip_space; /* one space at the start of all that is shown is not part of it */

    /* Symbols, which merges start from: bytes, or (chars) UTF-8 characters. */
    bool chars;
    int32_t byte_id[256];  /* token of each symbol of one byte; -1: none */
    int32_t fallback[256]; /* chars: tokens of the bytes of a character that has none, -1: none; all or none are there */
    int64_t unknown;       /* token of what has none at all; -1: it is dropped from text */
    bool fuse_unknown;     /* symbols that touch share one */

    ca_merge *merges;   /* hash table, linear probing */
    size_t merge_mask;  /* slots - 1 */
    uint32_t *pieces;   /* hash table piece -> id + 1 of the ordinary tokens; NULL when nothing asks for it */
    size_t piece_mask;  /* slots - 1 */
    bool ignore_merges; /* a piece that is a token as a whole is not built by merges */
    bool cuts;          /* pieces may be cut before a word mark, but not after these bytes: no merge crosses such a place */
    bool no_cut_after[256];

    ca_added added[2];        /* found in text as it is, found in normalized text */
    ca_normalizer normalizer; /* before the second set */
    ca_normalizer prefix;     /* after it: what the pre-tokenizer changes */
    ca_pretok pretok;
    int64_t bos, eos;
    bool add_bos;
    char *chat_template; /* empty when the file has none */
};

/* The merge of two tokens, or NULL. */
const ca_merge *ca_vocab_merge(const ca_tokenizer *tok, uint32_t left, uint32_t right);
/* Id of the ordinary token with exactly these bytes, or -1. Only when tok->pieces is there. */
int64_t ca_vocab_piece(const ca_tokenizer *tok, const char *text, size_t n);
/* The longest token of a set that text starts with: its length, 0 when there is none. */
size_t ca_vocab_added_at(const ca_added *added, const char *text, size_t n, uint32_t *id);

uint64_t ca_text_hash(const char *text, size_t n);

/* ---- filling the tables, in this order ---- */

typedef struct ca_vocab_build {
    const char *file; /* for messages */
    const char *list; /* what the file calls its tokens and merges, for messages */
    const char *merges;
    ca_tokenizer *tok;
    ca_str *names;     /* [n_tokens] tokens as the file writes them, borrowed bytes */
    uint32_t *by_name; /* hash table over names */
    size_t by_name_mask;
} ca_vocab_build;

/* How a name becomes what is shown. */
typedef struct ca_decoder {
    bool byte_level;        /* the byte alphabet of GPT-2; pieces are such bytes, too */
    bool byte_fallback;     /* <0xE2> is a byte */
    ca_short_text from, to; /* from is replaced unless it is empty */
} ca_decoder;

/* Makes the tokenizer, with names and flags of n tokens to be set (NAMED where there is a token). */
ca_status ca_vocab_begin(ca_vocab_build *build, size_t n);
/* Finds names from here on. CA_E_FORMAT when two tokens have the same. */
ca_status ca_vocab_index(ca_vocab_build *build);
int64_t ca_vocab_find(const ca_vocab_build *build, ca_str name); /* -1: none */
/* Pieces, texts, symbols and the table of pieces, from names and flags. Ordinary tokens whose name is not in the byte alphabet stand
 * for their name and are not ordinary any more. tok->chars and tok->ignore_merges are set. */
ca_status ca_vocab_texts(ca_vocab_build *build, const ca_decoder *decoder);
/* Room for n merges, then each of them, given as names. */
ca_status ca_vocab_merges(ca_vocab_build *build, size_t n);
ca_status ca_vocab_add_merge(ca_vocab_build *build, size_t rank, ca_str left, ca_str right);
/* All merges that the ordinary tokens allow when each token has a score: the highest goes first. */
ca_status ca_vocab_merges_by_score(ca_vocab_build *build, const float *scores);
/* Sets of added tokens (tok->normalizer is set), tokens that end a turn, places where pieces may be cut. */
ca_status ca_vocab_finish(ca_vocab_build *build);
/* Frees the build; the tokenizer goes to *out, or away when st is a failure. Returns st. */
ca_status ca_vocab_end(ca_vocab_build *build, ca_status st, ca_tokenizer **out);

ca_status ca_vocab_no_memory(const ca_vocab_build *build);

/* A name of the file, for messages. */
enum { CA_SHOWN = 72 };
#define CA_SHOW(str) ca_vocab_show((str), (char[CA_SHOWN]){ 0 })
const char *ca_vocab_show(ca_str str, char buf[CA_SHOWN]);

#endif
