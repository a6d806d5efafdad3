/* Safetensors file -> tensors and metadata, and back. Everything in the file is proven inside the map before a pointer is handed out.
 *
 * Layout: u64 header length, that many bytes of JSON {"__metadata__": {key: string}, name: {"dtype", "shape", "data_offsets"}},
 * tensor data. Offsets count from the start of the data, which the tensors cover without a hole or an overlap. Little-endian; a
 * tensor lies at any byte, so its data is not aligned. */
#ifndef CA_LOAD_SAFETENSORS_H
#define CA_LOAD_SAFETENSORS_H

#include "base/error.h"
#include "load/quant.h"

enum { CA_ST_MAX_DIMS = 8 };

typedef struct ca_safetensors ca_safetensors; /* immutable after opening */

typedef struct ca_st_tensor {
    const char *name;
    const char *dtype;             /* "BF16", as the file says */
    const ca_block_format *format; /* F32, F16 or BF16; NULL: a dtype without a reader */
    uint32_t n_dims;
    uint64_t dims[CA_ST_MAX_DIMS]; /* slowest first; unused ones are 1 */
    size_t n_elems;
    const void *data; /* into the map */
    size_t bytes;
    uint64_t offset; /* from the start of the file */
} ca_st_tensor;

/* CA_E_IO when the file cannot be mapped, CA_E_FORMAT when its bytes are wrong (file and tensor are named). A dtype without a reader
 * is an error only when its values are asked for. The caller owns *out, which is NULL after an error. */
ca_status ca_safetensors_open(const char *path, ca_safetensors **out);
/* The same on bytes that the caller keeps alive; name is for messages. */
ca_status ca_safetensors_open_memory(const void *data, size_t size, const char *name, ca_safetensors **out);
void ca_safetensors_close(ca_safetensors *st);
const char *ca_safetensors_path(const ca_safetensors *st);
size_t ca_safetensors_file_bytes(const ca_safetensors *st);

/* Sorted by name. */
size_t ca_safetensors_n_tensors(const ca_safetensors *st);
const ca_st_tensor *ca_safetensors_tensor_at(const ca_safetensors *st, size_t i);
/* NULL when there is none. */
const ca_st_tensor *ca_safetensors_find(const ca_safetensors *st, const char *name);
/* Required tensor with exactly these dims (slowest first); CA_E_FORMAT names expected and found. */
ca_status ca_safetensors_tensor(const ca_safetensors *st, const char *name, uint32_t n_dims, const uint64_t *dims,
                                const ca_st_tensor **out);
/* Value of a key of __metadata__, or NULL. */
const char *ca_safetensors_meta(const ca_safetensors *st, const char *key);

/* Elements [first, first + n) of a tensor as f32. CA_E_UNSUPPORTED names a tensor of another dtype. */
ca_status ca_safetensors_f32(const ca_safetensors *st, const ca_st_tensor *tensor, size_t first, size_t n, float *out);

/* "[32, 384, 128]", cut to cap. Returns buf. */
const char *ca_st_dims_text(uint32_t n_dims, const uint64_t *dims, char *buf, size_t cap);

/* A tensor to be written: F32, F16 or BF16. */
typedef struct ca_st_item {
    const char *name;
    ca_block_type type;
    uint32_t n_dims;
    const uint64_t *dims; /* slowest first */
} ca_st_item;

typedef struct ca_st_content {
    const ca_st_item *items;
    size_t n_items;
    const char *const (*meta)[2]; /* key and value */
    size_t n_meta;
    ca_status (*fill)(void *user, size_t item, void *out); /* writes the bytes of an item, row-major */
    void *user;
} ca_st_content;

/* Writes a file beside path and renames it into place: path is the old file, if any, or the whole new one. 4-byte types come first, so
 * that every tensor is aligned. */
ca_status ca_safetensors_write(const char *path, const ca_st_content *content);

#endif
