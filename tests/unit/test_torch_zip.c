/* Torch checkpoints: what good ones give back, and what every kind of bad or hostile one is called. make_pth.py wrote the files;
 * element e of a storage is ((e mod 251) - 125) / 64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "load/torch_zip.h"

#define GATE CA_TEST_DATA "/gate/"

static float stored(uint64_t e)
{
    return (float)((int)(e % 251) - 125) / 64.0F;
}

static ca_torch *open_good(const char *path)
{
    ca_torch *torch;
    if (ca_torch_open(path, &torch) != CA_OK) fail_msg("%s", ca_last_error());
    return torch;
}

/* The elements of tensor i, read and turned into f32; the caller frees them. */
static float *read_floats(ca_torch *torch, size_t i)
{
    const ca_torch_pickle *p = ca_torch_tensors(torch);
    const ca_torch_tensor *t = &p->tensors[i];
    const ca_block_format *format = ca_block_format_of((uint32_t)p->storages[t->storage].type);
    assert_int_equal(ca_torch_tensor_bytes(torch, i), t->n_elems * format->n_bytes);
    void *raw = malloc(ca_torch_tensor_bytes(torch, i) + 1);
    float *out = malloc((size_t)t->n_elems * sizeof *out + 1);
    assert_true(raw && out);
    if (ca_torch_read(torch, i, raw) != CA_OK) fail_msg("%s", ca_last_error());
    ca_block_floats(format, raw, (size_t)t->n_elems, out);
    free(raw);
    return out;
}

/* Two bf16 views into one storage: one with an offset, one transposed as well. */
static void reads_views_of_one_storage(void **state)
{
    (void)state;
    ca_torch *torch = open_good(GATE "good.pth");
    const ca_torch_pickle *p = ca_torch_tensors(torch);
    assert_int_equal(p->n_tensors, 2);
    assert_int_equal(p->n_storages, 1);
    assert_int_equal(p->storages[0].type, CA_BLOCK_BF16);
    for (size_t layer = 0; layer < 2; layer++) {
        const ca_torch_tensor *t = &p->tensors[layer];
        char name[64];
        snprintf(name, sizeof name, "model.layers.%zu.self_attn.attn_gate.mask_linear_k.weight", layer);
        assert_string_equal(t->name, name);
        assert_int_equal(t->n_dims, 3);
        assert_true(t->dims[0] == 4 && t->dims[1] == 16 && t->dims[2] == 16);
        float *w = read_floats(torch, layer);
        for (size_t h = 0; h < 4; h++)
            for (size_t i = 0; i < 16; i++)
                for (size_t j = 0; j < 16; j++) {
                    const size_t e = layer == 0 ? 7 + 256 * h + 16 * i + j : 1031 + 256 * h + i + 16 * j;
                    assert_true(w[256 * h + 16 * i + j] == stored(e));
                }
        free(w);
    }
    ca_torch_close(torch);
}

/* f32 and f16, deflated, in an OrderedDict; strides of 0, an empty tensor and a scalar. */
static void reads_every_type_and_shape(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t n, elems[12];
    } expected[] = {
        { "a", 12, { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 } },
        { "b", 3, { 1, 5, 9 } },
        { "c", 6, { 4, 4, 4, 4, 4, 4 } },
        { "d", 0, { 0 } },
        { "e", 1, { 2 } },
    };
    ca_torch *torch = open_good(GATE "types.pth");
    const ca_torch_pickle *p = ca_torch_tensors(torch);
    assert_int_equal(p->n_tensors, sizeof expected / sizeof *expected);
    for (size_t i = 0; i < p->n_tensors; i++) {
        assert_string_equal(p->tensors[i].name, expected[i].name);
        assert_int_equal(p->tensors[i].n_elems, expected[i].n);
        assert_int_equal(p->storages[p->tensors[i].storage].type, i < 2 ? CA_BLOCK_F32 : CA_BLOCK_F16);
        float *w = read_floats(torch, i);
        for (size_t e = 0; e < expected[i].n; e++) assert_true(w[e] == stored(expected[i].elems[e]));
        free(w);
    }
    ca_torch_close(torch);
}

