/* LongBench-v2's answers (spec: evaluation, C4 and C6): the letter in a response, and the scores. Pure: nothing is read or printed. */
#ifndef EVAL_LONGBENCH_H
#define EVAL_LONGBENCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* The letter 'A' to 'D' that a response chooses, 0 when none, -1 when memory is short. official: LongBench's own strict rule, "The correct
 * answer is (X)" or "The correct answer is X"; else the four rules with which CompactAttention was published. */
int longbench_choice(const char *response, bool official);

enum { LONGBENCH_OVERALL, LONGBENCH_EASY, LONGBENCH_HARD, LONGBENCH_SHORT, LONGBENCH_MEDIUM, LONGBENCH_LONG, LONGBENCH_BUCKETS };

/* An id as it is compared: a text, or a whole number as text. False when it is neither, empty or too long. */
enum { LONGBENCH_ID = 128 };
bool longbench_id(const json_t *id, char out[LONGBENCH_ID]);

/* What answers are counted by. */
struct longbench_labels {
    int answer;             /* 'A' to 'D' */
    int difficulty, length; /* buckets */
    const char *domain;     /* borrowed */
};

/* The labels of an item, or of its answer's row. Returns why it has none (static text), NULL when it has. */
const char *longbench_read_labels(const json_t *row, struct longbench_labels *out);

struct longbench_bucket {
    size_t n, right;
};

/* Starts as zeros. */
struct longbench_scores {
    struct longbench_bucket buckets[LONGBENCH_BUCKETS];
    size_t nulls;    /* responses without a choice */
    size_t repeated; /* rows passed over: their _id was counted before */
    json_t *ids;     /* of rows counted */
    json_t *domains; /* name: [n, right] */
};

/* Counts one row (_id, answer, pred_answer or response, difficulty, length, domain); a row whose _id was counted before is passed over.
 * official: the choice is taken from the response anew. Returns why the row cannot be used (static text), NULL when it can. */
const char *longbench_add(struct longbench_scores *scores, const json_t *row, bool official);
void longbench_free(struct longbench_scores *scores);

/* The published summaries. summary.json's object: count, overall, .., nulls, domains sorted by name; NULL when memory is short.
 * summary.csv with CRLF; errors are left in the stream. Percentages have one decimal. */
json_t *longbench_json(const struct longbench_scores *scores);
void longbench_write_csv(const json_t *summary, FILE *out);

#endif
