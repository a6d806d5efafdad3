/* Bounded reader over a range of little-endian bytes: nothing past the end is ever touched, and every failure names the file and the
 * offset. A failed read leaves the position where it was. */
#ifndef CA_BASE_READER_H
#define CA_BASE_READER_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are read as stored, little-endian");

typedef struct ca_reader {
    const uint8_t *data; /* borrowed */
    size_t size, pos;
    const char *name; /* of the file, for messages; borrowed */
    const char *what; /* kind of the item being read ("key"), for messages; NULL = none. Static */
    const char *item; /* its name, item_len bytes; borrowed */
    size_t item_len;
} ca_reader;

static inline size_t rd_left(const ca_reader *r)
{
    return r->size - r->pos;
}

/* Names the item that the following reads belong to. */
static inline void rd_enter(ca_reader *r, const char *what, const char *item, size_t len)
{
    r->what = what;
    r->item = item;
    r->item_len = len;
}

/* Message "file: key 'x': text (offset N)". */
CA_PRINTF(2, 3) static inline void rd_message(const ca_reader *r, const char *fmt, ...)
{
    char text[256];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (r->what)
        ca_set_message("%s: %s '%.*s': %s (offset %zu)", r->name, r->what, r->item_len < 64 ? (int)r->item_len : 64, r->item, text,
                       r->pos);
    else
        ca_set_message("%s: %s (offset %zu)", r->name, text, r->pos);
}

/* Macros, so that the compiler sees that a failure is never CA_OK. */
#define rd_fail_as(r, status, ...) (rd_message((r), __VA_ARGS__), (status))
#define rd_fail(r, ...) rd_fail_as(r, CA_E_FORMAT, __VA_ARGS__)

/* The next n bytes, in place. */
static inline ca_status rd_bytes(ca_reader *r, uint64_t n, const uint8_t **out)
{
    if (n > rd_left(r)) return rd_fail(r, "the file ends here: %" PRIu64 " bytes needed, %zu left", n, rd_left(r));
    *out = r->data + r->pos;
    r->pos += (size_t)n;
    return CA_OK;
}

static inline ca_status rd_copy(ca_reader *r, void *out, size_t n)
{
    const uint8_t *p;
    CA_TRY(rd_bytes(r, n, &p));
    memcpy(out, p, n);
    return CA_OK;
}

static inline ca_status rd_u8(ca_reader *r, uint8_t *out)
{
    return rd_copy(r, out, sizeof *out);
}

static inline ca_status rd_u16(ca_reader *r, uint16_t *out)
{
    return rd_copy(r, out, sizeof *out);
}

static inline ca_status rd_u32(ca_reader *r, uint32_t *out)
{
    return rd_copy(r, out, sizeof *out);
}

static inline ca_status rd_u64(ca_reader *r, uint64_t *out)
{
    return rd_copy(r, out, sizeof *out);
}

static inline ca_status rd_i32(ca_reader *r, int32_t *out)
{
    return rd_copy(r, out, sizeof *out);
}

static inline ca_status rd_f32(ca_reader *r, float *out)
{
    return rd_copy(r, out, sizeof *out);
}

static inline ca_status rd_f64(ca_reader *r, double *out)
{
    return rd_copy(r, out, sizeof *out);
}

/* A u64 length and that many bytes, in place and not terminated; at most max of them. */
static inline ca_status rd_str(ca_reader *r, uint64_t max, const char **data, size_t *len)
{
    uint64_t n;
    const uint8_t *p;
    if (rd_left(r) < sizeof n) return rd_fail(r, "the file ends here: a string was expected");
    memcpy(&n, r->data + r->pos, sizeof n);
    if (n > max || n > rd_left(r) - sizeof n)
        return rd_fail(r, "string of %" PRIu64 " bytes: at most %" PRIu64 " are allowed and %zu are left", n, max,
                       rd_left(r) - sizeof n);
    CA_TRY(rd_bytes(r, sizeof n + n, &p));
    *data = (const char *)p + sizeof n;
    *len = (size_t)n;
    return CA_OK;
}

#endif
