#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretok.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Contents of character classes. The published tokenizers run on the tables of Unicode 16, pcre2 may be older: the letters and
 * numbers that Unicode 15 and 16 added are spelled out, and so is white space, which in pcre2 has U+180E too many. */
#define SPACE "\\t-\\r\\x{85}\\p{Z}"
#define NUMBER                                                                                                                     \
    "\\p{N}\\x{10D40}-\\x{10D49}\\x{116D0}-\\x{116E3}\\x{11BF0}-\\x{11BF9}\\x{11F50}-\\x{11F59}\\x{16130}-\\x{16139}"              \
    "\\x{16D70}-\\x{16D79}\\x{1CCF0}-\\x{1CCF9}\\x{1D2C0}-\\x{1D2D3}\\x{1E4F0}-\\x{1E4F9}\\x{1E5F1}-\\x{1E5FA}"
#define LETTER                                                                                                                     \
    "\\p{L}\\x{1C89}\\x{1C8A}\\x{A7CB}-\\x{A7CD}\\x{A7DA}-\\x{A7DC}\\x{105C0}-\\x{105F3}\\x{10D4A}-\\x{10D65}"                     \
    "\\x{10D6F}-\\x{10D85}\\x{10EC2}-\\x{10EC4}\\x{1123F}\\x{11240}\\x{11380}-\\x{11389}\\x{1138B}\\x{1138E}"                      \
    "\\x{11390}-\\x{113B5}\\x{113B7}\\x{113D1}\\x{113D3}\\x{11BC0}-\\x{11BE0}\\x{11F02}\\x{11F04}-\\x{11F10}"                      \
    "\\x{11F12}-\\x{11F33}\\x{1342F}\\x{13441}-\\x{13446}\\x{13460}-\\x{143FA}\\x{16100}-\\x{1611D}"                               \
    "\\x{16D40}-\\x{16D6C}\\x{18CFF}\\x{1B132}\\x{1B155}\\x{1DF25}-\\x{1DF2A}\\x{1E030}-\\x{1E06D}"                                \
    "\\x{1E4D0}-\\x{1E4EB}\\x{1E5D0}-\\x{1E5ED}\\x{1E5F0}\\x{2B739}\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}"

/* White space in front of a word leaves its last character to the word; `stop` are the characters that do not take it. */
#define SPACES_BEFORE(stop) "[" SPACE "]+(?![^" SPACE stop "])|[" SPACE "]+"

#define GPT2_WORDS "'(?:[stmd]|re|ve|ll)| ?[" LETTER "]+"
#define GPT2_OTHER " ?[^" SPACE LETTER NUMBER "]+"

#define LLAMA3_WORDS "'(?i:[stmd]|re|ve|ll)|[^\\r\\n" LETTER NUMBER "]?[" LETTER "]+"
#define LLAMA3_OTHER GPT2_OTHER "[\\r\\n]*|[" SPACE "]*[\\r\\n]+|" SPACES_BEFORE("")

/* A tokenizer that cuts in several stages has them folded into one pattern here. smollm: every number character is cut out first,
 * then the GPT-2 pattern runs on what is between, so white space in front of a number ends its text and stays whole. */
static const ca_pretok_spec specs[] = {
    { .name = "smollm", .pattern = GPT2_WORDS "|[" NUMBER "]|" GPT2_OTHER "|" SPACES_BEFORE(NUMBER) },
    { .name = "gpt-2", .pattern = GPT2_WORDS "| ?[" NUMBER "]+|" GPT2_OTHER "|" SPACES_BEFORE("") },
    { .name = "llama-bpe", .pattern = LLAMA3_WORDS "|[" NUMBER "]{1,3}|" LLAMA3_OTHER, .ignore_merges = true, .add_bos = true },
    { .name = "qwen2", .pattern = LLAMA3_WORDS "|[" NUMBER "]|" LLAMA3_OTHER, .nfc = true },
};
enum { N_SPECS = sizeof specs / sizeof specs[0] };

