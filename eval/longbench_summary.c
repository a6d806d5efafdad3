#include "longbench_summary.h"

#include "cli/folder.h"
#include "cli/measure.h"
#include "cli/message.h"
#include "eval/dataset.h"
#include "report/table.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add_number(const json_t *row, const char *key, double *sum, size_t *n)
{
    const json_t *value = json_object_get(row, key);
    if (!json_is_number(value)) return;
    *sum += json_number_value(value);
    ++*n;
}

static const char *take(void *user, size_t line, const json_t *row)
{
    struct longbench_tally *tally = user;
    const size_t repeated = tally->scores.repeated;
    const char *why = longbench_add(&tally->scores, row, tally->official);
    (void)line;
    if (!why && repeated == tally->scores.repeated) {
        add_number(row, "kept_fraction", &tally->kept, &tally->n_kept);
        add_number(row, "prefill_ms", &tally->prefill_ms, &tally->n_prefill);
    }
    return why;
}

int longbench_tally_file(struct longbench_tally *tally, const char *path)
{
    size_t n_bad = 0;
    const int code = dataset_lines(path, take, tally, &n_bad);
    tally->n_bad += n_bad;
    return code;
}

void longbench_tally_free(struct longbench_tally *tally)
{
    longbench_free(&tally->scores);
    *tally = (struct longbench_tally){ 0 };
}

size_t longbench_tell_gaps(const char *where, const struct longbench_tally *tally, const struct longbench_data *data)
{
    enum { TOLD = 5 };
    struct text ids = { 0 };
    size_t missing = 0;
    if (tally->scores.repeated > 0)
        note("%s: %zu answers to items that are answered above; the first ones count", where, tally->scores.repeated);
    for (size_t i = 0; data && i < data->n_items; i++) {
        if (json_object_get(tally->scores.ids, data->items[i].id)) continue;
        if (missing++ < TOLD) text_print(&ids, "%s%s", missing > 1 ? ", " : "", data->items[i].id);
    }
    if (missing > 0)
        note("%s: %zu of %zu items have no answer: %s%s", where, missing, data->n_items, ids.failed ? "" : ids.at,
             missing > TOLD ? ", .." : "");
    text_free(&ids);
    return missing;
}

static int write_file(const char *folder, const char *name, const json_t *summary)
{
    char path[FOLDER_PATH];
    struct file_result result;
    if (!folder_begin(&result, folder, name, path)) return EXIT_FAILED;
    if (strstr(name, ".csv"))
        longbench_write_csv(summary, result.file);
    else
        (void)json_dumpf(summary, result.file, JSON_INDENT(2) | JSON_REAL_PRECISION(4));
    return folder_end(&result, folder, name, true);
}

int longbench_write(const char *folder, const struct longbench_tally *tally, json_t **summary)
{
    *summary = longbench_json(&tally->scores);
    if (!*summary) return fail("no memory for the summary");
    int code = write_file(folder, "summary.json", *summary);
    if (code == EXIT_DONE) code = write_file(folder, "summary.csv", *summary);
    return code;
}

static int is_answers(const struct dirent *entry)
{
    const size_t length = strlen(entry->d_name);
    return strncmp(entry->d_name, "pred", 4) == 0 && length > 6 && strcmp(entry->d_name + length - 6, ".jsonl") == 0;
}

