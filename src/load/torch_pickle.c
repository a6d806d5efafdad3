#include "load/torch_pickle.h"

#include <stdlib.h>

#include "base/arith.h"
#include "base/reader.h"

/* Limits far above any gate file. */
enum { MAX_VALUES = 1 << 20, MAX_TENSORS = 1 << 14, MAX_LINE = 256 };

typedef enum kind { NOTHING, MARK, INTEGER, BOOL, STRING, TUPLE, DICT, GLOBAL, STORAGE, TENSOR } kind;

static const char *const kind_names[] = { "nothing", "a mark", "a whole number", "a bool",    "a string",
                                          "a tuple", "a dict", "a global",       "a storage", "a tensor" };

/* Values are small and refer to each other by index, so that no shape of the input can make a walk over them recur. */
typedef struct value {
    kind kind;
    uint32_t n; /* bytes of a string, items of a tuple */
    int64_t at; /* the number; offset of a string in the pickle; first of a tuple's items; index of the others */
} value;

typedef struct values {
    value *v;
    size_t n, cap;
} values;

typedef struct machine {
    ca_reader r;
    size_t op; /* offset of the opcode being executed */
    values stack, memo, items;
    values entries; /* of all dicts, three values each: dict, key, value */
    size_t n_dicts, n_tensors, n_loads, cap_tensors, cap_storages;
    ca_torch_tensor *tensors; /* not named yet */
    ca_torch_pickle *out;
} machine;

/* Messages name the offset of the opcode. */
#define refuse_as(m, status, ...) ((m)->r.pos = (m)->op, rd_fail_as(&(m)->r, status, __VA_ARGS__))
#define refuse(m, ...) refuse_as(m, CA_E_FORMAT, __VA_ARGS__)

/* ---- globals: the whole list of what a pickle may name ---- */

enum { ORDERED_DICT, REBUILD_TENSOR, FLOAT_STORAGE };

static const struct global {
    const char *module, *name;
    ca_block_type type; /* of a storage */
} globals[] = {
    [ORDERED_DICT] = { "collections", "OrderedDict", 0 },
    [REBUILD_TENSOR] = { "torch._utils", "_rebuild_tensor_v2", 0 },
    [FLOAT_STORAGE] = { "torch", "FloatStorage", CA_BLOCK_F32 }, /* storages from here on */
    { "torch", "HalfStorage", CA_BLOCK_F16 },
    { "torch", "BFloat16Storage", CA_BLOCK_BF16 },
};

enum { N_GLOBALS = sizeof globals / sizeof *globals };

/* ---- values ---- */

/* Room for one more element in an array that holds n; new room is zero. */
static ca_status grow(machine *m, void **array, size_t *cap, size_t n, size_t width, size_t limit)
{
    if (n < *cap) return CA_OK;
    if (n >= limit)
        return refuse_as(m, CA_E_UNSUPPORTED, "more than %zu values, far above what a checkpoint of gates needs", limit);
    size_t wanted = n < 32 ? 64 : 2 * n;
    if (wanted > limit) wanted = limit;
    void *grown = realloc(*array, wanted * width);
    if (!grown) return refuse_as(m, CA_E_MEMORY, "no memory for %zu values", wanted);
    memset((uint8_t *)grown + *cap * width, 0, (wanted - *cap) * width);
    *array = grown;
    *cap = wanted;
    return CA_OK;
}

static ca_status append(machine *m, values *list, value v)
{
    void *array = list->v;
    CA_TRY(grow(m, &array, &list->cap, list->n, sizeof v, MAX_VALUES));
    list->v = array;
    list->v[list->n++] = v;
    return CA_OK;
}

static ca_status push(machine *m, kind k, int64_t at, uint32_t n)
{
    return append(m, &m->stack, (value){ k, n, at });
}

/* The topmost n values, none of which is a mark. They stay where they are. */
static ca_status top(machine *m, size_t n, const value **out)
{
    if (m->stack.n < n) return refuse(m, "the opcode needs %zu values, the stack holds %zu", n, m->stack.n);
    *out = n > 0 ? m->stack.v + m->stack.n - n : NULL;
    for (size_t i = 0; i < n; i++)
        if ((*out)[i].kind == MARK) return refuse(m, "the opcode needs %zu values and meets a mark", n);
    return CA_OK;
}

