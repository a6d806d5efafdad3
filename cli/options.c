#include "options.h"

#include "file.h"
#include "message.h"
#include "method.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum kind { FLAG, INTEGER, REAL, TEXT, TEXTS, CHOICE }; /* TEXTS may be given several times */

struct spec {
    const char *name;
    char letter; /* short form, or 0 */
    enum kind kind;
    size_t offset; /* in struct options */
    double min, max;
    const char *value;    /* what --help calls the value; for CHOICE the words, separated by "|" */
    const char *initial;  /* default as it would be given; NULL = not given */
    unsigned commands;    /* that take it */
    unsigned required_by; /* that need it */
    const char *help;
};

#define AT(field) offsetof(struct options, field)
#define ANSWERS_LONGBENCH (CMD_LONGBENCH_RUN | CMD_LONGBENCH)
#define INSPECTS (CMD_INSPECT_MASK | CMD_INSPECT_RECALL)
#define METHODS                                                                                                                    \
    (INSPECTS | CMD_RUN | CMD_CHAT | CMD_BENCH | CMD_BENCH_QUALITY | CMD_LOGITS | CMD_PERPLEXITY | CMD_DEMO | CMD_LATENCY |        \
     CMD_RULER_RUN | CMD_RULER | ANSWERS_LONGBENCH)
#define SELECTION (METHODS | CMD_BENCH_ATTENTION)
/* Without the command that tries selectors and their thresholds by itself, over a dense prefill. */
#define SETTINGS (SELECTION & ~(unsigned)CMD_INSPECT_RECALL)
/* Without the command whose methods all come from --sweep. */
#define ONE_METHOD(commands) ((commands) & ~(unsigned)CMD_BENCH_QUALITY)
#define PREFILLS (METHODS & ~(unsigned)CMD_INSPECT_RECALL)
#define NEEDS_MODEL ((METHODS & ~(unsigned)CMD_LATENCY) | CMD_TOKENIZE | CMD_INSPECT)
#define MAKES_RULER (CMD_RULER_GENERATE | CMD_RULER)
#define SWEPT (1U << 31) /* no command: --sweep may set it, as it is read for each method */
#define U32 4294967295.0
#define SELECTORS "none|flashprefill|seer|quoka|xattention|minference|trishape|oracle"
#define EXECUTORS "auto|dense|block_sparse|compactattn|compactattention|compact_attention"

