/* Every block format against golden blocks, bit for bit; half floats and MXFP4 over every input against their definitions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mapfile.h"
#include "load/quant.h"

static const struct quant_case {
    ca_block_type type;
    const char *name;
    uint32_t n_elems, n_bytes;
    size_t values; /* in the golden file */
} cases[] = {
    { CA_BLOCK_F16, "F16", 1, 2, 2048 },        { CA_BLOCK_Q4_0, "Q4_0", 32, 18, 2048 },
    { CA_BLOCK_Q4_1, "Q4_1", 32, 20, 2048 },    { CA_BLOCK_Q5_0, "Q5_0", 32, 22, 2048 },
    { CA_BLOCK_Q5_1, "Q5_1", 32, 24, 2048 },    { CA_BLOCK_Q8_0, "Q8_0", 32, 34, 2048 },
    { CA_BLOCK_Q2_K, "Q2_K", 256, 84, 16384 },  { CA_BLOCK_Q3_K, "Q3_K", 256, 110, 16384 },
    { CA_BLOCK_Q4_K, "Q4_K", 256, 144, 16384 }, { CA_BLOCK_Q5_K, "Q5_K", 256, 176, 16384 },
    { CA_BLOCK_Q6_K, "Q6_K", 256, 210, 16384 }, { CA_BLOCK_IQ4_NL, "IQ4_NL", 32, 18, 2048 },
    { CA_BLOCK_BF16, "BF16", 1, 2, 2048 },
};

static ca_mapfile map_golden(const char *name, const char *suffix)
{
    char path[512];
    ca_mapfile map;
    (void)snprintf(path, sizeof path, "%s/quant/%s.%s", CA_TEST_DATA, name, suffix);
    if (ca_mapfile_open(path, &map) != CA_OK) fail_msg("%s", ca_last_error());
    return map;
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* At an odd address too: tensors of a file need not be aligned to their block. */
static void check_golden(const struct quant_case *c, const uint8_t *raw, size_t n_raw, const uint8_t *golden, size_t shift)
{
    const ca_block_format *format = ca_block_format_of((uint32_t)c->type);
    assert_non_null(format);
    assert_string_equal(format->name, c->name);
    assert_int_equal(format->n_elems, c->n_elems);
    assert_int_equal(format->n_bytes, c->n_bytes);
    assert_int_equal(n_raw / c->n_bytes * c->n_elems, c->values);
    uint8_t *moved = malloc(n_raw + shift);
    float *out = malloc(c->values * sizeof *out);
    assert_true(moved && out);
    memcpy(moved + shift, raw, n_raw);
    ca_block_floats(format, moved + shift, n_raw / c->n_bytes, out);
    for (size_t i = 0; i < c->values; i++) {
        float expected;
        memcpy(&expected, golden + i * sizeof expected, sizeof expected);
        if (bits_of(out[i]) != bits_of(expected))
            fail_msg("%s block %zu element %zu at shift %zu: %a, expected %a", c->name, i / c->n_elems, i % c->n_elems, shift,
                     (double)out[i], (double)expected);
    }
    free(moved);
    free(out);
}

static void test_golden(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct quant_case *c = &cases[i];
        ca_mapfile raw = map_golden(c->name, "bin"), npy = map_golden(c->name, "npy");
        const size_t bytes = c->values * sizeof(float);
        assert_true(npy.size > bytes);
        assert_memory_equal(npy.data, "\x93NUMPY", 6);
        for (size_t shift = 0; shift < 2; shift++)
            check_golden(c, raw.data, raw.size, (const uint8_t *)npy.data + npy.size - bytes, shift);
        ca_mapfile_close(&raw);
        ca_mapfile_close(&npy);
    }
}

static void test_f32(void **state)
{
    (void)state;
    const float values[] = { 0.0F, -0.0F, 1.5F, -3.25F, 0x1p-149F, INFINITY };
    float out[6];
    ca_block_floats(ca_block_format_of(CA_BLOCK_F32), values, 6, out);
    assert_memory_equal(values, out, sizeof values);
}

/* (-1)^s * 2^(e-15) * (1 + m/1024), 2^-14 * m/1024 for e = 0, infinity and NaN for e = 31. */
static void test_every_half(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 1U << 16; h++) {
        const uint8_t raw[2] = { (uint8_t)h, (uint8_t)(h >> 8) };
        const int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
        float out;
        ca_block_floats(ca_block_format_of(CA_BLOCK_F16), raw, 1, &out);
        if (e == 31 && m) {
            assert_true(isnan(out));
            continue;
        }
        const float size = e == 31 ? INFINITY : e ? ldexpf((float)(m + 1024), e - 25) : ldexpf((float)m, -24);
        if (bits_of(out) != bits_of(h >> 15 ? -size : size))
            fail_msg("half 0x%04x is %a, expected %a", h, (double)out, (double)size);
    }
}

/* 2^(scale - 127) times the e2m1 number; both zeros are +0. */
static void test_every_mxfp4(void **state)
{
    (void)state;
    const ca_block_format *format = ca_block_format_of(CA_BLOCK_MXFP4);
    assert_int_equal(format->n_bytes, 17);
    assert_int_equal(format->n_elems, 32);
    for (int scale = 0; scale < 256; scale++) {
        uint8_t raw[17] = { (uint8_t)scale };
        float out[32];
        for (int j = 0; j < 16; j++) raw[1 + j] = (uint8_t)(j | (15 - j) << 4); /* element j is code j, element 16 + j is 15 - j */
        ca_block_floats(format, raw, 1, out);
        for (int j = 0; j < 32; j++) {
            const int code = j < 16 ? j : 31 - j, e = code >> 1 & 3, m = code & 1;
            const float size = ldexpf(e ? (float)(2 + m) : (float)m, (e ? e - 1 : 0) - 1 + scale - 127);
            const float expected = code > 8 ? -size : size;
            if (bits_of(out[j]) != bits_of(expected))
                fail_msg("MXFP4 scale %d code %d is %a, expected %a", scale, code, (double)out[j], (double)expected);
        }
    }
}

static void test_names(void **state)
{
    (void)state;
    static const uint32_t without[] = { 4, 5, 9, 15, 16, 23, 24, 29, 31, 34, 40, 77, 1U << 31, UINT32_MAX };
    char buf[32];
    for (size_t i = 0; i < sizeof without / sizeof *without; i++) assert_null(ca_block_format_of(without[i]));
    assert_string_equal(ca_block_type_name(CA_BLOCK_Q4_1, buf, sizeof buf), "Q4_1");
    assert_string_equal(ca_block_type_name(16, buf, sizeof buf), "IQ2_XXS");
    assert_string_equal(ca_block_type_name(40, buf, sizeof buf), "NVFP4");
    assert_string_equal(ca_block_type_name(4, buf, sizeof buf), "type 4");
    assert_string_equal(ca_block_type_name(UINT32_MAX, buf, sizeof buf), "type 4294967295");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),      cmocka_unit_test(test_f32),   cmocka_unit_test(test_every_half),
        cmocka_unit_test(test_every_mxfp4), cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
