#include "text/nfc.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/arith.h"

bool ca_nfc_surely(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] >= 0xcc) return false; /* lead byte of U+0300 */
    return true;
}

static unsigned combining_class(utf8proc_int32_t c)
{
    return (unsigned)utf8proc_get_property(c)->combining_class;
}

/* Stable sort of a run of combining marks by class: counting, in one pass over the run. */
static void sort_marks(utf8proc_int32_t *marks, size_t n, utf8proc_int32_t *spare)
{
    size_t place[257] = { 0 };
    for (size_t i = 0; i < n; i++) place[(combining_class(marks[i]) & 255) + 1]++;
    for (size_t c = 0; c < 256; c++) place[c + 1] += place[c];
    for (size_t i = 0; i < n; i++) spare[place[combining_class(marks[i]) & 255]++] = marks[i];
    memcpy(marks, spare, n * sizeof *marks);
}

/* utf8proc_decompose orders marks by neighbor swaps, which is quadratic on a long run of marks: only single characters are
 * decomposed by it, and the runs are sorted here. */
ca_status ca_nfc(const char *text, size_t n, char **out, size_t *n_out)
{
    ca_status st = CA_OK;
    /* A canonical decomposition has at most 3 characters per 2 bytes of UTF-8; room for one more and the final NUL. */
    size_t cap, bytes;
    CA_TRY(ca_add_size(n, n / 2, &cap));
    CA_TRY(ca_add_size(cap, 8, &cap));
    CA_TRY(ca_mul_size(cap, sizeof(utf8proc_int32_t), &bytes));
    utf8proc_int32_t *chars = malloc(bytes);
    utf8proc_int32_t *spare = malloc(bytes);
    if (!chars || !spare) {
        st = ca_fail(CA_E_MEMORY, "tokenize: no memory to normalize %zu bytes", n);
        goto fail;
    }
    size_t count = 0;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n - i), &c);
        const utf8proc_ssize_t room = (utf8proc_ssize_t)(cap - 1 - count);
        const utf8proc_ssize_t wrote = step > 0 ? utf8proc_decompose_char(c, chars + count, room, UTF8PROC_DECOMPOSE, NULL) : step;
        if (wrote < 0 || wrote > room) {
            st = ca_fail(CA_E_ARG, "tokenize: cannot normalize the text at byte %zu", i);
            goto fail;
        }
        i += (size_t)step;
        count += (size_t)wrote;
    }
    for (size_t from = 0; from < count;) {
        size_t to = from;
        bool sorted = true;
        for (unsigned last = 0, now; to < count && (now = combining_class(chars[to])) != 0; last = now, to++)
            sorted = sorted && last <= now;
        if (!sorted) sort_marks(chars + from, to - from, spare);
        from = to + 1;
    }
    const utf8proc_ssize_t len = utf8proc_reencode(chars, (utf8proc_ssize_t)count, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (len < 0) {
        st = ca_fail(CA_E_ARG, "tokenize: cannot normalize the text: %s", utf8proc_errmsg(len));
        goto fail;
    }
    *out = (char *)chars;
    *n_out = (size_t)len;
    chars = NULL;
fail:
    free(chars);
    free(spare);
    return st;
}
