/* Unicode normalization form C of text of any length and content, in time O(n log n). */
#ifndef CA_TEXT_NFC_H
#define CA_TEXT_NFC_H

#include "base/error.h"

/* *out: malloc'ed, *n_out bytes. text is valid UTF-8. */
ca_status ca_nfc(const char *text, size_t n, char **out, size_t *n_out);
/* True when text is in NFC for sure: nothing at or above U+0300, where the first combining mark is. */
bool ca_nfc_surely(const char *text, size_t n);

#endif
