/* A text with one sentence hidden in it. */
#ifndef CLI_NEEDLE_H
#define CLI_NEEDLE_H

#include "engine.h"

#include <stddef.h>

/* The sentence that is hidden, the question, how the answer starts (a small model needs that) and what a right one contains. */
struct needle {
    const char *fact, *question, *answer_start, *expected;
};
extern const struct needle needle_default;

/* Template, text with the hidden fact, question, first words of the answer, as tokens. *ids is malloc'ed. Returns an exit code. */
int needle_prompt(const struct engine *engine, const struct needle *needle, const char *text, size_t size, double depth,
                  uint32_t **ids, size_t *n_ids);

/* Bytes of text up to the sentence end that is nearest to want; size when the text has none. */
size_t needle_boundary(const char *text, size_t size, size_t want);

/* The text with fact put in, as a sentence of its own, at the sentence end nearest to depth (0..1 of the bytes). malloc'ed; NULL
 * when memory is short. */
char *needle_hide(const char *text, size_t size, double depth, const char *fact);

#endif