/* Number of values above the topmost mark. */
static ca_status above_mark(machine *m, size_t *n)
{
    for (size_t i = m->stack.n; i > 0; i--) {
        if (m->stack.v[i - 1].kind != MARK) continue;
        *n = m->stack.n - i;
        return CA_OK;
    }
    return refuse(m, "the opcode needs a mark and there is none");
}

static const char *text_of(const machine *m, value v)
{
    return (const char *)m->r.data + v.at;
}

static bool string_is(const machine *m, value v, const char *text)
{
    return v.kind == STRING && v.n == strlen(text) && memcmp(text_of(m, v), text, v.n) == 0;
}

static ca_status expect(machine *m, value v, kind k, const char *what)
{
    return v.kind == k ? CA_OK : refuse(m, "%s is %s, expected %s", what, kind_names[v.kind], kind_names[k]);
}

static ca_status expect_size(machine *m, value v, const char *what, uint64_t *out)
{
    CA_TRY(expect(m, v, INTEGER, what));
    if (v.at < 0) return refuse(m, "%s is %" PRId64 ", negative", what, v.at);
    *out = (uint64_t)v.at;
    return CA_OK;
}

/* ---- opcodes ---- */

/* Replaces the topmost n values, and the mark under them when there is one, by a tuple. */
static ca_status make_tuple(machine *m, size_t n, size_t n_marks)
{
    const value *from;
    const int64_t first = (int64_t)m->items.n;
    CA_TRY(top(m, n, &from));
    for (size_t i = 0; i < n; i++) CA_TRY(append(m, &m->items, from[i]));
    m->stack.n -= n + n_marks;
    return push(m, TUPLE, first, (uint32_t)n);
}

/* Adds the topmost n values, keys and values in turn, to the dict under them. */
static ca_status set_items(machine *m, size_t n, size_t n_marks)
{
    const value *from;
    CA_TRY(top(m, n, &from));
    if (n % 2 != 0) return refuse(m, "a dict gets a key without a value");
    if (m->stack.n < n + n_marks + 1) return refuse(m, "the opcode needs a dict and the stack is empty");
    const value dict = m->stack.v[m->stack.n - n - n_marks - 1];
    CA_TRY(expect(m, dict, DICT, "what gets an item"));
    for (size_t i = 0; i < n; i += 2) {
        CA_TRY(append(m, &m->entries, dict));
        CA_TRY(append(m, &m->entries, from[i]));
        CA_TRY(append(m, &m->entries, from[i + 1]));
    }
    m->stack.n -= n + n_marks;
    return CA_OK;
}

static ca_status read_line(machine *m, const char **text, int *len)
{
    const uint8_t *from = m->r.data + m->r.pos;
    const size_t left = rd_left(&m->r);
    const uint8_t *end = left > 0 ? memchr(from, '\n', left < MAX_LINE ? left : MAX_LINE) : NULL;
    if (!end) return refuse(m, "the name of a global does not end within %d bytes", MAX_LINE);
    *text = (const char *)from;
    *len = (int)(end - from);
    m->r.pos += (size_t)*len + 1;
    return CA_OK;
}

static ca_status push_global(machine *m)
{
    const char *module, *name;
    int module_len, name_len;
    CA_TRY(read_line(m, &module, &module_len));
    CA_TRY(read_line(m, &name, &name_len));
    for (int i = 0; i < N_GLOBALS; i++) {
        const struct global *g = &globals[i];
        if ((size_t)module_len == strlen(g->module) && memcmp(module, g->module, (size_t)module_len) == 0 &&
            (size_t)name_len == strlen(g->name) && memcmp(name, g->name, (size_t)name_len) == 0)
            return push(m, GLOBAL, i, 0);
    }
    return refuse_as(m, CA_E_UNSUPPORTED, "global '%.*s.%.*s' is refused: only dicts of f32, f16 and bf16 tensors are read",
                     module_len, module, name_len, name);
}