static const struct spec specs[] = {
    { "model", 'm', TEXT, AT(model), 0, 0, "FILE", NULL, NEEDS_MODEL | CMD_DOCTOR | CMD_LATENCY | CMD_RULER_GENERATE,
      NEEDS_MODEL | CMD_RULER_GENERATE, "the model, a GGUF file or a Hugging Face folder" },
    { "file", 'f', TEXT, AT(file), 0, 0, "FILE", NULL,
      CMD_RUN | CMD_BENCH | CMD_BENCH_QUALITY | CMD_PERPLEXITY | CMD_TOKENIZE | CMD_LATENCY | INSPECTS,
      CMD_BENCH_QUALITY | INSPECTS, "text to read; - is standard input" },
    { "prompt", 'p', TEXT, AT(prompt), 0, 0, "TEXT", NULL, CMD_RUN | CMD_TOKENIZE, 0, "text given here in place of a file" },
    { "text", 0, TEXT, AT(text), 0, 0, "FILE", "data/demo.txt", CMD_DEMO, 0, "the document in which the fact is hidden" },
    { "out", 0, TEXT, AT(out), 0, 0, "PATH", NULL,
      CMD_BENCH_QUALITY | CMD_LOGITS | CMD_DEMO | CMD_LATENCY | MAKES_RULER | CMD_RULER_RUN | CMD_RULER_SCORE |
          CMD_LONGBENCH_SCORE | ANSWERS_LONGBENCH | INSPECTS,
      CMD_BENCH_QUALITY | CMD_LOGITS | CMD_DEMO | MAKES_RULER | CMD_RULER_RUN | ANSWERS_LONGBENCH | INSPECTS,
      "where results go: a .npy file for logits, else a folder" },
    { "pred", 0, TEXTS, AT(predictions), 0, 0, "FILE", NULL, CMD_LONGBENCH_SCORE, CMD_LONGBENCH_SCORE,
      "answers, JSON lines; may be given several times" },
    { "official", 0, FLAG, AT(official), 0, 0, NULL, NULL, CMD_LONGBENCH_SCORE | CMD_LONGBENCH, 0,
      "score: take the choice from the response by LongBench's own strict rule" },
    { "data", 0, TEXT, AT(data), 0, 0, "FILE", NULL, ANSWERS_LONGBENCH | CMD_LONGBENCH_SCORE, ANSWERS_LONGBENCH,
      "LongBench-v2's items, data.json or JSON lines; score names those without an answer" },
    { "prompt", 0, CHOICE, AT(prompt_form), 0, 0, "reference|official", "reference", ANSWERS_LONGBENCH, 0,
      "whose prompt: the plain text that CompactAttention was published with, or LongBench's own as a message of a chat" },
    { "cot", 0, FLAG, AT(cot), 0, 0, NULL, NULL, ANSWERS_LONGBENCH, 0,
      "official: let the model think first, then ask it for the letter" },
    { "max-tokens", 'n', INTEGER, AT(answer_tokens), 1, U32, "N", "128", ANSWERS_LONGBENCH, 0, "tokens of an answer at most" },
    { "cot-tokens", 0, INTEGER, AT(cot_tokens), 1, U32, "N", "1024", ANSWERS_LONGBENCH, 0, "tokens of --cot's thoughts at most" },
    { "max-length", 0, INTEGER, AT(max_length), 0, U32, "N", NULL, ANSWERS_LONGBENCH, 0,
      "cut longer prompts in the middle to N tokens; 0: never, those that do not fit are left out (default: 131072, official 120000, "
      "at most what the context holds)" },
    { "clean-spaces", 0, FLAG, AT(clean_spaces), 0, 0, NULL, NULL, ANSWERS_LONGBENCH, 0,
      "take away spaces before . , ! ? n't 's and the like in cut prompts and answers, as Hugging Face's Llama-3 tokenizers do" },
    { "shard", 0, TEXT, AT(shard), 0, 0, "I/N", "0/1", ANSWERS_LONGBENCH, 0,
      "answer every N-th item of the file only, from the I-th on, counted from 0" },
    { "limit", 0, INTEGER, AT(limit), 1, U32, "N", NULL, ANSWERS_LONGBENCH, 0, "answer the first N of the items chosen so" },
    { "ids", 0, TEXT, AT(ids), 0, 0, "ID,ID,..", NULL, ANSWERS_LONGBENCH, 0, "answer these items only" },
    { "difficulty", 0, CHOICE, AT(difficulty), 0, 0, "easy|hard", NULL, ANSWERS_LONGBENCH, 0,
      "answer items of this difficulty only" },
    { "length", 0, CHOICE, AT(item_length), 0, 0, "short|medium|long", NULL, ANSWERS_LONGBENCH, 0,
      "answer items of this length only" },
    { "domain", 0, TEXT, AT(domain), 0, 0, "NAME", NULL, ANSWERS_LONGBENCH, 0, "answer items of this domain only" },
    { "layer", 0, INTEGER, AT(layer), 0, U32, "N", NULL, CMD_INSPECT_MASK, 0,
      "the layer to look at, counted from 0 (default: the middle one)" },
    { "head", 0, INTEGER, AT(head), 0, U32, "N", "0", CMD_INSPECT_MASK, 0, "the query head to look at, counted from 0" },
    { "chunk-index", 0, INTEGER, AT(chunk_index), 0, U32, "N", NULL, CMD_INSPECT_MASK, 0,
      "the chunk to look at, counted from 0 (default: the last full one)" },
    { "selectors", 0, TEXT, AT(selectors), 0, 0, "S,S,..", NULL, CMD_INSPECT_RECALL, 0,
      "selectors to compare (default: all; seer needs --gate); oracle is the upper bound" },
    { "layers", 0, TEXT, AT(layers), 0, 0, "N,N,..", "all", CMD_INSPECT_RECALL, 0,
      "layers to measure, counted from 0; fewer take less time" },
    { "chunks", 0, INTEGER, AT(chunks), 1, U32, "N", "2", CMD_INSPECT_RECALL, 0,
      "chunks to measure, spread over the text and ending with the last full one" },
    { "recall", 0, REAL, AT(recall), 0, 1, "R", "0.95", CMD_INSPECT_RECALL, 0,
      "the share of the attention mass that a recommended setting has to keep" },
    { "tokens", 0, TEXT, AT(tokens), 0, 0, "FILE", NULL, CMD_LOGITS | CMD_PERPLEXITY, CMD_LOGITS,
      "token ids: a one-dimensional .npy array of uint32 (int32, uint64, int64 do too)" },
    { "last", 0, INTEGER, AT(last), 1, U32, "K", "1", CMD_LOGITS, 0, "write the logits of the last K positions" },
    { "from", 0, INTEGER, AT(from), 1, U32, "I", "1", CMD_PERPLEXITY, 0, "score tokens from the I-th on, counted from 0" },
    { "from", 0, INTEGER, AT(half_from), 1, U32, "I", NULL, CMD_BENCH_QUALITY, 0,
      "score tokens from the I-th on, counted from 0 (default: the text's second half)" },
    { "ask", 0, TEXT, AT(ask), 0, 0, "TEXT", NULL, CMD_RUN | CMD_DEMO, 0, "question put after the text" },
    { "fact", 0, TEXT, AT(fact), 0, 0, "TEXT", NULL, CMD_DEMO, 0, "the sentence to hide" },
    { "answer-start", 0, TEXT, AT(answer_start), 0, 0, "TEXT", NULL, CMD_DEMO, 0,
      "words with which the answer starts; may be empty" },
    { "expect", 0, TEXT, AT(expect), 0, 0, "TEXT", NULL, CMD_DEMO, 0, "what a right answer contains" },
    { "depth", 0, REAL, AT(depth), 0, 1, "X", "0.5", CMD_DEMO, 0, "where the fact is hidden: 0 = at the start, 1 = at the end" },
    { "length", 0, INTEGER, AT(length), 64, U32, "N", NULL, CMD_DEMO, 0, "use about the first N tokens of the text only" },
    { "chat", 0, FLAG, AT(chat), 0, 0, NULL, NULL, CMD_RUN, 0,
      "put the prompt into the model's chat template (default with -p or --ask)" },
    { "chat-template", 0, TEXT, AT(chat_template), 0, 0, "NAME", NULL, CMD_RUN | CMD_CHAT | ANSWERS_LONGBENCH, 0,
      "the chat template, where the model's own is none of qwen2.5, chatml, qwen3, llama-3, llama-3.1, gemma-2, gemma-3" },
    { "thinking", 0, CHOICE, AT(thinking), 0, 0, "on|off", NULL, CMD_RUN | CMD_CHAT | ANSWERS_LONGBENCH, 0,
      "whether a model that can (qwen3) thinks before it answers (default: on)" },
    { "raw", 0, FLAG, AT(raw), 0, 0, NULL, NULL, CMD_RUN, 0, "continue the text as it is (default for a file alone)" },
    { "system", 0, TEXT, AT(system), 0, 0, "TEXT", NULL, CMD_CHAT, 0, "the system's message, before all others" },
    { "stop", 0, TEXTS, AT(stops), 0, 0, "TEXT", NULL, CMD_RUN | CMD_CHAT, 0,
      "end the answer where it says TEXT, which is left out; may be given several times" },
    { "save-cache", 0, TEXT, AT(save_cache), 0, 0, "FILE", NULL, CMD_RUN, 0, "keep the prompt's KV cache in a file" },
    { "load-cache", 0, TEXT, AT(load_cache), 0, 0, "FILE", NULL, CMD_RUN, 0,
      "start from a kept KV cache: what the prompt has in common with it is not read again" },
    { "max-tokens", 'n', INTEGER, AT(max_tokens), 0, U32, "N", "256", CMD_RUN | CMD_CHAT, 0, "tokens to write at most" },
    { "temp", 0, REAL, AT(temperature), 0, 100, "T", "0", CMD_RUN | CMD_CHAT, 0,
      "sampling temperature; 0 takes the most likely token" },
    { "top-p", 0, REAL, AT(top_p), 1e-6, 1, "P", "1", CMD_RUN | CMD_CHAT, 0,
      "sample among the likeliest tokens that hold this probability" },
    { "seed", 0, INTEGER, AT(seed), 0, 9007199254740992.0, "S", "0", CMD_RUN | CMD_CHAT | CMD_LATENCY, 0,
      "seed of the sampling, of random prompts and of random weights" },
    { "lengths", 0, TEXT, AT(lengths), 0, 0, "N,N,..", "1024,4096,8192", CMD_BENCH, 0, "prompt lengths in tokens" },
    { "tasks", 0, TEXT, AT(tasks), 0, 0, "T,T,..", "all", CMD_RULER_GENERATE | CMD_RULER_RUN, 0,
      "niah_single_1, _2, _3, niah_multikey_1, _2, _3, niah_multivalue, niah_multiquery, vt, cwe, fwe, qa_1, qa_2, or all" },
    { "tasks", 0, TEXT, AT(own_tasks), 0, 0, "T,T,..", NULL, CMD_RULER, 0,
      "RULER's tasks, or all (default: those that need no essay and no questions: niah_single_1, niah_multikey_2, niah_multikey_3, "
      "vt, cwe, fwe)" },
    { "lengths", 0, TEXT, AT(ruler_lengths), 0, 0, "N,N,..", "4096", MAKES_RULER | CMD_RULER_RUN, 0,
      "tokens of prompt and answer together" },
    { "last-chunk", 0, CHOICE, AT(last_chunk), 0, 0, "merge|own", NULL, CMD_RULER_RUN | CMD_RULER | ANSWERS_LONGBENCH | SWEPT, 0,
      "a last chunk that is shorter than the others joins the one before it, as published, or is one of its own (default: merge)" },
    { "samples", 0, INTEGER, AT(samples), 1, 1e6, "N", "25", MAKES_RULER | CMD_RULER_RUN, 0, "prompts of each task and length" },
    { "seed", 0, INTEGER, AT(data_seed), 0, U32, "S", "42", MAKES_RULER, 0, "seed of the prompts; published ones have 42" },
    { "template", 0, TEXT, AT(template), 0, 0, "NAME", NULL, MAKES_RULER, 0,
      "what is put around the task: llama-3, qwen2.5, base and others of RULER's, or model, the model's own chat template (default: "
      "what fits the model's tokens)" },
    { "profile", 0, CHOICE, AT(profile), 0, 0, "ref|upstream", "ref", MAKES_RULER, 0,
      "whose prompts: those that CompactAttention was published with, or today's NVIDIA/RULER" },
    { "essay", 0, TEXT, AT(essay), 0, 0, "FILE", NULL, MAKES_RULER, 0,
      "the essay tasks' haystack, text or JSON with the key text (default: public-domain text, whose results are marked)" },
    { "squad", 0, TEXT, AT(squad), 0, 0, "FILE", NULL, MAKES_RULER, 0, "SQuAD's dev-v2.0.json, for qa_1" },
    { "hotpotqa", 0, TEXT, AT(hotpotqa), 0, 0, "FILE", NULL, MAKES_RULER, 0, "HotpotQA's dev distractor v1, for qa_2" },
    { "mode", 0, CHOICE, AT(mode), 0, 0, "sweep|table|quickstart", "sweep", CMD_LATENCY, 0,
      "what holds where nothing is said: a small grid, all methods, or one quick look" },
    { "lengths", 0, TEXT, AT(grid_lengths), 0, 0, "N,N,..", NULL, CMD_LATENCY, 0,
      "prompt lengths in tokens (default: 1024,2048,4096,8192; quickstart 1024,2048,4096)" },
    { "batches", 0, TEXT, AT(batches), 0, 0, "N,N,..", "1", CMD_LATENCY, 0, "sequences that are read at once" },
    { "chunks", 0, TEXT, AT(chunk_list), 0, 0, "N,N,..", "1024", CMD_LATENCY, 0, "tokens of a prefill chunk" },
    { "threads-list", 0, TEXT, AT(thread_list), 0, 0, "N,..", NULL, CMD_LATENCY, 0, "numbers of threads (default: --threads)" },
    { "runs", 0, INTEGER, AT(grid_runs), 1, 1000, "N", NULL, CMD_LATENCY, 0, "measured runs of each (default: 3; quickstart 1)" },
    { "warmup", 0, INTEGER, AT(grid_warmup), 0, 1000, "N", NULL, CMD_LATENCY, 0,
      "runs of each before the measured ones (default: 1; quickstart 0)" },
    { "model-layers", 0, INTEGER, AT(model_layers), 0, 1024, "N", "0", CMD_LATENCY, 0,
      "layers of a shape to build, the first ones; 0 = as many as fit the memory" },
    { "tokenizer", 0, TEXT, AT(tokenizer), 0, 0, "FILE", NULL, CMD_LATENCY, 0,
      "the tokenizer of -f and --data for a shape: a GGUF file, a folder or a tokenizer.json" },
    { "data", 0, TEXT, AT(data), 0, 0, "ROOT", NULL, CMD_LATENCY | CMD_RULER_RUN, CMD_RULER_RUN,
      "read RULER prompts, ROOT/synthetic/LENGTH/data/TASK/validation.jsonl" },
    { "task", 0, TEXT, AT(task), 0, 0, "NAME", "vt", CMD_LATENCY, 0, "the RULER task of --data" },
    { "schedule", 0, CHOICE, AT(schedule), 0, 0, "fixed|cycle", "fixed", CMD_LATENCY, 0,
      "the same prompts in all runs, or the next ones in each" },
    { "methods", 0, TEXT, AT(methods), 0, 0, "M,M,..", NULL,
      CMD_BENCH | CMD_BENCH_ATTENTION | CMD_DEMO | CMD_LATENCY | CMD_RULER_RUN | CMD_RULER | ANSWERS_LONGBENCH, 0,
      "dense, quoka, or SELECTOR+EXECUTOR, as flashprefill+auto; a lone executor goes with flashprefill, a lone selector with auto" },
    { "shape", 0, TEXTS, AT(shapes), 0, 0, "S", NULL, CMD_BENCH_ATTENTION | CMD_LATENCY, 0,
      "bench attention: q1024,kv32768,h32:8,d128 (,p64 for pages of 64 tokens), may be given several times; bench latency: a model "
      "without weights, by name (llama-3.1-8b) or its config.json" },
    { "keep", 0, TEXT, AT(keep), 0, 0, "F,F,..", NULL, CMD_BENCH_ATTENTION | CMD_LATENCY, 0,
      "compactattn over these shares of the past, too" },
    { "no-check", 0, FLAG, AT(no_check), 0, 0, NULL, NULL, CMD_BENCH_ATTENTION, 0,
      "do not compare the output with double precision, which takes about a second for each row at 128K tokens" },
    { "sweep", 0, TEXTS, AT(sweeps), 0, 0, "M:O=V,..", NULL, CMD_BENCH_QUALITY | CMD_RULER_RUN | CMD_RULER | ANSWERS_LONGBENCH, 0,
      "a method and the values of one of its options, as auto:alpha=0.05,0.1; may be given several times" },
    { "runs", 0, INTEGER, AT(runs), 1, 1000, "N", "3", CMD_BENCH | CMD_BENCH_ATTENTION | CMD_BENCH_QUALITY, 0,
      "measured runs of each; the median counts (attention: the best)" },
    { "warmup", 0, INTEGER, AT(warmup), 0, 1000, "N", "1", CMD_BENCH, 0, "runs of each before the measured ones" },
    { "executor", 0, CHOICE, AT(executor), 0, 0, EXECUTORS, NULL, ONE_METHOD(SELECTION), 0,
      "how attention reads the KV pages (default: auto for run, dense for logits and perplexity, several for bench and demo)" },
    { "selector", 0, CHOICE, AT(selector), 0, 0, SELECTORS, NULL, ONE_METHOD(SETTINGS), 0,
      "what chooses the KV pages to read (default: flashprefill, or none for dense)" },
    { "alpha", 0, REAL, AT(alpha), 0, 1e6, "A", NULL, SETTINGS | SWEPT, 0,
      "flashprefill: keep blocks that score at least A times the best of their row; with block_sparse 0.01 when not given" },
    { "free-max", 0, FLAG, AT(free_max), 0, 0, NULL, NULL, SELECTION, 0,
      "flashprefill: the best of a row is taken among blocks that neither sink nor window keeps" },
    { "sink", 0, INTEGER, AT(sink), 0, U32, "N", NULL, SELECTION | SWEPT, 0,
      "flashprefill, trishape: always keep the first N tokens" },
    { "window", 0, INTEGER, AT(window), 1, U32, "N", NULL, SELECTION | SWEPT, 0,
      "flashprefill: always keep the N tokens that end with the diagonal block; trishape: those that end with the query, 2048 when not "
      "given" },
    { "min-budget", 0, INTEGER, AT(min_budget), 0, U32, "N", NULL, SELECTION | SWEPT, 0,
      "flashprefill: always keep the N best blocks" },
    { "last-dense", 0, INTEGER, AT(last_dense), 0, U32, "N", NULL, SETTINGS | SWEPT, 0,
      "flashprefill, block_sparse: the last N Q blocks read everything" },
    { "last-mute", 0, INTEGER, AT(last_mute), 0, U32, "N", NULL, SETTINGS | SWEPT, 0,
      "flashprefill, compactattn, auto: the last N Q blocks do not vote" },
    { "last-scope", 0, CHOICE, AT(last_scope), 0, 0, "final|every", NULL, PREFILLS | SWEPT, 0,
      "the chunks in which --last-dense and --last-mute hold (default: final)" },
    { "gate", 0, TEXT, AT(gate), 0, 0, "FILE", NULL, METHODS, 0, "seer: the model's gate, a safetensors file" },
    { "threshold", 0, TEXT, AT(threshold), 0, 0, "T", NULL, SETTINGS | SWEPT, 0,
      "seer: keep blocks above this probability (LENGTH:T,LENGTH:T.. by length; default 0.0005); xattention, oracle: share of the mass "
      "to keep (defaults 0.9, 0.95)" },
    { "relative", 0, FLAG, AT(relative), 0, 0, NULL, NULL, SELECTION, 0,
      "seer: the threshold, which may be above 1, is divided by the number of visible blocks" },
    { "bare", 0, FLAG, AT(bare), 0, 0, NULL, NULL, SELECTION, 0, "seer: do not always keep the first block and the diagonal" },
    { "stride", 0, INTEGER, AT(stride), 8, 16, "N", NULL, SELECTION | SWEPT, 0, "xattention: 8 or 16" },
    { "query-ratio", 0, REAL, AT(query_ratio), 0, 1, "R", NULL, SELECTION | SWEPT, 0,
      "quoka: share of the chunk's queries that choose" },
    { "kv-ratio", 0, REAL, AT(kv_ratio), 0, 1, "R", NULL, SETTINGS | SWEPT, 0, "quoka: share of the past tokens to read" },
    { "top-k", 0, INTEGER, AT(top_k), 1, U32, "N", NULL, SETTINGS | SWEPT, 0, "minference: blocks per Q block" },
    { "head-worth", 0, REAL, AT(head_worth), 0, 1e6, "W", NULL, SELECTION | SWEPT, 0,
      "auto: rows of n heads may cost 1 + W (1 - 1/n) times as much as rows of one" },
    { "qblock-worth", 0, REAL, AT(qblock_worth), 0, 1e6, "W", NULL, SELECTION | SWEPT, 0,
      "auto: rows of n Q blocks may cost 1 + W (1 - 1/n) times as much as rows of one" },
    { "whole", 0, REAL, AT(whole), 0, 10, "F", NULL, SELECTION | SWEPT, 0,
      "auto: a union of a group and chunk that reads at least this share of the past is not split; above 1: any may be" },
    { "heads-per-row", 0, INTEGER, AT(heads_per_row), 0, 4096, "N", NULL, SELECTION | SWEPT, 0,
      "compactattn: query heads that share a page list; 0 = all of a KV head" },
    { "qblocks-per-row", 0, INTEGER, AT(qblocks_per_row), 0, U32, "N", NULL, SELECTION | SWEPT, 0,
      "compactattn: Q blocks that share a page list; 0 = all of a chunk" },
    { "sparse-first", 0, FLAG, AT(sparse_first), 0, 0, NULL, NULL, PREFILLS, 0,
      "let the selector decide in the first chunk, too, which has no past" },
    { "dense-prefix", 0, INTEGER, AT(dense_prefix), 0, U32, "N", NULL, PREFILLS | SWEPT, 0,
      "the first N tokens of the prompt read everything" },
    { "dense-tail", 0, INTEGER, AT(dense_tail), 0, U32, "N", NULL, PREFILLS | SWEPT, 0,
      "the last N tokens of the prompt read everything" },
    { "chunk", 0, INTEGER, AT(chunk), 1, 1 << 20, "N", NULL, (METHODS & ~(unsigned)CMD_LATENCY) | SWEPT, 0,
      "tokens of a prefill chunk" },
    { "page", 0, INTEGER, AT(page), 32, 128, "N", NULL, METHODS | SWEPT, 0, "tokens of a KV page: 32, 64 or 128" },
    { "ctx", 0, INTEGER, AT(context), 1, U32, "N", NULL, METHODS & ~(unsigned)CMD_LATENCY, 0,
      "context in tokens (default: what the prompt and the answer need)" },
    { "extend", 0, TEXT, AT(extend), 0, 0, "yarn:F", NULL, METHODS, 0,
      "read F times further than the model was trained for: yarn:F or linear:F" },
    { "threads", 0, INTEGER, AT(threads), 0, 4096, "N", "0", SELECTION | CMD_DOCTOR, 0, "threads; 0 = all" },
    { "isa", 0, CHOICE, AT(isa), 0, 0, "auto|amxbf16|avx512bf16|avx512mixed|avx512|avx2mixed|avx2|neonbf16|neonmixed|neon|scalar",
      "auto", SELECTION | CMD_DOCTOR, 0, "cap of the kernels' instruction set" },
    { "matmul", 0, CHOICE, AT(matmul), 0, 0, "native|int8", "native", METHODS | CMD_DOCTOR, 0,
      "matrix products of the layers: in the kernels' own type, or in int8" },
    { "attention", 0, CHOICE, AT(attention), 0, 0, "native|int8", "native", PREFILLS | CMD_BENCH_ATTENTION | SWEPT, 0,
      "products of attention: in the kernels' own type, or in int8 (x86 with VNNI, ARM with i8mm)" },
    { "jsonl", 0, FLAG, AT(jsonl), 0, 0, NULL, NULL, CMD_TOKENIZE, 0,
      "one JSON string a line in, one JSON array of ids a line out" },
    { "decode", 0, FLAG, AT(decode), 0, 0, NULL, NULL, CMD_TOKENIZE, 0, "the other way round: JSON array of ids in, text out" },
    { "parse-special", 0, FLAG, AT(parse_special), 0, 0, NULL, NULL, CMD_TOKENIZE, 0,
      "read special tokens such as <|im_end|> in the text as tokens; with --decode, show them" },
    { "no-bos", 0, FLAG, AT(no_bos), 0, 0, NULL, NULL, CMD_TOKENIZE, 0, "no BOS first, even where the model's file asks for one" },
    { "tune", 0, FLAG, AT(tune), 0, 0, NULL, NULL, CMD_DOCTOR, 0, "measure the cost model of the auto executor and keep it" },
    { "stats", 0, FLAG, AT(stats), 0, 0, NULL, NULL, CMD_RUN | CMD_CHAT, 0,
      "statistics on standard error, per layer, too; with --json they are part of it" },
    { "dry-run", 0, FLAG, AT(dry_run), 0, 0, NULL, NULL, CMD_RUN, 0, "say how much memory it would take, and stop" },
    { "progress", 0, FLAG, AT(progress), 0, 0, NULL, NULL, METHODS, 0, "progress bar even when standard error is no terminal" },
    { "csv", 0, TEXT, AT(csv), 0, 0, "FILE", NULL, CMD_BENCH, 0, "write the rows as CSV" },
    { "json", 0, FLAG, AT(json), 0, 0, NULL, NULL, ~(unsigned)(CMD_TOKENIZE | CMD_CHAT | CMD_BENCH_QUALITY), 0,
      "the result as JSON on standard output" },
    { "help", 'h', FLAG, AT(help), 0, 0, NULL, NULL, ~0U, 0, "this text" },
};

