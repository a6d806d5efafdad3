#include "method.h"

#include "message.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Spellings of the executors; the first of each is the one that is printed. */
static const struct {
    const char *name;
    ca_executor value;
} executors[] = {
    { "dense", CA_EXEC_DENSE }, { "block_sparse", CA_EXEC_BLOCK_SPARSE }, { "compactattn", CA_EXEC_COMPACT },
    { "auto", CA_EXEC_AUTO },   { "compactattention", CA_EXEC_COMPACT },  { "compact_attention", CA_EXEC_COMPACT },
};
enum { N_EXECUTORS = sizeof executors / sizeof *executors };

/* Session options that are a plain copy of an integer or a real option. */
static const struct {
    size_t option, session;
} integers[] = {
    { offsetof(struct options, chunk), offsetof(ca_session_opt, chunk) },
    { offsetof(struct options, page), offsetof(ca_session_opt, page_tokens) },
    { offsetof(struct options, sink), offsetof(ca_session_opt, select.flashprefill.sink) },
    { offsetof(struct options, window), offsetof(ca_session_opt, select.flashprefill.window) },
    { offsetof(struct options, min_budget), offsetof(ca_session_opt, select.flashprefill.min_budget) },
    { offsetof(struct options, last_dense), offsetof(ca_session_opt, select.flashprefill.last_dense) },
    { offsetof(struct options, last_mute), offsetof(ca_session_opt, select.flashprefill.last_mute) },
    { offsetof(struct options, stride), offsetof(ca_session_opt, select.xattention.stride) },
    { offsetof(struct options, top_k), offsetof(ca_session_opt, select.minference.top_k) },
    { offsetof(struct options, heads_per_row), offsetof(ca_session_opt, table.heads_per_row) },
    { offsetof(struct options, qblocks_per_row), offsetof(ca_session_opt, table.qblocks_per_row) },
    { offsetof(struct options, dense_prefix), offsetof(ca_session_opt, dense_prefix) },
    { offsetof(struct options, dense_tail), offsetof(ca_session_opt, dense_tail) },
}, reals[] = {
    { offsetof(struct options, alpha), offsetof(ca_session_opt, select.flashprefill.alpha) },
    { offsetof(struct options, query_ratio), offsetof(ca_session_opt, select.quoka.query_ratio) },
    { offsetof(struct options, kv_ratio), offsetof(ca_session_opt, select.quoka.kv_ratio) },
    { offsetof(struct options, head_worth), offsetof(ca_session_opt, worth.heads) },
    { offsetof(struct options, qblock_worth), offsetof(ca_session_opt, worth.qblocks) },
    { offsetof(struct options, whole), offsetof(ca_session_opt, worth.whole) },
};
enum { N_INTEGERS = sizeof integers / sizeof *integers, N_REALS = sizeof reals / sizeof *reals };

static bool same(const char *name, const char *text, size_t length)
{
    return strlen(name) == length && memcmp(name, text, length) == 0;
}

static bool find_executor(const char *text, size_t length, ca_executor *out)
{
    for (size_t i = 0; i < N_EXECUTORS; i++) {
        if (!same(executors[i].name, text, length)) continue;
        *out = executors[i].value;
        return true;
    }
    return false;
}

static bool find_selector(const char *text, size_t length, ca_selector *out)
{
    for (int s = CA_SELECT_NONE; s < CA_SELECT_USER; s++) {
        if (!same(ca_selector_name((ca_selector)s), text, length)) continue;
        *out = (ca_selector)s;
        return true;
    }
    return false;
}

static bool reads_densely(ca_selector selector)
{
    return selector == CA_SELECT_NONE || selector == CA_SELECT_QUOKA;
}

/* A selector and an executor that go together, and their name. */
static bool combine(ca_selector selector, ca_executor executor, struct method *out)
{
    if (reads_densely(selector) != (executor == CA_EXEC_DENSE)) return false;
    *out = (struct method){ .selector = selector, .executor = executor };
    const char *rows = executors[0].name;
    for (size_t i = 0; i < N_EXECUTORS && executors[i].value <= executor; i++) {
        if (executors[i].value == executor) rows = executors[i].name;
    }
    if (selector == CA_SELECT_NONE)
        snprintf(out->name, sizeof out->name, "dense");
    else if (selector == CA_SELECT_QUOKA)
        snprintf(out->name, sizeof out->name, "quoka");
    else
        snprintf(out->name, sizeof out->name, "%s+%s", ca_selector_name(selector), rows);
    return true;
}