static ca_status push_string(machine *m)
{
    uint32_t n;
    const uint8_t *text;
    CA_TRY(rd_u32(&m->r, &n));
    const size_t at = m->r.pos;
    CA_TRY(rd_bytes(&m->r, n, &text));
    return push(m, STRING, (int64_t)at, n);
}

/* LONG1: a byte count and a little-endian two's complement number. */
static ca_status push_long(machine *m)
{
    uint8_t n;
    const uint8_t *bytes;
    CA_TRY(rd_u8(&m->r, &n));
    if (n > sizeof(uint64_t)) return refuse(m, "a whole number of %u bytes; at most 8 are read", n);
    CA_TRY(rd_bytes(&m->r, n, &bytes));
    uint64_t bits = n > 0 && bytes[n - 1] >= 0x80 ? UINT64_MAX : 0;
    if (n > 0) memcpy(&bits, bytes, n);
    int64_t number;
    memcpy(&number, &bits, sizeof number);
    return push(m, INTEGER, number, 0);
}

static ca_status put(machine *m, size_t slot)
{
    const value *v;
    CA_TRY(top(m, 1, &v));
    if (slot >= MAX_VALUES) return refuse(m, "memo slot %zu; at most %d are kept", slot, MAX_VALUES);
    while (slot >= m->memo.n) CA_TRY(append(m, &m->memo, (value){ NOTHING, 0, 0 }));
    m->memo.v[slot] = *v;
    return CA_OK;
}

static ca_status get(machine *m, size_t slot)
{
    if (slot >= m->memo.n || m->memo.v[slot].kind == NOTHING) return refuse(m, "memo slot %zu is read and was never set", slot);
    return append(m, &m->stack, m->memo.v[slot]);
}

/* ('storage', type, key, device, number of elements) -> a storage; the device does not matter. Each looks through the storages that
 * are known, so there may be no more loads than tensors, which need one each. */
static ca_status load_storage(machine *m)
{
    const value *id;
    if (m->n_loads++ == MAX_TENSORS)
        return refuse_as(m, CA_E_UNSUPPORTED, "more than %d loads of a storage, far above what a checkpoint of gates needs",
                         MAX_TENSORS);
    CA_TRY(top(m, 1, &id));
    CA_TRY(expect(m, *id, TUPLE, "a persistent id"));
    const value *part = id->n == 5 ? m->items.v + id->at : NULL;
    if (!part || !string_is(m, part[0], "storage"))
        return refuse_as(m, CA_E_UNSUPPORTED, "a persistent id that is no ('storage', type, key, device, size)");
    CA_TRY(expect(m, part[1], GLOBAL, "the type of a storage"));
    if (part[1].at < FLOAT_STORAGE)
        return refuse(m, "'%s.%s' is no type of a storage", globals[part[1].at].module, globals[part[1].at].name);
    CA_TRY(expect(m, part[2], STRING, "the key of a storage"));
    CA_TRY(expect(m, part[3], STRING, "the device of a storage"));

    ca_torch_storage storage = { .type = globals[part[1].at].type };
    const char *key = text_of(m, part[2]);
    bool plain = part[2].n > 0 && part[2].n <= CA_TORCH_MAX_KEY;
    for (uint32_t i = 0; plain && i < part[2].n; i++) plain = key[i] >= '0' && key[i] <= '9';
    if (!plain) return refuse(m, "the key of a storage must be 1 to %d digits", CA_TORCH_MAX_KEY);
    memcpy(storage.key, key, part[2].n);
    CA_TRY(expect_size(m, part[4], "the size of a storage", &storage.n_elems));
    if (storage.n_elems > CA_TORCH_MAX_BYTES)
        return refuse(m, "storage '%s' of %" PRIu64 " elements is above the limit of 4 GiB", storage.key, storage.n_elems);

    ca_torch_pickle *out = m->out;
    size_t i = 0;
    while (i < out->n_storages && strcmp(out->storages[i].key, storage.key) != 0) i++;
    if (i < out->n_storages && (out->storages[i].type != storage.type || out->storages[i].n_elems != storage.n_elems))
        return refuse(m, "storage '%s' appears with two types or sizes", storage.key);
    if (i == out->n_storages) {
        void *array = out->storages;
        CA_TRY(grow(m, &array, &m->cap_storages, i, sizeof storage, MAX_TENSORS));
        out->storages = array;
        out->storages[out->n_storages++] = storage;
    }
    m->stack.n--;
    return push(m, STORAGE, (int64_t)i, 0);
}

