/* compactattn eval longbench score: the published summaries of LongBench-v2's answers. */
#include "commands.h"
#include "eval/longbench_summary.h"
#include "folder.h"
#include "measure.h"
#include "message.h"

#include <stdio.h>
#include <string.h>

static int print(const struct options *options, const struct longbench_tally *tally, json_t *summary)
{
    const char *name;
    json_t *value;
    if (options->json) return json_print(json_incref(summary));
    printf("%zu answers, %zu without a choice; %% right by %s\n", tally->scores.buckets[LONGBENCH_OVERALL].n, tally->scores.nulls,
           tally->official ? "LongBench's own rule" : "the published rules");
    json_object_foreach(summary, name, value) if (json_is_real(value)) printf("%-8s %5.1f\n", name, json_real_value(value));
    json_object_foreach(json_object_get(summary, "domains"), name, value)
        printf("%5.1f  %s (%lld)\n", json_real_value(json_object_get(value, "score")), name,
               (long long)json_integer_value(json_object_get(value, "count")));
    return EXIT_DONE;
}

/* The folder of --out, else that of the first file. */
static int choose_folder(const struct options *options, char folder[FOLDER_PATH])
{
    const char *first = options->predictions.items[0], *slash = strrchr(first, '/');
    const char *name = options->out ? options->out : slash ? first : ".";
    const int length = options->out || !slash ? (int)strlen(name) : (int)(slash - first) + (slash == first);
    return snprintf(folder, FOLDER_PATH, "%.*s", length, name) < FOLDER_PATH ? EXIT_DONE : fail("%s: too long a path", name);
}

/* Missing answers make the command fail only where --data asks for them. */
static int run(const struct options *options)
{
    struct longbench_tally tally = { .official = options->official };
    struct longbench_data data = { 0 };
    const char *first = options->predictions.items[0];
    char folder[FOLDER_PATH];
    json_t *summary = NULL;
    size_t n_missing = 0;
    int code = choose_folder(options, folder);
    if (code == EXIT_DONE && options->data) code = longbench_read(options->data, &data);
    for (size_t i = 0; i < options->predictions.n && code == EXIT_DONE; i++)
        code = longbench_tally_file(&tally, options->predictions.items[i]);
    if (code == EXIT_DONE && !tally.scores.ids) code = fail("%s: no row that can be scored", first);
    if (code == EXIT_DONE) {
        n_missing = longbench_tell_gaps(first, &tally, options->data ? &data : NULL);
        code = folder_prepare(folder, "summary.json");
    }
    if (code == EXIT_DONE) code = longbench_write(folder, &tally, &summary);
    if (code == EXIT_DONE) code = print(options, &tally, summary);
    if (code == EXIT_DONE && (tally.n_bad > 0 || n_missing > 0)) code = EXIT_FAILED;
    json_decref(summary);
    longbench_tally_free(&tally);
    longbench_data_free(&data);
    return code;
}

const struct command command_eval_longbench_score = {
    .name = "eval longbench score",
    .summary = "Score answers to LongBench-v2",
    .synopsis = "--pred FILE [--pred FILE..] [OPTIONS]",
    .details =
        "Reads JSON lines with _id, answer, difficulty, length, domain and pred_answer or response, as the published runners write\n"
        "them. A row whose pred_answer is missing or null has it taken from its response; of rows with the same _id the first counts.\n"
        "Writes summary.json and summary.csv to --out (default: beside the first file). Rows that cannot be scored are named and\n"
        "left out, and with --data so are items without an answer; the exit code is then 1.\n\n"
        "Examples:\n"
        "  compactattn eval longbench score --pred answers/dense/pred.jsonl --data data.json\n"
        "  compactattn eval longbench score --pred dense.0.jsonl --pred dense.1.jsonl --out scores",
    .bit = CMD_LONGBENCH_SCORE,
    .run = run,
};
