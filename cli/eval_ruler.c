/* compactattn eval ruler: makes RULER's prompts, answers them with every method, scores the answers. */
#include "commands.h"
#include "eval/ruler_run.h"
#include "eval/ruler_summary.h"
#include "interrupt.h"
#include "measure.h"
#include "message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OWN_METHODS "dense,flashprefill+compactattn,flashprefill+auto"

struct work {
    const struct options *options;
    struct engine engine;
    struct sweep *methods; /* [RULER_METHODS] */
    size_t n_methods;
    size_t lengths[RULER_LENGTHS], n_lengths;
    unsigned tasks;
    const char *data;
    char root[RULER_PATH]; /* of the prompts that eval ruler makes; data may point to it */
    bool made;             /* the prompts are its own */
};

/* tasks NULL: those that need no data of others. */
static int parse(const struct command *command, const char *tasks, struct work *work)
{
    work->methods = calloc(RULER_METHODS, sizeof *work->methods);
    if (!work->methods) return fail("no memory for the methods");
    for (size_t t = 0; t < RULER_TASKS; t++) work->tasks |= ruler_tasks[t].essay || ruler_tasks[t].needs_data ? 0 : 1U << t;
    int code = tasks ? ruler_select(tasks, &work->tasks) : EXIT_DONE;
    if (code == EXIT_DONE) code = ruler_parse_lengths(work->options->ruler_lengths, work->lengths, &work->n_lengths);
    if (code == EXIT_DONE) code = sweep_choose(command, work->options, OWN_METHODS, work->methods, RULER_METHODS, &work->n_methods);
    for (size_t m = 0; m < work->n_methods; m++)
        if (!work->methods[m].options.last_chunk) work->methods[m].options.last_chunk = "merge";
    return code;
}

/* with_files: files that are not there count as left out, too. */
static int answer(const struct work *work, bool with_files, size_t *n_left_out)
{
    const struct options *options = work->options;
    const struct ruler_grid grid = {
        .model = options->model,
        .data = work->data,
        .out = options->out,
        .style = progress_style(options->progress, PROGRESS_LINES),
        .tasks = work->tasks,
        .lengths = work->lengths,
        .n_lengths = work->n_lengths,
        .n_samples = (size_t)options->samples,
        .methods = work->methods,
        .n_methods = work->n_methods,
        .holes_told = work->made,
    };
    size_t n_missing = 0;
    interrupt_catch();
    const int code = ruler_run(&work->engine, &grid, n_left_out, &n_missing);
    *n_left_out += with_files ? n_missing : 0;
    return code;
}

static int run_answers(const struct options *options)
{
    struct work work = { .options = options, .data = options->data };
    size_t n_left_out = 0;
    int code = parse(&command_eval_ruler_run, options->tasks, &work);
    if (code == EXIT_DONE) code = engine_open(options, &work.engine);
    /* With "all" it is what is there that counts. */
    if (code == EXIT_DONE) code = answer(&work, strcmp(options->tasks, "all") != 0, &n_left_out);
    if (code == EXIT_DONE && n_left_out > 0) code = EXIT_FAILED;
    if (code == EXIT_DONE && options->json)
        code = json_print(json_pack("{s:o, s:I}", "out", json_text(options->out), "left_out", (json_int_t)n_left_out));
    else if (code == EXIT_DONE)
        printf("Answers are in %s; compactattn eval ruler score %s says what they are worth\n", options->out, options->out);
    engine_close(&work.engine);
    free(work.methods);
    return code;
}

static int run_score(const struct options *options)
{
    return ruler_summary(options->words[0], options->out, options->json);
}

/* Lengths that the model cannot read are told before minutes go into their prompts. */
static int drop_long(struct work *work)
{
    size_t n = 0;
    for (size_t l = 0; l < work->n_lengths; l++) {
        if (work->lengths[l] > work->engine.info.max_context)
            note("length %zu is skipped: the model's context is %u tokens (see --extend)", work->lengths[l],
                 work->engine.info.max_context);
        else
            work->lengths[n++] = work->lengths[l];
    }
    work->n_lengths = n;
    return n > 0 ? EXIT_DONE : fail("no length is left: give others with --lengths");
}

