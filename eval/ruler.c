#include "ruler.h"

#include "cli/file.h"
#include "cli/interrupt.h"
#include "cli/message.h"
#include "cli/progress.h"
#include "ledger.h"
#include "ruler_tasks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* To be raised when the same settings give other files. */
#define GENERATOR "ruler-1"

const struct ruler_task ruler_tasks[RULER_TASKS] = {
    { "niah_single_1", 128, false, false, true, NULL },
    { "niah_single_2", 128, false, true, true, NULL },
    { "niah_single_3", 128, false, true, true, NULL },
    { "niah_multikey_1", 128, false, true, true, NULL },
    { "niah_multikey_2", 128, false, false, true, NULL },
    { "niah_multikey_3", 128, false, false, false, NULL },
    { "niah_multivalue", 128, false, true, true, NULL },
    { "niah_multiquery", 128, false, true, true, NULL },
    { "vt", 30, false, false, false, NULL },
    { "cwe", 120, false, false, true, NULL },
    { "fwe", 50, false, false, false, NULL },
    { "qa_1", 32, true, false, false, "--squad" },
    { "qa_2", 32, true, false, false, "--hotpotqa" },
};

static const struct wrapper {
    const char *name, *text;
} wrappers[] = {
    { "base", "{}" },
    { "meta-chat", "[INST] {} [/INST]" },
    { "vicuna-chat",
      "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
      "and polite answers to the user's questions. USER: {} ASSISTANT:" },
    { "lwm-chat", "You are a helpful assistant. USER: {} ASSISTANT: " },
    { "command-r-chat", "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>{}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|>"
                        "<|CHATBOT_TOKEN|>" },
    { "chatglm-chat", "[gMASK]sop<|user|> \n {}<|assistant|> \n " },
    { "glm-4", "[gMASK]<sop><|user|>\n {}<|assistant|>\n" },
    { "llama-3", "<|start_header_id|>user<|end_header_id|> {}<|eot_id|><|start_header_id|>assistant<|end_header_id|>" },
    { "meta-llama3", "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant"
                     "<|end_header_id|>\n\n" },
    { "qwen2.5", "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n" },
    { "RWKV", "User: hi\n\nAssistant: Hi. I am your assistant and I will provide expert full response in full details. Please feel "
              "free to ask any question and I will always answer it\n\nUser: {}\n\nAssistant:" },
};

enum { N_WRAPPERS = sizeof wrappers / sizeof *wrappers };

static int render(const char *name, const ca_tokenizer *tokenizer, ca_thinking thinking, char **text)
{
    const ca_message message = { "user", "{}" };
    char *rendered = NULL;
    size_t n = 0;
    const ca_status status = ca_chat_render_as(tokenizer, NULL, thinking, &message, 1, true, &rendered, &n);
    if (status != CA_OK) return fail_library(status);
    *text = strstr(rendered, "{}") ? strdup(rendered) : NULL;
    ca_free(rendered);
    return *text ? EXIT_DONE : fail("--template %s: the model's template leaves no place for the task", name);
}

/* Whether text is one token. */
static bool is_token(const ca_tokenizer *tokenizer, const char *text)
{
    uint32_t *ids = NULL;
    size_t n = 0;
    const bool one = ca_tokenize(tokenizer, text, strlen(text), CA_TOK_PARSE_SPECIAL, &ids, &n) == CA_OK && n == 1;
    ca_free(ids);
    return one;
}

const char *ruler_wrapper_name(const ca_tokenizer *tokenizer)
{
    const ca_message message = { "user", "{}" };
    char *rendered = NULL;
    size_t n = 0;
    if (is_token(tokenizer, "<|start_header_id|>")) return "llama-3";
    if (is_token(tokenizer, "<|im_start|>")) return "qwen2.5";
    const bool known = ca_chat_render(tokenizer, &message, 1, true, &rendered, &n) == CA_OK;
    ca_free(rendered);
    return known ? "model" : "base";
}

