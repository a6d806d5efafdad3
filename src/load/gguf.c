#include "load/gguf.h"

#include <math.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "base/arith.h"
#include "base/mapfile.h"
#include "base/reader.h"

enum {
    KIND_U32 = 4,
    KIND_I32 = 5,
    KIND_F32 = 6,
    KIND_BOOL = 7,
    KIND_STRING = 8,
    KIND_ARRAY = 9,
    STRING_MAX = 16 << 20,   /* bytes */
    KEY_MIN_BYTES = 13,      /* empty key, type, one byte */
    TENSOR_MIN_BYTES = 32,   /* empty name, one dim, type, offset */
    STRING_MIN_BYTES = 8,    /* empty string */
    ALIGNMENT_DEFAULT = 32,  /* when general.alignment is missing */
    ALIGNMENT_MAX = 1 << 16, /* bytes */
    MAX_DIMS = 4,
    TEXT_ELEMS = 8 /* elements of an array that are shown as text */
};

/* Value kinds by GGUF's numbers. of: u unsigned, i signed, f float, b bool, s string, a array. */
static const struct kind {
    const char *name, *array;
    uint8_t bytes; /* 0 = varies */
    char of;
} kinds[] = {
    { "u8", "u8[]", 1, 'u' },         { "i8", "i8[]", 1, 'i' },       { "u16", "u16[]", 2, 'u' }, { "i16", "i16[]", 2, 'i' },
    { "u32", "u32[]", 4, 'u' },       { "i32", "i32[]", 4, 'i' },     { "f32", "f32[]", 4, 'f' }, { "bool", "bool[]", 1, 'b' },
    { "string", "string[]", 0, 's' }, { "array", "array[]", 0, 'a' }, { "u64", "u64[]", 8, 'u' }, { "i64", "i64[]", 8, 'i' },
    { "f64", "f64[]", 8, 'f' },
};

enum { N_KINDS = sizeof kinds / sizeof *kinds };

typedef struct entry {
    ca_str key;    /* first: the index points at names */
    uint32_t kind; /* of the value, or of an array's elements */
    bool is_array;
    uint64_t n;         /* elements; 1 for a scalar */
    const uint8_t *raw; /* the first element, in the file */
    const void *table;  /* aligned copy of an array of i32, u32, f32; ca_str of an array of strings; else NULL */
} entry;

struct ca_gguf {
    ca_mapfile map; /* nothing for open_memory */
    const uint8_t *data;
    size_t size;
    char *name;
    size_t n_entries, n_tensors;
    entry *entries;
    ca_tensor *tensors;
    const ca_str **entry_index, **tensor_index; /* names of the above, sorted by by_name */
    ca_str *strings;                            /* of all string arrays */
    uint32_t *words;                            /* of all i32, u32 and f32 arrays */
};

_Static_assert(offsetof(entry, key) == 0 && offsetof(ca_tensor, name) == 0, "an index entry is a pointer to its owner");
_Static_assert(sizeof(size_t) == sizeof(uint64_t), "sizes of files fit a size_t");

/* ---- index ---- */

static int by_name(const void *a, const void *b)
{
    const ca_str *const x = *(const ca_str *const *)a, *const y = *(const ca_str *const *)b;
    if (x->len != y->len) return x->len < y->len ? -1 : 1;
    return memcmp(x->data, y->data, x->len);
}

static ca_status sort_index(const ca_reader *r, const char *what, const ca_str **index, size_t n)
{
    qsort(index, n, sizeof *index, by_name);
    for (size_t i = 1; i < n; i++)
        if (by_name(&index[i - 1], &index[i]) == 0)
            return ca_fail(CA_E_FORMAT, "%s: %s '%.*s' appears twice", r->name, what, index[i]->len < 64 ? (int)index[i]->len : 64,
                           index[i]->data);
    return CA_OK;
}

static const void *find(const ca_str *const *index, size_t n, const char *name)
{
    const ca_str str = { name, strlen(name) }, *const key = &str;
    const ca_str *const *hit = bsearch(&key, index, n, sizeof *index, by_name);
    return hit ? *hit : NULL;
}

