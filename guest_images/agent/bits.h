/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Page bitmaps, laid out as KVM lays out its dirty log: an array of 64-bit
 * words, page p in bit p % 64 of word p / 64 (arm64 is little endian).
 */
#ifndef AGENT_BITS_H
#define AGENT_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline size_t bits_words(uint64_t nr)
{
	return (size_t)((nr + 63) / 64);
}

static inline void bits_set(uint64_t *bits, uint64_t i)
{
	bits[i / 64] |= 1ULL << (i % 64);
}

static inline bool bits_test(const uint64_t *bits, uint64_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

/* First i in [from, nr) whose bit is `want`; nr if there is none. */
uint64_t bits_find(const uint64_t *bits, uint64_t nr, uint64_t from, bool want);

uint64_t bits_count(const uint64_t *bits, uint64_t nr);

/* Clear every bit outside [first, first + pages), of nr bits. */
void bits_keep(uint64_t *bits, uint64_t nr, uint64_t first, uint64_t pages);

/*
 * Write the set bits of [*from, nr) as `0-511,600` into buf (size >= 48),
 * as many runs as fit, and move *from behind them. Returns the length; the
 * empty set is `-`. The caller repeats until *from == nr.
 */
size_t bits_list(const uint64_t *bits, uint64_t nr, uint64_t *from, char *buf, size_t size);

#endif
