/* RULER's vocabulary (spec: evaluation, B6) out of the word lists in data/ruler. */
#ifndef EVAL_WORDS_H
#define EVAL_WORDS_H

#include "eval/text.h"

#include <stdint.h>

struct words;

/* NULL after a message that names the list. seed: of the common words' order. */
struct words *words_open(uint32_t seed);
void words_close(struct words *words);

/* All "adjective-noun", in order of code points. */
uint32_t words_pairs(const struct words *words);
void words_add_pair(const struct words *words, uint32_t index, struct text *out);

/* All nouns, adjectives and verbs, each once, shuffled. */
const struct strings *words_common(const struct words *words);

#endif