ca_status ca_pretok_find(ca_str name, const char *file, const ca_pretok_spec **out)
{
    *out = NULL;
    for (size_t i = 0; i < N_SPECS; i++)
        if (strlen(specs[i].name) == name.len && memcmp(specs[i].name, name.data, name.len) == 0) *out = &specs[i];
    if (*out) return CA_OK;
    char known[128] = "";
    size_t at = 0;
    for (size_t i = 0; i < N_SPECS && at < sizeof known; i++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", specs[i].name);
    char shown[72];
    ca_str_text(name, shown, sizeof shown);
    return ca_fail(CA_E_UNSUPPORTED, "%s: tokenizer.ggml.pre: pre-tokenizer '%s' is not supported; known: %s", file, shown, known);
}

/* ---- stages ---- */

static ca_status add_stage(ca_pretok *pretok, ca_str pattern, uint32_t options, ca_behavior behavior, bool invert,
                           const char *where)
{
    int error;
    PCRE2_SIZE at;
    uint32_t may_be_empty = 0;
    if (pretok->n == CA_PRETOK_STAGES)
        return ca_fail(CA_E_UNSUPPORTED, "%s: more than %d stages are not supported", where, CA_PRETOK_STAGES);
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) return ca_fail(CA_E_MEMORY, "%s: no memory for a pattern", where);
    (void)pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    (void)pcre2_set_parens_nest_limit(context, 64);
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern.data, pattern.len, PCRE2_UTF | options, &error, &at, context);
    pcre2_compile_context_free(context);
    if (!code) {
        PCRE2_UCHAR why[120] = "";
        (void)pcre2_get_error_message(error, why, sizeof why);
        return ca_fail(error == PCRE2_ERROR_HEAP_FAILED ? CA_E_MEMORY : CA_E_UNSUPPORTED,
                       "%s: pcre2 cannot compile the pattern: %s", where, (const char *)why);
    }
    (void)pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &may_be_empty);
    if (may_be_empty) {
        pcre2_code_free(code);
        return ca_fail(CA_E_UNSUPPORTED, "%s: a pattern that matches empty text is not supported", where);
    }
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* where pages may not become code, the interpreter runs */
    pretok->stages[pretok->n++] = (ca_pretok_stage){ code, behavior, invert };
    return CA_OK;
}

static ca_status add_pattern(ca_pretok *pretok, const char *pattern, ca_behavior behavior, const char *where)
{
    return add_stage(pretok, (ca_str){ pattern, strlen(pattern) }, PCRE2_UCP, behavior, false, where);
}

ca_status ca_pretok_add_spec(ca_pretok *pretok, const ca_pretok_spec *spec, const char *where)
{
    return add_pattern(pretok, spec->pattern, CA_ISOLATED, where);
}

ca_status ca_pretok_add_literal(ca_pretok *pretok, ca_str text, ca_behavior behavior, bool invert, const char *where)
{
    return add_stage(pretok, text, PCRE2_LITERAL, behavior, invert, where);
}

ca_status ca_pretok_add_digits(ca_pretok *pretok, bool each, const char *where)
{
    return add_pattern(pretok, "[" NUMBER "]", each ? CA_ISOLATED : CA_CONTIGUOUS, where);
}

ca_status ca_pretok_add_words(ca_pretok *pretok, const char *where)
{
    return add_pattern(pretok, GPT2_WORDS "| ?[" NUMBER "]+|" GPT2_OTHER "|" SPACES_BEFORE(""), CA_ISOLATED, where);
}

void ca_pretok_close(ca_pretok *pretok)
{
    for (size_t i = 0; i < pretok->n; i++) pcre2_code_free(pretok->stages[i].code);
    pretok->n = 0;
}

/* ---- Oniguruma patterns ---- */

/* Classes that are spelled out, by how a pattern writes them. */
static const struct {
    const char *name, *chars;
    bool negated;
} classes[] = {
    { "\\s", SPACE, false },    { "\\S", SPACE, true },      { "\\p{L}", LETTER, false },
    { "\\P{L}", LETTER, true }, { "\\p{N}", NUMBER, false }, { "\\P{N}", NUMBER, true },
};
enum { N_CLASSES = sizeof classes / sizeof classes[0] };

static bool starts(const char *at, const char *end, const char *with)
{
    const size_t n = strlen(with);
    return (size_t)(end - at) >= n && memcmp(at, with, n) == 0;
}

