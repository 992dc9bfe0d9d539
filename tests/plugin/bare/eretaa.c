// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest that is entered by ERETAA, with its key in use, after one that was entered
 * by ERET. Behind an append only the ERET leads back: ELR_EL2 has no signature then.
 */
#include <stddef.h>

#include "bare.h"
#include "ktap.h"

#define SCTLR_ENIA	(1ull << 31)

/* x20 = SCTLR_EL2 of the runtime, x21 = where to go on */
extern char eretaa_vectors[];
asm(".balign 0x800\n"
    "eretaa_vectors:\n"
    "	.org eretaa_vectors + 0x200\n"
    "	msr sctlr_el2, x20\n"
    "	isb\n"
    "	br x21\n"
    "	.org eretaa_vectors + 0x400\n"
    "	msr sctlr_el2, x20\n"
    "	isb\n"
    "	br x21\n"
    "	.org eretaa_vectors + 0x800\n");

/* One store by a guest; returns ESR_EL2. */
static u64 store_after_eretaa(u64 address)
{
	u64 vectors = sysreg_read(vbar_el2), esr;

	sysreg_write(vbar_el2, (u64)eretaa_vectors);
	sysreg_write(spsr_el2, SPSR_EL1H);
	asm volatile(".arch	armv8.5-a\n\t"
		     "mrs	x20, sctlr_el2\n\t"
		     "adr	x21, 1f\n\t"
		     "orr	x9, x20, %3\n\t"
		     "msr	sctlr_el2, x9\n\t"
		     "isb\n\t"
		     "mov	x9, %2\n\t"
		     "mov	x10, sp\n\t"
		     "pacia	x9, x10\n\t"
		     "msr	elr_el2, x9\n\t"
		     "mov	x0, %1\n\t"
		     "mov	x1, #7\n\t"
		     "mov	x2, #1\n\t"
		     "mov	x3, #0\n\t"
		     "eretaa\n"
		     "1:	mrs	%0, esr_el2"
		     : "=r"(esr) : "r"(address), "r"(el1_store), "i"(SCTLR_ENIA)
		     : "x0", "x1", "x2", "x3", "x9", "x10", "x20", "x21", "cc", "memory");
	sysreg_write(vbar_el2, vectors);
	barrier();
	return esr;
}

static void after_eret(void)
{
	static struct guest guest;
	struct stage2 s2;

	stage2_init(&s2, 12, 1, 39, false);
	stage2_map_code(&s2, 3, READ_ONLY);
	stage2_map(&s2, DATA, DATA, 3, CLEAN);
	hdbssbr_write(take(4096));
	hdbssprod_write(0);
	stage2_use(&s2, VTCR_TRACK, 0);
	check("a guest entered by ERET ends", ended(run(&guest, el1_nop, 0, 0, 0, 0)));
	check("one entered by ERETAA ends", ended(store_after_eretaa(DATA)));
	check_equal("one entry", hdbssprod_read(), 1);
	check_equal("the store was made", *at(DATA), 7);
}

static const struct test tests[] = {
	{ .name = "after_eret", .run = after_eret },
};

static const struct group group = GROUP("eretaa", NULL, tests);
const struct group *const groups[] = { &group, NULL };
