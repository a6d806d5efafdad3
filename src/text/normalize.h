/* What is done to text before it is cut into pieces: a short list of steps, as a tokenizer's file gives them. */
#ifndef CA_TEXT_NORMALIZE_H
#define CA_TEXT_NORMALIZE_H

#include "load/gguf.h"

#define CA_WORD_MARK "\xE2\x96\x81" /* U+2581, which stands for a space in SentencePiece vocabularies */

enum { CA_NORM_STEPS = 8, CA_NORM_BYTES = 32 };

#define CA_MAX_TEXT ((size_t)INT32_MAX) /* of text to tokenize: positions inside a piece are 32 bits wide */

typedef struct ca_short_text {
    char data[CA_NORM_BYTES];
    size_t len;
} ca_short_text;

typedef enum ca_norm_kind { CA_NORM_NFC, CA_NORM_REPLACE, CA_NORM_PREPEND } ca_norm_kind;

typedef struct ca_norm_step {
    ca_norm_kind kind;
    ca_short_text from, to; /* REPLACE: from is not empty. PREPEND: to goes before text that is not empty */
    bool unless_there;      /* PREPEND: not to text that starts with it */
    bool first_only;        /* PREPEND: only at the start of all text, not after an added token */
} ca_norm_step;

typedef struct ca_normalizer {
    ca_norm_step steps[CA_NORM_STEPS];
    size_t n;
} ca_normalizer;

/* False when text is longer than a step can hold. */
bool ca_short_text_set(ca_short_text *out, const char *text, size_t n);
/* False when the list is full. */
bool ca_normalizer_add(ca_normalizer *normalizer, const ca_norm_step *step);

/* Length of text with every `from` replaced, leftmost first; writes it unless out is NULL. */
size_t ca_replace(const char *text, size_t n, const ca_short_text *from, const ca_short_text *to, char *out);

/* Points *text and *n to the normalized text. *owned: the memory to free, NULL when nothing was copied. text is valid UTF-8.
 * CA_E_ARG when a step makes more than max bytes: each makes up to 32 times what it gets, so that a few make any memory too small. */
ca_status ca_normalize(const ca_normalizer *normalizer, bool first, size_t max, const char **text, size_t *n, char **owned);

#endif
