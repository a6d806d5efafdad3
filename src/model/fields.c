#include "model/fields.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/arith.h"

enum { NAME = 96 };

const char *ca_field_name(const ca_fields *f, ca_field field, char buf[NAME])
{
    if (f->gguf != NULL)
        (void)snprintf(buf, NAME, "%s.%s", f->architecture, field.gguf != NULL ? field.gguf : field.hf);
    else
        (void)snprintf(buf, NAME, "%s%s", f->prefix, field.hf != NULL ? field.hf : field.gguf);
    return buf;
}

/* NULL when config.json has no such value, or null. */
static const json_t *json_of(const ca_fields *f, const char *hf)
{
    const json_t *value = hf != NULL ? json_object_get(f->object, hf) : NULL;
    if (value == NULL && hf != NULL) value = json_object_get(f->root, hf);
    return json_is_null(value) ? NULL : value;
}

bool ca_field_has(const ca_fields *f, ca_field field)
{
    char name[NAME];
    if (f->gguf == NULL) return json_of(f, field.hf) != NULL;
    return field.gguf != NULL && ca_gguf_has(f->gguf, ca_field_name(f, field, name));
}

/* A missing field: fine when it has a default. */
static ca_status missing(const ca_fields *f, ca_field field, bool has_default)
{
    char name[NAME];
    return has_default ? CA_OK : ca_fail(CA_E_FORMAT, "%s: key '%s' is missing", f->path, ca_field_name(f, field, name));
}

static ca_status wrong_kind(const ca_fields *f, ca_field field, const json_t *found, const char *expected)
{
    static const char *const kinds[] = {
        "an object", "an array", "a string", "a whole number", "a number", "true", "false", "null"
    };
    char name[NAME];
    return ca_fail(CA_E_FORMAT, "%s: key '%s' is %s, expected %s", f->path, ca_field_name(f, field, name),
                   kinds[json_typeof(found)], expected);
}

ca_status ca_field_u32(const ca_fields *f, ca_field field, uint32_t low, uint32_t high, uint32_t *value)
{
    char name[NAME];
    const json_t *found = json_of(f, field.hf);
    double number = 0.0;
    (void)ca_field_name(f, field, name);
    if (!ca_field_has(f, field)) return missing(f, field, *value != 0);
    if (f->gguf != NULL) {
        CA_TRY(ca_gguf_u32(f->gguf, name, value));
        number = *value;
    } else if (json_is_number(found)) {
        number = json_number_value(found);
    } else {
        return wrong_kind(f, field, found, "a whole number");
    }
    if (!(number >= low && number <= high && number == floor(number)))
        return ca_fail(CA_E_FORMAT, "%s: key '%s' is %.10g; it must be a whole number from %u to %u", f->path, name, number, low,
                       high);
    *value = (uint32_t)number;
    return CA_OK;
}

ca_status ca_field_f32(const ca_fields *f, ca_field field, float low, float high, float *value)
{
    char name[NAME];
    const json_t *found = json_of(f, field.hf);
    (void)ca_field_name(f, field, name);
    if (!ca_field_has(f, field)) return missing(f, field, *value != 0.0F);
    if (f->gguf != NULL)
        CA_TRY(ca_gguf_f32(f->gguf, name, value));
    else if (json_is_number(found))
        *value = (float)json_number_value(found);
    else
        return wrong_kind(f, field, found, "a number");
    if (!(*value >= low && *value <= high))
        return ca_fail(CA_E_FORMAT, "%s: key '%s' is %g; it must be from %g to %g", f->path, name, (double)*value, (double)low,
                       (double)high);
    return CA_OK;
}

ca_status ca_field_bool(const ca_fields *f, ca_field field, bool *value)
{
    const json_t *found = json_of(f, field.hf);
    if (!ca_field_has(f, field)) return CA_OK;
    if (f->gguf != NULL) {
        char name[NAME];
        return ca_gguf_bool_or(f->gguf, ca_field_name(f, field, name), *value, value);
    }
    if (!json_is_boolean(found)) return wrong_kind(f, field, found, "true or false");
    *value = json_is_true(found);
    return CA_OK;
}

ca_status ca_field_text(const ca_fields *f, ca_field field, char *value, size_t cap)
{
    const json_t *found = json_of(f, field.hf);
    ca_str text = { "", 0 };
    if (ca_field_has(f, field) && f->gguf != NULL) {
        char name[NAME];
        CA_TRY(ca_gguf_str(f->gguf, ca_field_name(f, field, name), &text));
    } else if (found != NULL) {
        if (!json_is_string(found)) return wrong_kind(f, field, found, "a string");
        text = (ca_str){ json_string_value(found), json_string_length(found) };
    }
    ca_str_text(text, value, cap);
    return CA_OK;
}

ca_status ca_fields_inside(const ca_fields *f, const char *hf, ca_fields *inside)
{
    *inside = (ca_fields){ .path = f->path, .store = f->store, .object = json_of(f, hf) };
    (void)snprintf(inside->prefix, sizeof inside->prefix, "%.20s%.24s.", f->prefix, hf);
    if (inside->object == NULL || json_is_object(inside->object)) return CA_OK;
    return wrong_kind(f, (ca_field){ NULL, hf }, inside->object, "an object");
}

ca_status ca_field_array(const ca_fields *f, const char *hf, const json_t **out)
{
    *out = json_of(f, hf);
    if (*out == NULL || json_is_array(*out)) return CA_OK;
    return wrong_kind(f, (ca_field){ NULL, hf }, *out, "an array");
}
