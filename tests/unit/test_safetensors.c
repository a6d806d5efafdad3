/* Safetensors: what good files give back, what every kind of damage is called, and files that were written and are read again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arith.h"
#include "load/safetensors.h"

/* A file of that header and n_data bytes 0, 1, 2, .. in a block of exactly its size, so that a sanitizer sees a read past its end. */
static uint8_t *make_file(const char *header, size_t n_data, size_t *size)
{
    const uint64_t length = strlen(header);
    *size = sizeof length + (size_t)length + n_data;
    uint8_t *bytes = malloc(*size);
    assert_non_null(bytes);
    memcpy(bytes, &length, sizeof length);
    memcpy(bytes + sizeof length, header, (size_t)length);
    for (size_t i = 0; i < n_data; i++) bytes[sizeof length + length + i] = (uint8_t)i;
    return bytes;
}

#define T(name, dtype, shape, from, to)                                                                                            \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

static void reads_tensors_and_metadata(void **state)
{
    (void)state;
    /* An odd header length and an odd first tensor: nothing is aligned. Not in the order of the data. */
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\",\"k\":\"v \\u00e9\"}," T("z", "U8", "[3]", 0, 3) "," T(
        "b.f32", "F32", "[2,3]", 7, 31) "," T("a.bf16", "BF16", "[2]", 3,
                                              7) "," T("c", "F16", "[]", 31, 33) "," T("e", "F32", "[4,0]", 33,
                                                                                       33) "," T("n", "F4_X", "[7]", 33, 36) "}  ";
    size_t size;
    uint8_t *bytes = make_file(header, 36, &size);
    const uint8_t *data = bytes + size - 36;
    ca_safetensors *st;
    if (ca_safetensors_open_memory(bytes, size, "file", &st) != CA_OK) fail_msg("%s", ca_last_error());
    assert_int_equal(ca_safetensors_n_tensors(st), 6);
    assert_string_equal(ca_safetensors_path(st), "file");
    static const char *const names[] = { "a.bf16", "b.f32", "c", "e", "n", "z" };
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(ca_safetensors_tensor_at(st, i)->name, names[i]);
        assert_ptr_equal(ca_safetensors_find(st, names[i]), ca_safetensors_tensor_at(st, i));
    }
    assert_null(ca_safetensors_find(st, "a"));
    assert_null(ca_safetensors_find(st, "__metadata__"));
    assert_string_equal(ca_safetensors_meta(st, "format"), "pt");
    assert_string_equal(ca_safetensors_meta(st, "k"), "v \xc3\xa9");
    assert_null(ca_safetensors_meta(st, "none"));

    const ca_st_tensor *t;
    float out[6], expected[6];
    assert_int_equal(ca_safetensors_tensor(st, "b.f32", 2, (const uint64_t[]){ 2, 3 }, &t), CA_OK);
    assert_true(t->n_elems == 6 && t->bytes == 24 && t->dims[2] == 1);
    assert_ptr_equal(t->data, data + 7);
    assert_int_equal(ca_safetensors_f32(st, t, 0, 6, out), CA_OK);
    memcpy(expected, data + 7, sizeof expected);
    assert_memory_equal(out, expected, sizeof expected);
    assert_int_equal(ca_safetensors_f32(st, t, 4, 2, out), CA_OK);
    assert_memory_equal(out, expected + 4, 2 * sizeof *out);
    assert_int_equal(ca_safetensors_f32(st, t, 4, 3, out), CA_E_ARG);
    assert_int_equal(ca_safetensors_f32(st, t, 7, SIZE_MAX, out), CA_E_ARG);

    t = ca_safetensors_find(st, "a.bf16");
    assert_int_equal(ca_safetensors_f32(st, t, 0, 2, out), CA_OK);
    assert_true(out[0] == ca_bf16_to_f32(0x0403) && out[1] == ca_bf16_to_f32(0x0605));
    t = ca_safetensors_find(st, "c");
    assert_int_equal(t->n_dims, 0);
    assert_int_equal(ca_safetensors_f32(st, t, 0, 1, out), CA_OK);
    assert_true(out[0] == ldexpf(1024 + 0x1f, -25 + 8)); /* 0x201f: exponent 8, mantissa 0x1f */
    t = ca_safetensors_find(st, "e");
    assert_int_equal(t->n_elems, 0);
    assert_int_equal(ca_safetensors_f32(st, t, 0, 0, out), CA_OK);

    for (size_t i = 4; i < 6; i++) {
        assert_int_equal(ca_safetensors_f32(st, ca_safetensors_tensor_at(st, i), 0, 1, out), CA_E_UNSUPPORTED);
        assert_non_null(strstr(ca_last_error(), i == 4 ? "'n' is of dtype F4_X" : "'z' is of dtype U8"));
    }
    assert_int_equal(ca_safetensors_tensor(st, "b.f32", 2, (const uint64_t[]){ 3, 2 }, &t), CA_E_FORMAT);
    assert_string_equal(ca_last_error(), "file: tensor 'b.f32' is [2, 3], expected [3, 2]");
    assert_int_equal(ca_safetensors_tensor(st, "b.f32", 1, (const uint64_t[]){ 2 }, &t), CA_E_FORMAT);
    assert_int_equal(ca_safetensors_tensor(st, "b", 1, (const uint64_t[]){ 2 }, &t), CA_E_FORMAT);
    assert_string_equal(ca_last_error(), "file: tensor 'b' is missing (expected [2])");
    ca_safetensors_close(st);
    free(bytes);
}