/* ---- reading: each list is walked once to prove it and to count, then once to fill tables of exactly that size ---- */

static ca_status read_header(ca_reader *r, size_t *n_entries, size_t *n_tensors)
{
    const uint8_t *magic;
    uint32_t version;
    uint64_t tensors, entries;
    CA_TRY(rd_bytes(r, 4, &magic));
    if (memcmp(magic, "GGUF", 4) != 0) {
        char shown[5] = "";
        for (size_t i = 0; i < 4; i++) shown[i] = (char)(magic[i] < 0x20 || magic[i] > 0x7e ? '?' : magic[i]);
        return ca_fail(CA_E_FORMAT, "%s: not a GGUF file: it starts with '%s', expected 'GGUF'", r->name, shown);
    }
    CA_TRY(rd_u32(r, &version));
    if (version == 1)
        return rd_fail_as(r, CA_E_UNSUPPORTED, "GGUF version 1 is not supported: convert the model again to version 3");
    if (version == 2U << 24 || version == 3U << 24)
        return rd_fail_as(r, CA_E_UNSUPPORTED, "big-endian GGUF is not supported: convert the model again as little-endian");
    if (version != 2 && version != 3)
        return rd_fail_as(r, CA_E_UNSUPPORTED, "GGUF version %" PRIu32 " is not known: 2 and 3 are", version);
    CA_TRY(rd_u64(r, &tensors));
    CA_TRY(rd_u64(r, &entries));
    if (tensors > rd_left(r) / TENSOR_MIN_BYTES) return rd_fail(r, "tensor count %" PRIu64 " cannot fit in the file", tensors);
    if (entries > rd_left(r) / KEY_MIN_BYTES) return rd_fail(r, "key count %" PRIu64 " cannot fit in the file", entries);
    *n_tensors = (size_t)tensors;
    *n_entries = (size_t)entries;
    return CA_OK;
}

/* One key and its value. strings: room for the elements of a string array, or NULL to check only. */
static ca_status read_entry(ca_reader *r, ca_str *strings, entry *e)
{
    uint32_t type;
    *e = (entry){ .n = 1 };
    rd_enter(r, NULL, NULL, 0);
    CA_TRY(rd_str(r, STRING_MAX, &e->key.data, &e->key.len));
    rd_enter(r, "key", e->key.data, e->key.len);
    CA_TRY(rd_u32(r, &type));
    e->kind = type;
    e->is_array = type == KIND_ARRAY;
    if (e->is_array) {
        CA_TRY(rd_u32(r, &e->kind));
        CA_TRY(rd_u64(r, &e->n));
        if (e->kind == KIND_ARRAY) return rd_fail_as(r, CA_E_UNSUPPORTED, "arrays of arrays are not supported");
    }
    if (e->kind >= N_KINDS) return rd_fail(r, "unknown value type %" PRIu32, e->kind);
    const uint64_t bytes = kinds[e->kind].bytes;
    if (e->n > rd_left(r) / (bytes ? bytes : STRING_MIN_BYTES))
        return rd_fail(r, "%s%" PRIu64 " elements of %s cannot fit in the file", e->is_array ? "array: " : "", e->n,
                       kinds[e->kind].name);
    if (bytes) {
        CA_TRY(rd_bytes(r, e->n * bytes, &e->raw));
        if (e->kind == KIND_BOOL && !e->is_array && *e->raw > 1) return rd_fail(r, "bool of value %d, expected 0 or 1", *e->raw);
        return CA_OK;
    }
    e->raw = r->data + r->pos;
    for (uint64_t i = 0; i < e->n; i++) {
        ca_str s;
        CA_TRY(rd_str(r, STRING_MAX, &s.data, &s.len));
        if (strings) strings[i] = s;
    }
    return CA_OK;
}

static bool is_string_array(const entry *e)
{
    return e->is_array && e->kind == KIND_STRING;
}

