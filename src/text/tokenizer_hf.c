/* tokenizer.json: a model's tokens and merges, and the steps around it, each an object with a "type". What is not known surely to be
 * done here as Hugging Face's library does it is refused by name: text that is cut in another way costs quality silently. */
#include "text/tokenizer_hf.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mapfile.h"
#include "text/vocab.h"

enum { MAX_JSON_BYTES = 1 << 30 };

typedef struct loader {
    ca_vocab_build build;
    const json_t *root, *model;
    const json_t *config;     /* tokenizer_config.json; NULL: none */
    const json_t *generation; /* generation_config.json; NULL: none */
    const char *chat_file;    /* text of chat_template.jinja, n_chat bytes; NULL: none */
    size_t n_chat;
    bool byte_level;
    ca_decoder decoder;
    int64_t first; /* token that the post-processor puts first; -1: none */
} loader;

/* ---- values ---- */

static ca_status parse(const void *data, size_t size, const char *file, json_t **out)
{
    json_error_t error;
    *out = NULL;
    if (size > MAX_JSON_BYTES)
        return ca_fail(CA_E_UNSUPPORTED, "%s: %zu bytes of JSON, at most %d are supported", file, size, MAX_JSON_BYTES);
    *out = json_loadb(data, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!*out && json_error_code(&error) == json_error_out_of_memory) return ca_fail(CA_E_MEMORY, "%s: no memory to read it", file);
    if (!*out) return ca_fail(CA_E_FORMAT, "%s: line %d: %s", file, error.line, error.text);
    if (json_is_object(*out)) return CA_OK;
    json_decref(*out);
    *out = NULL;
    return ca_fail(CA_E_FORMAT, "%s: a JSON object is needed", file);
}

static ca_str text_of(const json_t *value)
{
    const char *text = json_string_value(value);
    return text ? (ca_str){ text, json_string_length(value) } : (ca_str){ "", 0 };
}

static bool is(ca_str text, const char *word)
{
    return text.len == strlen(word) && memcmp(text.data, word, text.len) == 0;
}

static bool absent(const json_t *value)
{
    return !value || json_is_null(value);
}

static ca_status wrong(const loader *ld, const char *where, const char *key)
{
    return ca_fail(CA_E_FORMAT, "%s: %s: '%s' is missing or of the wrong kind", ld->build.file, where, key);
}

static ca_status refuse(const loader *ld, const char *where, ca_str what, const char *known)
{
    return ca_fail(CA_E_UNSUPPORTED, "%s: %s: '%s' is not supported; known: %s", ld->build.file, where, CA_SHOW(what), known);
}

static ca_status get_bool(const loader *ld, const json_t *object, const char *where, const char *key, bool missing, bool *out)
{
    const json_t *value = json_object_get(object, key);
    *out = absent(value) ? missing : json_is_true(value);
    return absent(value) || json_is_boolean(value) ? CA_OK : wrong(ld, where, key);
}

static ca_status get_text(const loader *ld, const json_t *object, const char *where, const char *key, ca_str *out)
{
    const json_t *value = json_object_get(object, key);
    *out = text_of(value);
    return json_is_string(value) ? CA_OK : wrong(ld, where, key);
}

static ca_status get_short(const loader *ld, const json_t *object, const char *where, const char *key, ca_short_text *out)
{
    ca_str text;
    CA_TRY(get_text(ld, object, where, key, &text));
    if (ca_short_text_set(out, text.data, text.len)) return CA_OK;
    return ca_fail(CA_E_UNSUPPORTED, "%s: %s: '%s' has %zu bytes, at most %d are supported", ld->build.file, where, key, text.len,
                   CA_NORM_BYTES);
}

typedef ca_status (*add_fn)(loader *ld, const json_t *item, ca_str type);

/* Calls add for the one object of a section, or for each of its list when it is a Sequence. */
static ca_status each(loader *ld, const char *section, const char *list, add_fn add)
{
    const json_t *value = json_object_get(ld->root, section);
    if (absent(value)) return CA_OK;
    if (!json_is_object(value)) return wrong(ld, "tokenizer", section);
    const ca_str type = text_of(json_object_get(value, "type"));
    if (!is(type, "Sequence")) return add(ld, value, type);
    const json_t *items = json_object_get(value, list), *item;
    size_t i;
    if (!json_is_array(items)) return wrong(ld, section, list);
    json_array_foreach(items, i, item) CA_TRY(add(ld, item, text_of(json_object_get(item, "type"))));
    return CA_OK;
}

