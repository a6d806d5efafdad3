#include "eval/latency.h"

#include "cli/folder.h"
#include "cli/measure.h"
#include "cli/message.h"
#include "report/chart.h"
#include "report/table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LENGTHS = 32, CELL = 48 };

/* Columns of summary.csv. A value is the row's value of that key, or made from the runs. */
static const struct {
    struct table_column column;
    const char *from; /* key of the rows: text of the first, or the mean; NULL: computed */
    bool shown;       /* to people, too */
} fields[] = {
    { { "model", "model", -1, NULL }, "model", false },
    { { "layers", "layers", 0, NULL }, "layers", false },
    { { "of layers", "layers_whole", 0, NULL }, "layers_whole", false },
    { { "tp", "tp", 0, NULL }, "tp", false },
    { { "exec", "exec_family", -1, NULL }, "exec_family", false },
    { { "selector", "selector_family", -1, NULL }, "selector_family", false },
    { { "method", "method", -1, NULL }, "method", true },
    { { "threads", "threads", 0, NULL }, "threads", true },
    { { "batch", "batch_size", 0, NULL }, "batch_size", true },
    { { "chunk", "chunk_size", 0, NULL }, "chunk_size", true },
    { { "tokens", "seq_len", 0, NULL }, "seq_len", true },
    { { "source", "prompt_source", -1, NULL }, "prompt_source", false },
    { { "schedule", "input_schedule", -1, NULL }, "schedule", false },
    { { "warmup", "warmup", 0, NULL }, NULL, false },
    { { "runs", "runs", 0, NULL }, NULL, true },
    { { "e2e ms", "e2e_mean_ms", 1, NULL }, "e2e_ms", true },
    { { "+-", "e2e_std_ms", 1, NULL }, NULL, true },
    { { "e2e median", "e2e_median_ms", 1, NULL }, NULL, false },
    { { "e2e min", "e2e_min_ms", 1, NULL }, NULL, false },
    { { "attention ms", "attn_mean_ms", 1, NULL }, "attn_module_ms", true },
    { { "+-", "attn_std_ms", 1, NULL }, NULL, false },
    { { "attention median", "attn_median_ms", 1, NULL }, NULL, false },
    { { "attention min", "attn_min_ms", 1, NULL }, NULL, false },
    { { "rest ms", "nonattn_mean_ms", 1, NULL }, NULL, false },
    { { "attention %", "attn_frac_pct", 1, NULL }, NULL, false },
    { { "chunks", "chunks", 0, NULL }, NULL, false },
    { { "attention ms a chunk", "attn_per_chunk_ms", 2, NULL }, NULL, false },
    { { "core ms", "attn_core_mean_ms", 1, NULL }, "attn_core_ms", false },
    { { "kernel ms", "kernel_mean_ms", 1, NULL }, "kernel_ms", true },
    { { "select ms", "select_mean_ms", 1, NULL }, "select_ms", true },
    { { "table ms", "table_mean_ms", 1, NULL }, "table_ms", false },
    { { "GEMM ms", "gemm_mean_ms", 1, NULL }, "gemm_ms", true },
    { { "attention GEMM ms", "attn_gemm_mean_ms", 1, NULL }, "attn_gemm_ms", false },
    { { "other ms", "other_mean_ms", 1, NULL }, "other_ms", true },
    { { "kept %", "kept_block_pct", 1, NULL }, "kept_block_fraction", true },
    { { "attention x", "attn_speedup", 2, NULL }, NULL, true },
    { { "e2e x", "e2e_speedup", 2, NULL }, NULL, true },
    { { "kernel x", "kernel_speedup", 2, NULL }, NULL, true },
    { { "peak MiB", "peak_mem_mib", 0, NULL }, "peak_mem_bytes", true },
    { { "e2e ms, all layers", "e2e_extrapolated_ms", 1, NULL }, "e2e_extrapolated_ms", true },
    { { "attention ms, all layers", "attn_extrapolated_ms", 1, NULL }, "attn_module_extrapolated_ms", false },
    { { "attention x, all layers", "attn_extrapolated_speedup", 2, NULL }, NULL, false },
    { { "e2e x, all layers", "e2e_extrapolated_speedup", 2, NULL }, NULL, true },
    { { "status", "status", -1, NULL }, NULL, true },
    { { "error", "error", -1, NULL }, NULL, false },
};