enum { N_SPECS = sizeof specs / sizeof *specs, LONG_ONLY = 256 /* above all letters */ };

static bool contains_word(const char *words, const char *word)
{
    const size_t length = strlen(word);
    for (const char *at = words; *at; at += strcspn(at, "|"), at += *at == '|') {
        if (strcspn(at, "|") == length && memcmp(at, word, length) == 0) return true;
    }
    return false;
}

static int range_error(const struct spec *spec, const char *value)
{
    return usage_error("--%s %s: expected %s from %.16g to %.16g", spec->name, value,
                       spec->kind == INTEGER ? "a whole number" : "a number", spec->min, spec->max);
}

static int set_integer(const struct spec *spec, const char *value, void *field)
{
    char *end;
    errno = 0;
    const long long parsed = strtoll(value, &end, 10);
    const bool digits = value[0] == '-' || (value[0] >= '0' && value[0] <= '9'); /* no blanks, no plus */
    if (!digits || *end || end == value || errno || parsed < (int64_t)spec->min || parsed > (int64_t)spec->max)
        return range_error(spec, value);
    const int64_t number = parsed;
    memcpy(field, &number, sizeof number);
    return EXIT_DONE;
}

static int set_real(const struct spec *spec, const char *value, void *field)
{
    char *end;
    const double number = strtod(value, &end);
    if (strspn(value, "0123456789.eE+-") != strlen(value) || *end || end == value || !(number >= spec->min && number <= spec->max))
        return range_error(spec, value);
    memcpy(field, &number, sizeof number);
    return EXIT_DONE;
}

