/* One strict step through UTF-8: the well-formed byte sequences of the Unicode standard (table 3-7), nothing else. */
#ifndef CA_TEXT_UTF8_H
#define CA_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>

#define CA_UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */
enum { CA_UTF8_REPLACEMENT_LEN = 3 };

typedef enum ca_utf8_kind {
    CA_UTF8_GOOD, /* a whole character */
    CA_UTF8_BAD,  /* a maximal part that no further byte can complete */
    CA_UTF8_CUT   /* the start of a character; the bytes end inside it */
} ca_utf8_kind;

/* Length (1..4) and kind of what starts at s; n >= 1 bytes are there. */
static inline size_t ca_utf8_step(const char *s, size_t n, ca_utf8_kind *kind)
{
    const unsigned char *p = (const unsigned char *)s;
    const unsigned lead = p[0];
    *kind = CA_UTF8_GOOD;
    if (lead < 0x80) return 1;
    *kind = CA_UTF8_BAD;
    if (lead < 0xc2 || lead > 0xf4) return 1;
    const size_t want = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    /* The second byte also rules out overlong forms, surrogates and code points above 10FFFF. */
    unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    unsigned high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    for (size_t i = 1; i < want; i++) {
        if (i == n) {
            *kind = CA_UTF8_CUT;
            return n;
        }
        if (p[i] < low || p[i] > high) return i;
        low = 0x80;
        high = 0xbf;
    }
    *kind = CA_UTF8_GOOD;
    return want;
}

static inline bool ca_utf8_valid(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        ca_utf8_kind kind;
        i += ca_utf8_step(s + i, n - i, &kind);
        if (kind != CA_UTF8_GOOD) return false;
    }
    return true;
}

#endif
