/* A torch checkpoint (.pth: a zip of <root>/data.pkl, <root>/data/<key> and more) -> named tensors. Nothing in it is run: see
 * torch_pickle.h. Entries are stored or deflated; every size is checked before memory is asked for. */
#ifndef CA_LOAD_TORCH_ZIP_H
#define CA_LOAD_TORCH_ZIP_H

#include "load/torch_pickle.h"

typedef struct ca_torch ca_torch;

/* CA_E_IO when the file cannot be mapped, CA_E_FORMAT or CA_E_UNSUPPORTED when its bytes are not as above; the file, and the entry or
 * the place in the pickle are named. The caller owns *out, which is NULL after an error. */
ca_status ca_torch_open(const char *path, ca_torch **out);
void ca_torch_close(ca_torch *torch);

/* Sorted by name. */
const ca_torch_pickle *ca_torch_tensors(const ca_torch *torch);

/* Bytes of a tensor's elements, and its elements row-major in their own type. A storage that is read stays in memory until closing. */
size_t ca_torch_tensor_bytes(const ca_torch *torch, size_t i);
ca_status ca_torch_read(ca_torch *torch, size_t i, void *out);

#endif
