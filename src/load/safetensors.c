#include "load/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/arith.h"
#include "base/mapfile.h"
#include "base/newfile.h"
#include "base/reader.h"

enum { HEADER_MAX = 100000000, LENGTH_BYTES = 8 };

static const struct dtype {
    const char *name;
    uint32_t bytes;
    ca_block_type type;
    bool readable;
} dtypes[] = {
    { "F32", 4, CA_BLOCK_F32, true },
    { "F16", 2, CA_BLOCK_F16, true },
    { "BF16", 2, CA_BLOCK_BF16, true },
    { "F64", 8, 0, false },
    { "I64", 8, 0, false },
    { "U64", 8, 0, false },
    { "I32", 4, 0, false },
    { "U32", 4, 0, false },
    { "I16", 2, 0, false },
    { "U16", 2, 0, false },
    { "I8", 1, 0, false },
    { "U8", 1, 0, false },
    { "BOOL", 1, 0, false },
    { "F8_E4M3", 1, 0, false },
    { "F8_E5M2", 1, 0, false },
    { "C64", 8, 0, false },
};

enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

struct ca_safetensors {
    ca_mapfile map; /* nothing for open_memory */
    size_t size;
    char *path;
    json_t *header; /* owns the names, dtypes and metadata that are handed out */
    size_t n_tensors;
    ca_st_tensor *tensors; /* sorted by name */
};

const char *ca_st_dims_text(uint32_t n_dims, const uint64_t *dims, char *buf, size_t cap)
{
    size_t used = (size_t)snprintf(buf, cap, "[");
    for (uint32_t i = 0; i < n_dims && used < cap; i++)
        used += (size_t)snprintf(buf + used, cap - used, "%s%" PRIu64, i > 0 ? ", " : "", dims[i]);
    if (used < cap) (void)snprintf(buf + used, cap - used, "]");
    return buf;
}

/* ---- reading ---- */

static ca_status read_shape(const ca_safetensors *st, const json_t *shape, ca_st_tensor *t)
{
    if (!json_is_array(shape)) return ca_fail(CA_E_FORMAT, "%s: tensor '%.100s' has no \"shape\" array", st->path, t->name);
    if (json_array_size(shape) > CA_ST_MAX_DIMS)
        return ca_fail(CA_E_UNSUPPORTED, "%s: tensor '%.100s' has %zu dimensions; at most %d are supported", st->path, t->name,
                       json_array_size(shape), CA_ST_MAX_DIMS);
    t->n_dims = (uint32_t)json_array_size(shape);
    t->n_elems = 1;
    for (uint32_t i = 0; i < CA_ST_MAX_DIMS; i++) {
        const json_t *dim = i < t->n_dims ? json_array_get(shape, i) : NULL;
        if (i < t->n_dims && (!json_is_integer(dim) || json_integer_value(dim) < 0))
            return ca_fail(CA_E_FORMAT, "%s: tensor '%.100s': dimension %u is no whole number from 0 on", st->path, t->name, i);
        t->dims[i] = dim ? (uint64_t)json_integer_value(dim) : 1;
        if (__builtin_mul_overflow(t->n_elems, t->dims[i], &t->n_elems))
            return ca_fail(CA_E_FORMAT, "%s: tensor '%.100s': its dimensions multiply to more than a size can hold", st->path,
                           t->name);
    }
    return CA_OK;
}

/* Begin and end, in the data section of data_bytes. */
static ca_status read_offsets(const ca_safetensors *st, const json_t *offsets, size_t data_bytes, const uint8_t *data,
                              ca_st_tensor *t)
{
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return ca_fail(CA_E_FORMAT, "%s: tensor '%.100s': \"data_offsets\" must be two whole numbers", st->path, t->name);
    const int64_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from || (uint64_t)to > data_bytes)
        return ca_fail(CA_E_FORMAT, "%s: tensor '%.100s': offsets %" PRId64 " to %" PRId64 " lie outside the %zu bytes of data",
                       st->path, t->name, from, to, data_bytes);
    t->data = data + from;
    t->bytes = (size_t)(to - from);
    return CA_OK;
}

