#include "base/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* What is kept of a message that is too long: a path comes first, what is wrong and what to do come last. */
enum { MESSAGE = 512, HEAD = 160, TAIL = 340, UNCUT = 8192 }; /* bytes; the longest path has 4096 */
static const char gap[] = "...";
_Static_assert(HEAD + sizeof gap - 1 + TAIL < MESSAGE, "a cut message fits");

static _Thread_local char message[MESSAGE];

static bool inside_character(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

void ca_set_message(const char *fmt, ...)
{
    char text[UNCUT];
    va_list args;
    va_start(args, fmt);
    const int wanted = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (wanted < 0) text[0] = '\0';
    for (char *c = text; *c; c++) /* names out of files may hold anything */
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';

    const size_t n = strlen(text);
    if (n < sizeof message) {
        memcpy(message, text, n + 1);
        return;
    }
    size_t head = HEAD, tail = n - TAIL;
    while (head > 0 && inside_character(text[head])) head--;
    while (tail < n && inside_character(text[tail])) tail++;
    memcpy(message, text, head);
    memcpy(message + head, gap, sizeof gap - 1);
    memcpy(message + head + sizeof gap - 1, text + tail, n - tail + 1);
}

const char *ca_last_error(void)
{
    return message;
}

const char *ca_status_name(ca_status status)
{
    switch (status) {
    case CA_OK: return "ok";
    case CA_E_ARG: return "invalid argument";
    case CA_E_SHAPE: return "shape mismatch";
    case CA_E_MEMORY: return "out of memory";
    case CA_E_IO: return "input/output error";
    case CA_E_FORMAT: return "format error";
    case CA_E_UNSUPPORTED: return "unsupported";
    case CA_E_FULL: return "full";
    case CA_E_WORKSPACE: return "workspace too small";
    case CA_E_CANCELED: return "canceled";
    }
    return "unknown status";
}

#define STR2(x) #x
#define STR(x) STR2(x)

const char *ca_version(void)
{
    return STR(CA_VERSION_MAJOR) "." STR(CA_VERSION_MINOR) "." STR(CA_VERSION_PATCH);
}
