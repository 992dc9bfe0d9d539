// SPDX-License-Identifier: GPL-2.0-or-later
/* VTCR_EL2 is read as written and its source register stays what it was. */
#include <stddef.h>

#include "groups.h"
#include "world.h"

u64 vtcr_at_end_of_page(u64 value);
u64 vtcr_under_interrupts(u64 value, u64 count);

static void read_back(void)
{
	static const u64 values[] = {
		0, ~0ull, VTCR_TRACK, VTCR_HA | VTCR_HD, VTCR_HDBSS, 0x80053f59 | VTCR_TRACK,
	};
	unsigned int i;

	for (i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		u64 copy = values[i];

		asm volatile("msr vtcr_el2, %0" : "+r"(copy));
		check_equal("Xt is what it was", copy, values[i]);
		check_equal("VTCR_EL2 reads as written", sysreg_read(vtcr_el2), values[i]);
		check_equal("at the end of a page: Xt", vtcr_at_end_of_page(values[i]), values[i]);
		check_equal("at the end of a page: VTCR_EL2", sysreg_read(vtcr_el2), values[i]);
		asm volatile("mov x30, %0\n\tmsr vtcr_el2, x30\n\tmov %0, x30"
			     : "+r"(copy) : : "x30");
		check_equal("X30 is what it was", copy, values[i]);
		asm volatile("msr vtcr_el2, %0\n\tmrs %0, vtcr_el2" : "+r"(copy));
		check_equal("MRS right behind MSR", copy, values[i]);
		asm volatile("msr vtcr_el2, %0\n\tmsr vtcr_el2, %0" : "+r"(copy));
		check_equal("MSR right behind MSR", copy, values[i]);
	}
	asm volatile("msr vtcr_el2, xzr");
	check_equal("from XZR", sysreg_read(vtcr_el2), 0);
	asm volatile("mrs xzr, vtcr_el2");
}

static void interrupted(void)
{
	unsigned int count = fewer(40000, 200);
	u64 before = interrupts_taken();

	interrupts_init();
	sysreg_write(hcr_el2, HCR_RW | HCR_IMO);
	barrier();
	check_equal("Xt with interrupts around", vtcr_under_interrupts(VTCR_TRACK, count), 0);
	check("there were interrupts", interrupts_taken() > before + fewer(50, 0));
	check_equal("and they saw the true Xt", interrupted_x20(), VTCR_TRACK);
}

static const struct test tests[] = {
	{ .name = "reads_as_written", .run = read_back },
	{ .name = "interrupted", .run = interrupted },
};

const struct group vtcr_group = GROUP("vtcr", NULL, tests);
