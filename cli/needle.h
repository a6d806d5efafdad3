/* A text with one sentence hidden in it. */
#ifndef CLI_NEEDLE_H
#define CLI_NEEDLE_H

#include <stddef.h>

/* Bytes of text up to the sentence end that is nearest to want; size when the text has none. */
size_t needle_boundary(const char *text, size_t size, size_t want);

/* The text with fact put in, as a sentence of its own, at the sentence end nearest to depth (0..1 of the bytes). malloc'ed; NULL
 * when memory is short. */
char *needle_hide(const char *text, size_t size, double depth, const char *fact);

#endif