static ca_status read_tensor(const ca_safetensors *st, const char *name, const json_t *entry, const uint8_t *data,
                             size_t data_bytes, ca_st_tensor *t)
{
    t->name = name;
    t->dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!t->dtype) return ca_fail(CA_E_FORMAT, "%s: tensor '%.100s' has no \"dtype\" string", st->path, name);
    CA_TRY(read_shape(st, json_object_get(entry, "shape"), t));
    CA_TRY(read_offsets(st, json_object_get(entry, "data_offsets"), data_bytes, data, t));
    for (size_t i = 0; i < N_DTYPES; i++) {
        if (strcmp(t->dtype, dtypes[i].name) != 0) continue;
        size_t bytes;
        if (__builtin_mul_overflow(t->n_elems, dtypes[i].bytes, &bytes) || bytes != t->bytes)
            return ca_fail(CA_E_FORMAT, "%s: tensor '%.100s' has %zu elements of %s in %zu bytes", st->path, name, t->n_elems,
                           t->dtype, t->bytes);
        if (dtypes[i].readable) t->format = ca_block_format_of((uint32_t)dtypes[i].type);
    }
    return CA_OK;
}

static int by_place(const void *a, const void *b)
{
    const ca_st_tensor *x = a, *y = b;
    const uintptr_t from_x = (uintptr_t)x->data, from_y = (uintptr_t)y->data;
    if (from_x != from_y) return from_x < from_y ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b)
{
    const ca_st_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* The tensors must follow each other from the first byte of the data to the last. */
static ca_status check_coverage(const ca_safetensors *st, const uint8_t *data, size_t data_bytes)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < st->n_tensors; i++) {
        ca_st_tensor *t = &st->tensors[i];
        const uint8_t *from = t->data;
        if (from != at)
            return ca_fail(CA_E_FORMAT, "%s: tensor '%.100s' %s (it starts at byte %zu of the data, the one before ends at %zu)",
                           st->path, t->name, from < at ? "overlaps another one" : "leaves a hole before it", (size_t)(from - data),
                           (size_t)(at - data));
        at = from + t->bytes;
        t->offset = st->size - data_bytes + (size_t)(from - data);
    }
    if ((size_t)(at - data) != data_bytes)
        return ca_fail(CA_E_FORMAT, "%s: the tensors take %zu bytes, the file holds %zu of them", st->path, (size_t)(at - data),
                       data_bytes);
    return CA_OK;
}

static ca_status check_metadata(const ca_safetensors *st, json_t *metadata)
{
    const char *key;
    json_t *value;
    if (metadata && !json_is_object(metadata)) return ca_fail(CA_E_FORMAT, "%s: \"__metadata__\" is no object", st->path);
    json_object_foreach(metadata, key, value) if (!json_is_string(value)) return ca_fail(
        CA_E_FORMAT, "%s: metadata '%.100s' is no string", st->path, key);
    return CA_OK;
}

static ca_status read_header(ca_safetensors *st, const uint8_t *bytes, size_t size)
{
    uint64_t length;
    if (size < LENGTH_BYTES)
        return ca_fail(CA_E_FORMAT, "%s: %zu bytes are no safetensors file: the length of its header takes 8", st->path, size);
    memcpy(&length, bytes, sizeof length);
    if (length > HEADER_MAX || length > size - LENGTH_BYTES)
        return ca_fail(CA_E_FORMAT,
                       "%s: is no safetensors file, or cut short: header of %" PRIu64 " bytes, %zu follow, at most %d are allowed",
                       st->path, length, size - LENGTH_BYTES, HEADER_MAX);
    const char *text = (const char *)bytes + LENGTH_BYTES;
    if (length == 0 || *text != '{')
        return ca_fail(CA_E_FORMAT, "%s: is no safetensors file: its header does not start with '{'", st->path);
    json_error_t error;
    st->header = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!st->header)
        return ca_fail(json_error_code(&error) == json_error_out_of_memory ? CA_E_MEMORY : CA_E_FORMAT,
                       "%s: header: %s (byte %d of it)", st->path, error.text, error.position);

    json_t *metadata = json_object_get(st->header, "__metadata__"), *entry;
    const char *name;
    CA_TRY(check_metadata(st, metadata));
    st->tensors = calloc(json_object_size(st->header) + 1, sizeof *st->tensors);
    if (!st->tensors) return ca_fail(CA_E_MEMORY, "%s: no memory for %zu tensors", st->path, json_object_size(st->header));
    const uint8_t *data = bytes + LENGTH_BYTES + length;
    const size_t data_bytes = size - LENGTH_BYTES - (size_t)length;
    json_object_foreach(st->header, name, entry) if (entry != metadata)
        CA_TRY(read_tensor(st, name, entry, data, data_bytes, &st->tensors[st->n_tensors++]));
    qsort(st->tensors, st->n_tensors, sizeof *st->tensors, by_place);
    CA_TRY(check_coverage(st, data, data_bytes));
    qsort(st->tensors, st->n_tensors, sizeof *st->tensors, by_name);
    return CA_OK;
}

