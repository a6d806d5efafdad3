#include "needle.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* True when a sentence ends right before byte i: punctuation, perhaps a closing quote, then a blank or the end. */
static bool ends_sentence(const char *text, size_t size, size_t i)
{
    if (i < 2 || (i < size && text[i] != ' ' && text[i] != '\n')) return false;
    const char last = text[i - 1] == '"' || text[i - 1] == '\'' ? text[i - 2] : text[i - 1];
    return last == '.' || last == '!' || last == '?';
}

size_t needle_boundary(const char *text, size_t size, size_t want)
{
    for (size_t distance = 0; distance <= size; distance++) {
        if (distance <= want && ends_sentence(text, size, want - distance)) return want - distance;
        if (want + distance <= size && ends_sentence(text, size, want + distance)) return want + distance;
    }
    return size;
}

char *needle_hide(const char *text, size_t size, double depth, const char *fact)
{
    const size_t at = needle_boundary(text, size, (size_t)(depth * (double)size)), cap = size + strlen(fact) + 2;
    char *out = malloc(cap);
    if (out) snprintf(out, cap, "%.*s %s%.*s", (int)at, text, fact, (int)(size - at), text + at);
    return out;
}
