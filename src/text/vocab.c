#include "text/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "text/tokenizer_gguf.h"
#include "text/utf8.h"

/* GGUF's tokenizer.ggml.token_type */
enum { TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_LAST = 6 };

/* An added token is searched for at every byte of a text, so its length bounds the work per byte. */
enum { MAX_ADDED_BYTES = 512 };

/* Control tokens of these names end a turn, whatever the file's EOS is. */
static const char *const end_names[] = { "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>", "<|end_of_text|>" };

#define KEY "tokenizer.ggml."

/* A name of the file, for messages. */
enum { SHOWN = 72 };
#define SHOW(str) show((str), (char[SHOWN]){ 0 })

static const char *show(ca_str str, char *buf)
{
    ca_str_text(str, buf, SHOWN);
    return buf;
}

/* Hash of bytes: multiply and fold, 8 bytes at a time. */
uint64_t ca_text_hash(const char *text, size_t n)
{
    uint64_t h = 0x9E3779B97F4A7C15U ^ n;
    while (n > 0) {
        uint64_t word = 0;
        const size_t take = n < 8 ? n : 8;
        memcpy(&word, text, take);
        h = (h ^ word) * 0xD6E8FEB86659FD93U;
        h ^= h >> 32;
        text += take;
        n -= take;
    }
    return h * 0xD6E8FEB86659FD93U;
}

/* ---- tables ---- */

static bool str_equal(ca_str a, ca_str b)
{
    return a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
}

/* Slots of a hash table for n entries: a power of two, at most half full. */
static size_t table_slots(size_t n)
{
    size_t slots = 16;
    while (slots < 2 * n) slots *= 2;
    return slots;
}

/* Hash table of strings: slot -> index + 1. Returns the slot that holds s, or the empty one where it belongs. */
static size_t str_slot(const uint32_t *table, size_t mask, const ca_str *strs, ca_str s)
{
    size_t at = (size_t)(ca_text_hash(s.data, s.len) >> 20) & mask;
    while (table[at] != 0 && !str_equal(strs[table[at] - 1], s)) at = (at + 1) & mask;
    return at;
}

static size_t merge_slot(const ca_merge *merges, size_t mask, uint32_t left, uint32_t right)
{
    const uint64_t hash = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15U;
    size_t at = (size_t)(hash >> 32) & mask;
    while (merges[at].rank != UINT32_MAX && (merges[at].left != left || merges[at].right != right)) at = (at + 1) & mask;
    return at;
}

const ca_merge *ca_vocab_merge(const ca_tokenizer *tok, uint32_t left, uint32_t right)
{
    const ca_merge *merge = &tok->merges[merge_slot(tok->merges, tok->merge_mask, left, right)];
    return merge->rank == UINT32_MAX ? NULL : merge;
}

int64_t ca_vocab_piece(const ca_tokenizer *tok, const char *text, size_t n)
{
    return (int64_t)tok->pieces[str_slot(tok->pieces, tok->piece_mask, tok->text, (ca_str){ text, n })] - 1;
}

/* First of added[from..to) whose byte at depth is at least `byte`; all of them are longer than depth and sorted by it. */
static uint32_t added_bound(const ca_tokenizer *tok, uint32_t from, uint32_t to, size_t depth, unsigned byte)
{
    while (from < to) {
        const uint32_t mid = from + (to - from) / 2;
        if ((unsigned char)tok->text[tok->added[mid]].data[depth] < byte)
            from = mid + 1;
        else
            to = mid;
    }
    return from;
}

size_t ca_vocab_added_at(const ca_tokenizer *tok, const char *text, size_t n, uint32_t *id)
{
    const unsigned lead = (unsigned char)text[0];
    uint32_t from = tok->added_from[lead];
    uint32_t to = tok->added_from[lead + 1];
    size_t found = 0;
    /* added[from..to) share text[0..depth); the one of exactly depth bytes, if there is one, is sorted first. */
    for (size_t depth = 1; from < to; depth++) {
        if (tok->text[tok->added[from]].len == depth) {
            found = depth;
            *id = tok->added[from++];
        }
        if (depth == n) break;
        const unsigned byte = (unsigned char)text[depth];
        from = added_bound(tok, from, to, depth, byte);
        to = added_bound(tok, from, to, depth, byte + 1);
    }
    return found;
}