/* ---- normalizer ---- */

static ca_status add_step(const loader *ld, ca_normalizer *to, const char *where, const ca_norm_step *step)
{
    if (ca_normalizer_add(to, step)) return CA_OK;
    return ca_fail(CA_E_UNSUPPORTED, "%s: %s: more than %d steps are not supported", ld->build.file, where, CA_NORM_STEPS);
}

static ca_status get_replace(const loader *ld, const json_t *item, const char *where, ca_short_text *from, ca_short_text *to)
{
    const json_t *pattern = json_object_get(item, "pattern");
    if (json_object_get(pattern, "Regex")) return refuse(ld, where, (ca_str){ "Replace by Regex", 16 }, "Replace by String");
    CA_TRY(get_short(ld, pattern, where, "String", from));
    CA_TRY(get_short(ld, item, where, "content", to));
    return from->len > 0 ? CA_OK : wrong(ld, where, "String");
}

static ca_status add_normalizer(loader *ld, const json_t *item, ca_str type)
{
    static const char where[] = "normalizer";
    ca_norm_step step = { .kind = CA_NORM_NFC };
    if (is(type, "Replace")) {
        step.kind = CA_NORM_REPLACE;
        CA_TRY(get_replace(ld, item, where, &step.from, &step.to));
    } else if (is(type, "Prepend")) {
        step.kind = CA_NORM_PREPEND;
        CA_TRY(get_short(ld, item, where, "prepend", &step.to));
    } else if (!is(type, "NFC")) {
        return refuse(ld, where, type, "NFC, Replace, Prepend, Sequence");
    }
    return add_step(ld, &ld->build.tok->normalizer, where, &step);
}

/* ---- pre-tokenizer ---- */

static const char pre[] = "pre_tokenizer";

