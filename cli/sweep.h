/* Methods with settings of their own: what is compared in one run. */
#ifndef CLI_SWEEP_H
#define CLI_SWEEP_H

#include "method.h"

#include <jansson.h>

enum { SWEEP_TEXT = 96, SWEEP_VALUE = 32 };

struct sweep {
    struct method method;
    char setting[SWEEP_TEXT]; /* "alpha=0.12", or empty */
    struct options options;   /* the command line's with that setting */
    char value[SWEEP_VALUE];  /* of the setting; options may point to it: a sweep is not moved */
};

/* Adds what "METHOD" or "METHOD:OPTION=V,V,.." says to entries[*n..cap): one entry a value. Returns an exit code. */
int sweep_add(const struct command *command, const struct options *options, const char *text, struct sweep *entries, size_t cap,
              size_t *n);

/* The methods to compare: those of --methods (or of --selector and --executor, or the fallback list), and what --sweep adds; with --sweep
 * alone only that. Each once, in entries[0..*n). Returns an exit code. */
int sweep_choose(const struct command *command, const struct options *options, const char *fallback, struct sweep *entries,
                 size_t cap, size_t *n);

/* All settings that matter for what a method computes, as the session has them. The cost model of auto, which shapes its rows, is among
 * them where it is not the kernel set's built-in one. NULL when memory is short. */
json_t *sweep_settings(const ca_kern *kern, const ca_session_opt *opt);

#endif
