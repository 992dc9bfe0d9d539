/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest physical memory as the walk and the append see it: 64-bit accesses that
 * are single-copy atomic and refuse any address outside the guest's RAM. The
 * plugin backs it with the mapped RAM file (ram.c), the unit tests with an array.
 */
#ifndef HDBSS_MEMORY_H
#define HDBSS_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

enum cas_result {
	CAS_WON,
	CAS_LOST,	/* the location held another value: somebody was faster */
	CAS_OUTSIDE,	/* not in guest RAM: nothing was accessed */
};

struct memory {
	void *ctx;
	/* false: outside RAM or not 8-byte aligned, nothing was accessed */
	bool (*read64)(void *ctx, uint64_t pa, uint64_t *value);
	bool (*write64)(void *ctx, uint64_t pa, uint64_t value);
	enum cas_result (*cas64)(void *ctx, uint64_t pa, uint64_t old, uint64_t new);
	bool big_endian;	/* SCTLR_EL2.EE: byte order of tables and entries */
};

static inline uint64_t memory_bytes(const struct memory *mem, uint64_t value)
{
	return mem->big_endian ? __builtin_bswap64(value) : value;
}

static inline bool memory_read(const struct memory *mem, uint64_t pa, uint64_t *value)
{
	if (!mem->read64(mem->ctx, pa, value))
		return false;
	*value = memory_bytes(mem, *value);
	return true;
}

static inline bool memory_write(const struct memory *mem, uint64_t pa, uint64_t value)
{
	return mem->write64(mem->ctx, pa, memory_bytes(mem, value));
}

static inline enum cas_result memory_cas(const struct memory *mem, uint64_t pa,
					 uint64_t old, uint64_t new)
{
	return mem->cas64(mem->ctx, pa, memory_bytes(mem, old), memory_bytes(mem, new));
}

#endif
