/* RULER's answers (spec: evaluation, B10): a grid of lengths, tasks and methods over one data root.
 *
 * OUT/manifest.json says which model and data; OUT/METHOD/manifest.json all settings of a method. OUT/METHOD/synthetic/LENGTH/pred/
 * TASK.jsonl is the published layout: a line an answer, with index, outputs, pred, length, and what was measured. */
#ifndef EVAL_RULER_RUN_H
#define EVAL_RULER_RUN_H

#include "cli/engine.h"
#include "cli/progress.h"
#include "cli/sweep.h"
#include "eval/ruler.h"

enum { RULER_NAME = SWEEP_TEXT + 64, RULER_METHODS = 64 };

struct ruler_grid {
    const char *model, *data, *out; /* the model's file or folder; the root of the prompts; where answers go */
    const char *gate, *extend;      /* of the command line; NULL without */
    enum progress_style style;
    unsigned tasks; /* bit t = ruler_tasks[t] */
    const size_t *lengths;
    size_t n_lengths, n_samples; /* the first n_samples rows of each file */
    const struct sweep *methods;
    size_t n_methods;
};

/* "flashprefill+auto", "flashprefill+auto,alpha=0.05": how results call a method, and its folder. */
void ruler_name(const struct sweep *sweep, char name[RULER_NAME]);

/* ROOT/manifest.json of prompts or answers; *out is NULL when there is none, else a new reference. Returns an exit code. */
int ruler_manifest(const char *root, json_t **out);

/* Answers what is not answered yet. Rows that are missing or do not fit the context are told and left out: *n_left_out counts files and
 * rows. Returns an exit code; after Ctrl-C EXIT_INTERRUPTED, and the next call goes on. */
int ruler_run(const struct engine *engine, const struct ruler_grid *grid, size_t *n_left_out);

#endif