/* Prompts of another number of samples are other files, so each number has a root of its own. */
static int make_prompts(struct work *work)
{
    const struct options *options = work->options;
    const ca_tokenizer *tokenizer = work->engine.tokenizer;
    const char *name = options->template ? options->template : ruler_wrapper_name(tokenizer);
    char *wrapper = NULL;
    if (snprintf(work->root, sizeof work->root, "%s/data/%lld", options->out, (long long)options->samples) >= RULER_PATH)
        return fail("%s: too long a path", options->out);
    int code = ruler_wrapper(name, tokenizer, &wrapper);
    if (code != EXIT_DONE) return code;
    const struct ruler_source source = {
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
    struct ruler_made made;
    code = ruler_make_data(work->root, &source, tokenizer, work->tasks, work->lengths, work->n_lengths, false, &made);
    json_decref(made.skipped);
    work->tasks = made.tasks;
    work->data = work->root;
    work->made = true;
    free(wrapper);
    return code;
}

static int run_all(const struct options *options)
{
    struct work work = { .options = options };
    size_t n_left_out = 0;
    int code = parse(&command_eval_ruler, options->own_tasks, &work);
    if (code == EXIT_DONE) code = engine_open(options, &work.engine);
    if (code == EXIT_DONE) code = drop_long(&work);
    if (code == EXIT_DONE) code = make_prompts(&work);
    if (code == EXIT_DONE) code = answer(&work, true, &n_left_out);
    if (code == EXIT_DONE) code = ruler_summary(options->out, NULL, options->json);
    if (code == EXIT_DONE && n_left_out > 0) code = EXIT_FAILED;
    engine_close(&work.engine);
    free(work.methods);
    return code;
}

const struct command command_eval_ruler_run = {
    .name = "eval ruler run",
    .summary = "Answer RULER's prompts with every method",
    .synopsis = "-m MODEL --data ROOT --out DIR [OPTIONS]",
    .details =
        "Reads ROOT/synthetic/LENGTH/data/TASK/validation.jsonl and writes DIR/METHOD/synthetic/LENGTH/pred/TASK.jsonl, a line an\n"
        "answer, on disk at once. A stopped command can be given again and goes on. More tasks, lengths, samples and methods may be\n"
        "added to DIR; another model, other prompts or another setting of a method that is there are refused. The model writes its\n"
        "most likely tokens, as many as the task allows. Prompts that do not fit its context are told and left out, never cut.\n\n"
        "Examples:\n"
        "  compactattn eval ruler run -m model.gguf --data ruler --lengths 4096 --tasks vt,fwe --out answers\n"
        "  compactattn eval ruler run -m model.gguf --data ruler --methods dense --sweep auto:alpha=0.05,0.1 --out answers",
    .bit = CMD_RULER_RUN,
    .run = run_answers,
};

const struct command command_eval_ruler_score = {
    .name = "eval ruler score",
    .summary = "Score answers to RULER and compare methods",
    .synopsis = "DIR [OPTIONS]",
    .details =
        "Reads DIR/METHOD/synthetic/LENGTH/pred/TASK.jsonl, or DIR/synthetic/.. of one method, as eval ruler run and the published\n"
        "runner write them (index, outputs, pred). Prints a table for each length and writes summary.csv, summary.md and heatmap.png\n"
        "to --out (default: DIR, and then also the published summary.csv beside the answers). Differences from dense are taken answer\n"
        "by answer, with the answers that both have.\n\n"
        "Example:\n"
        "  compactattn eval ruler score answers",
    .bit = CMD_RULER_SCORE,
    .n_words = 1,
    .run = run_score,
};

const struct command command_eval_ruler = {
    .name = "eval ruler",
    .summary = "Make RULER's prompts, answer them with every method, score the answers",
    .synopsis = "-m MODEL --out DIR [OPTIONS]",
    .details =
        "What eval ruler generate, run and score do, one after the other: prompts go to DIR/data/SAMPLES, answers and summaries to DIR.\n"
        "What is there already is kept, so a stopped command can be given again.\n\n"
        "Examples:\n"
        "  compactattn eval ruler -m model.gguf --out ruler\n"
        "  compactattn eval ruler -m model.gguf --tasks all --lengths 1024,4096 --samples 50 --methods dense,quoka,auto --out ruler",
    .bit = CMD_RULER,
    .run = run_all,
};
