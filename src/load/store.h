/* The tensors and the metadata of a model, wherever they lie: a GGUF file, the parts of a split one (NAME-00001-of-0000N.gguf, any of
 * them may be given), or a Hugging Face folder (config.json with model.safetensors, or with model.safetensors.index.json and its
 * shards). Files stay mapped until the store is closed. */
#ifndef CA_LOAD_STORE_H
#define CA_LOAD_STORE_H

#include <jansson.h>

#include "load/gguf.h"

typedef struct ca_store ca_store; /* immutable after opening */

/* CA_E_IO, CA_E_FORMAT, CA_E_UNSUPPORTED name the file; a missing part or shard is named, too. The caller owns *out, which is NULL
 * after an error. */
ca_status ca_store_open(const char *path, ca_store **out);
/* A config.json alone, whatever its name, or the one of a folder: a store without tensors. Its path is that of the folder for a file
 * called config.json, else the file's without ".json". */
ca_status ca_store_open_config(const char *path, ca_store **out);
void ca_store_close(ca_store *store);
const char *ca_store_path(const ca_store *store);
/* Size of all files that hold tensors. */
uint64_t ca_store_file_bytes(const ca_store *store);

/* Metadata: one of the two is NULL. The first part of a split model has it. */
const ca_gguf *ca_store_gguf(const ca_store *store);
const json_t *ca_store_config(const ca_store *store); /* an object */
/* The file that the metadata is in, for messages. */
const char *ca_store_meta_path(const ca_store *store);

/* Tensors, dims fastest first in every format. Data of a folder is not aligned. A tensor of a dtype without a reader, or of more than
 * four dimensions, is listed; it is an error only when it is required. */
size_t ca_store_n_tensors(const ca_store *store);
const ca_tensor *ca_store_tensor_at(const ca_store *store, size_t i);
size_t ca_store_index(const ca_store *store, const ca_tensor *tensor);
const char *ca_store_type_name(const ca_store *store, const ca_tensor *tensor);
/* NULL when there is none. */
const ca_tensor *ca_store_find(const ca_store *store, const char *name);
/* Required tensor with exactly these dims; CA_E_FORMAT names expected and found. */
ca_status ca_store_tensor(const ca_store *store, const char *name, uint32_t n_dims, const uint64_t *dims, const ca_tensor **out);

#endif
