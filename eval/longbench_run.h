/* LongBench-v2's answers (spec: evaluation, C2, C3 and C5): items x methods.
 *
 * OUT/manifest.json says which model, data and prompt; OUT/METHOD/manifest.json all settings of a method. OUT/METHOD/pred.jsonl, or
 * pred.I-of-N.jsonl of a shard, has the published runner's keys, a line an answer, and what was measured. */
#ifndef EVAL_LONGBENCH_RUN_H
#define EVAL_LONGBENCH_RUN_H

#include "cli/progress.h"
#include "eval/longbench_data.h"
#include "eval/ruler_run.h"

struct longbench_grid {
    const struct options *options; /* --out, --prompt and what belongs to it, --max-length, --ids .. */
    enum progress_style style;
    const struct longbench_data *data;
    const struct sweep *methods;
    size_t n_methods;
    size_t shard, n_shards;
};

/* Answers what is not answered yet. Prompts that do not fit the context are told, left out and counted in *n_left_out. Returns an exit
 * code; after Ctrl-C EXIT_INTERRUPTED, and the next call goes on. */
int longbench_run(const struct engine *engine, const struct longbench_grid *grid, size_t *n_left_out);

#endif
