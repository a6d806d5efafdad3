/* RULER's answers (spec: evaluation, B10): a grid of lengths, tasks and methods over one data root.
 *
 * OUT/manifest.json says which model and data, and what was left out; OUT/METHOD/manifest.json all settings of a method. In
 * OUT/METHOD/synthetic/LENGTH/pred/TASK.jsonl, the published layout, a line is an answer, with index, outputs, pred, length, and what was
 * measured. */
#ifndef EVAL_RULER_RUN_H
#define EVAL_RULER_RUN_H

#include "cli/engine.h"
#include "cli/progress.h"
#include "cli/sweep.h"
#include "eval/ruler.h"

enum { RULER_NAME = SWEEP_TEXT + 64, RULER_METHODS = 64 };

struct ruler_grid {
    const char *model, *data, *out; /* the model's file or folder; the root of the prompts; where answers go */
    enum progress_style style;
    unsigned tasks; /* bit t = ruler_tasks[t] */
    const size_t *lengths;
    size_t n_lengths, n_samples; /* the first n_samples rows of each file */
    const struct sweep *methods;
    size_t n_methods;
    bool holes_told; /* what the data's manifest says is skipped need not be told again */
};

/* "flashprefill+auto", "flashprefill+auto,alpha=0.05": how results call a method, and its folder. */
void ruler_name(const struct sweep *sweep, char name[RULER_NAME]);

/* Begins FOLDER/manifest.json of a method's answers (eval/ledger.h), with all its settings. kind: "compactattn eval ruler". Returns an
 * exit code. */
int ruler_begin_method(const struct engine *engine, const struct sweep *sweep, const char *kind, const char *model_hash,
                       const char *folder);

/* An answer as the published runners keep it: up to the first of the marks that end a turn, without the white space around it. */
void ruler_trim_answer(char *text);

/* Names what lies in FOLDER/synthetic and is no length in tokens. */
void ruler_tell_strangers(const char *folder);

/* ROOT/manifest.json of prompts or answers; *out is NULL when there is none, else a new reference. Returns an exit code. */
int ruler_manifest(const char *root, json_t **out);

/* Answers what is not answered yet. Rows that cannot be used or do not fit the context are told and left out: *n_left_out counts them,
 * *n_missing the files that are not there. Tasks that the data's own manifest leaves out at a length are told and not counted. Returns
 * an exit code; after Ctrl-C EXIT_INTERRUPTED, and the next call goes on. */
int ruler_run(const struct engine *engine, const struct ruler_grid *grid, size_t *n_left_out, size_t *n_missing);

#endif
