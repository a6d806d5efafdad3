#include "text/tokenizer_gguf.h"

#include <stdlib.h>
#include <string.h>

#include "text/vocab.h"

/* tokenizer.ggml.token_type */
enum { TYPE_NONE = 0, TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_LAST = 6 };

#define KEY "tokenizer.ggml."

typedef struct loader {
    const ca_gguf *gguf;
    ca_vocab_build build;
    const ca_pretok_spec *spec; /* NULL: SentencePiece */
} loader;

/* Without spec: SentencePiece, which writes spaces as word marks and may put one first. */
static ca_status load_kind(loader *ld)
{
    ca_str model, pre;
    CA_TRY(ca_gguf_str(ld->gguf, KEY "model", &model));
    if (model.len == 5 && memcmp(model.data, "llama", 5) == 0) return CA_OK;
    if (model.len != 4 || memcmp(model.data, "gpt2", 4) != 0)
        return ca_fail(CA_E_UNSUPPORTED, "%s: " KEY "model: tokenizer '%s' is not supported; known: gpt2, llama", ld->build.file,
                       CA_SHOW(model));
    CA_TRY(ca_gguf_str(ld->gguf, KEY "pre", &pre));
    return ca_pretok_find(pre, ld->build.file, &ld->spec);
}

static ca_status load_names(loader *ld)
{
    const ca_str *names;
    size_t n;
    CA_TRY(ca_gguf_strs(ld->gguf, KEY "tokens", &names, &n));
    CA_TRY(ca_vocab_begin(&ld->build, n));
    memcpy(ld->build.names, names, n * sizeof *names);
    return CA_OK;
}

static ca_status load_flags(loader *ld)
{
    ca_tokenizer *tok = ld->build.tok;
    const int32_t *types = NULL;
    size_t n = tok->n_tokens;
    if (ca_gguf_has(ld->gguf, KEY "token_type")) CA_TRY(ca_gguf_i32s(ld->gguf, KEY "token_type", &types, &n));
    if (n != tok->n_tokens)
        return ca_fail(CA_E_FORMAT, "%s: " KEY "token_type has %zu entries for %u tokens", ld->build.file, n, tok->n_tokens);
    for (uint32_t id = 0; id < n; id++) {
        const int32_t type = types ? types[id] : TYPE_NORMAL;
        if (type < 0 || type > TYPE_LAST)
            return ca_fail(CA_E_FORMAT, "%s: " KEY "token_type[%u] is %d, 0 to %d are possible", ld->build.file, id, type,
                           TYPE_LAST);
        unsigned flags = CA_TOKEN_NAMED;
        if (type == TYPE_CONTROL || type == TYPE_UNKNOWN)
            flags |= CA_TOKEN_SPECIAL;
        else if (type == TYPE_USER_DEFINED)
            flags |= CA_TOKEN_ADDED;
        else if (ld->spec || type == TYPE_NORMAL || type == TYPE_NONE)
            flags |= CA_TOKEN_ORDINARY;
        tok->flags[id] = (uint8_t)flags;
        if (!ld->spec && type == TYPE_UNKNOWN && tok->unknown < 0) tok->unknown = id;
    }
    return ca_vocab_index(&ld->build);
}

static ca_status load_words(loader *ld)
{
    ca_tokenizer *tok = ld->build.tok;
    tok->ignore_merges = ld->spec->ignore_merges;
    if (ld->spec->nfc) (void)ca_normalizer_add(&tok->normalizer, &(ca_norm_step){ .kind = CA_NORM_NFC });
    CA_TRY(ca_pretok_add_spec(&tok->pretok, ld->spec, ld->spec->name));
    return ca_vocab_texts(&ld->build, &(ca_decoder){ .byte_level = true });
}

static ca_status load_sentences(loader *ld)
{
    static const ca_short_text space = { " ", 1 }, mark = { CA_WORD_MARK, sizeof CA_WORD_MARK - 1 };
    ca_tokenizer *tok = ld->build.tok;
    bool prefix;
    CA_TRY(ca_gguf_bool_or(ld->gguf, KEY "add_space_prefix", true, &prefix));
    if (prefix) (void)ca_normalizer_add(&tok->normalizer, &(ca_norm_step){ .kind = CA_NORM_PREPEND, .to = mark });
    (void)ca_normalizer_add(&tok->normalizer, &(ca_norm_step){ .kind = CA_NORM_REPLACE, .from = space, .to = mark });
    tok->strip_space = prefix;
    tok->chars = tok->fuse_unknown = true;
    return ca_vocab_texts(&ld->build, &(ca_decoder){ .byte_fallback = true, .from = mark, .to = space });
}

