/* The rows of one RULER file, made as the published generators make them (spec: evaluation, B2 to B8, B12): the same draws in the same
 * order, so the same bytes for the same tokenizer. */
#ifndef EVAL_RULER_TASKS_H
#define EVAL_RULER_TASKS_H

#include "eval/ruler.h"
#include "eval/ruler_data.h"
#include "eval/words.h"

#include <jansson.h>

/* Tokens of a text, without BOS; special tokens in it count as one. Returns an exit code. */
struct ruler_counter {
    int (*count)(void *context, const char *text, size_t n, size_t *tokens);
    void *context;
};

/* What the task at hand does not need may be NULL. Borrowed. */
struct ruler_pool {
    const struct words *words;
    const struct essay *essay;
    const struct questions *squad, *hotpotqa;
};

struct ruler_job {
    size_t task; /* of ruler_tasks */
    size_t length, n_samples;
    uint32_t seed;
    enum ruler_profile profile;
    const char *wrapper; /* "{}" is where the task goes */
    struct ruler_counter counter;
    struct ruler_pool pool;
    const volatile int *cancel; /* may be NULL */
    const char **too_short;     /* receives why the task does not fit the length; static text. May be NULL */
};

/* Besides exit codes: the task does not fit the length. */
enum { RULER_TOO_SHORT = -2 };

/* Calls take with every row in turn; row is stolen. take returns an exit code, which ends the work when it is not EXIT_DONE.
 * Returns an exit code or RULER_TOO_SHORT. */
int ruler_make_rows(const struct ruler_job *job, int (*take)(void *context, json_t *row), void *context);

#endif
