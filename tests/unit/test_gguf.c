/* GGUF images built in memory: what a good one gives back, and what every kind of damage is called. Each image is opened from a block
 * of exactly its size, so that the sanitizers see any byte read past its end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <compactattn/model.h>

#include "load/gguf.h"

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };

/* ---- writer ---- */

typedef struct image {
    uint8_t *data;
    size_t len, cap;
} image;

static void add(image *im, const void *bytes, size_t n)
{
    if (im->len + n > im->cap) {
        im->cap = (im->len + n) * 2;
        im->data = realloc(im->data, im->cap);
        assert_non_null(im->data);
    }
    if (n) memcpy(im->data + im->len, bytes, n);
    im->len += n;
}

static void add_u32(image *im, uint32_t v)
{
    add(im, &v, sizeof v);
}

static void add_u64(image *im, uint64_t v)
{
    add(im, &v, sizeof v);
}

static void add_str(image *im, const char *s)
{
    add_u64(im, strlen(s));
    add(im, s, strlen(s));
}

static void add_header(image *im, uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    add(im, "GGUF", 4);
    add_u32(im, version);
    add_u64(im, n_tensors);
    add_u64(im, n_keys);
}

/* A key with a scalar of n bytes. */
static void add_key(image *im, const char *key, uint32_t type, const void *value, size_t n)
{
    add_str(im, key);
    add_u32(im, type);
    add(im, value, n);
}

static void add_key_u32(image *im, const char *key, uint32_t value)
{
    add_key(im, key, U32, &value, sizeof value);
}

static void add_key_str(image *im, const char *key, const char *value)
{
    add_key(im, key, STRING, NULL, 0);
    add_str(im, value);
}

/* The head of an array; its elements follow. */
static void add_key_array(image *im, const char *key, uint32_t type, uint64_t n)
{
    add_key(im, key, ARRAY, NULL, 0);
    add_u32(im, type);
    add_u64(im, n);
}

static void add_tensor(image *im, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type, uint64_t offset)
{
    add_str(im, name);
    add_u32(im, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) add_u64(im, dims[i]);
    add_u32(im, type);
    add_u64(im, offset);
}

static void pad(image *im, size_t alignment)
{
    while (im->len % alignment) add(im, "", 1);
}

static void add_data(image *im, size_t n)
{
    for (size_t i = 0; i < n; i++) add(im, &(uint8_t){ (uint8_t)(i * 37 + 11) }, 1);
}

/* Opens a copy of exactly im->len bytes, which the caller frees after closing. */
static ca_status open_image(const image *im, uint8_t **copy, ca_gguf **out)
{
    *copy = malloc(im->len ? im->len : 1);
    assert_non_null(*copy);
    if (im->len) memcpy(*copy, im->data, im->len);
    return ca_gguf_open_memory(*copy, im->len, "test.gguf", out);
}

/* The image, which is freed, must be refused with this status and a message that names the file and holds both parts. */
static void check_refused(image *im, const char *row, ca_status status, const char *part, const char *other)
{
    uint8_t *copy;
    ca_gguf *g = (ca_gguf *)(uintptr_t)1;
    const ca_status st = open_image(im, &copy, &g);
    const char *text = ca_last_error();
    if (st != status || g || !strstr(text, "test.gguf") || !strstr(text, part) || !strstr(text, other))
        fail_msg("%s: %s '%s', expected %s with '%s' and '%s'", row, ca_status_name(st), st ? text : "", ca_status_name(status),
                 part, other);
    free(copy);
    free(im->data);
}

