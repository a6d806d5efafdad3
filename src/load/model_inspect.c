#include <compactattn/model.h>

#include "load/gguf.h"

ca_status ca_model_inspect(const char *path, const ca_file_visitor *visitor)
{
    if (!path || !visitor) return ca_fail(CA_E_ARG, "ca_model_inspect: path or visitor is NULL");
    ca_gguf *gguf;
    char name[256], value[16 << 10];
    CA_TRY(ca_gguf_open(path, &gguf));
    for (size_t i = 0; visitor->on_meta && i < ca_gguf_n_meta(gguf); i++) {
        ca_str key;
        const char *type;
        ca_gguf_meta_text(gguf, i, &key, &type, value, sizeof value);
        ca_str_text(key, name, sizeof name);
        visitor->on_meta(visitor->user, name, type, value);
    }
    for (size_t i = 0; visitor->on_tensor && i < ca_gguf_n_tensors(gguf); i++) {
        const ca_tensor *t = ca_gguf_tensor_at(gguf, i);
        ca_str_text(t->name, name, sizeof name);
        visitor->on_tensor(visitor->user, name, ca_block_format_of(t->type)->name, t->dims, t->n_dims, t->offset, t->bytes);
    }
    ca_gguf_close(gguf);
    return CA_OK;
}