enum { N_FIELDS = sizeof fields / sizeof *fields };

/* One method at one point of the grid. */
struct line {
    const json_t *first; /* the row that it began with; borrowed */
    const char *text[N_FIELDS];
    double number[N_FIELDS];
};

struct latency_summary {
    struct line *lines;
    size_t n;
    bool extrapolated;
};

static size_t field_of(const char *key)
{
    size_t f = 0;
    while (f < N_FIELDS && strcmp(fields[f].column.key, key) != 0) f++;
    return f;
}

static double value(const struct line *line, const char *key)
{
    return line->number[field_of(key)];
}

static const char *text(const struct line *line, const char *key)
{
    const char *found = line->text[field_of(key)];
    return found ? found : "";
}

static void set(struct line *line, const char *key, double number)
{
    line->number[field_of(key)] = number;
}

static double number_at(const json_t *row, const char *key)
{
    const json_t *found = json_object_get(row, key);
    return json_is_number(found) ? json_number_value(found) : NAN;
}

static const char *text_at(const json_t *row, const char *key)
{
    return json_string_value(json_object_get(row, key));
}

static bool same_group(const json_t *a, const json_t *b)
{
    static const char *const keys[] = { "threads", "batch_size", "chunk_size" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!json_equal(json_object_get(a, keys[i]), json_object_get(b, keys[i]))) return false;
    }
    return true;
}

static bool same_cell(const json_t *a, const json_t *b)
{
    return same_group(a, b) && json_equal(json_object_get(a, "seq_len"), json_object_get(b, "seq_len"));
}

static bool same_line(const json_t *a, const json_t *b)
{
    return same_cell(a, b) && json_equal(json_object_get(a, "method"), json_object_get(b, "method"));
}

/* ---- from rows to lines ---- */

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Mean of a key over the measured rows of a line; values, when asked for, has room for all rows. */
static double mean_of(const json_t *rows, const struct line *line, const char *key, double *values, size_t *n)
{
    size_t i, count = 0;
    json_t *row;
    double sum = 0;
    json_array_foreach(rows, i, row)
    {
        const char *status = text_at(row, "status"), *phase = text_at(row, "phase");
        if (!same_line(row, line->first) || !status || strcmp(status, "ok") != 0 || !phase || strcmp(phase, "measured") != 0)
            continue;
        if (values) values[count] = number_at(row, key);
        sum += number_at(row, key);
        count++;
    }
    if (n) *n = count;
    return count > 0 ? sum / (double)count : NAN;
}

/* Population deviation, median and least of what mean_of gave. */
static void spread(struct line *line, double mean, double *values, size_t n, const char *std, const char *median, const char *min)
{
    double squares = 0;
    for (size_t i = 0; i < n; i++) squares += (values[i] - mean) * (values[i] - mean);
    qsort(values, n, sizeof *values, ascending);
    set(line, std, n > 0 ? sqrt(squares / (double)n) : NAN);
    set(line, median, n > 0 ? (values[(n - 1) / 2] + values[n / 2]) / 2 : NAN);
    set(line, min, n > 0 ? values[0] : NAN);
}

/* The last word on a line: the first failure, or ok. */
static void judge(const json_t *rows, struct line *line)
{
    size_t i;
    json_t *row;
    line->text[field_of("status")] = "ok";
    line->text[field_of("error")] = "";
    json_array_foreach(rows, i, row)
    {
        const char *status = text_at(row, "status");
        if (!same_line(row, line->first) || !status || strcmp(status, "ok") == 0) continue;
        line->text[field_of("status")] = status;
        line->text[field_of("error")] = text_at(row, "error");
        return;
    }
}

