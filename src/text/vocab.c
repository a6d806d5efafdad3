#include "text/vocab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "text/utf8.h"

/* An added token is searched for at every byte of a text, so its length bounds the work per byte. */
enum { MAX_ADDED_BYTES = 512 };
/* A token with a score is tried at every place where it can be cut in two. */
enum { MAX_SCORED_BYTES = 512 };
/* Places of a hash table where an entry may be. Real vocabularies need less than 50; more are needed by files that were made for it,
 * which would take time of their size squared. */
enum { MAX_PROBES = 256 };
#define NO_SLOT SIZE_MAX

/* Control tokens of these names end a turn, whatever the file's EOS is. */
static const char *const end_names[] = { "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>", "<|end_of_text|>" };

const char *ca_vocab_show(ca_str str, char buf[CA_SHOWN])
{
    ca_str_text(str, buf, CA_SHOWN);
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

/* Hash table of strings: slot -> index + 1. Returns the slot that holds s, or the empty one where it belongs, or NO_SLOT. */
static size_t str_slot(const uint32_t *table, size_t mask, const ca_str *strs, ca_str s)
{
    const size_t home = (size_t)(ca_text_hash(s.data, s.len) >> 20);
    for (size_t i = 0; i < MAX_PROBES; i++) {
        const size_t at = (home + i) & mask;
        if (table[at] == 0 || str_equal(strs[table[at] - 1], s)) return at;
    }
    return NO_SLOT;
}

/* Index of s, -1 when it is not in the table. */
static int64_t str_find(const uint32_t *table, size_t mask, const ca_str *strs, ca_str s)
{
    const size_t at = str_slot(table, mask, strs, s);
    return at == NO_SLOT ? -1 : (int64_t)table[at] - 1;
}

static size_t merge_slot(const ca_merge *merges, size_t mask, uint32_t left, uint32_t right)
{
    const uint64_t hash = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15U;
    for (size_t i = 0; i < MAX_PROBES; i++) {
        const size_t at = ((size_t)(hash >> 32) + i) & mask;
        if (merges[at].rank == UINT32_MAX || (merges[at].left == left && merges[at].right == right)) return at;
    }
    return NO_SLOT;
}

const ca_merge *ca_vocab_merge(const ca_tokenizer *tok, uint32_t left, uint32_t right)
{
    const size_t at = merge_slot(tok->merges, tok->merge_mask, left, right);
    return at == NO_SLOT || tok->merges[at].rank == UINT32_MAX ? NULL : &tok->merges[at];
}

int64_t ca_vocab_piece(const ca_tokenizer *tok, const char *text, size_t n)
{
    return str_find(tok->pieces, tok->piece_mask, tok->piece, (ca_str){ text, n });
}

/* First of tokens[from..to) whose byte at depth is at least `byte`; all of them are longer than depth and sorted by it. */
static uint32_t added_bound(const ca_added *added, uint32_t from, uint32_t to, size_t depth, unsigned byte)
{
    while (from < to) {
        const uint32_t mid = from + (to - from) / 2;
        if ((unsigned char)added->tokens[mid].text.data[depth] < byte)
            from = mid + 1;
        else
            to = mid;
    }
    return from;
}

size_t ca_vocab_added_at(const ca_added *added, const char *text, size_t n, uint32_t *id)
{
    const unsigned lead = (unsigned char)text[0];
    uint32_t from = added->from[lead];
    uint32_t to = added->from[lead + 1];
    size_t found = 0;
    /* tokens[from..to) share text[0..depth); the one of exactly depth bytes, if there is one, is sorted first. */
    for (size_t depth = 1; from < to; depth++) {
        if (added->tokens[from].text.len == depth) {
            found = depth;
            *id = added->tokens[from++].id;
        }
        if (depth == n) break;
        const unsigned byte = (unsigned char)text[depth];
        from = added_bound(added, from, to, depth, byte);
        to = added_bound(added, from, to, depth, byte + 1);
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

/* ---- filling ---- */

ca_status ca_vocab_no_memory(const ca_vocab_build *build)
{
    return ca_fail(CA_E_MEMORY, "%s: no memory for the tokenizer", build->file);
}

static ca_status too_many_collide(const ca_vocab_build *build, const char *list)
{
    return ca_fail(CA_E_FORMAT,
                   "%s: %s: the hashes of more than %d entries collide, as in no vocabulary made for use; get another file",
                   build->file, list, MAX_PROBES);
}

int64_t ca_vocab_find(const ca_vocab_build *build, ca_str name)
{
    return str_find(build->by_name, build->by_name_mask, build->names, name);
}

ca_status ca_vocab_begin(ca_vocab_build *build, size_t n)
{
    build->tok = calloc(1, sizeof *build->tok);
    if (!build->tok) return ca_vocab_no_memory(build);
    if (n == 0 || n > INT32_MAX)
        return ca_fail(CA_E_FORMAT, "%s: %s has %zu entries, 1 to %d are possible", build->file, build->list, n, INT32_MAX);
    ca_tokenizer *tok = build->tok;
    tok->n_tokens = (uint32_t)n;
    tok->bos = tok->eos = tok->unknown = -1;
    memset(tok->byte_id, 0xff, sizeof tok->byte_id);
    memset(tok->fallback, 0xff, sizeof tok->fallback);
    tok->flags = calloc(n, sizeof *tok->flags);
    build->names = calloc(n, sizeof *build->names);
    return tok->flags && build->names ? CA_OK : ca_vocab_no_memory(build);
}

ca_status ca_vocab_index(ca_vocab_build *build)
{
    const uint32_t n = build->tok->n_tokens;
    const size_t slots = table_slots(n);
    build->by_name_mask = slots - 1;
    build->by_name = calloc(slots, sizeof *build->by_name);
    if (!build->by_name) return ca_vocab_no_memory(build);
    for (uint32_t id = 0; id < n; id++) {
        if (!(build->tok->flags[id] & CA_TOKEN_NAMED)) continue;
        const size_t at = str_slot(build->by_name, build->by_name_mask, build->names, build->names[id]);
        if (at == NO_SLOT) return too_many_collide(build, build->list);
        if (build->by_name[at] != 0)
            return ca_fail(CA_E_FORMAT, "%s: %s: '%s' is there twice, as token %u and %u", build->file, build->list,
                           CA_SHOW(build->names[id]), build->by_name[at] - 1, id);
        build->by_name[at] = id + 1;
    }
    return CA_OK;
}

/* Value of <0xE2>, or -1. */
static int byte_of_name(ca_str name)
{
    static const char digits[] = "0123456789ABCDEF";
    if (name.len != 6 || memcmp(name.data, "<0x", 3) != 0 || name.data[5] != '>') return -1;
    const char *high = memchr(digits, name.data[3], 16);
    const char *low = memchr(digits, name.data[4], 16);
    return high && low ? (int)((high - digits) << 4 | (low - digits)) : -1;
}

/* What a token is shown as; out has room for it, or is NULL. */
static size_t show_token(const ca_decoder *decoder, ca_str name, bool special, char *out)
{
    const int byte = decoder->byte_fallback ? byte_of_name(name) : -1;
    if (byte >= 0 && !special) {
        if (out) *out = (char)byte;
        return 1;
    }
    if (decoder->from.len > 0 && !special) return ca_replace(name.data, name.len, &decoder->from, &decoder->to, out);
    if (out && name.len) memcpy(out, name.data, name.len);
    return name.len;
}

/* Pieces: the names, in bytes. */
static ca_status make_pieces(ca_vocab_build *build, const alphabet *letters)
{
    ca_tokenizer *tok = build->tok;
    size_t total = 0;
    for (uint32_t id = 0; id < tok->n_tokens; id++) CA_TRY(ca_add_size(total, build->names[id].len, &total));
    tok->piece = calloc(tok->n_tokens + 1U, sizeof *tok->piece);
    tok->bytes = malloc(total ? total : 1);
    if (!tok->piece || !tok->bytes) return ca_vocab_no_memory(build);
    char *at = tok->bytes;
    for (uint32_t id = 0; id < tok->n_tokens; id++) {
        const ca_str name = build->names[id];
        const bool plain = !(tok->flags[id] & (CA_TOKEN_SPECIAL | CA_TOKEN_ADDED));
        size_t n = name.len;
        const bool literal = !letters || !plain || !name_to_bytes(letters, name, at, &n);
        if (literal) {
            n = name.len;
            if (n) memcpy(at, name.data, n);
            if (letters && plain) tok->flags[id] &= (uint8_t)~CA_TOKEN_ORDINARY;
        }
        tok->piece[id] = (ca_str){ at, n };
        at += n;
    }
    return CA_OK;
}

static ca_status make_shown(ca_vocab_build *build, const ca_decoder *decoder)
{
    ca_tokenizer *tok = build->tok;
    size_t total = 0;
    tok->text = tok->piece;
    if (decoder->byte_level) return CA_OK;
    for (uint32_t id = 0; id < tok->n_tokens; id++)
        CA_TRY(ca_add_size(total, show_token(decoder, tok->piece[id], tok->flags[id] & CA_TOKEN_SPECIAL, NULL), &total));
    tok->text = calloc(tok->n_tokens + 1U, sizeof *tok->text);
    tok->shown = malloc(total ? total : 1);
    if (!tok->text || !tok->shown) return ca_vocab_no_memory(build);
    char *at = tok->shown;
    for (uint32_t id = 0; id < tok->n_tokens; id++) {
        tok->text[id] = (ca_str){ at, show_token(decoder, tok->piece[id], tok->flags[id] & CA_TOKEN_SPECIAL, at) };
        at += tok->text[id].len;
    }
    return CA_OK;
}

/* The longest text a token can add to what is shown: every byte that is not ASCII may have to become U+FFFD. */
static void measure_shown(ca_tokenizer *tok)
{
    for (uint32_t id = 0; id < tok->n_tokens; id++) {
        size_t n = tok->text[id].len;
        for (size_t i = 0; i < tok->text[id].len; i++)
            n += (unsigned char)tok->text[id].data[i] < 0x80 ? 0 : CA_UTF8_REPLACEMENT_LEN - 1;
        if (n > tok->max_piece) tok->max_piece = n;
    }
}

static void find_symbols(ca_vocab_build *build, const alphabet *letters)
{
    ca_tokenizer *tok = build->tok;
    for (unsigned b = 0; b < (tok->chars ? 128U : 256U); b++) {
        const unsigned c = letters ? letters->of_byte[b] : b;
        const char two[2] = { (char)(0xc0 | c >> 6), (char)(0x80 | (c & 0x3f)) };
        const char one = (char)c;
        const int64_t id = ca_vocab_find(build, c < 0x80 ? (ca_str){ &one, 1 } : (ca_str){ two, 2 });
        if (!tok->chars || (id >= 0 && (tok->flags[id] & CA_TOKEN_ORDINARY))) tok->byte_id[b] = (int32_t)id;
    }
}

static ca_status find_fallback(ca_vocab_build *build)
{
    static const char digits[] = "0123456789ABCDEF";
    ca_tokenizer *tok = build->tok;
    unsigned n_found = 0;
    for (unsigned b = 0; b < 256; b++) {
        const char name[6] = { '<', '0', 'x', digits[b >> 4], digits[b & 15], '>' };
        tok->fallback[b] = (int32_t)ca_vocab_find(build, (ca_str){ name, sizeof name });
        n_found += tok->fallback[b] >= 0;
    }
    if (n_found % 256 == 0) return CA_OK;
    return ca_fail(CA_E_UNSUPPORTED, "%s: %s: byte fallback with %u of the 256 byte tokens is not supported", build->file,
                   build->list, n_found);
}

/* Piece -> id of the ordinary tokens. */
static ca_status index_pieces(ca_vocab_build *build)
{
    ca_tokenizer *tok = build->tok;
    if (!tok->ignore_merges && !tok->chars) return CA_OK;
    const size_t slots = table_slots(tok->n_tokens);
    tok->piece_mask = slots - 1;
    tok->pieces = calloc(slots, sizeof *tok->pieces);
    if (!tok->pieces) return ca_vocab_no_memory(build);
    for (uint32_t id = 0; id < tok->n_tokens; id++) {
        if (!(tok->flags[id] & CA_TOKEN_ORDINARY) || tok->piece[id].len == 0) continue;
        const size_t at = str_slot(tok->pieces, tok->piece_mask, tok->piece, tok->piece[id]);
        if (at == NO_SLOT) return too_many_collide(build, build->list);
        if (tok->pieces[at] == 0) tok->pieces[at] = id + 1;
    }
    return CA_OK;
}

ca_status ca_vocab_texts(ca_vocab_build *build, const ca_decoder *decoder)
{
    alphabet letters;
    alphabet_init(&letters);
    CA_TRY(make_pieces(build, decoder->byte_level ? &letters : NULL));
    CA_TRY(make_shown(build, decoder));
    measure_shown(build->tok);
    find_symbols(build, decoder->byte_level ? &letters : NULL);
    if (decoder->byte_fallback) CA_TRY(find_fallback(build));
    return index_pieces(build);
}

/* ---- merges ---- */

ca_status ca_vocab_merges(ca_vocab_build *build, size_t n)
{
    ca_tokenizer *tok = build->tok;
    if (n >= UINT32_MAX / 2) return ca_fail(CA_E_FORMAT, "%s: %s has %zu entries, too many", build->file, build->merges, n);
    const size_t slots = table_slots(n);
    tok->merge_mask = slots - 1;
    tok->merges = malloc(slots * sizeof *tok->merges);
    if (!tok->merges) return ca_vocab_no_memory(build);
    memset(tok->merges, 0xff, slots * sizeof *tok->merges);
    return CA_OK;
}

static ca_status put_merge(const ca_vocab_build *build, ca_merge merge)
{
    const size_t at = merge_slot(build->tok->merges, build->tok->merge_mask, merge.left, merge.right);
    if (at == NO_SLOT) return too_many_collide(build, build->merges);
    build->tok->merges[at] = merge;
    return CA_OK;
}

ca_status ca_vocab_add_merge(ca_vocab_build *build, size_t rank, ca_str left, ca_str right)
{
    char buf[1024], *joined = left.len + right.len <= sizeof buf ? buf : malloc(left.len + right.len);
    if (!joined) return ca_vocab_no_memory(build);
    if (left.len) memcpy(joined, left.data, left.len);
    if (right.len) memcpy(joined + left.len, right.data, right.len);
    const ca_str parts[3] = { left, right, { joined, left.len + right.len } };
    uint32_t ids[3] = { 0 };
    ca_status st = CA_OK;
    for (size_t i = 0; i < 3 && st == CA_OK; i++) {
        const int64_t id = ca_vocab_find(build, parts[i]);
        if (id < 0)
            st = ca_fail(CA_E_FORMAT, "%s: %s[%zu] '%s %s': '%s' is not a token of this file", build->file, build->merges, rank,
                         CA_SHOW(left), CA_SHOW(right), CA_SHOW(parts[i]));
        else
            ids[i] = (uint32_t)id;
    }
    if (joined != buf) free(joined);
    if (st == CA_OK) st = put_merge(build, (ca_merge){ ids[0], ids[1], (uint32_t)rank, ids[2] });
    return st;
}

typedef struct scored {
    float score;
    uint32_t id;
} scored;

static int compare_scored(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Merges that make one token: counted, and put in the table when they have a rank. */
static ca_status merges_of(const ca_vocab_build *build, uint32_t id, const uint32_t *rank, size_t *n)
{
    const ca_tokenizer *tok = build->tok;
    const ca_str piece = tok->piece[id];
    for (size_t i = 1; i < piece.len; i++) {
        if (((unsigned char)piece.data[i] & 0xc0) == 0x80) continue; /* inside a character */
        const int64_t left = ca_vocab_piece(tok, piece.data, i);
        const int64_t right = left < 0 ? -1 : ca_vocab_piece(tok, piece.data + i, piece.len - i);
        if (right < 0) continue;
        if (rank) CA_TRY(put_merge(build, (ca_merge){ (uint32_t)left, (uint32_t)right, *rank, id }));
        ++*n;
    }
    return CA_OK;
}

ca_status ca_vocab_merges_by_score(ca_vocab_build *build, const float *scores)
{
    ca_tokenizer *tok = build->tok;
    scored *order = calloc(tok->n_tokens, sizeof *order);
    if (!order) return ca_vocab_no_memory(build);
    ca_status st = CA_OK;
    size_t n = 0, n_merges = 0;
    for (uint32_t id = 0; id < tok->n_tokens && st == CA_OK; id++) {
        if (isnan(scores[id]))
            st = ca_fail(CA_E_FORMAT, "%s: %s: the score of token %u is not a number", build->file, build->list, id);
        else if (tok->piece[id].len > MAX_SCORED_BYTES)
            st = ca_fail(CA_E_UNSUPPORTED, "%s: %s: token %u has %zu bytes, at most %d are supported", build->file, build->list, id,
                         tok->piece[id].len, MAX_SCORED_BYTES);
        else if (tok->flags[id] & CA_TOKEN_ORDINARY) {
            order[n++] = (scored){ scores[id], id };
            st = merges_of(build, id, NULL, &n_merges);
        }
    }
    if (st == CA_OK) {
        qsort(order, n, sizeof *order, compare_scored);
        st = ca_vocab_merges(build, n_merges);
    }
    uint32_t rank = 0; /* equal scores have equal ranks: the leftmost goes first */
    for (size_t i = 0; i < n && st == CA_OK; i++) {
        rank += i > 0 && order[i].score < order[i - 1].score;
        st = merges_of(build, order[i].id, &rank, &n_merges);
    }
    free(order);
    return st;
}

/* A merge that crosses a place before a word mark forbids to cut after the byte that its left side ends with. */
static void find_cuts(ca_vocab_build *build)
{
    ca_tokenizer *tok = build->tok;
    const ca_str mark = { CA_WORD_MARK, sizeof CA_WORD_MARK - 1 };
    tok->cuts = tok->chars && !tok->ignore_merges && ca_vocab_piece(tok, mark.data, mark.len) >= 0;
    for (size_t i = 0; i <= tok->merge_mask && tok->cuts; i++) {
        const ca_merge *merge = &tok->merges[i];
        if (merge->rank == UINT32_MAX) continue;
        const ca_str left = tok->piece[merge->left], right = tok->piece[merge->right];
        if (right.len < mark.len || memcmp(right.data, mark.data, mark.len) != 0) continue;
        /* Tokens of bytes and of the unknown do not end like the text they stand for. */
        if (left.len == 0 || byte_of_name(left) >= 0 || merge->left == tok->unknown)
            tok->cuts = false;
        else
            tok->no_cut_after[(unsigned char)left.data[left.len - 1]] = true;
    }
}

/* ---- added tokens ---- */

static int compare_added(const void *a, const void *b)
{
    const ca_str *x = &((const struct ca_added_token *)a)->text;
    const ca_str *y = &((const struct ca_added_token *)b)->text;
    const int order = memcmp(x->data, y->data, x->len < y->len ? x->len : y->len);
    if (order || x->len != y->len) return order ? order : (x->len > y->len) - (x->len < y->len);
    const uint32_t x_id = ((const struct ca_added_token *)a)->id, y_id = ((const struct ca_added_token *)b)->id;
    return (x_id > y_id) - (x_id < y_id);
}

static ca_status check_added(const ca_vocab_build *build, uint32_t id, ca_str text)
{
    if (text.len > MAX_ADDED_BYTES)
        return ca_fail(CA_E_UNSUPPORTED, "%s: special token %u has %zu bytes, at most %d are supported", build->file, id, text.len,
                       MAX_ADDED_BYTES);
    if (!ca_utf8_valid(text.data, text.len))
        return ca_fail(CA_E_FORMAT, "%s: special token %u '%s' is not UTF-8", build->file, id, CA_SHOW(text));
    return CA_OK;
}

/* Adds the token by its normalized name, kept in the set; when nothing is left of the name, it is found nowhere. */
static ca_status add_normalized(ca_vocab_build *build, ca_added *set, uint32_t id, size_t *n_bytes)
{
    const char *text = build->names[id].data;
    size_t n = build->names[id].len;
    char *owned;
    ca_status st = ca_normalize(&build->tok->normalizer, true, MAX_ADDED_BYTES, &text, &n, &owned);
    if (st != CA_OK) {
        char why[256];
        (void)snprintf(why, sizeof why, "%s", ca_last_error());
        st = ca_fail(st == CA_E_ARG ? CA_E_UNSUPPORTED : st, "%s: special token %u: %s", build->file, id, why);
    }
    if (st == CA_OK) st = check_added(build, id, (ca_str){ text, n });
    const bool kept = st == CA_OK && n > 0;
    char *bytes = kept ? realloc(set->bytes, *n_bytes + n) : NULL;
    if (kept && !bytes) st = ca_vocab_no_memory(build);
    if (bytes) {
        set->bytes = bytes;
        memcpy(bytes + *n_bytes, text, n);
        set->tokens[set->n++] = (struct ca_added_token){ { NULL, n }, id };
        *n_bytes += n;
    }
    free(owned);
    return st;
}

/* Different names may normalize to the same text, which then is the token of the lowest id: Hugging Face's library takes any of
 * them, not the same one each time. */
static void drop_equal_added(ca_added *set)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < set->n; i++)
        if (n == 0 || !str_equal(set->tokens[n - 1].text, set->tokens[i].text)) set->tokens[n++] = set->tokens[i];
    set->n = n;
}

static void sort_added(ca_added *set)
{
    qsort(set->tokens, set->n, sizeof *set->tokens, compare_added);
    drop_equal_added(set);
    for (uint32_t i = 0; i < set->n; i++) set->from[(unsigned char)set->tokens[i].text.data[0] + 1]++;
    for (unsigned b = 0; b < 256; b++) set->from[b + 1] += set->from[b];
}

static ca_status collect_added(ca_vocab_build *build)
{
    ca_tokenizer *tok = build->tok;
    uint32_t n[2] = { 0 };
    const unsigned wanted = CA_TOKEN_SPECIAL | CA_TOKEN_ADDED;
    for (uint32_t id = 0; id < tok->n_tokens; id++)
        if ((tok->flags[id] & wanted) && build->names[id].len > 0) n[(tok->flags[id] & CA_TOKEN_NORMALIZED) != 0]++;
    for (size_t s = 0; s < 2; s++) {
        tok->added[s].tokens = calloc(n[s] + 1U, sizeof *tok->added[s].tokens);
        if (!tok->added[s].tokens) return ca_vocab_no_memory(build);
    }
    size_t n_bytes = 0;
    for (uint32_t id = 0; id < tok->n_tokens; id++) {
        if (!(tok->flags[id] & wanted) || build->names[id].len == 0) continue;
        CA_TRY(check_added(build, id, build->names[id]));
        if (tok->flags[id] & CA_TOKEN_NORMALIZED)
            CA_TRY(add_normalized(build, &tok->added[1], id, &n_bytes));
        else
            tok->added[0].tokens[tok->added[0].n++] = (struct ca_added_token){ tok->piece[id], id };
    }
    const char *at = tok->added[1].bytes;
    for (uint32_t i = 0; i < tok->added[1].n; at += tok->added[1].tokens[i++].text.len) tok->added[1].tokens[i].text.data = at;
    for (size_t s = 0; s < 2; s++) sort_added(&tok->added[s]);
    return CA_OK;
}

ca_status ca_vocab_finish(ca_vocab_build *build)
{
    ca_tokenizer *tok = build->tok;
    CA_TRY(collect_added(build));
    for (size_t i = 0; i < sizeof end_names / sizeof end_names[0]; i++) {
        const int64_t id = ca_vocab_find(build, (ca_str){ end_names[i], strlen(end_names[i]) });
        if (id >= 0 && (tok->flags[id] & CA_TOKEN_SPECIAL)) tok->flags[id] |= CA_TOKEN_END;
    }
    if (tok->eos >= 0) tok->flags[tok->eos] |= CA_TOKEN_END;
    find_cuts(build);
    return CA_OK;
}

ca_status ca_vocab_end(ca_vocab_build *build, ca_status st, ca_tokenizer **out)
{
    free(build->names);
    free(build->by_name);
    if (st == CA_OK)
        *out = build->tok;
    else
        ca_tokenizer_close(build->tok);
    return st;
}

void ca_tokenizer_close(ca_tokenizer *tok)
{
    if (!tok) return;
    ca_pretok_close(&tok->pretok);
    if (tok->text != tok->piece) free(tok->text);
    free(tok->piece);
    free(tok->flags);
    free(tok->bytes);
    free(tok->shown);
    free(tok->merges);
    free(tok->pieces);
    for (size_t s = 0; s < 2; s++) {
        free(tok->added[s].tokens);
        free(tok->added[s].bytes);
    }
    free(tok->chat_template);
    free(tok);
}
