// SPDX-License-Identifier: GPL-2.0-or-later
/* Registers, effective enable, capacity, entry. */
#include "decode.h"
#include "pe.h"
#include "unit.h"
#include "walk.h"

static void registers(void)
{
	struct pe pe = { 0 };

	EXPECT_EQUAL(pe_write(&pe, SYS_HDBSSBR_EL2, ~0ull), 0x00fffffffffff00full);
	EXPECT_EQUAL(pe_write(&pe, SYS_HDBSSPROD_EL2, ~0ull), 0xfc07ffffull);
	EXPECT_EQUAL(pe_write(&pe, SYS_VTCR_EL2, ~0ull), ~0ull);
	EXPECT_EQUAL(*pe_register(&pe, SYS_HDBSSBR_EL2), 0x00fffffffffff00full);
	EXPECT(!pe_register(&pe, SYS_ESR_EL2));
	EXPECT_EQUAL(pe_write(&pe, SYS_ESR_EL2, 5), 0);
	pe_reset(&pe, 3);
	EXPECT_EQUAL(pe.hdbssbr | pe.hdbssprod, 0);
	EXPECT_EQUAL(pe.vtcr, 3);
}

static void enable(void)
{
	struct pe at_once = { 0 }, lazy = { .choices.lazy = true };
	unsigned int i;

	for (i = 0; i < 8; i++) {
		uint64_t vtcr = 0x80000000 | (i & 1 ? VTCR_HA : 0) | (i & 2 ? VTCR_HD : 0) |
				(i & 4 ? VTCR_HDBSS : 0);

		EXPECT_EQUAL(vtcr_hdbss_enabled(vtcr), i == 7);
		EXPECT_EQUAL(vtcr_for_qemu(&at_once, vtcr), i == 7 ? vtcr & ~VTCR_HD : vtcr);
		EXPECT_EQUAL(vtcr_for_qemu(&lazy, vtcr), (i & 3) == 3 ? vtcr & ~VTCR_HD : vtcr);
	}
	EXPECT(hcr_in_guest(HCR_VM));
	EXPECT(!hcr_in_guest(0));
	EXPECT(!hcr_in_guest(HCR_VM | HCR_TGE));
}

static void withdrawing(void)
{
	const uint64_t on = VTCR_HA | VTCR_HD | VTCR_HDBSS;
	struct pe pe = { .hdbssbr = 0x50001, .vtcr = on };

	EXPECT(pe_withdraws(&pe, SYS_VTCR_EL2, VTCR_HA));
	EXPECT(!pe_withdraws(&pe, SYS_VTCR_EL2, on | 1));
	EXPECT(pe_withdraws(&pe, SYS_HDBSSBR_EL2, 0));
	EXPECT(pe_withdraws(&pe, SYS_HDBSSBR_EL2, 0x50002));
	EXPECT(!pe_withdraws(&pe, SYS_HDBSSBR_EL2, 0x50001 | 1ull << 60));
	EXPECT(!pe_withdraws(&pe, SYS_HDBSSPROD_EL2, 0));
	pe.hdbssbr = 3;
	EXPECT(!pe_withdraws(&pe, SYS_VTCR_EL2, 0));
	pe.hdbssbr = 0x50001;
	pe.vtcr = VTCR_HA | VTCR_HDBSS;
	EXPECT(!pe_withdraws(&pe, SYS_VTCR_EL2, 0));
	EXPECT(!pe_withdraws(&pe, SYS_HDBSSBR_EL2, 0));
}

static void capacity(void)
{
	struct pe pe = { 0 };
	uint64_t sz;

	for (sz = 0; sz <= 15; sz++) {
		EXPECT_EQUAL(hdbssbr_sz_reserved(0x1000 | sz), sz > 9);
		if (sz > 9)
			continue;
		pe.hdbssbr = 0x7fff000 | sz;
		EXPECT_EQUAL(hdbssbr_capacity(pe.hdbssbr), 512ull << sz);
		EXPECT_EQUAL(hdbssbr_slot(pe.hdbssbr, 3),
			     (0x7fff000ull & ~((4096ull << sz) - 1)) + 24);
		pe.hdbssprod = (512ull << sz) - 1;
		EXPECT(!pe_refuses(&pe));
		pe.hdbssprod++;
		EXPECT(pe_refuses(&pe));
		pe.hdbssprod = 0x7ffff;
		EXPECT(pe_refuses(&pe));
		pe.hdbssprod = 1ull << 26;
		EXPECT(pe_refuses(&pe));
		pe.hdbssprod = 0;
		EXPECT(!pe_refuses(&pe));
	}
}

/* The vectors of section 6 of the architecture digest */
static void entry(void)
{
	EXPECT_EQUAL(hdbss_entry(0x123456789, 4096, 3), 0x0000000123456007);
	EXPECT_EQUAL(hdbss_entry(0x123456789, 2 << 20, 2), 0x0000000123400005);
	EXPECT_EQUAL(hdbss_entry(0x123456789, 1 << 30, 1), 0x0000000100000003);
	EXPECT_EQUAL(hdbss_entry(0x123456789, 1ull << 39, 0), 1);
	EXPECT_EQUAL(hdbss_entry(0x123456789, 4096, -1) & 0xf, 0xf);
	EXPECT_EQUAL(hdbss_entry(~0ull, 4096, 3), 0x00fffffffffff007);
}

static void instructions(void)
{
	EXPECT(insn_is_mrs(0xd53c2340) && insn_sysreg(0xd53c2340) == SYS_HDBSSBR_EL2);
	EXPECT(insn_is_msr(0xd51c2367) && insn_sysreg(0xd51c2367) == SYS_HDBSSPROD_EL2);
	EXPECT_EQUAL(insn_rt(0xd51c2367), 7);
	EXPECT(!insn_is_msr(0xd53c2340) && !insn_is_mrs(0xd51c2340));
	EXPECT(insn_is_msr_vtcr(0xd51c2141) && !insn_is_msr_vtcr(0xd53c2141));
	EXPECT(insn_is_eret(0xd69f03e0) && insn_is_eret(0xd69f0bff) && insn_is_eret(0xd69f0fff));
	EXPECT(!insn_is_eret(0xd65f03c0));
	EXPECT(insn_is_smc(0xd4000003) && !insn_is_smc(0xd4000002) && !insn_is_smc(0xd4000001));
}

int main(void)
{
	registers();
	enable();
	withdrawing();
	capacity();
	entry();
	instructions();
	return unit_result("pe");
}
