#include "ruler_summary.h"

#include "cli/folder.h"
#include "cli/measure.h"
#include "cli/message.h"
#include "eval/dataset.h"
#include "eval/ruler_run.h"
#include "eval/ruler_score.h"
#include "report/heatmap.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_METHODS = RULER_METHODS, MOST_LENGTHS = 32, MOST_COLUMNS = 40, INTERVAL = 32 };

struct answer {
    size_t index;
    double score, kept, prefill_ms, attention_ms; /* NaN: not in the file */
};

struct cell {
    struct answer *rows; /* by index */
    size_t n, cap, nulls;
};

struct results {
    const char *folder, *out;
    char names[MOST_METHODS][256]; /* of the methods; "." inside paths of a folder that is one method */
    bool single;
    size_t n_bad;            /* lines that cannot be used, each told */
    size_t n_methods, dense; /* dense = n_methods: there is none */
    size_t lengths[MOST_LENGTHS], n_lengths;
    unsigned tasks;     /* that any method has */
    bool public_domain; /* essay tasks are among them, on the text that comes with the program */
    json_t *skipped;    /* "512/vt": why the prompts leave the task out at that length; NULL: nothing is said */
    struct cell *cells; /* [n_methods][n_lengths][RULER_TASKS] */
};

/* What a method is worth in some tasks of a length. Numbers that do not apply are NaN. */
struct summary {
    size_t n, nulls, n_tasks, pairs;
    double score, kept, prefill_s, attention_s, difference;
    struct ruler_interval interval, difference_interval;
};

static struct cell *cell_of(const struct results *all, size_t method, size_t length, size_t task)
{
    return &all->cells[(method * all->n_lengths + length) * RULER_TASKS + task];
}

/* ---- what is there ---- */

static bool names_dense(const char *name)
{
    return strcmp(name, "dense") == 0 || (strstr(name, "_dense") && !strstr(name, "quoka"));
}

/* Dense first, then by name. */
static int by_name(const void *a, const void *b)
{
    const int dense = (int)names_dense(b) - (int)names_dense(a);
    return dense ? dense : strcmp(a, b);
}

static int by_number(const void *a, const void *b)
{
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

static bool method_path(const struct results *all, size_t method, const char *rest, char path[RULER_PATH])
{
    const int n = all->single ? snprintf(path, RULER_PATH, "%s/synthetic%s", all->folder, rest)
                              : snprintf(path, RULER_PATH, "%s/%s/synthetic%s", all->folder, all->names[method], rest);
    return n > 0 && n < RULER_PATH;
}

/* Whether a method has a folder synthetic/LENGTH/pred: prompts have synthetic/LENGTH/data. */
static bool has_answers(const struct results *all, size_t method)
{
    char path[RULER_PATH], rest[300];
    bool found = false;
    DIR *dir = method_path(all, method, "", path) ? opendir(path) : NULL;
    for (struct dirent *entry; dir && !found && (entry = readdir(dir));) {
        snprintf(rest, sizeof rest, "/%s/pred", entry->d_name);
        found = method_path(all, method, rest, path) && folder_is_there(path);
    }
    if (dir) closedir(dir);
    return found;
}

static int find_methods(struct results *all)
{
    all->single = true;
    if (has_answers(all, 0)) {
        size_t end = strlen(all->folder);
        while (end > 1 && all->folder[end - 1] == '/') end--;
        size_t start = end;
        while (start > 0 && all->folder[start - 1] != '/') start--;
        snprintf(all->names[all->n_methods++], sizeof *all->names, "%.*s", (int)(end - start), all->folder + start);
        return EXIT_DONE;
    }
    all->single = false;
    DIR *dir = opendir(all->folder);
    if (!dir) return fail("%s: %s", all->folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.') continue;
        if (all->n_methods == MOST_METHODS) {
            note("%s: more than %d methods; %s is left out", all->folder, MOST_METHODS, entry->d_name);
            continue;
        }
        snprintf(all->names[all->n_methods], sizeof *all->names, "%s", entry->d_name);
        if (has_answers(all, all->n_methods)) all->n_methods++;
    }
    closedir(dir);
    qsort(all->names, all->n_methods, sizeof *all->names, by_name);
    return all->n_methods > 0 ? EXIT_DONE : fail("%s: holds no answers (METHOD/synthetic/LENGTH/pred/TASK.jsonl)", all->folder);
}

/* Folders whose name is a number and that have answers. */
static int find_lengths(struct results *all)
{
    char path[RULER_PATH], rest[300];
    for (size_t m = 0; m < all->n_methods; m++) {
        char folder[RULER_PATH];
        const int n_folder = all->single ? snprintf(folder, sizeof folder, "%s", all->folder)
                                         : snprintf(folder, sizeof folder, "%s/%s", all->folder, all->names[m]);
        if (n_folder > 0 && n_folder < RULER_PATH) ruler_tell_strangers(folder);
        DIR *dir = method_path(all, m, "", path) ? opendir(path) : NULL;
        if (!dir) return fail("%s: %s", path, strerror(errno));
        for (struct dirent *entry; (entry = readdir(dir));) {
            char *end;
            const unsigned long length = strtoul(entry->d_name, &end, 10);
            size_t at = 0;
            while (at < all->n_lengths && all->lengths[at] != length) at++;
            snprintf(rest, sizeof rest, "/%s/pred", entry->d_name);
            if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || *end || at < all->n_lengths ||
                !method_path(all, m, rest, path) || !folder_is_there(path))
                continue;
            if (all->n_lengths == MOST_LENGTHS) {
                note("%s: more than %d lengths; %s is left out", all->folder, MOST_LENGTHS, entry->d_name);
                continue;
            }
            all->lengths[all->n_lengths++] = length;
        }
        closedir(dir);
    }
    qsort(all->lengths, all->n_lengths, sizeof *all->lengths, by_number);
    return all->n_lengths > 0 ? EXIT_DONE : fail("%s: holds no answers (synthetic/LENGTH/pred/TASK.jsonl)", all->folder);
}