static void reads_an_empty_file(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = make_file("{}", 0, &size);
    ca_safetensors *st;
    assert_int_equal(ca_safetensors_open_memory(bytes, size, "file", &st), CA_OK);
    assert_int_equal(ca_safetensors_n_tensors(st), 0);
    assert_null(ca_safetensors_find(st, "a"));
    assert_null(ca_safetensors_meta(st, "a"));
    ca_safetensors_close(st);
    free(bytes);
}

static const struct {
    const char *header;
    size_t n_data;
    ca_status status;
    const char *says;
} damages[] = {
    { "", 0, CA_E_FORMAT, "does not start with '{'" },
    { " {}", 0, CA_E_FORMAT, "does not start with '{'" },
    { "[]", 0, CA_E_FORMAT, "does not start with '{'" },
    { "{} x", 0, CA_E_FORMAT, "header: end of file expected" },
    { "{", 0, CA_E_FORMAT, "header: " },
    { "{\"a\\u0000b\":1}", 0, CA_E_FORMAT, "header: " },
    { "{\"\xff\":1}", 0, CA_E_FORMAT, "header: " },
    { "{" T("a", "F32", "[1]", 0, 4) "," T("a", "F32", "[1]", 0, 4) "}", 4, CA_E_FORMAT, "duplicate object key" },
    { "{" T("a", "F32", "[1],\"shape\":[1]", 0, 4) "}", 4, CA_E_FORMAT, "duplicate object key" },
    { "{\"a\":1}", 0, CA_E_FORMAT, "tensor 'a' has no \"dtype\"" },
    { "{\"a\":{\"dtype\":4}}", 0, CA_E_FORMAT, "tensor 'a' has no \"dtype\"" },
    { "{\"a\":{\"dtype\":\"F32\"}}", 0, CA_E_FORMAT, "tensor 'a' has no \"shape\"" },
    { "{" T("a", "F32", "3", 0, 4) "}", 4, CA_E_FORMAT, "tensor 'a' has no \"shape\"" },
    { "{" T("a", "F32", "[-1]", 0, 4) "}", 4, CA_E_FORMAT, "dimension 0 is no whole number" },
    { "{" T("a", "F32", "[1, 1.0]", 0, 4) "}", 4, CA_E_FORMAT, "dimension 1 is no whole number" },
    { "{" T("a", "F32", "[99999999999999999999]", 0, 4) "}", 4, CA_E_FORMAT, "too big integer" },
    { "{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, CA_E_UNSUPPORTED, "9 dimensions" },
    { "{" T("a", "F32", "[4294967296,4294967296]", 0, 0) "}", 0, CA_E_FORMAT, "more than a size can hold" },
    { "{" T("a", "F32", "[4611686018427387904]", 0, 0) "}", 0, CA_E_FORMAT, "4611686018427387904 elements of F32 in 0 bytes" },
    { "{" T("a", "F32", "[2]", 0, 4) "}", 4, CA_E_FORMAT, "2 elements of F32 in 4 bytes" },
    { "{" T("a", "BOOL", "[2]", 0, 4) "}", 4, CA_E_FORMAT, "2 elements of BOOL in 4 bytes" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, CA_E_FORMAT, "\"data_offsets\" must be two" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, CA_E_FORMAT, "\"data_offsets\" must be two" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.0]}}", 4, CA_E_FORMAT, "\"data_offsets\" must be two" },
    { "{" T("a", "F32", "[1]", -4, 0) "}", 4, CA_E_FORMAT, "offsets -4 to 0 lie outside" },
    { "{" T("a", "F32", "[1]", 4, 0) "}", 4, CA_E_FORMAT, "offsets 4 to 0 lie outside" },
    { "{" T("a", "F32", "[1]", 0, 4) "}", 3, CA_E_FORMAT, "offsets 0 to 4 lie outside the 3 bytes" },
    { "{" T("a", "F32", "[1]", 0, 9223372036854775807) "}", 4, CA_E_FORMAT, "lie outside the 4 bytes" },
    { "{" T("a", "F32", "[1]", 0, 4) "}", 5, CA_E_FORMAT, "the tensors take 4 bytes, the file holds 5" },
    { "{" T("a", "F32", "[1]", 1, 5) "}", 5, CA_E_FORMAT, "tensor 'a' leaves a hole" },
    { "{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[2]", 3, 5) "}", 5, CA_E_FORMAT, "tensor 'b' leaves a hole" },
    { "{" T("a", "U8", "[3]", 0, 3) "," T("b", "U8", "[3]", 2, 5) "}", 5, CA_E_FORMAT, "tensor 'b' overlaps" },
    { "{" T("a", "U8", "[3]", 0, 3) "," T("b", "U8", "[3]", 0, 3) "}", 3, CA_E_FORMAT, "overlaps" },
    { "{\"__metadata__\":3}", 0, CA_E_FORMAT, "\"__metadata__\" is no object" },
    { "{\"__metadata__\":{\"k\":3}}", 0, CA_E_FORMAT, "metadata 'k' is no string" },
};

