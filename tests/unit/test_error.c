/* Messages: one line, and of long ones the start and the end. */
#include "base/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/utf8.h"

static void keeps_short_messages(void **state)
{
    (void)state;
    assert_int_equal(ca_fail(CA_E_IO, "%s: tensor '%s' is cut", "a.gguf", "x\ny\x7f"), CA_E_IO);
    assert_string_equal(ca_last_error(), "a.gguf: tensor 'x?y?' is cut");
    static char name[512];
    memset(name, 'a', 511);
    ca_set_message("%s", name);
    assert_string_equal(ca_last_error(), name);
}

/* A path of any length that a system allows leaves what is wrong with the file, and the message is whole characters. */
static void cuts_long_paths_in_the_middle(void **state)
{
    (void)state;
    static const char wrong[] = ": No such file or directory; give another path";
    static char path[4096];
    for (size_t n = 400; n + 4 < sizeof path; n += n < 600 ? 1 : 97) {
        const size_t pad = 1 + (n - 1) % 3;
        for (size_t i = 0; i < n; i++) path[i] = i < pad ? '/' : "\xe4\xb8\xad"[(i - pad) % 3];
        path[n] = '\0';
        ca_set_message("%s%s", path, wrong);
        const char *message = ca_last_error();
        const size_t len = strlen(message);
        assert_true(len < 512);
        assert_true(ca_utf8_valid(message, len));
        assert_memory_equal(message, path, 150);
        assert_string_equal(message + len - strlen(wrong), wrong);
        assert_int_equal(strstr(message, "...") == NULL, n + strlen(wrong) < 512);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(keeps_short_messages), cmocka_unit_test(cuts_long_paths_in_the_middle) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
