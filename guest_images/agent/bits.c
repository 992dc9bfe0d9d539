// SPDX-License-Identifier: GPL-2.0-or-later
#include "bits.h"

#include <inttypes.h>
#include <stdio.h>

uint64_t bits_find(const uint64_t *bits, uint64_t nr, uint64_t from, bool want)
{
	while (from < nr) {
		uint64_t word = want ? bits[from / 64] : ~bits[from / 64];

		word >>= from % 64;
		if (word) {
			from += (uint64_t)__builtin_ctzll(word);
			return from < nr ? from : nr;
		}
		from = (from / 64 + 1) * 64;
	}
	return nr;
}

uint64_t bits_count(const uint64_t *bits, uint64_t nr)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < nr / 64; i++)
		sum += (uint64_t)__builtin_popcountll(bits[i]);
	if (nr % 64)
		sum += (uint64_t)__builtin_popcountll(bits[nr / 64] & ((1ULL << nr % 64) - 1));
	return sum;
}

void bits_keep(uint64_t *bits, uint64_t nr, uint64_t first, uint64_t pages)
{
	for (uint64_t w = 0; w < bits_words(nr); w++) {
		uint64_t base = w * 64, mask = 0;

		for (unsigned int b = 0; b < 64; b++) {
			uint64_t page = base + b;

			if (page >= first && page - first < pages)
				mask |= 1ULL << b;
		}
		bits[w] &= mask;
	}
}

size_t bits_list(const uint64_t *bits, uint64_t nr, uint64_t *from, char *buf, size_t size)
{
	uint64_t start = bits_find(bits, nr, *from, true);
	size_t len = 0;

	if (start == nr)
		len = (size_t)snprintf(buf, size, "-");
	/* The longest run is ",P-P" with 20 digits each: 42 bytes and the NUL. */
	while (start < nr && size - len > 43) {
		uint64_t end = bits_find(bits, nr, start, false);

		len += (size_t)snprintf(buf + len, size - len, "%s%" PRIu64, len ? "," : "", start);
		if (end - start > 1)
			len += (size_t)snprintf(buf + len, size - len, "-%" PRIu64, end - 1);
		start = bits_find(bits, nr, end, true);
	}
	*from = start;
	return len;
}
