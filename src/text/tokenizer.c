#include <compactattn/tokenizer.h>

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/arith.h"
#include "text/bpe.h"
#include "text/tokenizer_gguf.h"
#include "text/tokenizer_hf.h"
#include "text/utf8.h"

void ca_free(void *p)
{
    free(p);
}

/* A folder and a file whose name ends in .json are Hugging Face's, anything else is GGUF. */
ca_status ca_tokenizer_open(const char *path, ca_tokenizer **out)
{
    if (!path || !out) return ca_fail(CA_E_ARG, "ca_tokenizer_open: path and out must not be NULL");
    *out = NULL;
    struct stat info;
    const size_t n = strlen(path);
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return ca_tokenizer_from_folder(path, out);
    if (n >= 5 && strcmp(path + n - 5, ".json") == 0) return ca_tokenizer_from_json(path, out);
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

/* What one call works with. */
typedef struct coder {
    const ca_tokenizer *tok;
    ca_bpe bpe;
    ca_splitter splitter;
    unsigned wanted; /* flags of the added tokens that are looked for */
} coder;

/* Where a piece may end: before a word mark that no merge can join to what is left of it. */
static size_t word_end(const ca_tokenizer *tok, const char *text, size_t n)
{
    const ca_str mark = { CA_WORD_MARK, sizeof CA_WORD_MARK - 1 };
    if (!tok->cuts) return n;
    for (const char *at = text + 1; (at = memchr(at, mark.data[0], (size_t)(text + n - at))) != NULL; at++)
        if ((size_t)(text + n - at) >= mark.len && memcmp(at, mark.data, mark.len) == 0 &&
            !tok->no_cut_after[(unsigned char)at[-1]])
            return (size_t)(at - text);
    return n;
}

/* Text without added tokens in it, normalized. */
static ca_status encode_words(coder *c, const char *text, size_t n, bool first)
{
    char *owned;
    size_t from = 0, to = 0;
    ca_status st = ca_normalize(&c->tok->prefix, first, CA_MAX_TEXT, &text, &n, &owned);
    if (st == CA_OK) st = ca_splitter_start(&c->splitter, text, n);
    while (st == CA_OK && (st = ca_splitter_next(&c->splitter, &from, &to)) == CA_OK && from < to) {
        for (size_t end; st == CA_OK && from < to; from = end) {
            end = from + word_end(c->tok, text + from, to - from);
            st = ca_bpe_piece(&c->bpe, text + from, end - from);
        }
    }
    free(owned);
    return st;
}

static ca_status append(ca_bpe *bpe, uint32_t id)
{
    CA_TRY(ca_bpe_reserve(bpe, 1));
    bpe->ids[bpe->n_ids++] = id;
    return CA_OK;
}

/* Length of the white space (the Unicode property) at text[at], 0 when there is none. */
static size_t space_at(const char *text, size_t n, size_t at)
{
    static const char *const wide[] = { "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\xA8",
                                        "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80" };
    if (at >= n) return 0;
    if (text[at] == ' ' || (text[at] >= '\t' && text[at] <= '\r')) return 1;
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
        const size_t len = strlen(wide[i]);
        if (n - at >= len && memcmp(text + at, wide[i], len) == 0) return len;
    }
    const bool row = n - at >= 3 && memcmp(text + at, "\xE2\x80", 2) == 0; /* U+2000 to U+200A */
    return row && (unsigned char)text[at + 2] <= 0x8a ? 3 : 0;
}

/* Where the white space that ends at `to` starts, at `from` at least. */
static size_t strip_left(const char *text, size_t from, size_t to)
{
    for (size_t at = to; at > from;) {
        do at--;
        while (at > from && ((unsigned char)text[at] & 0xc0) == 0x80);
        if (space_at(text, to, at) != to - at) break;
        to = at;
    }
    return to;
}

static size_t strip_right(const char *text, size_t n, size_t from)
{
    for (size_t len; (len = space_at(text, n, from)) > 0;) from += len;
    return from;
}

typedef ca_status (*encode_fn)(coder *c, const char *text, size_t n, bool first);