static bool is_word_array(const entry *e)
{
    return e->is_array && (e->kind == KIND_I32 || e->kind == KIND_U32 || e->kind == KIND_F32);
}

static ca_status read_meta(ca_reader *r, ca_gguf *g)
{
    const size_t start = r->pos;
    size_t n_strings = 0, n_words = 0;
    for (size_t i = 0; i < g->n_entries; i++) {
        entry e;
        CA_TRY(read_entry(r, NULL, &e));
        if (is_string_array(&e)) n_strings += e.n;
        if (is_word_array(&e)) n_words += e.n;
    }
    g->entries = calloc(g->n_entries + 1, sizeof *g->entries);
    g->entry_index = calloc(g->n_entries + 1, sizeof *g->entry_index);
    g->strings = calloc(n_strings + 1, sizeof *g->strings);
    g->words = calloc(n_words + 1, sizeof *g->words);
    if (!g->entries || !g->entry_index || !g->strings || !g->words)
        return ca_fail(CA_E_MEMORY, "%s: no memory for %zu keys and %zu strings", r->name, g->n_entries, n_strings);
    ca_str *strings = g->strings;
    uint32_t *words = g->words;
    r->pos = start;
    for (size_t i = 0; i < g->n_entries; i++) {
        entry *e = &g->entries[i];
        CA_TRY(read_entry(r, strings, e));
        if (is_string_array(e)) {
            e->table = strings;
            strings += e->n;
        } else if (is_word_array(e)) {
            e->table = memcpy(words, e->raw, e->n * sizeof *words);
            words += e->n;
        }
        g->entry_index[i] = &e->key;
    }
    return sort_index(r, "key", g->entry_index, g->n_entries);
}

/* One tensor record; t->offset is still relative to the data section. */
static ca_status read_tensor(ca_reader *r, uint32_t alignment, ca_tensor *t)
{
    uint32_t type;
    uint64_t elems = 1;
    *t = (ca_tensor){ .dims = { 1, 1, 1, 1 } };
    rd_enter(r, NULL, NULL, 0);
    CA_TRY(rd_str(r, STRING_MAX, &t->name.data, &t->name.len));
    rd_enter(r, "tensor", t->name.data, t->name.len);
    CA_TRY(rd_u32(r, &t->n_dims));
    if (t->n_dims < 1 || t->n_dims > MAX_DIMS) return rd_fail(r, "%" PRIu32 " dimensions, expected 1 to 4", t->n_dims);
    for (uint32_t i = 0; i < t->n_dims; i++) {
        CA_TRY(rd_u64(r, &t->dims[i]));
        if (t->dims[i] == 0) return rd_fail(r, "dimension %" PRIu32 " is 0", i);
        if (__builtin_mul_overflow(elems, t->dims[i], &elems)) return rd_fail(r, "its number of elements overflows");
    }
    CA_TRY(rd_u32(r, &type));
    CA_TRY(rd_u64(r, &t->offset));
    const ca_block_format *format = ca_block_format_of(type);
    if (!format) {
        char buf[32];
        return rd_fail_as(r, CA_E_UNSUPPORTED, "type %s has no reader in this build: quantize the model to another type",
                          ca_block_type_name(type, buf, sizeof buf));
    }
    if (t->dims[0] % format->n_elems != 0)
        return rd_fail(r, "rows of %" PRIu64 " elements are not whole %s blocks of %" PRIu32, t->dims[0], format->name,
                       format->n_elems);
    if (__builtin_mul_overflow(elems / format->n_elems, format->n_bytes, &t->bytes))
        return rd_fail(r, "its number of bytes overflows");
    if (t->offset % alignment != 0)
        return rd_fail(r, "data offset %" PRIu64 " is not a multiple of the alignment %" PRIu32, t->offset, alignment);
    t->type = format->type;
    return CA_OK;
}

