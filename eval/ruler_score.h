/* Scores of RULER answers (spec: evaluation, B11). Pure: nothing is read or printed. */
#ifndef EVAL_RULER_SCORE_H
#define EVAL_RULER_SCORE_H

#include <stdbool.h>
#include <stddef.h>

/* What is left of a text without white space at either end, as Python's str.strip. In place. */
void ruler_strip(char *text);

/* Text in lower case as Python's str.lower makes it; malloc'ed. NULL when memory is short. Bytes that are not UTF-8 stay. */
char *ruler_lower(const char *text);

/* Share of the references that occur in the answer, upper and lower case alike; with part: 1 when any does. Below 0: no memory. */
double ruler_score(const char *answer, const char *const *references, size_t n_references, bool part);

/* The nearest number with that many decimals, ties of the exact binary value to the even digit: Python's round. */
double ruler_round(double value, int decimals);

/* Mean of scores in percent, with two decimals; 0 without any. */
double ruler_percent(const double *scores, size_t n);

/* Numbers of one task. */
struct ruler_group {
    const double *values;
    size_t n;
};

struct ruler_interval {
    double low, high; /* NaN when nothing can be drawn */
};

/* 95 % bootstrap interval of the mean over groups of their means: each draw takes n of a group's n values with replacement. Percentile
 * method, 2000 draws of a generator with a fixed seed: the same numbers give the same interval. Groups without values do not count. */
struct ruler_interval ruler_bootstrap(const struct ruler_group *groups, size_t n_groups);

#endif