static ca_status add_split(loader *ld, const json_t *item)
{
    static const char *const names[] = { [CA_ISOLATED] = "Isolated",
                                         [CA_REMOVED] = "Removed",
                                         [CA_CONTIGUOUS] = "Contiguous",
                                         [CA_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
                                         [CA_MERGED_WITH_NEXT] = "MergedWithNext" };
    const json_t *pattern = json_object_get(item, "pattern");
    const bool regex = json_object_get(pattern, "Regex") != NULL;
    ca_str text, name;
    bool invert;
    size_t b = 0;
    CA_TRY(get_text(ld, pattern, pre, regex ? "Regex" : "String", &text));
    CA_TRY(get_text(ld, item, pre, "behavior", &name));
    CA_TRY(get_bool(ld, item, pre, "invert", false, &invert));
    while (b < sizeof names / sizeof names[0] && !is(name, names[b])) b++;
    if (b == sizeof names / sizeof names[0])
        return refuse(ld, pre, name, "Isolated, Removed, Contiguous, MergedWithPrevious or -Next");
    ca_pretok *pretok = &ld->build.tok->pretok;
    return regex ? ca_pretok_add_regex(pretok, text, (ca_behavior)b, invert, ld->build.file)
                 : ca_pretok_add_literal(pretok, text, (ca_behavior)b, invert, ld->build.file);
}

/* A step that changes text can only be the first: later ones work on ranges of the same text. */
static ca_status check_first(const loader *ld, ca_str type)
{
    if (ld->build.tok->pretok.n == 0 && ld->build.tok->prefix.n == 0) return CA_OK;
    return refuse(ld, pre, type, "prefix spaces and Metaspace in the first step only");
}

static ca_status add_byte_level(loader *ld, const json_t *item, ca_str type)
{
    bool prefix, words;
    ca_norm_step step = { .kind = CA_NORM_PREPEND, .to = { " ", 1 }, .unless_there = true };
    CA_TRY(get_bool(ld, item, pre, "add_prefix_space", true, &prefix));
    CA_TRY(get_bool(ld, item, pre, "use_regex", true, &words));
    if (prefix) {
        CA_TRY(check_first(ld, type));
        CA_TRY(add_step(ld, &ld->build.tok->prefix, pre, &step));
    }
    ld->byte_level = true;
    return words ? ca_pretok_add_words(&ld->build.tok->pretok, ld->build.file) : CA_OK;
}

/* Whether a Metaspace puts its mark first: "always", "first" or "never". Files of old say it as a boolean. */
static ca_status get_scheme(const loader *ld, const json_t *item, const char *where, ca_str *out)
{
    const json_t *scheme = json_object_get(item, "prepend_scheme");
    bool prefix;
    CA_TRY(get_bool(ld, item, where, "add_prefix_space", true, &prefix));
    *out = absent(scheme) ? (ca_str){ "always", 6 } : text_of(scheme);
    if (!prefix) *out = (ca_str){ "never", 5 };
    return is(*out, "always") || is(*out, "first") || is(*out, "never") ? CA_OK : refuse(ld, where, *out, "always, first, never");
}

static ca_status add_metaspace(loader *ld, const json_t *item, ca_str type)
{
    ca_norm_step replace = { .kind = CA_NORM_REPLACE, .from = { " ", 1 } };
    ca_str scheme;
    bool split;
    CA_TRY(check_first(ld, type));
    CA_TRY(get_short(ld, item, pre, "replacement", &replace.to));
    CA_TRY(get_bool(ld, item, pre, "split", true, &split));
    CA_TRY(get_scheme(ld, item, pre, &scheme));
    if (replace.to.len == 0) return wrong(ld, pre, "replacement");
    const ca_norm_step prepend = {
        .kind = CA_NORM_PREPEND, .to = replace.to, .unless_there = true, .first_only = is(scheme, "first")
    };
    ca_tokenizer *tok = ld->build.tok;
    CA_TRY(add_step(ld, &tok->prefix, pre, &replace));
    if (!is(scheme, "never")) CA_TRY(add_step(ld, &tok->prefix, pre, &prepend));
    if (!split) return CA_OK;
    return ca_pretok_add_literal(&tok->pretok, (ca_str){ replace.to.data, replace.to.len }, CA_MERGED_WITH_NEXT, false,
                                 ld->build.file);
}

static ca_status add_pre_tokenizer(loader *ld, const json_t *item, ca_str type)
{
    if (ld->byte_level) return refuse(ld, pre, type, "ByteLevel as the last step");
    if (is(type, "Split")) return add_split(ld, item);
    if (is(type, "ByteLevel")) return add_byte_level(ld, item, type);
    if (is(type, "Metaspace")) return add_metaspace(ld, item, type);
    if (!is(type, "Digits")) return refuse(ld, pre, type, "Split, ByteLevel, Digits, Metaspace, Sequence");
    bool alone;
    CA_TRY(get_bool(ld, item, pre, "individual_digits", false, &alone));
    return ca_pretok_add_digits(&ld->build.tok->pretok, alone, ld->build.file);
}

/* ---- decoder ---- */

static ca_status add_decoder(loader *ld, const json_t *item, ca_str type)
{
    static const char where[] = "decoder";
    ca_decoder *decoder = &ld->decoder;
    const bool replaces = is(type, "Replace") || is(type, "Metaspace");
    if (decoder->byte_level && !is(type, "Fuse")) return refuse(ld, where, type, "ByteLevel alone");
    if (replaces && decoder->from.len > 0) return refuse(ld, where, type, "one replacement");
    if (is(type, "Fuse")) return CA_OK;
    if (is(type, "ByteLevel")) {
        decoder->byte_level = true;
        return CA_OK;
    }
    if (is(type, "ByteFallback")) {
        decoder->byte_fallback = true;
        return CA_OK;
    }
    if (is(type, "Replace")) return get_replace(ld, item, where, &decoder->from, &decoder->to);
    if (is(type, "Metaspace")) {
        ca_str scheme;
        CA_TRY(get_short(ld, item, where, "replacement", &decoder->from));
        CA_TRY(get_scheme(ld, item, where, &scheme));
        (void)ca_short_text_set(&decoder->to, " ", 1);
        ld->build.tok->strip_space = !is(scheme, "never");
        return decoder->from.len > 0 ? CA_OK : wrong(ld, where, "replacement");
    }
    if (is(type, "Strip") && is(text_of(json_object_get(item, "content")), " ") &&
        json_integer_value(json_object_get(item, "start")) == 1 && json_integer_value(json_object_get(item, "stop")) == 0) {
        ld->build.tok->strip_space = true;
        return CA_OK;
    }
    return refuse(ld, where, type, "ByteLevel, Replace, ByteFallback, Fuse, Metaspace, Strip of one space at the start, Sequence");
}

/* ---- post-processor ---- */

static ca_status add_template(loader *ld, const json_t *item)
{
    static const char where[] = "post_processor";
    const json_t *single = json_object_get(item, "single"), *part;
    const json_t *tokens = json_object_get(item, "special_tokens");
    bool after_text = false;
    size_t i;
    if (!json_is_array(single)) return wrong(ld, where, "single");
    json_array_foreach(single, i, part)
    {
        const json_t *special = json_object_get(part, "SpecialToken");
        if (json_object_get(part, "Sequence") && !after_text) {
            after_text = true;
            continue;
        }
        const ca_str name = text_of(json_object_get(special, "id"));
        if (after_text || ld->first >= 0) return refuse(ld, where, name, "one token before the text");
        const json_t *ids = json_object_get(json_object_getn(tokens, name.data, name.len), "ids");
        const json_t *id = json_array_get(ids, 0);
        if (json_array_size(ids) != 1 || !json_is_integer(id)) return wrong(ld, where, "ids");
        ld->first = json_integer_value(id);
        if (ld->first < 0 || ld->first >= (int64_t)ld->build.tok->n_tokens)
            return ca_fail(CA_E_FORMAT, "%s: %s: token %lld, but there are %u tokens", ld->build.file, where, (long long)ld->first,
                           ld->build.tok->n_tokens);
    }
    return CA_OK;
}

static ca_status add_post_processor(loader *ld, const json_t *item, ca_str type)
{
    if (is(type, "ByteLevel")) return CA_OK; /* it moves offsets only */
    if (is(type, "TemplateProcessing")) return add_template(ld, item);
    return refuse(ld, "post_processor", type, "TemplateProcessing, ByteLevel, Sequence");
}

/* ---- tokens ---- */

static ca_status check_id(const loader *ld, const json_t *value, ca_str name, size_t n, size_t *end)
{
    const json_int_t id = json_integer_value(value);
    /* Ids may leave gaps, but a file cannot ask for much more memory than it is long. */
    if (!json_is_integer(value) || id < 0 || (size_t)id >= 2 * n + 1024)
        return ca_fail(CA_E_FORMAT, "%s: token '%s' has the id %lld; with %zu tokens 0 to %zu are possible", ld->build.file,
                       CA_SHOW(name), (long long)id, n, 2 * n + 1023);
    if ((size_t)id >= *end) *end = (size_t)id + 1;
    return CA_OK;
}

static ca_status set_name(loader *ld, size_t id, ca_str name, unsigned flags)
{
    ca_tokenizer *tok = ld->build.tok;
    if (tok->flags[id] & CA_TOKEN_NAMED)
        return ca_fail(CA_E_FORMAT, "%s: token %zu is '%s' and '%s'", ld->build.file, id, CA_SHOW(ld->build.names[id]),
                       CA_SHOW(name));
    ld->build.names[id] = name;
    tok->flags[id] = (uint8_t)(CA_TOKEN_NAMED | flags);
    return CA_OK;
}

static ca_status set_added(loader *ld, const json_t *token)
{
    static const struct {
        const char *key;
        unsigned flag;
    } flags[] = { { "lstrip", CA_TOKEN_LSTRIP }, { "rstrip", CA_TOKEN_RSTRIP }, { "normalized", CA_TOKEN_NORMALIZED } };
    static const char where[] = "added_tokens";
    const size_t id = (size_t)json_integer_value(json_object_get(token, "id"));
    const ca_str name = text_of(json_object_get(token, "content"));
    ca_tokenizer *tok = ld->build.tok;
    bool special, whole;
    CA_TRY(get_bool(ld, token, where, "special", false, &special));
    CA_TRY(get_bool(ld, token, where, "single_word", false, &whole));
    if (whole) return refuse(ld, where, name, "single_word false");
    unsigned set = special ? CA_TOKEN_SPECIAL : CA_TOKEN_ADDED;
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        bool on;
        CA_TRY(get_bool(ld, token, where, flags[i].key, false, &on));
        if (on) set |= flags[i].flag;
    }
    const json_t *known = json_object_getn(json_object_get(ld->model, "vocab"), name.data, name.len);
    if (known && (size_t)json_integer_value(known) != id)
        return ca_fail(CA_E_FORMAT, "%s: token '%s' has two ids, %lld and %zu", ld->build.file, CA_SHOW(name),
                       (long long)json_integer_value(known), id);
    if (known || ((tok->flags[id] & CA_TOKEN_NAMED) && ld->build.names[id].len == name.len &&
                  memcmp(ld->build.names[id].data, name.data, name.len) == 0))
        tok->flags[id] |= (uint8_t)set;
    else
        CA_TRY(set_name(ld, id, name, set));
    return CA_OK;
}