/* Every element of the tensor lies in its storage: offset + sum of (dim - 1) * stride is below the storage's size. */
static ca_status check_range(machine *m, ca_torch_tensor *t, uint64_t n_elems)
{
    uint64_t last = t->offset, bytes = 0;
    bool overflow = false;
    t->n_elems = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        uint64_t reach = 0;
        if (t->dims[i] > 0) overflow |= __builtin_mul_overflow(t->dims[i] - 1, t->strides[i], &reach);
        overflow |= __builtin_add_overflow(last, reach, &last);
        overflow |= __builtin_mul_overflow(t->n_elems, t->dims[i], &t->n_elems);
    }
    overflow |= __builtin_mul_overflow(t->n_elems, 4, &bytes);
    if (overflow || bytes > CA_TORCH_MAX_BYTES) return refuse(m, "the shape or the strides of a tensor reach beyond 4 GiB");
    if (t->n_elems > 0 ? last >= n_elems : t->offset > n_elems)
        return refuse(m, "a tensor needs element %" PRIu64 " of storage '%s', which has %" PRIu64, last,
                      m->out->storages[t->storage].key, n_elems);
    return CA_OK;
}

/* _rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks) -> a tensor. */
static ca_status rebuild_tensor(machine *m, value args)
{
    if (args.n != 6) return refuse(m, "a tensor is rebuilt from %u values; 6 are known", args.n);
    const value *arg = m->items.v + args.at;
    CA_TRY(expect(m, arg[0], STORAGE, "the storage of a tensor"));
    CA_TRY(expect(m, arg[2], TUPLE, "the shape of a tensor"));
    CA_TRY(expect(m, arg[3], TUPLE, "the strides of a tensor"));
    CA_TRY(expect(m, arg[4], BOOL, "requires_grad of a tensor"));
    CA_TRY(expect(m, arg[5], DICT, "the hooks of a tensor"));
    if (arg[2].n > CA_TORCH_MAX_DIMS || arg[3].n != arg[2].n)
        return refuse(m, "a tensor of %u dimensions with %u strides; up to %d of each are read", arg[2].n, arg[3].n,
                      CA_TORCH_MAX_DIMS);
    ca_torch_tensor t = { .storage = (uint32_t)arg[0].at, .n_dims = arg[2].n };
    CA_TRY(expect_size(m, arg[1], "the offset of a tensor", &t.offset));
    for (uint32_t i = 0; i < t.n_dims; i++) {
        CA_TRY(expect_size(m, m->items.v[arg[2].at + i], "a dimension of a tensor", &t.dims[i]));
        CA_TRY(expect_size(m, m->items.v[arg[3].at + i], "a stride of a tensor", &t.strides[i]));
    }
    CA_TRY(check_range(m, &t, m->out->storages[t.storage].n_elems));
    void *array = m->tensors;
    CA_TRY(grow(m, &array, &m->cap_tensors, m->n_tensors, sizeof t, MAX_TENSORS));
    m->tensors = array;
    m->tensors[m->n_tensors++] = t;
    return push(m, TENSOR, (int64_t)m->n_tensors - 1, 0);
}

/* A call, of the two callables that are known. */
static ca_status reduce(machine *m)
{
    const value *call;
    CA_TRY(top(m, 2, &call));
    const value function = call[0], args = call[1];
    CA_TRY(expect(m, function, GLOBAL, "what is called"));
    CA_TRY(expect(m, args, TUPLE, "the arguments of a call"));
    m->stack.n -= 2;
    if (function.at == REBUILD_TENSOR) return rebuild_tensor(m, args);
    if (function.at == ORDERED_DICT && args.n == 0) return push(m, DICT, (int64_t)m->n_dicts++, 0);
    return refuse_as(m, CA_E_UNSUPPORTED, "a call of '%s.%s' with %u values is refused", globals[function.at].module,
                     globals[function.at].name, args.n);
}

