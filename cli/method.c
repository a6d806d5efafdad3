#include "method.h"

#include "message.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *executor; /* as given to --executor */
    const char *method;
    ca_executor value;
} names[] = {
    { "dense", "dense", CA_EXEC_DENSE },
    { "block_sparse", "flashprefill+block_sparse", CA_EXEC_BLOCK_SPARSE },
    { "compactattn", "flashprefill+compactattn", CA_EXEC_COMPACT },
    { "compactattention", "flashprefill+compactattention", CA_EXEC_COMPACT },
    { "compact_attention", "flashprefill+compact_attention", CA_EXEC_COMPACT },
};

/* Session options that are a plain copy of an integer option. */
static const struct {
    size_t option, session;
} copies[] = {
    { offsetof(struct options, chunk), offsetof(ca_session_opt, chunk) },
    { offsetof(struct options, page), offsetof(ca_session_opt, page_tokens) },
    { offsetof(struct options, sink), offsetof(ca_session_opt, select.flashprefill.sink) },
    { offsetof(struct options, window), offsetof(ca_session_opt, select.flashprefill.window) },
    { offsetof(struct options, min_budget), offsetof(ca_session_opt, select.flashprefill.min_budget) },
    { offsetof(struct options, last_dense), offsetof(ca_session_opt, select.flashprefill.last_dense) },
    { offsetof(struct options, last_mute), offsetof(ca_session_opt, select.flashprefill.last_mute) },
    { offsetof(struct options, heads_per_row), offsetof(ca_session_opt, table.heads_per_row) },
    { offsetof(struct options, dense_tail), offsetof(ca_session_opt, dense_tail) },
};

enum { N_NAMES = sizeof names / sizeof *names, N_COPIES = sizeof copies / sizeof *copies };

const char *method_name(ca_executor executor)
{
    for (size_t i = 0; i < N_NAMES; i++) {
        if (names[i].value == executor) return names[i].method;
    }
    return "unknown";
}

int method_from_options(const struct options *options, ca_executor fallback, ca_executor *out)
{
    *out = fallback;
    for (size_t i = 0; options->executor && i < N_NAMES; i++) {
        if (strcmp(options->executor, names[i].executor) == 0) *out = names[i].value;
    }
    if (!options->selector) return EXIT_DONE;
    const bool selects = strcmp(options->selector, "none") != 0;
    if (!options->executor && selects != (*out != CA_EXEC_DENSE)) *out = selects ? CA_EXEC_COMPACT : CA_EXEC_DENSE;
    if (selects == (*out != CA_EXEC_DENSE)) return EXIT_DONE;
    return usage_error("--executor %s does not go with --selector %s: dense reads everything, the others need flashprefill",
                       options->executor, options->selector);
}

static bool find(const char *name, size_t length, ca_executor *out)
{
    for (size_t i = 0; i < N_NAMES; i++) {
        const char *const forms[] = { names[i].executor, names[i].method };
        for (size_t f = 0; f < 2; f++) {
            if (strlen(forms[f]) == length && memcmp(forms[f], name, length) == 0) {
                *out = names[i].value;
                return true;
            }
        }
    }
    return false;
}

static int parse_list(const char *list, ca_executor *out, size_t *n)
{
    *n = 0;
    for (const char *at = list;; at++) {
        const size_t length = strcspn(at, ",");
        ca_executor executor;
        if (!find(at, length, &executor))
            return usage_error("unknown method \"%.*s\": known are dense, flashprefill+block_sparse, flashprefill+compactattn",
                               (int)length, at);
        for (size_t i = 0; i < *n; i++) {
            if (out[i] == executor) return usage_error("method %s is listed twice", method_name(executor));
        }
        out[(*n)++] = executor;
        at += length;
        if (!*at) return EXIT_DONE;
    }
}

int method_choose_list(const struct options *options, ca_executor *out, size_t *n)
{
    if (options->methods) return parse_list(options->methods, out, n);
    if (!options->executor && !options->selector) return parse_list("dense,block_sparse,compactattn", out, n);
    *n = 1;
    return method_from_options(options, CA_EXEC_COMPACT, &out[0]);
}

void method_session_opt(const struct options *options, ca_executor executor, ca_session_opt *out)
{
    ca_session_defaults(executor, out);
    for (size_t i = 0; i < N_COPIES; i++) {
        int64_t value;
        memcpy(&value, (const char *)options + copies[i].option, sizeof value);
        const uint32_t narrow = (uint32_t)value; /* the option table keeps it within 32 bits */
        if (value >= 0) memcpy((char *)out + copies[i].session, &narrow, sizeof narrow);
    }
    if (!isnan(options->alpha)) out->select.flashprefill.alpha = (float)options->alpha;
    out->context = options->context > 0 ? (uint32_t)options->context : 0;
    out->n_threads = (int)options->threads;
}

void method_show_defaults(struct options *options)
{
    ca_session_opt session;
    ca_session_defaults(CA_EXEC_COMPACT, &session);
    for (size_t i = 0; i < N_COPIES; i++) {
        uint32_t value;
        memcpy(&value, (const char *)&session + copies[i].session, sizeof value);
        const int64_t wide = value;
        memcpy((char *)options + copies[i].option, &wide, sizeof wide);
    }
    options->alpha = (double)session.select.flashprefill.alpha;
}