int ruler_wrapper(const char *name, const ca_tokenizer *tokenizer, char **text)
{
    if (!name) name = ruler_wrapper_name(tokenizer);
    for (size_t i = 0; i < N_WRAPPERS; i++) {
        if (strcmp(wrappers[i].name, name) != 0) continue;
        *text = strdup(wrappers[i].text);
        return *text ? EXIT_DONE : fail("no memory for the template");
    }
    if (strcmp(name, "model") == 0 || strcmp(name, "hf-chat") == 0) return render(name, tokenizer, CA_THINKING_DEFAULT, text);
    if (strcmp(name, "hf-chat-no-thinking") == 0) return render(name, tokenizer, CA_THINKING_OFF, text);
    struct text known = { 0 };
    for (size_t i = 0; i < N_WRAPPERS; i++) text_print(&known, "%s, ", wrappers[i].name);
    const int code = usage_error("--template %s: unknown; known: %smodel, hf-chat, hf-chat-no-thinking", name,
                                 known.failed ? "" : known.at);
    text_free(&known);
    return code;
}

int ruler_select(const char *names, unsigned *tasks)
{
    *tasks = 0;
    if (strcmp(names, "all") == 0) {
        *tasks = (1U << RULER_TASKS) - 1;
        return EXIT_DONE;
    }
    for (const char *at = names;; at++) {
        const size_t length = strcspn(at, ",");
        size_t i = 0;
        while (i < RULER_TASKS && (strlen(ruler_tasks[i].name) != length || memcmp(ruler_tasks[i].name, at, length) != 0)) i++;
        if (i == RULER_TASKS)
            return usage_error("--tasks: unknown task \"%.*s\"; known: all, niah_single_1, _2, _3, niah_multikey_1, _2, _3, "
                               "niah_multivalue, niah_multiquery, vt, cwe, fwe, qa_1, qa_2",
                               (int)length, at);
        *tasks |= 1U << i;
        at += length;
        if (!*at) return EXIT_DONE;
    }
}

int ruler_parse_lengths(const char *list, size_t lengths[RULER_LENGTHS], size_t *n)
{
    *n = 0;
    for (const char *at = list;;) {
        char *end;
        errno = 0;
        const unsigned long length = *at >= '0' && *at <= '9' ? strtoul(at, &end, 10) : 0;
        if (length < 64 || length > 1UL << 30 || errno || (*end && *end != ','))
            return usage_error("--lengths %s: expected whole numbers from 64 on, separated by commas", list);
        if (*n == RULER_LENGTHS) return usage_error("--lengths %s: more than %d lengths", list, RULER_LENGTHS);
        for (size_t i = 0; i < *n; i++)
            if (lengths[i] == length) return usage_error("length %lu is listed twice", length);
        lengths[(*n)++] = length;
        if (!*end) return EXIT_DONE;
        at = end + 1;
    }
}

void ruler_key(size_t length, const char *task, char key[RULER_KEY])
{
    (void)snprintf(key, RULER_KEY, "%zu/%s", length, task);
}

/* synthetic/LENGTH/data/TASK/validation.jsonl */
static bool file_name(size_t length, const char *task, char name[RULER_PATH])
{
    return snprintf(name, RULER_PATH, "synthetic/%zu/data/%s/validation.jsonl", length, task) < RULER_PATH;
}

bool ruler_data_path(const char *root, size_t length, const char *task, char path[RULER_PATH])
{
    char name[RULER_PATH];
    const int n = file_name(length, task, name) ? snprintf(path, RULER_PATH, "%s/%s", root, name) : -1;
    return n >= 0 && n < RULER_PATH;
}

/* Of a data root that is being filled. */
struct filling {
    const char *root;
    const struct ruler_source *source;
    const ca_tokenizer *tokenizer;
    json_t *settings, *files, *inputs, *skipped; /* all but the first: of the manifest's note */
    struct words *words;
    struct essay essay;
    struct questions squad, hotpotqa;
    struct progress progress;
    char label[96];
    double done, total; /* rows */
    FILE *out;          /* the file being written */
    struct ruler_made *made;
};

static int count_tokens(void *context, const char *text, size_t n, size_t *tokens)
{
    uint32_t *ids = NULL;
    const ca_status status = ca_tokenize(context, text, n, CA_TOK_PARSE_SPECIAL, &ids, tokens);
    ca_free(ids);
    return status == CA_OK ? EXIT_DONE : fail_library(status);
}

