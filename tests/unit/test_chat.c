/* Chat templates against texts that the template language itself rendered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include <compactattn/tokenizer.h>

#include "text/tokenizer_gguf.h"
#include "vocab_image.h"

#define CHAT CA_TEST_DATA "/tokenizers/chat/"

/* A vocabulary of bytes and BOS with a chat template. */
static ca_tokenizer *with_template(const char *template)
{
    vocab v = vocab_new("gpt-2");
    v.chat_template = template;
    vocab_bytes(&v);
    v.bos = vocab_token(&v, "<|begin_of_text|>", TOKEN_CONTROL);
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

/* One golden case; ids are compared when the tokenizer is the model's. False when the case uses what the API does not have. */
static bool check_case(const ca_tokenizer *tok, const json_t *row, bool compare_ids, bool tools_are_ignored)
{
    const json_t *messages = json_object_get(row, "messages");
    const json_t *kwargs = json_object_get(row, "kwargs");
    const json_t *generate = json_object_get(kwargs, "add_generation_prompt");
    if (json_object_get(kwargs, "tools") && !tools_are_ignored) return false;
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
    if (ca_chat_render(tok, list, n, !json_is_false(generate), &text, &len) != CA_OK) fail_msg("%s", ca_last_error());
    const json_t *want = json_object_get(row, "rendered");
    assert_non_null(want);
    assert_string_equal(text, json_string_value(want));
    assert_int_equal(len, json_string_length(want));
    if (compare_ids) {
        uint32_t *ids;
        size_t n_ids;
        const json_t *want_ids = json_object_get(row, "ids");
        assert_int_equal(ca_tokenize(tok, text, len, CA_TOK_PARSE_SPECIAL, &ids, &n_ids), CA_OK);
        assert_int_equal(n_ids, json_array_size(want_ids));
        for (size_t i = 0; i < n_ids; i++) assert_int_equal(ids[i], json_integer_value(json_array_get(want_ids, i)));
        ca_free(ids);
    }
    ca_free(text);
    return true;
}

static void check_file(const ca_tokenizer *tok, const char *path, bool compare_ids, bool tools_are_ignored, size_t n_want)
{
    char *text = read_text(path);
    size_t n_checked = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        json_t *row = json_loadb(line, (size_t)(end - line), 0, NULL);
        assert_non_null(row);
        n_checked += check_case(tok, row, compare_ids, tools_are_ignored);
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
    check_file(tok, CHAT "smollm2.jsonl", true, true, 12);
    ca_tokenizer_close(tok);
}

static void test_known_templates(void **state)
{
    (void)state;
    static const struct {
        const char *template, *cases;
        bool tools_are_ignored;
        size_t n;
    } rows[] = {
        { CHAT "smollm2.jinja", CHAT "smollm2.jsonl", true, 12 },
        { CHAT "qwen2.5.jinja", CHAT "qwen2.5.jsonl", false, 11 },
        { CHAT "llama-3.1.jinja", CHAT "llama-3.1.jsonl", false, 11 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *template = read_text(rows[i].template);
        ca_tokenizer *tok = with_template(template);
        check_file(tok, rows[i].cases, false, rows[i].tools_are_ignored, rows[i].n);
        ca_tokenizer_close(tok);
        free(template);
    }
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
        ca_tokenizer *tok = with_template(rows[i].template);
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
        { NULL, hi, 1, CA_E_UNSUPPORTED, "no tokenizer.chat_template; known: chatml, llama-3.1" },
        { "", hi, 1, CA_E_UNSUPPORTED, "no tokenizer.chat_template" },
        { "{{ bos_token }}{{ messages }}", hi, 1, CA_E_UNSUPPORTED, "template that is not recognized; known: chatml, llama-3.1" },
        { FOR "{% if enable_thinking %}<think>{% endif %}" LOOP, hi, 1, CA_E_UNSUPPORTED, "not recognized" },
        { FOR "{{ '<|im_start|>' + message['role'] + message['content'] | trim }}" LOOP, hi, 1, CA_E_UNSUPPORTED,
          "not recognized" },
        { FOR LOOP, hi, 0, CA_E_ARG, "at least one message" },
        { FOR LOOP, tool, 2, CA_E_ARG, "message 1 has the role 'tool'; known: system, user, assistant" },
        { FOR LOOP, hollow, 1, CA_E_ARG, "message 0 has no role or no content" },
        { FOR LOOP, NULL, 1, CA_E_ARG, "messages" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ca_tokenizer *tok = with_template(rows[i].template);
        char *text = (char *)(uintptr_t)1;
        size_t len;
        const ca_status st = ca_chat_render(tok, rows[i].messages, rows[i].n, true, &text, &len);
        if (st != rows[i].status || !strstr(ca_last_error(), rows[i].message))
            fail_msg("row %zu: %s: %s", i, ca_status_name(st), ca_last_error());
        ca_tokenizer_close(tok);
    }
}

/* Repeated openings in a template do not make the search for its default message quadratic. */
static void test_long_template(void **state)
{
    (void)state;
    bytes template = { 0 };
    while (template.len < (1U << 20)) bytes_add(&template, "\"<|im_start|>system\n'<|im_start|>system\n", 40);
    bytes_add(&template, "\"" LOOP, sizeof "\"" LOOP);
    ca_tokenizer *tok = with_template(template.data);
    static const ca_message hi[] = { { "user", "hi" } };
    char *text;
    size_t len;
    assert_int_equal(ca_chat_render(tok, hi, 1, true, &text, &len), CA_OK);
    assert_string_equal(text, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    ca_free(text);
    ca_tokenizer_close(tok);
    free(template.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_template), cmocka_unit_test(test_known_templates), cmocka_unit_test(test_template_shapes),
        cmocka_unit_test(test_errors),         cmocka_unit_test(test_long_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
