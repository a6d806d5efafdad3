/* .npy arrays: every integer type in, float rows out, and each way in which a file can be wrong. */
#include "cli/npy.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { FILE_BYTES = 512 };

struct image {
    unsigned char bytes[FILE_BYTES];
    size_t size;
};

/* A file of that version with the dictionary as given and n_data bytes of data. */
static struct image make_file(unsigned char version, const char *dictionary, const void *data, size_t n_data)
{
    struct image image = { .bytes = { 0x93, 'N', 'U', 'M', 'P', 'Y', version, 0 } };
    const size_t prefix = version == 1 ? 10 : 12, length = strlen(dictionary);
    assert_true(prefix + length + n_data <= FILE_BYTES);
    image.bytes[8] = (unsigned char)(length & 255);
    image.bytes[9] = (unsigned char)(length >> 8);
    memcpy(image.bytes + prefix, dictionary, length);
    if (n_data) memcpy(image.bytes + prefix + length, data, n_data);
    image.size = prefix + length + n_data;
    return image;
}

/* Parses a copy without a spare byte, so that a sanitizer sees a read past the end. */
static bool parse(const struct image *image, size_t size, uint32_t **ids, size_t *n, char why[NPY_WHY])
{
    unsigned char *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, image->bytes, size);
    const bool ok = npy_parse_ids(copy, size, ids, n, why);
    free(copy);
    return ok;
}

static void reads_every_integer_type(void **state)
{
    (void)state;
    static const uint32_t u4[] = { 7, 0, 4294967295U };
    static const int32_t i4[] = { 7, 0, 2147483647 };
    static const uint64_t u8[] = { 7, 0, 4294967295U };
    static const int64_t i8[] = { 7, 0, 4294967295 };
    static const struct {
        unsigned char version;
        const char *dictionary;
        const void *data;
        size_t n_data;
        uint32_t last;
    } cases[] = {
        { 1, "{'descr': '<u4', 'fortran_order': False, 'shape': (3,), }   \n", u4, sizeof u4, 4294967295U },
        { 2, "{'descr': '<u4', 'fortran_order': False, 'shape': (3,), }\n", u4, sizeof u4, 4294967295U },
        { 1, "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }\n", i4, sizeof i4, 2147483647U },
        { 1, "{'shape':(3,),'fortran_order':False,'descr':'<u8'}", u8, sizeof u8, 4294967295U },
        { 1, "{'descr': '<i8', 'fortran_order': True, 'shape': (3,), }\n", i8, sizeof i8, 4294967295U },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct image image = make_file(cases[i].version, cases[i].dictionary, cases[i].data, cases[i].n_data);
        uint32_t *ids = NULL;
        size_t n = 0;
        char why[NPY_WHY] = "";
        if (!parse(&image, image.size, &ids, &n, why)) fail_msg("case %zu: %s", i, why);
        assert_int_equal(n, 3);
        assert_int_equal(ids[0], 7);
        assert_int_equal(ids[1], 0);
        assert_int_equal(ids[2], cases[i].last);
        free(ids);
    }
}

static void reads_an_empty_array(void **state)
{
    (void)state;
    const struct image image = make_file(1, "{'descr': '<u4', 'fortran_order': False, 'shape': (0,), }\n", NULL, 0);
    uint32_t *ids = NULL;
    size_t n = 9;
    char why[NPY_WHY];
    assert_true(parse(&image, image.size, &ids, &n, why));
    assert_int_equal(n, 0);
    free(ids);
}