/* Two tokenizers with the same pieces, which split a probe alike, are the same, whatever file they are in. */
static int hash_tokenizer(const ca_tokenizer *tokenizer, char hex[LEDGER_HASH])
{
    static const char probe[] =
        "The grass is green. \tOne of the special magic numbers for tenuous-thirst is: 2867825.\n\n'VAR' x=42";
    const size_t cap = ca_tokenizer_max_piece(tokenizer) + 8;
    struct text all = { 0 };
    uint32_t *ids = NULL;
    size_t n = 0, length = 0;
    char *piece = malloc(cap);
    ca_status status = piece ? CA_OK : CA_E_MEMORY;
    for (uint32_t id = 0; id < ca_tokenizer_size(tokenizer) && status == CA_OK; id++) {
        ca_detokenizer state = { .started = true };
        status = ca_detokenize(tokenizer, &state, id, true, piece, cap, &length);
        if (status != CA_OK) break;
        text_add_bytes(&all, piece, length);
        text_add_bytes(&all, state.held, state.n_held);
        text_add_bytes(&all, "", 1);
    }
    if (status == CA_OK) status = ca_tokenize(tokenizer, probe, sizeof probe - 1, 0, &ids, &n);
    for (size_t i = 0; i < n && status == CA_OK; i++) text_print(&all, "%u,", ids[i]);
    if (status == CA_OK && !all.failed) ledger_hash_bytes(all.at, all.n, hex);
    const bool no_memory = !piece || all.failed;
    ca_free(ids);
    free(piece);
    text_free(&all);
    return no_memory ? fail("no memory to hash the tokenizer") : status == CA_OK ? EXIT_DONE : fail_library(status);
}

static int make_settings(struct filling *filling)
{
    const struct ruler_source *source = filling->source;
    char tokenizer[LEDGER_HASH];
    const int code = hash_tokenizer(filling->tokenizer, tokenizer);
    if (code != EXIT_DONE) return code;
    filling->settings = json_pack("{s:s, s:s, s:s, s:{s:s, s:s}, s:I, s:I, s:s, s:{s:s}}", "generator", GENERATOR, "profile",
                                  source->profile == RULER_UPSTREAM ? "ruler-upstream" : "ruler-ref", "tokenizer", tokenizer,
                                  "wrapper", "name", source->wrapper_name ? source->wrapper_name : "", "text", source->wrapper,
                                  "seed", (json_int_t)source->seed, "samples", (json_int_t)source->n_samples, "haystack",
                                  source->essay ? "essay" : "public-domain", "note", "version", ca_version());
    return filling->settings ? EXIT_DONE : fail("%s: no memory for its manifest, or the template is no UTF-8 text", filling->root);
}

/* Adds key: value to an object in the manifest's note. */
static int add_note(struct filling *filling, const char *object, const char *key, const char *value)
{
    json_t *settings = json_deep_copy(filling->settings);
    json_t *told = json_pack("{s:{s:s}}", object, key, value);
    int code = EXIT_FAILED;
    if (settings && told && json_object_set(settings, "note", told) == 0)
        code = ledger_begin(filling->root, settings);
    else
        fail("%s: no memory for its manifest", filling->root);
    json_decref(settings);
    json_decref(told);
    return code;
}

/* A file that the task reads must be the one that the root's other files were made from. */
static int check_input(struct filling *filling, const char *option, const char *path)
{
    char hash[LEDGER_HASH];
    const int code = ledger_hash(path, hash);
    if (code != EXIT_DONE) return code;
    const char *old = json_string_value(json_object_get(filling->inputs, option));
    if (old && strcmp(old, hash) != 0)
        return fail("%s/manifest.json: %s %s is another file than the one used before: choose another folder", filling->root,
                    option, path);
    return old ? EXIT_DONE : add_note(filling, "inputs", option, hash);
}

static int read_manifest(struct filling *filling)
{
    char path[RULER_PATH];
    json_error_t error;
    if ((size_t)snprintf(path, sizeof path, "%s/manifest.json", filling->root) >= sizeof path)
        return fail("%s: too long a path", filling->root);
    json_t *manifest = json_load_file(path, 0, &error);
    if (!manifest) return fail("%s: line %d: %s", path, error.line, error.text);
    const json_t *told = json_object_get(manifest, "note");
    filling->files = json_incref(json_object_get(told, "files"));
    filling->inputs = json_incref(json_object_get(told, "inputs"));
    filling->skipped = json_incref(json_object_get(told, "skipped"));
    json_decref(manifest);
    return EXIT_DONE;
}

