/* --threshold, which several selectors read in their own ways. */
#include "cli/message.h"
#include "cli/method.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

static ca_gate *make_gate(void)
{
    ca_gate *gate = NULL;
    const ca_gate_opt opt = { .n_layers = 1,
                              .n_heads = 1,
                              .n_kv_heads = 1,
                              .head_dim = 16,
                              .hidden = 16,
                              .block = 64,
                              .q_pool = CA_POOL_AVG,
                              .k_pool = CA_POOL_AVG,
                              .layout = CA_GATE_SINGLE,
                              .rope_scale = 1.0F };
    assert_int_equal(ca_gate_create(&opt, &gate), CA_OK);
    return gate;
}

/* The session options of a method with --threshold text, and with --relative. */
static int read_threshold(const char *name, const char *text, bool relative, const ca_gate *gate, ca_session_opt *out)
{
    static const struct command command = { .name = "run", .bit = CMD_RUN };
    struct options options;
    struct method method;
    char words[][32] = { "run", "-m", "x", "-p", "x", "--threshold", "", "--relative" };
    enum { N_WORDS = sizeof words / sizeof *words };
    char *argv[N_WORDS + 1] = { NULL };
    (void)snprintf(words[6], sizeof words[6], "%s", text);
    for (size_t i = 0; i < N_WORDS; i++) argv[i] = words[i];
    optind = 1; /* getopt's place in argv */
    assert_int_equal(options_parse(&command, relative ? N_WORDS : N_WORDS - 1, argv, &options), EXIT_DONE);
    assert_int_equal(method_from_options(&options, name, &method), EXIT_DONE);
    return method_session_opt(&options, &method, gate, out);
}

static void thresholds(void **state)
{
    (void)state;
    static const struct {
        const char *method, *text;
        bool relative;
        int code;
    } cases[] = {
        { "seer", "0.5", false, EXIT_DONE },
        { "seer", "1.5", false, EXIT_BAD_USAGE },
        { "seer", "1.5", true, EXIT_DONE }, /* times the mean probability of a block */
        { "seer", "-1", true, EXIT_BAD_USAGE },
        { "seer", "inf", true, EXIT_BAD_USAGE },
        { "seer", "4096:0.5,8192:0.25", false, EXIT_DONE },
        { "seer", "4096:0.5,", false, EXIT_BAD_USAGE },
        { "dense", "0.5", false, EXIT_DONE }, /* of those that do not read it, any form is taken */
        { "dense", "1.5", true, EXIT_DONE },
        { "dense", "1.5", false, EXIT_BAD_USAGE },
        { "dense", "4096:0.5,8192:0.25", false, EXIT_DONE },
        { "dense", "4096:", false, EXIT_BAD_USAGE },
        { "flashprefill", "4096:0.5,8192:0.25", false, EXIT_DONE },
        { "xattention", "0.5", false, EXIT_DONE },
        { "xattention", "1.5", true, EXIT_BAD_USAGE },
        { "xattention", "4096:0.5", false, EXIT_BAD_USAGE }, /* a share has no lengths */
        { "oracle", "4096:0.5", false, EXIT_BAD_USAGE },
    };
    ca_gate *gate = make_gate();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ca_session_opt opt;
        const int code = read_threshold(cases[i].method, cases[i].text, cases[i].relative, gate, &opt);
        if (code != cases[i].code) fail_msg("%s --threshold %s: %d", cases[i].method, cases[i].text, code);
        if (code != EXIT_DONE) continue;
        assert_int_equal(ca_select_check(&opt.select), CA_OK);
        if (strcmp(cases[i].method, "seer") == 0 && strchr(cases[i].text, ':')) {
            assert_int_equal(opt.select.seer.n_steps, 2);
            assert_int_equal(opt.select.seer.steps[1].max_kv, 8192);
        } else {
            assert_int_equal(opt.select.seer.n_steps, 0);
        }
    }
    ca_gate_destroy(gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thresholds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
