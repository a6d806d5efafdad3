/* A hash that tells two runs of bytes apart; nothing that keeps an adversary out. */
#ifndef CA_BASE_HASH_H
#define CA_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CA_HASH_START UINT64_C(0xcbf29ce484222325)

/* FNV-1a over words of 8 bytes, the last one filled up with zeros, each folded so that its high half reaches the low one. */
static inline uint64_t ca_hash(uint64_t hash, const void *data, size_t n)
{
    const unsigned char *at = data;
    for (; n > 0; at += n < 8 ? n : 8, n -= n < 8 ? n : 8) {
        uint64_t word = 0;
        memcpy(&word, at, n < 8 ? n : 8);
        hash = (hash ^ word) * UINT64_C(0x100000001b3);
        hash ^= hash >> 32;
    }
    return hash;
}

#endif
