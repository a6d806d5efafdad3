/* What the system has left. */
#ifndef CA_BASE_MEMORY_H
#define CA_BASE_MEMORY_H

#include "base/error.h"

/* MemAvailable of /proc/meminfo in bytes; the largest number when the system does not say. */
uint64_t ca_available_bytes(void);

#endif
