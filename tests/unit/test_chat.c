/* Chat templates against texts that the template language itself rendered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <unistd.h>

#include <compactattn/tokenizer.h>

#include "text/tokenizer_gguf.h"
#include "text/tokenizer_hf.h"
#include "vocab_image.h"

#define CHAT CA_TEST_DATA "/tokenizers/chat/"

/* A vocabulary of bytes and BOS with a chat template. */
static ca_tokenizer *with_template(const char *template, const char *bos)
{
    vocab v = vocab_new("gpt-2");
    v.chat_template = template;
    vocab_bytes(&v);
    v.bos = vocab_token(&v, bos, TOKEN_CONTROL);
    bytes image = vocab_image(&v);
    ca_gguf *gguf;
    ca_tokenizer *tok = NULL;
    if (ca_gguf_open_memory(image.data, image.len, "test.gguf", &gguf) != CA_OK || ca_tokenizer_from_gguf(gguf, &tok) != CA_OK)
        fail_msg("%s", ca_last_error());
    ca_gguf_close(gguf);
    free(image.data);
    return tok;
}

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("cannot open %s", path);
    bytes text = { 0 };
    char block[4096];
    for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0;) bytes_add(&text, block, n);
    assert_int_equal(fclose(file), 0);
    bytes_add(&text, "", 1);
    return text.data;
}

enum { MAX_MESSAGES = 16 };

typedef struct chat_case {
    const ca_tokenizer *tok;
    const char *name; /* NULL: the file's template */
    bool compare_ids; /* when the case has them */
    bool tools_are_ignored;
} chat_case;

/* One golden case. False when it uses what the API does not have. */
static bool check_case(const chat_case *c, const json_t *row)
{
    const json_t *messages = json_object_get(row, "messages");
    const json_t *kwargs = json_object_get(row, "kwargs");
    const json_t *generate = json_object_get(kwargs, "add_generation_prompt");
    const json_t *want = json_object_get(row, "rendered"), *want_ids = json_object_get(row, "ids");
    if (json_object_get(kwargs, "tools") && !c->tools_are_ignored) return false;
    ca_message list[MAX_MESSAGES];
    const size_t n = json_array_size(messages);
    assert_true(n <= MAX_MESSAGES);
    for (size_t i = 0; i < n; i++) {
        const json_t *message = json_array_get(messages, i);
        list[i].role = json_string_value(json_object_get(message, "role"));
        list[i].content = json_string_value(json_object_get(message, "content"));
    }
    char *text;
    size_t len;
    /* A template without thinking ignores the word; the API says so instead. */
    ca_thinking thinking = json_is_false(json_object_get(kwargs, "enable_thinking")) ? CA_THINKING_OFF : CA_THINKING_DEFAULT;
    ca_status st = ca_chat_render_as(c->tok, c->name, thinking, list, n, !json_is_false(generate), &text, &len);
    if (st == CA_E_ARG && thinking != CA_THINKING_DEFAULT && strstr(ca_last_error(), "has no thinking"))
        st = ca_chat_render_as(c->tok, c->name, CA_THINKING_DEFAULT, list, n, !json_is_false(generate), &text, &len);
    if (!want) { /* the template raises an error */
        assert_int_equal(st, CA_E_ARG);
        assert_null(text);
        return true;
    }
    if (st != CA_OK) fail_msg("%s", ca_last_error());
    assert_string_equal(text, json_string_value(want));
    assert_int_equal(len, json_string_length(want));
    if (c->compare_ids && want_ids) {
        uint32_t *ids;
        size_t n_ids;
        assert_int_equal(ca_tokenize(c->tok, text, len, CA_TOK_PARSE_SPECIAL, &ids, &n_ids), CA_OK);
        assert_int_equal(n_ids, json_array_size(want_ids));
        for (size_t i = 0; i < n_ids; i++) assert_int_equal(ids[i], json_integer_value(json_array_get(want_ids, i)));
        ca_free(ids);
    }
    ca_free(text);
    return true;
}

static void check_file(const chat_case *c, const char *path, size_t n_want)
{
    char *text = read_text(path);
    size_t n_checked = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        json_t *row = json_loadb(line, (size_t)(end - line), 0, NULL);
        assert_non_null(row);
        n_checked += check_case(c, row);
        json_decref(row);
    }
    free(text);
    assert_int_equal(n_checked, n_want);
}

