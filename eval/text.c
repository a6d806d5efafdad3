#include "text.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Room for n more bytes and the terminator. */
static bool reserve(struct text *text, size_t n)
{
    if (text->failed || n > SIZE_MAX / 4 - text->n) return !(text->failed = true);
    if (text->n + n < text->cap) return true;
    const size_t cap = 2 * (text->n + n) + 64;
    char *grown = realloc(text->at, cap);
    if (!grown) return !(text->failed = true);
    text->at = grown;
    text->cap = cap;
    return true;
}

void text_add_bytes(struct text *text, const char *bytes, size_t n)
{
    if (!reserve(text, n)) return;
    if (n) memcpy(text->at + text->n, bytes, n);
    text->n += n;
    text->at[text->n] = '\0';
}

void text_add(struct text *text, const char *string)
{
    text_add_bytes(text, string, strlen(string));
}

void text_print(struct text *text, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    const int n = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (n >= 0 && reserve(text, (size_t)n + 1)) {
        vsnprintf(text->at + text->n, (size_t)n + 1, format, again);
        text->n += (size_t)n;
    }
    va_end(again);
}

void text_clear(struct text *text)
{
    text->n = 0;
    if (text->at) text->at[0] = '\0';
}

void text_free(struct text *text)
{
    free(text->at);
    *text = (struct text){ 0 };
}

void strings_add(struct strings *strings, const char *string)
{
    if (strings->failed) return;
    if (strings->n == strings->cap) {
        const size_t cap = 2 * strings->cap + 8;
        char **grown = cap > SIZE_MAX / 2 / sizeof *grown ? NULL : realloc(strings->items, cap * sizeof *grown);
        strings->failed = !grown;
        if (!grown) return;
        strings->items = grown;
        strings->cap = cap;
    }
    char *copy = string ? strdup(string) : NULL;
    strings->failed = !copy;
    if (copy) strings->items[strings->n++] = copy;
}

void strings_clear(struct strings *strings)
{
    for (size_t i = 0; i < strings->n; i++) free(strings->items[i]);
    strings->n = 0;
}

void strings_free(struct strings *strings)
{
    strings_clear(strings);
    free(strings->items);
    *strings = (struct strings){ 0 };
}

void text_add_replaced(struct text *text, const char *in, const char *old, const char *new_string)
{
    for (const char *found; (found = strstr(in, old)); in = found + strlen(old)) {
        text_add_bytes(text, in, (size_t)(found - in));
        text_add(text, new_string);
    }
    text_add(text, in);
}

void text_add_filled(struct text *text, const char *in, const struct text_field *fields)
{
    while (*in) {
        const size_t plain = strcspn(in, "{");
        text_add_bytes(text, in, plain);
        in += plain;
        if (!*in) break;
        const size_t length = strcspn(in + 1, "}");
        const struct text_field *field = fields;
        while (field->name && (strlen(field->name) != length || memcmp(field->name, in + 1, length) != 0)) field++;
        if (field->name) {
            text_add(text, field->value);
            in += length + 2;
        } else {
            text_add_bytes(text, in++, 1);
        }
    }
}

void text_add_joined(struct text *text, const char *separator, const char *const *items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (i) text_add(text, separator);
        text_add(text, items[i]);
    }
}

/* str.isprintable */
static bool is_printable(utf8proc_int32_t point)
{
    switch (utf8proc_category(point)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return false;
    case UTF8PROC_CATEGORY_ZS: return point == ' ';
    default: return true;
    }
}

static size_t read_point(const char *at, utf8proc_int32_t *point)
{
    const utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)at, (utf8proc_ssize_t)strnlen(at, 4), point);
    if (n > 0) return (size_t)n;
    *point = 0xFFFD;
    return 1;
}

static void add_repr(struct text *text, const char *string)
{
    const char quote = strchr(string, '\'') && !strchr(string, '"') ? '"' : '\'';
    text_add_bytes(text, &quote, 1);
    while (*string) {
        utf8proc_int32_t point;
        const size_t n = read_point(string, &point);
        if (point == quote || point == '\\')
            text_print(text, "\\%c", (char)point);
        else if (point == '\n' || point == '\r' || point == '\t')
            text_add(text, point == '\n' ? "\\n" : point == '\r' ? "\\r" : "\\t");
        else if (is_printable(point))
            text_add_bytes(text, string, n);
        else if (point < 0x100)
            text_print(text, "\\x%02x", (unsigned)point);
        else
            text_print(text, point < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)point);
        string += n;
    }
    text_add_bytes(text, &quote, 1);
}

void text_add_list(struct text *text, const struct strings *strings)
{
    text_add(text, "[");
    for (size_t i = 0; i < strings->n; i++) {
        if (i) text_add(text, ", ");
        add_repr(text, strings->items[i]);
    }
    text_add(text, "]");
}

/* str.isspace */
size_t text_space(const char *string)
{
    const unsigned char first = (unsigned char)*string;
    utf8proc_int32_t point;
    if (first < 0x80) return (first >= 9 && first <= 13) || (first >= 28 && first <= 32);
    const size_t n = read_point(string, &point);
    const bool space = point == 0x85 || point == 0xA0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200A) ||
                       point == 0x2028 || point == 0x2029 || point == 0x202F || point == 0x205F || point == 0x3000;
    return space ? n : 0;
}

/* The next word at or after at and before end; false when there is none. */
static bool next_word(const char **at, const char *end, size_t *length)
{
    size_t n;
    while (*at < end && (n = text_space(*at)) > 0) *at += n;
    const char *last = *at;
    while (last < end && text_space(last) == 0) last++;
    *length = (size_t)(last - *at);
    return *length > 0;
}

void text_add_words(struct text *text, const char *in, size_t n, size_t left_out)
{
    size_t words = 0, length;
    for (const char *at = in; next_word(&at, in + n, &length); at += length) words++;
    const char *at = in;
    for (size_t i = 0; i + left_out < words && next_word(&at, in + n, &length); i++, at += length) {
        if (i) text_add(text, " ");
        text_add_bytes(text, at, length);
    }
}

void text_add_collapsed(struct text *text, const char *in)
{
    const char *end = in + strlen(in), *at = in;
    while (at < end) {
        const char *word = at;
        while (at < end && text_space(at) == 0) at++;
        text_add_bytes(text, word, (size_t)(at - word));
        if (at == end) break;
        for (size_t n; at < end && (n = text_space(at)) > 0;) at += n;
        text_add(text, " ");
    }
}

size_t text_points(const char *string, size_t n)
{
    size_t points = 0;
    for (size_t i = 0; i < n; i++) points += ((unsigned char)string[i] & 0xC0) != 0x80;
    return points;
}