static void refuses_bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        ca_status status;
        const char *says;
    } cases[] = {
        { "bad_global.pth", CA_E_UNSUPPORTED, "bad_global.pth: data.pkl: global 'os.system' is refused" },
        { "bad_opcode.pth", CA_E_UNSUPPORTED,
          "opcode 0x47 (BINFLOAT) is refused: only dicts of f32, f16 and bf16 tensors are read (offset 11)" },
        { "bad_offset.pth", CA_E_FORMAT, "needs element 16 of storage '0', which has 16" },
        { "bad_stride.pth", CA_E_FORMAT, "needs element 13835058055282163715 of storage '0', which has 16" },
        { "bad_dtype.pth", CA_E_UNSUPPORTED, "global 'torch.LongStorage' is refused" },
        { "bad_missing.pth", CA_E_FORMAT, "storage 'attn_gate_weights/data/0' is missing" },
        { "bad_short.pth", CA_E_FORMAT, "data/0' holds 60 bytes, expected 64" },
        { "bad_order.pth", CA_E_UNSUPPORTED, "byte order is not 'little'" },
        { "bad_entry.pth", CA_E_FORMAT, "entry 'a' of the dict is a whole number, expected a tensor" },
        { "bad_cut.pth", CA_E_FORMAT, "the file ends here" },
        { "bad_nopickle.pth", CA_E_FORMAT, "0 entries <root>/data.pkl" },
        { "bad_zip.pth", CA_E_FORMAT, "is no zip" },
        { "bad_bomb.pth", CA_E_FORMAT, "says 3221225472 bytes" },
        { "none.pth", CA_E_IO, "cannot be opened" },
        { "", CA_E_IO, "is a directory" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[512];
        ca_torch *torch = NULL;
        snprintf(path, sizeof path, GATE "%s", cases[i].file);
        const ca_status st = ca_torch_open(path, &torch);
        if (st != cases[i].status || !strstr(ca_last_error(), cases[i].says) || !strstr(ca_last_error(), path))
            fail_msg("%s: %d, \"%s\", expected %d, \"%s\"", cases[i].file, (int)st, ca_last_error(), (int)cases[i].status,
                     cases[i].says);
        assert_null(torch);
    }
}

static void refuses_a_damaged_storage(void **state)
{
    (void)state;
    ca_torch *torch = open_good(GATE "bad_crc.pth");
    uint8_t *raw = malloc(ca_torch_tensor_bytes(torch, 0));
    assert_non_null(raw);
    assert_int_equal(ca_torch_read(torch, 0, raw), CA_E_FORMAT);
    assert_non_null(strstr(ca_last_error(), "data/0' is damaged or cut short: CRC error"));
    free(raw);
    ca_torch_close(torch);
}

/* ---- pickles by hand ---- */

#define STR(len, text) "X" len "\0\0\0" text
#define KIND(type) "ctorch\n" type "Storage\n"
#define STORE(key, type, numel) "(" STR("\7", "storage") KIND(type) STR("\1", key) STR("\3", "cpu") numel "tQ"
#define REBUILD "ctorch._utils\n_rebuild_tensor_v2\n"
#define ODICT "ccollections\nOrderedDict\n)R"
#define FOUR STORE("0", "Float", "K\4")
#define TENSOR_OF(store, offset, shape, strides) REBUILD "(" store offset shape strides "\x89" ODICT "tR"
#define GOOD TENSOR_OF(FOUR, "K\0", "K\2K\2\x86", "K\2K\1\x86")
#define DICT_OF(value) "\x80\2}" STR("\1", "a") value "s."

typedef struct hand {
    const char *bytes;
    size_t len;
    ca_status status; /* CA_OK: one tensor "a" */
    const char *says;
} hand;

#define ROW(text, status, says)                                                                                                    \
    {                                                                                                                              \
        text, sizeof(text) - 1, status, says                                                                                       \
    }
#define WRONG(text, says) ROW(text, CA_E_FORMAT, says)
#define REFUSED(text, says) ROW(text, CA_E_UNSUPPORTED, says)

