/* compactattn eval longbench score: the published summaries of LongBench-v2's answers. */
#include "commands.h"
#include "eval/dataset.h"
#include "eval/longbench.h"
#include "folder.h"
#include "measure.h"
#include "message.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct scoring {
    struct longbench_scores scores;
    bool official;
};

static const char *take(void *user, size_t line, const json_t *row)
{
    struct scoring *scoring = user;
    (void)line;
    return longbench_add(&scoring->scores, row, scoring->official);
}

static int write_file(const char *folder, const char *name, const json_t *summary)
{
    char path[FOLDER_PATH];
    FILE *out = folder_path(folder, name, path) ? fopen(path, "w") : NULL;
    if (!out) return folder_cannot_write(folder, name, strerror(errno));
    if (strstr(name, ".csv"))
        longbench_write_csv(summary, out);
    else
        (void)json_dumpf(summary, out, JSON_INDENT(2) | JSON_REAL_PRECISION(4));
    const bool written = !ferror(out), closed = fclose(out) == 0;
    return written && closed ? EXIT_DONE : folder_cannot_write(folder, name, strerror(errno));
}

static int report(const struct options *options, const struct scoring *scoring, const char *folder)
{
    json_t *summary = longbench_json(&scoring->scores);
    if (!summary) return fail("no memory for the summary");
    int code = write_file(folder, "summary.json", summary);
    if (code == EXIT_DONE) code = write_file(folder, "summary.csv", summary);
    if (code == EXIT_DONE && options->json) return json_print(summary);
    if (code == EXIT_DONE) {
        const char *name;
        json_t *value;
        printf("%zu answers, %zu without a choice; %% right by %s\n", scoring->scores.buckets[LONGBENCH_OVERALL].n,
               scoring->scores.nulls, scoring->official ? "LongBench's own rule" : "the published rules");
        json_object_foreach(summary, name, value) if (json_is_real(value)) printf("%-8s %5.1f\n", name, json_real_value(value));
        json_object_foreach(json_object_get(summary, "domains"), name, value)
            printf("%5.1f  %s (%lld)\n", json_real_value(json_object_get(value, "score")), name,
                   (long long)json_integer_value(json_object_get(value, "count")));
    }
    json_decref(summary);
    return code;
}

static int run(const struct options *options)
{
    struct scoring scoring = { .official = options->official };
    char folder[FOLDER_PATH];
    size_t bad = 0;
    int code = EXIT_DONE;
    const char *first = options->predictions.items[0], *slash = strrchr(first, '/');
    const char *beside = slash ? first : ".";
    const int length = slash ? (int)(slash - first) + (slash == first) : 1;
    if (snprintf(folder, sizeof folder, "%.*s", options->out ? (int)strlen(options->out) : length,
                 options->out ? options->out : beside) >= (int)sizeof folder)
        return fail("%s: too long a path", options->out ? options->out : first);
    for (size_t i = 0; i < options->predictions.n && code == EXIT_DONE; i++) {
        size_t n = 0;
        code = dataset_lines(options->predictions.items[i], take, &scoring, &n);
        bad += n;
    }
    if (code == EXIT_DONE && scoring.scores.buckets[LONGBENCH_OVERALL].n == 0) code = fail("%s: no row that can be scored", first);
    if (code == EXIT_DONE) code = folder_prepare(folder, "summary.json");
    if (code == EXIT_DONE) code = report(options, &scoring, folder);
    longbench_free(&scoring.scores);
    return code == EXIT_DONE && bad > 0 ? EXIT_FAILED : code;
}

const struct command command_eval_longbench_score = {
    .name = "eval longbench score",
    .summary = "Score answers to LongBench-v2",
    .synopsis = "--pred FILE [--pred FILE..] [OPTIONS]",
    .details =
        "Reads JSON lines with _id, answer, difficulty, length, domain and pred_answer or response, as the published runners write\n"
        "them. A row whose pred_answer is missing or null has it taken from its response; of rows with the same _id the first counts.\n"
        "Writes summary.json and summary.csv to --out (default: beside the first file). Rows that cannot be scored are named and\n"
        "left out; the exit code is then 1.\n\n"
        "Example:\n"
        "  compactattn eval longbench score --pred dense.0.jsonl --pred dense.1.jsonl --out scores",
    .bit = CMD_LONGBENCH_SCORE,
    .run = run,
};