static ca_status load_texts(loader *ld)
{
    return ld->spec ? load_words(ld) : load_sentences(ld);
}

/* One entry "left right" of the merges. */
static ca_status load_merge(loader *ld, size_t rank, ca_str line)
{
    const char *space = line.len < 3 ? NULL : memchr(line.data + 1, ' ', line.len - 2);
    if (!space)
        return ca_fail(CA_E_FORMAT, "%s: " KEY "merges[%zu] '%s' is not two tokens with a space between", ld->build.file, rank,
                       CA_SHOW(line));
    const size_t n_left = (size_t)(space - line.data);
    return ca_vocab_add_merge(&ld->build, rank, (ca_str){ line.data, n_left }, (ca_str){ space + 1, line.len - n_left - 1 });
}

static ca_status load_merges(loader *ld)
{
    size_t n;
    if (!ld->spec) {
        const float *scores;
        CA_TRY(ca_gguf_f32s(ld->gguf, KEY "scores", &scores, &n));
        if (n != ld->build.tok->n_tokens)
            return ca_fail(CA_E_FORMAT, "%s: " KEY "scores has %zu entries for %u tokens", ld->build.file, n,
                           ld->build.tok->n_tokens);
        return ca_vocab_merges_by_score(&ld->build, scores);
    }
    const ca_str *lines;
    CA_TRY(ca_gguf_strs(ld->gguf, KEY "merges", &lines, &n));
    CA_TRY(ca_vocab_merges(&ld->build, n));
    for (size_t rank = 0; rank < n; rank++) CA_TRY(load_merge(ld, rank, lines[rank]));
    return CA_OK;
}

static ca_status load_id(const loader *ld, const char *key, int64_t *out)
{
    *out = -1;
    if (!ca_gguf_has(ld->gguf, key)) return CA_OK;
    uint32_t id;
    CA_TRY(ca_gguf_u32(ld->gguf, key, &id));
    if (id >= ld->build.tok->n_tokens)
        return ca_fail(CA_E_FORMAT, "%s: %s is %u, but there are %u tokens", ld->build.file, key, id, ld->build.tok->n_tokens);
    *out = id;
    return CA_OK;
}

static ca_status load_ids(loader *ld)
{
    ca_tokenizer *tok = ld->build.tok;
    int64_t eot;
    CA_TRY(load_id(ld, KEY "bos_token_id", &tok->bos));
    CA_TRY(load_id(ld, KEY "eos_token_id", &tok->eos));
    CA_TRY(load_id(ld, KEY "eot_token_id", &eot));
    const bool usual = ld->spec ? ld->spec->add_bos : true;
    CA_TRY(ca_gguf_bool_or(ld->gguf, KEY "add_bos_token", usual && tok->bos >= 0, &tok->add_bos));
    if (tok->add_bos && tok->bos < 0)
        return ca_fail(CA_E_FORMAT, "%s: " KEY "add_bos_token is true, but there is no " KEY "bos_token_id", ld->build.file);
    if (eot >= 0) tok->flags[eot] |= CA_TOKEN_END;
    return ca_vocab_finish(&ld->build);
}

static ca_status load_template(loader *ld)
{
    ca_str text;
    CA_TRY(ca_gguf_str_or(ld->gguf, "tokenizer.chat_template", (ca_str){ "", 0 }, &text));
    char *copy = malloc(text.len + 1);
    if (!copy) return ca_vocab_no_memory(&ld->build);
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    ld->build.tok->chat_template = copy;
    return CA_OK;
}

ca_status ca_tokenizer_from_gguf(const ca_gguf *gguf, ca_tokenizer **out)
{
    static ca_status (*const steps[])(loader *) = { load_kind,   load_names, load_flags,   load_texts,
                                                    load_merges, load_ids,   load_template };
    *out = NULL;
    loader ld = { .gguf = gguf, .build = { .file = ca_gguf_path(gguf), .list = KEY "tokens", .merges = KEY "merges" } };
    ca_status st = CA_OK;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && st == CA_OK; i++) st = steps[i](&ld);
    return ca_vocab_end(&ld.build, st, out);
}