/* One value of every kind, every array that has a getter, two tensors of 32 and 40 bytes. */
static image good_image(uint32_t version)
{
    image im = { 0 };
    add_header(&im, version, 2, 22);
    add_key_str(&im, "general.architecture", "llama");
    add_key(&im, "u8", U8, &(uint8_t){ 200 }, 1);
    add_key(&im, "i8", I8, &(int8_t){ -100 }, 1);
    add_key(&im, "u16", U16, &(uint16_t){ 60000 }, 2);
    add_key(&im, "i16", I16, &(int16_t){ -30000 }, 2);
    add_key_u32(&im, "u32", UINT32_MAX);
    add_key(&im, "i32", I32, &(int32_t){ 7 }, 4);
    add_key(&im, "f32", F32, &(float){ -0.125F }, 4);
    add_key(&im, "nan", F32, &(uint32_t){ 0x7fc00000 }, 4);
    add_key(&im, "bool", BOOL, &(uint8_t){ 1 }, 1);
    add_key(&im, "u64", U64, &(uint64_t){ 1000 }, 8);
    add_key(&im, "big", U64, &(uint64_t){ 1ULL << 32 }, 8);
    add_key(&im, "i64", I64, &(int64_t){ INT64_MIN }, 8);
    add_key(&im, "f64", F64, &(double){ 1e300 }, 8);
    add_key_str(&im, "text", "line\none \xc3\xa9 \x1b[31m \xff");
    add_key_array(&im, "words", STRING, 3);
    add_str(&im, "a");
    add_str(&im, "");
    add_str(&im, "\xc4\xa0the");
    add_key_array(&im, "ints", I32, 2);
    add(&im, (const int32_t[]){ -1, 5 }, 8);
    add_key_array(&im, "uints", U32, 10);
    add(&im, (const uint32_t[]){ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, 40);
    add_key_array(&im, "uints.big", U32, 2);
    add(&im, (const uint32_t[]){ 1, 1U << 31 }, 8);
    add_key_array(&im, "floats", F32, 2);
    add(&im, (const float[]){ 0.5F, -2.0F }, 8);
    add_key_array(&im, "bytes", U8, 3);
    add(&im, "\1\2\3", 3);
    add_key_array(&im, "none", STRING, 0);
    add_tensor(&im, "norm.weight", 2, (const uint64_t[]){ 4, 2 }, CA_BLOCK_F32, 0);
    add_tensor(&im, "attn.weight", 2, (const uint64_t[]){ 32, 2 }, CA_BLOCK_Q4_1, 32);
    pad(&im, 32);
    add_data(&im, 72);
    return im;
}

/* ---- good reads ---- */

static void check_str(ca_str s, const char *expected)
{
    assert_int_equal(s.len, strlen(expected));
    assert_memory_equal(s.data, expected, s.len);
}

static void check_values(const ca_gguf *g)
{
    uint32_t u = 1;
    float f = 0;
    bool b = false;
    ca_str s;
    static const struct {
        const char *key;
        uint32_t value;
    } ints[] = { { "u8", 200 }, { "u16", 60000 }, { "u32", UINT32_MAX }, { "i32", 7 }, { "u64", 1000 } };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        assert_int_equal(ca_gguf_u32(g, ints[i].key, &u), CA_OK);
        assert_int_equal(u, ints[i].value);
    }
    assert_int_equal(ca_gguf_u32_or(g, "u8", 3, &u), CA_OK);
    assert_int_equal(u, 200);
    assert_int_equal(ca_gguf_u32_or(g, "absent", 3, &u), CA_OK);
    assert_int_equal(u, 3);
    assert_int_equal(ca_gguf_f32(g, "f32", &f), CA_OK);
    assert_true(f == -0.125F);
    assert_int_equal(ca_gguf_f32_or(g, "absent", 2.5F, &f), CA_OK);
    assert_true(f == 2.5F);
    assert_int_equal(ca_gguf_bool_or(g, "bool", false, &b), CA_OK);
    assert_true(b);
    assert_int_equal(ca_gguf_bool_or(g, "absent", false, &b), CA_OK);
    assert_false(b);
    assert_int_equal(ca_gguf_str(g, "general.architecture", &s), CA_OK);
    check_str(s, "llama");
    assert_int_equal(ca_gguf_str_or(g, "absent", (ca_str){ "dflt", 4 }, &s), CA_OK);
    check_str(s, "dflt");
    assert_true(ca_gguf_has(g, "text"));
    assert_false(ca_gguf_has(g, "tex"));
    assert_false(ca_gguf_has(g, ""));
}

static void check_arrays(const ca_gguf *g)
{
    size_t n;
    const ca_str *words;
    const int32_t *ints;
    const float *floats;
    assert_int_equal(ca_gguf_strs(g, "words", &words, &n), CA_OK);
    assert_int_equal(n, 3);
    check_str(words[0], "a");
    check_str(words[1], "");
    check_str(words[2], "\xc4\xa0the");
    assert_int_equal(ca_gguf_strs(g, "none", &words, &n), CA_OK);
    assert_int_equal(n, 0);
    assert_int_equal(ca_gguf_i32s(g, "ints", &ints, &n), CA_OK);
    assert_int_equal(n, 2);
    assert_int_equal(ints[0], -1);
    assert_int_equal(ints[1], 5);
    assert_int_equal(ca_gguf_i32s(g, "uints", &ints, &n), CA_OK);
    assert_int_equal(n, 10);
    for (int i = 0; i < 10; i++) assert_int_equal(ints[i], i + 1);
    assert_int_equal(ca_gguf_f32s(g, "floats", &floats, &n), CA_OK);
    assert_int_equal(n, 2);
    assert_true(floats[0] == 0.5F && floats[1] == -2.0F);
}

static void check_tensors(const ca_gguf *g, const uint8_t *base, size_t size)
{
    const ca_tensor *t = ca_gguf_find(g, "attn.weight");
    assert_int_equal(ca_gguf_n_tensors(g), 2);
    assert_ptr_equal(ca_gguf_tensor_at(g, 1), t);
    assert_null(ca_gguf_tensor_at(g, 2));
    assert_null(ca_gguf_find(g, "attn.weigh"));
    check_str(ca_gguf_tensor_at(g, 0)->name, "norm.weight");
    check_str(t->name, "attn.weight");
    assert_int_equal(t->type, CA_BLOCK_Q4_1);
    assert_int_equal(t->n_dims, 2);
    const uint64_t dims[] = { 32, 2, 1, 1 };
    assert_memory_equal(t->dims, dims, sizeof dims);
    assert_int_equal(t->bytes, 40);
    assert_int_equal(t->offset, size - 40);
    assert_ptr_equal(t->data, base + size - 40);
    const ca_tensor *same = NULL;
    assert_int_equal(ca_gguf_tensor(g, "attn.weight", 2, dims, &same), CA_OK);
    assert_ptr_equal(same, t);
}