static const hand hands[] = {
    ROW(DICT_OF(GOOD), CA_OK, ""),
    ROW("\x80\2}(" STR("\1", "a") GOOD "u.", CA_OK, ""),
    ROW("}" STR("\1", "a") "q\xff" GOOD "r\0\1\0\0s.", CA_OK, ""),
    ROW("}" STR("\1", "a") GOOD "q\1s" /* the same tensor once more, in a dict inside the memo only */ ".", CA_OK, ""),
    ROW(DICT_OF(TENSOR_OF(FOUR, "\x8a\1\1", "K\3\x85", "\x8a\0\x85")), CA_OK, ""),       /* LONG1, of no bytes too */
    ROW(DICT_OF(TENSOR_OF(FOUR, "K\4", "K\0\x85", "J\xff\xff\xff\x7f\x85")), CA_OK, ""), /* empty, at the end */

    WRONG("", "the file ends here"),
    WRONG(".", "ends with 0 values"),
    WRONG("}}.", "ends with 2 values"),
    WRONG("K\1.", "the content of the pickle is a whole number, expected a dict"),
    WRONG("}.}", "1 bytes follow"),
    WRONG("s", "needs 2 values, the stack holds 0"),
    WRONG("}K\1K\2}(s", "meets a mark"),
    WRONG("t", "needs a mark"),
    WRONG("u", "needs a mark"),
    WRONG("(u", "needs a dict and the stack is empty"),
    WRONG("}(K\1u", "a key without a value"),
    WRONG("K\1K\2K\3s", "what gets an item is a whole number, expected a dict"),
    WRONG("h\0", "memo slot 0 is read"),
    WRONG("}q\1h\0", "memo slot 0 is read"),
    WRONG("q\1", "the stack holds 0"),
    WRONG("(q\1", "meets a mark"),
    WRONG("}r\xff\xff\xff\xff", "memo slot 4294967295"),
    WRONG("X\xff\xff\xff\xffzz", "4294967295 bytes needed"),
    WRONG("\x8a\x09"
          "123456789",
          "a whole number of 9 bytes"),
    WRONG("\x8a\x08"
          "1234567",
          "the file ends here"),
    WRONG("ctorch\nFloatStorage", "does not end within"),
    WRONG("R", "the stack holds 0"),
    WRONG("K\1)R", "what is called is a whole number"),
    WRONG("ccollections\nOrderedDict\nK\1R", "the arguments of a call is a whole number"),
    WRONG(DICT_OF("K\1"), "entry 'a' of the dict is a whole number, expected a tensor"),
    WRONG("}K\1" GOOD "s.", "a key of the dict is a whole number, expected a string"),
    WRONG("}" STR("\0", "") GOOD "s.", "no name of 1 to 255"),
    WRONG("}" STR("\2", "a\n") GOOD "s.", "no name of 1 to 255"),
    WRONG("}" STR("\2", "a\xff") GOOD "s.", "no name of 1 to 255"),
    WRONG("}(" STR("\1", "a") GOOD STR("\1", "a") GOOD "u.", "tensor 'a' is there twice"),
    WRONG("K\1Q", "a persistent id is a whole number"),
    WRONG("(" STR("\7", "storage") "K\1K\1K\1K\1tQ", "the type of a storage is a whole number"),
    WRONG("(" STR("\7", "storage") "ccollections\nOrderedDict\nK\1K\1K\1tQ", "'collections.OrderedDict' is no type"),
    WRONG("(" STR("\7", "storage") KIND("Float") "K\1K\1K\1tQ", "the key of a storage is a whole number"),
    WRONG("(" STR("\7", "storage") KIND("Float") STR("\1", "0") "K\1K\1tQ", "the device of a storage"),
    WRONG(STORE("x", "Float", "K\4"), "must be 1 to 31 digits"),
    WRONG("(" STR("\7", "storage") KIND("Float") STR("\4", "../0") STR("\3", "cpu") "K\4tQ", "must be 1 to 31 digits"),
    WRONG(STORE("0", "Float", "J\xff\xff\xff\xff"), "the size of a storage is -1, negative"),
    WRONG(STORE("0", "Float", "\x8a\6\0\0\0\0\0\1"), "above the limit of 4 GiB"),
    WRONG(STORE("0", "Float", "K\4") STORE("0", "Half", "K\4"), "two types or sizes"),
    WRONG(STORE("0", "Float", "K\4") STORE("0", "Float", "K\5"), "two types or sizes"),
    WRONG(REBUILD ")R", "rebuilt from 0 values"),
    WRONG(REBUILD "(K\1K\1K\1K\1K\1K\1tR", "the storage of a tensor is a whole number"),
    WRONG(TENSOR_OF(FOUR, "}", "K\4\x85", "K\1\x85"), "the offset of a tensor is a dict"),
    WRONG(TENSOR_OF(FOUR, "J\xff\xff\xff\xff", "K\4\x85", "K\1\x85"), "the offset of a tensor is -1"),
    WRONG(TENSOR_OF(FOUR, "K\0", "K\4", "K\1\x85"), "the shape of a tensor is a whole number"),
    WRONG(TENSOR_OF(FOUR, "K\0", "K\4\x85", "K\1"), "the strides of a tensor is a whole number"),
    WRONG(TENSOR_OF(FOUR, "K\0", "K\4\x85", "K\1K\1\x86"), "1 dimensions with 2 strides"),
    WRONG(TENSOR_OF(FOUR, "K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t"), "9 dimensions"),
    WRONG(TENSOR_OF(FOUR, "K\0", "J\xff\xff\xff\xff\x85", "K\1\x85"), "a dimension of a tensor is -1"),
    WRONG(TENSOR_OF(FOUR, "K\0", "K\4\x85", "J\xff\xff\xff\xff\x85"), "a stride of a tensor is -1"),
    WRONG(TENSOR_OF(FOUR, "K\1", "K\4\x85", "K\1\x85"), "needs element 4 of storage '0', which has 4"),
    WRONG(TENSOR_OF(FOUR, "K\4", ")", ")"), "needs element 4 of storage '0', which has 4"),
    WRONG(TENSOR_OF(FOUR, "K\5", "K\0\x85", "K\1\x85"), "which has 4"),
    WRONG(TENSOR_OF(FOUR, "K\0", "K\2K\3\x86", "K\2K\1\x86"), "needs element 4"),
    WRONG(TENSOR_OF(FOUR, "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", "K\3\x85", "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85"),
          "beyond 4 GiB"), /* (2^63 - 1) * 3 wraps around to a small number */
    WRONG(TENSOR_OF(FOUR, "K\0", "J\0\0\0\x7fJ\0\0\0\x7f\x86", "K\0K\0\x86"), "beyond 4 GiB"), /* expanded to 2^62 elements */
    WRONG(REBUILD "(" FOUR "K\0K\4\x85K\1\x85K\0" ODICT "tR", "requires_grad of a tensor is a whole number"),
    WRONG(REBUILD "(" FOUR "K\0K\4\x85K\1\x85\x89\x89tR", "the hooks of a tensor is a bool"),

    REFUSED("\x80\4", "pickle protocol 4"),
    REFUSED("cposix\nsystem\n", "global 'posix.system' is refused"),
    REFUSED("c__builtin__\neval\n", "global '__builtin__.eval' is refused"),
    REFUSED("ctorch\nLongStorage\n", "global 'torch.LongStorage' is refused"),
    REFUSED("ctorch\nFloatStorageX\n", "refused"),
    REFUSED("ctorch._utils\n_rebuild_parameter\n", "'torch._utils._rebuild_parameter' is refused"),
    REFUSED("ccollections\nOrderedDict\nK\1\x85R", "a call of 'collections.OrderedDict' with 1 values"),
    REFUSED("ctorch\nFloatStorage\n)R", "a call of 'torch.FloatStorage' with 0 values"),
    REFUSED("}K\1\x85Q", "no ('storage', type, key, device, size)"),
    REFUSED("(" STR("\6", "module") "K\1K\1K\1K\1tQ", "no ('storage', type, key, device, size)"),
    REFUSED("ccollections\nOrderedDict\n)\x81",
            "opcode 0x81 (NEWOBJ) is refused: only dicts of f32, f16 and bf16 tensors are read (offset 26)"),
    REFUSED("}}b", "opcode 0x62 (BUILD)"),
    REFUSED("(ios\nsystem\n", "opcode 0x69 (INST)"),
    REFUSED("}\x93", "opcode 0x93 (STACK_GLOBAL)"),
    REFUSED("\x01", "opcode 0x01 (unknown)"),
};

