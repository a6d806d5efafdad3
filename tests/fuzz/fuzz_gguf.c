/* Any bytes as a GGUF file: whatever opens can be walked, asked for every key with every getter, and dequantized. */
#include <stdlib.h>
#include <string.h>

#include "load/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_meta(const ca_gguf *g, size_t i)
{
    char text[96], key[64];
    ca_str name;
    const char *type;
    ca_gguf_meta_text(g, i, &name, &type, text, 1 + i % sizeof text);
    ca_str_text(name, key, sizeof key);
    if (strlen(key) != name.len) return; /* cut, or not printable */
    uint32_t u;
    float f;
    bool b;
    ca_str s;
    size_t n;
    const ca_str *strs;
    const int32_t *ints;
    const float *floats;
    (void)ca_gguf_u32_or(g, key, 0, &u);
    (void)ca_gguf_f32_or(g, key, 0, &f);
    (void)ca_gguf_bool_or(g, key, false, &b);
    uint32_t sum = 0;
    if (ca_gguf_str_or(g, key, (ca_str){ "", 0 }, &s) == CA_OK && s.len) sum += (uint8_t)s.data[s.len - 1];
    if (ca_gguf_strs(g, key, &strs, &n) == CA_OK)
        for (size_t j = 0; j < n; j++) sum += strs[j].len ? (uint8_t)strs[j].data[strs[j].len - 1] : 0;
    if (ca_gguf_i32s(g, key, &ints, &n) == CA_OK)
        for (size_t j = 0; j < n; j++) sum += (uint32_t)ints[j];
    if (ca_gguf_f32s(g, key, &floats, &n) == CA_OK)
        for (size_t j = 0; j < n; j++) sum += floats[j] > 0;
    *(volatile uint32_t *)&sum = sum;
}

static void use_tensor(const ca_gguf *g, const ca_tensor *t)
{
    const ca_block_format *format = ca_block_format_of((uint32_t)t->type);
    char name[64];
    const ca_tensor *same;
    ca_str_text(t->name, name, sizeof name);
    (void)ca_gguf_tensor(g, name, t->n_dims, t->dims, &same);
    const size_t blocks = (size_t)t->dims[0] / format->n_elems;
    float *row = malloc((size_t)t->dims[0] * sizeof *row);
    if (!row) return;
    ca_block_floats(format, t->data, blocks, row);
    ca_block_floats(format, (const uint8_t *)t->data + t->bytes - blocks * format->n_bytes, blocks, row);
    free(row);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ca_gguf *g;
    if (ca_gguf_open_memory(data, size, "fuzz", &g) != CA_OK) {
        if (!*ca_last_error() || g) abort();
        return 0;
    }
    for (size_t i = 0; i < ca_gguf_n_meta(g); i++) use_meta(g, i);
    for (size_t i = 0; i < ca_gguf_n_tensors(g); i++) use_tensor(g, ca_gguf_tensor_at(g, i));
    ca_gguf_close(g);
    return 0;
}