static void test_good(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        image im = good_image(version);
        uint8_t *copy;
        ca_gguf *g;
        if (open_image(&im, &copy, &g) != CA_OK) fail_msg("%s", ca_last_error());
        assert_string_equal(ca_gguf_path(g), "test.gguf");
        assert_int_equal(ca_gguf_file_bytes(g), im.len);
        check_values(g);
        check_arrays(g);
        check_tensors(g, copy, im.len);
        ca_gguf_close(g);
        free(copy);
        free(im.data);
    }
    ca_gguf_close(NULL);
}

static const struct text_case {
    const char *key, *type, *text;
} text_cases[] = {
    { "general.architecture", "string", "llama" },
    { "u8", "u8", "200" },
    { "i8", "i8", "-100" },
    { "i16", "i16", "-30000" },
    { "u32", "u32", "4294967295" },
    { "f32", "f32", "-0.125" },
    { "bool", "bool", "true" },
    { "i64", "i64", "-9223372036854775808" },
    { "f64", "f64", "1.0000000000000001e+300" },
    { "text", "string", "line\\none \xc3\xa9 \\x1b[31m \\xff" },
    { "words", "string[]", "3: [\"a\", \"\", \"\xc4\xa0the\"]" },
    { "uints", "u32[]", "10: [1, 2, 3, 4, 5, 6, 7, 8, ...]" },
    { "bytes", "u8[]", "3: [1, 2, 3]" },
    { "none", "string[]", "0: []" },
};

static void test_text(void **state)
{
    (void)state;
    image im = good_image(3);
    uint8_t *copy;
    ca_gguf *g;
    assert_int_equal(open_image(&im, &copy, &g), CA_OK);
    assert_int_equal(ca_gguf_n_meta(g), 22);
    for (size_t i = 0; i < sizeof text_cases / sizeof *text_cases; i++) {
        const struct text_case *c = &text_cases[i];
        bool found = false;
        for (size_t j = 0; j < ca_gguf_n_meta(g); j++) {
            char buf[128];
            ca_str key;
            const char *type;
            ca_gguf_meta_text(g, j, &key, &type, buf, sizeof buf);
            if (key.len != strlen(c->key) || memcmp(key.data, c->key, key.len) != 0) continue;
            found = true;
            assert_string_equal(type, c->type);
            assert_string_equal(buf, c->text);
        }
        if (!found) fail_msg("key %s was not walked", c->key);
    }
    ca_gguf_close(g);
    free(copy);
    free(im.data);
}

/* A cut text is marked, terminated, inside its buffer and never ends inside a character. */
static void test_text_cut(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        size_t cap;
        const char *out;
    } rows[] = {
        { "abcdefgh", 12, "abcdefgh" },
        { "abcdefgh", 9, "abcde..." },
        { "abcdefgh", 8, "abcd..." },
        { "\xe2\x82\xac\xe2\x82\xac", 8, "\xe2\x82\xac..." },
        { "\xe2\x82\xac\xe2\x82\xac", 6, "..." },
        { "abc", 3, ".." },
        { "abc", 1, "" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *buf = malloc(rows[i].cap);
        assert_non_null(buf);
        ca_str_text((ca_str){ rows[i].in, strlen(rows[i].in) }, buf, rows[i].cap);
        assert_string_equal(buf, rows[i].out);
        free(buf);
    }
    char untouched = 'x';
    ca_str_text((ca_str){ "abc", 3 }, &untouched, 0);
    assert_int_equal(untouched, 'x');
}

/* ---- damage ---- */

static void test_every_truncation(void **state)
{
    (void)state;
    image im = good_image(3);
    for (size_t len = 0; len < im.len; len++) {
        image part = { 0 };
        char row[32];
        add(&part, im.data, len);
        (void)snprintf(row, sizeof row, "cut at %zu", len);
        check_refused(&part, row, CA_E_FORMAT, "test.gguf: ", "");
    }
    free(im.data);
}

static void use_everything(const ca_gguf *g)
{
    for (size_t i = 0; i < ca_gguf_n_meta(g); i++) {
        char buf[64];
        ca_str key;
        const char *type;
        ca_gguf_meta_text(g, i, &key, &type, buf, sizeof buf);
    }
    for (size_t i = 0; i < ca_gguf_n_tensors(g); i++) {
        const ca_tensor *t = ca_gguf_tensor_at(g, i);
        const ca_block_format *format = ca_block_format_of((uint32_t)t->type);
        const size_t n = t->bytes / format->n_bytes;
        float *out = malloc(n * format->n_elems * sizeof *out);
        assert_non_null(out);
        ca_block_floats(format, t->data, n, out);
        free(out);
    }
}

