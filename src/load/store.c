#include "load/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arith.h"
#include "load/json_file.h"
#include "load/safetensors.h"

enum { MAX_DIMS = 4 };

typedef struct stored {
    ca_tensor tensor; /* first: a tensor's address is its entry's */
    const char *type; /* as the file says */
    bool readable;
} stored;

/* One of the two is set. */
typedef struct part {
    ca_gguf *gguf;
    ca_safetensors *st;
} part;

struct ca_store {
    char *path, *meta_path;
    json_t *config, *map; /* config.json; "weight_map" of the index while the shards are opened */
    part *parts;
    size_t n_parts, n_tensors;
    stored *tensors;       /* part by part */
    const stored **sorted; /* by name */
};

/* ---- names ---- */

static int compare_names(const ca_str *x, const ca_str *y)
{
    const int order = memcmp(x->data, y->data, x->len < y->len ? x->len : y->len);
    return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

static int by_name(const void *a, const void *b)
{
    return compare_names(&(*(const stored *const *)a)->tensor.name, &(*(const stored *const *)b)->tensor.name);
}

static ca_status sort_names(ca_store *s)
{
    for (size_t i = 0; i < s->n_tensors; i++) s->sorted[i] = &s->tensors[i];
    qsort(s->sorted, s->n_tensors, sizeof *s->sorted, by_name);
    for (size_t i = 1; i < s->n_tensors; i++) {
        const ca_str name = s->sorted[i]->tensor.name;
        if (compare_names(&name, &s->sorted[i - 1]->tensor.name) == 0)
            return ca_fail(CA_E_FORMAT, "%s: tensor '%.*s' is in two of its files", s->path, name.len < 100 ? (int)name.len : 100,
                           name.data);
    }
    return CA_OK;
}

static ca_status reserve(ca_store *s, size_t n_tensors)
{
    s->tensors = calloc(n_tensors + 1, sizeof *s->tensors);
    s->sorted = calloc(n_tensors + 1, sizeof *s->sorted);
    if (s->tensors == NULL || s->sorted == NULL) return ca_fail(CA_E_MEMORY, "%s: no memory for %zu tensors", s->path, n_tensors);
    return CA_OK;
}

/* folder/name, or a plain copy when folder is NULL; the caller frees it. */
static ca_status join(const char *folder, const char *name, char **out)
{
    const size_t cap = (folder != NULL ? strlen(folder) : 0) + strlen(name) + 2;
    *out = malloc(cap);
    if (*out == NULL) return ca_fail(CA_E_MEMORY, "%s: no memory to open it", name);
    (void)snprintf(*out, cap, "%s%s%s", folder != NULL ? folder : "", folder != NULL ? "/" : "", name);
    return CA_OK;
}

/* ---- GGUF ---- */

static const char part_suffix[] = "-00001-of-00001.gguf"; /* digits stand for any digit */

/* Number of parts that the name of a file tells, 0 when it tells none. */
static uint32_t parts_by_name(const char *path)
{
    const size_t len = strlen(path), n = sizeof part_suffix - 1;
    if (len <= n) return 0;
    const char *tail = path + len - n;
    for (size_t i = 0; i < n; i++) {
        const bool digit = part_suffix[i] >= '0' && part_suffix[i] <= '9';
        if (digit ? tail[i] < '0' || tail[i] > '9' : tail[i] != part_suffix[i]) return 0;
    }
    return (uint32_t)strtoul(tail + sizeof "-00001-of-" - 1, NULL, 10);
}

static ca_status check_part(const ca_gguf *gguf, uint32_t i, uint32_t n)
{
    uint32_t count = 0, number = 0;
    CA_TRY(ca_gguf_u32_or(gguf, "split.count", 1, &count));
    CA_TRY(ca_gguf_u32_or(gguf, "split.no", 0, &number));
    if (count == n && number == i) return CA_OK;
    return ca_fail(CA_E_FORMAT, "%s: is part %" PRIu64 " of %u by its keys 'split.no' and 'split.count', part %u of %u by its name",
                   ca_gguf_path(gguf), (uint64_t)number + 1, count, i + 1, n);
}

/* n parts, named after the path. */
static ca_status open_parts(ca_store *s, uint32_t n)
{
    char *name;
    ca_status st = CA_OK;
    CA_TRY(join(NULL, s->path, &name));
    char *suffix = name + strlen(name) - (sizeof part_suffix - 1);
    for (uint32_t i = 0; i < n; i++) {
        (void)snprintf(suffix, sizeof part_suffix, "-%05u-of-%05u.gguf", (i + 1) % 100000, n % 100000);
        if (access(name, F_OK) != 0)
            CA_TRY_GOTO(ca_fail(CA_E_IO, "%s: part %u of %u is missing: all parts must be in one folder", name, i + 1, n), done);
        CA_TRY_GOTO(ca_gguf_open(name, &s->parts[i].gguf), done);
        s->n_parts++;
        CA_TRY_GOTO(check_part(s->parts[i].gguf, i, n), done);
    }
done:
    free(name);
    return st;
}

static ca_status list_gguf(ca_store *s)
{
    size_t n = 0;
    uint32_t expected = 0;
    for (size_t i = 0; i < s->n_parts; i++) n += ca_gguf_n_tensors(s->parts[i].gguf);
    CA_TRY(ca_gguf_u32_or(s->parts[0].gguf, "split.tensors.count", (uint32_t)n, &expected));
    if (expected != n)
        return ca_fail(CA_E_FORMAT, "%s: its parts hold %zu tensors, key 'split.tensors.count' says %u", s->path, n, expected);
    CA_TRY(reserve(s, n));
    for (size_t i = 0; i < s->n_parts; i++)
        for (size_t t = 0; t < ca_gguf_n_tensors(s->parts[i].gguf); t++) {
            const ca_tensor *tensor = ca_gguf_tensor_at(s->parts[i].gguf, t);
            s->tensors[s->n_tensors++] = (stored){ *tensor, ca_block_format_of((uint32_t)tensor->type)->name, true };
        }
    return CA_OK;
}

static bool ends_with(const char *text, const char *end)
{
    return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

static ca_status open_gguf(ca_store *s)
{
    const uint32_t n = parts_by_name(s->path);
    if (ends_with(s->path, ".safetensors") || ends_with(s->path, ".json"))
        return ca_fail(CA_E_ARG, "%s: is one file of a model's folder: give the folder", s->path);
    s->parts = calloc((size_t)n + 1, sizeof *s->parts);
    if (s->parts == NULL) return ca_fail(CA_E_MEMORY, "%s: no memory to open it", s->path);
    if (n > 0) {
        CA_TRY(open_parts(s, n));
    } else {
        uint32_t count = 0;
        CA_TRY(ca_gguf_open(s->path, &s->parts[0].gguf));
        s->n_parts = 1;
        CA_TRY(ca_gguf_u32_or(s->parts[0].gguf, "split.count", 1, &count));
        if (count > 1)
            return ca_fail(CA_E_UNSUPPORTED,
                           "%s: is one of %u parts of a split model (split.count): give them their names back, "
                           "NAME-00001-of-%05u.gguf and so on",
                           s->path, count, count);
    }
    CA_TRY(join(NULL, ca_gguf_path(s->parts[0].gguf), &s->meta_path));
    return list_gguf(s);
}

/* ---- Hugging Face folder ---- */

static ca_status open_shard(ca_store *s, const char *name)
{
    char *path;
    CA_TRY(join(s->path, name, &path));
    ca_status st = CA_OK;
    if (access(path, F_OK) != 0)
        st = ca_fail(CA_E_IO, "%s: is missing: model.safetensors.index.json asks for it", path);
    else
        st = ca_safetensors_open(path, &s->parts[s->n_parts].st);
    if (st == CA_OK) s->n_parts++;
    free(path);
    return st;
}

/* The open shard of this file name. */
static const ca_safetensors *find_shard(const ca_store *s, const char *name)
{
    for (size_t i = s->n_parts; i > 0; i--) {
        const char *path = ca_safetensors_path(s->parts[i - 1].st);
        if (strcmp(path + strlen(s->path) + 1, name) == 0) return s->parts[i - 1].st;
    }
    return NULL;
}

/* Opens every shard of the index, and checks that each tensor is where the index says. */
static ca_status open_shards(ca_store *s, const char *index_path)
{
    const char *name;
    json_t *index = NULL, *value;
    ca_status st = ca_json_file_read(index_path, &index);
    if (st == CA_OK) {
        s->map = json_incref(json_object_get(index, "weight_map"));
        if (!json_is_object(s->map) || json_object_size(s->map) == 0)
            st = ca_fail(CA_E_FORMAT, "%s: has no \"weight_map\" of tensors and files", index_path);
    }
    json_decref(index);
    CA_TRY(st);
    s->parts = calloc(json_object_size(s->map), sizeof *s->parts);
    if (s->parts == NULL) return ca_fail(CA_E_MEMORY, "%s: no memory for %zu tensors", index_path, json_object_size(s->map));
    json_object_foreach(s->map, name, value)
    {
        const char *file = json_string_value(value);
        if (file == NULL || *file == '\0' || strchr(file, '/') != NULL)
            return ca_fail(CA_E_FORMAT, "%s: the file of tensor '%.100s' is no plain file name", index_path, name);
        if (find_shard(s, file) == NULL) CA_TRY(open_shard(s, file));
        if (ca_safetensors_find(find_shard(s, file), name) == NULL)
            return ca_fail(CA_E_FORMAT, "%s: tensor '%.100s' is said to be in '%.100s', which does not have it", index_path, name,
                           file);
    }
    return CA_OK;
}

/* Dimensions turn around; those that four cannot hold are folded into the last and make a tensor unreadable. */
static stored stored_of(const ca_st_tensor *t)
{
    stored s = { .tensor = { .name = { t->name, strlen(t->name) },
                             .type = t->format != NULL ? t->format->type : (ca_block_type)CA_BLOCK_F32,
                             .n_dims = ca_max_u32(1, ca_min_u32(t->n_dims, MAX_DIMS)),
                             .dims = { 1, 1, 1, 1 },
                             .data = t->data,
                             .bytes = t->bytes,
                             .offset = t->offset },
                 .type = t->dtype,
                 .readable = t->format != NULL && t->n_dims <= MAX_DIMS };
    for (uint32_t i = 0; i < t->n_dims; i++) s.tensor.dims[ca_min_u32(i, MAX_DIMS - 1)] *= t->dims[t->n_dims - 1 - i];
    return s;
}

static ca_status open_weights(ca_store *s)
{
    char *single, *index = NULL;
    CA_TRY(join(s->path, "model.safetensors", &single));
    ca_status st = join(s->path, "model.safetensors.index.json", &index);
    if (st == CA_OK && access(single, F_OK) == 0) {
        s->parts = calloc(1, sizeof *s->parts);
        if (s->parts == NULL)
            st = ca_fail(CA_E_MEMORY, "%s: no memory to open it", single);
        else
            st = ca_safetensors_open(single, &s->parts[0].st);
        s->n_parts = st == CA_OK ? 1 : 0;
    } else if (st == CA_OK && access(index, F_OK) == 0) {
        st = open_shards(s, index);
    } else if (st == CA_OK) {
        st = ca_fail(CA_E_IO, "%s: holds neither model.safetensors nor model.safetensors.index.json", s->path);
    }
    free(single);
    free(index);
    return st;
}

static ca_status open_folder(ca_store *s)
{
    size_t n = 0;
    CA_TRY(join(s->path, "config.json", &s->meta_path));
    if (access(s->meta_path, F_OK) != 0)
        return ca_fail(CA_E_IO, "%s: is a folder without config.json: give a GGUF file or a model's folder", s->path);
    CA_TRY(ca_json_file_read(s->meta_path, &s->config));
    CA_TRY(open_weights(s));
    json_decref(s->map);
    s->map = NULL;
    for (size_t i = 0; i < s->n_parts; i++) n += ca_safetensors_n_tensors(s->parts[i].st);
    CA_TRY(reserve(s, n));
    for (size_t i = 0; i < s->n_parts; i++)
        for (size_t t = 0; t < ca_safetensors_n_tensors(s->parts[i].st); t++)
            s->tensors[s->n_tensors++] = stored_of(ca_safetensors_tensor_at(s->parts[i].st, t));
    return CA_OK;
}

/* ---- the store ---- */

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The path without slashes at its end. */
static ca_status keep_path(const char *path, ca_store *s)
{
    CA_TRY(join(NULL, path, &s->path));
    for (size_t n = strlen(s->path); n > 1 && s->path[n - 1] == '/'; n--) s->path[n - 1] = '\0';
    return CA_OK;
}

ca_status ca_store_open(const char *path, ca_store **out)
{
    *out = NULL;
    if (path == NULL) return ca_fail(CA_E_ARG, "model: path is NULL");
    ca_store *s = calloc(1, sizeof *s);
    if (s == NULL) return ca_fail(CA_E_MEMORY, "%s: no memory to open it", path);
    ca_status st;
    CA_TRY_GOTO(keep_path(path, s), failed);
    CA_TRY_GOTO(is_folder(path) ? open_folder(s) : open_gguf(s), failed);
    CA_TRY_GOTO(sort_names(s), failed);
    *out = s;
    return CA_OK;
failed:
    ca_store_close(s);
    return st;
}

ca_status ca_store_open_config(const char *path, ca_store **out)
{
    *out = NULL;
    if (path == NULL) return ca_fail(CA_E_ARG, "model: path is NULL");
    ca_store *s = calloc(1, sizeof *s);
    if (s == NULL) return ca_fail(CA_E_MEMORY, "%s: no memory to open it", path);
    ca_status st;
    CA_TRY_GOTO(keep_path(path, s), failed);
    CA_TRY_GOTO(is_folder(path) ? join(s->path, "config.json", &s->meta_path) : join(NULL, s->path, &s->meta_path), failed);
    CA_TRY_GOTO(ca_json_file_read(s->meta_path, &s->config), failed);
    CA_TRY_GOTO(reserve(s, 0), failed);
    if (ends_with(s->path, "/config.json"))
        s->path[strlen(s->path) - strlen("/config.json")] = '\0';
    else if (ends_with(s->path, ".json"))
        s->path[strlen(s->path) - strlen(".json")] = '\0';
    *out = s;
    return CA_OK;
failed:
    ca_store_close(s);
    return st;
}

void ca_store_close(ca_store *store)
{
    if (store == NULL) return;
    for (size_t i = 0; i < store->n_parts; i++) {
        ca_gguf_close(store->parts[i].gguf);
        ca_safetensors_close(store->parts[i].st);
    }
    json_decref(store->config);
    json_decref(store->map);
    free(store->parts);
    free(store->tensors);
    free(store->sorted);
    free(store->path);
    free(store->meta_path);
    free(store);
}

const char *ca_store_path(const ca_store *store)
{
    return store->path;
}

const char *ca_store_meta_path(const ca_store *store)
{
    return store->meta_path;
}

uint64_t ca_store_file_bytes(const ca_store *store)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < store->n_parts; i++)
        bytes += store->parts[i].gguf != NULL ? ca_gguf_file_bytes(store->parts[i].gguf)
                                              : ca_safetensors_file_bytes(store->parts[i].st);
    return bytes;
}

