/* What RULER's answers are worth (spec: evaluation, B11): scores, intervals, differences from dense, as tables, files and a picture. */
#ifndef EVAL_RULER_SUMMARY_H
#define EVAL_RULER_SUMMARY_H

#include <stdbool.h>

/* Reads FOLDER/METHOD/synthetic/LENGTH/pred/TASK.jsonl of every METHOD, or FOLDER/synthetic/.. of a single one, ours or the
 * reference's. Prints a table per length (json: one object), writes summary.csv, summary.md and heatmap.png to out (NULL: FOLDER) and,
 * when out is NULL, the reference's summary.csv beside the answers. Lines that cannot be used are told and left out.
 * Returns an exit code. */
int ruler_summary(const char *folder, const char *out, bool json);

#endif