/* Every bit flipped: refused, or still inside its bytes. */
static void test_every_bit(void **state)
{
    (void)state;
    image im = good_image(3);
    size_t refused = 0;
    for (size_t bit = 0; bit < im.len * 8; bit++) {
        uint8_t *copy;
        ca_gguf *g;
        im.data[bit / 8] ^= (uint8_t)(1U << bit % 8);
        if (open_image(&im, &copy, &g) == CA_OK)
            use_everything(g);
        else
            refused++;
        ca_gguf_close(g);
        free(copy);
        im.data[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    assert_true(refused > im.len); /* lengths, types and counts are most of the file */
    free(im.data);
}

static const struct header_case {
    const char *magic;
    uint64_t n_tensors, n_keys;
    uint32_t version;
    ca_status status;
    const char *message;
} header_cases[] = {
    { "GGML", 0, 0, 3, CA_E_FORMAT, "not a GGUF file: it starts with 'GGML'" },
    { "\177ELF", 0, 0, 3, CA_E_FORMAT, "not a GGUF file: it starts with '?ELF'" },
    { "GGUF", 0, 0, 0, CA_E_UNSUPPORTED, "version 0 is not known" },
    { "GGUF", 0, 0, 1, CA_E_UNSUPPORTED, "version 1 is not supported" },
    { "GGUF", 0, 0, 4, CA_E_UNSUPPORTED, "version 4 is not known" },
    { "GGUF", 0, 0, 3U << 24, CA_E_UNSUPPORTED, "big-endian" },
    { "GGUF", 1ULL << 63, 0, 3, CA_E_FORMAT, "tensor count 9223372036854775808 cannot fit" },
    { "GGUF", UINT64_MAX, 0, 3, CA_E_FORMAT, "tensor count 18446744073709551615 cannot fit" },
    { "GGUF", 3, 0, 3, CA_E_FORMAT, "tensor count 3 cannot fit" },
    { "GGUF", 0, 1ULL << 63, 3, CA_E_FORMAT, "key count 9223372036854775808 cannot fit" },
    { "GGUF", 0, 8, 3, CA_E_FORMAT, "key count 8 cannot fit" },
    { "GGUF", 0, 7, 3, CA_E_FORMAT, "key '' appears twice" }, /* the zeros that follow are u8 values of empty keys */
};

static void test_header(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof header_cases / sizeof *header_cases; i++) {
        const struct header_case *c = &header_cases[i];
        image im = { 0 };
        char row[32];
        add_header(&im, c->version, c->n_tensors, c->n_keys);
        memcpy(im.data, c->magic, 4);
        for (int j = 0; j < 95; j++) add(&im, "\x00", 1);
        (void)snprintf(row, sizeof row, "header row %zu", i);
        check_refused(&im, row, c->status, c->message, "");
    }
}

/* The bytes of the value (type first) of key "bad", which is the last thing in the file. */
#define VALUE(bytes) (bytes), sizeof(bytes) - 1
static const struct value_case {
    const char *covers, *bytes;
    size_t n;
    ca_status status;
    const char *message;
} value_cases[] = {
    { "unknown type", VALUE("\x0d\0\0\0\0\0\0\0"), CA_E_FORMAT, "unknown value type 13" },
    { "huge type", VALUE("\xff\xff\xff\xff\0\0\0\0"), CA_E_FORMAT, "unknown value type 4294967295" },
    { "bool 2", VALUE("\x07\0\0\0\x02"), CA_E_FORMAT, "bool of value 2" },
    { "string longer than the file", VALUE("\x08\0\0\0\x05\0\0\0\0\0\0\0abcd"), CA_E_FORMAT, "string of 5 bytes" },
    { "string of 2^63", VALUE("\x08\0\0\0\0\0\0\0\0\0\0\x80"), CA_E_FORMAT, "string of 9223372036854775808 bytes" },
    { "string of 2^64-1", VALUE("\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"), CA_E_FORMAT,
      "string of 18446744073709551615 bytes" },
    { "half a length", VALUE("\x08\0\0\0\x05\0\0"), CA_E_FORMAT, "cannot fit" },
    { "half an integer", VALUE("\x04\0\0\0\x05\0\0"), CA_E_FORMAT, "cannot fit" },
    { "array of an unknown type", VALUE("\x09\0\0\0\x63\0\0\0\0\0\0\0\0\0\0\0"), CA_E_FORMAT, "unknown value type 99" },
    { "array of arrays", VALUE("\x09\0\0\0\x09\0\0\0\x01\0\0\0\0\0\0\0"), CA_E_UNSUPPORTED, "arrays of arrays" },
    { "array of 2^61 i64", VALUE("\x09\0\0\0\x0b\0\0\0\0\0\0\0\0\0\0\x20"), CA_E_FORMAT,
      "array: 2305843009213693952 elements of i64" },
    { "array of 2^64-1 strings", VALUE("\x09\0\0\0\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"), CA_E_FORMAT, "elements of string" },
    { "array one short", VALUE("\x09\0\0\0\x02\0\0\0\x02\0\0\0\0\0\0\0\x01\0\x02"), CA_E_FORMAT, "array: 2 elements of u16" },
    { "second string cut", VALUE("\x09\0\0\0\x08\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0a\x09\0\0\0\0\0\0\0"), CA_E_FORMAT,
      "string of 9 bytes" },
    { "array without a count", VALUE("\x09\0\0\0\x04\0\0\0\x01\0\0"), CA_E_FORMAT, "the file ends here" },
};

static void test_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof value_cases / sizeof *value_cases; i++) {
        const struct value_case *c = &value_cases[i];
        image im = { 0 };
        add_header(&im, 3, 0, 1);
        add_str(&im, "bad");
        add(&im, c->bytes, c->n);
        check_refused(&im, c->covers, c->status, c->message, "key 'bad'");
    }
}

