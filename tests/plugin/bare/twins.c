// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Two PEs with the same TPIDR_EL2, which is all that tells them apart in
 * round-robin mode: there the access is UNDEFINED, and the trace says why.
 */
#include <stddef.h>

#include "bare.h"
#include "ktap.h"

static unsigned int done;

static void second_pe(u64 number)
{
	asm volatile("msr tpidr_el2, %0\n\tisb\n\thvc #0" : : "r"(
		sysreg_read(tpidr_el2) - number * 4096));
	hdbssbr_write(0x5000);
	check_equal("the PE has its register", hdbssbr_read(), 0x5000);
	__atomic_store_n(&done, 1, __ATOMIC_RELEASE);
}

static void twins(void)
{
	secondary_work = second_pe;
	cpu_on(1);
	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE))
		asm volatile("yield");
}

static const struct test tests[] = {
	{ .name = "twins", .run = twins, .pes = 2 },
};

static const struct group group = GROUP("twins", NULL, tests);
const struct group *const groups[] = { &group, NULL };