static int set_value(const struct spec *spec, const char *value, struct options *out)
{
    void *field = (char *)out + spec->offset;
    switch (spec->kind) {
    case FLAG: memcpy(field, &(bool){ true }, sizeof(bool)); return EXIT_DONE;
    case INTEGER: return set_integer(spec, value, field);
    case REAL: return set_real(spec, value, field);
    case CHOICE:
        if (!contains_word(spec->value, value)) return usage_error("--%s %s: expected one of %s", spec->name, value, spec->value);
        break;
    case TEXTS: {
        struct texts *texts = field;
        if (texts->n == sizeof texts->items / sizeof *texts->items) return usage_error("--%s: given too often", spec->name);
        texts->items[texts->n++] = value;
        return EXIT_DONE;
    }
    case TEXT: break;
    }
    memcpy(field, &value, sizeof value);
    return EXIT_DONE;
}

int options_set(const struct command *command, const char *name, size_t length, const char *value, struct options *out)
{
    for (size_t i = 0; i < N_SPECS; i++) {
        const bool same = strlen(specs[i].name) == length && memcmp(specs[i].name, name, length) == 0;
        if (same && (specs[i].commands & command->bit) && (specs[i].commands & SWEPT)) return set_value(&specs[i], value, out);
    }
    return usage_error("--sweep: %.*s is not a setting of a method with a value, such as alpha or threshold", (int)length, name);
}