/* Makes t->offset absolute and sets t->data. *end: where the tensor before it ends, relative to the data section. */
static ca_status place_tensor(const ca_reader *r, size_t data_start, uint64_t *end, ca_tensor *t)
{
    const size_t room = data_start < r->size ? r->size - data_start : 0;
    if (t->offset > room || t->bytes > room - t->offset)
        return rd_fail(r,
                       "its %zu bytes at data offset %" PRIu64
                       " are not inside the file's %zu bytes of data: the file is cut short "
                       "or corrupt, get it again",
                       t->bytes, t->offset, room);
    if (t->offset < *end) return rd_fail(r, "data offset %" PRIu64 " is inside the tensor before it", t->offset);
    *end = t->offset + t->bytes;
    t->offset += data_start;
    t->data = r->data + t->offset;
    return CA_OK;
}

static ca_status read_tensors(ca_reader *r, uint32_t alignment, ca_gguf *g)
{
    const size_t start = r->pos;
    for (size_t i = 0; i < g->n_tensors; i++) {
        ca_tensor t;
        CA_TRY(read_tensor(r, alignment, &t));
    }
    const size_t data_start = ca_align_up(r->pos, alignment);
    g->tensors = calloc(g->n_tensors + 1, sizeof *g->tensors);
    g->tensor_index = calloc(g->n_tensors + 1, sizeof *g->tensor_index);
    if (!g->tensors || !g->tensor_index) return ca_fail(CA_E_MEMORY, "%s: no memory for %zu tensors", r->name, g->n_tensors);
    uint64_t end = 0;
    r->pos = start;
    for (size_t i = 0; i < g->n_tensors; i++) {
        ca_tensor *t = &g->tensors[i];
        CA_TRY(read_tensor(r, alignment, t));
        CA_TRY(place_tensor(r, data_start, &end, t));
        g->tensor_index[i] = &t->name;
    }
    return sort_index(r, "tensor", g->tensor_index, g->n_tensors);
}

static ca_status read_all(ca_gguf *g)
{
    ca_reader r = { .data = g->data, .size = g->size, .name = g->name };
    uint32_t alignment;
    CA_TRY(read_header(&r, &g->n_entries, &g->n_tensors));
    CA_TRY(read_meta(&r, g));
    CA_TRY(ca_gguf_u32_or(g, "general.alignment", ALIGNMENT_DEFAULT, &alignment));
    if (alignment < 8 || alignment > ALIGNMENT_MAX || (alignment & (alignment - 1)) != 0)
        return ca_fail(CA_E_FORMAT, "%s: key 'general.alignment' is %" PRIu32 ", expected a power of two from 8 to %d", g->name,
                       alignment, ALIGNMENT_MAX);
    return read_tensors(&r, alignment, g);
}

/* Takes over map, also on failure. */
static ca_status open_bytes(const void *data, size_t size, const char *name, ca_mapfile map, ca_gguf **out)
{
    ca_status st;
    const size_t len = strlen(name) + 1;
    ca_gguf *g = calloc(1, sizeof *g);
    char *copy = malloc(len);
    if (!g || !copy) {
        ca_mapfile_close(&map);
        free(copy);
        free(g);
        return ca_fail(CA_E_MEMORY, "%s: no memory to open it", name);
    }
    g->map = map;
    g->data = data;
    g->size = size;
    g->name = memcpy(copy, name, len);
    CA_TRY_GOTO(read_all(g), fail);
    *out = g;
    return CA_OK;
fail:
    ca_gguf_close(g);
    return st;
}

ca_status ca_gguf_open(const char *path, ca_gguf **out)
{
    ca_mapfile map;
    *out = NULL;
    CA_TRY(ca_mapfile_open(path, &map));
    return open_bytes(map.data, map.size, path, map, out);
}

ca_status ca_gguf_open_memory(const void *data, size_t size, const char *name, ca_gguf **out)
{
    *out = NULL;
    return open_bytes(data, size, name, (ca_mapfile){ 0 }, out);
}

