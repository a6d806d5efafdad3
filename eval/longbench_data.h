/* LongBench-v2's items and their prompts (spec: evaluation, C1 to C3). */
#ifndef EVAL_LONGBENCH_DATA_H
#define EVAL_LONGBENCH_DATA_H

#include "eval/longbench.h"
#include "eval/text.h"

#include <compactattn/tokenizer.h>

struct longbench_item {
    size_t row; /* of the file, from 0; rows that cannot be used count */
    char id[LONGBENCH_ID];
    const char *json; /* its object in the file's text */
    size_t size;
    json_t *labels; /* _id, domain, sub_domain, difficulty, length, answer: how its answers' rows begin */
};

struct longbench_data {
    char *text; /* the file: contexts are read from it when they are needed */
    struct longbench_item *items;
    size_t n_items;
    size_t n_bad; /* items left out, each named on standard error with its place, id and reason */
};

/* Reads FILE, one JSON array or one JSON object a line. Items that lack something or whose id came before are told and left out; an array
 * that is no JSON, or a file without a usable item, is an error. An item without _id has its id, or its row. Returns an exit code;
 * longbench_data_free is allowed after a failure too. */
int longbench_read(const char *path, struct longbench_data *out);
void longbench_data_free(struct longbench_data *data);

/* The reference's prompt; LongBench's own, with the two of its chain of thought. */
enum longbench_form { LONGBENCH_REFERENCE, LONGBENCH_OFFICIAL, LONGBENCH_COT, LONGBENCH_COT_ANSWER };

/* Adds an item's prompt to text. thoughts: what LONGBENCH_COT was answered with, for LONGBENCH_COT_ANSWER; else not read. */
void longbench_add_prompt(const json_t *item, enum longbench_form form, const char *thoughts, struct text *text);

/* Adds the text of the first floor(most / 2) and the last most - floor(most / 2) of n ids, without special tokens. Returns an exit code. */
int longbench_add_cut(const ca_tokenizer *tokenizer, const uint32_t *ids, size_t n, size_t most, struct text *text);

/* Adds in without the spaces that Hugging Face's clean_up_tokenization_spaces takes away. */
void longbench_add_clean(const char *in, struct text *text);

#endif
