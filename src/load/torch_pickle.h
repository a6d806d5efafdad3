/* The pickle inside a torch checkpoint -> named tensors. An interpreter of the few opcodes that torch.save (protocol 2) writes for a
 * dict of tensors: it can build dicts, tuples, strings, whole numbers, bools and tensors, and nothing else. Nothing is imported or
 * called: of globals only the names listed in the source are known. Anything else is refused by its name and offset. */
#ifndef CA_LOAD_TORCH_PICKLE_H
#define CA_LOAD_TORCH_PICKLE_H

#include "base/error.h"
#include "load/quant.h"

enum { CA_TORCH_MAX_DIMS = 8, CA_TORCH_MAX_NAME = 255, CA_TORCH_MAX_KEY = 31 };

#define CA_TORCH_MAX_BYTES ((uint64_t)4 << 30) /* of all storages together, and of all tensors */

typedef struct ca_torch_storage {
    char key[CA_TORCH_MAX_KEY + 1]; /* digits */
    ca_block_type type;             /* F32, F16 or BF16 */
    uint64_t n_elems;
} ca_torch_storage;

/* Element (i0, i1, ..) is element offset + sum of i * stride of its storage; all of them are inside. */
typedef struct ca_torch_tensor {
    char name[CA_TORCH_MAX_NAME + 1]; /* printable ASCII */
    uint32_t storage, n_dims;
    uint64_t offset, n_elems;
    uint64_t dims[CA_TORCH_MAX_DIMS], strides[CA_TORCH_MAX_DIMS]; /* slowest first */
} ca_torch_tensor;

typedef struct ca_torch_pickle {
    size_t n_tensors, n_storages;
    ca_torch_tensor *tensors; /* sorted by name; no name twice */
    ca_torch_storage *storages;
} ca_torch_pickle;

/* Reads a pickle; name is for messages. CA_E_UNSUPPORTED names a global or opcode that is refused, CA_E_FORMAT what is wrong. *out is
 * empty after an error, else the caller frees it with ca_torch_pickle_free. */
ca_status ca_torch_pickle_read(const void *data, size_t size, const char *name, ca_torch_pickle *out);
void ca_torch_pickle_free(ca_torch_pickle *pickle);

#endif