static ca_status load_names(loader *ld)
{
    const char *key;
    json_t *value;
    size_t i, end = 0;
    json_t *vocab = json_object_get(ld->model, "vocab");
    const json_t *added = json_object_get(ld->root, "added_tokens");
    if (!json_is_object(vocab)) return wrong(ld, "model", "vocab");
    if (!absent(added) && !json_is_array(added)) return wrong(ld, "tokenizer", "added_tokens");
    const size_t n = json_object_size(vocab) + json_array_size(added);
    json_object_foreach(vocab, key, value) CA_TRY(check_id(ld, value, (ca_str){ key, strlen(key) }, n, &end));
    json_array_foreach(added, i, value)
    {
        if (!json_is_string(json_object_get(value, "content"))) return wrong(ld, "added_tokens", "content");
        CA_TRY(check_id(ld, json_object_get(value, "id"), text_of(json_object_get(value, "content")), n, &end));
    }
    CA_TRY(ca_vocab_begin(&ld->build, end));
    json_object_foreach(vocab, key, value)
        CA_TRY(set_name(ld, (size_t)json_integer_value(value), (ca_str){ key, strlen(key) }, CA_TOKEN_ORDINARY));
    json_array_foreach(added, i, value) CA_TRY(set_added(ld, value));
    return ca_vocab_index(&ld->build);
}

