/* The 13 RULER tasks (spec: evaluation, B3, B4, B11), in the order in which tables list them. */
#ifndef EVAL_RULER_H
#define EVAL_RULER_H

#include <compactattn/tokenizer.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RULER_TASKS = 13, RULER_PATH = 1024 };

struct ruler_task {
    const char *name;       /* "niah_single_1" */
    unsigned new_tokens;    /* of the answer */
    bool part;              /* scored by string_match_part: any reference counts */
    bool essay;             /* needs an essay */
    const char *needs_data; /* "--squad", "--hotpotqa", or NULL */
};

extern const struct ruler_task ruler_tasks[RULER_TASKS];

enum ruler_profile { RULER_REFERENCE, RULER_UPSTREAM };

/* What a data root is made from. Paths may be NULL. */
struct ruler_source {
    enum ruler_profile profile;
    const char *wrapper; /* the wrapper's text with "{}" where the task goes (D1) */
    const char *wrapper_name;
    const char *essay, *squad, *hotpotqa;
    uint32_t seed;
    size_t n_samples;
};

/* The wrapper called name (D1: base, llama-3, qwen2.5, ..; "model" = the model's own chat template, rendered around "{}"; NULL = what
 * fits the model). *text is malloc'ed. Returns an exit code. */
int ruler_wrapper(const char *name, const ca_tokenizer *tokenizer, char **text);

/* The name that NULL stands for: llama-3, qwen2.5, model or base. */
const char *ruler_wrapper_name(const ca_tokenizer *tokenizer);

/* Tasks by name, "all" or "vt,cwe,..", as bits. Returns an exit code. */
int ruler_select(const char *names, unsigned *tasks);

/* "1024,4096": at most RULER_LENGTHS lengths of 64 tokens and more. Returns an exit code. */
enum { RULER_LENGTHS = 16 };
int ruler_parse_lengths(const char *list, size_t lengths[RULER_LENGTHS], size_t *n);

/* ROOT/synthetic/LENGTH/data/TASK/validation.jsonl; false when too long. */
bool ruler_data_path(const char *root, size_t length, const char *task, char path[RULER_PATH]);

/* Makes the files of these tasks (bit t = ruler_tasks[t]) and lengths that are not there yet, with progress and Ctrl-C, and checks those
 * that are there against ROOT/manifest.json. Tasks whose data is missing are named and left out of *made. A root without manifest.json
 * that has files is somebody else's (prebuilt): nothing is written, *made = the tasks that have a file for every length.
 * Returns an exit code. */
int ruler_make_data(const char *root, const struct ruler_source *source, const ca_tokenizer *tokenizer, unsigned tasks,
                    const size_t *lengths, size_t n_lengths, bool quiet, unsigned *made);

#endif