static void fill_line(const json_t *rows, struct line *line, uint32_t warmup, double *values)
{
    size_t n = 0;
    for (size_t f = 0; f < N_FIELDS; f++) {
        line->number[f] = NAN;
        if (!fields[f].from) continue;
        if (fields[f].column.decimals < 0)
            line->text[f] = text_at(line->first, fields[f].from);
        else
            line->number[f] = mean_of(rows, line, fields[f].from, NULL, NULL);
    }
    static const char *const keys[] = { "layers", "layers_whole", "tp", "threads", "batch_size", "chunk_size", "seq_len" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) set(line, keys[i], number_at(line->first, keys[i]));
    judge(rows, line);
    const double attn = mean_of(rows, line, "attn_module_ms", values, &n);
    spread(line, attn, values, n, "attn_std_ms", "attn_median_ms", "attn_min_ms");
    const double e2e = mean_of(rows, line, "e2e_ms", values, &n);
    spread(line, e2e, values, n, "e2e_std_ms", "e2e_median_ms", "e2e_min_ms");
    const double chunks = ceil(value(line, "seq_len") / value(line, "chunk_size"));
    set(line, "warmup", warmup);
    set(line, "runs", (double)n);
    set(line, "nonattn_mean_ms", e2e - attn);
    set(line, "attn_frac_pct", attn / e2e * 100);
    set(line, "chunks", chunks);
    set(line, "attn_per_chunk_ms", attn / chunks);
    set(line, "kept_block_pct", value(line, "kept_block_pct") * 100);
    set(line, "peak_mem_mib", value(line, "peak_mem_mib") / 0x1p20);
}

static void compare(const struct latency_summary *s, struct line *line)
{
    static const struct {
        const char *speedup, *mean;
    } pairs[] = {
        { "attn_speedup", "attn_mean_ms" },
        { "e2e_speedup", "e2e_mean_ms" },
        { "kernel_speedup", "kernel_mean_ms" },
        { "attn_extrapolated_speedup", "attn_extrapolated_ms" },
        { "e2e_extrapolated_speedup", "e2e_extrapolated_ms" },
    };
    for (size_t d = 0; d < s->n; d++) {
        const struct line *dense = &s->lines[d];
        if (strcmp(text(dense, "method"), "dense") != 0 || !same_cell(dense->first, line->first)) continue;
        for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
            set(line, pairs[i].speedup, value(dense, pairs[i].mean) / value(line, pairs[i].mean));
    }
}

struct latency_summary *latency_summarize(const json_t *rows, uint32_t warmup)
{
    size_t i;
    json_t *row;
    struct latency_summary *s = calloc(1, sizeof *s);
    double *values = calloc(json_array_size(rows) + 1, sizeof *values);
    if (s) s->lines = calloc(json_array_size(rows) + 1, sizeof *s->lines);
    if (!s || !values || !s->lines) {
        free(values);
        latency_summary_free(s);
        return NULL;
    }
    json_array_foreach(rows, i, row)
    {
        bool known = false;
        for (size_t l = 0; l < s->n && !known; l++) known = same_line(row, s->lines[l].first);
        if (!known) s->lines[s->n++].first = row;
    }
    for (size_t l = 0; l < s->n; l++) {
        fill_line(rows, &s->lines[l], warmup, values);
        s->extrapolated = s->extrapolated || !isnan(value(&s->lines[l], "e2e_extrapolated_ms"));
    }
    for (size_t l = 0; l < s->n; l++) compare(s, &s->lines[l]);
    free(values);
    return s;
}

void latency_summary_free(struct latency_summary *summary)
{
    if (!summary) return;
    free(summary->lines);
    free(summary);
}

size_t latency_summary_lines(const struct latency_summary *summary)
{
    return summary->n;
}

/* ---- tables ---- */

static bool is_extrapolated(size_t field)
{
    return strstr(fields[field].column.key, "extrapolated") != NULL;
}

/* What all lines have in common, people see above the table. */
static bool is_common(const struct latency_summary *s, size_t field)
{
    static const char *const keys[] = { "threads", "batch_size", "chunk_size", "runs", "status" };
    bool listed = false, same = true;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) listed = listed || strcmp(fields[field].column.key, keys[i]) == 0;
    for (size_t l = 1; listed && l < s->n && same; l++)
        same = fields[field].column.decimals < 0 ? strcmp(s->lines[l].text[field], s->lines[0].text[field]) == 0
                                                 : s->lines[l].number[field] == s->lines[0].number[field];
    const bool fails = strcmp(fields[field].column.key, "status") == 0 && s->n > 0 && strcmp(s->lines[0].text[field], "ok") != 0;
    return listed && same && !fails;
}

