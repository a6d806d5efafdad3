#include <compactattn/tokenizer.h>

#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "text/bpe.h"
#include "text/nfc.h"
#include "text/tokenizer_gguf.h"
#include "text/utf8.h"

/* Positions inside a piece are 32 bits wide. */
static const size_t max_text = INT32_MAX;

void ca_free(void *p)
{
    free(p);
}

ca_status ca_tokenizer_open(const char *path, ca_tokenizer **out)
{
    if (!path || !out) return ca_fail(CA_E_ARG, "ca_tokenizer_open: path and out must not be NULL");
    *out = NULL;
    ca_gguf *gguf;
    CA_TRY(ca_gguf_open(path, &gguf));
    const ca_status st = ca_tokenizer_from_gguf(gguf, out);
    ca_gguf_close(gguf);
    return st;
}

/* ---- text -> ids ---- */

/* Text with each maximal invalid part replaced by U+FFFD; *owned stays NULL when nothing is invalid. */
static ca_status repair(const char **text, size_t *n, char **owned)
{
    size_t n_bad = 0, n_good = 0;
    for (size_t i = 0, step; i < *n; i += step) {
        ca_utf8_kind kind;
        step = ca_utf8_step(*text + i, *n - i, &kind);
        if (kind == CA_UTF8_GOOD)
            n_good += step;
        else
            n_bad++;
    }
    if (n_bad == 0) return CA_OK;
    size_t size;
    CA_TRY(ca_mul_size(n_bad, CA_UTF8_REPLACEMENT_LEN, &size));
    CA_TRY(ca_add_size(size, n_good, &size));
    char *fixed = malloc(size);
    if (!fixed) return ca_fail(CA_E_MEMORY, "tokenize: no memory for %zu bytes of text", size);
    char *at = fixed;
    for (size_t i = 0, step; i < *n; i += step) {
        ca_utf8_kind kind;
        step = ca_utf8_step(*text + i, *n - i, &kind);
        const bool good = kind == CA_UTF8_GOOD;
        const size_t len = good ? step : (size_t)CA_UTF8_REPLACEMENT_LEN;
        memcpy(at, good ? *text + i : CA_UTF8_REPLACEMENT, len);
        at += len;
    }
    *text = *owned = fixed;
    *n = size;
    return CA_OK;
}

/* Text without special tokens in it. */
static ca_status encode_plain(ca_bpe *bpe, ca_splitter *splitter, const char *text, size_t n)
{
    char *normal = NULL;
    if (bpe->tok->pretok.spec->nfc && !ca_nfc_surely(text, n)) {
        CA_TRY(ca_nfc(text, n, &normal, &n));
        text = normal;
    }
    ca_status st = CA_OK;
    for (size_t at = 0, end; at < n; at = end) {
        CA_TRY_GOTO(ca_splitter_next(splitter, text, n, at, &end), done);
        CA_TRY_GOTO(ca_bpe_piece(bpe, text + at, end - at), done);
    }
done:
    free(normal);
    return st;
}

static ca_status append(ca_bpe *bpe, uint32_t id)
{
    CA_TRY(ca_bpe_reserve(bpe, 1));
    bpe->ids[bpe->n_ids++] = id;
    return CA_OK;
}

static ca_status encode(ca_bpe *bpe, ca_splitter *splitter, const char *text, size_t n, unsigned flags)
{
    const ca_tokenizer *tok = bpe->tok;
    const unsigned wanted = CA_TOKEN_ADDED | (flags & CA_TOK_PARSE_SPECIAL ? CA_TOKEN_SPECIAL : 0);
    if ((flags & CA_TOK_ADD_BOS) && tok->add_bos) CA_TRY(append(bpe, (uint32_t)tok->bos));
    size_t plain = 0;
    for (size_t i = 0, step; i < n; i += step) {
        uint32_t id;
        const size_t found = ca_vocab_added_at(tok, text + i, n - i, &id);
        step = found ? found : 1;
        /* A special token that is to be read as text hides what is inside it, as in Hugging Face's tokenizers. */
        if (!found || !(tok->flags[id] & wanted)) continue;
        CA_TRY(encode_plain(bpe, splitter, text + plain, i - plain));
        CA_TRY(append(bpe, id));
        plain = i + found;
    }
    return encode_plain(bpe, splitter, text + plain, n - plain);
}

