/* compactattn eval longbench: answers LongBench-v2's questions with every method, and scores the answers. */
#include "commands.h"
#include "eval/longbench_run.h"
#include "eval/longbench_summary.h"
#include "folder.h"
#include "interrupt.h"
#include "measure.h"
#include "message.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OWN_METHODS "dense,flashprefill+compactattn,flashprefill+auto"

struct work {
    const struct options *options;
    struct engine engine;
    struct longbench_data data;
    struct sweep *methods; /* [RULER_METHODS] */
    size_t n_methods;
    size_t shard, n_shards;
    size_t n_left_out;
};

/* "0/4" */
static int parse_shard(const char *text, struct work *work)
{
    char *slash, *end;
    const unsigned long shard = strtoul(text, &slash, 10);
    const unsigned long n = *slash == '/' ? strtoul(slash + 1, &end, 10) : 0;
    const bool digits = strspn(text, "0123456789/") == strlen(text) && slash > text;
    if (!digits || n == 0 || *end || n > 1000000 || shard >= n)
        return usage_error("--shard %s: expected I/N with I from 0 to N - 1, as 0/4", text);
    work->shard = shard;
    work->n_shards = n;
    return EXIT_DONE;
}

static int parse(const struct command *command, struct work *work)
{
    const struct options *options = work->options;
    const bool official = strcmp(options->prompt_form, "official") == 0;
    if (options->cot && !official) return usage_error("--cot: the published evaluation has none; it goes with --prompt official");
    if ((options->chat_template || options->thinking) && !official)
        return usage_error("--chat-template and --thinking: the reference's prompt is no chat; they go with --prompt official");
    int code = parse_shard(options->shard, work);
    if (code != EXIT_DONE) return code;
    work->methods = calloc(RULER_METHODS, sizeof *work->methods);
    if (!work->methods) return fail("no memory for the methods");
    code = sweep_choose(command, options, OWN_METHODS, work->methods, RULER_METHODS, &work->n_methods);
    for (size_t m = 0; m < work->n_methods; m++)
        if (!work->methods[m].options.last_chunk) work->methods[m].options.last_chunk = "merge";
    return code;
}

/* The data is read before the model is opened: what is wrong with it is told first. */
static int answer(const struct command *command, struct work *work)
{
    const struct options *options = work->options;
    int code = parse(command, work);
    if (code == EXIT_DONE) code = longbench_read(options->data, &work->data);
    if (code == EXIT_DONE) code = engine_open(options, &work->engine);
    if (code != EXIT_DONE) return code;
    const struct longbench_grid grid = {
        .options = options,
        .style = progress_style(options->progress, PROGRESS_LINES),
        .data = &work->data,
        .methods = work->methods,
        .n_methods = work->n_methods,
        .shard = work->shard,
        .n_shards = work->n_shards,
    };
    interrupt_catch();
    return longbench_run(&work->engine, &grid, &work->n_left_out);
}

/* Also what was left out makes the command fail, once all the rest is done. */
static int leave(struct work *work, int code)
{
    const size_t n = work->data.n_bad + work->n_left_out;
    engine_close(&work->engine);
    longbench_data_free(&work->data);
    free(work->methods);
    return code == EXIT_DONE && n > 0 ? EXIT_FAILED : code;
}

static int run_answers(const struct options *options)
{
    struct work work = { .options = options };
    int code = answer(&command_eval_longbench_run, &work);
    const size_t n_left_out = work.data.n_bad + work.n_left_out;
    if (code == EXIT_DONE && options->json)
        code = json_print(json_pack("{s:o, s:I}", "out", json_text(options->out), "left_out", (json_int_t)n_left_out));
    else if (code == EXIT_DONE)
        printf(
            "Answers are in %s, a file pred*.jsonl for each method; compactattn eval longbench score --pred FILE says what they are "
            "worth\n",
            options->out);
    return leave(&work, code);
}

/* Adds the methods whose answers earlier calls have left in the folder. */
static void add_earlier(const char *folder, struct strings *names)
{
    struct dirent **entries = NULL;
    const int n = scandir(folder, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char path[RULER_PATH];
        struct strings paths = { 0 };
        bool known = entries[i]->d_name[0] == '.';
        for (size_t m = 0; m < names->n; m++) known = known || strcmp(names->items[m], entries[i]->d_name) == 0;
        const bool fits = snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name) < RULER_PATH;
        if (!known && fits && folder_is_there(path) && longbench_answers(path, &paths) == EXIT_DONE && paths.n > 0)
            strings_add(names, entries[i]->d_name);
        strings_free(&paths);
        free(entries[i]);
    }
    free(entries);
}

static int compare(const struct work *work)
{
    struct strings names = { 0 };
    size_t n_bad = 0;
    for (size_t m = 0; m < work->n_methods; m++) {
        char name[RULER_NAME];
        ruler_name(&work->methods[m], name);
        strings_add(&names, name);
    }
    add_earlier(work->options->out, &names);
    const int code = names.failed ? fail("no memory for the methods")
                                  : longbench_compare(work->options->out, names.items, names.n, &work->data,
                                                      work->options->official, work->options->json, &n_bad);
    strings_free(&names);
    return code == EXIT_DONE && n_bad > 0 ? EXIT_FAILED : code;
}

static int run_all(const struct options *options)
{
    struct work work = { .options = options };
    int code = answer(&command_eval_longbench, &work);
    if (code == EXIT_DONE) code = compare(&work);
    return leave(&work, code);
}

const struct command command_eval_longbench_run = {
    .name = "eval longbench run",
    .summary = "Answer LongBench-v2's questions with every method",
    .synopsis = "-m MODEL --data FILE --out DIR [OPTIONS]",
    .details =
        "Reads LongBench-v2's data.json, or one such item a line (_id, domain, sub_domain, difficulty, length, question, choice_A to\n"
        "choice_D, answer, context), and writes DIR/METHOD/pred.jsonl, a line an answer, on disk at once. A stopped command can be given\n"
        "again and goes on. More items and methods may be added to DIR; another model, file or prompt, or another setting of a method\n"
        "that is there, are refused. Items that cannot be used are named and left out; the exit code is then 1.\n\n"
        "Shards write DIR/METHOD/pred.I-of-N.jsonl and may run at the same time; eval longbench score takes all these files. The model\n"
        "writes its most likely tokens. Prompts that are too long lose their middle.\n\n"
        "Examples:\n"
        "  compactattn eval longbench run -m model.gguf --data data.json --methods dense,auto --out answers\n"
        "  compactattn eval longbench run -m model.gguf --data data.json --shard 0/4 --out answers\n"
        "  compactattn eval longbench run -m model.gguf --data data.json --prompt official --cot --out answers.cot",
    .bit = CMD_LONGBENCH_RUN,
    .run = run_answers,
};

const struct command command_eval_longbench = {
    .name = "eval longbench",
    .summary = "Answer LongBench-v2's questions with every method, score the answers",
    .synopsis = "-m MODEL --data FILE --out DIR [OPTIONS]",
    .details =
        "What eval longbench run and score do, one after the other: answers and the published summaries go to DIR/METHOD, a table of\n"
        "all methods to DIR/summary.csv and summary.md. All answers in DIR/METHOD count, those of other shards, too; items of the file\n"
        "without an answer are named. A stopped command can be given again.\n\n"
        "Examples:\n"
        "  compactattn eval longbench -m model.gguf --data data.json --methods dense,auto --out longbench\n"
        "  compactattn eval longbench -m model.gguf --data data.json --length short --limit 20 --max-length 32768 --out quick",
    .bit = CMD_LONGBENCH,
    .run = run_all,
};
