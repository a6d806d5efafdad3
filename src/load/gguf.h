/* GGUF v3 file -> metadata and tensors. Everything in the file is proven inside the map before a pointer is handed out.
 *
 * Layout: "GGUF", u32 version, u64 n_tensors, u64 n_kv, n_kv * (string key, u32 type, value), n_tensors * (string name, u32
 * n_dims, u64 dims[n_dims], u32 type, u64 offset), padding to general.alignment, tensor data. Little-endian. */
#ifndef CA_LOAD_GGUF_H
#define CA_LOAD_GGUF_H

#include "base/error.h"
#include "load/quant.h"

typedef struct ca_gguf ca_gguf; /* immutable after opening */

typedef struct ca_str { /* bytes of the file, not terminated */
    const char *data;
    size_t len;
} ca_str;

typedef struct ca_tensor {
    ca_str name;
    ca_block_type type;
    uint32_t n_dims;
    uint64_t dims[4]; /* fastest first; unused ones are 1 */
    const void *data; /* into the map; NULL: drawn (load/draw.h) */
    size_t bytes;
    uint64_t offset; /* from the start of the file */
    uint64_t seed;   /* of a drawn one */
} ca_tensor;

/* Opens a file of version 2 or 3. CA_E_IO when it cannot be mapped, CA_E_FORMAT when its bytes are wrong (file, key or tensor, and
 * offset are named), CA_E_UNSUPPORTED for version 1, big-endian files, nested arrays and tensor types without a reader. One part of a split model is a file like any other: store.h.
 * The caller owns *out, which is NULL after an error. */
ca_status ca_gguf_open(const char *path, ca_gguf **out);
/* The same on bytes that the caller keeps alive; name is for messages. */
ca_status ca_gguf_open_memory(const void *data, size_t size, const char *name, ca_gguf **out);
void ca_gguf_close(ca_gguf *gguf);
const char *ca_gguf_path(const ca_gguf *gguf);
size_t ca_gguf_file_bytes(const ca_gguf *gguf);

/* Required values: CA_E_FORMAT names the file, the key and what was found when it is missing or of another kind. Integers of any
 * width are accepted for u32 when they fit. *_or: the default when the key is missing; a present key of a wrong kind is still an
 * error. */
ca_status ca_gguf_u32(const ca_gguf *gguf, const char *key, uint32_t *out);
ca_status ca_gguf_u32_or(const ca_gguf *gguf, const char *key, uint32_t missing, uint32_t *out);
ca_status ca_gguf_f32(const ca_gguf *gguf, const char *key, float *out);
ca_status ca_gguf_f32_or(const ca_gguf *gguf, const char *key, float missing, float *out);
ca_status ca_gguf_bool_or(const ca_gguf *gguf, const char *key, bool missing, bool *out);
ca_status ca_gguf_str(const ca_gguf *gguf, const char *key, ca_str *out);
ca_status ca_gguf_str_or(const ca_gguf *gguf, const char *key, ca_str missing, ca_str *out);
bool ca_gguf_has(const ca_gguf *gguf, const char *key);

/* Arrays: *n elements, *out owned by the gguf and valid until it is closed. i32s takes u32 elements too when all of them fit. */
ca_status ca_gguf_strs(const ca_gguf *gguf, const char *key, const ca_str **out, size_t *n);
ca_status ca_gguf_i32s(const ca_gguf *gguf, const char *key, const int32_t **out, size_t *n);
ca_status ca_gguf_f32s(const ca_gguf *gguf, const char *key, const float **out, size_t *n);

size_t ca_gguf_n_tensors(const ca_gguf *gguf);
const ca_tensor *ca_gguf_tensor_at(const ca_gguf *gguf, size_t i);
/* NULL when there is none. */
const ca_tensor *ca_gguf_find(const ca_gguf *gguf, const char *name);
/* Required tensor with exactly these dims (fastest first); CA_E_FORMAT names expected and found. */
ca_status ca_gguf_tensor(const ca_gguf *gguf, const char *name, uint32_t n_dims, const uint64_t *dims, const ca_tensor **out);

/* Walks metadata as text, for `inspect model`: long arrays and what does not fit in cap are cut, marked with "...". *type is static
 * ("u32", "string[]"). */
size_t ca_gguf_n_meta(const ca_gguf *gguf);
void ca_gguf_meta_text(const ca_gguf *gguf, size_t i, ca_str *key, const char **type, char *buf, size_t cap);

/* Printable copy of a string of the file: UTF-8, terminated, control characters and stray bytes as \xNN, cut to cap like above. */
void ca_str_text(ca_str str, char *buf, size_t cap);

#endif