/* Copies one escape, which means the same in both syntaxes; its length, 0 when it does not. */
static size_t copy_escape(const char *at, const char *end, bool in_class, FILE *out)
{
    size_t n = 2;
    for (size_t i = 0; i < N_CLASSES; i++) {
        if (!starts(at, end, classes[i].name)) continue;
        if (in_class && classes[i].negated) return 0;
        if (in_class)
            (void)fputs(classes[i].chars, out);
        else
            (void)fprintf(out, "[%s%s]", classes[i].negated ? "^" : "", classes[i].chars);
        return strlen(classes[i].name);
    }
    if (end - at < 2) return 0;
    const char c = at[1];
    bool hex = c == 'u' && end - at >= 6;
    for (size_t i = 2; hex && i < 6; i++) hex = memchr("0123456789abcdefABCDEF", at[i], 22) != NULL;
    if (hex) {
        (void)fprintf(out, "\\x{%.4s}", at + 2);
        return 6;
    }
    const bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (unsigned char)c >= 0x80;
    if (word && !strchr("rntfdDpPx", c)) return 0;
    if (c == 'p' || c == 'P' || c == 'x') {
        const char *close = starts(at + 2, end, "{") ? memchr(at, '}', (size_t)(end - at)) : NULL;
        if (!close || at[3] == '^') return 0;
        n = (size_t)(close - at) + 1;
    }
    (void)fwrite(at, 1, n, out);
    return n;
}

/* What is written alike and read differently outside of classes. */
static bool differs(const char *from, const char *at, const char *end)
{
    static const char *const groups[] = { "(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>" };
    if (starts(at, end, "(*") || starts(at, end, "{,") || starts(at, end, "}+")) return true;
    if (!starts(at, end, "(?")) return false;
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++)
        if (starts(at, end, groups[i])) return false;
    return !(at == from && starts(at, end, "(?i)"));
}

/* Writes the pattern for pcre2; NULL, or what is in the way. */
static const char *translate(ca_str regex, FILE *out)
{
    const char *end = regex.data + regex.len;
    bool in_class = false;
    for (const char *at = regex.data; at < end;) {
        if (*at == '\\') {
            const size_t n = copy_escape(at, end, in_class, out);
            if (n == 0) return "an escape";
            at += n;
            continue;
        }
        if (in_class && (*at == '[' || starts(at, end, "&&"))) return "a class in a class";
        if (!in_class && differs(regex.data, at, end)) return "a group or a count";
        if (*at == '[') {
            const size_t n = starts(at, end, "[^") ? 2 : 1;
            if (starts(at + n, end, "]")) return "a class that starts with ]";
            (void)fwrite(at, 1, n, out);
            at += n;
            in_class = true;
            continue;
        }
        if (*at == ']') in_class = false;
        (void)fputc(*at++, out);
    }
    return NULL;
}

ca_status ca_pretok_add_regex(ca_pretok *pretok, ca_str regex, ca_behavior behavior, bool invert, const char *where)
{
    enum { MAX_PATTERN = 4096 };
    char *pattern = NULL;
    size_t size = 0;
    if (regex.len > MAX_PATTERN)
        return ca_fail(CA_E_UNSUPPORTED, "%s: a pattern of %zu bytes, at most %d are supported", where, regex.len, MAX_PATTERN);
    FILE *out = open_memstream(&pattern, &size);
    if (!out) return ca_fail(CA_E_MEMORY, "%s: no memory for a pattern", where);
    const char *problem = translate(regex, out);
    const bool written = !ferror(out);
    ca_status st = CA_OK;
    if (fclose(out) != 0 || !written) st = ca_fail(CA_E_MEMORY, "%s: no memory for a pattern", where);
    char shown[120];
    ca_str_text(regex, shown, sizeof shown);
    if (st == CA_OK && problem) st = ca_fail(CA_E_UNSUPPORTED, "%s: pattern '%s': %s is not supported", where, shown, problem);
    if (st == CA_OK) st = add_stage(pretok, (ca_str){ pattern, size }, PCRE2_UCP | PCRE2_MULTILINE, behavior, invert, where);
    free(pattern);
    return st;
}

/* ---- splitting ---- */

ca_status ca_splitter_open(const ca_pretok *pretok, ca_splitter *out)
{
    *out = (ca_splitter){ .pretok = pretok, .match = pcre2_match_data_create(1, NULL), .limits = pcre2_match_context_create(NULL) };
    if (!out->match || !out->limits) {
        ca_splitter_close(out);
        return ca_fail(CA_E_MEMORY, "tokenize: no memory for the pattern matcher");
    }
    (void)pcre2_set_heap_limit(out->limits, 64 * 1024); /* KiB, for patterns that nest repeats */
    return CA_OK;
}

void ca_splitter_close(ca_splitter *splitter)
{
    pcre2_match_data_free(splitter->match);
    pcre2_match_context_free(splitter->limits);
    *splitter = (ca_splitter){ 0 };
}