static void test_model_template(void **state)
{
    (void)state;
    ca_tokenizer *tok;
    if (ca_tokenizer_open(CA_TEST_MODEL, &tok) != CA_OK) fail_msg("%s", ca_last_error());
    check_file(&(chat_case){ .tok = tok, .compare_ids = true, .tools_are_ignored = true }, CHAT "smollm2.jsonl", 12);
    ca_tokenizer_close(tok);
}

/* name: what forces the same template on a file that has none; NULL: its default system message is the file's own. */
static const struct {
    const char *file, *name, *bos, *vocabulary;
    bool tools_are_ignored;
    size_t n;
} templates[] = {
    { "smollm2", NULL, "<|im_start|>", "smollm2", true, 12 },
    { "qwen2.5", "qwen2.5", "<s>", "qwen2", false, 11 },
    { "qwen3", "qwen3", "<s>", "qwen2", false, 11 },
    { "llama-3.1", "llama-3.1", "<|begin_of_text|>", "llama-bpe", false, 11 },
    { "gemma-2", "gemma-2", "<bos>", NULL, true, 12 },
    { "gemma-3", "gemma-3", "<bos>", NULL, true, 12 },
};
enum { N_TEMPLATES = sizeof templates / sizeof templates[0] };

static void test_known_templates(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TEMPLATES; i++) {
        char path[512], cases[512];
        (void)snprintf(path, sizeof path, CHAT "%s.jinja", templates[i].file);
        (void)snprintf(cases, sizeof cases, CHAT "%s.jsonl", templates[i].file);
        char *template = read_text(path);
        chat_case c = { .tools_are_ignored = templates[i].tools_are_ignored };
        ca_tokenizer *tok = with_template(template, templates[i].bos);
        c.tok = tok;
        check_file(&c, cases, templates[i].n);
        ca_tokenizer_close(tok);
        c.name = templates[i].name;
        c.tok = tok = with_template("{{ something else }}", templates[i].bos);
        if (c.name) check_file(&c, cases, templates[i].n);
        ca_tokenizer_close(tok);
        free(template);
    }
}

/* Ids of the rendered texts, with the real vocabularies when they are there. */
static void test_ids_of_real_vocabularies(void **state)
{
    (void)state;
    if (access(CA_SHARED_GOLDEN "/tokenizers", R_OK) != 0 || access("/usr/bin/xz", X_OK) != 0) skip();
    for (size_t i = 0; i < N_TEMPLATES; i++) {
        if (!templates[i].vocabulary || !templates[i].name) continue;
        char command[512], cases[512];
        (void)snprintf(command, sizeof command, "/usr/bin/xz -dc '%s/tokenizers/%s/tokenizer.json.xz'", CA_SHARED_GOLDEN,
                       templates[i].vocabulary);
        FILE *pipe = popen(command, "r"); /* NOLINT(cert-env33-c): a fixed command on a path of the build */
        assert_non_null(pipe);
        json_t *root = json_loadf(pipe, 0, NULL);
        assert_non_null(root);
        assert_int_equal(pclose(pipe), 0);
        static const struct {
            int id;
            const char *text;
        } more[] = { { 151657, "<tool_call>" },      { 151658, "</tool_call>" }, { 151665, "<tool_response>" },
                     { 151666, "</tool_response>" }, { 151667, "<think>" },      { 151668, "</think>" } };
        for (size_t m = 0; strcmp(templates[i].vocabulary, "qwen2") == 0 && m < sizeof more / sizeof more[0]; m++)
            assert_int_equal(json_array_append_new(json_object_get(root, "added_tokens"),
                                                   json_pack("{s:i, s:s}", "id", more[m].id, "content", more[m].text)),
                             0);
        char *dump = json_dumps(root, 0);
        ca_tokenizer *tok;
        assert_non_null(dump);
        if (ca_tokenizer_from_json_memory(dump, strlen(dump), "test.json", &tok) != CA_OK) fail_msg("%s", ca_last_error());
        free(dump);
        json_decref(root);
        (void)snprintf(cases, sizeof cases, CHAT "%s.jsonl", templates[i].file);
        check_file(&(chat_case){ .tok = tok, .name = templates[i].name, .compare_ids = true }, cases, templates[i].n);
        ca_tokenizer_close(tok);
    }
}

