#include <compactattn/model.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load/store.h"

enum { NAME = 256, VALUE = 16 << 10 };

static void visit_gguf(const ca_gguf *gguf, const ca_file_visitor *visitor)
{
    char name[NAME], value[VALUE];
    for (size_t i = 0; i < ca_gguf_n_meta(gguf); i++) {
        ca_str key;
        const char *type;
        ca_gguf_meta_text(gguf, i, &key, &type, value, sizeof value);
        ca_str_text(key, name, sizeof name);
        visitor->on_meta(visitor->user, name, type, value);
    }
}

/* The values of an object, as "prefix" + key; those of objects in it apart, unless it is the last level. */
static void visit_object(const json_t *object, const char *prefix, bool last, const ca_file_visitor *visitor)
{
    static const char *const types[] = { "object", "array", "string", "integer", "number", "bool", "bool", "null" };
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        char name[NAME], part[NAME / 2], text[VALUE];
        if (!last && json_is_object(value)) continue;
        ca_str_text((ca_str){ key, strlen(key) }, part, sizeof part);
        (void)snprintf(name, sizeof name, "%.120s%s", prefix, part);
        char *dump = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
        const char *shown = json_is_string(value) ? json_string_value(value) : dump != NULL ? dump : "";
        ca_str_text((ca_str){ shown, strlen(shown) }, text, sizeof text);
        visitor->on_meta(visitor->user, name, types[json_typeof(value)], text);
        free(dump);
    }
}

/* All of config.json are hyper-parameters: keys start with the architecture, as in a GGUF file. */
static void visit_config(const ca_store *store, const ca_file_visitor *visitor)
{
    const json_t *config = ca_store_config(store);
    const char *key, *path = ca_store_path(store), *slash = strrchr(path, '/');
    json_t *value;
    char type[64], prefix[NAME / 2], text[NAME];
    const char *model_type = json_string_value(json_object_get(config, "model_type"));
    if (model_type == NULL) model_type = "model";
    ca_str_text((ca_str){ model_type, strlen(model_type) }, type, sizeof type);
    visitor->on_meta(visitor->user, "general.architecture", "string", type);
    if (slash != NULL) path = slash + 1;
    ca_str_text((ca_str){ path, strlen(path) }, text, sizeof text);
    visitor->on_meta(visitor->user, "general.name", "string", text);
    (void)snprintf(prefix, sizeof prefix, "%s.", type);
    visit_object(config, prefix, false, visitor);
    json_object_foreach((json_t *)(uintptr_t)config, key, value)
    {
        if (!json_is_object(value)) continue;
        ca_str_text((ca_str){ key, strlen(key) }, text, 48);
        (void)snprintf(prefix, sizeof prefix, "%s.%.47s.", type, text);
        visit_object(value, prefix, true, visitor);
    }
}

ca_status ca_model_inspect(const char *path, const ca_file_visitor *visitor)
{
    if (!path || !visitor) return ca_fail(CA_E_ARG, "ca_model_inspect: path or visitor is NULL");
    ca_store *store;
    char name[NAME];
    CA_TRY(ca_store_open(path, &store));
    if (visitor->on_meta && ca_store_gguf(store))
        visit_gguf(ca_store_gguf(store), visitor);
    else if (visitor->on_meta)
        visit_config(store, visitor);
    for (size_t i = 0; visitor->on_tensor && i < ca_store_n_tensors(store); i++) {
        const ca_tensor *t = ca_store_tensor_at(store, i);
        ca_str_text(t->name, name, sizeof name);
        visitor->on_tensor(visitor->user, name, ca_store_type_name(store, t), t->dims, t->n_dims, t->offset, t->bytes);
    }
    ca_store_close(store);
    return CA_OK;
}
