/* Any bytes as a safetensors file: whatever opens can be walked, found by name and turned into floats. */
#include <stdlib.h>
#include <string.h>

#include "load/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_tensor(const ca_safetensors *st, const ca_st_tensor *t)
{
    const ca_st_tensor *same;
    char text[64];
    float *out = malloc(t->n_elems < 4096 ? t->n_elems * sizeof *out + 1 : 1);
    if (ca_safetensors_find(st, t->name) != t || ca_safetensors_tensor(st, t->name, t->n_dims, t->dims, &same) != CA_OK) abort();
    if (strlen(ca_st_dims_text(t->n_dims, t->dims, text, sizeof text)) >= sizeof text) abort();
    if (out && t->n_elems < 4096 && (ca_safetensors_f32(st, t, 0, t->n_elems, out) == CA_OK) != (t->format != NULL)) abort();
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ca_safetensors *st;
    if (ca_safetensors_open_memory(data, size, "fuzz", &st) != CA_OK) {
        if (!*ca_last_error() || st) abort();
        return 0;
    }
    size_t bytes = 0;
    for (size_t i = 0; i < ca_safetensors_n_tensors(st); i++) {
        use_tensor(st, ca_safetensors_tensor_at(st, i));
        bytes += ca_safetensors_tensor_at(st, i)->bytes;
    }
    if (bytes > size) abort();
    (void)ca_safetensors_meta(st, "gate_type");
    ca_safetensors_close(st);
    return 0;
}