static void test_long_string(void **state)
{
    (void)state;
    const size_t most = 16 << 20;
    for (size_t len = most; len <= most + 1; len++) {
        image im = { 0 };
        add_header(&im, 3, 0, 1);
        add_key(&im, "long", STRING, NULL, 0);
        add_u64(&im, len);
        for (size_t i = 0; i < len; i += 1 << 12) add(&im, (const char[1 << 12]){ 0 }, len - i < 1 << 12 ? len - i : 1 << 12);
        if (len > most) {
            check_refused(&im, "long string", CA_E_FORMAT, "string of 16777217 bytes: at most 16777216", "key 'long'");
            continue;
        }
        uint8_t *copy;
        ca_gguf *g;
        assert_int_equal(open_image(&im, &copy, &g), CA_OK);
        ca_gguf_close(g);
        free(copy);
        free(im.data);
    }
}

static const struct tensor_case {
    const char *covers;
    uint64_t dims[5], offset;
    uint32_t n_dims, type;
    ca_status status;
    const char *message;
} tensor_cases[] = {
    { "fits", { 8, 8 }, 32, 2, CA_BLOCK_F32, CA_OK, "" },
    { "four dims", { 2, 2, 2, 8 }, 32, 4, CA_BLOCK_F32, CA_OK, "" },
    { "no dims", { 0 }, 32, 0, CA_BLOCK_F32, CA_E_FORMAT, "0 dimensions, expected 1 to 4" },
    { "five dims", { 1, 1, 1, 1, 1 }, 32, 5, CA_BLOCK_F32, CA_E_FORMAT, "5 dimensions, expected 1 to 4" },
    { "a dim of 0", { 8, 0 }, 32, 2, CA_BLOCK_F32, CA_E_FORMAT, "dimension 1 is 0" },
    { "elements overflow", { 1ULL << 32, 1ULL << 31, 2 }, 32, 3, CA_BLOCK_F32, CA_E_FORMAT, "number of elements overflows" },
    { "bytes overflow", { 1ULL << 32, 1ULL << 30 }, 32, 2, CA_BLOCK_F32, CA_E_FORMAT, "number of bytes overflows" },
    { "half a block", { 48, 2 }, 32, 2, CA_BLOCK_Q4_1, CA_E_FORMAT, "rows of 48 elements are not whole Q4_1 blocks of 32" },
    { "row under a block", { 32, 8 }, 32, 2, CA_BLOCK_Q4_K, CA_E_FORMAT, "rows of 32 elements are not whole Q4_K blocks of 256" },
    { "type without a reader", { 256 }, 32, 1, 16, CA_E_UNSUPPORTED, "type IQ2_XXS has no reader" },
    { "unknown type", { 256 }, 32, 1, 1234, CA_E_UNSUPPORTED, "type 1234 has no reader" },
    { "offset not aligned", { 4 }, 48, 1, CA_BLOCK_F32, CA_E_FORMAT, "data offset 48 is not a multiple of the alignment 32" },
    { "offset past the end", { 4 }, 320, 1, CA_BLOCK_F32, CA_E_FORMAT, "16 bytes at data offset 320 are not inside the file's" },
    { "offset near 2^64", { 8 }, 0xffffffffffffffe0, 1, CA_BLOCK_F32, CA_E_FORMAT, "are not inside the file's 288 bytes of data" },
    { "end past the end", { 65 }, 32, 1, CA_BLOCK_F32, CA_E_FORMAT, "260 bytes at data offset 32 are not inside the file's 288" },
    { "inside the tensor before", { 4 }, 0, 1, CA_BLOCK_F32, CA_E_FORMAT, "data offset 0 is inside the tensor before it" },
};

static void test_tensors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof tensor_cases / sizeof *tensor_cases; i++) {
        const struct tensor_case *c = &tensor_cases[i];
        image im = { 0 };
        add_header(&im, 3, 2, 0);
        add_tensor(&im, "first", 1, (const uint64_t[]){ 8 }, CA_BLOCK_F32, 0);
        add_tensor(&im, "second", c->n_dims, c->dims, c->type, c->offset);
        pad(&im, 32);
        add_data(&im, 288);
        if (c->status != CA_OK) {
            check_refused(&im, c->covers, c->status, c->message, "tensor 'second'");
            continue;
        }
        uint8_t *copy;
        ca_gguf *g;
        if (open_image(&im, &copy, &g) != CA_OK) fail_msg("%s: %s", c->covers, ca_last_error());
        assert_int_equal(ca_gguf_find(g, "second")->bytes, 256);
        ca_gguf_close(g);
        free(copy);
        free(im.data);
    }
}