/* Opcodes of any protocol that are refused, so that the message can name them. */
static const struct opcode_name {
    uint8_t op;
    const char *name;
} opcode_names[] = {
    { '0', "POP" },
    { '1', "POP_MARK" },
    { '2', "DUP" },
    { 'F', "FLOAT" },
    { 'I', "INT" },
    { 'L', "LONG" },
    { 'N', "NONE" },
    { 'P', "PERSID" },
    { 'S', "STRING" },
    { 'T', "BINSTRING" },
    { 'U', "SHORT_BINSTRING" },
    { 'V', "UNICODE" },
    { 'a', "APPEND" },
    { 'b', "BUILD" },
    { 'd', "DICT" },
    { 'e', "APPENDS" },
    { 'g', "GET" },
    { 'i', "INST" },
    { 'l', "LIST" },
    { ']', "EMPTY_LIST" },
    { 'o', "OBJ" },
    { 'p', "PUT" },
    { 'G', "BINFLOAT" },
    { 'B', "BINBYTES" },
    { 'C', "SHORT_BINBYTES" },
    { 0x81, "NEWOBJ" },
    { 0x82, "EXT1" },
    { 0x83, "EXT2" },
    { 0x84, "EXT4" },
    { 0x8b, "LONG4" },
    { 0x8c, "SHORT_BINUNICODE" },
    { 0x8d, "BINUNICODE8" },
    { 0x8e, "BINBYTES8" },
    { 0x8f, "EMPTY_SET" },
    { 0x90, "ADDITEMS" },
    { 0x91, "FROZENSET" },
    { 0x92, "NEWOBJ_EX" },
    { 0x93, "STACK_GLOBAL" },
    { 0x94, "MEMOIZE" },
    { 0x95, "FRAME" },
    { 0x96, "BYTEARRAY8" },
    { 0x97, "NEXT_BUFFER" },
    { 0x98, "READONLY_BUFFER" },
};

static ca_status refuse_opcode(machine *m, uint8_t op)
{
    const char *name = "unknown";
    for (size_t i = 0; i < sizeof opcode_names / sizeof *opcode_names; i++)
        if (opcode_names[i].op == op) name = opcode_names[i].name;
    return refuse_as(m, CA_E_UNSUPPORTED, "opcode 0x%02x (%s) is refused: only dicts of f32, f16 and bf16 tensors are read", op,
                     name);
}

static ca_status execute(machine *m, uint8_t op)
{
    uint8_t byte = 0;
    uint16_t word = 0;
    uint32_t number = 0;
    int32_t integer = 0;
    size_t n = 0;
    switch (op) {
    case 0x80: /* PROTO */
        CA_TRY(rd_u8(&m->r, &byte));
        return byte == 2 ? CA_OK : refuse_as(m, CA_E_UNSUPPORTED, "pickle protocol %u; torch.save writes 2, and 2 is read", byte);
    case '}': return push(m, DICT, (int64_t)m->n_dicts++, 0);
    case '(': return push(m, MARK, 0, 0);
    case ')': return make_tuple(m, 0, 0);
    case 0x85: return make_tuple(m, 1, 0);
    case 0x86: return make_tuple(m, 2, 0);
    case 0x87: return make_tuple(m, 3, 0);
    case 't': CA_TRY(above_mark(m, &n)); return make_tuple(m, n, 1);
    case 's': return set_items(m, 2, 0);
    case 'u': CA_TRY(above_mark(m, &n)); return set_items(m, n, 1);
    case 'X': return push_string(m);
    case 'J': CA_TRY(rd_i32(&m->r, &integer)); return push(m, INTEGER, integer, 0);
    case 'K': CA_TRY(rd_u8(&m->r, &byte)); return push(m, INTEGER, byte, 0);
    case 'M': CA_TRY(rd_u16(&m->r, &word)); return push(m, INTEGER, word, 0);
    case 0x8a: return push_long(m);
    case 0x88: return push(m, BOOL, 1, 0);
    case 0x89: return push(m, BOOL, 0, 0);
    case 'c': return push_global(m);
    case 'Q': return load_storage(m);
    case 'R': return reduce(m);
    case 'q': CA_TRY(rd_u8(&m->r, &byte)); return put(m, byte);
    case 'r': CA_TRY(rd_u32(&m->r, &number)); return put(m, number);
    case 'h': CA_TRY(rd_u8(&m->r, &byte)); return get(m, byte);
    case 'j': CA_TRY(rd_u32(&m->r, &number)); return get(m, number);
    default: return refuse_opcode(m, op);
    }
}

