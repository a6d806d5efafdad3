#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretok.h"

#include <pcre2.h>
#include <stdio.h>
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

static ca_status unsupported(ca_str name, const char *file)
{
    char known[128] = "";
    size_t at = 0;
    for (size_t i = 0; i < N_SPECS && at < sizeof known; i++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", specs[i].name);
    char shown[72];
    ca_str_text(name, shown, sizeof shown);
    return ca_fail(CA_E_UNSUPPORTED, "%s: tokenizer.ggml.pre: pre-tokenizer '%s' is not supported; known: %s", file, shown, known);
}

ca_status ca_pretok_open(ca_str name, const char *file, ca_pretok *out)
{
    const ca_pretok_spec *spec = NULL;
    for (size_t i = 0; i < N_SPECS && !spec; i++)
        if (strlen(specs[i].name) == name.len && memcmp(specs[i].name, name.data, name.len) == 0) spec = &specs[i];
    if (!spec) return unsupported(name, file);

    int error;
    PCRE2_SIZE where;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)spec->pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED,
                                     &error, &where, NULL);
    if (!code)
        return ca_fail(error == PCRE2_ERROR_HEAP_FAILED ? CA_E_MEMORY : CA_E_UNSUPPORTED,
                       "pre-tokenizer %s: pcre2 cannot compile its pattern: error %d at byte %zu", spec->name, error, where);
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* where pages may not become code, the interpreter runs */
    *out = (ca_pretok){ .spec = spec, .code = code };
    return CA_OK;
}

void ca_pretok_close(ca_pretok *pretok)
{
    pcre2_code_free(pretok->code);
    pretok->code = NULL;
}

ca_status ca_splitter_open(const ca_pretok *pretok, ca_splitter *out)
{
    *out = (ca_splitter){ .pretok = pretok, .match = pcre2_match_data_create(1, NULL), .limits = pcre2_match_context_create(NULL) };
    if (!out->match || !out->limits) {
        ca_splitter_close(out);
        return ca_fail(CA_E_MEMORY, "tokenize: no memory for the pattern matcher");
    }
    pcre2_set_heap_limit(out->limits, 1024); /* KiB; no pattern here nests, so frames are few on any text */
    pcre2_set_depth_limit(out->limits, 64);
    return CA_OK;
}

void ca_splitter_close(ca_splitter *splitter)
{
    pcre2_match_data_free(splitter->match);
    pcre2_match_context_free(splitter->limits);
    *splitter = (ca_splitter){ 0 };
}

ca_status ca_splitter_next(ca_splitter *splitter, const char *text, size_t n, size_t start, size_t *end)
{
    /* Each pattern walks over the text ahead a fixed number of times. */
    const size_t steps = 64 + 4 * (n - start);
    pcre2_set_match_limit(splitter->limits, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    const int rc = pcre2_match(splitter->pretok->code, (PCRE2_SPTR)text, n, start, PCRE2_NO_UTF_CHECK, splitter->match,
                               splitter->limits);
    if (rc < 0)
        return ca_fail(CA_E_UNSUPPORTED, "pre-tokenizer %s: pcre2 error %d at byte %zu of the text", splitter->pretok->spec->name,
                       rc, start);
    *end = pcre2_get_ovector_pointer(splitter->match)[1];
    return CA_OK;
}