/* All columns, or those for people. */
static struct table *make_table(const struct latency_summary *s, bool all, struct table_column columns[N_FIELDS])
{
    struct table_cell cells[N_FIELDS];
    size_t used[N_FIELDS], n = 0;
    for (size_t f = 0; f < N_FIELDS; f++) {
        if (!all && (!fields[f].shown || is_common(s, f) || (is_extrapolated(f) && !s->extrapolated))) continue;
        columns[n] = fields[f].column;
        used[n++] = f;
    }
    struct table *table = table_create(columns, n);
    for (size_t l = 0; table && l < s->n; l++) {
        for (size_t c = 0; c < n; c++) cells[c] = (struct table_cell){ s->lines[l].text[used[c]], s->lines[l].number[used[c]] };
        if (table_add(table, cells)) continue;
        table_free(table);
        return NULL;
    }
    return table;
}

void latency_print(const struct latency_summary *s, FILE *out)
{
    struct table_column columns[N_FIELDS];
    struct table *table = make_table(s, false, columns);
    const char *separator = "";
    for (size_t f = 0; f < N_FIELDS && s->n > 0; f++) {
        if (!is_common(s, f) || fields[f].column.decimals < 0) continue;
        fprintf(out, "%s%s %.0f", separator, fields[f].column.title, s->lines[0].number[f]);
        separator = ", ";
    }
    if (*separator) putc('\n', out);
    if (table) table_write_text(table, out);
    table_free(table);
}

json_t *latency_json(const struct latency_summary *s)
{
    json_t *lines = json_array();
    for (size_t l = 0; l < s->n; l++) {
        json_t *line = json_object();
        for (size_t f = 0; f < N_FIELDS; f++) {
            const struct table_column *column = &fields[f].column;
            const double number = s->lines[l].number[f];
            const bool counts = column->decimals == 0 && number == floor(number);
            json_object_set_new(line, column->key,
                                column->decimals < 0 ? json_text(s->lines[l].text[f])
                                : counts             ? json_integer((json_int_t)number)
                                                     : json_number(number));
        }
        json_array_append_new(lines, line);
    }
    return lines;
}

/* Lengths and methods of one group of threads, batch and chunk, in the order of the lines. */
struct group {
    const struct line *first;
    double lengths[MAX_LENGTHS];
    const char *methods[METHOD_MAX];
    size_t n_lengths, n_methods;
};

static void collect(const struct latency_summary *s, const struct line *first, struct group *g)
{
    *g = (struct group){ .first = first };
    for (size_t l = 0; l < s->n; l++) {
        const struct line *line = &s->lines[l];
        size_t i = 0;
        if (!same_group(line->first, first->first)) continue;
        while (i < g->n_lengths && g->lengths[i] != value(line, "seq_len")) i++;
        if (i == g->n_lengths && i < MAX_LENGTHS) g->lengths[g->n_lengths++] = value(line, "seq_len");
        i = 0;
        while (i < g->n_methods && strcmp(g->methods[i], text(line, "method")) != 0) i++;
        if (i == g->n_methods && i < METHOD_MAX) g->methods[g->n_methods++] = text(line, "method");
    }
}

static const struct line *line_at(const struct latency_summary *s, const struct group *g, size_t method, size_t length)
{
    for (size_t l = 0; l < s->n; l++) {
        const struct line *line = &s->lines[l];
        if (same_group(line->first, g->first->first) && value(line, "seq_len") == g->lengths[length] &&
            strcmp(text(line, "method"), g->methods[method]) == 0)
            return line;
    }
    return NULL;
}

