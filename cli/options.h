/* The command line: one table of options for all subcommands. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* Integers below 0 and floats that are NaN are not given: the library's default holds (see method.h). */
struct options {
    const char *model, *file, *prompt, *ask, *out, *tokens, *text, *csv, *methods, *lengths, *fact, *expect, *answer_start;
    const char *selector, *executor, *isa;
    int64_t max_tokens, seed, context, chunk, page, threads;
    int64_t sink, window, min_budget, last_dense, last_mute, heads_per_row, dense_tail;
    int64_t last, from, runs, warmup, length;
    double temperature, top_p, alpha, depth;
    bool help, json, stats, dry_run, progress, chat, raw, jsonl, decode, parse_special, no_bos;
};

/* A subcommand. name may be two words ("bench prefill"). */
struct command {
    const char *name, *summary;
    const char *synopsis; /* what follows the name in the usage line */
    const char *details;  /* paragraphs with an example, for --help */
    unsigned bit;         /* CMD_* */
    int (*run)(const struct options *options);
};

enum {
    CMD_RUN = 1 << 0,
    CMD_BENCH = 1 << 1,
    CMD_LOGITS = 1 << 2,
    CMD_PERPLEXITY = 1 << 3,
    CMD_TOKENIZE = 1 << 4,
    CMD_INSPECT = 1 << 5,
    CMD_DOCTOR = 1 << 6,
    CMD_DEMO = 1 << 7
};

/* Reads argv[1..argc), the words after the subcommand's name. Prints the message and returns EXIT_BAD_USAGE on an unknown option, a
 * missing or unfit value, a missing required option or a left-over word; EXIT_DONE else. Strings point into argv. */
int options_parse(const struct command *command, int argc, char **argv, struct options *out);

/* --help of one subcommand, on standard output. */
void options_print_help(const struct command *command);

#endif