static void refuses_what_is_wrong(void **state)
{
    (void)state;
    static const int32_t negative[] = { 1, -1 };
    static const int64_t wide[] = { 1, 4294967296 };
    static const struct {
        unsigned char version;
        const char *dictionary;
        const void *data;
        size_t n_data;
        const char *why; /* part of the message */
    } cases[] = {
        { 3, "{'descr': '<u4', 'fortran_order': False, 'shape': (2,), }", negative, 8, "version 3" },
        { 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", negative, 8, "type" },
        { 1, "{'descr': '>u4', 'fortran_order': False, 'shape': (2,), }", negative, 8, "type" },
        { 1, "{'fortran_order': False, 'shape': (2,), }", negative, 8, "type" },
        { 1, "{'descr' '<u4', 'shape': (2,), }", negative, 8, "type" },
        { 1, "{'descr': '<u4', 'fortran_order': False, }", negative, 8, "one dimension" },
        { 1, "{'descr': '<u4', 'fortran_order': False, 'shape': (), }", negative, 8, "one dimension" },
        { 1, "{'descr': '<u4', 'fortran_order': False, 'shape': (2, 1), }", negative, 8, "one dimension" },
        { 1, "{'descr': '<u4', 'fortran_order': False, 'shape': (-2,), }", negative, 8, "one dimension" },
        { 1, "{'descr': '<u4', 'fortran_order': False, 'shape': (99999999999999999999,), }", negative, 8, "one dimension" },
        { 1, "{'descr': '<u4', 'fortran_order': False, 'shape': (3,), }", negative, 8, "promises 3 elements" },
        { 1, "{'descr': '<u4', 'fortran_order': False, 'shape': (1,), }", negative, 8, "promises 1 elements" },
        { 1, "{'descr': '<u4', 'fortran_order': False, 'shape': (2,), }", negative, 7, "holds 7 bytes" },
        { 1, "{'descr': '<u8', 'fortran_order': False, 'shape': (4611686018427387905,), }", negative, 8, "promises" },
        { 1, "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }", negative, 8, "element 1" },
        { 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }", wide, 16, "element 1" },
        { 1, "", NULL, 0, "type" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct image image = make_file(cases[i].version, cases[i].dictionary, cases[i].data, cases[i].n_data);
        uint32_t *ids = NULL;
        size_t n = 0;
        char why[NPY_WHY] = "";
        if (parse(&image, image.size, &ids, &n, why)) fail_msg("case %zu is accepted: %s", i, cases[i].dictionary);
        assert_null(ids);
        if (!strstr(why, cases[i].why)) fail_msg("case %zu: \"%s\" does not say \"%s\"", i, why, cases[i].why);
        assert_null(strchr(why, '\n'));
    }
}

static void refuses_every_truncation(void **state)
{
    (void)state;
    static const uint32_t data[] = { 1, 2, 3 };
    for (unsigned char version = 1; version <= 2; version++) {
        const struct image image = make_file(version, "{'descr': '<u4', 'fortran_order': False, 'shape': (3,), }\n", data,
                                             sizeof data);
        for (size_t size = 0; size < image.size; size++) {
            uint32_t *ids = NULL;
            size_t n = 0;
            char why[NPY_WHY] = "";
            if (parse(&image, size, &ids, &n, why))
                fail_msg("version %u cut to %zu of %zu bytes is accepted", version, size, image.size);
            assert_true(strlen(why) > 0);
        }
    }
}

static void writes_rows(void **state)
{
    (void)state;
    static const float rows[2][3] = { { 1, -2.5F, 3 }, { 4, 5, 1e30F } };
    char path[] = "/tmp/test_npy_XXXXXX";
    const int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    struct npy_writer writer;
    assert_true(npy_create(&writer, path, 2, 3));
    assert_true(npy_write_row(&writer, rows[0]));
    assert_true(npy_write_row(&writer, rows[1]));
    assert_false(npy_write_row(&writer, rows[1])); /* a third of two */
    assert_true(npy_finish(&writer));

    unsigned char bytes[256];
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    const size_t size = fread(bytes, 1, sizeof bytes, in);
    fclose(in);
    remove(path);
    static const char dictionary[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
    const size_t header = 10U + bytes[8] + 256U * bytes[9];
    assert_memory_equal(bytes, "\x93NUMPY\x01\x00", 8);
    assert_memory_equal(bytes + 10, dictionary, sizeof dictionary - 1);
    assert_int_equal(header % 64, 0);
    assert_int_equal(bytes[header - 1], '\n');
    assert_int_equal(size, header + sizeof rows);
    assert_memory_equal(bytes + header, rows, sizeof rows);
}

static void tells_what_cannot_be_written(void **state)
{
    (void)state;
    static const float row[8192] = { 1 };
    struct npy_writer writer;
    assert_false(npy_create(&writer, "/dev/null/logits.npy", 1, 1));
    assert_int_equal(errno, ENOTDIR);

    char path[] = "/tmp/test_npy_XXXXXX"; /* a result that is not whole leaves the one before it */
    const int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, "before", 6), 6);
    assert_true(npy_create(&writer, path, 2, 1));
    assert_true(npy_write_row(&writer, row));
    assert_false(npy_finish(&writer));
    char before[8] = "";
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    assert_int_equal(fread(before, 1, sizeof before, in), 6);
    assert_string_equal(before, "before");
    fclose(in);
    close(file);
    remove(path);

    assert_true(npy_create(&writer, "/dev/null", 2, 1));
    assert_true(npy_write_row(&writer, row));
    assert_false(npy_finish(&writer)); /* one row is missing */
    assert_int_equal(errno, EINVAL);

    assert_true(npy_create(&writer, "/dev/full", 1, 8192));
    npy_write_row(&writer, row);
    assert_false(npy_finish(&writer));
    assert_int_equal(errno, ENOSPC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_integer_type),
        cmocka_unit_test(reads_an_empty_array),
        cmocka_unit_test(refuses_what_is_wrong),
        cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(writes_rows),
        cmocka_unit_test(tells_what_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