static void test_twice(void **state)
{
    (void)state;
    image im = { 0 };
    add_header(&im, 3, 0, 3);
    add_key_u32(&im, "one", 1);
    add_key_u32(&im, "two", 2);
    add_key_str(&im, "one", "1");
    check_refused(&im, "equal keys", CA_E_FORMAT, "key 'one' appears twice", "");

    im = (image){ 0 };
    add_header(&im, 3, 3, 0);
    add_tensor(&im, "w", 1, (const uint64_t[]){ 8 }, CA_BLOCK_F32, 0);
    add_tensor(&im, "v", 1, (const uint64_t[]){ 8 }, CA_BLOCK_F32, 32);
    add_tensor(&im, "w", 1, (const uint64_t[]){ 8 }, CA_BLOCK_F32, 64);
    pad(&im, 32);
    add_data(&im, 96);
    check_refused(&im, "equal tensors", CA_E_FORMAT, "tensor 'w' appears twice", "");
}

/* Keys that decide how the rest is read. */
static void test_ruling_keys(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint32_t value;
        ca_status status;
        const char *message;
    } rows[] = {
        { "general.alignment", 0, CA_E_FORMAT, "is 0, expected a power of two" },
        { "general.alignment", 3, CA_E_FORMAT, "is 3, expected a power of two" },
        { "general.alignment", 4, CA_E_FORMAT, "is 4, expected a power of two from 8" },
        { "general.alignment", 1U << 17, CA_E_FORMAT, "is 131072, expected a power of two" },
        { "general.alignment", 1U << 31, CA_E_FORMAT, "is 2147483648, expected a power of two" },
        { "general.alignment", 8, CA_OK, "" },
        { "general.alignment", 1U << 16, CA_OK, "" },
        { "split.count", 2, CA_OK, "" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const uint32_t alignment = rows[i].status == CA_OK && strcmp(rows[i].key, "split.count") != 0 ? rows[i].value : 32;
        image im = { 0 };
        add_header(&im, 3, 1, 1);
        add_key_u32(&im, rows[i].key, rows[i].value);
        add_tensor(&im, "w", 1, (const uint64_t[]){ 2 }, CA_BLOCK_F32, alignment);
        pad(&im, alignment);
        add_data(&im, alignment + 8);
        if (rows[i].status != CA_OK) {
            check_refused(&im, rows[i].key, rows[i].status, rows[i].message, rows[i].key);
            continue;
        }
        uint8_t *copy;
        ca_gguf *g;
        if (open_image(&im, &copy, &g) != CA_OK) fail_msg("%s %u: %s", rows[i].key, rows[i].value, ca_last_error());
        assert_int_equal(ca_gguf_find(g, "w")->offset, im.len - 8);
        ca_gguf_close(g);
        free(copy);
        free(im.data);
    }
    image im = { 0 };
    add_header(&im, 3, 0, 1);
    add_key_str(&im, "general.alignment", "32");
    check_refused(&im, "alignment as text", CA_E_FORMAT, "key 'general.alignment' is string 32, expected an integer", "");
}