void ca_gguf_close(ca_gguf *gguf)
{
    if (!gguf) return;
    free(gguf->entries);
    free(gguf->tensors);
    free(gguf->entry_index);
    free(gguf->tensor_index);
    free(gguf->strings);
    free(gguf->words);
    free(gguf->name);
    ca_mapfile_close(&gguf->map);
    free(gguf);
}

const char *ca_gguf_path(const ca_gguf *gguf)
{
    return gguf->name;
}

size_t ca_gguf_file_bytes(const ca_gguf *gguf)
{
    return gguf->size;
}

/* ---- text ---- */

typedef struct text {
    char *buf;
    size_t cap, len;
    bool cut;
} text;

static text text_begin(char *buf, size_t cap)
{
    if (cap) buf[0] = '\0';
    return (text){ .buf = buf, .cap = cap, .cut = cap == 0 };
}

/* Appends a piece as a whole, or "..." once and nothing after it. */
static void put(text *t, const char *piece, size_t len)
{
    static const char dots[] = "...";
    if (t->cut) return;
    if (len + sizeof dots > t->cap - t->len) {
        t->cut = true;
        piece = dots;
        len = sizeof dots - 1 < t->cap - t->len ? sizeof dots - 1 : t->cap - t->len - 1;
    }
    memcpy(t->buf + t->len, piece, len);
    t->len += len;
    t->buf[t->len] = '\0';
}

CA_PRINTF(2, 3) static void putf(text *t, const char *fmt, ...)
{
    char piece[64];
    va_list args;
    va_start(args, fmt);
    const int len = vsnprintf(piece, sizeof piece, fmt, args);
    va_end(args);
    if (len > 0) put(t, piece, (size_t)len < sizeof piece ? (size_t)len : sizeof piece - 1);
}

static void put_str(text *t, ca_str str)
{
    for (size_t i = 0; i < str.len && !t->cut;) {
        utf8proc_int32_t c;
        const size_t left = str.len - i;
        const utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)str.data + i, left < 4 ? (utf8proc_ssize_t)left : 4,
                                                    &c);
        if (n > 0 && c >= 0x20 && (c < 0x7f || c > 0x9f)) {
            put(t, str.data + i, (size_t)n);
            i += (size_t)n;
        } else if (str.data[i] == '\n') {
            put(t, "\\n", 2);
            i++;
        } else {
            putf(t, "\\x%02x", (unsigned char)str.data[i]);
            i++;
        }
    }
}

void ca_str_text(ca_str str, char *buf, size_t cap)
{
    text t = text_begin(buf, cap);
    put_str(&t, str);
}

/* Sign and magnitude of an integer of any width. False for other kinds. */
static bool integer_of(uint32_t kind, const uint8_t *raw, bool *negative, uint64_t *magnitude)
{
    const struct kind *k = &kinds[kind];
    if (k->of != 'u' && k->of != 'i') return false;
    uint64_t v = 0;
    memcpy(&v, raw, k->bytes);
    const unsigned unused = 64 - 8U * k->bytes;
    *negative = k->of == 'i' && (v << unused) >> 63;
    *magnitude = *negative ? (0 - (v << unused)) >> unused : v;
    return true;
}

static void put_number(text *t, uint32_t kind, const uint8_t *raw)
{
    bool negative;
    uint64_t magnitude;
    if (integer_of(kind, raw, &negative, &magnitude)) {
        putf(t, "%s%" PRIu64, negative ? "-" : "", magnitude);
    } else if (kind == KIND_BOOL) {
        putf(t, "%s", *raw ? "true" : "false");
    } else if (kind == KIND_F32) {
        float f;
        memcpy(&f, raw, sizeof f);
        putf(t, "%.9g", (double)f);
    } else {
        double f;
        memcpy(&f, raw, sizeof f);
        putf(t, "%.17g", f);
    }
}

static ca_str string_at(const uint8_t *raw)
{
    uint64_t len;
    memcpy(&len, raw, sizeof len);
    return (ca_str){ (const char *)raw + sizeof len, (size_t)len };
}

