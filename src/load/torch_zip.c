#include "load/torch_zip.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

#include "base/mapfile.h"

enum {
    PICKLE_MAX = 16 << 20, /* bytes */
    ROOT_MAX = 512,        /* characters of an entry's folder */
    DEFLATE_MAX = 1032     /* a deflated byte holds at most so many */
};

struct ca_torch {
    ca_mapfile map;
    zip_t *zip; /* reads from the map */
    char *path;
    char root[ROOT_MAX];
    ca_torch_pickle pickle;
    uint64_t *entries;  /* [n_storages]: index in the zip */
    uint8_t **storages; /* [n_storages]: bytes, or NULL before the first read */
};

static uint32_t width_of(const ca_torch *torch, const ca_torch_tensor *t)
{
    return ca_block_format_of((uint32_t)torch->pickle.storages[t->storage].type)->n_bytes;
}

/* ---- entries ---- */

/* Size of an entry that can be read and is at most max bytes. */
static ca_status entry_size(const ca_torch *torch, uint64_t entry, uint64_t max, uint64_t *out)
{
    zip_stat_t s;
    const uint64_t needed = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    zip_stat_init(&s);
    if (zip_stat_index(torch->zip, entry, 0, &s) != 0 || (s.valid & needed) != needed)
        return ca_fail(CA_E_FORMAT, "%s: entry %" PRIu64 " of the zip: %s", torch->path, entry, zip_strerror(torch->zip));
    const char *name = zip_get_name(torch->zip, entry, 0);
    if (!name) name = "?";
    if (s.encryption_method != ZIP_EM_NONE || (s.comp_method != ZIP_CM_STORE && s.comp_method != ZIP_CM_DEFLATE))
        return ca_fail(CA_E_UNSUPPORTED, "%s: entry '%.200s' is encrypted or compressed by method %u; stored and deflated are read",
                       torch->path, name, s.comp_method);
    if (s.size > max || s.comp_size > torch->map.size || s.size / DEFLATE_MAX > s.comp_size)
        return ca_fail(CA_E_FORMAT, "%s: entry '%.200s' says %" PRIu64 " bytes from %" PRIu64 "; at most %" PRIu64 " are read",
                       torch->path, name, (uint64_t)s.size, (uint64_t)s.comp_size, max);
    *out = s.size;
    return CA_OK;
}

/* The whole entry of size bytes; libzip checks its CRC. The caller frees *out. */
static ca_status read_entry(const ca_torch *torch, uint64_t entry, uint64_t size, uint8_t **out)
{
    ca_status st = CA_OK;
    uint8_t extra;
    uint64_t n = 0;
    uint8_t *data = malloc(size > 0 ? (size_t)size : 1);
    zip_file_t *file = zip_fopen_index(torch->zip, entry, 0);
    if (!data)
        st = ca_fail(CA_E_MEMORY, "%s: no memory for an entry of %" PRIu64 " bytes", torch->path, size);
    else if (!file)
        st = ca_fail(CA_E_FORMAT, "%s: entry %" PRIu64 " of the zip: %s", torch->path, entry, zip_strerror(torch->zip));
    while (st == CA_OK && n < size) {
        const zip_int64_t got = zip_fread(file, data + n, size - n);
        if (got <= 0) break;
        n += (uint64_t)got;
    }
    /* Reading at the end lets libzip compare the CRC. */
    if (st == CA_OK && (n < size || zip_fread(file, &extra, 1) != 0)) {
        const char *why = zip_file_strerror(file);
        st = ca_fail(CA_E_FORMAT, "%s: entry '%.200s' is damaged or cut short: %s", torch->path, zip_get_name(torch->zip, entry, 0),
                     why);
    }
    if (file) (void)zip_fclose(file);
    if (st != CA_OK) {
        free(data);
        return st;
    }
    *out = data;
    return CA_OK;
}

/* Index of <root>/<name>, or -1. */
static int64_t find_entry(const ca_torch *torch, const char *name)
{
    char full[ROOT_MAX + 64];
    (void)snprintf(full, sizeof full, "%s/%s", torch->root, name);
    return zip_name_locate(torch->zip, full, 0);
}

/* ---- opening ---- */

static ca_status open_zip(ca_torch *torch)
{
    zip_error_t error;
    zip_error_init(&error);
    zip_source_t *source = zip_source_buffer_create(torch->map.data, torch->map.size, 0, &error);
    torch->zip = source ? zip_open_from_source(source, ZIP_RDONLY, &error) : NULL;
    ca_status st = CA_OK;
    if (!torch->zip) {
        st = ca_fail(CA_E_FORMAT, "%s: is no zip, as torch checkpoints are since torch 1.6: %s", torch->path,
                     zip_error_strerror(&error));
        if (source) zip_source_free(source);
    }
    zip_error_fini(&error);
    return st;
}

/* The one entry <root>/data.pkl with a root of one word gives the root. */
static ca_status find_pickle(ca_torch *torch, uint64_t *entry)
{
    static const char tail[] = "/data.pkl";
    const zip_int64_t n = zip_get_num_entries(torch->zip, 0);
    size_t found = 0;
    for (zip_int64_t i = 0; i < n; i++) {
        const char *name = zip_get_name(torch->zip, (zip_uint64_t)i, 0);
        const char *slash = name ? strchr(name, '/') : NULL;
        if (!slash || strcmp(slash, tail) != 0 || slash == name || (size_t)(slash - name) >= sizeof torch->root) continue;
        memcpy(torch->root, name, (size_t)(slash - name));
        torch->root[slash - name] = '\0';
        *entry = (uint64_t)i;
        found++;
    }
    if (found == 1) return CA_OK;
    return ca_fail(CA_E_FORMAT, "%s: is no torch checkpoint: its zip has %zu entries <root>/data.pkl, expected one", torch->path,
                   found);
}

