/* How the tool reports failure: one line on standard error, and the exit code. */
#ifndef CLI_MESSAGE_H
#define CLI_MESSAGE_H

#include <compactattn/compactattn.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_BAD_USAGE = 2, EXIT_INTERRUPTED = 130 };

/* Name of the subcommand being run, for usage_error; static text. */
void message_set_command(const char *name);

/* "compactattn: <message>"; control characters are shown as "?", so it stays one line. Returns EXIT_FAILED. */
int fail(const char *format, ...) CA_PRINTF(1, 2);

/* "compactattn run: <message> (see compactattn run --help)". Returns EXIT_BAD_USAGE. */
int usage_error(const char *format, ...) CA_PRINTF(1, 2);

/* The library's message for a status that is not CA_OK. Returns EXIT_FAILED, or EXIT_INTERRUPTED for CA_E_CANCELED. */
int fail_library(ca_status status);

/* A remark on standard error that is not a failure. */
void note(const char *format, ...) CA_PRINTF(1, 2);

#endif
