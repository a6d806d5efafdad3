/* Files of answers to LongBench-v2, what they are worth, and methods side by side. */
#ifndef EVAL_LONGBENCH_SUMMARY_H
#define EVAL_LONGBENCH_SUMMARY_H

#include "eval/longbench_data.h"

/* Starts as zeros, but for official. */
struct longbench_tally {
    bool official; /* choices by LongBench's own rule */
    struct longbench_scores scores;
    size_t n_bad; /* rows left out, each told */
    double kept, prefill_ms;
    size_t n_kept, n_prefill; /* rows that have these numbers; the sums are of them */
};

/* Adds the rows of a file. Returns an exit code. */
int longbench_tally_file(struct longbench_tally *tally, const char *path);
void longbench_tally_free(struct longbench_tally *tally);

/* Tells how many rows came twice and which items of data (NULL: not looked for) have no answer; where: what has them. Returns the number
 * of these items. */
size_t longbench_tell_gaps(const char *where, const struct longbench_tally *tally, const struct longbench_data *data);

/* The published summary.json and summary.csv. *summary is a new reference. Returns an exit code. */
int longbench_write(const char *folder, const struct longbench_tally *tally, json_t **summary);

/* Paths of a method's answers, of all shards: FOLDER/pred*.jsonl in name order; none when there is no folder. Returns an exit code. */
int longbench_answers(const char *folder, struct strings *paths);

/* Scores OUT/NAME/pred*.jsonl of each method, with the published summaries beside them, and compares the methods: a table on standard
 * output (json: an object), in OUT/summary.csv and OUT/summary.md. *n_bad counts rows left out. Returns an exit code. */
int longbench_compare(const char *out, char *const *names, size_t n_names, const struct longbench_data *data, bool official,
                      bool json, size_t *n_bad);

#endif
