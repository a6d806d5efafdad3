#include "text/normalize.h"

#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "text/nfc.h"

bool ca_short_text_set(ca_short_text *out, const char *text, size_t n)
{
    if (n > sizeof out->data) return false;
    if (n) memcpy(out->data, text, n);
    out->len = n;
    return true;
}

bool ca_normalizer_add(ca_normalizer *normalizer, const ca_norm_step *step)
{
    if (normalizer->n == CA_NORM_STEPS) return false;
    normalizer->steps[normalizer->n++] = *step;
    return true;
}

size_t ca_replace(const char *text, size_t n, const ca_short_text *from, const ca_short_text *to, char *out)
{
    size_t len = 0;
    for (const char *end = text + n; text < end;) {
        const char *hit = memchr(text, from->data[0], (size_t)(end - text));
        const size_t plain = (size_t)((hit ? hit : end) - text);
        if (out) memcpy(out + len, text, plain);
        len += plain;
        text += plain;
        if (!hit) break;
        const bool found = (size_t)(end - text) >= from->len && memcmp(text, from->data, from->len) == 0;
        const size_t n_new = found ? to->len : 1;
        if (out) memcpy(out + len, found ? to->data : text, n_new);
        len += n_new;
        text += found ? from->len : 1;
    }
    return len;
}

static ca_status check_size(size_t n, size_t max)
{
    if (n <= max) return CA_OK;
    return ca_fail(CA_E_ARG, "tokenize: the text has %zu bytes when normalized, at most %zu can be read at once", n, max);
}

static ca_status make(size_t n, size_t max, char **out)
{
    CA_TRY(check_size(n, max));
    *out = malloc(n ? n : 1);
    return *out ? CA_OK : ca_fail(CA_E_MEMORY, "tokenize: no memory to normalize %zu bytes", n);
}

/* *out stays NULL when the step changes nothing. */
static ca_status apply(const ca_norm_step *step, bool first, size_t max, const char *text, size_t n, char **out, size_t *n_out)
{
    *out = NULL;
    switch (step->kind) {
    case CA_NORM_NFC: return ca_nfc_surely(text, n) ? CA_OK : ca_nfc(text, n, out, n_out);
    case CA_NORM_REPLACE:
        if (!memchr(text, step->from.data[0], n)) return CA_OK;
        *n_out = ca_replace(text, n, &step->from, &step->to, NULL);
        CA_TRY(make(*n_out, max, out));
        (void)ca_replace(text, n, &step->from, &step->to, *out);
        return CA_OK;
    case CA_NORM_PREPEND:
        if (step->first_only && !first) return CA_OK;
        if (step->unless_there && n >= step->to.len && memcmp(text, step->to.data, step->to.len) == 0) return CA_OK;
        CA_TRY(ca_add_size(n, step->to.len, n_out));
        CA_TRY(make(*n_out, max, out));
        memcpy(*out, step->to.data, step->to.len);
        memcpy(*out + step->to.len, text, n);
        return CA_OK;
    }
    return CA_OK;
}

ca_status ca_normalize(const ca_normalizer *normalizer, bool first, size_t max, const char **text, size_t *n, char **owned)
{
    *owned = NULL;
    for (size_t i = 0; i<normalizer->n && * n> 0; i++) {
        char *changed;
        size_t len = 0;
        ca_status st = apply(&normalizer->steps[i], first, max, *text, *n, &changed, &len);
        if (st == CA_OK && changed) st = check_size(len, max);
        if (st == CA_OK && !changed) continue;
        free(*owned);
        *owned = changed;
        if (st != CA_OK) return st;
        *text = changed;
        *n = len;
    }
    return CA_OK;
}