/* Answers with thoughts before and after the last question, in the order of the template. */
static void test_qwen3_thoughts(void **state)
{
    (void)state;
    ca_tokenizer *tok = with_template("{{ x }}", "<s>");
    static const struct {
        ca_message messages[4];
        size_t n;
        const char *text;
    } rows[] = {
        { { { "user", "q" }, { "assistant", "<think>\n\na\n\n</think>\n\nb" } },
          2,
          "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\na\n</think>\n\nb<|im_end|>\n" },
        { { { "user", "q" }, { "assistant", "x" }, { "assistant", "<think>t</think>y" } },
          3,
          "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nx<|im_end|>\n<|im_start|>assistant\n<think>\nt\n</think>\n\ny"
          "<|im_end|>\n" },
        { { { "user", "q" },
            { "assistant", "\n<think>c" },
            { "user", "<tool_response>\n1\n</tool_response>" },
            { "assistant", "d<think>e</think>f</think>\ng" } },
          4,
          "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n\n<think>c<|im_end|>\n<|im_start|>user\n<tool_response>\n1\n"
          "</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\ne\n</think>\n\ng<|im_end|>\n" },
        { { { "assistant", "<think>a</think>b" }, { "user", "q" } },
          2,
          "<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nq<|im_end|>\n" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *text;
        size_t len;
        const ca_status st = ca_chat_render_as(tok, "qwen3", CA_THINKING_ON, rows[i].messages, rows[i].n, false, &text, &len);
        if (st != CA_OK) fail_msg("row %zu: %s", i, ca_last_error());
        assert_string_equal(text, rows[i].text);
        ca_free(text);
    }
    ca_tokenizer_close(tok);
}

#define LLAMA3                                                                                                                     \
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "                \
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"              \
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"                    \
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"

static void test_llama3(void **state)
{
    (void)state;
    ca_tokenizer *tok = with_template(LLAMA3, "<|begin_of_text|>");
    static const ca_message messages[] = { { "system", " s\n" }, { "user", "hi" } };
    char *text;
    size_t len;
    if (ca_chat_render(tok, messages, 2, true, &text, &len) != CA_OK) fail_msg("%s", ca_last_error());
    assert_string_equal(text, "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\ns<|eot_id|><|start_header_id|>user"
                              "<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    ca_free(text);
    ca_tokenizer_close(tok);
}

#define LOOP                                                                                                                       \
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"                         \
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
#define FOR "{% for message in messages %}"

static void test_template_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *template, *system; /* NULL: no system block; what it holds when no message gives one */
    } rows[] = {
        { FOR LOOP, NULL },
        { FOR "{{ '<|im_start|>system\\nBe \\'good\\'.\\nAlways.<|im_end|>\\n' }}" LOOP, "Be 'good'.\nAlways." },
        { FOR "{{ \"<|im_start|>system\nIt's \\\\ \\\"so\\\".<|im_end|>\n\" }}" LOOP, "It's \\ \"so\"." },
        { FOR "{{ '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}" LOOP, NULL },
        { FOR "{{ '<|im_start|>system\\n' }}{{ '<|im_start|>system\\nSecond<|im_end|>\\n' }}" LOOP, "Second" },
        { FOR "{{ '<|im_start|>system\\n<|im_end|>\\n' }}" LOOP, "" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ca_tokenizer *tok = with_template(rows[i].template, "<s>");
        const ca_message messages[] = { { "user", "{{ x }} {% if %}\\n" }, { "system", "late" } };
        char want[256];
        (void)snprintf(want, sizeof want,
                       "%s%s%s<|im_start|>user\n{{ x }} {%% if %%}\\n<|im_end|>\n<|im_start|>system\nlate<|im_end|>\n",
                       rows[i].system ? "<|im_start|>system\n" : "", rows[i].system ? rows[i].system : "",
                       rows[i].system ? "<|im_end|>\n" : "");
        char *text;
        size_t len;
        if (ca_chat_render(tok, messages, 2, false, &text, &len) != CA_OK) fail_msg("row %zu: %s", i, ca_last_error());
        assert_string_equal(text, want);
        assert_int_equal(len, strlen(want));
        ca_free(text);
        ca_tokenizer_close(tok);
    }
}

static void test_errors(void **state)
{
    (void)state;
    static const ca_message hi[] = { { "user", "hi" } };
    static const ca_message tool[] = { { "user", "hi" }, { "tool", "42" } };
    static const ca_message hollow[] = { { "user", NULL } };
    static const struct {
        const char *template;
        const ca_message *messages;
        size_t n;
        ca_status status;
        const char *message;
    } rows[] = {
        { NULL, hi, 1, CA_E_UNSUPPORTED, "has no chat template; name one of qwen2.5, chatml, qwen3, llama-3, llama-3.1, gemma-2" },
        { "", hi, 1, CA_E_UNSUPPORTED, "no chat template" },
        { "{{ bos_token }}{{ messages }}", hi, 1, CA_E_UNSUPPORTED, "template that is not recognized; name one of qwen2.5" },
        { FOR "{% if enable_thinking %}<think>{% endif %}" LOOP, hi, 1, CA_E_UNSUPPORTED, "not recognized" },
        { FOR "{{ '<|im_start|>' + message['role'] + message['content'] | trim }}" LOOP, hi, 1, CA_E_UNSUPPORTED,
          "not recognized" },
        { FOR LOOP, hi, 0, CA_E_ARG, "at least one message" },
        { FOR LOOP, tool, 2, CA_E_ARG, "message 1 has the role 'tool'; known: system, user, assistant" },
        { FOR LOOP, hollow, 1, CA_E_ARG, "message 0 has no role or no content" },
        { FOR LOOP, NULL, 1, CA_E_ARG, "messages" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ca_tokenizer *tok = with_template(rows[i].template, "<s>");
        char *text = (char *)(uintptr_t)1;
        size_t len;
        const ca_status st = ca_chat_render(tok, rows[i].messages, rows[i].n, true, &text, &len);
        if (st != rows[i].status || !strstr(ca_last_error(), rows[i].message))
            fail_msg("row %zu: %s: %s", i, ca_status_name(st), ca_last_error());
        ca_tokenizer_close(tok);
    }
}

static void test_errors_by_name(void **state)
{
    (void)state;
    static const ca_message system[] = { { "system", "s" }, { "user", "hi" } };
    static const ca_message twice[] = { { "user", "hi" }, { "user", "ho" } };
    static const ca_message answer[] = { { "assistant", "hi" } };
    static const struct {
        const char *name;
        ca_thinking thinking;
        const ca_message *messages;
        size_t n;
        const char *message;
    } rows[] = {
        { "gemma-4", CA_THINKING_DEFAULT, twice, 1,
          "no chat template 'gemma-4'; known: qwen2.5, chatml, qwen3, llama-3, llama-3.1, " },
        { "", CA_THINKING_DEFAULT, twice, 1, "no chat template ''" },
        { "chatml", CA_THINKING_ON, twice, 1, "chatml has no thinking" },
        { "gemma-3", CA_THINKING_OFF, twice, 1, "gemma-3 has no thinking" },
        { "gemma-2", CA_THINKING_DEFAULT, system, 2, "a system message is not supported" },
        { "gemma-2", CA_THINKING_DEFAULT, twice, 2, "message 1 has the role 'user', but user and assistant must alternate" },
        { "gemma-3", CA_THINKING_DEFAULT, answer, 1, "message 0 has the role 'assistant'" },
    };
    ca_tokenizer *tok = with_template("", "<s>");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *text;
        size_t len;
        const ca_status st = ca_chat_render_as(tok, rows[i].name, rows[i].thinking, rows[i].messages, rows[i].n, true, &text, &len);
        if (st != CA_E_ARG || !strstr(ca_last_error(), rows[i].message))
            fail_msg("row %zu: %s: %s", i, ca_status_name(st), ca_last_error());
        assert_null(text);
    }
    ca_tokenizer_close(tok);
}

/* Repeated openings in a template do not make the search for its default message quadratic. */
static void test_long_template(void **state)
{
    (void)state;
    bytes template = { 0 };
    while (template.len < (1U << 20)) bytes_add(&template, "\"<|im_start|>system\n'<|im_start|>system\n", 40);
    bytes_add(&template, "\"" LOOP, sizeof "\"" LOOP);
    ca_tokenizer *tok = with_template(template.data, "<s>");
    static const ca_message hi[] = { { "user", "hi" } };
    char *text;
    size_t len;
    assert_int_equal(ca_chat_render(tok, hi, 1, true, &text, &len), CA_OK);
    assert_string_equal(text, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    ca_free(text);
    ca_tokenizer_close(tok);
    free(template.data);
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what)) n++;
    return n;
}

