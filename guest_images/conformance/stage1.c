// SPDX-License-Identifier: GPL-2.0-or-later
#include "stage1.h"

#define S1_SH	(3ull << 8)

volatile u64 *table_page;

void stage1_begin(void)
{
	world_begin();
	stage2_map(&s2, TARGET, TARGET, 2, READ_WRITE);
}

volatile u64 *stage1_target(void)
{
	return at(TABLE2) + ((TARGET >> 21) & 511);
}

void stage1(u64 code_attributes, u64 data_attributes)
{
	volatile u64 *level1 = at(TABLES), *level2 = at(TABLE2);

	level1[1] = TABLE2 | 3;
	level2[0] = 0x40000000 | S1_SH | code_attributes | 1;
	*stage1_target() = TARGET | S1_SH | data_attributes | 1;
	stage2_map(&s2, TABLES, TABLES, 3, READ_ONLY);
	table_page = stage2_map(&s2, TABLE2, TABLE2, 3, CLEAN);
	sysreg_write(mair_el1, 0xff);
	/* 39 bits, 4K, Normal, HA, HD */
	sysreg_write(tcr_el1, 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2ull << 32 |
			      1ull << 39 | 1ull << 40);
	sysreg_write(ttbr0_el1, TABLES);
	sysreg_write(sctlr_el1, SCTLR_EL1_OFF | 1);
	hdbssprod_write(0);
	tlb_flush();
}
