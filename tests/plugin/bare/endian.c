// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * SCTLR_EL2.EE=1 while the guest runs: tables and entries are big-endian (~R_KFLNY).
 * The runtime is not, so this has a way in and out of its own.
 */
#include <stddef.h>

#include "bare.h"
#include "ktap.h"

#define SCTLR_EE	(1ull << 25)

/* x20 = SCTLR_EL2 of the runtime, x21 = where to go on */
extern char big_endian_vectors[];
asm(".balign 0x800\n"
    "big_endian_vectors:\n"
    "	.org big_endian_vectors + 0x400\n"
    "	msr sctlr_el2, x20\n"
    "	isb\n"
    "	br x21\n"
    "	.org big_endian_vectors + 0x800\n");

/* The tables from this one on; tables are what links of levels 1 and 2 lead to. */
static void swap_tables(u64 table, int level)
{
	u64 *entry = at(table);
	unsigned int i;

	for (i = 0; i < 512; i++) {
		if (level < 3 && entry[i])
			swap_tables(entry[i] & 0x0000fffffffff000ull, level + 1);
		entry[i] = __builtin_bswap64(entry[i]);
	}
}

/* One store by a guest; returns ESR_EL2. */
static u64 store_big_endian(u64 address)
{
	u64 vectors = sysreg_read(vbar_el2), esr;

	sysreg_write(vbar_el2, (u64)big_endian_vectors);
	sysreg_write(elr_el2, (u64)el1_store);
	sysreg_write(spsr_el2, SPSR_EL1H);
	asm volatile("mrs	x20, sctlr_el2\n\t"
		     "adr	x21, 1f\n\t"
		     "mov	x0, %1\n\t"
		     "mov	x1, #7\n\t"
		     "mov	x2, #1\n\t"
		     "mov	x3, #0\n\t"
		     "orr	x9, x20, %2\n\t"
		     "msr	sctlr_el2, x9\n\t"
		     "isb\n\t"
		     "eret\n"
		     "1:	mrs	%0, esr_el2"
		     : "=r"(esr) : "r"(address), "i"(SCTLR_EE)
		     : "x0", "x1", "x2", "x3", "x9", "x20", "x21", "cc", "memory");
	sysreg_write(vbar_el2, vectors);
	barrier();
	return esr;
}

static void big_endian(void)
{
	u64 buffer = take(4096);
	volatile u64 *d;
	struct stage2 s2;

	stage2_init(&s2, 12, 1, 39, false);
	stage2_map_code(&s2, 3, READ_ONLY);
	d = stage2_map(&s2, DATA, DATA, 3, CLEAN);
	swap_tables(s2.root, 1);
	hdbssbr_write(buffer);
	hdbssprod_write(0);
	stage2_use(&s2, VTCR_TRACK, 0);
	check("the guest ends", ended(store_big_endian(DATA)));
	check_equal("one entry", hdbssprod_read(), 1);
	check_equal("a big-endian entry", *at(buffer), __builtin_bswap64(DATA | 7));
	check_equal("a big-endian descriptor", *d, __builtin_bswap64(DATA | CLEAN | S2AP_W | 3));
}

static const struct test tests[] = {
	{ .name = "big_endian", .run = big_endian },
};

static const struct group group = GROUP("endian", NULL, tests);
const struct group *const groups[] = { &group, NULL };