static ca_status open_bytes(ca_mapfile map, const void *data, size_t size, const char *path, ca_safetensors **out)
{
    ca_safetensors *st = calloc(1, sizeof *st);
    char *name = strdup(path);
    if (!st || !name) {
        free(st);
        free(name);
        ca_mapfile_close(&map);
        return ca_fail(CA_E_MEMORY, "%s: no memory to open it", path);
    }
    st->map = map;
    st->size = size;
    st->path = name;
    const ca_status status = read_header(st, data, size);
    if (status != CA_OK) {
        ca_safetensors_close(st);
        return status;
    }
    *out = st;
    return CA_OK;
}

ca_status ca_safetensors_open(const char *path, ca_safetensors **out)
{
    ca_mapfile map;
    *out = NULL;
    CA_TRY(ca_mapfile_open(path, &map));
    return open_bytes(map, map.data, map.size, path, out);
}

ca_status ca_safetensors_open_memory(const void *data, size_t size, const char *name, ca_safetensors **out)
{
    *out = NULL;
    return open_bytes((ca_mapfile){ 0 }, data, size, name, out);
}

void ca_safetensors_close(ca_safetensors *st)
{
    if (!st) return;
    json_decref(st->header);
    ca_mapfile_close(&st->map);
    free(st->tensors);
    free(st->path);
    free(st);
}

const char *ca_safetensors_path(const ca_safetensors *st)
{
    return st->path;
}

size_t ca_safetensors_file_bytes(const ca_safetensors *st)
{
    return st->size;
}

size_t ca_safetensors_n_tensors(const ca_safetensors *st)
{
    return st->n_tensors;
}

const ca_st_tensor *ca_safetensors_tensor_at(const ca_safetensors *st, size_t i)
{
    return &st->tensors[i];
}

const ca_st_tensor *ca_safetensors_find(const ca_safetensors *st, const char *name)
{
    return bsearch(&(ca_st_tensor){ .name = name }, st->tensors, st->n_tensors, sizeof *st->tensors, by_name);
}

ca_status ca_safetensors_tensor(const ca_safetensors *st, const char *name, uint32_t n_dims, const uint64_t *dims,
                                const ca_st_tensor **out)
{
    char expected[128];
    const ca_st_tensor *t = ca_safetensors_find(st, name);
    ca_st_dims_text(n_dims, dims, expected, sizeof expected);
    if (!t) return ca_fail(CA_E_FORMAT, "%s: tensor '%s' is missing (expected %s)", st->path, name, expected);
    if (t->n_dims != n_dims || memcmp(t->dims, dims, n_dims * sizeof *dims) != 0) {
        char found[128];
        return ca_fail(CA_E_FORMAT, "%s: tensor '%s' is %s, expected %s", st->path, name,
                       ca_st_dims_text(t->n_dims, t->dims, found, sizeof found), expected);
    }
    *out = t;
    return CA_OK;
}

const char *ca_safetensors_meta(const ca_safetensors *st, const char *key)
{
    return json_string_value(json_object_get(json_object_get(st->header, "__metadata__"), key));
}

ca_status ca_safetensors_f32(const ca_safetensors *st, const ca_st_tensor *tensor, size_t first, size_t n, float *out)
{
    if (!tensor->format)
        return ca_fail(CA_E_UNSUPPORTED, "%s: tensor '%.100s' is of dtype %.32s; F32, F16 and BF16 can be read", st->path,
                       tensor->name, tensor->dtype);
    if (first > tensor->n_elems || n > tensor->n_elems - first)
        return ca_fail(CA_E_ARG, "%s: tensor '%.100s': elements %zu to %zu of %zu", st->path, tensor->name, first, first + n,
                       tensor->n_elems);
    ca_block_floats(tensor->format, (const uint8_t *)tensor->data + first * tensor->format->n_bytes, n, out);
    return CA_OK;
}

/* ---- writing ---- */

static const uint32_t widths[] = { 4, 2 }; /* the order of the tensors in the data */

