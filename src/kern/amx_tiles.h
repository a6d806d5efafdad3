/* What every user of AMX tiles needs: all eight configured whole, 16 rows of 64 bytes. ca_cpu_features() has asked the system for them. */
#ifndef CA_KERN_AMX_TILES_H
#define CA_KERN_AMX_TILES_H

#include <immintrin.h>
#include <stdint.h>

enum { AMX_ROWS = 16 };

/* Keeps the compiler from moving memory accesses across tile instructions. */
#define AMX_FENCE() __asm__ volatile("" ::: "memory")

static inline void amx_configure(void)
{
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) config = {
        .palette = 1,
        .row_bytes = { 64, 64, 64, 64, 64, 64, 64, 64 },
        .rows = { AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS },
    };
    _tile_loadconfig(&config);
}

#endif
