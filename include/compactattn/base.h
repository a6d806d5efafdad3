/* Status codes, the error message, data types and the version: what every other header uses. */
#ifndef COMPACTATTN_BASE_H
#define COMPACTATTN_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define CA_API __attribute__((visibility("default")))
#define CA_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define CA_API
#define CA_PRINTF(fmt, args)
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define CA_VERSION_MAJOR 0
#define CA_VERSION_MINOR 1
#define CA_VERSION_PATCH 0

/* Stable numbers: a value never changes its meaning; new ones are added at the end. */
typedef enum ca_status {
    CA_OK = 0,
    CA_E_ARG = 1,         /* an argument is out of its documented range */
    CA_E_SHAPE = 2,       /* dimensions of two objects disagree */
    CA_E_MEMORY = 3,      /* an allocation failed, or would not fit */
    CA_E_IO = 4,          /* a file cannot be opened, mapped, read or written */
    CA_E_FORMAT = 5,      /* a file's bytes are not what the format says */
    CA_E_UNSUPPORTED = 6, /* valid, but this build or machine has no code for it */
    CA_E_FULL = 7,        /* the page pool or the context is full */
    CA_E_WORKSPACE = 8,   /* the workspace given is too small */
    CA_E_CANCELED = 9     /* the caller asked to stop */
} ca_status;

/* Element types at the API. bf16 is the upper half of a float32, stored as uint16_t. */
typedef enum ca_dtype { CA_F32 = 0, CA_BF16 = 1 } ca_dtype;

/* Name of a status ("format error"). Static string, never NULL. Thread-safe. */
CA_API const char *ca_status_name(ca_status status);

/* Text of the last error of the calling thread: what, where (file, tensor, offset) and what to do. Empty string when none.
 * Valid until the next failing call in this thread. */
CA_API const char *ca_last_error(void);

/* "0.1.0". Static string. */
CA_API const char *ca_version(void);

#ifdef __cplusplus
}
#endif
#endif