static void names_every_damage(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        size_t size;
        uint8_t *bytes = make_file(damages[i].header, damages[i].n_data, &size);
        ca_safetensors *st = NULL;
        const ca_status status = ca_safetensors_open_memory(bytes, size, "file", &st);
        if (status != damages[i].status || !strstr(ca_last_error(), damages[i].says) || !strstr(ca_last_error(), "file: "))
            fail_msg("row %zu: %d, \"%s\", expected %d, \"%s\"", i, (int)status, ca_last_error(), (int)damages[i].status,
                     damages[i].says);
        assert_null(st);
        free(bytes);
    }
}

static void refuses_bad_lengths(void **state)
{
    (void)state;
    static const struct {
        uint64_t length;
        size_t size;
        const char *says;
    } cases[] = {
        { 2, 7, "7 bytes are no safetensors file" },
        { 3, 10, "header of 3 bytes, 2 follow" },
        { UINT64_MAX, 10, "header of 18446744073709551615" },
        { 100000001, 10, "at most 100000000" },
        { 0, 8, "does not start with '{'" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *bytes = malloc(cases[i].size);
        uint8_t whole[10] = { [8] = '{', [9] = '}' };
        ca_safetensors *st = NULL;
        assert_non_null(bytes);
        memcpy(whole, &cases[i].length, sizeof cases[i].length);
        memcpy(bytes, whole, cases[i].size);
        assert_int_equal(ca_safetensors_open_memory(bytes, cases[i].size, "file", &st), CA_E_FORMAT);
        if (!strstr(ca_last_error(), cases[i].says)) fail_msg("row %zu: %s", i, ca_last_error());
        assert_null(st);
        free(bytes);
    }
}

static void refuses_every_truncation(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = make_file("{" T("a", "F32", "[2]", 0, 8) "}", 8, &size);
    for (size_t n = 0; n < size; n++) {
        uint8_t *cut = malloc(n > 0 ? n : 1);
        ca_safetensors *st;
        assert_non_null(cut);
        memcpy(cut, bytes, n);
        if (ca_safetensors_open_memory(cut, n, "file", &st) == CA_OK) fail_msg("cut to %zu of %zu bytes is accepted", n, size);
        free(cut);
    }
    free(bytes);
}

static void opens_files_only(void **state)
{
    (void)state;
    ca_safetensors *st;
    assert_int_equal(ca_safetensors_open("/nonexistent/x.safetensors", &st), CA_E_IO);
    assert_null(st);
    assert_int_equal(ca_safetensors_open("/dev/null", &st), CA_E_IO);
    assert_int_equal(ca_safetensors_open("/tmp", &st), CA_E_IO);
}

/* ---- writing ---- */

static const uint64_t dims_a[] = { 3 }, dims_b[] = { 2, 2 }, dims_c[] = { 1 };
static const uint16_t half[] = { 1, 2, 3, 4 };
static const float single[] = { 1.5F, -2, 3, 1e-30F };

static ca_status fill(void *user, size_t item, void *out)
{
    int *calls = user;
    if (calls && ++*calls == 2) return ca_fail(CA_E_CANCELED, "item %zu", item);
    switch (item) {
    case 0: memcpy(out, half, 6); break;
    case 1: memcpy(out, single, 16); break;
    default: memcpy(out, half + 3, 2); break;
    }
    return CA_OK;
}

static const ca_st_item items[] = { { "a", CA_BLOCK_F16, 1, dims_a },
                                    { "b", CA_BLOCK_F32, 2, dims_b },
                                    { "c", CA_BLOCK_BF16, 1, dims_c } };
static const char *const meta[][2] = { { "key", "a \"value\"" }, { "gate_block_size", "64" } };

/* Files in a folder. */
static size_t count_files(const char *folder)
{
    DIR *dir = opendir(folder);
    size_t n = 0;
    assert_non_null(dir);
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void writes_what_it_reads(void **state)
{
    (void)state;
    char folder[] = "/tmp/ca-safetensors-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
    ca_st_content content = { items, 3, meta, 2, fill, NULL };
    for (int round = 0; round < 2; round++) { /* the second replaces the first */
        if (ca_safetensors_write(path, &content) != CA_OK) fail_msg("%s", ca_last_error());
        ca_safetensors *st;
        const ca_st_tensor *t;
        if (ca_safetensors_open(path, &st) != CA_OK) fail_msg("%s", ca_last_error());
        assert_int_equal(ca_safetensors_n_tensors(st), 3);
        assert_int_equal(ca_safetensors_tensor(st, "a", 1, dims_a, &t), CA_OK);
        assert_string_equal(t->dtype, "F16");
        assert_memory_equal(t->data, half, 6);
        assert_int_equal(ca_safetensors_tensor(st, "b", 2, dims_b, &t), CA_OK);
        assert_memory_equal(t->data, single, 16);
        assert_int_equal((uintptr_t)t->data % 8, 0);
        assert_int_equal(ca_safetensors_tensor(st, "c", 1, dims_c, &t), CA_OK);
        assert_string_equal(t->dtype, "BF16");
        assert_memory_equal(t->data, half + 3, 2);
        assert_string_equal(ca_safetensors_meta(st, "key"), "a \"value\"");
        assert_string_equal(ca_safetensors_meta(st, "gate_block_size"), "64");
        ca_safetensors_close(st);
        assert_int_equal(count_files(folder), 1);
    }

    /* A failure leaves the old file and nothing else. */
    struct stat before, after;
    assert_int_equal(stat(path, &before), 0);
    int calls = 0;
    content.user = &calls;
    assert_int_equal(ca_safetensors_write(path, &content), CA_E_CANCELED);
    assert_int_equal(stat(path, &after), 0);
    assert_true(before.st_ino == after.st_ino && before.st_size == after.st_size);
    assert_int_equal(count_files(folder), 1);
    content.user = NULL;
    snprintf(path, sizeof path, "%s/none/file", folder);
    assert_int_equal(ca_safetensors_write(path, &content), CA_E_IO);
    assert_non_null(strstr(ca_last_error(), path));
    assert_int_equal(ca_safetensors_write(folder, &content), CA_E_IO); /* a folder is in the way */
    snprintf(path, sizeof path, "%s/file", folder);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_tensors_and_metadata), cmocka_unit_test(reads_an_empty_file),
        cmocka_unit_test(names_every_damage),         cmocka_unit_test(refuses_bad_lengths),
        cmocka_unit_test(refuses_every_truncation),   cmocka_unit_test(opens_files_only),
        cmocka_unit_test(writes_what_it_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