static void put_value(text *t, const entry *e)
{
    if (!e->is_array) {
        if (e->kind == KIND_STRING)
            put_str(t, string_at(e->raw));
        else
            put_number(t, e->kind, e->raw);
        return;
    }
    putf(t, "%" PRIu64 ": [", e->n);
    for (uint64_t i = 0; i < e->n && i < TEXT_ELEMS; i++) {
        if (i) put(t, ", ", 2);
        if (e->kind == KIND_STRING) {
            put(t, "\"", 1);
            put_str(t, ((const ca_str *)e->table)[i]);
            put(t, "\"", 1);
        } else {
            put_number(t, e->kind, e->raw + i * kinds[e->kind].bytes);
        }
    }
    putf(t, "%s]", e->n > TEXT_ELEMS ? ", ..." : "");
}

static const char *type_of(const entry *e)
{
    return e->is_array ? kinds[e->kind].array : kinds[e->kind].name;
}

size_t ca_gguf_n_meta(const ca_gguf *gguf)
{
    return gguf->n_entries;
}

void ca_gguf_meta_text(const ca_gguf *gguf, size_t i, ca_str *key, const char **type, char *buf, size_t cap)
{
    const entry *e = &gguf->entries[i];
    text t = text_begin(buf, cap);
    *key = e->key;
    *type = type_of(e);
    put_value(&t, e);
}

/* ---- values ---- */

static const entry *find_entry(const ca_gguf *g, const char *key)
{
    return find(g->entry_index, g->n_entries, key);
}

/* The entry of a key if it has the kind asked for. */
static ca_status require(const ca_gguf *g, const char *key, bool fits, const char *expected)
{
    const entry *e = find_entry(g, key);
    if (!e) return ca_fail(CA_E_FORMAT, "%s: key '%s' is missing, expected %s", g->name, key, expected);
    if (fits) return CA_OK;
    char value[64];
    text t = text_begin(value, sizeof value);
    put_value(&t, e);
    return ca_fail(CA_E_FORMAT, "%s: key '%s' is %s %s, expected %s", g->name, key, type_of(e), value, expected);
}

static bool is_scalar(const entry *e, uint32_t kind)
{
    return e && !e->is_array && e->kind == kind;
}

static bool is_array(const entry *e, uint32_t kind)
{
    return e && e->is_array && e->kind == kind;
}

bool ca_gguf_has(const ca_gguf *gguf, const char *key)
{
    return find_entry(gguf, key) != NULL;
}

ca_status ca_gguf_u32(const ca_gguf *gguf, const char *key, uint32_t *out)
{
    const entry *e = find_entry(gguf, key);
    bool negative = false;
    uint64_t v = 0;
    const bool fits = e && !e->is_array && integer_of(e->kind, e->raw, &negative, &v) && !negative && v <= UINT32_MAX;
    CA_TRY(require(gguf, key, fits, "an integer from 0 to 4294967295"));
    *out = (uint32_t)v;
    return CA_OK;
}

ca_status ca_gguf_u32_or(const ca_gguf *gguf, const char *key, uint32_t missing, uint32_t *out)
{
    *out = missing;
    return ca_gguf_has(gguf, key) ? ca_gguf_u32(gguf, key, out) : CA_OK;
}

ca_status ca_gguf_f32(const ca_gguf *gguf, const char *key, float *out)
{
    const entry *e = find_entry(gguf, key);
    float v = 0;
    if (is_scalar(e, KIND_F32)) memcpy(&v, e->raw, sizeof v);
    CA_TRY(require(gguf, key, is_scalar(e, KIND_F32) && isfinite(v), "a finite f32"));
    *out = v;
    return CA_OK;
}

ca_status ca_gguf_f32_or(const ca_gguf *gguf, const char *key, float missing, float *out)
{
    *out = missing;
    return ca_gguf_has(gguf, key) ? ca_gguf_f32(gguf, key, out) : CA_OK;
}

