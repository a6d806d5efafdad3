/* Text as Python's str methods treat it: growing buffers, placeholders, Unicode white space, reprs. UTF-8 throughout. */
#ifndef EVAL_TEXT_H
#define EVAL_TEXT_H

#include <compactattn/base.h>
#include <stdbool.h>
#include <stddef.h>

/* Starts as zeros. at is NULL or terminated. Once memory runs out, it stays failed and is not changed any more. */
struct text {
    char *at;
    size_t n, cap;
    bool failed;
};

void text_add(struct text *text, const char *string);
void text_add_bytes(struct text *text, const char *bytes, size_t n);
void text_print(struct text *text, const char *format, ...) CA_PRINTF(2, 3);
/* Empties it, and keeps the memory. */
void text_clear(struct text *text);
void text_free(struct text *text);

/* Owned strings. Starts as zeros. */
struct strings {
    char **items;
    size_t n, cap;
    bool failed;
};

void strings_add(struct strings *strings, const char *string); /* NULL, of a text that failed, fails */
void strings_clear(struct strings *strings);
void strings_free(struct strings *strings);

/* in with every old replaced by new, left to right. */
void text_add_replaced(struct text *text, const char *in, const char *old, const char *new_string);

/* in with the placeholders {name} replaced; other braces are text. The last field's name is NULL. */
struct text_field {
    const char *name, *value;
};
void text_add_filled(struct text *text, const char *in, const struct text_field *fields);

/* str.join. */
void text_add_joined(struct text *text, const char *separator, const char *const *items, size_t n);
/* repr of a list of str: ['a', "b's"] */
void text_add_list(struct text *text, const struct strings *strings);
/* ' '.join(in.split()[:-left_out]): the words of n bytes without the last ones. */
void text_add_words(struct text *text, const char *in, size_t n, size_t left_out);
/* re.sub(r'\s+', ' ', in) */
void text_add_collapsed(struct text *text, const char *in);

/* Bytes of the white space character at string, 0 when it is none. */
size_t text_space(const char *string);
/* Code points of n bytes. */
size_t text_points(const char *string, size_t n);

#endif