static void set_defaults(struct options *out)
{
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < N_SPECS; i++) {
        void *field = (char *)out + specs[i].offset;
        if (specs[i].initial)
            set_value(&specs[i], specs[i].initial, out);
        else if (specs[i].kind == INTEGER)
            memcpy(field, &(int64_t){ -1 }, sizeof(int64_t));
        else if (specs[i].kind == REAL)
            memcpy(field, &(double){ NAN }, sizeof(double));
    }
}

/* What is read must not be what is written. */
static int check_targets(const struct options *o)
{
    const struct {
        const char *name, *path;
    } targets[] = { { "--out", o->out }, { "--csv", o->csv }, { "--save-cache", o->save_cache } },
      sources[] = { { "--model", o->model }, { "--file", o->file }, { "--tokens", o->tokens },
                    { "--gate", o->gate },   { "--data", o->data }, { "--text", o->text } };
    for (size_t t = 0; t < sizeof targets / sizeof *targets; t++)
        for (size_t i = 0; i < sizeof sources / sizeof *sources; i++)
            if (targets[t].path && sources[i].path && file_is_same(targets[t].path, sources[i].path) &&
                !file_is_folder(targets[t].path))
                return usage_error("%s %s is the file of %s, which would be lost", targets[t].name, targets[t].path,
                                   sources[i].name);
    return EXIT_DONE;
}

