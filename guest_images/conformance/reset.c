// SPDX-License-Identifier: GPL-2.0-or-later
/* CPU_OFF and CPU_ON are a reset of that PE, and of no other. */
#include <stddef.h>

#include "groups.h"
#include "world.h"

static u64 seen[2][3], number_seen;
static unsigned int starts;

static void second_pe(u64 number)
{
	unsigned int start = starts;

	number_seen = number;
	seen[start][0] = hdbssbr_read();
	seen[start][1] = hdbssprod_read();
	seen[start][2] = sysreg_read(vtcr_el2);
	hdbssbr_write(0x50000000);
	hdbssprod_write(7);
	sysreg_write(vtcr_el2, VTCR_TRACK);
	__atomic_store_n(&starts, start + 1, __ATOMIC_RELEASE);
}

/* 2: Warm reset makes the fields UNKNOWN; ours are 0 unless "unknown" is injected. */
static void cpu_off(void)
{
	unsigned int i;

	hdbssbr_write(0x60000000);
	secondary_work = second_pe;
	starts = 0;
	for (i = 0; i < 2; i++) {
		cpu_on(1);
		while (__atomic_load_n(&starts, __ATOMIC_ACQUIRE) == i)
			asm volatile("yield");
		check_equal("the second PE", number_seen, 1);
		if (injected("unknown")) {
			check_equal("RES0 of HDBSSBR_EL2 after reset",
				    seen[i][0] & ~0x00fffffffffff00full, 0);
			check_equal("RES0 of HDBSSPROD_EL2 after reset",
				    seen[i][1] & ~0xfc07ffffull, 0);
			check("not all are 0 after reset", seen[i][0] | seen[i][1]);
			continue;
		}
		check_equal("HDBSSBR_EL2 after reset", seen[i][0], 0);
		check_equal("HDBSSPROD_EL2 after reset", seen[i][1], 0);
		check_equal("VTCR_EL2 after reset", seen[i][2], 0);
	}
	check_equal("the first PE keeps its own", hdbssbr_read(), 0x60000000);
}

static const struct test tests[] = {
	{ .name = "cpu_off", .run = cpu_off, .pes = 2 },
};

const struct group reset_group = GROUP("reset", NULL, tests);
