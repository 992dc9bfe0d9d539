// SPDX-License-Identifier: GPL-2.0-or-later
/* CPU_OFF and CPU_ON are a reset of that PE, and of no other; a call that fails is none. */
#include <stddef.h>

#include "groups.h"
#include "world.h"

#define HDBSSBR		0x60000000ull
#define HDBSSPROD	5ull
#define CPU_OFF		0x84000002ull

/* PSCI 0.1 has no numbers of its own; QEMU's. */
struct psci {
	u64 cpu_off, cpu_on;
};

static u64 seen[2][3], number_seen;
static unsigned int starts;

static const struct psci *version(void)
{
	return this_test->argument;
}

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
	smc_call(version()->cpu_off, 0, 0, 0);
}

/* 2: Warm reset makes the fields UNKNOWN; ours are 0 unless "unknown" is injected. */
static void cpu_off(void)
{
	unsigned int i;

	hdbssbr_write(HDBSSBR);
	secondary_work = second_pe;
	starts = 0;
	for (i = 0; i < 2; i++) {
		cpu_on_by(version()->cpu_on, 1);
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
	check_equal("the first PE keeps its own", hdbssbr_read(), HDBSSBR);
}

static void hold(u64 vtcr)
{
	hdbssbr_write(HDBSSBR);
	hdbssprod_write(HDBSSPROD);
	sysreg_write(vtcr_el2, vtcr);
}

static void check_held(u64 vtcr)
{
	check_equal("HDBSSBR_EL2 is kept", hdbssbr_read(), HDBSSBR);
	check_equal("HDBSSPROD_EL2 is kept", hdbssprod_read(), HDBSSPROD);
	check_equal("VTCR_EL2 is kept", sysreg_read(vtcr_el2), vtcr);
}

/* Calls that the firmware does not have: CPU_OFF and the resets with 64-bit arguments, .. */
static void unknown_calls(void)
{
	static const u64 functions[] = {
		0xc4000002, 0xc4000009, 0x84000012, 0xc4000012,
		/* .. and numbers that are theirs in 32 of 64 bits */
		1ull << 32 | CPU_OFF, 1ull << 63 | 0x84000009, 0xd5c1ba5f,
	};
	unsigned int i;

	for (i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		hold(VTCR_TRACK);
		check_equal("NOT_SUPPORTED", (uint32_t)smc_call(functions[i], 0, 0, 0),
			    0xffffffff);
		check_held(VTCR_TRACK);
	}
}

/* UNDEFINED at EL0, trapped to EL2 at EL1 with HCR_EL2.TSC: either way nobody is called. */
static void not_called(void)
{
	bool el0 = this_test->argument;
	u64 esr;

	world_begin();
	sysreg_write(vbar_el1, (u64)el1_vectors);
	if (!el0)
		sysreg_write(hcr_el2, HCR_RW | HCR_VM | HCR_TSC);
	hold(s2.vtcr | VTCR_TRACK);
	esr = run_at(&guest, el1_smc, el0 ? SPSR_EL0T : SPSR_EL1H, CPU_OFF, 0, 0, 0);
	if (el0)
		check_undefined("SMC at EL0", esr, true);
	else
		check_equal("a trapped SMC", ESR_EC(esr), EC_SMC);
	check_held(s2.vtcr | VTCR_TRACK);
}

static const struct psci psci_0_1 = { 0x95c1ba5f, 0x95c1ba60 }, psci_0_2 = { CPU_OFF, 0xc4000003 };

static const struct test tests[] = {
	{ .name = "cpu_off", .run = cpu_off, .argument = &psci_0_2, .pes = 2 },
	{ .name = "cpu_off.psci_0_1", .run = cpu_off, .argument = &psci_0_1, .pes = 2 },
	{ .name = "unknown_calls", .run = unknown_calls },
	{ .name = "smc_at_el0", .run = not_called, .argument = el1_smc },
	{ .name = "smc_trapped", .run = not_called },
};

const struct group reset_group = GROUP("reset", NULL, tests);