/* "ms (speedup x)" by method and length. */
static bool write_grid(const struct latency_summary *s, const struct group *g, const char *mean, const char *speedup, FILE *out)
{
    struct table_column columns[MAX_LENGTHS + 1] = { { "method", "method", -1, NULL } };
    char titles[MAX_LENGTHS][CELL], texts[MAX_LENGTHS][CELL];
    for (size_t i = 0; i < g->n_lengths; i++) {
        snprintf(titles[i], CELL, "%.0f", g->lengths[i]);
        columns[i + 1] = (struct table_column){ titles[i], titles[i], -1, NULL };
    }
    struct table *table = table_create(columns, g->n_lengths + 1);
    bool added = table != NULL;
    for (size_t m = 0; added && m < g->n_methods; m++) {
        struct table_cell cells[MAX_LENGTHS + 1] = { { g->methods[m], 0 } };
        for (size_t i = 0; i < g->n_lengths; i++) {
            const struct line *line = line_at(s, g, m, i);
            const double ms = line ? value(line, mean) : NAN, x = line ? value(line, speedup) : NAN;
            if (isnan(ms))
                snprintf(texts[i], CELL, "%s", line ? text(line, "status") : "");
            else if (isnan(x))
                snprintf(texts[i], CELL, "%.1f", ms);
            else
                snprintf(texts[i], CELL, "%.1f (%.2f x)", ms, x);
            cells[i + 1] = (struct table_cell){ texts[i], 0 };
        }
        added = table_add(table, cells);
    }
    if (added) table_write_markdown(table, out);
    table_free(table);
    return added;
}

static bool write_group(const struct latency_summary *s, const struct group *g, FILE *out)
{
    const struct line *f = g->first;
    double runs = 0; /* a line that failed has fewer */
    for (size_t l = 0; l < s->n; l++)
        if (same_group(s->lines[l].first, f->first)) runs = fmax(runs, value(&s->lines[l], "runs"));
    fprintf(
        out,
        "\n## %s, batch %.0f, chunk %.0f, threads %.0f\n\nPrompts: %s, schedule %s; %.0f warm-up runs, mean of %.0f; in brackets the "
        "speedup over dense.\n\nEnd to end, ms\n\n",
        text(f, "model"), value(f, "batch_size"), value(f, "chunk_size"), value(f, "threads"), text(f, "prompt_source"),
        text(f, "input_schedule"), value(f, "warmup"), runs);
    bool ok = write_grid(s, g, "e2e_mean_ms", "e2e_speedup", out);
    fprintf(out, "\nAttention modules, ms\n\n");
    ok = ok && write_grid(s, g, "attn_mean_ms", "attn_speedup", out);
    fprintf(out, "\nAttention kernel alone, ms\n\n");
    ok = ok && write_grid(s, g, "kernel_mean_ms", "kernel_speedup", out);
    if (!s->extrapolated) return ok;
    fprintf(out, "\nEnd to end, ms, extrapolated from %.0f to %.0f layers\n\n", value(f, "layers"), value(f, "layers_whole"));
    ok = ok && write_grid(s, g, "e2e_extrapolated_ms", "e2e_extrapolated_speedup", out);
    fprintf(out, "\nAttention modules, ms, extrapolated from %.0f to %.0f layers\n\n", value(f, "layers"),
            value(f, "layers_whole"));
    return ok && write_grid(s, g, "attn_extrapolated_ms", "attn_extrapolated_speedup", out);
}

/* ---- files ---- */