/* ---- model ---- */

static ca_status check_model(loader *ld)
{
    static const char *const unset[] = { "dropout", "continuing_subword_prefix", "end_of_word_suffix" };
    static const char where[] = "model";
    ld->model = json_object_get(ld->root, where);
    if (!json_is_object(ld->model)) return wrong(ld, "tokenizer", where);
    const json_t *type = json_object_get(ld->model, "type");
    if (!absent(type) && !is(text_of(type), "BPE")) return refuse(ld, "model", text_of(type), "BPE");
    for (size_t i = 0; i < sizeof unset / sizeof unset[0]; i++) {
        const json_t *value = json_object_get(ld->model, unset[i]);
        const bool zero = json_is_number(value) && json_number_value(value) == 0;
        if (!absent(value) && !zero && !(json_is_string(value) && json_string_length(value) == 0))
            return refuse(ld, where, (ca_str){ unset[i], strlen(unset[i]) }, "none of it");
    }
    return CA_OK;
}

static ca_status load_steps(loader *ld)
{
    CA_TRY(each(ld, "normalizer", "normalizers", add_normalizer));
    CA_TRY(each(ld, "pre_tokenizer", "pretokenizers", add_pre_tokenizer));
    CA_TRY(each(ld, "decoder", "decoders", add_decoder));
    CA_TRY(each(ld, "post_processor", "processors", add_post_processor));
    if (absent(json_object_get(ld->root, "decoder"))) return wrong(ld, "tokenizer", "decoder");
    if (ld->decoder.byte_level != ld->byte_level)
        return refuse(ld, "decoder", (ca_str){ "ByteLevel", 9 }, "in the pre_tokenizer and the decoder, or in none of them");
    return CA_OK;
}