ca_status ca_tokenize(const ca_tokenizer *tok, const char *text, size_t n, unsigned flags, uint32_t **ids, size_t *n_ids)
{
    if (!tok || (!text && n > 0) || !ids || !n_ids) return ca_fail(CA_E_ARG, "ca_tokenize: tok, text, ids and n_ids are needed");
    if (flags & ~(unsigned)(CA_TOK_PARSE_SPECIAL | CA_TOK_ADD_BOS))
        return ca_fail(CA_E_ARG, "ca_tokenize: unknown flags %#x", flags);
    *ids = NULL;
    *n_ids = 0;
    if (!text) text = "";
    ca_splitter splitter = { 0 };
    char *owned = NULL;
    ca_status st = CA_OK;
    ca_bpe *bpe = calloc(1, sizeof *bpe);
    if (!bpe) return ca_fail(CA_E_MEMORY, "tokenize: no memory for %zu bytes of text", n);
    bpe->tok = tok;
    CA_TRY_GOTO(repair(&text, &n, &owned), done);
    if (n > max_text) {
        st = ca_fail(CA_E_ARG, "tokenize: the text has %zu bytes, at most %zu can be read at once", n, max_text);
        goto done;
    }
    CA_TRY_GOTO(ca_splitter_open(&tok->pretok, &splitter), done);
    CA_TRY_GOTO(ca_bpe_reserve(bpe, 1), done);
    CA_TRY_GOTO(encode(bpe, &splitter, text, n, flags), done);
    *n_ids = bpe->n_ids;
    *ids = bpe->ids;
    bpe->ids = NULL;
done:
    ca_splitter_close(&splitter);
    ca_bpe_close(bpe);
    free(bpe);
    free(owned);
    return st;
}

/* ---- ids -> text ---- */

typedef struct sink {
    char *buf;
    size_t cap, len;
} sink;

/* One byte of the buffer stays free for the terminator. */
static bool put(sink *out, const char *text, size_t n)
{
    if (n >= out->cap - out->len) return false;
    memcpy(out->buf + out->len, text, n);
    out->len += n;
    return true;
}

/* Writes what the held bytes and one more make complete. */
static bool put_byte(ca_detokenizer *state, char byte, sink *out)
{
    state->held[state->n_held++] = byte;
    while (state->n_held > 0) {
        ca_utf8_kind kind;
        const size_t step = ca_utf8_step(state->held, state->n_held, &kind);
        if (kind == CA_UTF8_CUT) break;
        if (!(kind == CA_UTF8_GOOD ? put(out, state->held, step) : put(out, CA_UTF8_REPLACEMENT, CA_UTF8_REPLACEMENT_LEN)))
            return false;
        state->n_held -= (unsigned)step;
        memmove(state->held, state->held + step, state->n_held);
    }
    return true;
}

static ca_status too_small(size_t cap)
{
    return ca_fail(CA_E_WORKSPACE, "detokenize: a buffer of %zu bytes is too small; ca_tokenizer_max_piece() + 8 always suffices",
                   cap);
}

ca_status ca_detokenize(const ca_tokenizer *tok, ca_detokenizer *state, uint32_t id, bool show_special, char *buf, size_t cap,
                        size_t *len)
{
    if (!tok || !state || !buf || !len || state->n_held >= sizeof state->held)
        return ca_fail(CA_E_ARG, "ca_detokenize: tok, state, buf and len are needed, and a state that started as zeros");
    *len = 0;
    if (id >= tok->n_tokens) return ca_fail(CA_E_ARG, "detokenize: token %u, but there are %u tokens", id, tok->n_tokens);
    if (cap == 0) return too_small(cap);
    const bool hidden = (tok->flags[id] & CA_TOKEN_SPECIAL) && !show_special;
    const size_t n = hidden ? 0 : tok->text[id].len;
    ca_detokenizer next = *state;
    sink out = { buf, cap, 0 };
    for (size_t i = 0; i < n; i++)
        if (!put_byte(&next, tok->text[id].data[i], &out)) return too_small(cap);
    buf[out.len] = '\0';
    *len = out.len;
    *state = next;
    return CA_OK;
}

ca_status ca_detokenize_end(ca_detokenizer *state, char *buf, size_t cap, size_t *len)
{
    if (!state || !buf || !len) return ca_fail(CA_E_ARG, "ca_detokenize_end: state, buf and len are needed");
    *len = 0;
    sink out = { buf, cap, 0 };
    if (cap == 0 || (state->n_held > 0 && !put(&out, CA_UTF8_REPLACEMENT, CA_UTF8_REPLACEMENT_LEN))) return too_small(cap);
    buf[out.len] = '\0';
    *len = out.len;
    *state = (ca_detokenizer){ .n_held = 0 };
    return CA_OK;
}

/* ---- facts ---- */

size_t ca_tokenizer_max_piece(const ca_tokenizer *tok)
{
    return tok->max_piece;
}

uint32_t ca_tokenizer_size(const ca_tokenizer *tok)
{
    return tok->n_tokens;
}

int64_t ca_tokenizer_bos(const ca_tokenizer *tok)
{
    return tok->bos;
}

int64_t ca_tokenizer_eos(const ca_tokenizer *tok)
{
    return tok->eos;
}

bool ca_tokenizer_is_end(const ca_tokenizer *tok, uint32_t id)
{
    return id < tok->n_tokens && (tok->flags[id] & CA_TOKEN_END);
}