/* The first match from at->pos on. */
static ca_status find(ca_splitter *s, const ca_pretok_stage *stage, ca_cursor *at)
{
    at->match_from = at->match_to = at->limit;
    if (at->pos == at->limit) return CA_OK;
    /* From a start the known patterns walk over the text ahead a fixed number of times. */
    const size_t steps = 64 + 16 * (at->limit - at->pos);
    (void)pcre2_set_match_limit(s->limits, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    const PCRE2_SPTR text = (PCRE2_SPTR)s->text + at->base;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    for (uint32_t options = PCRE2_NO_UTF_CHECK; rc == PCRE2_ERROR_JIT_STACKLIMIT; options |= PCRE2_NO_JIT)
        rc = pcre2_match(stage->code, text, at->limit - at->base, at->pos - at->base, options, s->match, s->limits);
    if (rc == PCRE2_ERROR_NOMATCH) return CA_OK;
    const PCRE2_SIZE *found = pcre2_get_ovector_pointer(s->match);
    if (rc < 0 || found[0] >= found[1] || found[0] < at->pos - at->base)
        return ca_fail(CA_E_UNSUPPORTED, "tokenize: a pattern of the pre-tokenizer fails at byte %zu of the text: pcre2 error %d",
                       at->pos, rc < 0 ? rc : 0);
    at->match_from = at->base + found[0];
    at->match_to = at->base + found[1];
    return CA_OK;
}

static ca_status enter(ca_splitter *s, size_t level, size_t from, size_t to)
{
    s->at[level] = (ca_cursor){ .base = from, .pos = from, .limit = to };
    return find(s, &s->pretok->stages[level], &s->at[level]);
}

static bool next_is_match(const ca_pretok_stage *stage, const ca_cursor *at)
{
    return (at->pos == at->match_from) != stage->invert;
}

/* Steps over one match, or the text up to one. */
static ca_status step(ca_splitter *s, const ca_pretok_stage *stage, ca_cursor *at)
{
    if (at->pos < at->match_from) {
        at->pos = at->match_from;
        return CA_OK;
    }
    at->pos = at->match_to;
    return find(s, stage, at);
}

/* The next piece of a stage ends at at->pos. */
static ca_status next_of(ca_splitter *s, const ca_pretok_stage *stage, ca_cursor *at, bool *kept)
{
    const bool match = next_is_match(stage, at);
    CA_TRY(step(s, stage, at));
    *kept = stage->behavior != CA_REMOVED || !match;
    bool more = at->pos < at->limit;
    switch (stage->behavior) {
    case CA_ISOLATED:
    case CA_REMOVED: break;
    case CA_CONTIGUOUS:
        for (; more && next_is_match(stage, at) == match; more = at->pos < at->limit) CA_TRY(step(s, stage, at));
        break;
    case CA_MERGED_WITH_PREVIOUS:
        if (more && !match && next_is_match(stage, at)) CA_TRY(step(s, stage, at));
        break;
    case CA_MERGED_WITH_NEXT:
        if (more && match && !next_is_match(stage, at)) CA_TRY(step(s, stage, at));
        break;
    }
    return CA_OK;
}

ca_status ca_splitter_start(ca_splitter *splitter, const char *text, size_t n)
{
    splitter->text = text;
    splitter->rest = n;
    memset(splitter->at, 0, sizeof splitter->at);
    return splitter->pretok->n ? enter(splitter, 0, 0, n) : CA_OK;
}

ca_status ca_splitter_next(ca_splitter *splitter, size_t *from, size_t *to)
{
    const size_t n_stages = splitter->pretok->n;
    if (n_stages == 0) {
        *from = 0;
        *to = splitter->rest;
        splitter->rest = 0;
        return CA_OK;
    }
    for (size_t level = n_stages - 1;;) {
        ca_cursor *at = &splitter->at[level];
        if (at->pos == at->limit) { /* nothing left: to the stage before */
            *from = *to = at->pos;
            if (level-- == 0) return CA_OK;
            continue;
        }
        bool kept;
        *from = at->pos;
        CA_TRY(next_of(splitter, &splitter->pretok->stages[level], at, &kept));
        *to = at->pos;
        if (kept && level + 1 == n_stages) return CA_OK;
        if (kept) CA_TRY(enter(splitter, ++level, *from, *to));
    }
}