static ca_status load_texts(loader *ld)
{
    static const char where[] = "model";
    ca_tokenizer *tok = ld->build.tok;
    const json_t *unknown = json_object_get(ld->model, "unk_token");
    bool fallback;
    CA_TRY(get_bool(ld, ld->model, where, "fuse_unk", false, &tok->fuse_unknown));
    CA_TRY(get_bool(ld, ld->model, where, "ignore_merges", false, &tok->ignore_merges));
    CA_TRY(get_bool(ld, ld->model, where, "byte_fallback", false, &fallback));
    if (fallback && ld->byte_level) return refuse(ld, where, (ca_str){ "byte_fallback", 13 }, "no byte_fallback with ByteLevel");
    if (fallback != ld->decoder.byte_fallback)
        return refuse(ld, where, (ca_str){ "byte_fallback", 13 }, "byte_fallback with a ByteFallback decoder");
    tok->chars = !ld->byte_level;
    if (!absent(unknown)) {
        tok->unknown = ca_vocab_find(&ld->build, text_of(unknown));
        if (!json_is_string(unknown) || tok->unknown < 0) return wrong(ld, where, "unk_token");
    }
    return ca_vocab_texts(&ld->build, &ld->decoder);
}

/* Two strings, or one with a space between. */
static bool merge_parts(const json_t *merge, ca_str *left, ca_str *right)
{
    if (json_is_array(merge)) {
        *left = text_of(json_array_get(merge, 0));
        *right = text_of(json_array_get(merge, 1));
        return json_array_size(merge) == 2 && left->len > 0 && right->len > 0;
    }
    const ca_str line = text_of(merge);
    const char *space = line.len < 3 ? NULL : memchr(line.data + 1, ' ', line.len - 2);
    if (!space) return false;
    *left = (ca_str){ line.data, (size_t)(space - line.data) };
    *right = (ca_str){ space + 1, line.len - left->len - 1 };
    return true;
}

static ca_status load_merges(loader *ld)
{
    const json_t *merges = json_object_get(ld->model, "merges"), *merge;
    size_t rank;
    if (!json_is_array(merges)) return wrong(ld, "model", "merges");
    CA_TRY(ca_vocab_merges(&ld->build, json_array_size(merges)));
    json_array_foreach(merges, rank, merge)
    {
        ca_str left, right;
        if (!merge_parts(merge, &left, &right))
            return ca_fail(CA_E_FORMAT, "%s: merges[%zu] is not two tokens", ld->build.file, rank);
        CA_TRY(ca_vocab_add_merge(&ld->build, rank, left, right));
    }
    return CA_OK;
}

/* ---- the files beside it ---- */

/* The token that a key of tokenizer_config.json names, as a string or as an object with "content"; -1: none. */
static ca_status config_token(const loader *ld, const char *key, int64_t *out)
{
    const json_t *value = json_object_get(ld->config, key);
    if (json_is_object(value)) value = json_object_get(value, "content");
    *out = -1;
    if (absent(value)) return CA_OK;
    *out = ca_vocab_find(&ld->build, text_of(value));
    if (json_is_string(value) && *out >= 0) return CA_OK;
    return ca_fail(CA_E_FORMAT, "%s: tokenizer_config.json: %s: '%s' is not a token", ld->build.file, key, CA_SHOW(text_of(value)));
}

static ca_status load_bos(loader *ld)
{
    ca_tokenizer *tok = ld->build.tok;
    int64_t named;
    CA_TRY(config_token(ld, "bos_token", &named));
    CA_TRY(config_token(ld, "eos_token", &tok->eos));
    CA_TRY(get_bool(ld, ld->config, "tokenizer_config.json", "add_bos_token", ld->first >= 0, &tok->add_bos));
    if (named >= 0 && ld->first >= 0 && named != ld->first)
        return ca_fail(CA_E_FORMAT, "%s: the post_processor puts token %lld first, but tokenizer_config.json's bos_token is %lld",
                       ld->build.file, (long long)ld->first, (long long)named);
    tok->bos = named >= 0 ? named : ld->first;
    if (tok->add_bos && tok->bos < 0)
        return ca_fail(CA_E_FORMAT, "%s: tokenizer_config.json's add_bos_token is true, but there is no bos_token", ld->build.file);
    return CA_OK;
}