ca_status ca_gguf_bool_or(const ca_gguf *gguf, const char *key, bool missing, bool *out)
{
    const entry *e = find_entry(gguf, key);
    *out = missing;
    if (!e) return CA_OK;
    CA_TRY(require(gguf, key, is_scalar(e, KIND_BOOL), "a bool"));
    *out = *e->raw != 0;
    return CA_OK;
}

ca_status ca_gguf_str(const ca_gguf *gguf, const char *key, ca_str *out)
{
    const entry *e = find_entry(gguf, key);
    CA_TRY(require(gguf, key, is_scalar(e, KIND_STRING), "a string"));
    *out = string_at(e->raw);
    return CA_OK;
}

ca_status ca_gguf_str_or(const ca_gguf *gguf, const char *key, ca_str missing, ca_str *out)
{
    *out = missing;
    return ca_gguf_has(gguf, key) ? ca_gguf_str(gguf, key, out) : CA_OK;
}

ca_status ca_gguf_strs(const ca_gguf *gguf, const char *key, const ca_str **out, size_t *n)
{
    const entry *e = find_entry(gguf, key);
    CA_TRY(require(gguf, key, is_array(e, KIND_STRING), "an array of strings"));
    *out = e->table;
    *n = (size_t)e->n;
    return CA_OK;
}

ca_status ca_gguf_i32s(const ca_gguf *gguf, const char *key, const int32_t **out, size_t *n)
{
    const entry *e = find_entry(gguf, key);
    CA_TRY(require(gguf, key, is_array(e, KIND_I32) || is_array(e, KIND_U32), "an array of i32 or u32"));
    const int32_t *values = e->table;
    for (uint64_t i = 0; e->kind == KIND_U32 && i < e->n; i++)
        if (values[i] < 0)
            return ca_fail(CA_E_FORMAT, "%s: key '%s': element %" PRIu64 " is %" PRIu32 ", expected at most 2147483647", gguf->name,
                           key, i, (uint32_t)values[i]);
    *out = values;
    *n = (size_t)e->n;
    return CA_OK;
}

ca_status ca_gguf_f32s(const ca_gguf *gguf, const char *key, const float **out, size_t *n)
{
    const entry *e = find_entry(gguf, key);
    CA_TRY(require(gguf, key, is_array(e, KIND_F32), "an array of f32"));
    *out = e->table;
    *n = (size_t)e->n;
    return CA_OK;
}

/* ---- tensors ---- */

size_t ca_gguf_n_tensors(const ca_gguf *gguf)
{
    return gguf->n_tensors;
}

const ca_tensor *ca_gguf_tensor_at(const ca_gguf *gguf, size_t i)
{
    return i < gguf->n_tensors ? &gguf->tensors[i] : NULL;
}

const ca_tensor *ca_gguf_find(const ca_gguf *gguf, const char *name)
{
    return find(gguf->tensor_index, gguf->n_tensors, name);
}

static void dims_text(const uint64_t *dims, uint32_t n_dims, char *buf, size_t cap)
{
    text t = text_begin(buf, cap);
    for (uint32_t i = 0; i < n_dims; i++) putf(&t, "%s%" PRIu64, i ? ", " : "", dims[i]);
}

ca_status ca_gguf_tensor(const ca_gguf *gguf, const char *name, uint32_t n_dims, const uint64_t *dims, const ca_tensor **out)
{
    const ca_tensor *t = ca_gguf_find(gguf, name);
    char expected[96], found[96];
    dims_text(dims, n_dims, expected, sizeof expected);
    if (!t) return ca_fail(CA_E_FORMAT, "%s: tensor '%s' is missing, expected with dims [%s]", gguf->name, name, expected);
    dims_text(t->dims, t->n_dims, found, sizeof found);
    if (t->n_dims != n_dims || memcmp(t->dims, dims, n_dims * sizeof *dims) != 0)
        return ca_fail(CA_E_FORMAT, "%s: tensor '%s' has dims [%s], expected [%s]", gguf->name, name, found, expected);
    *out = t;
    return CA_OK;
}
