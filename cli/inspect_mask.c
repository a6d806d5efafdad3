/* compactattn inspect mask: what block selection does for one head, layer and chunk of a real prompt. */
#include "capture.h"
#include "commands.h"
#include "folder.h"
#include "interrupt.h"
#include "measure.h"
#include "message.h"
#include "method.h"
#include "report/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Shares of the (query, past key) pairs of dense attention. */
struct kept {
    char scope[64];
    double asked, q_union, g_union, executed;
};

enum { N_KEPT = 4 };

struct inspection {
    const struct options *options;
    struct method method;
    struct engine engine;
    struct capture capture;
    uint32_t *ids;
    size_t n_ids;
    struct kept kept[N_KEPT];
};

static double share(uint64_t part, uint64_t all)
{
    return all > 0 ? (double)part / (double)all : 1;
}

static struct kept kept_of(const ca_mask_count *asked, const ca_table_count *executed)
{
    return (struct kept){ .asked = share(asked->asked, asked->dense),
                          .q_union = share(asked->q_union, asked->dense),
                          .g_union = share(asked->g_union, asked->dense),
                          .executed = share(executed->past_pairs, executed->past_pairs_dense) };
}

/* Means over the layers [first, +n): all of them have the same number of pairs. */
static struct kept kept_of_layers(const ca_session *session, uint32_t first, uint32_t n)
{
    struct kept sum = { .scope = "" };
    for (uint32_t l = first; l < first + n; l++) {
        ca_layer_stats stats;
        if (ca_session_get_layer_stats(session, l, &stats) != CA_OK) continue;
        sum.asked += stats.asked / n;
        sum.q_union += stats.q_union / n;
        sum.g_union += stats.g_union / n;
        sum.executed += stats.executed / n;
    }
    return sum;
}

static void measure_kept(struct inspection *in, const ca_session *session)
{
    const struct capture *c = &in->capture;
    in->kept[0] = kept_of(&c->asked, &c->executed);
    in->kept[1] = kept_of(&c->layer_asked, &c->layer_executed);
    in->kept[2] = kept_of_layers(session, c->layer, 1);
    in->kept[3] = kept_of_layers(session, 0, in->engine.info.n_layers);
    snprintf(in->kept[0].scope, sizeof in->kept[0].scope, "heads %u-%u, this chunk", c->first_head, c->first_head + c->group - 1);
    snprintf(in->kept[1].scope, sizeof in->kept[1].scope, "layer %u, this chunk", c->layer);
    snprintf(in->kept[2].scope, sizeof in->kept[2].scope, "layer %u, whole prompt", c->layer);
    snprintf(in->kept[3].scope, sizeof in->kept[3].scope, "all layers, whole prompt");
}

/* What stdout and mask.json share. */
static json_t *summary_json(const struct inspection *in)
{
    const struct capture *c = &in->capture;
    json_t *kept = json_array();
    for (size_t i = 0; i < N_KEPT; i++) {
        const struct kept *k = &in->kept[i];
        json_array_append_new(kept, json_pack("{s:s, s:f, s:f, s:f, s:f}", "scope", k->scope, "asked", k->asked, "q_union",
                                              k->q_union, "g_union", k->g_union, "executed", k->executed));
    }
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "method", in->method.name, "prompt_tokens",
                     (json_int_t)in->n_ids, "layer", (json_int_t)c->layer, "head", (json_int_t)c->head, "kv_head",
                     (json_int_t)(c->head / c->group), "first_token", (json_int_t)c->mask.first_token, "n_tokens",
                     (json_int_t)c->mask.n_tokens, "page_tokens", (json_int_t)c->page_tokens, "n_rows", (json_int_t)c->n_rows,
                     "kept", kept);
}

static int print_kept(const struct inspection *in)
{
    static const struct table_column columns[] = {
        { "share of the past", "scope", -1, NULL }, { "asked", "asked", 3, NULL },       { "Q union", "q_union", 3, NULL },
        { "group union", "g_union", 3, NULL },      { "executed", "executed", 3, NULL },
    };
    if (in->options->json) return json_print(summary_json(in));
    struct table *table = table_create(columns, sizeof columns / sizeof *columns);
    bool ok = table != NULL;
    for (size_t i = 0; ok && i < N_KEPT; i++) {
        const struct kept *k = &in->kept[i];
        ok = table_add(
            table, (const struct table_cell[]){
                       { k->scope, 0 }, { NULL, k->asked }, { NULL, k->q_union }, { NULL, k->g_union }, { NULL, k->executed } });
    }
    if (ok) {
        const struct capture *c = &in->capture;
        printf("%s, prompt of %zu tokens; layer %u, head %u, tokens %u to %u\n\n", in->method.name, in->n_ids, c->layer, c->head,
               c->mask.first_token, c->mask.first_token + c->mask.n_tokens - 1);
        table_write_text(table, stdout);
        printf("\nWritten to %s: mask.png, mask.json\n", in->options->out);
    }
    table_free(table);
    return ok ? EXIT_DONE : fail("no memory for the table");
}

static int write_files(const struct inspection *in)
{
    const char *folder = in->options->out;
    char path[FOLDER_PATH];
    const char *why = folder_path(folder, "mask.png", path) ? capture_draw(&in->capture, path) : "the path is too long";
    if (why) return folder_cannot_write(folder, "mask.png", why);
    json_t *json = summary_json(in);
    if (json) capture_json(&in->capture, json);
    const bool written = json && folder_path(folder, "mask.json", path) && json_dump_file(json, path, JSON_REAL_PRECISION(5)) == 0;
    json_decref(json);
    return written ? EXIT_DONE : folder_cannot_write(folder, "mask.json", "the write failed");
}

