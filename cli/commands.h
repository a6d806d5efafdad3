/* The subcommands: each in the file of its name. All return the exit code. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "options.h"

extern const struct command command_run, command_bench_prefill, command_logits, command_perplexity, command_tokenize,
    command_inspect_model, command_inspect_mask, command_inspect_recall, command_bench_attention, command_bench_quality,
    command_bench_latency, command_chat, command_doctor, command_demo, command_convert_gate, command_eval_ruler_generate,
    command_eval_ruler_run, command_eval_ruler_score, command_eval_ruler, command_eval_longbench_run, command_eval_longbench_score,
    command_eval_longbench;

#endif
