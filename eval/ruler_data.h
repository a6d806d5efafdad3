/* What RULER's prompts are made from and that is read from files: an essay, questions and their documents (spec: evaluation, B7, B13). */
#ifndef EVAL_RULER_DATA_H
#define EVAL_RULER_DATA_H

#include "eval/text.h"

/* An essay's words, each once after the other with one space between; empty ones count, as in Python's split(" "). */
struct essay {
    struct text text;
    size_t *ends; /* where word i ends in the text */
    size_t n_words;
};

/* path: plain text, or JSON with the key "text"; either may be gzip'ed. NULL: the text that comes with the program.
 * Returns an exit code. */
int essay_read(const char *path, struct essay *out);
void essay_free(struct essay *essay);
/* Where it was read from; false when there is none. */
bool essay_path(const char *path, char *found, size_t cap);

struct question {
    const char *query;
    struct strings answers;
    size_t *own, *more; /* document numbers */
    size_t n_own, n_more;
};

struct questions {
    struct question *items;
    size_t n;
    const char **documents; /* sorted, each once; in the file */
    size_t n_documents;
    struct strings texts; /* owns the documents */
    void *file;           /* owns the queries */
};

/* SQuAD's dev-v2.0.json, and HotpotQA's dev distractor v1. Return an exit code; the message names the key that is wrong. */
int questions_read_squad(const char *path, struct questions *out);
int questions_read_hotpotqa(const char *path, struct questions *out);
void questions_free(struct questions *questions);

#endif
