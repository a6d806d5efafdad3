/* Text <-> tokens, and chat templates. */
#ifndef COMPACTATTN_TOKENIZER_H
#define COMPACTATTN_TOKENIZER_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ca_tokenizer ca_tokenizer; /* immutable after opening: share it between threads */

enum {
    CA_TOK_PARSE_SPECIAL = 1 << 0, /* "<|im_end|>" in the text becomes its token; without it such text is plain text */
    CA_TOK_ADD_BOS = 1 << 1        /* put BOS first when the model's file asks for one */
};

/* Reads the tokenizer of a GGUF file, of a Hugging Face folder (tokenizer.json and the files beside it), or a tokenizer.json alone.
 * The caller owns *out. */
CA_API ca_status ca_tokenizer_open(const char *path, ca_tokenizer **out);
CA_API void ca_tokenizer_close(ca_tokenizer *tok);

/* Tokens of UTF-8 text of n bytes (NUL bytes are text). Invalid UTF-8: each maximal invalid part reads as U+FFFD. *ids is
 * malloc'ed with *n_ids entries; the caller frees it with ca_free. Linear time up to a logarithm on any input. Thread-safe. */
CA_API ca_status ca_tokenize(const ca_tokenizer *tok, const char *text, size_t n, unsigned flags, uint32_t **ids, size_t *n_ids);

/* Streaming decoder: bytes of a UTF-8 character that is not complete yet are held back. Starts as zeros. Where the tokenizer puts a
 * space in front of all text, it is taken off again; set started when the tokens continue a text. */
typedef struct ca_detokenizer {
    char held[4];
    unsigned n_held;
    bool started;
} ca_detokenizer;

/* Appends the text of one token to the decoder and writes what is complete to buf (a terminated string). *len receives the bytes
 * written, without the terminator. CA_E_ARG for an id outside the vocabulary, CA_E_WORKSPACE when buf is too small (cap of
 * ca_tokenizer_max_piece() + 8 always suffices). Special tokens give no text unless show_special. */
CA_API ca_status ca_detokenize(const ca_tokenizer *tok, ca_detokenizer *state, uint32_t id, bool show_special, char *buf,
                               size_t cap, size_t *len);
/* What is left in the decoder at the end: an incomplete character becomes U+FFFD. */
CA_API ca_status ca_detokenize_end(ca_detokenizer *state, char *buf, size_t cap, size_t *len);
CA_API size_t ca_tokenizer_max_piece(const ca_tokenizer *tok);

CA_API uint32_t ca_tokenizer_size(const ca_tokenizer *tok);
/* -1 when the file names none. */
CA_API int64_t ca_tokenizer_bos(const ca_tokenizer *tok);
CA_API int64_t ca_tokenizer_eos(const ca_tokenizer *tok);
/* True when generation ends at id: EOS, or another end-of-turn token of the file. */
CA_API bool ca_tokenizer_is_end(const ca_tokenizer *tok, uint32_t id);

typedef struct ca_message {
    const char *role;    /* "system", "user" or "assistant" */
    const char *content; /* UTF-8 */
} ca_message;

/* Renders messages with the chat template of the file (recognised from its text; CA_E_UNSUPPORTED names the known ones when it
 * is not). *text is malloc'ed, free with ca_free. add_generation_prompt opens the assistant's turn. */
CA_API ca_status ca_chat_render(const ca_tokenizer *tok, const ca_message *messages, size_t n_messages, bool add_generation_prompt,
                                char **text, size_t *len);

typedef enum ca_thinking { CA_THINKING_DEFAULT, CA_THINKING_ON, CA_THINKING_OFF } ca_thinking;

/* The same with the template of a name (qwen2.5, chatml, qwen3, llama-3, llama-3.1, gemma-2, gemma-3; CA_E_ARG for another), whatever
 * the file has; NULL: the file's. thinking is CA_E_ARG for a template without it, unless it is left at the default. */
CA_API ca_status ca_chat_render_as(const ca_tokenizer *tok, const char *name, ca_thinking thinking, const ca_message *messages,
                                   size_t n_messages, bool add_generation_prompt, char **text, size_t *len);

/* Tokens of what ca_chat_render_as writes. The template's control tokens count; those that a content spells ("<|im_end|>") are plain
 * text, so that a document cannot end its own turn, and *spelled (may be NULL) says that there are some. *ids is malloc'ed with *n_ids
 * entries, free with ca_free. Errors as ca_chat_render_as and ca_tokenize. Thread-safe. */
CA_API ca_status ca_chat_tokenize(const ca_tokenizer *tok, const char *name, ca_thinking thinking, const ca_message *messages,
                                  size_t n_messages, bool add_generation_prompt, uint32_t **ids, size_t *n_ids, bool *spelled);

/* Frees what this library returned as malloc'ed. */
CA_API void ca_free(void *p);

#ifdef __cplusplus
}
#endif
#endif
