/* compactattn tokenize: text to token ids and back. */
#include "commands.h"
#include "file.h"
#include "measure.h"
#include "message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct coder {
    const ca_tokenizer *tokenizer;
    const struct options *options;
};

static int print_ids(const struct coder *coder, const char *text, size_t size)
{
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    const unsigned flags = (coder->options->parse_special ? CA_TOK_PARSE_SPECIAL : 0U) |
                           (coder->options->no_bos ? 0U : CA_TOK_ADD_BOS);
    const ca_status status = ca_tokenize(coder->tokenizer, text, size, flags, &ids, &n_ids);
    if (status != CA_OK) return fail_library(status);
    putchar('[');
    for (size_t i = 0; i < n_ids; i++) printf(i ? ", %u" : "%u", ids[i]);
    puts("]");
    ca_free(ids);
    return EXIT_DONE;
}

static int decode_ids(const struct coder *coder, const json_t *ids, FILE *out)
{
    const size_t cap = ca_tokenizer_max_piece(coder->tokenizer) + 8;
    ca_detokenizer state = { .n_held = 0 };
    size_t index, length;
    json_t *id;
    char *piece = malloc(cap);
    if (!piece) return fail("no memory to decode");
    ca_status status = CA_OK;
    json_array_foreach(ids, index, id)
    {
        const json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value > UINT32_MAX) {
            free(piece);
            return fail("element %zu of the array is no token id", index);
        }
        status = ca_detokenize(coder->tokenizer, &state, (uint32_t)value, coder->options->parse_special, piece, cap, &length);
        if (status != CA_OK) break;
        fwrite(piece, 1, length, out);
    }
    if (status == CA_OK && (status = ca_detokenize_end(&state, piece, cap, &length)) == CA_OK) fwrite(piece, 1, length, out);
    free(piece);
    return status == CA_OK ? EXIT_DONE : fail_library(status);
}

/* Decodes to one JSON string on a line of its own. */
static int print_text_json(const struct coder *coder, const json_t *ids)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    if (!stream) return fail("no memory to decode");
    int code = decode_ids(coder, ids, stream);
    fclose(stream);
    json_t *json = code == EXIT_DONE ? json_stringn(text, size) : NULL;
    if (json) {
        json_dumpf(json, stdout, JSON_ENCODE_ANY);
        putchar('\n');
    } else if (code == EXIT_DONE) {
        code = fail("no memory to decode");
    }
    json_decref(json);
    free(text);
    return code;
}

/* The JSON value of type that a text holds; NULL after a message. where: what to call it, line: its number, 0 = the whole input. */
static json_t *parse_json(const char *text, size_t size, json_type type, const char *where, size_t line)
{
    json_error_t error;
    json_t *value = json_loadb(text, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    const char *what = type == JSON_ARRAY ? "a JSON array of token ids" : "a JSON string";
    if (value && json_typeof(value) == type) return value;
    if (value)
        fail("%s: line %zu: expected %s", where, line ? line : 1, what);
    else
        fail("%s: line %zu: expected %s: %s", where, line ? line : (size_t)error.line, what, error.text);
    json_decref(value);
    return NULL;
}

static int convert_line(const struct coder *coder, const char *text, size_t size, const char *where, size_t line)
{
    json_t *value = parse_json(text, size, coder->options->decode ? JSON_ARRAY : JSON_STRING, where, line);
    if (!value) return EXIT_FAILED;
    const int code = coder->options->decode ? print_text_json(coder, value)
                                            : print_ids(coder, json_string_value(value), json_string_length(value));
    json_decref(value);
    return code;
}

static int convert_lines(const struct coder *coder, const char *where)
{
    FILE *in = coder->options->file && strcmp(coder->options->file, "-") != 0 ? fopen(coder->options->file, "rb") : stdin;
    if (!in) return fail("%s: %s", where, strerror(errno));
    char *text = NULL;
    size_t cap = 0, line = 0;
    ssize_t size;
    int code = EXIT_DONE;
    while (code == EXIT_DONE && (size = getline(&text, &cap, in)) >= 0)
        code = convert_line(coder, text, (size_t)size, where, ++line);
    if (code == EXIT_DONE && ferror(in)) code = fail("%s: %s", where, strerror(errno));
    free(text);
    if (in != stdin) fclose(in);
    return code;
}

static int convert_all(const struct coder *coder, const char *where)
{
    char *text = NULL, why[FILE_WHY];
    size_t size = 0;
    if (coder->options->prompt) {
        text = strdup(coder->options->prompt);
        size = strlen(coder->options->prompt);
    } else if (!file_read(coder->options->file, &text, &size, why)) {
        return fail("%s: %s", where, why);
    }
    if (!text) return fail("no memory for the text");
    int code = EXIT_FAILED;
    json_t *ids = coder->options->decode ? parse_json(text, size, JSON_ARRAY, where, 0) : NULL;
    if (ids)
        code = decode_ids(coder, ids, stdout);
    else if (!coder->options->decode)
        code = print_ids(coder, text, size);
    json_decref(ids);
    free(text);
    return code;
}

static int run(const struct options *options)
{
    ca_tokenizer *tokenizer = NULL;
    if (options->prompt && options->file) return usage_error("-p and -f exclude each other");
    if (options->prompt && options->jsonl) return usage_error("--jsonl reads lines from -f or standard input, not -p");
    const ca_status status = ca_tokenizer_open(options->model, &tokenizer);
    if (status != CA_OK) return fail_library(status);
    const struct coder coder = { tokenizer, options };
    const char *where = options->prompt ? "-p" : options->file ? options->file : "standard input";
    const int code = options->jsonl ? convert_lines(&coder, where) : convert_all(&coder, where);
    ca_tokenizer_close(tokenizer);
    return code;
}

const struct command command_tokenize = {
    .name = "tokenize",
    .summary = "Turn text into token ids, or back",
    .synopsis = "-m MODEL [-f FILE | -p TEXT] [OPTIONS]",
    .details =
        "MODEL is a GGUF file, a Hugging Face folder or a tokenizer.json. Prints the ids as a JSON array. BOS comes first only\n"
        "when the model's file asks for it.\n\n"
        "Examples:\n"
        "  compactattn tokenize -m model.gguf -p \"Hello, world!\"\n"
        "  compactattn tokenize -m folder/tokenizer.json -p \"<|im_end|>\" --parse-special\n"
        "  compactattn tokenize -m model.gguf -p \"[19556, 28, 905, 17]\" --decode\n"
        "  compactattn tokenize -m model.gguf --jsonl < strings.jsonl > ids.jsonl",
    .bit = CMD_TOKENIZE,
    .run = run,
};