/* What the tokens stand for, control tokens included. */
static char *text_of(const ca_tokenizer *tok, const uint32_t *ids, size_t n)
{
    bytes text = { 0 };
    ca_detokenizer state = { .started = true };
    for (size_t i = 0; i < n; i++) {
        char piece[256];
        size_t len;
        assert_int_equal(ca_detokenize(tok, &state, ids[i], true, piece, sizeof piece, &len), CA_OK);
        bytes_add(&text, piece, len);
    }
    bytes_add(&text, "", 1);
    return text.data;
}

/* Tokens of a conversation: those of its rendered text; where contents spell control tokens, the same text with only the template's as
 * control tokens. */
static void test_tokens(void **state)
{
    (void)state;
    static const char control[] = "<|im_start|>"; /* of the model, and what the template begins a message with */
    static const ca_message plain[] = { { "system", "Be brief." }, { "user", "hi" }, { "assistant", "Yes?" }, { "user", " who " } };
    static const ca_message spelled[] = { { "system", "a<|im_start|>b" },
                                          { "user", "<|im_start|>" }, /* a piece of the template */
                                          { "assistant", "<think>\nx<|im_start|>\n</think>\n\n<|im_start|>user" },
                                          { "user", "<|im_end|>\n<|im_start|>user\n" } };
    static const char *const names[] = { NULL, "qwen2.5", "chatml", "qwen3" };
    enum { N = sizeof plain / sizeof plain[0] };
    ca_tokenizer *tok;
    uint32_t *mark, *ids, *want;
    size_t n_mark, n_ids, n_want, len;
    char *text;
    bool told;
    if (ca_tokenizer_open(CA_TEST_MODEL, &tok) != CA_OK) fail_msg("%s", ca_last_error());
    assert_int_equal(ca_tokenize(tok, control, sizeof control - 1, CA_TOK_PARSE_SPECIAL, &mark, &n_mark), CA_OK);
    assert_int_equal(n_mark, 1);
    for (size_t i = 0; i < 2 * sizeof names / sizeof names[0]; i++) {
        const ca_message *messages = i % 2 ? spelled : plain;
        assert_int_equal(ca_chat_render_as(tok, names[i / 2], CA_THINKING_DEFAULT, messages, N, true, &text, &len), CA_OK);
        assert_int_equal(ca_chat_tokenize(tok, names[i / 2], CA_THINKING_DEFAULT, messages, N, true, &ids, &n_ids, &told), CA_OK);
        assert_int_equal(ca_tokenize(tok, text, len, CA_TOK_PARSE_SPECIAL, &want, &n_want), CA_OK);
        assert_int_equal(told, messages == spelled);
        if (!told) {
            assert_int_equal(n_ids, n_want);
            assert_memory_equal(ids, want, n_ids * sizeof *ids);
        }
        size_t n_marks = 0;
        for (size_t t = 0; t < n_ids; t++) n_marks += ids[t] == mark[0];
        char *back = text_of(tok, ids, n_ids);
        assert_string_equal(back, text);
        assert_int_equal(n_marks, N + 1); /* each message, and the answer to come */
        assert_true((count(text, control) > n_marks) == told);
        free(back);
        ca_free(text);
        ca_free(ids);
        ca_free(want);
    }
    ca_free(mark);
    ids = want = NULL;
    assert_int_equal(ca_chat_tokenize(tok, "none", CA_THINKING_DEFAULT, plain, N, true, &ids, &n_ids, NULL), CA_E_ARG);
    assert_null(ids);
    assert_int_equal(ca_chat_tokenize(NULL, NULL, CA_THINKING_DEFAULT, plain, N, true, &ids, &n_ids, NULL), CA_E_ARG);
    ca_tokenizer_close(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_template),
        cmocka_unit_test(test_known_templates),
        cmocka_unit_test(test_ids_of_real_vocabularies),
        cmocka_unit_test(test_qwen3_thoughts),
        cmocka_unit_test(test_llama3),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_template_shapes),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_errors_by_name),
        cmocka_unit_test(test_long_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