static int make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const bool made = mkdir(path, 0777) == 0 || errno == EEXIST;
        if (!made) return fail("%s: the folder cannot be made (%s)", path, strerror(errno));
        *slash = '/';
    }
    return EXIT_DONE;
}

/* Python writes \u001f where jansson writes \u001F. */
static void lower_escapes(char *line)
{
    for (; (line = strchr(line, '\\')); line += 2) {
        for (int i = 2; line[1] == 'u' && i < 6; i++) line[i] = (char)(line[i] >= 'A' && line[i] <= 'F' ? line[i] + 32 : line[i]);
    }
}

static int write_row(void *context, json_t *row)
{
    struct filling *filling = context;
    char *line = json_dumps(row, filling->source->profile == RULER_UPSTREAM ? JSON_ENSURE_ASCII : 0);
    json_decref(row);
    if (!line) return fail("%s: no memory for a row", filling->root);
    lower_escapes(line);
    const bool written = fputs(line, filling->out) >= 0 && fputc('\n', filling->out) != EOF;
    free(line);
    if (!written) return fail("%s: cannot be written (%s)", filling->root, strerror(errno));
    progress_update(&filling->progress, ++filling->done, filling->total);
    return EXIT_DONE;
}

/* Reads what the task needs and is not there yet. */
static int open_inputs(struct filling *filling, size_t task)
{
    const struct ruler_source *source = filling->source;
    int code = EXIT_DONE;
    if (ruler_tasks[task].words && !filling->words && !(filling->words = words_open(source->seed))) return EXIT_FAILED;
    if (ruler_tasks[task].essay && !filling->essay.n_words) code = essay_read(source->essay, &filling->essay);
    const bool squad = strcmp(ruler_tasks[task].name, "qa_1") == 0;
    struct questions *questions = squad ? &filling->squad : &filling->hotpotqa;
    if (ruler_tasks[task].needs_data && !questions->n && code == EXIT_DONE)
        code = squad ? questions_read_squad(source->squad, questions) : questions_read_hotpotqa(source->hotpotqa, questions);
    return code;
}

static int skip(struct ruler_made *made, size_t length, size_t task, const char *why)
{
    char key[RULER_KEY];
    ruler_key(length, ruler_tasks[task].name, key);
    note("%s is skipped at %zu tokens: %s", ruler_tasks[task].name, length, why);
    return json_object_set_new(made->skipped, key, json_string(why)) == 0 ? EXIT_DONE : fail("no memory for what is skipped");
}

/* A task that does not fit the length leaves nothing but its reason, in the manifest. path: of its file. */
static int leave_hole(struct filling *filling, size_t task, size_t length, char *path, const char *why)
{
    char key[RULER_KEY];
    ruler_key(length, ruler_tasks[task].name, key);
    for (char *slash; (slash = strrchr(path, '/')) && slash > path;) { /* the folders that were made for it */
        *slash = '\0';
        if (rmdir(path) != 0) break;
    }
    progress_end(&filling->progress);
    const int code = skip(filling->made, length, task, why);
    return code == EXIT_DONE ? add_note(filling, "skipped", key, why) : code;
}

