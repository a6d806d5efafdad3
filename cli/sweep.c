#include "sweep.h"

#include "message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int parse_method(const struct options *options, const char *text, size_t length, struct method *out)
{
    struct options one = *options;
    struct method list[METHOD_MAX];
    char name[SWEEP_TEXT];
    size_t n = 0;
    if (length >= sizeof name) return usage_error("--sweep %s: too long", text);
    snprintf(name, sizeof name, "%.*s", (int)length, text);
    one.methods = name;
    one.selector = one.executor = NULL;
    const int code = method_choose_list(&one, "dense", list, &n);
    if (code != EXIT_DONE) return code;
    *out = list[0];
    return n == 1 ? EXIT_DONE : usage_error("--sweep %s: one method at a time", text);
}

int sweep_add(const struct command *command, const struct options *options, const char *text, struct sweep *entries, size_t cap,
              size_t *n)
{
    struct method method;
    const size_t length = strcspn(text, ":");
    const int code = parse_method(options, text, length, &method);
    if (code != EXIT_DONE) return code;
    const char *name = text[length] ? text + length + 1 : NULL, *equals = name ? strchr(name, '=') : NULL;
    if (name && !equals) return usage_error("--sweep %s: expected METHOD:OPTION=V,V,..", text);
    for (const char *at = equals ? equals + 1 : "";; at++) {
        const size_t value = strcspn(at, ",");
        if (*n == cap || value >= SWEEP_VALUE) return usage_error("--sweep %s: too many or too long values", text);
        struct sweep *entry = &entries[*n];
        *entry = (struct sweep){ .method = method, .options = *options };
        if (equals) {
            snprintf(entry->value, sizeof entry->value, "%.*s", (int)value, at);
            snprintf(entry->setting, sizeof entry->setting, "%.*s=%s", (int)(equals - name), name, entry->value);
            const int set = options_set(command, name, (size_t)(equals - name), entry->value, &entry->options);
            if (set != EXIT_DONE) return set;
        }
        ++*n;
        at += value;
        if (!*at) return EXIT_DONE;
    }
}

int sweep_choose(const struct command *command, const struct options *options, const char *fallback, struct sweep *entries,
                 size_t cap, size_t *n)
{
    struct method list[METHOD_MAX];
    size_t n_list = 0;
    const bool only_sweeps = options->sweeps.n > 0 && !options->methods && !options->selector && !options->executor;
    int code = only_sweeps ? EXIT_DONE : method_choose_list(options, fallback, list, &n_list);
    for (size_t i = 0; i < n_list && code == EXIT_DONE; i++) code = sweep_add(command, options, list[i].name, entries, cap, n);
    for (size_t i = 0; i < options->sweeps.n && code == EXIT_DONE; i++)
        code = sweep_add(command, options, options->sweeps.items[i], entries, cap, n);
    for (size_t i = 0; i < *n && code == EXIT_DONE; i++) {
        const struct sweep *a = &entries[i];
        for (const struct sweep *b = entries; b < a && code == EXIT_DONE; b++)
            if (strcmp(a->method.name, b->method.name) == 0 && strcmp(a->setting, b->setting) == 0)
                code = usage_error("method %s%s%s is listed twice", a->method.name, *a->setting ? "," : "", a->setting);
    }
    return code;
}

/* A float as the decimal number that was meant: 0.12F is 0.12. */
static json_t *decimal(float value)
{
    char text[32];
    snprintf(text, sizeof text, "%.7g", (double)value);
    return json_real(strtod(text, NULL));
}

static json_t *seer_steps(const ca_seer_opt *seer)
{
    json_t *steps = json_array();
    for (uint32_t i = 0; steps && i < seer->n_steps; i++)
        json_array_append_new(steps, json_pack("{s:I, s:o}", "max_kv", (json_int_t)seer->steps[i].max_kv, "threshold",
                                               decimal(seer->steps[i].threshold)));
    return steps;
}

