/* Bytes up to the first NUL as a tokenizer.json, and text after it: what opens turns any text into ids, and those into whole UTF-8. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_hf.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) abort();
}

static void show(const ca_tokenizer *tok, const uint32_t *ids, size_t n, bool special)
{
    ca_detokenizer state = { 0 };
    const size_t cap = ca_tokenizer_max_piece(tok) + 8;
    char *buf = malloc(cap);
    size_t len;
    if (!buf) return;
    for (size_t i = 0; i <= n; i++) {
        const ca_status st = i < n ? ca_detokenize(tok, &state, ids[i], special, buf, cap, &len)
                                   : ca_detokenize_end(&state, buf, cap, &len);
        check(st == CA_OK && len < cap && buf[len] == '\0' && ca_utf8_valid(buf, len));
    }
    free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size > 0 ? memchr(data, 0, size) : NULL;
    const size_t n_json = nul ? (size_t)(nul - data) : size;
    const char *text = nul ? (const char *)nul + 1 : "";
    const size_t n = nul ? size - n_json - 1 : 0;
    ca_tokenizer *tok;
    const ca_status opened = ca_tokenizer_from_json_memory(data, n_json, "fuzz", &tok);
    check((opened == CA_OK) == (tok != NULL) && (opened == CA_OK || *ca_last_error()));
    for (unsigned flags = 0; tok && flags < 4; flags++) {
        uint32_t *ids;
        size_t n_ids;
        const ca_status st = ca_tokenize(tok, text, n, flags, &ids, &n_ids);
        check(st == CA_OK || st == CA_E_UNSUPPORTED); /* a pattern may give up */
        if (st != CA_OK) continue;
        for (size_t i = 0; i < n_ids; i++) check(ids[i] < ca_tokenizer_size(tok));
        show(tok, ids, n_ids, flags & CA_TOK_PARSE_SPECIAL);
        ca_free(ids);
    }
    ca_tokenizer_close(tok);
    return 0;
}
