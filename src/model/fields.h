/* Hyper-parameters by name, from the keys of a GGUF file or from config.json: a field has two names, one for each. */
#ifndef CA_MODEL_FIELDS_H
#define CA_MODEL_FIELDS_H

#include "load/store.h"

typedef struct ca_fields {
    const char *path; /* of the file, for messages; borrowed */
    const ca_store *store;
    const ca_gguf *gguf; /* keys are "ARCHITECTURE.name" */
    const char *architecture;
    const json_t *object; /* where names are looked up first, */
    const json_t *root;   /* and then; NULL = nowhere else */
    char prefix[48];      /* of the object's names, for messages: "text_config." */
} ca_fields;

/* NULL: the format has no such field, which is then missing. */
typedef struct ca_field {
    const char *gguf, *hf;
} ca_field;

/* JSON null counts as missing. */
bool ca_field_has(const ca_fields *f, ca_field field);

/* *value is what a missing field means; 0 there = the field is required. CA_E_FORMAT names the file, the key, what was found and what
 * was expected: another kind, a number outside [low, high], NaN. */
ca_status ca_field_u32(const ca_fields *f, ca_field field, uint32_t low, uint32_t high, uint32_t *value);
ca_status ca_field_f32(const ca_fields *f, ca_field field, float low, float high, float *value);
/* A missing field leaves *value. */
ca_status ca_field_bool(const ca_fields *f, ca_field field, bool *value);
/* Text cut to cap; missing: "". */
ca_status ca_field_text(const ca_fields *f, ca_field field, char *value, size_t cap);

/* Fields of an object inside config.json; *inside has no object when it is missing. */
ca_status ca_fields_inside(const ca_fields *f, const char *hf, ca_fields *inside);
/* The array of this name in config.json, or NULL. */
ca_status ca_field_array(const ca_fields *f, const char *hf, const json_t **out);

/* ca_field_name(f, field, (char[96]){ 0 }): the name as the file spells it. */
const char *ca_field_name(const ca_fields *f, ca_field field, char buf[96]);

#endif
