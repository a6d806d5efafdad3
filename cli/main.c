/* compactattn: finds the subcommand, reads its options, runs it. */
#include "commands.h"
#include "message.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command *const commands[] = {
    &command_run,
    &command_chat,
    &command_bench_prefill,
    &command_bench_attention,
    &command_bench_latency,
    &command_bench_quality,
    &command_logits,
    &command_perplexity,
    &command_tokenize,
    &command_inspect_model,
    &command_inspect_mask,
    &command_inspect_recall,
    &command_doctor,
    &command_demo,
    &command_convert_gate,
    &command_eval_ruler_generate,
    &command_eval_ruler_run,
    &command_eval_ruler_score,
    &command_eval_ruler,
    &command_eval_longbench_run,
    &command_eval_longbench_score,
    &command_eval_longbench,
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_command(const struct command *command)
{
    enum { SUMMARY_COLUMN = 23 };
    printf("  %-20s ", command->name);
    (void)options_print_wrapped(command->summary, SUMMARY_COLUMN);
}

static void print_help(void)
{
    puts("Usage: compactattn COMMAND [OPTIONS]");
    (void)options_print_wrapped(
        "Reads long prompts into a language model in chunks, with dense or block-sparse attention (CompactAttention).", 0);
    puts("\nCommands:");
    for (size_t i = 0; i < N_COMMANDS; i++) print_command(commands[i]);
    puts("\nExample:\n"
         "  compactattn run -m models/SmolLM2-135M-Instruct.Q4_1.gguf -f data/demo.txt --ask \"What is this text about?\"\n\n"
         "compactattn COMMAND --help explains a command; compactattn --version prints the version.\n"
         "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.");
}

/* Number of words of name that argv starts with, when that is all of them; else 0. */
static int match_words(const char *name, int argc, char **argv)
{
    int words = 0;
    for (const char *at = name; *at; words++) {
        const size_t length = strcspn(at, " ");
        if (words >= argc || strlen(argv[words]) != length || memcmp(argv[words], at, length) != 0) return 0;
        at += length + (at[length] == ' ');
    }
    return words;
}

static int run_command(const struct command *command, int argc, char **argv)
{
    struct options options;
    message_set_command(command->name);
    const int code = options_parse(command, argc, argv, &options);
    if (code != EXIT_DONE) return code;
    if (options.help) {
        options_print_help(command);
        return EXIT_DONE;
    }
    return command->run(&options);
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
}

/* Whether the name is one of several that begin with a word, as "bench". */
static bool in_family(const char *name, const char *word)
{
    const size_t length = strlen(word);
    return strncmp(name, word, length) == 0 && name[length] == ' ';
}

/* The commands that begin with a word, with what they do. False when there are none. */
static bool print_family(const char *word)
{
    size_t n = 0;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (!in_family(commands[i]->name, word)) continue;
        if (n++ == 0) puts("Commands:");
        print_command(commands[i]);
    }
    return n > 0;
}

static int refuse_command(const char *word)
{
    char names[512] = "";
    size_t at = 0;
    for (size_t i = 0; i < N_COMMANDS && at < sizeof names; i++)
        if (in_family(commands[i]->name, word))
            at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "", commands[i]->name);
    return at ? usage_error("%s is not a command by itself; known: %s", word, names) : usage_error("unknown command %s", word);
}

static int dispatch(int argc, char **argv)
{
    static char help[] = "--help";
    if (argc < 2) return usage_error("no command given");
    if (argc == 2 && is_help(argv[1])) {
        print_help();
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("compactattn %s\n", ca_version());
        return EXIT_DONE;
    }
    if (is_help(argv[1])) { /* help COMMAND is COMMAND --help */
        for (int i = 1; i + 1 < argc; i++) argv[i] = argv[i + 1];
        argv[argc - 1] = help;
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        const int words = match_words(commands[i]->name, argc - 1, argv + 1);
        if (words > 0) return run_command(commands[i], argc - words, argv + words);
    }
    if (is_help(argv[argc - 1]) && print_family(argv[1])) return EXIT_DONE;
    return refuse_command(argv[1]);
}

/* An idle OpenMP thread of libgomp spins for milliseconds. Beside another program on the same cores, that takes the time of the
 * thread that has work: decode becomes ten times slower. libgomp reads the limit when it is loaded, so the program starts anew. */
static void limit_spinning(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    if (setenv("GOMP_SPINCOUNT", "20000", 1) == 0) (void)execv("/proc/self/exe", argv); /* when it fails, all is as before */
}

int main(int argc, char **argv)
{
    limit_spinning(argv);
    const int code = dispatch(argc, argv);
    errno = 0;
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == EXIT_DONE)
        return fail("standard output: %s", errno ? strerror(errno) : "cannot be written");
    return code;
}
