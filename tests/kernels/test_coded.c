/* Products with a panel of weights in codes against their definition (kern/coded.h) in plain C, for every usable kernel set: to the bit
 * where products are of floats, within the rounding of the sums where they are of pairs of bf16, whose order is the processor's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kern/kern.h"
#include "kern_list.h"

enum { MAX_K = 1056, GAP = 3 };

typedef struct coded_case {
    uint32_t n_rows, k, n_cols;
    ca_code code;
    uint32_t group;
    bool has_offsets;
    float zero;
    bool accumulate;
} coded_case;

/* Panel, A and C of a case; C has GAP more columns. */
typedef struct buffers {
    uint8_t codes[MAX_K * CA_CODED_PANEL * 2] __attribute__((aligned(64)));
    float scales[MAX_K / 16 * 2 * CA_CODED_PANEL] __attribute__((aligned(64)));
    float a[CA_CODED_ROWS * MAX_K];
    uint16_t a16[CA_CODED_ROWS * MAX_K];
    float c[CA_CODED_ROWS * (CA_CODED_PANEL + GAP)];
} buffers;

static float value(uint32_t *state)
{
    *state = *state * 1664525U + 1013904223U;
    return (float)(int32_t)*state * 0x1p-31F;
}

static float weight(const coded_case *c, const buffers *b, uint32_t i, uint32_t j)
{
    const uint8_t *at = b->codes + (c->code == CA_CODE_4 ? i / 2 : i) * CA_CODED_PANEL + j;
    uint16_t number;
    memcpy(&number, b->codes + 2 * ((size_t)i * CA_CODED_PANEL + j), 2);
    if (c->code == CA_CODE_BF16) return ca_bf16_to_f32(number);
    if (c->code == CA_CODE_F16) {
        const int exponent = number >> 10 & 31, fraction = number & 1023;
        const float size = exponent ? ldexpf((float)(1024 + fraction), exponent - 25) : ldexpf((float)fraction, -24);
        return number & 0x8000 ? -size : size;
    }
    const float q = (float)(c->code == CA_CODE_8 ? *at : i % 2 ? *at >> 4 : *at & 15);
    const float *scale = b->scales + (size_t)(i / c->group) * (c->has_offsets ? 2 : 1) * CA_CODED_PANEL + j;
    return fmaf(q, scale[0], c->has_offsets ? scale[CA_CODED_PANEL] : -c->zero * scale[0]);
}

static void check(const coded_case *c, buffers *b)
{
    uint32_t state = c->n_rows * 31 + c->k + c->n_cols * 7 + (uint32_t)c->code;
    for (size_t i = 0; i < sizeof b->codes; i++) {
        b->codes[i] = (uint8_t)(value(&state) * 128.0F + 128.0F);
        if (i % 2 && !ca_code_is_integer(c->code)) b->codes[i] &= 0xbf; /* no infinity, no NaN, no sum beyond floats */
    }
    for (size_t i = 0; i < sizeof b->scales / 4; i++) b->scales[i] = value(&state);
    for (size_t i = 0; i < sizeof b->a / 4; i++) {
        b->a16[i] = ca_f32_to_bf16(value(&state));
        b->a[i] = ca_bf16_to_f32(b->a16[i]);
    }
    const size_t stride = c->n_cols + GAP;
    const ca_coded_panel panel = {
        .code = c->code, .codes = b->codes, .scales = b->scales, .group = c->group, .has_offsets = c->has_offsets, .zero = c->zero
    };
    const kern_list list = usable_kerns();
    for (size_t at = 0; at < list.n; at++) {
        const ca_kern *kern = list.kern[at];
        if (!kern->coded) continue;
        for (size_t i = 0; i < c->n_rows * stride; i++) b->c[i] = c->accumulate ? (float)(i % 13) - 6.0F : NAN;
        const bool pairs = kern->flow == CA_BF16;
        kern->coded(&(ca_coded_job){ .a = pairs ? (const void *)b->a16 : b->a,
                                     .n_rows = c->n_rows,
                                     .k = c->k,
                                     .panel = &panel,
                                     .c = b->c,
                                     .c_stride = stride,
                                     .n_cols = c->n_cols,
                                     .accumulate = c->accumulate });
        for (uint32_t r = 0; r<c->n_rows; r += c->n_rows> 20 ? 11 : 1) {
            for (uint32_t j = 0; j < stride; j++) {
                const float before = c->accumulate ? (float)((r * stride + j) % 13) - 6.0F : NAN;
                float sum = c->accumulate ? before : 0.0F, size = fabsf(sum);
                for (uint32_t i = 0; i < c->k && j < c->n_cols; i++) {
                    const float w = weight(c, b, i, j), term = pairs ? ca_bf16_to_f32(ca_f32_to_bf16(w)) : w;
                    sum = fmaf(b->a[(size_t)r * c->k + i], term, sum);
                    size += fabsf(b->a[(size_t)r * c->k + i] * term);
                }
                const float expected = j < c->n_cols ? sum : before, got = b->c[r * stride + j];
                const float bound = pairs ? (float)c->k * 0x1p-24F * size : 0.0F;
                if (!(fabsf(got - expected) <= bound || (isnan(got) && isnan(expected) && j >= c->n_cols)))
                    fail_msg("%s: %u rows, k %u, %u columns, code %d, groups of %u: [%u][%u] is %.9g, expected %.9g", kern->name,
                             c->n_rows, c->k, c->n_cols, (int)c->code, c->group, r, j, (double)got, (double)expected);
            }
        }
    }
}

static void coded(void **state)
{
    (void)state;
    static const uint32_t rows[] = { 1, 2, 3, 4, 5, 6, 7, 12, 14, CA_CODED_ROWS }, ks[] = { 32, 96, 576, MAX_K };
    buffers *b = malloc(sizeof *b + 64);
    assert_non_null(b);
    buffers *at = (buffers *)(void *)(((uintptr_t)b + 63) & ~(uintptr_t)63);
    uint32_t n = 0;
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        for (size_t k = 0; k < sizeof ks / sizeof *ks; k++) {
            if (rows[r] == CA_CODED_ROWS && ks[k] > 96) continue; /* as many sums in plain C take long */
            const uint32_t cols[] = { 64, 37, 1, 50, 16 };
            for (int code = CA_CODE_4; code <= CA_CODE_F16; code++, n++)
                check(&(coded_case){ .n_rows = rows[r],
                                     .k = ks[k],
                                     .n_cols = cols[n % 5],
                                     .code = (ca_code)code,
                                     .group = n % 4 < 2 ? 16 : 32,
                                     .has_offsets = n % 3 == 0,
                                     .zero = 8.0F,
                                     .accumulate = n % 7 == 0 },
                      at);
        }
    }
    free(b);
}

/* All sets of vectors have such products, but AMX's, whose tiles multiply unpacked weights. */
static void who_has_them(void **state)
{
    (void)state;
    const kern_list list = usable_kerns();
    for (size_t i = 0; i < list.n; i++)
        assert_true((list.kern[i]->coded == NULL) ==
                    (strcmp(list.kern[i]->name, "amxbf16") == 0 || strcmp(list.kern[i]->name, "scalar") == 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(coded), cmocka_unit_test(who_has_them) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
