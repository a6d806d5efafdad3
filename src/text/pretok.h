/* Pre-tokenizers: the pattern that cuts text into the pieces inside which BPE merges. One table; the name is GGUF's
 * tokenizer.ggml.pre. */
#ifndef CA_TEXT_PRETOK_H
#define CA_TEXT_PRETOK_H

#include "load/gguf.h"

typedef struct ca_pretok_spec {
    const char *name;
    const char *pattern; /* matches at every position of any text, so pieces touch and cover it */
    bool ignore_merges;  /* a piece that is a token as a whole is not built by merges */
    bool nfc;            /* text is normalized to NFC first */
    bool add_bos;        /* when the file does not say */
} ca_pretok_spec;

typedef struct ca_pretok { /* compiled; immutable, shared by threads */
    const ca_pretok_spec *spec;
    struct pcre2_real_code_8 *code;
} ca_pretok;

/* CA_E_UNSUPPORTED names file, pre-tokenizer and the known ones. */
ca_status ca_pretok_open(ca_str name, const char *file, ca_pretok *out);
void ca_pretok_close(ca_pretok *pretok);

/* Scratch of one thread for any number of texts. */
typedef struct ca_splitter {
    const ca_pretok *pretok;
    struct pcre2_real_match_data_8 *match;
    struct pcre2_real_match_context_8 *limits;
} ca_splitter;

ca_status ca_splitter_open(const ca_pretok *pretok, ca_splitter *out);
void ca_splitter_close(ca_splitter *splitter);
/* *end = where the piece that starts at byte start < n ends; start < *end <= n. text is valid UTF-8. */
ca_status ca_splitter_next(ca_splitter *splitter, const char *text, size_t n, size_t start, size_t *end);

#endif
