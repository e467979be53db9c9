/* The tile of code_tile.inc, for the functions that the including file gives to it. */
#ifndef SBIT_KERNELS_ARM_CODE_TILE_H
#define SBIT_KERNELS_ARM_CODE_TILE_H

#include "kernels/arm/code_sums.h"

#define TILE_ROWS    16  /* that share activations from the cache */
#define TILE_COLUMNS 256 /* 4 KiB of weights */
#define TILE_TOKENS  4
#define TILE_BYTES   (TILE_COLUMNS + 16) /* of a row: the last word, and zeros */

struct tile {
    _Alignas(16) int8_t w[TILE_ROWS][TILE_BYTES];
};

#endif