/* "dense", "quoka", "auto", "xattention", "flashprefill+compactattn". A lone executor goes with flashprefill, a lone selector with
 * auto. */
static bool parse_name(const char *text, size_t length, struct method *out)
{
    const char *plus = memchr(text, '+', length);
    ca_selector selector = CA_SELECT_FLASHPREFILL;
    ca_executor executor = CA_EXEC_AUTO;
    if (plus) {
        const size_t head = (size_t)(plus - text);
        return find_selector(text, head, &selector) && find_executor(plus + 1, length - head - 1, &executor) &&
               combine(selector, executor, out);
    }
    if (find_executor(text, length, &executor)) {
        if (executor == CA_EXEC_DENSE) selector = CA_SELECT_NONE;
        return combine(selector, executor, out);
    }
    if (!find_selector(text, length, &selector)) return false;
    return combine(selector, reads_densely(selector) ? CA_EXEC_DENSE : CA_EXEC_AUTO, out);
}

int method_from_options(const struct options *options, const char *fallback, struct method *out)
{
    ca_selector selector = CA_SELECT_NONE;
    ca_executor executor = CA_EXEC_DENSE;
    const char *name = options->selector ? options->selector : options->executor ? options->executor : fallback;
    if (!options->selector || !options->executor) {
        if (!parse_name(name, strlen(name), out)) return usage_error("%s is not a method", name);
        return EXIT_DONE;
    }
    (void)find_selector(options->selector, strlen(options->selector), &selector);
    (void)find_executor(options->executor, strlen(options->executor), &executor);
    if (combine(selector, executor, out)) return EXIT_DONE;
    return usage_error("--executor %s does not go with --selector %s: dense goes with none and quoka, the others with the other "
                       "selectors",
                       options->executor, options->selector);
}

int method_choose_list(const struct options *options, const char *fallback, struct method *out, size_t *n)
{
    *n = 0;
    if (options->methods && (options->executor || options->selector))
        return usage_error("--methods and --%s exclude each other", options->executor ? "executor" : "selector");
    if (!options->methods && (options->executor || options->selector)) {
        *n = 1;
        return method_from_options(options, fallback, &out[0]);
    }
    for (const char *at = options->methods ? options->methods : fallback;; at++) {
        const size_t length = strcspn(at, ",");
        struct method method;
        if (!parse_name(at, length, &method))
            return usage_error("unknown method \"%.*s\": known are dense, quoka, and SELECTOR+EXECUTOR such as flashprefill+auto",
                               (int)length, at);
        for (size_t i = 0; i < *n; i++) {
            if (strcmp(out[i].name, method.name) == 0) return usage_error("method %s is listed twice", method.name);
        }
        if (*n == METHOD_MAX) return usage_error("more than %d methods", METHOD_MAX);
        out[(*n)++] = method;
        at += length;
        if (!*at) return EXIT_DONE;
    }
}

/* "T", or "LENGTH:T,LENGTH:T,.." for seer. */
static bool parse_steps(const char *text, ca_seer_opt *out)
{
    out->n_steps = 0;
    for (const char *at = text;; at++) {
        char *end;
        errno = 0;
        const long long length = strtoll(at, &end, 10);
        if (end == at || *end != ':' || errno || length < 1 || length > UINT32_MAX || out->n_steps == CA_SEER_MAX_STEPS)
            return false;
        at = end + 1;
        out->steps[out->n_steps].max_kv = (uint32_t)length;
        out->steps[out->n_steps++].threshold = strtof(at, &end);
        if (end == at) return false;
        at = end;
        if (!*at) return true;
        if (*at != ',') return false;
    }
}

/* Selectors whose threshold is a share of the attention's mass. */
static bool reads_share(ca_selector selector)
{
    return selector == CA_SELECT_XATTENTION || selector == CA_SELECT_ORACLE;
}