const ca_gguf *ca_store_gguf(const ca_store *store)
{
    return store->config == NULL ? store->parts[0].gguf : NULL;
}

const json_t *ca_store_config(const ca_store *store)
{
    return store->config;
}

size_t ca_store_n_tensors(const ca_store *store)
{
    return store->n_tensors;
}

const ca_tensor *ca_store_tensor_at(const ca_store *store, size_t i)
{
    return &store->tensors[i].tensor;
}

size_t ca_store_index(const ca_store *store, const ca_tensor *tensor)
{
    return (size_t)((const stored *)(const void *)tensor - store->tensors);
}

const char *ca_store_type_name(const ca_store *store, const ca_tensor *tensor)
{
    return store->tensors[ca_store_index(store, tensor)].type;
}

const ca_tensor *ca_store_find(const ca_store *store, const char *name)
{
    const stored wanted = { .tensor = { .name = { name, strlen(name) } } }, *const key = &wanted;
    const stored *const *hit = bsearch(&key, store->sorted, store->n_tensors, sizeof *store->sorted, by_name);
    return hit != NULL ? &(*hit)->tensor : NULL;
}

/* In the order that the files use: GGUF fastest first, safetensors slowest first. */
static const char *dims_text(const ca_store *s, uint32_t n, const uint64_t *dims, char *buf, size_t cap)
{
    uint64_t turned[MAX_DIMS];
    for (uint32_t i = 0; i < n; i++) turned[i] = dims[s->config != NULL ? n - 1 - i : i];
    return ca_st_dims_text(n, turned, buf, cap);
}

ca_status ca_store_tensor(const ca_store *store, const char *name, uint32_t n_dims, const uint64_t *dims, const ca_tensor **out)
{
    char expected[96];
    const ca_tensor *t = ca_store_find(store, name);
    (void)dims_text(store, n_dims, dims, expected, sizeof expected);
    if (t == NULL) return ca_fail(CA_E_FORMAT, "%s: tensor '%s' is missing, expected with dims %s", store->path, name, expected);
    if (!store->tensors[ca_store_index(store, t)].readable)
        return ca_fail(CA_E_UNSUPPORTED, "%s: tensor '%s' is of type %.32s and %u dimensions, which has no reader", store->path,
                       name, ca_store_type_name(store, t), t->n_dims);
    if (t->n_dims != n_dims || memcmp(t->dims, dims, n_dims * sizeof *dims) != 0) {
        char found[96];
        return ca_fail(CA_E_FORMAT, "%s: tensor '%s' has dims %s, expected %s", store->path, name,
                       dims_text(store, t->n_dims, t->dims, found, sizeof found), expected);
    }
    *out = t;
    return CA_OK;
}
