/* The first byte says what the rest is: bits 0 and 1 choose the pre-tokenizer, bit 2 says whether special tokens in text count, and
 * the bits above choose among text, ids, chat messages, a chat template and a vocabulary, and SentencePiece text and vocabulary. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_gguf.h"
#include "text/utf8.h"

#include "../unit/vocab_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_PRES = 4, QWEN2 = 3, N_MESSAGES = 3 };
static const char *const pres[N_PRES] = { "smollm", "gpt-2", "llama-bpe", "qwen2" };
static const char chatml[] = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
                             "{{ '<|im_start|>system\nBe good.<|im_end|>\n' }}{% endif %}"
                             "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
                             "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

static void check(bool ok)
{
    if (!ok) abort();
}

static ca_status open_vocab(vocab *v, ca_tokenizer **out)
{
    bytes image = vocab_image(v);
    ca_gguf *gguf;
    *out = NULL;
    ca_status st = ca_gguf_open_memory(image.data, image.len, "fuzz", &gguf);
    if (st == CA_OK) {
        st = ca_tokenizer_from_gguf(gguf, out);
        ca_gguf_close(gguf);
    }
    free(image.data);
    check((st == CA_OK) == (*out != NULL) && (st == CA_OK || *ca_last_error()));
    return st;
}

/* All bytes, merges (inside characters too), special and user-defined tokens. */
static ca_tokenizer *good_vocab(const char *pre, const char *template)
{
    static const char *const merges[] = {
        "a a", "aa aa", "a b", "aa b", "b c", "\xc4\xa0 a", "\xc3\x83 \xc2\xa9", "\xc4\xa0 \xc4\xa0", "e r", "1 2"
    };
    vocab v = vocab_new(pre);
    v.chat_template = template;
    vocab_bytes(&v);
    for (size_t i = 0; i < sizeof merges / sizeof merges[0]; i++) {
        char name[16];
        const size_t left = (size_t)(strchr(merges[i], ' ') - merges[i]);
        memcpy(name, merges[i], left);
        memcpy(name + left, merges[i] + left + 1, strlen(merges[i]) - left);
        vocab_token(&v, name, TOKEN_NORMAL);
        vocab_merge(&v, merges[i]);
    }
    v.bos = vocab_token(&v, "<s>", TOKEN_CONTROL);
    v.eos = vocab_token(&v, "<|im_end|>", TOKEN_CONTROL);
    (void)vocab_token(&v, "<|im_start|>", TOKEN_CONTROL);
    (void)vocab_token(&v, "<|im_start|>user", TOKEN_CONTROL);
    (void)vocab_token(&v, "\xc3\xa9!", TOKEN_USER_DEFINED);
    (void)vocab_token(&v, "  ", TOKEN_USER_DEFINED);
    ca_tokenizer *tok;
    check(open_vocab(&v, &tok) == CA_OK);
    return tok;
}

/* All bytes, a few pieces with scores, the word mark, special and user-defined tokens. */
static ca_tokenizer *scored_vocab(void)
{
    static const char *const names[] = {
        "\xE2\x96\x81", "a",         "b",  "c",   "ab", "bc", "abc", "\342\226\201a", "\xE2\x96\x81\xE2\x96\x81",
        "\xc3\xa9",     "\303\251a", "aa", "aaaa"
    };
    vocab v = vocab_new("default");
    v.model = "llama";
    (void)vocab_token(&v, "<unk>", TOKEN_UNKNOWN);
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        (void)snprintf(name, sizeof name, "<0x%02X>", b);
        (void)vocab_token(&v, name, TOKEN_BYTE);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) (void)vocab_token(&v, names[i], TOKEN_NORMAL);
    (void)vocab_token(&v, "</s>", TOKEN_CONTROL);
    (void)vocab_token(&v, "<u>", TOKEN_USER_DEFINED);
    for (uint64_t i = 0; i < v.n_tokens; i++) vocab_score(&v, -(float)(i % 5));
    ca_tokenizer *tok;
    check(open_vocab(&v, &tok) == CA_OK);
    return tok;
}

/* Streams ids; everything that comes out is whole UTF-8. */
static bytes decode(const ca_tokenizer *tok, const uint32_t *ids, size_t n)
{
    bytes text = { 0 };
    ca_detokenizer state = { 0 };
    const size_t cap = ca_tokenizer_max_piece(tok) + 8;
    char *buf = malloc(cap);
    size_t len;
    check(buf != NULL);
    for (size_t i = 0; i <= n; i++) {
        check((i < n ? ca_detokenize(tok, &state, ids[i], true, buf, cap, &len) : ca_detokenize_end(&state, buf, cap, &len)) ==
              CA_OK);
        check(len < cap && buf[len] == '\0' && ca_utf8_valid(buf, len));
        bytes_add(&text, buf, len);
    }
    free(buf);
    return text;
}

/* What comes back is the text with U+FFFD for each invalid part; exact says that nothing else may change. */
static void fuzz_text(const ca_tokenizer *tok, const char *text, size_t n, unsigned flags, bool exact)
{
    uint32_t *ids;
    size_t n_ids;
    check(ca_tokenize(tok, text, n, flags, &ids, &n_ids) == CA_OK);
    bytes got = decode(tok, ids, n_ids);
    size_t at = 0;
    for (size_t i = 0, step; exact && i < n; i += step) {
        ca_utf8_kind kind;
        step = ca_utf8_step(text + i, n - i, &kind);
        const char *want = kind == CA_UTF8_GOOD ? text + i : CA_UTF8_REPLACEMENT;
        const size_t len = kind == CA_UTF8_GOOD ? step : (size_t)CA_UTF8_REPLACEMENT_LEN;
        check(got.len - at >= len && memcmp(got.data + at, want, len) == 0);
        at += len;
    }
    check(!exact || at == got.len);
    free(got.data);
    ca_free(ids);
}

