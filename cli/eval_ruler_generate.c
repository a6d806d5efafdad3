/* compactattn eval ruler generate: RULER's prompts, in the published folder layout. */
#include "commands.h"
#include "eval/ruler.h"
#include "interrupt.h"
#include "measure.h"
#include "message.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct work {
    const struct options *options;
    struct ruler_source source;
    unsigned tasks;
    size_t lengths[RULER_LENGTHS], n_lengths;
    struct ruler_made made;
};

static int print_json(const struct work *work, bool essay)
{
    json_t *tasks = json_array(), *lengths = json_array();
    for (size_t t = 0; t < RULER_TASKS; t++) {
        if (work->made.tasks >> t & 1) json_array_append_new(tasks, json_string(ruler_tasks[t].name));
    }
    for (size_t i = 0; i < work->n_lengths; i++) json_array_append_new(lengths, json_integer((json_int_t)work->lengths[i]));
    json_t *root = json_pack("{s:o, s:s, s:s, s:s*, s:o, s:o, s:I, s:O}", "root", json_text(work->options->out), "profile",
                             work->options->profile, "template", work->source.wrapper_name, "haystack",
                             !essay               ? NULL
                             : work->source.essay ? "essay"
                                                  : "public-domain",
                             "tasks", tasks, "lengths", lengths, "samples", (json_int_t)work->source.n_samples, "skipped",
                             work->made.skipped);
    if (!root) return fail("no memory for the result");
    json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
    return EXIT_DONE;
}

static int print_result(const struct work *work)
{
    bool essay = false;
    size_t n_tasks = 0;
    for (size_t t = 0; t < RULER_TASKS; t++) {
        essay |= (work->made.tasks >> t & 1) && ruler_tasks[t].essay;
        n_tasks += work->made.tasks >> t & 1;
    }
    if (work->options->json) return print_json(work, essay);
    printf("%s: %zu task%s x %zu length%s x %zu samples, template %s, profile %s%s", work->options->out, n_tasks,
           n_tasks == 1 ? "" : "s", work->n_lengths, work->n_lengths == 1 ? "" : "s", work->source.n_samples,
           work->source.wrapper_name, work->options->profile, essay && !work->source.essay ? ", haystack=public-domain" : "");
    const size_t n_skipped = json_object_size(work->made.skipped);
    if (n_skipped > 0) printf("; %zu of %zu datasets are skipped", n_skipped, n_skipped + work->made.n_files);
    putchar('\n');
    return EXIT_DONE;
}

static int generate(struct work *work, const ca_tokenizer *tokenizer)
{
    const struct options *options = work->options;
    char *wrapper = NULL;
    const char *name = options->template ? options->template : ruler_wrapper_name(tokenizer);
    int code = ruler_wrapper(name, tokenizer, &wrapper);
    if (code != EXIT_DONE) return code;
    work->source = (struct ruler_source){
        .profile = strcmp(options->profile, "upstream") == 0 ? RULER_UPSTREAM : RULER_REFERENCE,
        .wrapper = wrapper,
        .wrapper_name = name,
        .essay = options->essay,
        .squad = options->squad,
        .hotpotqa = options->hotpotqa,
        .seed = (uint32_t)options->data_seed,
        .n_samples = (size_t)options->samples,
    };
    interrupt_catch();
    code = ruler_make_data(options->out, &work->source, tokenizer, work->tasks, work->lengths, work->n_lengths, false, &work->made);
    if (code == EXIT_DONE) code = print_result(work);
    json_decref(work->made.skipped);
    free(wrapper);
    return code;
}

static int run(const struct options *options)
{
    struct work work = { .options = options };
    ca_tokenizer *tokenizer = NULL;
    int code = ruler_select(options->tasks, &work.tasks);
    if (code == EXIT_DONE) code = ruler_parse_lengths(options->ruler_lengths, work.lengths, &work.n_lengths);
    if (code != EXIT_DONE) return code;
    const ca_status status = ca_tokenizer_open(options->model, &tokenizer);
    if (status != CA_OK) return fail_library(status);
    code = generate(&work, tokenizer);
    ca_tokenizer_close(tokenizer);
    return code;
}

const struct command command_eval_ruler_generate = {
    .name = "eval ruler generate",
    .summary = "Make RULER's prompts",
    .synopsis = "-m MODEL --out DIR [OPTIONS]",
    .details =
        "Writes DIR/synthetic/LENGTH/data/TASK/validation.jsonl, for the tokenizer of MODEL (a GGUF file, a Hugging Face folder or a\n"
        "tokenizer.json), and DIR/manifest.json, which says what they were made from. The rows are those of the published generators,\n"
        "byte for byte, for the same tokenizer, template, length and seed (the essay tasks: as far as sentences end alike). Files that\n"
        "are there already are checked and kept, so a stopped command can be given again. The qa tasks need --squad and --hotpotqa. A task\n"
        "that does not fit a length is skipped there, by name; manifest.json says why.\n\n"
        "Examples:\n"
        "  compactattn eval ruler generate -m model.gguf --tasks niah_single_1,vt --lengths 1024,4096 --samples 50 --out ruler\n"
        "  compactattn eval ruler generate -m model.gguf --essay PaulGrahamEssays.json --squad squad.json --hotpotqa hotpotqa.json \\\n"
        "      --lengths 32768,65536,131072 --out ruler",
    .bit = CMD_RULER_GENERATE,
    .run = run,
};