int longbench_answers(const char *folder, struct strings *paths)
{
    struct dirent **entries = NULL;
    char path[FOLDER_PATH];
    const int n = scandir(folder, &entries, is_answers, alphasort);
    int code = n >= 0 || errno == ENOENT ? EXIT_DONE : fail("%s: %s", folder, strerror(errno));
    for (int i = 0; i < n; i++) {
        if (folder_path(folder, entries[i]->d_name, path))
            strings_add(paths, path);
        else
            code = fail("%s/%s: too long a path", folder, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return code == EXIT_DONE && paths->failed ? fail("%s: no memory for the names of its files", folder) : code;
}

/* ---- methods side by side ---- */

static const struct table_column columns[] = {
    { "method", "method", -1, NULL },     { "answers", "count", 0, NULL },       { "overall", "overall", 1, NULL },
    { "easy", "easy", 1, NULL },          { "hard", "hard", 1, NULL },           { "short", "short", 1, NULL },
    { "medium", "medium", 1, NULL },      { "long", "long", 1, NULL },           { "no choice", "nulls", 0, NULL },
    { "kept", "kept_fraction", 3, NULL }, { "prefill s", "prefill_s", 2, NULL },
};

enum { N_COLUMNS = sizeof columns / sizeof *columns };

static double mean(double sum, size_t n)
{
    return n > 0 ? sum / (double)n : NAN;
}

static double percent(const struct longbench_bucket *bucket)
{
    return bucket->n > 0 ? 100.0 * (double)bucket->right / (double)bucket->n : NAN;
}

static bool add_row(struct table *table, const char *name, const struct longbench_tally *tally)
{
    struct table_cell cells[N_COLUMNS] = { { .text = name }, { .number = (double)tally->scores.buckets[LONGBENCH_OVERALL].n } };
    for (size_t i = 0; i < LONGBENCH_BUCKETS; i++) cells[2 + i].number = percent(&tally->scores.buckets[i]);
    cells[N_COLUMNS - 3].number = (double)tally->scores.nulls;
    cells[N_COLUMNS - 2].number = mean(tally->kept, tally->n_kept);
    cells[N_COLUMNS - 1].number = mean(tally->prefill_ms, tally->n_prefill) / 1e3;
    return table_add(table, cells);
}

struct comparison {
    const char *out;
    const struct longbench_data *data;
    struct table *table;
    json_t *all;
    bool official;
    size_t n_bad;
};

/* A method without answers has no row. */
static int add_method(struct comparison *comparison, const char *name)
{
    struct longbench_tally tally = { .official = comparison->official };
    struct strings paths = { 0 };
    char folder[FOLDER_PATH];
    json_t *summary = NULL;
    int code = folder_path(comparison->out, name, folder) ? longbench_answers(folder, &paths)
                                                          : fail("%s/%s: too long a path", comparison->out, name);
    for (size_t i = 0; i < paths.n && code == EXIT_DONE; i++) code = longbench_tally_file(&tally, paths.items[i]);
    if (code == EXIT_DONE) (void)longbench_tell_gaps(folder, &tally, comparison->data);
    if (code == EXIT_DONE && tally.scores.ids) {
        code = longbench_write(folder, &tally, &summary);
        if (code == EXIT_DONE && !add_row(comparison->table, name, &tally)) code = fail("no memory for the table");
        if (summary) json_object_set_new(comparison->all, name, summary);
    }
    comparison->n_bad += tally.n_bad;
    strings_free(&paths);
    longbench_tally_free(&tally);
    return code;
}

int longbench_compare(const char *out, char *const *names, size_t n_names, const struct longbench_data *data, bool official,
                      bool json, size_t *n_bad)
{
    struct comparison comparison = {
        .out = out, .data = data, .official = official, .table = table_create(columns, N_COLUMNS), .all = json_object()
    };
    int code = comparison.table && comparison.all ? EXIT_DONE : fail("no memory for the table");
    for (size_t i = 0; i < n_names && code == EXIT_DONE; i++) code = add_method(&comparison, names[i]);
    if (code == EXIT_DONE && json_object_size(comparison.all) == 0) code = fail("%s: holds no answers", out);
    if (code == EXIT_DONE) code = folder_write_table(out, "summary.csv", comparison.table, table_write_csv);
    if (code == EXIT_DONE) code = folder_write_table(out, "summary.md", comparison.table, table_write_markdown);
    if (code == EXIT_DONE && json)
        code = json_print(json_incref(comparison.all));
    else if (code == EXIT_DONE)
        table_write_text(comparison.table, stdout);
    *n_bad = comparison.n_bad;
    table_free(comparison.table);
    json_decref(comparison.all);
    return code;
}
