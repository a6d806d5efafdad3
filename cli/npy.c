#include "npy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const unsigned char magic[6] = { 0x93, 'N', 'U', 'M', 'P', 'Y' };

__attribute__((format(printf, 2, 3))) static bool refuse(char why[NPY_WHY], const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, NPY_WHY, format, args);
    va_end(args);
    return false;
}

struct header {
    size_t width; /* bytes of an element */
    bool is_signed;
    uint64_t n;
};

/* The text after "'key':" and blanks in the header's dictionary; NULL when the key is missing. */
static const char *find_value(const char *dictionary, const char *key)
{
    const char *at = strstr(dictionary, key);
    if (!at) return NULL;
    at += strlen(key);
    at += strspn(at, " ");
    if (*at++ != ':') return NULL;
    return at + strspn(at, " ");
}

static bool starts_with(const char *text, const char *prefix)
{
    return text && strncmp(text, prefix, strlen(prefix)) == 0;
}

/* "(N,)" */
static bool parse_shape(const char *text, uint64_t *n)
{
    char *end;
    if (!text || *text != '(' || text[1] < '0' || text[1] > '9') return false;
    errno = 0;
    *n = strtoull(text + 1, &end, 10);
    return errno == 0 && starts_with(end, ",)");
}

static bool parse_header(const char *dictionary, struct header *out, char why[NPY_WHY])
{
    static const struct {
        const char *descr;
        size_t width;
        bool is_signed;
    } types[] = { { "'<u4'", 4, false }, { "'<i4'", 4, true }, { "'<u8'", 8, false }, { "'<i8'", 8, true } };
    const char *descr = find_value(dictionary, "'descr'");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!starts_with(descr, types[i].descr)) continue;
        out->width = types[i].width;
        out->is_signed = types[i].is_signed;
        if (!parse_shape(find_value(dictionary, "'shape'"), &out->n)) return refuse(why, "the array must have one dimension");
        return true;
    }
    return refuse(why, "the array's type must be uint32, int32, uint64 or int64, little-endian");
}

/* A little-endian integer of n bytes. */
static uint64_t load(const unsigned char *at, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++) value |= (uint64_t)at[i] << 8 * i;
    return value;
}

static bool read_values(const unsigned char *at, const struct header *header, uint32_t **ids, size_t *n_ids, char why[NPY_WHY])
{
    uint32_t *out = malloc(header->n ? (size_t)header->n * sizeof *out : 1);
    if (!out) return refuse(why, "%" PRIu64 " token ids do not fit the memory", header->n);
    for (size_t i = 0; i < header->n; i++) {
        const uint64_t value = load(at + i * header->width, header->width);
        if (value > (header->is_signed && header->width == 4 ? INT32_MAX : UINT32_MAX)) {
            free(out);
            return refuse(why, "element %zu is no token id (negative, or above 32 bits)", i);
        }
        out[i] = (uint32_t)value;
    }
    *ids = out;
    *n_ids = (size_t)header->n;
    return true;
}

bool npy_parse_ids(const unsigned char *bytes, size_t size, uint32_t **ids, size_t *n_ids, char why[NPY_WHY])
{
    if (size < 10 || memcmp(bytes, magic, sizeof magic) != 0)
        return refuse(why, "not a .npy file (its first bytes are not \\x93NUMPY)");
    const unsigned version = bytes[6];
    if (version != 1 && version != 2) return refuse(why, ".npy format version %u is not known (1 and 2 are)", version);
    const size_t prefix = version == 1 ? 10 : 12;
    const uint64_t length = size < prefix ? UINT64_MAX : load(bytes + 8, prefix - 8);
    if (length > size - (size < prefix ? size : prefix))
        return refuse(why, "the header is longer than the file of %zu bytes", size);

    char *dictionary = malloc((size_t)length + 1);
    if (!dictionary) return refuse(why, "a header of %" PRIu64 " bytes does not fit the memory", length);
    memcpy(dictionary, bytes + prefix, (size_t)length);
    dictionary[length] = '\0';
    struct header header = { .width = 1 };
    const bool known = parse_header(dictionary, &header, why);
    free(dictionary);
    if (!known) return false;

    const size_t left = size - prefix - (size_t)length;
    if (left % header.width != 0 || left / header.width != header.n)
        return refuse(why, "the header promises %" PRIu64 " elements of %zu bytes, the file holds %zu bytes of them", header.n,
                      header.width, left);
    return read_values(bytes + prefix + length, &header, ids, n_ids, why);
}

bool npy_create(struct npy_writer *writer, const char *path, size_t n_rows, size_t n_columns)
{
    enum { HEADER = 118, PREFIX = 10 }; /* together a multiple of 64, as the format asks */
    char header[HEADER + 1];
    const int n = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }", n_rows,
                           n_columns);
    memset(header + n, ' ', (size_t)(HEADER - 1 - n));
    header[HEADER - 1] = '\n';
    const unsigned char prefix[PREFIX] = { 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, HEADER, 0 };
    *writer = (struct npy_writer){ .n_columns = n_columns, .rows_left = n_rows };
    if (!file_begin(&writer->result, path)) return false;
    FILE *out = writer->result.file;
    if (fwrite(prefix, PREFIX, 1, out) == 1 && fwrite(header, HEADER, 1, out) == 1) return true;
    (void)file_end(&writer->result, false);
    return false;
}

bool npy_write_row(struct npy_writer *writer, const float *row)
{
    if (writer->rows_left == 0) {
        errno = EINVAL;
        return false;
    }
    writer->rows_left--;
    return fwrite(row, sizeof *row, writer->n_columns, writer->result.file) == writer->n_columns;
}

bool npy_finish(struct npy_writer *writer)
{
    const bool whole = writer->rows_left == 0;
    if (!file_end(&writer->result, whole)) return false;
    if (!whole) errno = EINVAL;
    return whole;
}
