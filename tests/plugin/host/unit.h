/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A unit test is a program: it prints what is wrong and returns 1. */
#ifndef UNIT_H
#define UNIT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

static int failures;

#define EXPECT(condition) do {							\
	if (!(condition)) {							\
		failures++;							\
		fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
	}									\
} while (0)

#define EXPECT_EQUAL(got, wanted) do {						\
	unsigned long long got_ = (got), wanted_ = (wanted);			\
	if (got_ != wanted_) {							\
		failures++;							\
		fprintf(stderr, "%s:%d: %s is %#llx, not %#llx\n", __FILE__, __LINE__, #got, \
			got_, wanted_);						\
	}									\
} while (0)

static inline int unit_result(const char *name)
{
	printf("%s: %s\n", name, failures ? "FAILED" : "ok");
	return failures != 0;
}

/*
 * A fake memory: FAKE_WORDS words from FAKE_BASE on. Before a compare-and-swap
 * "interfere" is called, as another PE or the kernel would come in between.
 */
#define FAKE_BASE	0x40000000ull
#define FAKE_WORDS	0x4000u

struct fake {
	uint64_t *words;	/* on the heap, so that ASan guards its ends */
	void (*interfere)(struct fake *fake, uint64_t pa);
	unsigned int times;
	unsigned int accesses;
};

static inline uint64_t *fake_at(struct fake *fake, uint64_t pa)
{
	uint64_t index = (pa - FAKE_BASE) / 8;

	fake->accesses++;
	return pa % 8 || pa < FAKE_BASE || index >= FAKE_WORDS ? NULL : &fake->words[index];
}

static bool fake_read64(void *ctx, uint64_t pa, uint64_t *value)
{
	uint64_t *at = fake_at(ctx, pa);

	if (at)
		*value = *at;
	return at;
}

static bool fake_write64(void *ctx, uint64_t pa, uint64_t value)
{
	uint64_t *at = fake_at(ctx, pa);

	if (at)
		*at = value;
	return at;
}

static enum cas_result fake_cas64(void *ctx, uint64_t pa, uint64_t old, uint64_t new)
{
	struct fake *fake = ctx;
	uint64_t *at = fake_at(fake, pa);

	if (!at)
		return CAS_OUTSIDE;
	if (fake->interfere)
		fake->interfere(fake, pa);
	if (*at != old)
		return CAS_LOST;
	*at = new;
	return CAS_WON;
}

static inline struct memory fake_memory(struct fake *fake)
{
	memset(fake, 0, sizeof(*fake));
	fake->words = calloc(FAKE_WORDS, 8);
	if (!fake->words)
		abort();
	return (struct memory){ fake, fake_read64, fake_write64, fake_cas64, false };
}

#endif