/* ---- answers ---- */

struct reading {
    struct cell *cell;
    json_t *seen;
    bool part;
    char why[64];
};

static double number(const json_t *row, const char *key)
{
    const json_t *value = json_object_get(row, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static const char *take_answer(void *user, size_t line, const json_t *row)
{
    struct reading *reading = user;
    struct cell *cell = reading->cell;
    const json_t *index = json_object_get(row, "index");
    const char *pred = json_string_value(json_object_get(row, "pred")), **outputs = NULL;
    size_t n_outputs = 0;
    (void)line;
    if (!json_is_integer(index) || json_integer_value(index) < 0) return "no whole number \"index\"";
    if (!pred) return "no text \"pred\"";
    struct answer one = { .index = (size_t)json_integer_value(index),
                          .kept = number(row, "kept_fraction"),
                          .prefill_ms = number(row, "prefill_ms"),
                          .attention_ms = number(row, "attention_ms") };
    if (dataset_knows(reading->seen, one.index)) {
        snprintf(reading->why, sizeof reading->why, "index %zu is there already", one.index);
        return reading->why;
    }
    if (!dataset_strings(row, "outputs", &outputs, &n_outputs)) return "no list of texts \"outputs\"";
    char *text = strdup(pred);
    if (text) ruler_strip(text);
    one.score = text ? ruler_score(text, outputs, n_outputs, reading->part) : -1;
    cell->nulls += text && !*text;
    free(text);
    free(outputs);
    if (cell->n == cell->cap) {
        const size_t cap = 2 * cell->cap + 64;
        struct answer *rows = realloc(cell->rows, cap * sizeof *rows);
        if (rows) cell->rows = rows, cell->cap = cap;
    }
    if (one.score < 0 || cell->n == cell->cap || !dataset_remember(reading->seen, one.index)) return "no memory for the row";
    cell->rows[cell->n++] = one;
    return NULL;
}

static int by_index(const void *a, const void *b)
{
    const size_t x = ((const struct answer *)a)->index, y = ((const struct answer *)b)->index;
    return (x > y) - (x < y);
}

/* Answer files of tasks that nobody knows are told. */
static void tell_strangers(const char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        const size_t length = strlen(entry->d_name);
        bool known = length < 6 || strcmp(entry->d_name + length - 6, ".jsonl") != 0;
        for (size_t t = 0; t < RULER_TASKS && !known; t++)
            known = strlen(ruler_tasks[t].name) == length - 6 && memcmp(ruler_tasks[t].name, entry->d_name, length - 6) == 0;
        if (!known) note("%s/%s: not a RULER task; it is left out", folder, entry->d_name);
    }
    if (dir) closedir(dir);
}

static int read_length(struct results *all, size_t m, size_t l)
{
    char path[RULER_PATH], rest[64];
    snprintf(rest, sizeof rest, "/%zu/pred", all->lengths[l]);
    if (method_path(all, m, rest, path)) tell_strangers(path);
    for (size_t t = 0; t < RULER_TASKS; t++) {
        struct cell *cell = cell_of(all, m, l, t);
        struct reading reading = { .cell = cell, .part = ruler_tasks[t].part };
        size_t n_bad = 0;
        snprintf(rest, sizeof rest, "/%zu/pred/%s.jsonl", all->lengths[l], ruler_tasks[t].name);
        if (!method_path(all, m, rest, path)) return fail("%s: too long a path", all->folder);
        if (access(path, F_OK) != 0) continue;
        reading.seen = json_object();
        const int code = dataset_lines(path, take_answer, &reading, &n_bad);
        json_decref(reading.seen);
        if (code != EXIT_DONE) return code;
        all->n_bad += n_bad;
        qsort(cell->rows, cell->n, sizeof *cell->rows, by_index);
        if (cell->n > 0) all->tasks |= 1U << t;
    }
    return EXIT_DONE;
}

/* The prompts' manifest, as the run has copied it, says what the essay tasks were made from, and what does not fit a length. A folder of
 * one method lies beside it. */
static int read_manifest(struct results *all)
{
    json_t *manifest = NULL;
    char above[RULER_PATH];
    int code = ruler_manifest(all->folder, &manifest);
    if (code == EXIT_DONE && all->single && !json_object_get(manifest, "data") &&
        snprintf(above, sizeof above, "%s/..", all->folder) < RULER_PATH) {
        json_decref(manifest);
        code = ruler_manifest(above, &manifest);
    }
    const char *haystack = json_string_value(json_object_get(json_object_get(manifest, "data"), "haystack"));
    for (size_t t = 0; t < RULER_TASKS; t++)
        if ((all->tasks >> t & 1) && ruler_tasks[t].essay && haystack && strcmp(haystack, "public-domain") == 0)
            all->public_domain = true;
    all->skipped = json_incref(json_object_get(json_object_get(manifest, "note"), "skipped"));
    json_decref(manifest);
    return code;
}

static int read_all(struct results *all)
{
    int code = find_methods(all);
    if (code == EXIT_DONE) code = find_lengths(all);
    if (code != EXIT_DONE) return code;
    all->cells = calloc(all->n_methods * all->n_lengths * RULER_TASKS, sizeof *all->cells);
    if (!all->cells) return fail("no memory for the answers");
    for (size_t m = 0; m < all->n_methods; m++)
        for (size_t l = 0; l < all->n_lengths && code == EXIT_DONE; l++) code = read_length(all, m, l);
    if (code != EXIT_DONE) return code;
    all->dense = 0;
    while (all->dense < all->n_methods && !names_dense(all->names[all->dense])) all->dense++;
    return all->tasks ? read_manifest(all) : fail("%s: no answer can be used", all->folder);
}

/* ---- numbers ---- */

static double scores_of(const struct cell *cell, double *scores)
{
    for (size_t i = 0; i < cell->n; i++) scores[i] = cell->rows[i].score;
    return ruler_percent(scores, cell->n);
}

/* Differences of the answers that both have given; returns how many. */
static size_t pair(const struct cell *cell, const struct cell *dense, double *out)
{
    size_t n = 0;
    for (size_t i = 0, j = 0; i < cell->n && j < dense->n;) {
        const size_t a = cell->rows[i].index, b = dense->rows[j].index;
        if (a == b) out[n++] = cell->rows[i].score - dense->rows[j].score;
        i += a <= b;
        j += b <= a;
    }
    return n;
}

/* Adds the means of the measured numbers. */
static void add_means(const struct cell *cell, struct summary *s)
{
    const double n = (double)cell->n;
    for (size_t i = 0; i < cell->n; i++) {
        s->kept += cell->rows[i].kept / n;
        s->prefill_s += cell->rows[i].prefill_ms / 1e3 / n;
        s->attention_s += cell->rows[i].attention_ms / 1e3 / n;
    }
}

static struct ruler_interval percent(struct ruler_interval interval)
{
    return (struct ruler_interval){ 100 * interval.low, 100 * interval.high };
}

/* Means over the tasks that the method has, each task with the same weight. values: room for twice all rows. */
static struct summary summarize(const struct results *all, size_t m, size_t l, unsigned tasks, double *values)
{
    struct ruler_group groups[RULER_TASKS], pairs[RULER_TASKS];
    struct summary s = { 0 };
    size_t n_paired = 0;
    for (size_t t = 0; t < RULER_TASKS; t++) {
        const struct cell *cell = cell_of(all, m, l, t);
        if (!(tasks >> t & 1) || cell->n == 0) continue;
        groups[s.n_tasks] = (struct ruler_group){ values, cell->n };
        s.score += scores_of(cell, values);
        values += cell->n;
        add_means(cell, &s);
        s.n += cell->n;
        s.nulls += cell->nulls;
        s.n_tasks++;
        if (all->dense == all->n_methods || all->dense == m) continue;
        const size_t n = pair(cell, cell_of(all, all->dense, l, t), values);
        if (n == 0) continue;
        pairs[n_paired++] = (struct ruler_group){ values, n };
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += values[i];
        s.difference += 100 * sum / (double)n;
        s.pairs += n;
        values += n;
    }
    const double n = s.n_tasks > 0 ? (double)s.n_tasks : NAN;
    s.score /= n;
    s.kept /= n;
    s.prefill_s /= n;
    s.attention_s /= n;
    s.difference /= n_paired > 0 ? (double)n_paired : NAN;
    s.interval = percent(ruler_bootstrap(groups, s.n_tasks));
    s.difference_interval = percent(ruler_bootstrap(pairs, n_paired));
    return s;
}

/* ---- tables ---- */

static unsigned self_contained(void)
{
    unsigned tasks = 0;
    for (size_t t = 0; t < RULER_TASKS; t++)
        if (!ruler_tasks[t].essay && !ruler_tasks[t].needs_data) tasks |= 1U << t;
    return tasks;
}

/* "single_1": the heading of niah_single_1. */
static const char *heading(size_t task)
{
    const char *name = ruler_tasks[task].name;
    return strncmp(name, "niah_", 5) == 0 ? name + 5 : name;
}

static void interval_text(struct ruler_interval interval, const char *sign, char text[INTERVAL])
{
    *text = '\0';
    if (strcmp(sign, "+") == 0 && !isnan(interval.low)) snprintf(text, INTERVAL, "%+.1f to %+.1f", interval.low, interval.high);
    if (!*sign && !isnan(interval.low)) snprintf(text, INTERVAL, "%.1f to %.1f", interval.low, interval.high);
}

struct view {
    struct table_column columns[MOST_COLUMNS];
    size_t n_columns;
    char titles[MOST_LENGTHS][24];
    struct table *table;
};

static void add_column(struct view *view, const char *title, int decimals)
{
    view->columns[view->n_columns++] = (struct table_column){ title, title, decimals, NULL };
}

/* Methods over tasks, for a length; the same columns for all lengths. */
static int length_view(const struct results *all, size_t l, double *values, struct view *view)
{
    const unsigned present = all->tasks, own = self_contained() & present;
    const bool apart = own && own != present;
    *view = (struct view){ 0 };
    add_column(view, "method", -1);
    for (size_t t = 0; t < RULER_TASKS; t++)
        if (present >> t & 1) add_column(view, heading(t), 2);
    add_column(view, "average", 2);
    add_column(view, "95 % interval", -1);
    if (apart) add_column(view, "self-contained", 2);
    add_column(view, "against dense", 2);
    add_column(view, "95 % interval", -1);
    add_column(view, "past read", 3);
    add_column(view, "prefill s", 2);
    add_column(view, "answers", 0);
    view->table = table_create(view->columns, view->n_columns);
    bool good = view->table;
    for (size_t m = 0; m < all->n_methods && good; m++) {
        struct table_cell cells[MOST_COLUMNS];
        char interval[INTERVAL], difference[INTERVAL];
        size_t n = 0;
        const struct summary s = summarize(all, m, l, present, values);
        if (s.n == 0) continue;
        interval_text(s.interval, "", interval);
        interval_text(s.difference_interval, "+", difference);
        cells[n++] = (struct table_cell){ all->names[m], 0 };
        for (size_t t = 0; t < RULER_TASKS; t++) {
            const struct cell *cell = cell_of(all, m, l, t);
            if (present >> t & 1) cells[n++] = (struct table_cell){ NULL, cell->n > 0 ? scores_of(cell, values) : NAN };
        }
        cells[n++] = (struct table_cell){ NULL, s.score };
        cells[n++] = (struct table_cell){ interval, 0 };
        if (apart) cells[n++] = (struct table_cell){ NULL, summarize(all, m, l, own, values).score };
        cells[n++] = (struct table_cell){ NULL, s.difference };
        cells[n++] = (struct table_cell){ difference, 0 };
        cells[n++] = (struct table_cell){ NULL, s.kept };
        cells[n++] = (struct table_cell){ NULL, s.prefill_s };
        cells[n++] = (struct table_cell){ NULL, (double)s.n };
        good = table_add(view->table, cells);
    }
    return good ? EXIT_DONE : fail("no memory for the table");
}

/* Tasks that the method has no answer to, of those that could be there. */
static unsigned missing_tasks(const struct results *all, size_t m, size_t l)
{
    char key[RULER_KEY];
    unsigned missing = 0;
    for (size_t t = 0; t < RULER_TASKS; t++) {
        ruler_key(all->lengths[l], ruler_tasks[t].name, key);
        if (all->tasks >> t & 1 && cell_of(all, m, l, t)->n == 0 && !json_object_get(all->skipped, key)) missing |= 1U << t;
    }
    return missing;
}

/* Averages over lengths, and their mean, as the published tables have them; none over fewer tasks than other methods have. */
static int lengths_view(const struct results *all, double *values, struct view *view)
{
    *view = (struct view){ 0 };
    add_column(view, "method", -1);
    for (size_t l = 0; l < all->n_lengths; l++) {
        snprintf(view->titles[l], sizeof view->titles[l], "%zu", all->lengths[l]);
        add_column(view, view->titles[l], 2);
    }
    add_column(view, "mean", 2);
    view->table = table_create(view->columns, view->n_columns);
    bool good = view->table;
    for (size_t m = 0; m < all->n_methods && good; m++) {
        struct table_cell cells[MOST_COLUMNS] = { { all->names[m], 0 } };
        double sum = 0;
        for (size_t l = 0; l < all->n_lengths; l++) {
            cells[l + 1].number = missing_tasks(all, m, l) ? NAN : summarize(all, m, l, all->tasks, values).score;
            sum += cells[l + 1].number;
        }
        cells[all->n_lengths + 1].number = sum / (double)all->n_lengths;
        good = table_add(view->table, cells);
    }
    return good ? EXIT_DONE : fail("no memory for the table");
}

/* One line for a method that lacks answers that could be there. */
static void tell_missing(const struct results *all, size_t m, const char *start, FILE *out)
{
    enum { NAMED = 4 };
    size_t missing = 0;
    for (size_t l = 0; l < all->n_lengths; l++) {
        const unsigned tasks = missing_tasks(all, m, l);
        for (size_t t = 0; t < RULER_TASKS; t++) {
            if (!(tasks >> t & 1)) continue;
            if (missing == 0) fprintf(out, "%s%s has no answers to ", start, all->names[m]);
            if (missing < NAMED) fprintf(out, "%s%s at %zu", missing > 0 ? ", " : "", ruler_tasks[t].name, all->lengths[l]);
            missing++;
        }
    }
    if (missing > NAMED) fprintf(out, " and %zu more", missing - NAMED);
    if (missing > 0) fprintf(out, ": its averages there are over fewer tasks, its mean is left out.\n");
}

/* What a reader must know before the numbers. */
static void write_remarks(const struct results *all, const char *start, FILE *out)
{
    fprintf(out,
            "%sScores in percent; averages give each task the same weight; 95 %% bootstrap intervals (2000 draws, fixed seed).\n",
            start);
    if (all->public_domain)
        fprintf(out,
                "%shaystack=public-domain: the essay tasks run on the text that comes with the program, so %s published results.\n",
                start,
                self_contained() & all->tasks ? "only the column \"self-contained\" can be compared with"
                                              : "they cannot be compared with");
    const char *key;
    json_t *why;
    json_object_foreach(all->skipped, key, why)
        fprintf(out, "%s%s is skipped: %s; averages there are over fewer tasks.\n", start, key, json_string_value(why));
    for (size_t m = 0; m < all->n_methods; m++) tell_missing(all, m, start, out);
}

/* All tables for people. */
static int write_tables(const struct results *all, double *values, bool markdown, FILE *out)
{
    struct view view;
    int code = EXIT_DONE;
    if (markdown) fprintf(out, "# RULER\n\n");
    write_remarks(all, markdown ? "- " : "", out);
    for (size_t l = 0; l <= all->n_lengths && code == EXIT_DONE; l++) {
        const bool last = l == all->n_lengths;
        if (last && all->n_lengths == 1) break;
        code = last ? lengths_view(all, values, &view) : length_view(all, l, values, &view);
        fprintf(out, markdown ? "\n## " : "\n");
        if (last)
            fprintf(out, "Average by length\n");
        else
            fprintf(out, "Length %zu\n", all->lengths[l]);
        if (markdown) putc('\n', out);
        if (code == EXIT_DONE) (markdown ? table_write_markdown : table_write_text)(view.table, out);
        table_free(view.table);
    }
    return code;
}

/* One row a task, and the averages: for programs. */
static const struct table_column tidy[] = {
    { "length", "length", 0, NULL },
    { "method", "method", -1, NULL },
    { "task", "task", -1, NULL },
    { "answers", "answers", 0, NULL },
    { "empty", "nulls", 0, NULL },
    { "score", "score", 2, NULL },
    { "low", "low", 2, NULL },
    { "high", "high", 2, NULL },
    { "past read", "kept_fraction", 4, NULL },
    { "prefill s", "prefill_s", 3, NULL },
    { "attention s", "attention_s", 3, NULL },
    { "pairs", "pairs", 0, NULL },
    { "difference", "difference", 2, NULL },
    { "low", "difference_low", 2, NULL },
    { "high", "difference_high", 2, NULL },
    { "haystack", "haystack", -1, NULL },
};
enum { N_TIDY = sizeof tidy / sizeof *tidy };

static void tidy_cells(const struct results *all, size_t m, size_t l, unsigned tasks, const char *name, double *values,
                       struct table_cell cells[N_TIDY])
{
    const struct summary s = summarize(all, m, l, tasks, values);
    bool essay = false;
    for (size_t t = 0; t < RULER_TASKS; t++) essay |= (tasks & all->tasks) >> t & 1 && ruler_tasks[t].essay;
    const struct table_cell row[N_TIDY] = {
        { NULL, (double)all->lengths[l] },
        { all->names[m], 0 },
        { name, 0 },
        { NULL, (double)s.n },
        { NULL, (double)s.nulls },
        { NULL, s.score },
        { NULL, s.interval.low },
        { NULL, s.interval.high },
        { NULL, s.kept },
        { NULL, s.prefill_s },
        { NULL, s.attention_s },
        { NULL, (double)s.pairs },
        { NULL, s.difference },
        { NULL, s.difference_interval.low },
        { NULL, s.difference_interval.high },
        { essay && all->public_domain ? "public-domain" : "", 0 },
    };
    memcpy(cells, row, sizeof row);
}

/* Calls take for the row of each task, and for "average" and "self_contained_average". */
static bool visit_tidy(const struct results *all, double *values, bool (*take)(void *user, const struct table_cell *cells),
                       void *user)
{
    struct table_cell cells[N_TIDY];
    bool good = true;
    for (size_t l = 0; l < all->n_lengths; l++) {
        for (size_t m = 0; m < all->n_methods; m++) {
            unsigned present = 0;
            for (size_t t = 0; t < RULER_TASKS; t++) {
                if (cell_of(all, m, l, t)->n == 0) continue;
                present |= 1U << t;
                tidy_cells(all, m, l, 1U << t, ruler_tasks[t].name, values, cells);
                good = good && take(user, cells);
            }
            if (!present) continue;
            tidy_cells(all, m, l, present, "average", values, cells);
            good = good && take(user, cells);
            if (!(present & self_contained())) continue;
            tidy_cells(all, m, l, present & self_contained(), "self_contained_average", values, cells);
            good = good && take(user, cells);
        }
    }
    return good;
}

static bool take_csv(void *user, const struct table_cell *cells)
{
    return table_add(user, cells);
}

static bool take_json(void *user, const struct table_cell *cells)
{
    json_t *row = json_object();
    for (size_t c = 0; row && c < N_TIDY; c++) {
        json_t *value = tidy[c].decimals < 0                               ? json_text(cells[c].text)
                        : tidy[c].decimals == 0 && !isnan(cells[c].number) ? json_integer((json_int_t)cells[c].number)
                                                                           : json_number(cells[c].number);
        json_object_set_new(row, tidy[c].key, value);
    }
    return row && json_array_append_new(user, row) == 0;
}

/* ---- files ---- */

static int write_csv(const struct results *all, double *values)
{
    struct table *table = table_create(tidy, N_TIDY);
    int code = table && visit_tidy(all, values, take_csv, table) ? EXIT_DONE : fail("no memory for summary.csv");
    if (code == EXIT_DONE) code = folder_write_table(all->out, "summary.csv", table, table_write_csv);
    table_free(table);
    return code;
}

static int write_markdown(const struct results *all, double *values)
{
    char path[FOLDER_PATH];
    struct file_result result;
    if (!folder_begin(&result, all->out, "summary.md", path)) return EXIT_FAILED;
    const int code = write_tables(all, values, true, result.file);
    const int ended = folder_end(&result, all->out, "summary.md", code == EXIT_DONE);
    return code == EXIT_DONE ? ended : code;
}

/* The published layout: three rows, lines that end in CR LF, the shortest numbers that Python prints. */
static int write_reference(const struct results *all, size_t m, size_t l, double *values)
{
    static const char *const rows[] = { "Metric", "Score", "Nulls" };
    char folder[RULER_PATH], path[FOLDER_PATH], rest[64], text[32];
    snprintf(rest, sizeof rest, "/%zu/pred", all->lengths[l]);
    if (!method_path(all, m, rest, folder) || !folder_is_there(folder)) return EXIT_DONE;
    struct file_result result;
    if (!folder_begin(&result, folder, "summary.csv", path)) return EXIT_FAILED;
    FILE *out = result.file;
    for (size_t row = 0; row < 3; row++) {
        fputs(rows[row], out);
        for (size_t t = 0; t < RULER_TASKS; t++) {
            const struct cell *cell = cell_of(all, m, l, t);
            if (cell->n == 0) continue;
            snprintf(text, sizeof text, "%.2f", scores_of(cell, values));
            if (text[strlen(text) - 1] == '0') text[strlen(text) - 1] = '\0';
            if (row == 0) fprintf(out, ",%s", ruler_tasks[t].name);
            if (row == 1) fprintf(out, ",%s", text);
            if (row == 2) fprintf(out, ",%zu/%zu", cell->nulls, cell->n);
        }
        fputs("\r\n", out);
    }
    return folder_end(&result, folder, "summary.csv", true);
}

static int draw(const struct results *all, double *scores)
{
    const char *panels[MOST_METHODS], *rows[RULER_TASKS], *columns[MOST_LENGTHS];
    char titles[MOST_LENGTHS][24], path[FOLDER_PATH];
    size_t n_rows = 0, n = 0, size = all->n_methods * RULER_TASKS * all->n_lengths;
    double *values = calloc(size + 1, sizeof *values);
    for (size_t m = 0; m < all->n_methods; m++) panels[m] = all->names[m];
    for (size_t l = 0; l < all->n_lengths; l++) {
        snprintf(titles[l], sizeof titles[l], "%zu", all->lengths[l]);
        columns[l] = titles[l];
    }
    for (size_t t = 0; t < RULER_TASKS; t++)
        if (all->tasks >> t & 1) rows[n_rows++] = ruler_tasks[t].name;
    for (size_t m = 0; values && m < all->n_methods; m++) {
        for (size_t t = 0; t < RULER_TASKS; t++) {
            for (size_t l = 0; (all->tasks >> t & 1) && l < all->n_lengths; l++) {
                const struct cell *cell = cell_of(all, m, l, t);
                values[n++] = cell->n > 0 ? scores_of(cell, scores) : NAN;
            }
        }
    }
    const struct heatmap map = {
        .title = "RULER: score of each task and length",
        .subtitle = all->public_domain ? "percent; haystack=public-domain: essay tasks on the text that comes with the program"
                                       : "percent",
        .panels = panels,
        .rows = rows,
        .columns = columns,
        .n_panels = all->n_methods,
        .n_rows = n_rows,
        .n_columns = all->n_lengths,
        .values = values,
        .top = 100,
        .decimals = 1,
    };
    const char *why = !values                                       ? "no memory"
                      : !folder_path(all->out, "heatmap.png", path) ? "the path is too long"
                                                                    : heatmap_write_png(&map, path);
    free(values);
    return why ? folder_cannot_write(all->out, "heatmap.png", why) : EXIT_DONE;
}

static int print_json(const struct results *all, double *values)
{
    json_t *rows = json_array();
    if (!rows || !visit_tidy(all, values, take_json, rows)) {
        json_decref(rows);
        return fail("no memory for the JSON result");
    }
    return json_print(json_pack("{s:s, s:o, s:O?, s:o}", "folder", all->folder, "haystack",
                                all->public_domain ? json_string("public-domain") : json_null(), "skipped", all->skipped, "rows",
                                rows));
}

static int report(const struct results *all, const char *out, bool json)
{
    size_t n_rows = 1;
    for (size_t i = 0; i < all->n_methods * all->n_lengths * RULER_TASKS; i++) n_rows += all->cells[i].n;
    double *values = calloc(2 * n_rows, sizeof *values);
    if (!values) return fail("no memory for %zu answers", n_rows);
    int code = json ? print_json(all, values) : write_tables(all, values, false, stdout);
    if (code == EXIT_DONE) code = write_csv(all, values);
    if (code == EXIT_DONE) code = write_markdown(all, values);
    if (code == EXIT_DONE) code = draw(all, values);
    for (size_t m = 0; !out && m < all->n_methods; m++)
        for (size_t l = 0; l < all->n_lengths && code == EXIT_DONE; l++) code = write_reference(all, m, l, values);
    if (code == EXIT_DONE && !json) printf("\nWritten to %s: summary.csv, summary.md, heatmap.png\n", all->out);
    free(values);
    return code;
}

int ruler_summary(const char *folder, const char *out, bool json)
{
    struct results *all = calloc(1, sizeof *all);
    if (!all) return fail("no memory for the answers");
    all->folder = folder;
    all->out = out ? out : folder;
    int code = out ? folder_prepare(out, "summary.csv") : EXIT_DONE;
    if (code == EXIT_DONE) code = read_all(all);
    if (code == EXIT_DONE) code = report(all, out, json);
    if (code == EXIT_DONE && all->n_bad > 0) code = EXIT_FAILED;
    for (size_t i = 0; all->cells && i < all->n_methods * all->n_lengths * RULER_TASKS; i++) free(all->cells[i].rows);
    free(all->cells);
    json_decref(all->skipped);
    free(all);
    return code;
}