/* Methods are compared with one --threshold: those that do not read it take every form of it. */
static int set_threshold(const struct options *options, ca_select_opt *select)
{
    const char *text = options->threshold;
    const bool share = reads_share(select->selector);
    if (!text) return EXIT_DONE;
    char *end;
    ca_seer_opt by_length = select->seer;
    const float value = strtof(text, &end);
    const bool number = end != text && !*end && value >= 0.0F && value <= (options->relative && !share ? FLT_MAX : 1.0F);
    if (!number && !share && parse_steps(text, &by_length)) {
        if (select->selector == CA_SELECT_SEER) select->seer = by_length;
        return EXIT_DONE;
    }
    if (!number)
        return share ? usage_error("--threshold %s: expected a number from 0 to 1 for %s", text, ca_selector_name(select->selector))
                     : usage_error("--threshold %s: expected a number %s, or LENGTH:T,LENGTH:T,..", text,
                                   options->relative ? "from 0 up" : "from 0 to 1");
    select->seer.threshold = select->xattention.threshold = select->oracle.mass = value;
    return EXIT_DONE;
}

/* The options that are given, over the defaults in *out. */
static void copy_numbers(const struct options *options, ca_session_opt *out)
{
    for (size_t i = 0; i < N_INTEGERS; i++) {
        int64_t value;
        memcpy(&value, (const char *)options + integers[i].option, sizeof value);
        const uint32_t narrow = (uint32_t)value; /* the option table keeps it within 32 bits */
        if (value >= 0) memcpy((char *)out + integers[i].session, &narrow, sizeof narrow);
    }
    for (size_t i = 0; i < N_REALS; i++) {
        double value;
        memcpy(&value, (const char *)options + reals[i].option, sizeof value);
        const float narrow = (float)value;
        if (!isnan(value)) memcpy((char *)out + reals[i].session, &narrow, sizeof narrow);
    }
}

ca_attention method_attention(const struct options *options)
{
    return options->attention && strcmp(options->attention, "int8") == 0 ? CA_ATTENTION_INT8 : CA_ATTENTION_NATIVE;
}

const char *method_attention_label(const struct options *options)
{
    return method_attention(options) == CA_ATTENTION_INT8 ? "+int8-attention" : "";
}

int method_session_opt(const struct options *options, const struct method *method, const ca_gate *gate, ca_session_opt *out)
{
    ca_select_opt *select = &out->select;
    ca_gate_opt gate_opt;
    const int64_t page = options->page, stride = options->stride;
    if (page >= 0 && page != 32 && page != 64 && page != 128)
        return usage_error("--page %lld: expected 32, 64 or 128", (long long)page);
    if (stride >= 0 && stride != 8 && stride != 16) return usage_error("--stride %lld: expected 8 or 16", (long long)stride);
    ca_session_defaults(method->executor, out);
    if (select->selector != method->selector) ca_select_defaults(method->selector, select);
    copy_numbers(options, out);
    if (options->sink >= 0) select->trishape.sink = (uint32_t)options->sink;
    if (options->window >= 0) select->trishape.window = (uint32_t)options->window;
    select->flashprefill.free_max = options->free_max;
    select->flashprefill.every_chunk = options->last_scope && strcmp(options->last_scope, "every") == 0;
    select->seer.relative = options->relative;
    select->seer.bare = options->bare;
    out->sparse_first = options->sparse_first;
    out->attention = method_attention(options);
    if (method->selector == CA_SELECT_SEER) {
        if (!gate) return usage_error("--selector seer needs --gate FILE, the model's gate, which compactattn convert gate makes");
        ca_gate_get_opt(gate, &gate_opt);
        select->seer.gate = gate;
        if (options->page < 0) out->page_tokens = gate_opt.block;
    }
    out->context = options->context > 0 ? (uint32_t)options->context : 0;
    out->n_threads = (int)options->threads;
    return set_threshold(options, select);
}

void method_show_defaults(struct options *options)
{
    ca_session_opt session;
    ca_session_defaults(CA_EXEC_AUTO, &session);
    for (size_t i = 0; i < N_INTEGERS; i++) {
        uint32_t value;
        memcpy(&value, (const char *)&session + integers[i].session, sizeof value);
        const int64_t wide = value;
        memcpy((char *)options + integers[i].option, &wide, sizeof wide);
    }
    for (size_t i = 0; i < N_REALS; i++) {
        float value;
        memcpy(&value, (const char *)&session + reals[i].session, sizeof value);
        const double wide = (double)value;
        memcpy((char *)options + reals[i].option, &wide, sizeof wide);
    }
}
