/* Builds a GGUF image that holds a vocabulary and nothing else. */
#ifndef CA_TEST_VOCAB_IMAGE_H
#define CA_TEST_VOCAB_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct bytes {
    char *data;
    size_t len, cap;
} bytes;

enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4, TOKEN_BYTE = 6 };

typedef struct vocab {
    const char *model, *pre, *chat_template; /* NULL: no such key */
    int64_t bos, eos, eot;                   /* negative: no such key */
    int add_bos, add_space_prefix;           /* negative: no such key */
    bool no_types, no_merges;                /* leave the arrays out */
    bytes tokens, types, merges, scores;
    uint64_t n_tokens, n_types, n_merges, n_scores; /* no scores: no such key */
} vocab;

static inline void bytes_add(bytes *b, const void *data, size_t n)
{
    if (b->len + n > b->cap) {
        b->cap = (b->len + n) * 2;
        b->data = realloc(b->data, b->cap);
        if (!b->data) abort();
    }
    if (n) memcpy(b->data + b->len, data, n);
    b->len += n;
}

static inline void bytes_u32(bytes *b, uint32_t v)
{
    bytes_add(b, &v, sizeof v);
}

static inline void bytes_u64(bytes *b, uint64_t v)
{
    bytes_add(b, &v, sizeof v);
}

static inline void bytes_str(bytes *b, const char *s, size_t n)
{
    bytes_u64(b, n);
    bytes_add(b, s, n);
}

static inline vocab vocab_new(const char *pre)
{
    return (vocab){ .model = "gpt2", .pre = pre, .bos = -1, .eos = -1, .eot = -1, .add_bos = -1, .add_space_prefix = -1 };
}

/* name as the file writes it: ordinary tokens in the byte alphabet. */
static inline uint32_t vocab_token_n(vocab *v, const char *name, size_t n, uint32_t type)
{
    bytes_str(&v->tokens, name, n);
    bytes_u32(&v->types, type);
    v->n_types++;
    return (uint32_t)v->n_tokens++;
}

static inline uint32_t vocab_token(vocab *v, const char *name, uint32_t type)
{
    return vocab_token_n(v, name, strlen(name), type);
}

static inline void vocab_score(vocab *v, float score)
{
    bytes_add(&v->scores, &score, sizeof score);
    v->n_scores++;
}

static inline void vocab_merge(vocab *v, const char *line)
{
    bytes_str(&v->merges, line, strlen(line));
    v->n_merges++;
}

/* The byte alphabet's character of a byte, as UTF-8; returns its length. */
static inline size_t byte_char(unsigned byte, char out[3])
{
    unsigned c = 0x100;
    for (unsigned b = 0; b <= byte; b++) {
        const bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        if (b == byte)
            c = printable ? b : c;
        else
            c += !printable;
    }
    const size_t n = c < 0x80 ? 1 : 2;
    out[0] = (char)(n == 1 ? c : 0xc0 | c >> 6);
    out[1] = (char)(n == 1 ? 0 : 0x80 | (c & 0x3f));
    out[2] = 0;
    return n;
}

/* Tokens 0..255: the bytes. */
static inline void vocab_bytes(vocab *v)
{
    for (unsigned b = 0; b < 256; b++) {
        char name[3];
        vocab_token_n(v, name, byte_char(b, name), TOKEN_NORMAL);
    }
}

enum { GGUF_U32 = 4, GGUF_I32 = 5, GGUF_F32 = 6, GGUF_BOOL = 7, GGUF_STRING = 8, GGUF_ARRAY = 9 };

static inline void image_key(bytes *im, uint64_t *n_keys, const char *key, uint32_t type)
{
    bytes_str(im, key, strlen(key));
    bytes_u32(im, type);
    ++*n_keys;
}

static inline void image_str(bytes *im, uint64_t *n_keys, const char *key, const char *value)
{
    if (!value) return;
    image_key(im, n_keys, key, GGUF_STRING);
    bytes_str(im, value, strlen(value));
}

static inline void image_id(bytes *im, uint64_t *n_keys, const char *key, int64_t value)
{
    if (value < 0) return;
    image_key(im, n_keys, key, GGUF_U32);
    bytes_u32(im, (uint32_t)value);
}

static inline void image_array(bytes *im, uint64_t *n_keys, const char *key, uint32_t type, uint64_t n, const bytes *items)
{
    image_key(im, n_keys, key, GGUF_ARRAY);
    bytes_u32(im, type);
    bytes_u64(im, n);
    bytes_add(im, items->data, items->len);
}

/* The image; the caller frees .data. Empties the vocabulary. */
static inline bytes vocab_image(vocab *v)
{
    bytes keys = { 0 }, im = { 0 };
    uint64_t n = 0;
    image_str(&keys, &n, "tokenizer.ggml.model", v->model);
    image_str(&keys, &n, "tokenizer.ggml.pre", v->pre);
    image_str(&keys, &n, "tokenizer.chat_template", v->chat_template);
    image_array(&keys, &n, "tokenizer.ggml.tokens", GGUF_STRING, v->n_tokens, &v->tokens);
    if (!v->no_types) image_array(&keys, &n, "tokenizer.ggml.token_type", GGUF_I32, v->n_types, &v->types);
    if (!v->no_merges) image_array(&keys, &n, "tokenizer.ggml.merges", GGUF_STRING, v->n_merges, &v->merges);
    image_id(&keys, &n, "tokenizer.ggml.bos_token_id", v->bos);
    image_id(&keys, &n, "tokenizer.ggml.eos_token_id", v->eos);
    image_id(&keys, &n, "tokenizer.ggml.eot_token_id", v->eot);
    if (v->add_bos >= 0) {
        image_key(&keys, &n, "tokenizer.ggml.add_bos_token", GGUF_BOOL);
        bytes_add(&keys, v->add_bos ? "\1" : "\0", 1);
    }
    if (v->add_space_prefix >= 0) {
        image_key(&keys, &n, "tokenizer.ggml.add_space_prefix", GGUF_BOOL);
        bytes_add(&keys, v->add_space_prefix ? "\1" : "\0", 1);
    }
    if (v->n_scores > 0) image_array(&keys, &n, "tokenizer.ggml.scores", GGUF_F32, v->n_scores, &v->scores);
    bytes_add(&im, "GGUF", 4);
    bytes_u32(&im, 3);
    bytes_u64(&im, 0);
    bytes_u64(&im, n);
    bytes_add(&im, keys.data, keys.len);
    free(keys.data);
    free(v->tokens.data);
    free(v->types.data);
    free(v->merges.data);
    free(v->scores.data);
    *v = vocab_new(NULL);
    return im;
}

#endif
