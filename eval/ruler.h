/* The 13 RULER tasks (spec: evaluation, B3, B4, B11), in the order in which tables list them. */
#ifndef EVAL_RULER_H
#define EVAL_RULER_H

#include <compactattn/tokenizer.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RULER_TASKS = 13, RULER_PATH = 1024 };

struct ruler_task {
    const char *name;       /* "niah_single_1" */
    unsigned new_tokens;    /* of the answer */
    bool part;              /* scored by string_match_part: any reference counts */
    bool essay;             /* needs an essay */
    bool words;             /* needs the word lists */
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

/* What a data root has of what was asked for. */
struct ruler_made {
    unsigned tasks;  /* with a file for at least one length */
    size_t n_files;  /* at least one after EXIT_DONE */
    json_t *skipped; /* "512/vt": why there is no file; of tasks that have a file elsewhere or do not fit anywhere. Owned */
};

/* "512/vt", as holes of a grid are called in manifests. */
enum { RULER_KEY = 64 };
void ruler_key(size_t length, const char *task, char key[RULER_KEY]);

/* Makes the files of these tasks (bit t = ruler_tasks[t]) and lengths that are not there yet, with progress and Ctrl-C, and checks those
 * that are there against ROOT/manifest.json. Tasks whose data is missing, and tasks that do not fit a length, are named and left out;
 * the latter are in the manifest's note ("skipped"), too. A root without manifest.json that has files is somebody else's (prebuilt):
 * nothing is written. Returns an exit code: not EXIT_DONE when there is no file at all. */
int ruler_make_data(const char *root, const struct ruler_source *source, const ca_tokenizer *tokenizer, unsigned tasks,
                    const size_t *lengths, size_t n_lengths, bool quiet, struct ruler_made *made);

#endif
