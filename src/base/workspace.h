/* Bump allocation in memory that the caller lends. */
#ifndef CA_BASE_WORKSPACE_H
#define CA_BASE_WORKSPACE_H

#include <compactattn/table.h>

#include "base/arith.h"

/* n * bytes, 64-byte aligned. CA_E_WORKSPACE says how much is missing. */
static inline ca_status ca_ws_take(ca_workspace *ws, const char *who, size_t n, size_t bytes, void **out)
{
    size_t need = 0, end = 0;
    CA_TRY(ca_mul_size(n, bytes, &need));
    CA_TRY(ca_add_size(ws->used, ca_align_up(need, 64), &end));
    if (end > ws->size) return ca_fail(CA_E_WORKSPACE, "%s: %zu bytes of workspace needed, %zu given", who, end, ws->size);
    *out = ws->base + ws->used;
    ws->used = end;
    return CA_OK;
}

#endif
