/* The subcommands: each in the file of its name. All return the exit code. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "options.h"

extern const struct command command_run, command_bench_prefill, command_logits, command_perplexity, command_tokenize,
    command_inspect_model, command_inspect_mask, command_inspect_recall, command_bench_attention, command_bench_quality,
    command_chat, command_doctor, command_demo, command_convert_gate;

#endif
