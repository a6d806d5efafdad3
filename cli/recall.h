/* How much of the true attention selectors keep over a sweep of their thresholds, measured in a dense prefill. */
#ifndef CLI_RECALL_H
#define CLI_RECALL_H

#include "engine.h"
#include "progress.h"

enum { RECALL_SETTINGS = 8, RECALL_SELECTORS = CA_SELECT_USER };

/* A selector and the settings of its threshold, the strictest first. */
struct recall_sweep {
    ca_selector selector;
    const char *option;   /* that sets the threshold ("--alpha") */
    bool whole, by_ratio; /* whole numbers; interpolated by ratios, not differences */
    double values[RECALL_SETTINGS];
    size_t n, first; /* first: index of its first point */
    ca_select_opt select;
};

/* Of one setting in one layer and chunk. */
struct recall_point {
    double mass;  /* share of the attention mass that falls on keys which are read: mean over heads and queries */
    double kept;  /* share of the past that is read */
    double error; /* |o - o_dense| / |o_dense| over the chunk */
};

/* A layer and chunk. */
struct recall_sample {
    uint32_t layer, chunk, pos;
};

struct recall {
    const struct engine *engine;
    ca_session_opt opt; /* executor, table, cost, worth: how masks become rows; chunk, page and context of the session */
    struct recall_sweep sweeps[RECALL_SELECTORS];
    size_t n_sweeps, n_settings; /* settings of all sweeps */
    bool *layers;                /* [n_layers]: measured */
    uint32_t n_layers;           /* measured */
    uint32_t *chunks;            /* [n_chunks] measured, ascending */
    uint32_t n_chunks;
    struct recall_sample *samples; /* [n_samples], finished ones */
    struct recall_point *points;   /* [n_samples][n_settings] */
    size_t n_samples;
};

/* Adds a selector with the settings that fit the longest past and the page of opt. */
void recall_add_sweep(struct recall *recall, ca_selector selector, const ca_select_opt *select);

/* Prefills opt.context ids and measures. engine, opt, sweeps, layers and chunks are set. Returns an exit code; EXIT_INTERRUPTED, without
 * a message, after Ctrl-C: what was finished is there. */
int recall_measure(struct recall *recall, const uint32_t *ids, enum progress_style style);

void recall_free(struct recall *recall);

/* The setting's value put into the selector's options. */
void recall_set(ca_select_opt *select, double value);

/* Means over the samples, and the mean of the layer with the least mass. */
struct recall_mean {
    struct recall_point mean;
    double worst_layer;
};
struct recall_mean recall_mean(const struct recall *recall, size_t setting);

/* The cheapest setting of a sweep whose mean mass reaches the recall, interpolated between settings and rounded to the safe side.
 * False when none reaches it: then the best one's. */
struct recall_advice {
    double value;
    struct recall_point expected;
};
bool recall_advise(const struct recall *recall, const struct recall_sweep *sweep, double recall_asked, struct recall_advice *out);

#endif