static int make_file(struct filling *filling, size_t task, size_t length, const char *name)
{
    const struct ruler_source *source = filling->source;
    const double before = filling->done;
    const char *why = NULL;
    struct file_result result;
    char path[RULER_PATH], hash[LEDGER_HASH];
    if (!ruler_data_path(filling->root, length, ruler_tasks[task].name, path)) return fail("%s: too long a path", filling->root);
    int code = open_inputs(filling, task);
    if (code == EXIT_DONE) code = make_folders(path);
    if (code != EXIT_DONE) return code;
    if (!file_begin(&result, path)) return fail("%s: cannot be written (%s)", path, strerror(errno));
    filling->out = result.file;
    (void)snprintf(filling->label, sizeof filling->label, "%s %zu", ruler_tasks[task].name, length);
    const struct ruler_job job = {
        .task = task,
        .length = length,
        .n_samples = source->n_samples,
        .seed = source->seed,
        .profile = source->profile,
        .wrapper = source->wrapper,
        .counter = { count_tokens, (void *)(uintptr_t)filling->tokenizer }, /* count_tokens does not change it */
        .pool = { filling->words, &filling->essay, &filling->squad, &filling->hotpotqa },
        .cancel = &interrupt_flag,
        .too_short = &why,
    };
    code = ruler_make_rows(&job, write_row, filling);
    if (!file_end(&result, code == EXIT_DONE)) code = fail("%s: cannot be written (%s)", path, strerror(errno));
    if (code == RULER_TOO_SHORT) {
        filling->done = before;
        filling->total -= (double)source->n_samples;
        return leave_hole(filling, task, length, path, why);
    }
    if (code == EXIT_DONE) code = ledger_hash(path, hash);
    if (code == EXIT_DONE) code = add_note(filling, "files", name, hash);
    return code;
}

/* Whether the file is there as the manifest has it. One that the manifest does not know was cut short by a stop: it is made again. */
static int check_file(const struct filling *filling, const char *name, const char *path, bool *there)
{
    char hash[LEDGER_HASH];
    const char *known = json_string_value(json_object_get(filling->files, name));
    *there = known && access(path, F_OK) == 0;
    if (!*there) return EXIT_DONE;
    const int code = ledger_hash(path, hash);
    if (code != EXIT_DONE || strcmp(hash, known) == 0) return code;
    return fail("%s: is not what %s/manifest.json says: remove the file to have it made again", path, filling->root);
}

/* Why an earlier call has found that the task does not fit the length; NULL: it has not. */
static const char *known_hole(const struct filling *filling, size_t length, size_t task)
{
    char key[RULER_KEY];
    ruler_key(length, ruler_tasks[task].name, key);
    return json_string_value(json_object_get(filling->skipped, key));
}

/* Calls for what is missing; counts only when make is false. */
static int visit_files(struct filling *filling, unsigned tasks, const size_t *lengths, size_t n_lengths, bool make)
{
    char name[RULER_PATH], path[RULER_PATH];
    int code = EXIT_DONE;
    for (size_t l = 0; l < n_lengths; l++) {
        for (size_t t = 0; t < RULER_TASKS; t++) {
            bool there = false;
            if (!(tasks >> t & 1)) continue;
            if (!file_name(lengths[l], ruler_tasks[t].name, name) ||
                !ruler_data_path(filling->root, lengths[l], ruler_tasks[t].name, path))
                return fail("%s: too long a path", filling->root);
            const char *why = known_hole(filling, lengths[l], t);
            code = check_file(filling, name, path, &there);
            if (code == EXIT_DONE && !there && make)
                code = why ? skip(filling->made, lengths[l], t, why) : make_file(filling, t, lengths[l], name);
            if (code != EXIT_DONE) return code;
            if (!there && !make && !why) filling->total += (double)filling->source->n_samples;
        }
    }
    return EXIT_DONE;
}

/* What is there in the end. */
static void count_files(const char *root, unsigned tasks, const size_t *lengths, size_t n_lengths, struct ruler_made *made)
{
    char path[RULER_PATH];
    for (size_t t = 0; t < RULER_TASKS; t++) {
        for (size_t l = 0; l < n_lengths && (tasks >> t & 1); l++) {
            if (!ruler_data_path(root, lengths[l], ruler_tasks[t].name, path) || access(path, R_OK) != 0) continue;
            made->tasks |= 1U << t;
            made->n_files++;
        }
    }
}

/* Of a root that others made. */
static int find_prebuilt(const char *root, unsigned tasks, const size_t *lengths, size_t n_lengths, struct ruler_made *made)
{
    char path[RULER_PATH];
    int code = EXIT_DONE;
    count_files(root, tasks, lengths, n_lengths, made);
    if (!made->tasks) return fail("%s: has no manifest.json, so it is left as it is, and no rows of these tasks and lengths", root);
    for (size_t t = 0; t < RULER_TASKS; t++) {
        if ((tasks & ~made->tasks) >> t & 1) note("%s is skipped: %s does not have its rows", ruler_tasks[t].name, root);
        for (size_t l = 0; l < n_lengths && (made->tasks >> t & 1) && code == EXIT_DONE; l++)
            if (!ruler_data_path(root, lengths[l], ruler_tasks[t].name, path) || access(path, R_OK) != 0)
                code = skip(made, lengths[l], t, "the data's folder does not have its rows");
    }
    return code;
}