enum { MOST_THREADS = 16 }; /* a processor */

int options_most_threads(void)
{
    return MOST_THREADS * omp_get_num_procs();
}

static int check_threads(const struct options *o)
{
    if (o->threads <= options_most_threads()) return EXIT_DONE;
    return usage_error("--threads %lld: this machine has %d processors, and more than %d threads on each only wait for each other",
                       (long long)o->threads, omp_get_num_procs(), MOST_THREADS);
}

static int check_required(const struct command *command, const struct options *options)
{
    for (size_t i = 0; i < N_SPECS; i++) {
        const char *text = NULL;
        if (specs[i].required_by & command->bit) memcpy(&text, (const char *)options + specs[i].offset, sizeof text);
        if ((specs[i].required_by & command->bit) && !text) return usage_error("--%s %s is missing", specs[i].name, specs[i].value);
    }
    return EXIT_DONE;
}

/* What getopt does not understand: no option, the start of several, or a value where there is none. */
static int refuse_option(const char *given, const struct option *longs)
{
    char names[256] = "";
    size_t at = 0, n = 0;
    const char *name = given + 2;
    const size_t length = strcspn(name, "=");
    if (given[0] != '-' || given[1] != '-') return usage_error("unknown option -%c", optopt);
    for (const struct option *o = longs; o->name; o++) {
        if (strncmp(o->name, name, length) != 0) continue;
        n++;
        if (at < sizeof names) at += (size_t)snprintf(names + at, sizeof names - at, "%s--%s", at ? ", " : "", o->name);
        if (strlen(o->name) != length) continue;
        return usage_error("--%s takes no value", o->name);
    }
    if (n == 1) return usage_error("%s takes no value", names);
    return n > 1 ? usage_error("%s could be %s", given, names) : usage_error("unknown option %s", given);
}

