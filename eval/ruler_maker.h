/* Between ruler_tasks.c, which finds how much fits and makes the rows, and the families of tasks, which draw prompts of a size. */
#ifndef EVAL_RULER_MAKER_H
#define EVAL_RULER_MAKER_H

#include "eval/random.h"
#include "eval/ruler_tasks.h"

/* Besides exit codes: what was drawn cannot be used (the published generator raises an exception), so another try is due. */
enum { DRAW_AGAIN = -1 };

struct prompt {
    struct text text;
    struct strings outputs;
};

struct maker {
    const struct ruler_job *job;
    const struct ruler_family *family;
    struct text template;        /* with wrapper and answer prefix */
    struct random python, numpy; /* the streams P and Q */
    size_t length, budget;       /* tokens of prompt and answer together, of the answer */
    size_t step;                 /* by which the size of a prompt grows and shrinks */
    size_t pool;                 /* units of a prompt that there are; 0 = no end */
    size_t overhead;             /* tokens counted with every prompt */
    bool example;                /* vt: the example is being made */
    struct text example_text;    /* vt */
    struct strings example_names;
    const struct questions *questions; /* qa */
    const char **documents;            /* qa: in the order that the generator has them in */
};

/* A family of tasks. Functions return an exit code or DRAW_AGAIN; NULL where the common way does. */
struct ruler_family {
    const char *template, *prefix, *prefix_upstream; /* the last NULL: the same */
    int (*prepare)(struct maker *maker);
    int (*draw)(struct maker *maker, size_t index, size_t size, struct prompt *out);
    void (*add_answers)(const struct prompt *prompt, struct text *out); /* as counted while the size is searched */
    int (*finish)(struct maker *maker, struct prompt *prompt);          /* reference: after counting, upstream: before */
    int (*find)(struct maker *maker, size_t *size);
    int (*sample)(struct maker *maker, size_t index, size_t size, struct prompt *out, size_t *length);
};

extern const struct ruler_family ruler_niah, ruler_vt, ruler_cwe, ruler_fwe, ruler_qa;

/* NOISE * n, the haystack of niah_single_1 and vt. */
#define RULER_NOISE "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."

bool maker_upstream(const struct maker *maker);
int maker_count(const struct maker *maker, const struct text *text, size_t *tokens);
/* "TASK, LENGTH tokens: ..". Returns EXIT_FAILED. */
int maker_fail(const struct maker *maker, const char *what);
/* The task does not fit the length; why is static text. Returns RULER_TOO_SHORT. */
int maker_too_short(const struct maker *maker, const char *why);
/* EXIT_DONE, or the failure of a prompt that ran out of memory. */
int maker_check(const struct maker *maker, const struct prompt *prompt);

/* The common search, and the common way to a prompt that fits. */
int maker_find(struct maker *maker, size_t *size);
int maker_sample(struct maker *maker, size_t index, size_t size, struct prompt *out, size_t *length);

/* Sentences joined by separator; items[i] stands before sentence positions[i] (ascending). */
void maker_weave(struct text *out, const char *separator, const char *const *sentences, size_t n, const size_t *positions,
                 char *const *items, size_t n_items);
void maker_sort(size_t *numbers, size_t n);

#endif
