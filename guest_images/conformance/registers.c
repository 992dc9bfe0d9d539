// SPDX-License-Identifier: GPL-2.0-or-later
/* The registers at EL2, and what EL1 and EL0 find of them: sections 1 to 5 of the digest. */
#include <stddef.h>

#include "groups.h"
#include "world.h"

/* 1: HAFDBS = 4 */
static void id(void)
{
	check_equal("ID_AA64MMFR1_EL1.HAFDBS is 4", sysreg_read(id_aa64mmfr1_el1) & 15, 4);
	asm volatile("mrs xzr, id_aa64mmfr1_el1");
}

/* 3, 4: the fields that there are; the rest is RES0 */
static void fields(void)
{
	hdbssbr_write(~0ull);
	check_equal("HDBSSBR_EL2 has BADDR and SZ", hdbssbr_read(), 0x00fffffffffff00full);
	hdbssprod_write(~0ull);
	check_equal("HDBSSPROD_EL2 has FSC and INDEX", hdbssprod_read(), 0xfc07ffffull);
	hdbssbr_write(0);
	hdbssprod_write(0);
	check_equal("HDBSSBR_EL2 is 0 again", hdbssbr_read(), 0);
	check_equal("HDBSSPROD_EL2 is 0 again", hdbssprod_read(), 0);
}

static void apart(void)
{
	u64 value;

	hdbssprod_write(~0ull);
	asm volatile("msr s3_4_c2_c3_3, xzr");
	check_equal("MSR from XZR writes 0", hdbssprod_read(), 0);
	hdbssbr_write(0x123456000ull);
	check_equal("the two registers are two", hdbssbr_read(), 0x123456000ull);
	asm volatile("mrs xzr, s3_4_c2_c3_2");
	asm volatile("mov x9, #-1\n\tmrs x9, s3_4_c2_c3_3\n\tmov %0, x9" : "=r"(value) : : "x9");
	check_equal("HDBSSPROD_EL2 untouched by HDBSSBR_EL2", value, 0);
}

/* 5: below EL2 there is no such register, and no trap to EL2 */
static void undefined(void)
{
	static const struct {
		const char *code, *el1, *el0;
	} accesses[] = {
		{ el1_mrs_hdbssbr, "MRS HDBSSBR_EL2 at EL1", "MRS HDBSSBR_EL2 at EL0" },
		{ el1_msr_hdbssbr, "MSR HDBSSBR_EL2 at EL1", "MSR HDBSSBR_EL2 at EL0" },
		{ el1_mrs_hdbssprod, "MRS HDBSSPROD_EL2 at EL1", "MRS HDBSSPROD_EL2 at EL0" },
		{ el1_msr_hdbssprod, "MSR HDBSSPROD_EL2 at EL1", "MSR HDBSSPROD_EL2 at EL0" },
	};
	bool el0 = this_test->argument;
	unsigned int i;

	world_begin();
	sysreg_write(vbar_el1, (u64)el1_vectors);
	for (i = 0; i < sizeof(accesses) / sizeof(accesses[0]); i++) {
		u64 esr = run_at(&guest, accesses[i].code, el0 ? SPSR_EL0T : SPSR_EL1H, 0x5000,
				 0, 0, 0);

		check_undefined(el0 ? accesses[i].el0 : accesses[i].el1, esr, el0);
		check_equal("HDBSSBR_EL2 is not changed", hdbssbr_read(), buffer);
		check_equal("HDBSSPROD_EL2 is not changed", hdbssprod_read(), 0);
		check_equal("the register that MRS names is not changed", guest.x[0], 0x5000);
	}
}

/* 5: with HCR_EL2.NV, EL1's access is trapped to EL2 */
static void nested(void)
{
	u64 esr;

	if (!(sysreg_read(id_aa64mmfr2_el1) >> 24 & 15)) {
		skip("the PE has no FEAT_NV");
		return;
	}
	expect_failure("QEMU does not know the registers, and at EL1 it is asked");
	world_begin();
	sysreg_write(vbar_el1, (u64)el1_vectors);
	stage2_use(&s2, VTCR_TRACK, HCR_NV | HCR_NV1);
	esr = run(&guest, el1_msr_hdbssbr, 0x5000, 0, 0, 0);
	check_equal("EC of a trapped MSR", ESR_EC(esr), EC_SYSREG);
	check_equal("HDBSSBR_EL2 is not changed", hdbssbr_read(), buffer);
}

/* 5: a program of the host in AArch32, where the same words are other instructions */
static void aarch32(void)
{
	u64 esr;

	if ((sysreg_read(id_aa64pfr0_el1) & 15) != 2) {
		skip("the PE has no AArch32 at EL0");
		return;
	}
	world_begin();
	sysreg_write(hcr_el2, HCR_RW | HCR_TGE);
	tlb_flush();
	esr = run_at(&guest, el1_aarch32, SPSR_USR32, 0x5000, 0, 0, 0);
	check_equal("EC of its SVC", ESR_EC(esr), EC_SVC32);
	check_equal("R0 is what it was", guest.x[0], 0x5000);
	check_equal("R1 is a copy", guest.x[1], 0x5000);
	check_equal("HDBSSBR_EL2 is not changed", hdbssbr_read(), buffer);
	check_equal("HDBSSPROD_EL2 is not changed", hdbssprod_read(), 0);
	check_equal("VTCR_EL2 is not changed", sysreg_read(vtcr_el2), s2.vtcr | VTCR_TRACK);
	sysreg_write(hcr_el2, HCR_RW);
	tlb_flush();
}

static const struct test tests[] = {
	{ .name = "id", .run = id },
	{ .name = "fields", .run = fields },
	{ .name = "apart", .run = apart },
	{ .name = "undefined_at_el1", .run = undefined },
	{ .name = "nested", .run = nested },
	{ .name = "undefined_at_el0", .run = undefined, .argument = el1_vectors },
	{ .name = "other_words_in_aarch32", .run = aarch32 },
};

const struct group registers_group = GROUP("registers", NULL, tests);