/* ---- the byte alphabet ---- */

/* GPT-2 writes each byte as one character: printable Latin-1 as itself, the others as U+0100 and up. */
static bool byte_is_printable(unsigned b)
{
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

typedef struct alphabet {
    uint16_t of_byte[256];
    int16_t to_byte[0x144]; /* -1: not in the alphabet */
} alphabet;

static void alphabet_init(alphabet *a)
{
    memset(a->to_byte, 0xff, sizeof a->to_byte);
    unsigned extra = 0x100;
    for (unsigned b = 0; b < 256; b++) {
        const unsigned c = byte_is_printable(b) ? b : extra++;
        a->of_byte[b] = (uint16_t)c;
        a->to_byte[c] = (int16_t)b;
    }
}

/* Bytes that a token's name stands for; false when a character is outside the alphabet. out holds name.len bytes. */
static bool name_to_bytes(const alphabet *a, ca_str name, char *out, size_t *n)
{
    *n = 0;
    for (size_t i = 0; i < name.len; i++) {
        unsigned c = (unsigned char)name.data[i];
        if (c >= 0x80) {
            if ((c & 0xe0) != 0xc0 || i + 1 == name.len || ((unsigned char)name.data[i + 1] & 0xc0) != 0x80) return false;
            c = (c & 0x1f) << 6 | ((unsigned char)name.data[++i] & 0x3f);
        }
        if (c >= sizeof a->to_byte / sizeof a->to_byte[0] || a->to_byte[c] < 0) return false;
        out[(*n)++] = (char)a->to_byte[c];
    }
    return true;
}

/* ---- loading ---- */

typedef struct loader {
    const ca_gguf *gguf;
    const char *file;
    ca_tokenizer *tok;
    alphabet alphabet;
    const ca_str *names; /* tokens as the file writes them */
    uint32_t *by_name;   /* hash table over names */
    size_t by_name_mask;
} loader;

static ca_status no_memory(const loader *ld)
{
    return ca_fail(CA_E_MEMORY, "%s: no memory for the tokenizer", ld->file);
}

static int64_t find_name(const loader *ld, ca_str name)
{
    return (int64_t)ld->by_name[str_slot(ld->by_name, ld->by_name_mask, ld->names, name)] - 1;
}

static ca_status load_names(loader *ld)
{
    size_t n;
    CA_TRY(ca_gguf_strs(ld->gguf, KEY "tokens", &ld->names, &n));
    if (n == 0 || n > INT32_MAX)
        return ca_fail(CA_E_FORMAT, "%s: " KEY "tokens has %zu entries, 1 to %d are possible", ld->file, n, INT32_MAX);
    ld->tok->n_tokens = (uint32_t)n;
    const size_t slots = table_slots(n);
    ld->by_name_mask = slots - 1;
    ld->by_name = calloc(slots, sizeof *ld->by_name);
    if (!ld->by_name) return no_memory(ld);
    for (uint32_t id = 0; id < n; id++) {
        const size_t at = str_slot(ld->by_name, ld->by_name_mask, ld->names, ld->names[id]);
        if (ld->by_name[at] != 0)
            return ca_fail(CA_E_FORMAT, "%s: " KEY "tokens: '%s' is there twice, as token %u and %u", ld->file, SHOW(ld->names[id]),
                           ld->by_name[at] - 1, id);
        ld->by_name[at] = id + 1;
    }
    return CA_OK;
}

static ca_status load_flags(loader *ld)
{
    ca_tokenizer *tok = ld->tok;
    tok->flags = calloc(tok->n_tokens, sizeof *tok->flags);
    if (!tok->flags) return no_memory(ld);
    if (!ca_gguf_has(ld->gguf, KEY "token_type")) return CA_OK;
    const int32_t *types;
    size_t n;
    CA_TRY(ca_gguf_i32s(ld->gguf, KEY "token_type", &types, &n));
    if (n != tok->n_tokens)
        return ca_fail(CA_E_FORMAT, "%s: " KEY "token_type has %zu entries for %u tokens", ld->file, n, tok->n_tokens);
    for (uint32_t id = 0; id < n; id++) {
        const int32_t type = types[id];
        if (type < 0 || type > TYPE_LAST)
            return ca_fail(CA_E_FORMAT, "%s: " KEY "token_type[%u] is %d, 0 to %d are possible", ld->file, id, type, TYPE_LAST);
        if (type == TYPE_CONTROL || type == TYPE_UNKNOWN) tok->flags[id] |= CA_TOKEN_SPECIAL;
        if (type == TYPE_USER_DEFINED) tok->flags[id] |= CA_TOKEN_ADDED;
    }
    return CA_OK;
}

/* The bytes of each token, and the token of each byte. */
static ca_status load_text(loader *ld)
{
    ca_tokenizer *tok = ld->tok;
    size_t total = 0;
    for (uint32_t id = 0; id < tok->n_tokens; id++) CA_TRY(ca_add_size(total, ld->names[id].len, &total));
    tok->text = calloc(tok->n_tokens, sizeof *tok->text);
    tok->bytes = malloc(total ? total : 1);
    if (!tok->text || !tok->bytes) return no_memory(ld);
    char *at = tok->bytes;
    for (uint32_t id = 0; id < tok->n_tokens; id++) {
        const ca_str name = ld->names[id];
        size_t n = name.len;
        if (tok->flags[id] == 0 && !name_to_bytes(&ld->alphabet, name, at, &n)) tok->flags[id] = CA_TOKEN_LITERAL;
        if (tok->flags[id] != 0) {
            n = name.len;
            memcpy(at, name.data, n);
        }
        tok->text[id] = (ca_str){ at, n };
        /* Every byte that is not ASCII may have to be shown as U+FFFD. */
        size_t shown = n;
        for (size_t i = 0; i < n; i++) shown += (unsigned char)at[i] < 0x80 ? 0 : CA_UTF8_REPLACEMENT_LEN - 1;
        if (shown > tok->max_piece) tok->max_piece = shown;
        at += n;
    }
    for (unsigned b = 0; b < 256; b++) {
        const unsigned c = ld->alphabet.of_byte[b];
        const char two[2] = { (char)(0xc0 | c >> 6), (char)(0x80 | (c & 0x3f)) };
        const char one = (char)c;
        tok->byte_id[b] = (int32_t)find_name(ld, c < 0x80 ? (ca_str){ &one, 1 } : (ca_str){ two, 2 });
    }
    return CA_OK;
}

/* One entry "left right" of the merges. */
static ca_status load_merge(loader *ld, size_t rank, ca_str line, char *joined)
{
    ca_tokenizer *tok = ld->tok;
    const char *space = line.len < 3 ? NULL : memchr(line.data + 1, ' ', line.len - 2);
    if (!space)
        return ca_fail(CA_E_FORMAT, "%s: " KEY "merges[%zu] '%s' is not two tokens with a space between", ld->file, rank,
                       SHOW(line));
    const ca_str left = { line.data, (size_t)(space - line.data) };
    const ca_str right = { space + 1, line.len - left.len - 1 };
    memcpy(joined, left.data, left.len);
    memcpy(joined + left.len, right.data, right.len);
    const ca_str parts[3] = { left, right, { joined, line.len - 1 } };
    uint32_t ids[3];
    for (size_t i = 0; i < 3; i++) {
        const int64_t id = find_name(ld, parts[i]);
        if (id < 0)
            return ca_fail(CA_E_FORMAT, "%s: " KEY "merges[%zu] '%s': '%s' is not a token of this file", ld->file, rank, SHOW(line),
                           SHOW(parts[i]));
        ids[i] = (uint32_t)id;
    }
    tok->merges[merge_slot(tok->merges, tok->merge_mask, ids[0], ids[1])] = (ca_merge){ ids[0], ids[1], (uint32_t)rank, ids[2] };
    return CA_OK;
}

static ca_status load_merges(loader *ld)
{
    const ca_str *lines;
    size_t n, longest = 0;
    CA_TRY(ca_gguf_strs(ld->gguf, KEY "merges", &lines, &n));
    if (n >= UINT32_MAX / 2) return ca_fail(CA_E_FORMAT, "%s: " KEY "merges has %zu entries, too many", ld->file, n);
    const size_t slots = table_slots(n);
    ld->tok->merge_mask = slots - 1;
    ld->tok->merges = malloc(slots * sizeof *ld->tok->merges);
    if (!ld->tok->merges) return no_memory(ld);
    memset(ld->tok->merges, 0xff, slots * sizeof *ld->tok->merges);
    for (size_t i = 0; i < n; i++)
        if (lines[i].len > longest) longest = lines[i].len;
    char *joined = malloc(longest ? longest : 1);
    if (!joined) return no_memory(ld);
    ca_status st = CA_OK;
    for (size_t rank = 0; rank < n && st == CA_OK; rank++) st = load_merge(ld, rank, lines[rank], joined);
    free(joined);
    return st;
}

/* Text -> id of the ordinary tokens, for pre-tokenizers that look for whole pieces first. */
static ca_status load_pieces(loader *ld)
{
    ca_tokenizer *tok = ld->tok;
    if (!tok->pretok.spec->ignore_merges) return CA_OK;
    const size_t slots = table_slots(tok->n_tokens);
    tok->piece_mask = slots - 1;
    tok->pieces = calloc(slots, sizeof *tok->pieces);
    if (!tok->pieces) return no_memory(ld);
    for (uint32_t id = 0; id < tok->n_tokens; id++) {
        if (tok->flags[id] != 0 || tok->text[id].len == 0) continue;
        const size_t at = str_slot(tok->pieces, tok->piece_mask, tok->text, tok->text[id]);
        if (tok->pieces[at] == 0) tok->pieces[at] = id + 1;
    }
    return CA_OK;
}

typedef struct added_token {
    ca_str text;
    uint32_t id;
} added_token;

static int compare_added(const void *a, const void *b)
{
    const ca_str *x = &((const added_token *)a)->text;
    const ca_str *y = &((const added_token *)b)->text;
    const int order = memcmp(x->data, y->data, x->len < y->len ? x->len : y->len);
    return order ? order : (x->len > y->len) - (x->len < y->len);
}

static ca_status load_added(loader *ld)
{
    ca_tokenizer *tok = ld->tok;
    added_token *sorted = calloc(tok->n_tokens, sizeof *sorted);
    tok->added = calloc(tok->n_tokens, sizeof *tok->added);
    ca_status st = sorted && tok->added ? CA_OK : no_memory(ld);
    for (uint32_t id = 0; id < tok->n_tokens && st == CA_OK; id++) {
        const ca_str text = tok->text[id];
        if (!(tok->flags[id] & (CA_TOKEN_SPECIAL | CA_TOKEN_ADDED)) || text.len == 0) continue;
        if (text.len > MAX_ADDED_BYTES)
            st = ca_fail(CA_E_UNSUPPORTED, "%s: special token %u has %zu bytes, at most %d are supported", ld->file, id, text.len,
                         MAX_ADDED_BYTES);
        else if (!ca_utf8_valid(text.data, text.len))
            st = ca_fail(CA_E_FORMAT, "%s: special token %u '%s' is not UTF-8", ld->file, id, SHOW(text));
        else
            sorted[tok->n_added++] = (added_token){ text, id };
    }
    if (st == CA_OK) {
        qsort(sorted, tok->n_added, sizeof *sorted, compare_added);
        for (uint32_t i = 0; i < tok->n_added; i++) {
            tok->added[i] = sorted[i].id;
            tok->added_from[(unsigned char)sorted[i].text.data[0] + 1]++;
        }
        for (unsigned b = 0; b < 256; b++) tok->added_from[b + 1] += tok->added_from[b];
    }
    free(sorted);
    return st;
}

static ca_status load_id(const loader *ld, const char *key, int64_t *out)
{
    *out = -1;
    if (!ca_gguf_has(ld->gguf, key)) return CA_OK;
    uint32_t id;
    CA_TRY(ca_gguf_u32(ld->gguf, key, &id));
    if (id >= ld->tok->n_tokens)
        return ca_fail(CA_E_FORMAT, "%s: %s is %u, but there are %u tokens", ld->file, key, id, ld->tok->n_tokens);
    *out = id;
    return CA_OK;
}

static ca_status load_ids(loader *ld)
{
    ca_tokenizer *tok = ld->tok;
    int64_t eot;
    CA_TRY(load_id(ld, KEY "bos_token_id", &tok->bos));
    CA_TRY(load_id(ld, KEY "eos_token_id", &tok->eos));
    CA_TRY(load_id(ld, KEY "eot_token_id", &eot));
    CA_TRY(ca_gguf_bool_or(ld->gguf, KEY "add_bos_token", tok->pretok.spec->add_bos && tok->bos >= 0, &tok->add_bos));
    if (tok->add_bos && tok->bos < 0)
        return ca_fail(CA_E_FORMAT, "%s: " KEY "add_bos_token is true, but there is no " KEY "bos_token_id", ld->file);
    if (tok->eos >= 0) tok->flags[tok->eos] |= CA_TOKEN_END;
    if (eot >= 0) tok->flags[eot] |= CA_TOKEN_END;
    for (size_t i = 0; i < sizeof end_names / sizeof end_names[0]; i++) {
        const int64_t id = find_name(ld, (ca_str){ end_names[i], strlen(end_names[i]) });
        if (id >= 0 && (tok->flags[id] & CA_TOKEN_SPECIAL)) tok->flags[id] |= CA_TOKEN_END;
    }
    return CA_OK;
}

static ca_status load_template(loader *ld)
{
    ca_str text;
    CA_TRY(ca_gguf_str_or(ld->gguf, "tokenizer.chat_template", (ca_str){ "", 0 }, &text));
    char *copy = malloc(text.len + 1);
    if (!copy) return no_memory(ld);
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    ld->tok->chat_template = copy;
    return CA_OK;
}

static ca_status load_pretok(loader *ld)
{
    ca_str model, pre;
    CA_TRY(ca_gguf_str(ld->gguf, KEY "model", &model));
    if (!str_equal(model, (ca_str){ "gpt2", 4 }))
        return ca_fail(CA_E_UNSUPPORTED, "%s: " KEY "model: tokenizer '%s' is not supported; known: gpt2", ld->file, SHOW(model));
    CA_TRY(ca_gguf_str(ld->gguf, KEY "pre", &pre));
    return ca_pretok_open(pre, ld->file, &ld->tok->pretok);
}

ca_status ca_tokenizer_from_gguf(const ca_gguf *gguf, ca_tokenizer **out)
{
    *out = NULL;
    loader ld = { .gguf = gguf, .file = ca_gguf_path(gguf), .tok = calloc(1, sizeof *ld.tok) };
    if (!ld.tok) return no_memory(&ld);
    alphabet_init(&ld.alphabet);
    static ca_status (*const steps[])(loader *) = { load_pretok, load_names, load_flags, load_text,    load_merges,
                                                    load_pieces, load_added, load_ids,   load_template };
    ca_status st = CA_OK;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && st == CA_OK; i++) st = steps[i](&ld);
    free(ld.by_name);
    if (st == CA_OK)
        *out = ld.tok;
    else
        ca_tokenizer_close(ld.tok);
    return st;
}

void ca_tokenizer_close(ca_tokenizer *tok)
{
    if (!tok) return;
    ca_pretok_close(&tok->pretok);
    free(tok->text);
    free(tok->flags);
    free(tok->bytes);
    free(tok->merges);
    free(tok->pieces);
    free(tok->added);
    free(tok->chat_template);
    free(tok);
}
