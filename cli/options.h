/* The command line: one table of options for all subcommands. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Values of an option that may be given several times. */
struct texts {
    const char *items[16];
    size_t n;
};

/* Integers below 0 and floats that are NaN are not given: the library's default holds (see method.h). */
struct options {
    const char *model, *file, *prompt, *ask, *out, *tokens, *text, *csv, *methods, *lengths, *fact, *expect, *answer_start;
    const char *chat_template, *thinking;
    const char *selector, *executor, *isa, *matmul, *attention, *gate, *threshold, *last_scope, *keep, *system, *save_cache,
        *load_cache, *extend;
    const char *mode, *schedule, *data, *task, *tokenizer, *grid_lengths, *batches, *chunk_list, *thread_list;
    const char *tasks, *template, *profile, *essay, *squad, *hotpotqa, *ruler_lengths, *own_tasks, *last_chunk;
    const char *prompt_form, *shard, *ids, *difficulty, *item_length, *domain;
    struct texts shapes, sweeps, stops, predictions;
    int64_t max_tokens, seed, context, chunk, page, threads;
    int64_t sink, window, min_budget, last_dense, last_mute, heads_per_row, qblocks_per_row, dense_prefix, dense_tail;
    int64_t stride, top_k;
    int64_t last, from, half_from, runs, warmup, length;
    int64_t model_layers, grid_runs, grid_warmup;
    int64_t layer, head, chunk_index, chunks;
    int64_t samples, data_seed;
    int64_t max_length, limit, answer_tokens, cot_tokens;
    const char *selectors, *layers;
    double recall;
    double temperature, top_p, alpha, depth, query_ratio, kv_ratio, head_worth, qblock_worth, whole;
    const char *words[2]; /* what stands without an option; as many as the command takes */
    bool tune, free_max, relative, bare, sparse_first, no_check;
    bool official, cot, clean_spaces;
    bool help, json, stats, dry_run, progress, chat, raw, jsonl, decode, parse_special, no_bos;
};

/* A subcommand. name may be several words ("bench prefill"). */
struct command {
    const char *name, *summary;
    const char *synopsis; /* what follows the name in the usage line */
    const char *details;  /* paragraphs with an example, for --help */
    unsigned bit;         /* CMD_* */
    int n_words;          /* words that it takes without an option, at most 2 */
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
    CMD_DEMO = 1 << 7,
    CMD_BENCH_ATTENTION = 1 << 12,
    CMD_BENCH_QUALITY = 1 << 13,
    CMD_CHAT = 1 << 14,
    CMD_RULER_GENERATE = 1 << 15,
    CMD_RULER_RUN = 1 << 16,
    CMD_RULER_SCORE = 1 << 17,
    CMD_RULER = 1 << 18,
    CMD_LONGBENCH = 1 << 19,
    CMD_LONGBENCH_SCORE = 1 << 20,
    CMD_LATENCY = 1 << 21,
    CMD_LONGBENCH_RUN = 1 << 22,
    CMD_CONVERT = 1 << 8,
    CMD_INSPECT_MASK = 1 << 9,
    CMD_INSPECT_RECALL = 1 << 10
};

/* Reads argv[1..argc), the words after the subcommand's name. Prints the message and returns EXIT_BAD_USAGE on an unknown option, a
 * missing or unfit value, a missing required option, a missing or left-over word; EXIT_DONE else. Strings point into argv. */
int options_parse(const struct command *command, int argc, char **argv, struct options *out);

/* Threads that --threads takes at most. */
int options_most_threads(void);

/* For --sweep: sets one more option of a parsed command line, as if "--NAME VALUE" had been given. Only options that are read for each
 * method by itself are taken. name has length bytes and need not end there, value must outlive *out. Returns an exit code; the message
 * names the option. */
int options_set(const struct command *command, const char *name, size_t length, const char *value, struct options *out);

/* Prints a paragraph, whose lines end where the terminal does; the cursor is at column, where later lines begin, too. A paragraph goes
 * up to a line that is blank or indented. Returns what comes after it. */
const char *options_print_wrapped(const char *text, size_t column);
/* --help of one subcommand, on standard output. */
void options_print_help(const struct command *command);

#endif