/* What a getter says about a key that is missing, of another kind, or out of range. */
static void test_getters(void **state)
{
    (void)state;
    image im = good_image(3);
    uint8_t *copy;
    ca_gguf *g;
    uint32_t u;
    float f;
    bool b;
    ca_str s;
    size_t n;
    const ca_str *strs;
    const int32_t *ints;
    const float *floats;
    const ca_tensor *t;
    const uint64_t dims[] = { 2, 32 };
    assert_int_equal(open_image(&im, &copy, &g), CA_OK);
#define REFUSED(call, message)                                                                                                     \
    do {                                                                                                                           \
        assert_int_equal(call, CA_E_FORMAT);                                                                                       \
        if (!strstr(ca_last_error(), message)) fail_msg("%s: '%s', expected '%s'", #call, ca_last_error(), message);               \
    } while (0)
    REFUSED(ca_gguf_u32(g, "absent", &u), "test.gguf: key 'absent' is missing, expected an integer");
    REFUSED(ca_gguf_u32(g, "i8", &u), "key 'i8' is i8 -100, expected an integer from 0");
    REFUSED(ca_gguf_u32(g, "big", &u), "key 'big' is u64 4294967296, expected an integer from 0 to 4294967295");
    REFUSED(ca_gguf_u32(g, "i64", &u), "key 'i64' is i64 -9223372036854775808");
    REFUSED(ca_gguf_u32(g, "f32", &u), "key 'f32' is f32 -0.125");
    REFUSED(ca_gguf_u32(g, "bool", &u), "key 'bool' is bool true");
    REFUSED(ca_gguf_u32(g, "uints", &u), "key 'uints' is u32[] 10: [1, 2");
    REFUSED(ca_gguf_u32_or(g, "text", 1, &u), "key 'text' is string line");
    REFUSED(ca_gguf_f32(g, "absent", &f), "key 'absent' is missing, expected a finite f32");
    REFUSED(ca_gguf_f32(g, "u8", &f), "key 'u8' is u8 200, expected a finite f32");
    REFUSED(ca_gguf_f32(g, "nan", &f), "key 'nan' is f32 nan, expected a finite f32");
    REFUSED(ca_gguf_f32_or(g, "floats", 1, &f), "key 'floats' is f32[] 2: [0.5, -2]");
    REFUSED(ca_gguf_bool_or(g, "u8", true, &b), "key 'u8' is u8 200, expected a bool");
    REFUSED(ca_gguf_str(g, "absent", &s), "key 'absent' is missing, expected a string");
    REFUSED(ca_gguf_str(g, "words", &s), "key 'words' is string[] 3: [");
    REFUSED(ca_gguf_str_or(g, "u8", (ca_str){ "", 0 }, &s), "key 'u8' is u8 200, expected a string");
    REFUSED(ca_gguf_strs(g, "text", &strs, &n), "expected an array of strings");
    REFUSED(ca_gguf_strs(g, "ints", &strs, &n), "key 'ints' is i32[] 2: [-1, 5], expected an array of strings");
    REFUSED(ca_gguf_i32s(g, "floats", &ints, &n), "expected an array of i32 or u32");
    REFUSED(ca_gguf_i32s(g, "u32", &ints, &n), "key 'u32' is u32 4294967295, expected an array");
    REFUSED(ca_gguf_i32s(g, "uints.big", &ints, &n), "key 'uints.big': element 1 is 2147483648");
    REFUSED(ca_gguf_f32s(g, "ints", &floats, &n), "expected an array of f32");
    REFUSED(ca_gguf_tensor(g, "absent", 2, dims, &t), "test.gguf: tensor 'absent' is missing, expected with dims [2, 32]");
    REFUSED(ca_gguf_tensor(g, "attn.weight", 2, dims, &t), "tensor 'attn.weight' has dims [32, 2], expected [2, 32]");
    REFUSED(ca_gguf_tensor(g, "attn.weight", 1, dims + 1, &t), "tensor 'attn.weight' has dims [32, 2], expected [32]");
#undef REFUSED
    ca_gguf_close(g);
    free(copy);
    free(im.data);
}

/* 200,000 keys of equal length and a long common beginning: a quadratic search for equal ones would not end in time. */
static void test_many_keys(void **state)
{
    (void)state;
    const uint32_t n = 200000;
    image im = { 0 };
    add_header(&im, 3, 0, n);
    for (uint32_t i = 0; i < n; i++) {
        char key[64];
        (void)snprintf(key, sizeof key, "some.rather.long.common.prefix.%06" PRIu32, i * 7919 % n);
        add_key_u32(&im, key, i);
    }
    uint8_t *copy;
    ca_gguf *g;
    uint32_t value;
    assert_int_equal(open_image(&im, &copy, &g), CA_OK);
    assert_int_equal(ca_gguf_u32(g, "some.rather.long.common.prefix.007919", &value), CA_OK);
    assert_int_equal(value, 1);
    ca_gguf_close(g);
    free(copy);
    free(im.data);
}

/* ---- files ---- */

typedef struct seen {
    unsigned n_meta, n_tensors;
    char last_value[64], last_tensor[96];
} seen;

static void on_meta(void *user, const char *key, const char *type, const char *value)
{
    seen *s = user;
    s->n_meta++;
    (void)snprintf(s->last_value, sizeof s->last_value, "%s %s %.20s", key, type, value);
}

static void on_tensor(void *user, const char *name, const char *type, const uint64_t *dims, unsigned n_dims, uint64_t offset,
                      uint64_t bytes)
{
    seen *s = user;
    s->n_tensors++;
    (void)snprintf(s->last_tensor, sizeof s->last_tensor, "%s %s %" PRIu64 "x%" PRIu64 " of %u at %" PRIu64 " bytes %" PRIu64, name,
                   type, dims[0], dims[1], n_dims, offset, bytes);
}

/* A fresh file with these bytes; path has room for 32. */
static void write_file(char *path, const void *data, size_t n)
{
    (void)snprintf(path, 32, "/tmp/ca_gguf_XXXXXX");
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_true(write(fd, data, n) == (ssize_t)n);
    assert_int_equal(close(fd), 0);
}

static void test_inspect(void **state)
{
    (void)state;
    image im = good_image(3);
    char path[32], expected[96];
    seen s = { 0 };
    write_file(path, im.data, im.len);
    if (ca_model_inspect(path, &(ca_file_visitor){ &s, on_meta, on_tensor }) != CA_OK) fail_msg("%s", ca_last_error());
    assert_int_equal(s.n_meta, 22);
    assert_int_equal(s.n_tensors, 2);
    assert_string_equal(s.last_value, "none string[] 0: []");
    (void)snprintf(expected, sizeof expected, "attn.weight Q4_1 32x2 of 2 at %zu bytes 40", im.len - 40);
    assert_string_equal(s.last_tensor, expected);
    assert_int_equal(ca_model_inspect(path, &(ca_file_visitor){ 0 }), CA_OK);
    assert_int_equal(ca_model_inspect(NULL, &(ca_file_visitor){ 0 }), CA_E_ARG);
    assert_int_equal(ca_model_inspect(path, NULL), CA_E_ARG);
    (void)unlink(path);
    free(im.data);
}

static void check_file_refused(const char *path, ca_status status, const char *message)
{
    ca_gguf *g;
    assert_int_equal(ca_gguf_open(path, &g), status);
    assert_null(g);
    if (!strstr(ca_last_error(), message) || (path && !strstr(ca_last_error(), path)))
        fail_msg("'%s', expected %s and '%s'", ca_last_error(), path ? path : "", message);
}

static void test_files_refused(void **state)
{
    (void)state;
    char path[32];
    check_file_refused("/nonexistent/model.gguf", CA_E_IO, "cannot be opened: No such file or directory");
    check_file_refused("/tmp", CA_E_IO, "is a directory");
    check_file_refused(NULL, CA_E_ARG, "path is NULL");
    write_file(path, "", 0);
    check_file_refused(path, CA_E_IO, "is empty");
    if (geteuid() != 0) {
        assert_int_equal(chmod(path, 0), 0);
        check_file_refused(path, CA_E_IO, "cannot be opened: Permission denied");
    }
    (void)unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    check_file_refused(path, CA_E_IO, "is not a regular file");
    (void)unlink(path);
    write_file(path, "<html>", 6);
    check_file_refused(path, CA_E_FORMAT, "not a GGUF file: it starts with '<htm'");
    (void)unlink(path);
}

/* The real model, when it is there. Values and places as an independent reader of the format gives them. */
static void test_real_model(void **state)
{
    (void)state;
    struct stat st;
    if (stat(CA_TEST_MODEL, &st) != 0) skip();
    ca_gguf *g;
    if (ca_gguf_open(CA_TEST_MODEL, &g) != CA_OK) fail_msg("%s", ca_last_error());
    assert_int_equal(ca_gguf_file_bytes(g), st.st_size);
    assert_int_equal(ca_gguf_n_meta(g), 33);
    assert_int_equal(ca_gguf_n_tensors(g), 272);
    ca_str arch;
    uint32_t layers;
    float theta;
    const ca_str *tokens;
    size_t n;
    assert_int_equal(ca_gguf_str(g, "general.architecture", &arch), CA_OK);
    check_str(arch, "llama");
    assert_int_equal(ca_gguf_u32(g, "llama.block_count", &layers), CA_OK);
    assert_int_equal(layers, 30);
    assert_int_equal(ca_gguf_f32(g, "llama.rope.freq_base", &theta), CA_OK);
    assert_true(theta == 100000.0F);
    assert_int_equal(ca_gguf_strs(g, "tokenizer.ggml.tokens", &tokens, &n), CA_OK);
    assert_int_equal(n, 49152);
    check_str(tokens[1], "<|im_start|>");
    static const struct {
        const char *name, *type;
        uint64_t dims[2], offset;
        float first[3], last[3]; /* of the first row, of the last row */
    } rows[] = {
        { "token_embd.weight",
          "Q8_0",
          { 576, 49152 },
          1785664,
          { -0x1.b468p-4F, 0x1.0e28p-5F, 0x1.8ad8p-5F },
          { 0x1.0756p-3F, -0x1.eb16p-4F, -0x1.55ap-5F } },
        { "blk.29.ffn_down.weight",
          "Q4_1",
          { 1536, 576 },
          0,
          { -0x1.17ep-2F, 0x1.7d8p-3F, 0x1.7d8p-3F },
          { 0x1.ap-3F, -0x1.7p-4F, 0x1.dp-5F } },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const ca_tensor *t;
        float row[1536];
        if (ca_gguf_tensor(g, rows[i].name, 2, rows[i].dims, &t) != CA_OK) fail_msg("%s", ca_last_error());
        const ca_block_format *format = ca_block_format_of((uint32_t)t->type);
        assert_string_equal(format->name, rows[i].type);
        if (rows[i].offset) assert_int_equal(t->offset, rows[i].offset);
        const size_t blocks = rows[i].dims[0] / format->n_elems;
        ca_block_floats(format, t->data, blocks, row);
        assert_memory_equal(row, rows[i].first, sizeof rows[i].first);
        ca_block_floats(format, (const uint8_t *)t->data + t->bytes - blocks * format->n_bytes, blocks, row);
        assert_memory_equal(row + rows[i].dims[0] - 3, rows[i].last, sizeof rows[i].last);
    }
    ca_gguf_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),          cmocka_unit_test(test_text),
        cmocka_unit_test(test_text_cut),      cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_bit),     cmocka_unit_test(test_header),
        cmocka_unit_test(test_values),        cmocka_unit_test(test_long_string),
        cmocka_unit_test(test_tensors),       cmocka_unit_test(test_twice),
        cmocka_unit_test(test_ruling_keys),   cmocka_unit_test(test_getters),
        cmocka_unit_test(test_many_keys),     cmocka_unit_test(test_inspect),
        cmocka_unit_test(test_files_refused), cmocka_unit_test(test_real_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
