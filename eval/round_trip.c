#include "round_trip.h"

#include "cli/message.h"
#include "eval/text.h"

#include <stdlib.h>
#include <string.h>

static ca_status decode(const ca_tokenizer *tokenizer, const uint32_t *ids, size_t n_ids, struct text *text)
{
    const size_t cap = ca_tokenizer_max_piece(tokenizer) + 8;
    ca_detokenizer decoder = { 0 };
    char *piece = malloc(cap);
    size_t length = 0;
    ca_status status = piece ? CA_OK : CA_E_MEMORY;
    for (size_t i = 0; i <= n_ids && status == CA_OK; i++) {
        status = i < n_ids ? ca_detokenize(tokenizer, &decoder, ids[i], true, piece, cap, &length)
                           : ca_detokenize_end(&decoder, piece, cap, &length);
        if (status == CA_OK) text_add_bytes(text, piece, length);
    }
    free(piece);
    return status == CA_OK && text->failed ? CA_E_MEMORY : status;
}

static bool decodes_to(const ca_tokenizer *tokenizer, const char *text, size_t n, const uint32_t *ids, size_t n_ids)
{
    struct text got = { 0 };
    const bool done = decode(tokenizer, ids, n_ids, &got) == CA_OK;
    const size_t space = got.at && got.n == n + 1 && got.at[0] == ' ';
    const bool same = done && got.n == n + space && (n == 0 || (got.at && memcmp(got.at + space, text, n) == 0));
    text_free(&got);
    return same;
}

bool round_trips(const ca_tokenizer *tokenizer, const char *text, size_t n, const uint32_t *ids, size_t n_ids)
{
    if (decodes_to(tokenizer, text, n, ids, n_ids)) return true;
    return n_ids > 0 && (int64_t)ids[0] == ca_tokenizer_bos(tokenizer) && decodes_to(tokenizer, text, n, ids + 1, n_ids - 1);
}

void round_trip_tell(const char *path, const char *row)
{
    note("%s: %s: its tokens do not give its text back, so this model reads another prompt than the file has", path, row);
}