static unsigned leave_out(const struct ruler_source *source, unsigned tasks)
{
    for (size_t t = 0; t < RULER_TASKS; t++) {
        const char *needs = ruler_tasks[t].needs_data;
        if (!needs || !(tasks >> t & 1) || (strcmp(needs, "--squad") == 0 ? source->squad : source->hotpotqa)) continue;
        note("%s is skipped: it needs %s FILE", ruler_tasks[t].name, needs);
        tasks &= ~(1U << t);
    }
    return tasks;
}

/* The files that the tasks at hand are made from, and no others. */
static int check_inputs(struct filling *filling, unsigned tasks)
{
    const struct ruler_source *source = filling->source;
    char path[RULER_PATH];
    int code = EXIT_DONE;
    bool essay = false;
    for (size_t t = 0; t < RULER_TASKS && code == EXIT_DONE; t++) {
        const char *needs = ruler_tasks[t].needs_data;
        if (!(tasks >> t & 1)) continue;
        essay |= ruler_tasks[t].essay;
        if (needs) code = check_input(filling, needs, strcmp(needs, "--squad") == 0 ? source->squad : source->hotpotqa);
    }
    if (code != EXIT_DONE || !essay) return code;
    if (!essay_path(source->essay, path, sizeof path))
        return fail("data/ruler/essay.txt.gz is missing: it belongs to the installation");
    return check_input(filling, "--essay", path);
}

static int fill_root(struct filling *filling, unsigned tasks, const size_t *lengths, size_t n_lengths, bool quiet)
{
    int code = make_settings(filling);
    if (code == EXIT_DONE) code = ledger_begin(filling->root, filling->settings);
    if (code == EXIT_DONE) code = read_manifest(filling);
    if (code == EXIT_DONE) code = check_inputs(filling, tasks);
    if (code == EXIT_DONE) code = visit_files(filling, tasks, lengths, n_lengths, false);
    if (code != EXIT_DONE) return code;
    progress_begin(&filling->progress, filling->label, quiet ? PROGRESS_OFF : progress_style(false, PROGRESS_LINES));
    filling->progress.unit = "rows";
    code = visit_files(filling, tasks, lengths, n_lengths, true);
    progress_end(&filling->progress);
    if (code == EXIT_INTERRUPTED) note("%s: stopped; whole files are kept, and the same command goes on", filling->root);
    return code;
}

int ruler_make_data(const char *root, const struct ruler_source *source, const ca_tokenizer *tokenizer, unsigned tasks,
                    const size_t *lengths, size_t n_lengths, bool quiet, struct ruler_made *made)
{
    char manifest[RULER_PATH], data[RULER_PATH];
    *made = (struct ruler_made){ .skipped = json_object() };
    if (!made->skipped) return fail("no memory for what is skipped");
    if ((size_t)snprintf(manifest, sizeof manifest, "%s/manifest.json", root) >= sizeof manifest ||
        (size_t)snprintf(data, sizeof data, "%s/synthetic", root) >= sizeof data)
        return fail("%s: too long a path", root);
    if (access(manifest, F_OK) != 0 && access(data, F_OK) == 0) return find_prebuilt(root, tasks, lengths, n_lengths, made);
    tasks = leave_out(source, tasks);
    if (!tasks) return fail("no task is left to make rows for");
    struct filling filling = { .root = root, .source = source, .tokenizer = tokenizer, .made = made };
    int code = fill_root(&filling, tasks, lengths, n_lengths, quiet);
    if (code == EXIT_DONE) {
        count_files(root, tasks, lengths, n_lengths, made);
        if (made->n_files == 0) code = fail("%s: nothing is written, every task is skipped", root);
    }
    words_close(filling.words);
    essay_free(&filling.essay);
    questions_free(&filling.squad);
    questions_free(&filling.hotpotqa);
    json_decref(filling.settings);
    json_decref(filling.files);
    json_decref(filling.inputs);
    json_decref(filling.skipped);
    return code;
}