/* Reads from a block of exactly the size, so that a sanitizer sees a read past its end. */
static ca_status read_copy(const char *bytes, size_t len, ca_torch_pickle *out)
{
    char *copy = malloc(len > 0 ? len : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, len);
    const ca_status st = ca_torch_pickle_read(copy, len, "hand", out);
    free(copy);
    return st;
}

static void reads_and_refuses_pickles(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof hands / sizeof *hands; i++) {
        ca_torch_pickle p;
        const ca_status st = read_copy(hands[i].bytes, hands[i].len, &p);
        if (st != hands[i].status || (st != CA_OK && !strstr(ca_last_error(), hands[i].says)))
            fail_msg("row %zu: %d, \"%s\", expected %d, \"%s\"", i, (int)st, ca_last_error(), (int)hands[i].status, hands[i].says);
        assert_int_equal(p.n_tensors, st == CA_OK ? 1 : 0);
        if (st == CA_OK) assert_string_equal(p.tensors[0].name, "a");
        if (st != CA_OK) assert_true(!p.tensors && !p.storages);
        ca_torch_pickle_free(&p);
    }
}

static void refuses_every_truncation(void **state)
{
    (void)state;
    for (size_t len = 0; len < hands[0].len; len++) {
        ca_torch_pickle p;
        if (read_copy(hands[0].bytes, len, &p) == CA_OK) fail_msg("a pickle cut to %zu bytes is accepted", len);
    }
}

