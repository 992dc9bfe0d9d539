// SPDX-License-Identifier: GPL-2.0-or-later
#include "truth.h"

#include <string.h>

#include "bits.h"

size_t truth_bytes(uint64_t pages, int lane)
{
	return (size_t)(lane < 0 ? pages * PAGE_BYTES : pages * 8);
}

static const volatile uint64_t *page_of(const void *mem, uint64_t page)
{
	return (const volatile uint64_t *)mem + page * PAGE_WORDS;
}

/*
 * Each word is read once: what is compared is what is kept. Eight at a time,
 * because this loop runs over megabytes on an emulated PE.
 */
static bool whole_page(const volatile uint64_t *page, uint64_t *copy, bool update)
{
	bool differs = false;

	for (unsigned int i = 0; i < PAGE_WORDS; i += 8) {
		uint64_t a = page[i], b = page[i + 1], c = page[i + 2], d = page[i + 3];
		uint64_t e = page[i + 4], f = page[i + 5], g = page[i + 6], h = page[i + 7];
		uint64_t *to = copy + i;

		if (((a ^ to[0]) | (b ^ to[1]) | (c ^ to[2]) | (d ^ to[3]) |
		     (e ^ to[4]) | (f ^ to[5]) | (g ^ to[6]) | (h ^ to[7])) == 0)
			continue;
		if (!update)
			return true;
		differs = true;
		to[0] = a;
		to[1] = b;
		to[2] = c;
		to[3] = d;
		to[4] = e;
		to[5] = f;
		to[6] = g;
		to[7] = h;
	}
	return differs;
}

static bool lane_of_page(const volatile uint64_t *page, int lane, uint64_t *copy, bool update)
{
	uint64_t now = page[lane];

	if (now == *copy)
		return false;
	if (update)
		*copy = now;
	return true;
}

static bool one_page(const void *mem, uint64_t page, int lane, void *copy, bool update)
{
	if (lane >= 0)
		return lane_of_page(page_of(mem, page), lane, (uint64_t *)copy + page, update);
	return whole_page(page_of(mem, page), (uint64_t *)copy + page * PAGE_WORDS, update);
}

void truth_copy(const void *mem, uint64_t pages, int lane, void *copy, const uint64_t *only)
{
	if (!only && lane < 0) {
		memcpy(copy, mem, truth_bytes(pages, lane));
		return;
	}
	for (uint64_t page = 0; page < pages; page++)
		if (!only || bits_test(only, page))
			one_page(mem, page, lane, copy, true);
}

void truth_diff(const void *mem, uint64_t pages, int lane, void *copy, bool update, uint64_t *diff)
{
	memset(diff, 0, bits_words(pages) * 8);
	for (uint64_t page = 0; page < pages; page++)
		if (one_page(mem, page, lane, copy, update))
			bits_set(diff, page);
}

bool truth_page_differs(const void *mem, uint64_t page, int lane, const void *copy)
{
	/* update = false: the copy is not written */
	return one_page(mem, page, lane, (void *)(uintptr_t)copy, false);
}