static json_t *selector_settings(const ca_select_opt *s)
{
    const ca_flashprefill_opt *f = &s->flashprefill;
    switch (s->selector) {
    case CA_SELECT_FLASHPREFILL:
        return json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "alpha", decimal(f->alpha), "sink", (json_int_t)f->sink,
                         "window", (json_int_t)f->window, "last_dense", (json_int_t)f->last_dense, "last_mute",
                         (json_int_t)f->last_mute, "min_budget", (json_int_t)f->min_budget, "free_max", (int)f->free_max,
                         "every_chunk", (int)f->every_chunk);
    case CA_SELECT_SEER:
        return json_pack("{s:o, s:o, s:b, s:b}", "threshold", decimal(s->seer.threshold), "steps", seer_steps(&s->seer), "relative",
                         (int)s->seer.relative, "bare", (int)s->seer.bare);
    case CA_SELECT_QUOKA:
        return json_pack("{s:o, s:o}", "query_ratio", decimal(s->quoka.query_ratio), "kv_ratio", decimal(s->quoka.kv_ratio));
    case CA_SELECT_XATTENTION:
        return json_pack("{s:I, s:o}", "stride", (json_int_t)s->xattention.stride, "threshold", decimal(s->xattention.threshold));
    case CA_SELECT_MINFERENCE: return json_pack("{s:I}", "top_k", (json_int_t)s->minference.top_k);
    case CA_SELECT_TRISHAPE:
        return json_pack("{s:I, s:I}", "sink", (json_int_t)s->trishape.sink, "window", (json_int_t)s->trishape.window);
    case CA_SELECT_ORACLE: return json_pack("{s:o}", "mass", decimal(s->oracle.mass));
    case CA_SELECT_NONE:
    case CA_SELECT_USER: break;
    }
    return json_object();
}

/* What the executor reads besides the mask; an empty object for those that need no more. */
static json_t *executor_settings(const ca_kern *kern, const ca_session_opt *opt)
{
    ca_cost usual;
    if (opt->executor == CA_EXEC_COMPACT)
        return json_pack("{s:I, s:I}", "heads_per_row", (json_int_t)opt->table.heads_per_row, "qblocks_per_row",
                         (json_int_t)opt->table.qblocks_per_row);
    if (opt->executor != CA_EXEC_AUTO) return json_object();
    ca_cost_defaults(kern, opt->attention, &usual);
    const bool tuned = usual.flop != opt->cost.flop || usual.page_byte != opt->cost.page_byte || usual.job != opt->cost.job;
    return json_pack(
        "{s:o, s:o, s:o, s:o*}", "head_worth", decimal(opt->worth.heads), "qblock_worth", decimal(opt->worth.qblocks), "whole",
        decimal(opt->worth.whole), "cost",
        tuned ? json_pack("{s:f, s:f, s:f}", "flop", opt->cost.flop, "page_byte", opt->cost.page_byte, "job", opt->cost.job)
              : NULL);
}

json_t *sweep_settings(const ca_kern *kern, const ca_session_opt *opt)
{
    json_t *all = json_pack("{s:I, s:I, s:I, s:I, s:b}", "chunk", (json_int_t)opt->chunk, "page", (json_int_t)opt->page_tokens,
                            "dense_prefix", (json_int_t)opt->dense_prefix, "dense_tail", (json_int_t)opt->dense_tail,
                            "sparse_first", (int)opt->sparse_first);
    json_t *selector = selector_settings(&opt->select), *executor = executor_settings(kern, opt);
    if (all && (json_object_update(all, selector) != 0 || json_object_update(all, executor) != 0)) {
        json_decref(all);
        all = NULL;
    }
    json_decref(selector);
    json_decref(executor);
    if (all && opt->attention != CA_ATTENTION_NATIVE)
        json_object_set_new(all, "attention", json_string(ca_attention_name(opt->attention)));
    return all;
}
