/* Any bytes as the pickle of a torch checkpoint: every element of every tensor that comes out lies in its storage, and its size is
 * bounded. */
#include <stdlib.h>
#include <string.h>

#include "load/torch_pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

__extension__ typedef unsigned __int128 u128;

static void check(bool ok)
{
    if (!ok) abort();
}

static void check_tensor(const ca_torch_pickle *p, const ca_torch_tensor *t)
{
    check(t->storage < p->n_storages && t->n_dims <= CA_TORCH_MAX_DIMS && *t->name && strlen(t->name) <= CA_TORCH_MAX_NAME);
    u128 last = t->offset, n = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        n *= t->dims[i];
        if (t->dims[i] > 0) last += (u128)(t->dims[i] - 1) * t->strides[i];
        check(n <= CA_TORCH_MAX_BYTES); /* so that the next product fits */
    }
    check(n == t->n_elems && (n == 0 || last < p->storages[t->storage].n_elems));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ca_torch_pickle p;
    if (ca_torch_pickle_read(data, size, "fuzz", &p) != CA_OK) {
        check(*ca_last_error() && !p.tensors && !p.storages);
        return 0;
    }
    for (size_t i = 0; i < p.n_tensors; i++) {
        check_tensor(&p, &p.tensors[i]);
        check(i == 0 || strcmp(p.tensors[i - 1].name, p.tensors[i].name) < 0);
    }
    for (size_t i = 0; i < p.n_storages; i++)
        check(*p.storages[i].key && strspn(p.storages[i].key, "0123456789") == strlen(p.storages[i].key) &&
              p.storages[i].n_elems <= CA_TORCH_MAX_BYTES);
    ca_torch_pickle_free(&p);
    return 0;
}