/* Why there is nothing to show. */
static int nothing_taken(const struct inspection *in)
{
    const uint32_t chunk = in->capture.chunk;
    const size_t n_chunks = (in->n_ids + chunk - 1) / chunk;
    if (in->capture.failed) return fail("no memory for the mask");
    if (in->options->chunk_index >= (int64_t)n_chunks)
        return usage_error("--chunk-index %lld: the prompt has %zu chunks of %u tokens, counted from 0",
                           (long long)in->options->chunk_index, n_chunks, chunk);
    if (in->options->chunk_index == 0)
        return fail("chunk 0 is read densely, as it has no past: choose a later one with --chunk-index, or add --sparse-first");
    if (in->options->chunk_index > 0)
        return fail("chunk %lld is read densely, as all of it lies in the dense prefix or tail: choose another with --chunk-index",
                    (long long)in->options->chunk_index);
    return fail("the selector has nothing to choose in a prompt of %zu tokens: give a longer text, or a smaller --chunk than %u",
                in->n_ids, chunk);
}

static int run_prompt(struct inspection *in)
{
    const ca_prefill_opt hooks = { .user = &in->capture, .on_trace = capture_trace };
    ca_session_opt opt;
    ca_session *session = NULL;
    int code = engine_session_opt(&in->engine, in->options, &in->method, in->n_ids, 0, &opt);
    if (code != EXIT_DONE) return code;
    in->capture.chunk = opt.chunk;
    in->capture.page_tokens = opt.page_tokens;
    code = engine_session(&in->engine, in->options, &in->method, in->n_ids, 0, &session);
    if (code != EXIT_DONE) return code;
    interrupt_catch();
    const ca_status status = measure_feed(session, in->ids, in->n_ids, in->method.name,
                                          progress_style(in->options->progress, PROGRESS_OFF), &hooks);
    if (status != CA_OK)
        code = fail_library(status);
    else if (!in->capture.taken)
        code = nothing_taken(in);
    else
        measure_kept(in, session);
    ca_session_destroy(session);
    if (code == EXIT_DONE) code = write_files(in);
    return code == EXIT_DONE ? print_kept(in) : code;
}

/* Layer and head against the model. */
static int choose_place(struct inspection *in)
{
    const ca_model_info *info = &in->engine.info;
    const struct options *options = in->options;
    if (options->layer >= info->n_layers)
        return usage_error("--layer %lld: the model has %u layers, counted from 0", (long long)options->layer, info->n_layers);
    if (options->head >= info->n_heads)
        return usage_error("--head %lld: the model has %u query heads, counted from 0", (long long)options->head, info->n_heads);
    in->capture.layer = options->layer >= 0 ? (uint32_t)options->layer : info->n_layers / 2;
    in->capture.head = (uint32_t)options->head;
    in->capture.group = info->n_heads / info->n_kv_heads;
    in->capture.index = options->chunk_index;
    return EXIT_DONE;
}

static int run(const struct options *options)
{
    struct inspection in = { .options = options };
    char *text = NULL;
    size_t size = 0;
    int code = method_from_options(options, "auto", &in.method);
    if (code == EXIT_DONE && in.method.executor == CA_EXEC_DENSE)
        return usage_error("%s has no block mask to show: choose a --selector that scores blocks, such as flashprefill",
                           in.method.name);
    if (code == EXIT_DONE) code = folder_prepare(options->out, "mask.json");
    if (code == EXIT_DONE) code = engine_read_text(options->file, &text, &size);
    if (code == EXIT_DONE) code = engine_open(options, &in.engine);
    if (code == EXIT_DONE) code = choose_place(&in);
    if (code == EXIT_DONE) code = engine_tokenize(&in.engine, text, size, CA_TOK_ADD_BOS, &in.ids, &in.n_ids);
    if (code == EXIT_DONE && in.n_ids == 0) code = fail("%s: the text is empty", options->file);
    if (code == EXIT_DONE) code = run_prompt(&in);
    capture_free(&in.capture);
    ca_free(in.ids);
    engine_close(&in.engine);
    free(text);
    return code;
}

const struct command command_inspect_mask = {
    .name = "inspect mask",
    .summary = "Draw what a selector chooses in one layer of a prompt, and what is read",
    .synopsis = "-m MODEL -f FILE --out FOLDER [--layer N] [--head N] [OPTIONS]",
    .details =
        "Reads the text with the method and looks at one query head of one layer and chunk. mask.png shows, from top to bottom, how\n"
        "each Q block scores each K block, the block mask, the union over the Q blocks for each head of the KV head, the union over\n"
        "these heads, and the rows of the page table as they were executed. mask.json holds the same as numbers.\n\n"
        "Printed are shares of the past that were kept: as the heads and Q blocks asked, after the Q-block union, after the group\n"
        "union, and executed. auto may execute less than the group union (finer rows) or more (dense rows).\n\n"
        "Examples:\n"
        "  compactattn inspect mask -m model.gguf -f book.txt --out look\n"
        "  compactattn inspect mask -m model.gguf -f book.txt --out look --layer 3 --head 5 --selector xattention --threshold 0.8",
    .bit = CMD_INSPECT_MASK,
    .run = run,
};