static void fuzz_ids(const ca_tokenizer *tok, const uint8_t *data, size_t n)
{
    uint32_t *ids = calloc(n + 1, sizeof *ids);
    check(ids != NULL);
    for (size_t i = 0; i + 1 < n; i += 2) ids[i / 2] = (data[i] | (uint32_t)data[i + 1] << 8) % ca_tokenizer_size(tok);
    free(decode(tok, ids, n / 2).data);
    free(ids);
}

/* NUL ends a message; each content must be found in the result as it is. */
static void fuzz_messages(const ca_tokenizer *tok, const char *text, size_t n, bool known)
{
    static const char *const roles[] = { "system", "user", "assistant", "tool" };
    ca_message messages[N_MESSAGES];
    char *copy = malloc(n + 1);
    size_t count = 0;
    check(copy != NULL);
    if (n) memcpy(copy, text, n);
    copy[n] = '\0';
    for (size_t at = 0; at < n && count < N_MESSAGES; at += strlen(copy + at) + 1)
        messages[count++] = (ca_message){ roles[(unsigned char)copy[at] % (known ? 3 : 4)], copy + at };
    char *out;
    size_t len;
    static const char *const names[] = {
        NULL, "chatml", "qwen2.5", "qwen3", "llama-3", "llama-3.1", "gemma-2", "gemma-3", "other"
    };
    const char *name = known ? NULL : names[n % (sizeof names / sizeof names[0])];
    const ca_status st = ca_chat_render_as(tok, name, CA_THINKING_DEFAULT, messages, count, true, &out, &len);
    check(!known || st == (count ? CA_OK : CA_E_ARG));
    if (st == CA_OK) {
        const char *at = out;
        check(strlen(out) == len);
        for (size_t i = 0; i < count && known; i++) {
            at = strstr(at, messages[i].content);
            check(at != NULL);
            at += strlen(messages[i].content);
        }
        ca_free(out);
    }
    free(copy);
}

static bool holds(const char *text, size_t n, const char *what)
{
    const size_t len = strlen(what);
    for (size_t i = 0; i + len <= n; i++)
        if (memcmp(text + i, what, len) == 0) return true;
    return false;
}

/* A word mark comes back as a space, and after a token that is found in text so does the space in front of what follows. */
static void fuzz_sentence(const ca_tokenizer *tok, const char *text, size_t n, unsigned flags)
{
    fuzz_text(tok, text, n, flags,
              !holds(text, n, "\xE2\x96\x81") && !holds(text, n, "</s>") && !holds(text, n, "<u>") && !holds(text, n, "<unk>"));
}

/* Lines: "=" and a merge, or a digit (the type) and a token's name; after an empty line, text. */
static void fuzz_vocab(const char *pre, bool scored, const char *text, size_t n, unsigned flags)
{
    vocab v = vocab_new(pre);
    if (scored) v.model = "llama";
    const char *end = text + n;
    while (text < end && *text != '\n') {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const char *stop = newline ? newline : end;
        if (*text == '=') {
            bytes_str(&v.merges, text + 1, (size_t)(stop - text) - 1);
            v.n_merges++;
        } else {
            vocab_token_n(&v, text + 1, (size_t)(stop - text) - 1, (uint32_t)(*text - '0') % 8);
            vocab_score(&v, (float)((stop - text) % 3));
        }
        text = newline ? newline + 1 : end;
    }
    v.bos = (int64_t)(v.n_tokens / 2);
    ca_tokenizer *tok;
    if (open_vocab(&v, &tok) == CA_OK) fuzz_text(tok, text, (size_t)(end - text), flags | CA_TOK_ADD_BOS, false);
    ca_tokenizer_close(tok);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static ca_tokenizer *good[N_PRES], *scored;
    if (size == 0) return 0;
    const unsigned pre = data[0] % N_PRES;
    const unsigned flags = data[0] & 4 ? CA_TOK_PARSE_SPECIAL : 0;
    const char *text = (const char *)data + 1;
    if (!good[pre]) good[pre] = good_vocab(pres[pre], chatml);
    if (!scored) scored = scored_vocab();
    switch (data[0] >> 3) {
    case 0: fuzz_text(good[pre], text, size - 1, flags, pre != QWEN2); break;
    case 1: fuzz_ids(good[pre], data + 1, size - 1); break;
    case 2: fuzz_messages(good[pre], text, size - 1, true); break;
    case 3: fuzz_vocab(pres[pre], false, text, size - 1, flags); break;
    case 4: {
        char *template = calloc(size, 1);
        check(template != NULL);
        memcpy(template, text, size - 1);
        ca_tokenizer *tok = good_vocab(pres[pre], template);
        fuzz_messages(tok, "one\0two\0", 9, false); /* the template of the file */
        fuzz_messages(tok, text, size - 1, false);
        ca_tokenizer_close(tok);
        free(template);
        break;
    }
    case 5: fuzz_sentence(scored, text, size - 1, flags); break;
    case 6: fuzz_vocab(NULL, true, text, size - 1, flags); break;
    default: break;
    }
    return 0;
}
