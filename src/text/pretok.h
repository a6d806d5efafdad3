/* Pre-tokenizers: stages that cut text into the pieces inside which merging happens. Each stage cuts the pieces of the one before,
 * as text of their own. */
#ifndef CA_TEXT_PRETOK_H
#define CA_TEXT_PRETOK_H

#include "load/gguf.h"

enum { CA_PRETOK_STAGES = 8 };

/* What happens to the matches of a stage's pattern, by their names in tokenizer.json. */
typedef enum ca_behavior {
    CA_ISOLATED,             /* each is a piece */
    CA_REMOVED,              /* dropped */
    CA_CONTIGUOUS,           /* matches that touch are one piece */
    CA_MERGED_WITH_PREVIOUS, /* joined to the text before */
    CA_MERGED_WITH_NEXT      /* joined to the text after */
} ca_behavior;

typedef struct ca_pretok_stage { /* compiled; immutable, shared by threads */
    struct pcre2_real_code_8 *code;
    ca_behavior behavior;
    bool invert; /* matches and the text between them change roles */
} ca_pretok_stage;

typedef struct ca_pretok {
    ca_pretok_stage stages[CA_PRETOK_STAGES];
    size_t n;
} ca_pretok;

/* The pre-tokenizers that GGUF knows by name (tokenizer.ggml.pre), and what else such a tokenizer does. */
typedef struct ca_pretok_spec {
    const char *name;
    const char *pattern; /* pcre2 syntax; its matches touch and cover any text */
    bool ignore_merges;  /* a piece that is a token as a whole is not built by merges */
    bool nfc;            /* text is normalized to NFC first */
    bool add_bos;        /* when the file does not say */
} ca_pretok_spec;

/* CA_E_UNSUPPORTED names file, pre-tokenizer and the known ones. */
ca_status ca_pretok_find(ca_str name, const char *file, const ca_pretok_spec **out);

/* Each adds a stage; where is for messages ("file: pre_tokenizer"). regex: Oniguruma syntax, as in tokenizer.json; what pcre2 would
 * read in another way is refused. */
ca_status ca_pretok_add_spec(ca_pretok *pretok, const ca_pretok_spec *spec, const char *where);
ca_status ca_pretok_add_regex(ca_pretok *pretok, ca_str regex, ca_behavior behavior, bool invert, const char *where);
ca_status ca_pretok_add_literal(ca_pretok *pretok, ca_str text, ca_behavior behavior, bool invert, const char *where);
/* Numbers: every character on its own, or runs of them. */
ca_status ca_pretok_add_digits(ca_pretok *pretok, bool each, const char *where);
/* The words of GPT-2. */
ca_status ca_pretok_add_words(ca_pretok *pretok, const char *where);
void ca_pretok_close(ca_pretok *pretok);

/* Where one stage is in the piece that the stage before handed it. */
typedef struct ca_cursor {
    size_t base, pos, limit;     /* the piece is [base, limit), what is left of it starts at pos */
    size_t match_from, match_to; /* first match at or after pos; both are limit when there is none */
} ca_cursor;

/* Scratch of one thread for any number of texts. */
typedef struct ca_splitter {
    const ca_pretok *pretok;
    struct pcre2_real_match_data_8 *match;
    struct pcre2_real_match_context_8 *limits;
    const char *text;
    ca_cursor at[CA_PRETOK_STAGES];
    size_t rest; /* without stages: the text is one piece */
} ca_splitter;

ca_status ca_splitter_open(const ca_pretok *pretok, ca_splitter *out);
void ca_splitter_close(ca_splitter *splitter);
/* text is valid UTF-8 and stays until the last piece is taken. */
ca_status ca_splitter_start(ca_splitter *splitter, const char *text, size_t n);
/* The next piece, [*from, *to); both are the same after the last one. */
ca_status ca_splitter_next(ca_splitter *splitter, size_t *from, size_t *to);

#endif