int options_parse(const struct command *command, int argc, char **argv, struct options *out)
{
    struct option longs[N_SPECS + 1];
    const struct spec *by_index[N_SPECS];
    char shorts[2 * N_SPECS + 2] = ":";
    size_t n = 0, n_shorts = 1;
    for (size_t i = 0; i < N_SPECS; i++) {
        if (!(specs[i].commands & command->bit)) continue;
        by_index[n] = &specs[i];
        longs[n] = (struct option){ specs[i].name, specs[i].kind == FLAG ? no_argument : required_argument, NULL,
                                    LONG_ONLY + (int)n }; /* all different: else getopt takes any of those that a start fits */
        n++;
        if (!specs[i].letter) continue;
        shorts[n_shorts++] = specs[i].letter;
        if (specs[i].kind != FLAG) shorts[n_shorts++] = ':';
    }
    longs[n] = (struct option){ NULL, 0, NULL, 0 };
    shorts[n_shorts] = '\0';

    set_defaults(out);
    opterr = 0;
    for (;;) {
        const int found = getopt_long(argc, argv, shorts, longs, NULL);
        if (found == -1) break;
        if (found == '?') return refuse_option(argv[optind - 1], longs);
        if (found == ':') return usage_error("%s needs a value", argv[optind - 1]);
        const struct spec *spec = found >= LONG_ONLY ? by_index[found - LONG_ONLY] : NULL;
        for (size_t i = 0; i < n && !spec; i++)
            if (by_index[i]->letter == found) spec = by_index[i];
        if (spec && set_value(spec, optarg, out) != EXIT_DONE) return EXIT_BAD_USAGE;
        if (out->help) return EXIT_DONE;
    }
    for (int i = 0; i < command->n_words; i++, optind++) {
        if (optind >= argc)
            return usage_error("%d more argument%s needed", command->n_words - i, command->n_words - i > 1 ? "s are" : " is");
        out->words[i] = argv[optind];
    }
    if (optind < argc) return usage_error("unexpected argument %s", argv[optind]);
    int code = check_required(command, out);
    if (code == EXIT_DONE) code = check_targets(out);
    return code == EXIT_DONE ? check_threads(out) : code;
}