static ca_status load_ends(loader *ld)
{
    ca_tokenizer *tok = ld->build.tok;
    const json_t *ids = json_object_get(ld->generation, "eos_token_id");
    const size_t n = json_is_array(ids) ? json_array_size(ids) : !absent(ids);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(ids) ? json_array_get(ids, i) : ids;
        const json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= (json_int_t)tok->n_tokens)
            return ca_fail(CA_E_FORMAT, "%s: generation_config.json: eos_token_id is %lld, but there are %u tokens", ld->build.file,
                           (long long)value, tok->n_tokens);
        tok->flags[value] |= CA_TOKEN_END;
    }
    return ca_vocab_finish(&ld->build);
}

/* The template of the configuration: text, or the one called default of a list. */
static const json_t *config_template(const loader *ld)
{
    const json_t *value = json_object_get(ld->config, "chat_template"), *item;
    size_t i;
    json_array_foreach(value, i,
                       item) if (is(text_of(json_object_get(item, "name")), "default")) return json_object_get(item, "template");
    return value;
}

static ca_status load_template(loader *ld)
{
    ca_str text = text_of(config_template(ld));
    if (ld->chat_file) text = (ca_str){ ld->chat_file, ld->n_chat };
    char *copy = malloc(text.len + 1);
    if (!copy) return ca_vocab_no_memory(&ld->build);
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    ld->build.tok->chat_template = copy;
    return CA_OK;
}

/* ---- all of it ---- */

static ca_status load(loader *ld, const void *data, size_t size, ca_tokenizer **out)
{
    static ca_status (*const steps[])(loader *) = { check_model, load_names, load_steps, load_texts,
                                                    load_merges, load_bos,   load_ends,  load_template };
    json_t *root;
    ld->build.list = "model.vocab";
    ld->build.merges = "merges";
    ld->first = -1;
    ca_status st = parse(data, size, ld->build.file, &root);
    ld->root = root;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && st == CA_OK; i++) st = steps[i](ld);
    st = ca_vocab_end(&ld->build, st, out);
    json_decref(root);
    return st;
}

ca_status ca_tokenizer_from_json_memory(const void *data, size_t size, const char *name, ca_tokenizer **out)
{
    loader ld = { .build.file = name };
    *out = NULL;
    return load(&ld, data, size, out);
}

ca_status ca_tokenizer_from_json(const char *path, ca_tokenizer **out)
{
    ca_mapfile map;
    *out = NULL;
    CA_TRY(ca_mapfile_open(path, &map));
    const ca_status st = ca_tokenizer_from_json_memory(map.data, map.size, path, out);
    ca_mapfile_close(&map);
    return st;
}

/* Maps folder/name; an optional file that is not there leaves *map empty. */
static ca_status map_in(const char *folder, const char *name, bool optional, char path[4096], ca_mapfile *map)
{
    *map = (ca_mapfile){ NULL, 0 };
    const int n = snprintf(path, 4096, "%s/%s", folder, name);
    if (n < 0 || n >= 4096) return ca_fail(CA_E_ARG, "%.200s..: the path is too long", folder);
    return optional && access(path, F_OK) != 0 ? CA_OK : ca_mapfile_open(path, map);
}

static ca_status read_optional(const char *folder, const char *name, json_t **out)
{
    char path[4096];
    ca_mapfile map;
    *out = NULL;
    CA_TRY(map_in(folder, name, true, path, &map));
    const ca_status st = map.data ? parse(map.data, map.size, path, out) : CA_OK;
    ca_mapfile_close(&map);
    return st;
}

ca_status ca_tokenizer_from_folder(const char *folder, ca_tokenizer **out)
{
    char path[4096];
    ca_mapfile tokens = { NULL, 0 }, chat = { NULL, 0 };
    json_t *config = NULL, *generation = NULL;
    ca_status st = CA_OK;
    *out = NULL;
    CA_TRY_GOTO(read_optional(folder, "tokenizer_config.json", &config), done);
    CA_TRY_GOTO(read_optional(folder, "generation_config.json", &generation), done);
    CA_TRY_GOTO(map_in(folder, "chat_template.jinja", true, path, &chat), done);
    CA_TRY_GOTO(map_in(folder, "tokenizer.json", false, path, &tokens), done);
    loader ld = { .build.file = path, .config = config, .generation = generation, .chat_file = chat.data, .n_chat = chat.size };
    st = load(&ld, tokens.data, tokens.size, out);
done:
    json_decref(config);
    json_decref(generation);
    ca_mapfile_close(&tokens);
    ca_mapfile_close(&chat);
    return st;
}