/* Deep nesting and long lists cost memory up to a limit, never the stack of the machine. */
static void bounds_what_it_keeps(void **state)
{
    (void)state;
    enum { N = 3 << 20 };
    static const struct {
        char repeated;
        const char *says;
    } cases[] = { { '(', "more than 1048576 values" }, { ')', "more than 1048576 values" }, { '\x85', "stack holds 0" } };
    char *bytes = malloc(N);
    assert_non_null(bytes);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ca_torch_pickle p;
        memset(bytes, cases[i].repeated, N);
        assert_true(ca_torch_pickle_read(bytes, N, "long", &p) != CA_OK);
        assert_non_null(strstr(ca_last_error(), cases[i].says));
    }
    bytes[0] = '}'; /* ((((dict))))) */
    ca_torch_pickle p;
    assert_int_equal(ca_torch_pickle_read(bytes, N, "deep", &p), CA_E_UNSUPPORTED);
    assert_non_null(strstr(ca_last_error(), "more than 1048576 values"));
    free(bytes);
}

/* The same storage is loaded again and again: as often as there may be tensors. */
static void bounds_loads(void **state)
{
    (void)state;
    enum { N = 1 << 14 };
    static const char first[] = "(" STR("\7", "storage") KIND("Float") STR("\1", "0") STR("\3", "cpu") "K\4tq\1Q";
    static char bytes[sizeof first + 3 * N + 1];
    memcpy(bytes, first, sizeof first - 1);
    for (size_t i = 0; i < N; i++) memcpy(bytes + sizeof first - 1 + 3 * i, i + 1 < N ? "h\1Q" : ".", i + 1 < N ? 3 : 1);
    ca_torch_pickle p;
    size_t len = sizeof first - 1 + 3 * (N - 1) + 1;
    assert_int_equal(read_copy(bytes, len, &p), CA_E_FORMAT);
    assert_non_null(strstr(ca_last_error(), "ends with 16384 values"));
    memcpy(bytes + len - 1, "h\1Q.", 4);
    assert_int_equal(read_copy(bytes, len + 3, &p), CA_E_UNSUPPORTED);
    assert_non_null(strstr(ca_last_error(), "more than 16384 loads"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_views_of_one_storage), cmocka_unit_test(reads_every_type_and_shape),
        cmocka_unit_test(refuses_bad_files),          cmocka_unit_test(refuses_a_damaged_storage),
        cmocka_unit_test(reads_and_refuses_pickles),  cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(bounds_what_it_keeps),       cmocka_unit_test(bounds_loads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