/* The value that holds when the option is not given, or "". */
static void default_text(const struct spec *spec, const struct options *defaults, char *text, size_t cap)
{
    const char *field = (const char *)defaults + spec->offset;
    const char *word = NULL;
    int64_t integer = -1;
    double real = NAN;
    if (spec->kind == INTEGER)
        memcpy(&integer, field, sizeof integer);
    else if (spec->kind == REAL)
        memcpy(&real, field, sizeof real);
    else if (spec->kind == TEXT || spec->kind == CHOICE)
        memcpy(&word, field, sizeof word);
    *text = '\0';
    if (integer >= 0)
        snprintf(text, cap, " [default: %lld]", (long long)integer);
    else if (!isnan(real))
        snprintf(text, cap, " [default: %.4g]", real);
    else if (word)
        snprintf(text, cap, " [default: %s]", word);
}

/* Where lines of help end: at the terminal's edge, if it is narrower than the widest. */
static size_t line_end(void)
{
    enum { NARROWEST = 60, WIDEST = 110 };
    struct winsize size;
    const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_col < WIDEST;
    return !known ? WIDEST : size.ws_col < NARROWEST ? NARROWEST : size.ws_col;
}

/* Whether a paragraph ends here: at a line's end, where what follows is blank, indented or nothing. */
static bool ends_paragraph(const char *at)
{
    return *at == '\0' || (*at == '\n' && strchr(" \n", at[1]) != NULL);
}

const char *options_print_wrapped(const char *text, size_t column)
{
    const size_t end = line_end();
    size_t at = column;
    const char *word = text;
    while (!ends_paragraph(word)) {
        size_t length = strcspn(word, " \n|");
        if (word[length] == '|') length++; /* lines are broken behind it, too */
        const bool space = word > text && strchr(" \n", word[-1]), breaks = word > text && at + space + length > end;
        printf("%s%*s%.*s", breaks ? "\n" : "", breaks ? (int)column : space, "", (int)length, word);
        at = (breaks ? column : at + space) + length;
        word += length;
        if (!ends_paragraph(word) && strchr(" \n", *word)) word++;
    }
    putchar('\n');
    return word + (*word == '\n');
}

/* Paragraphs; what is indented, an example or a table, is left as it is. */
static void print_details(const char *text)
{
    while (*text) {
        const size_t length = strcspn(text, "\n");
        if (length > 0 && *text != ' ') {
            text = options_print_wrapped(text, 0);
            continue;
        }
        printf("%.*s\n", (int)length, text);
        text += length + (text[length] == '\n');
    }
}

static void print_option(const struct spec *spec, const struct options *defaults)
{
    enum { HELP_COLUMN = 27 };
    const bool choice = spec->kind == CHOICE;
    char left[64], initial[64], help[512];
    const char letter[] = { '-', spec->letter, ',', '\0' };
    snprintf(left, sizeof left, "  %3s --%s %s", spec->letter ? letter : "", spec->name,
             choice        ? "WORD"
             : spec->value ? spec->value
                           : "");
    default_text(spec, defaults, initial, sizeof initial);
    snprintf(help, sizeof help, "%s%s%s%s", spec->help, choice ? "; one of " : "", choice ? spec->value : "", initial);
    printf("%-*s", HELP_COLUMN, left);
    (void)options_print_wrapped(help, HELP_COLUMN);
}

void options_print_help(const struct command *command)
{
    struct options defaults;
    set_defaults(&defaults);
    method_show_defaults(&defaults);
    printf("Usage: compactattn %s %s\n%s.\n\n", command->name, command->synopsis, command->summary);
    print_details(command->details);
    puts("\nOptions:");
    for (size_t i = 0; i < N_SPECS; i++) {
        if (specs[i].commands & command->bit) print_option(&specs[i], &defaults);
    }
}
