#include "load/json_file.h"

#include "base/mapfile.h"

enum { MAX_BYTES = 64 << 20 };

static ca_status parse(const char *path, const ca_mapfile *map, json_t **out)
{
    json_error_t error;
    if (map->size > MAX_BYTES) return ca_fail(CA_E_FORMAT, "%s: has %zu bytes, at most %d are read", path, map->size, MAX_BYTES);
    *out = json_loadb(map->data, map->size, JSON_REJECT_DUPLICATES, &error);
    if (*out == NULL)
        return ca_fail(json_error_code(&error) == json_error_out_of_memory ? CA_E_MEMORY : CA_E_FORMAT, "%s: line %d: %s", path,
                       error.line, error.text);
    if (json_is_object(*out)) return CA_OK;
    json_decref(*out);
    *out = NULL;
    return ca_fail(CA_E_FORMAT, "%s: is no JSON object", path);
}

ca_status ca_json_file_read(const char *path, json_t **out)
{
    ca_mapfile map;
    *out = NULL;
    CA_TRY(ca_mapfile_open(path, &map));
    const ca_status st = parse(path, &map, out);
    ca_mapfile_close(&map);
    return st;
}
