#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[512];

void ca_set_message(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    for (char *c = message; *c; c++) /* names out of files may hold anything */
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
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
