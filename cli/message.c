#include "message.h"

#include <stdarg.h>
#include <stdio.h>

static const char *command = "";

void message_set_command(const char *name)
{
    command = name;
}

CA_PRINTF(3, 0) static void print_line(const char *who, const char *tail, const char *format, va_list args)
{
    char text[2048];
    vsnprintf(text, sizeof text, format, args);
    for (char *c = text; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    }
    fflush(stdout); /* what is finished comes before the message, also when both go to one terminal */
    fprintf(stderr, "compactattn%s%s: %s%s", *who ? " " : "", who, text, tail);
    if (*tail) fprintf(stderr, "%s%s --help)", *who ? " " : "", who);
    putc('\n', stderr);
}

int fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line("", "", format, args);
    va_end(args);
    return EXIT_FAILED;
}

int usage_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line(command, " (see compactattn", format, args);
    va_end(args);
    return EXIT_BAD_USAGE;
}

int fail_library(ca_status status)
{
    if (status == CA_E_CANCELED) {
        fail("interrupted");
        return EXIT_INTERRUPTED;
    }
    const char *why = ca_last_error();
    return fail("%s", *why ? why : ca_status_name(status));
}

void note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line("", "", format, args);
    va_end(args);
}