/* Tokens of a set become ids, what is between them goes to plain. first: the text starts where all text does. */
static ca_status encode_added(coder *c, const ca_added *set, const char *text, size_t n, bool first, encode_fn plain)
{
    size_t done = 0, blank_end = 0; /* where the white space that was stripped last ends; it is read once */
    for (size_t i = 0, len; i < n && set->n > 0; i += len) {
        uint32_t id;
        const size_t found = ca_vocab_added_at(set, text + i, n - i, &id);
        len = found ? found : 1;
        /* A special token that is to be read as text hides what is inside it, as in Hugging Face's tokenizers. */
        if (!found || !(c->tok->flags[id] & c->wanted)) continue;
        const bool lstrip = c->tok->flags[id] & CA_TOKEN_LSTRIP, rstrip = c->tok->flags[id] & CA_TOKEN_RSTRIP;
        const size_t from = lstrip && done < i ? strip_left(text, done, i) : i;
        if (done < from) CA_TRY(plain(c, text + done, from - done, first && done == 0));
        CA_TRY(append(&c->bpe, id));
        if (rstrip && blank_end < i + found) blank_end = strip_right(text, n, i + found);
        done = rstrip ? blank_end : i + found;
    }
    return done < n ? plain(c, text + done, n - done, first && done == 0) : CA_OK;
}

/* Text between the tokens that are found before normalizing. */
static ca_status encode_text(coder *c, const char *text, size_t n, bool first)
{
    char *owned;
    ca_status st = ca_normalize(&c->tok->normalizer, first, CA_MAX_TEXT, &text, &n, &owned);
    if (st == CA_OK) st = encode_added(c, &c->tok->added[1], text, n, first, encode_words);
    free(owned);
    return st;
}

ca_status ca_tokenize(const ca_tokenizer *tok, const char *text, size_t n, unsigned flags, uint32_t **ids, size_t *n_ids)
{
    if (!tok) return ca_fail(CA_E_ARG, "ca_tokenize: there is no tokenizer; a model of random weights has none");
    if ((!text && n > 0) || !ids || !n_ids) return ca_fail(CA_E_ARG, "ca_tokenize: text, ids and n_ids are needed");
    if (flags & ~(unsigned)(CA_TOK_PARSE_SPECIAL | CA_TOK_ADD_BOS))
        return ca_fail(CA_E_ARG, "ca_tokenize: unknown flags %#x", flags);
    *ids = NULL;
    *n_ids = 0;
    if (!text) text = "";
    char *owned = NULL;
    ca_status st = CA_OK;
    coder *c = calloc(1, sizeof *c);
    if (!c) return ca_fail(CA_E_MEMORY, "tokenize: no memory for %zu bytes of text", n);
    c->tok = c->bpe.tok = tok;
    c->wanted = CA_TOKEN_ADDED | (flags & CA_TOK_PARSE_SPECIAL ? CA_TOKEN_SPECIAL : 0);
    CA_TRY_GOTO(repair(&text, &n, &owned), done);
    if (n > CA_MAX_TEXT) {
        st = ca_fail(CA_E_ARG, "tokenize: the text has %zu bytes, at most %zu can be read at once", n, CA_MAX_TEXT);
        goto done;
    }
    CA_TRY_GOTO(ca_splitter_open(&tok->pretok, &c->splitter), done);
    CA_TRY_GOTO(ca_bpe_reserve(&c->bpe, 1), done);
    if ((flags & CA_TOK_ADD_BOS) && tok->add_bos) CA_TRY_GOTO(append(&c->bpe, (uint32_t)tok->bos), done);
    CA_TRY_GOTO(encode_added(c, &tok->added[0], text, n, true, encode_text), done);
    *n_ids = c->bpe.n_ids;
    *ids = c->bpe.ids;
    c->bpe.ids = NULL;
done:
    ca_splitter_close(&c->splitter);
    ca_bpe_close(&c->bpe);
    free(c);
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
    const bool strips = tok->strip_space && !next.started && n > 0 && tok->text[id].data[0] == ' ';
    next.started = next.started || n > 0;
    for (size_t i = strips; i < n; i++)
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