/* ---- result ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const ca_torch_tensor *)a)->name, ((const ca_torch_tensor *)b)->name);
}

static ca_status name_tensor(machine *m, value key, value v, ca_torch_tensor *out)
{
    CA_TRY(expect(m, key, STRING, "a key of the dict"));
    const char *text = text_of(m, key);
    bool printable = key.n > 0 && key.n <= CA_TORCH_MAX_NAME;
    for (uint32_t i = 0; printable && i < key.n; i++) printable = text[i] > ' ' && text[i] < 0x7f;
    if (!printable) return refuse(m, "a key of the dict is no name of 1 to %d printable ASCII characters", CA_TORCH_MAX_NAME);
    if (v.kind != TENSOR)
        return refuse(m, "entry '%.*s' of the dict is %s, expected a tensor", (int)key.n, text, kind_names[v.kind]);
    *out = m->tensors[v.at];
    memcpy(out->name, text, key.n);
    return CA_OK;
}

/* The tensors of the dict that is left on the stack. */
static ca_status collect(machine *m)
{
    ca_torch_pickle *out = m->out;
    uint64_t bytes = 0;
    if (m->stack.n != 1) return refuse(m, "the pickle ends with %zu values, expected one", m->stack.n);
    const value dict = m->stack.v[0];
    CA_TRY(expect(m, dict, DICT, "the content of the pickle"));
    const size_t left = rd_left(&m->r);
    if (left > 0) return refuse(m, "%zu bytes follow the end of the pickle", left);
    if (m->entries.n / 3 > MAX_TENSORS) return refuse(m, "a dict of more than %d entries", MAX_TENSORS);
    out->tensors = calloc(m->entries.n / 3 + 1, sizeof *out->tensors);
    if (!out->tensors) return refuse_as(m, CA_E_MEMORY, "no memory for %zu tensors", m->entries.n / 3);
    for (size_t i = 0; i < m->entries.n; i += 3) {
        const value *entry = m->entries.v + i;
        if (entry->at != dict.at) continue;
        ca_torch_tensor *t = &out->tensors[out->n_tensors];
        CA_TRY(name_tensor(m, entry[1], entry[2], t));
        out->n_tensors++;
        bytes += t->n_elems * ca_block_format_of((uint32_t)out->storages[t->storage].type)->n_bytes; /* each below 2^32 */
    }
    if (bytes > CA_TORCH_MAX_BYTES) return refuse(m, "the tensors take %" PRIu64 " bytes, above the limit of 4 GiB", bytes);
    qsort(out->tensors, out->n_tensors, sizeof *out->tensors, by_name);
    for (size_t i = 1; i < out->n_tensors; i++)
        if (strcmp(out->tensors[i - 1].name, out->tensors[i].name) == 0)
            return refuse(m, "tensor '%s' is there twice", out->tensors[i].name);
    return CA_OK;
}

static ca_status run(machine *m)
{
    enum { STOP = '.' };
    for (;;) {
        uint8_t op;
        m->op = m->r.pos;
        CA_TRY(rd_u8(&m->r, &op));
        if (op == STOP) return collect(m);
        CA_TRY(execute(m, op));
    }
}

ca_status ca_torch_pickle_read(const void *data, size_t size, const char *name, ca_torch_pickle *out)
{
    *out = (ca_torch_pickle){ 0 };
    machine m = { .r = { .data = data, .size = size, .name = name }, .out = out };
    const ca_status st = run(&m);
    free(m.stack.v);
    free(m.memo.v);
    free(m.items.v);
    free(m.entries.v);
    free(m.tensors);
    if (st != CA_OK) ca_torch_pickle_free(out);
    return st;
}

void ca_torch_pickle_free(ca_torch_pickle *pickle)
{
    free(pickle->tensors);
    free(pickle->storages);
    *pickle = (ca_torch_pickle){ 0 };
}