enum { N_WIDTHS = sizeof widths / sizeof *widths };

static ca_status item_bytes(const ca_st_item *item, size_t *out)
{
    *out = ca_block_format_of((uint32_t)item->type)->n_bytes;
    for (uint32_t i = 0; i < item->n_dims; i++) CA_TRY(ca_mul_size(*out, item->dims[i], out));
    return CA_OK;
}

/* The JSON text of the header, padded so that the data starts at a multiple of 8; the caller frees it. NULL: no memory, or a name
 * that JSON cannot hold. *largest: bytes of the largest tensor. */
static char *header_text(const ca_st_content *content, size_t *largest)
{
    json_t *header = json_object(), *metadata = json_object();
    size_t at = 0;
    int failed = 0;
    *largest = 0;
    for (size_t i = 0; i < content->n_meta; i++)
        failed |= json_object_set_new(metadata, content->meta[i][0], json_string(content->meta[i][1]));
    if (content->n_meta > 0) failed |= json_object_set(header, "__metadata__", metadata);
    for (size_t pass = 0; pass < N_WIDTHS; pass++) {
        for (size_t i = 0; i < content->n_items; i++) {
            const ca_st_item *item = &content->items[i];
            const ca_block_format *format = ca_block_format_of((uint32_t)item->type);
            size_t bytes = 0, end = 0;
            if (format->n_bytes != widths[pass]) continue;
            json_t *shape = json_array();
            for (uint32_t d = 0; d < item->n_dims; d++)
                failed |= json_array_append_new(shape, json_integer((json_int_t)item->dims[d]));
            failed |= item_bytes(item, &bytes) != CA_OK || ca_add_size(at, bytes, &end) != CA_OK;
            json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", format->name, "shape", shape, "data_offsets", (json_int_t)at,
                                      (json_int_t)end);
            failed |= json_object_set_new(header, item->name, entry);
            *largest = bytes > *largest ? bytes : *largest;
            at = end;
        }
    }
    char *text = failed ? NULL : json_dumps(header, JSON_COMPACT);
    json_decref(header);
    json_decref(metadata);
    if (!text) return NULL;
    const size_t length = strlen(text), padded = ca_align_up(length, 8);
    char *grown = realloc(text, padded + 1);
    if (!grown) {
        free(text);
        return NULL;
    }
    memset(grown + length, ' ', padded - length);
    grown[padded] = '\0';
    return grown;
}

static ca_status write_bytes(FILE *file, const char *path, const void *data, size_t n)
{
    return n == 0 || fwrite(data, n, 1, file) == 1 ? CA_OK : ca_fail(CA_E_IO, "%s: cannot be written: %s", path, strerror(errno));
}

static ca_status write_content(FILE *file, const char *path, const ca_st_content *content)
{
    size_t largest, bytes;
    ca_status st = CA_OK;
    char *header = header_text(content, &largest);
    void *buffer = header ? malloc(largest + 1) : NULL;
    if (!buffer) {
        free(header);
        return ca_fail(CA_E_MEMORY, "%s: no memory for its header and a tensor of %zu bytes", path, largest);
    }
    const uint64_t length = strlen(header);
    CA_TRY_GOTO(write_bytes(file, path, &length, sizeof length), done);
    CA_TRY_GOTO(write_bytes(file, path, header, (size_t)length), done);
    for (size_t pass = 0; pass < N_WIDTHS; pass++) {
        for (size_t i = 0; i < content->n_items; i++) {
            if (ca_block_format_of((uint32_t)content->items[i].type)->n_bytes != widths[pass]) continue;
            CA_TRY_GOTO(item_bytes(&content->items[i], &bytes), done);
            CA_TRY_GOTO(content->fill(content->user, i, buffer), done);
            CA_TRY_GOTO(write_bytes(file, path, buffer, bytes), done);
        }
    }
    if (fflush(file) != 0 || fsync(fileno(file)) != 0) st = ca_fail(CA_E_IO, "%s: cannot be written: %s", path, strerror(errno));
done:
    free(header);
    free(buffer);
    return st;
}

ca_status ca_safetensors_write(const char *path, const ca_st_content *content)
{
    char *temporary;
    FILE *file;
    CA_TRY(ca_newfile_open(path, &temporary, &file));
    return ca_newfile_close(path, temporary, file, write_content(file, path, content));
}
