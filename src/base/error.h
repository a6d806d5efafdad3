/* Error text: the first failure of a call chain writes the message, everything above only passes the status on. */
#ifndef CA_BASE_ERROR_H
#define CA_BASE_ERROR_H

#include <compactattn/base.h>

/* Sets the calling thread's message. One line, no newline; a long one is cut in the middle. */
void ca_set_message(const char *fmt, ...) CA_PRINTF(1, 2);

/* ca_fail(status, fmt, ...) sets the message and is the status: a macro, so that compilers and analyzers see that it is not CA_OK. */
#define ca_fail(status, ...) (ca_set_message(__VA_ARGS__), (status))

#define CA_TRY(expr)                                                                                                               \
    do {                                                                                                                           \
        const ca_status ca_try_status_ = (expr);                                                                                   \
        if (ca_try_status_ != CA_OK) return ca_try_status_;                                                                        \
    } while (0)

/* For functions that own things: stores the status in `st` and jumps to the label. */
#define CA_TRY_GOTO(expr, label)                                                                                                   \
    do {                                                                                                                           \
        st = (expr);                                                                                                               \
        if (st != CA_OK) goto label;                                                                                               \
    } while (0)

#endif