static int draw(const struct latency_summary *s, const struct group *g, const char *folder, const char *name)
{
    char path[FOLDER_PATH], names[MAX_LENGTHS][CELL], subtitle[200];
    const char *groups[MAX_LENGTHS];
    double values[2][METHOD_MAX * MAX_LENGTHS];
    const char *const keys[2] = { s->extrapolated ? "attn_extrapolated_speedup" : "attn_speedup",
                                  s->extrapolated ? "e2e_extrapolated_speedup" : "e2e_speedup" };
    const struct line *f = g->first;
    bool compared = false;
    for (size_t i = 0; i < g->n_lengths; i++) {
        const bool whole = fmod(g->lengths[i], 1024) == 0;
        snprintf(names[i], CELL, whole ? "%.0fK" : "%.0f", whole ? g->lengths[i] / 1024 : g->lengths[i]);
        groups[i] = names[i];
        for (size_t m = 0; m < g->n_methods; m++) {
            const struct line *line = line_at(s, g, m, i);
            for (int k = 0; k < 2; k++) values[k][m * g->n_lengths + i] = line ? value(line, keys[k]) : NAN;
            compared = compared || !isnan(values[0][m * g->n_lengths + i]);
        }
    }
    if (!compared) return EXIT_DONE; /* there is no dense row */
    snprintf(subtitle, sizeof subtitle, "%s, batch %.0f, chunk %.0f, threads %.0f", text(f, "model"), value(f, "batch_size"),
             value(f, "chunk_size"), value(f, "threads"));
    if (s->extrapolated) {
        const size_t n = strlen(subtitle);
        snprintf(subtitle + n, sizeof subtitle - n, ", extrapolated from %.0f to %.0f layers", value(f, "layers"),
                 value(f, "layers_whole"));
    }
    struct chart charts[] = { { .title = "Attention speedup", .values = values[0] },
                              { .title = "End-to-end speedup", .values = values[1] } };
    for (size_t k = 0; k < 2; k++) {
        charts[k].subtitle = subtitle;
        charts[k].axis = "times as fast as dense";
        charts[k].groups = groups;
        charts[k].series = g->methods;
        charts[k].n_groups = g->n_lengths;
        charts[k].n_series = g->n_methods;
    }
    if (!folder_path(folder, name, path)) return folder_cannot_write(folder, name, "the path is too long");
    const char *why = chart_write_panels(charts, 2, path);
    return why ? folder_cannot_write(folder, name, why) : EXIT_DONE;
}

static bool begins_group(const struct latency_summary *s, size_t line)
{
    for (size_t l = 0; l < line; l++) {
        if (same_group(s->lines[l].first, s->lines[line].first)) return false;
    }
    return true;
}

static int write_markdown(const struct latency_summary *s, const char *folder)
{
    static const char name[] = "summary.md";
    char path[FOLDER_PATH];
    struct group g;
    struct file_result result;
    if (!folder_begin(&result, folder, name, path)) return EXIT_FAILED;
    FILE *out = result.file;
    bool ok = fputs("# Latency of chunked prefill\n", out) >= 0;
    for (size_t l = 0; l < s->n && ok; l++) {
        if (!begins_group(s, l)) continue;
        collect(s, &s->lines[l], &g);
        ok = write_group(s, &g, out);
    }
    for (size_t l = 0; l < s->n && ok; l++) {
        const struct line *line = &s->lines[l];
        if (strcmp(text(line, "status"), "ok") == 0) continue;
        fprintf(out, "\n%s: %s at %.0f tokens, batch %.0f, chunk %.0f, threads %.0f: %s\n", text(line, "status"),
                text(line, "method"), value(line, "seq_len"), value(line, "batch_size"), value(line, "chunk_size"),
                value(line, "threads"), text(line, "error"));
    }
    const int ended = folder_end(&result, folder, name, ok);
    return ok ? ended : folder_cannot_write(folder, name, "the disk may be full");
}

static int draw_groups(const struct latency_summary *s, const char *folder)
{
    int code = EXIT_DONE;
    size_t n_groups = 0;
    struct group g;
    for (size_t l = 0; l < s->n; l++) n_groups += begins_group(s, l);
    for (size_t l = 0; l < s->n && code == EXIT_DONE; l++) {
        const struct line *f = &s->lines[l];
        char name[96] = "speedup.png";
        if (!begins_group(s, l)) continue;
        if (n_groups > 1)
            snprintf(name, sizeof name, "speedup-b%.0f-c%.0f-t%.0f.png", value(f, "batch_size"), value(f, "chunk_size"),
                     value(f, "threads"));
        collect(s, f, &g);
        code = draw(s, &g, folder, name);
    }
    return code;
}

int latency_write(const struct latency_summary *s, const char *folder)
{
    struct table_column columns[N_FIELDS];
    struct table *table = make_table(s, true, columns);
    if (!table) return fail("no memory for the table");
    int code = folder_write_table(folder, "summary.csv", table, table_write_csv);
    table_free(table);
    if (code == EXIT_DONE) code = write_markdown(s, folder);
    return code == EXIT_DONE ? draw_groups(s, folder) : code;
}