static ca_status check_byte_order(const ca_torch *torch)
{
    static const char little[] = "little";
    const int64_t entry = find_entry(torch, "byteorder");
    uint64_t size;
    uint8_t *text;
    if (entry < 0) return CA_OK; /* written before torch said so: little */
    CA_TRY(entry_size(torch, (uint64_t)entry, 64, &size));
    CA_TRY(read_entry(torch, (uint64_t)entry, size, &text));
    const bool same = size == sizeof little - 1 && memcmp(text, little, sizeof little - 1) == 0;
    free(text);
    return same ? CA_OK
                : ca_fail(CA_E_UNSUPPORTED, "%s: its byte order is not 'little'; save it on a little-endian machine", torch->path);
}

static ca_status read_pickle(ca_torch *torch)
{
    uint64_t entry = 0, size;
    CA_TRY(find_pickle(torch, &entry));
    CA_TRY(check_byte_order(torch));
    CA_TRY(entry_size(torch, entry, PICKLE_MAX, &size));
    uint8_t *bytes = NULL;
    char *name = malloc(strlen(torch->path) + sizeof ": data.pkl");
    if (!name) return ca_fail(CA_E_MEMORY, "%s: no memory to read it", torch->path);
    (void)sprintf(name, "%s: data.pkl", torch->path);
    ca_status st = read_entry(torch, entry, size, &bytes);
    if (st == CA_OK) st = ca_torch_pickle_read(bytes, (size_t)size, name, &torch->pickle);
    free(bytes);
    free(name);
    return st;
}

/* Every storage must be an entry of exactly its size. */
static ca_status find_storages(ca_torch *torch)
{
    const size_t n = torch->pickle.n_storages;
    uint64_t total = 0;
    torch->entries = calloc(n + 1, sizeof *torch->entries);
    torch->storages = calloc(n + 1, sizeof *torch->storages);
    if (!torch->entries || !torch->storages) return ca_fail(CA_E_MEMORY, "%s: no memory for %zu storages", torch->path, n);
    for (size_t i = 0; i < n; i++) {
        const ca_torch_storage *storage = &torch->pickle.storages[i];
        const uint64_t expected = storage->n_elems * ca_block_format_of((uint32_t)storage->type)->n_bytes;
        char name[sizeof "data/" + CA_TORCH_MAX_KEY];
        uint64_t size;
        (void)snprintf(name, sizeof name, "data/%s", storage->key);
        const int64_t entry = find_entry(torch, name);
        if (entry < 0) return ca_fail(CA_E_FORMAT, "%s: storage '%s/%s' is missing", torch->path, torch->root, name);
        CA_TRY(entry_size(torch, (uint64_t)entry, CA_TORCH_MAX_BYTES - total, &size));
        if (size != expected)
            return ca_fail(CA_E_FORMAT, "%s: storage '%s/%s' holds %" PRIu64 " bytes, expected %" PRIu64, torch->path, torch->root,
                           name, size, expected);
        torch->entries[i] = (uint64_t)entry;
        total += size;
    }
    return CA_OK;
}

static ca_status open_torch(ca_torch *torch)
{
    CA_TRY(open_zip(torch));
    CA_TRY(read_pickle(torch));
    return find_storages(torch);
}

ca_status ca_torch_open(const char *path, ca_torch **out)
{
    ca_mapfile map;
    *out = NULL;
    CA_TRY(ca_mapfile_open(path, &map));
    ca_torch *torch = calloc(1, sizeof *torch);
    char *name = strdup(path);
    if (!torch || !name) {
        free(torch);
        free(name);
        ca_mapfile_close(&map);
        return ca_fail(CA_E_MEMORY, "%s: no memory to open it", path);
    }
    torch->map = map;
    torch->path = name;
    const ca_status st = open_torch(torch);
    if (st != CA_OK) {
        ca_torch_close(torch);
        return st;
    }
    *out = torch;
    return CA_OK;
}

void ca_torch_close(ca_torch *torch)
{
    if (!torch) return;
    for (size_t i = 0; torch->storages && i < torch->pickle.n_storages; i++) free(torch->storages[i]);
    free(torch->storages);
    free(torch->entries);
    ca_torch_pickle_free(&torch->pickle);
    if (torch->zip) zip_discard(torch->zip);
    ca_mapfile_close(&torch->map);
    free(torch->path);
    free(torch);
}

const ca_torch_pickle *ca_torch_tensors(const ca_torch *torch)
{
    return &torch->pickle;
}

size_t ca_torch_tensor_bytes(const ca_torch *torch, size_t i)
{
    const ca_torch_tensor *t = &torch->pickle.tensors[i];
    return (size_t)t->n_elems * width_of(torch, t);
}

ca_status ca_torch_read(ca_torch *torch, size_t i, void *out)
{
    const ca_torch_tensor *t = &torch->pickle.tensors[i];
    const size_t width = width_of(torch, t);
    uint8_t **storage = &torch->storages[t->storage], *to = out;
    if (!*storage)
        CA_TRY(read_entry(torch, torch->entries[t->storage], torch->pickle.storages[t->storage].n_elems * width, storage));
    uint64_t index[CA_TORCH_MAX_DIMS] = { 0 }, at = t->offset;
    for (uint64_t n = 0; n < t->n_elems; n++) {
        memcpy(to + n * width, *storage + at * width, width);
        for (uint32_t d = t->n_dims; d > 0; d--) { /* counts up, the last dimension fastest */
            at += t->strides[d - 1];
            if (++index[d - 1] < t->dims[d - 1]) break;
            at -= t->strides[d - 1] * t->dims[d - 1];
            index[d - 1] = 0;
        }
    }
    return CA_OK;
}
