// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Granules, start levels, concatenated tables, LPA2, and a leaf at every level: the
 * entry's IPA and TTWL (R_QWSGD), and the level in the syndrome of a refusal.
 */
#include <stddef.h>

#include "groups.h"
#include "world.h"

struct shape {
	unsigned int granule;
	int start;
	unsigned int ipa_bits;
	bool ds;
	int level;		/* of the leaf */
};

static void leaf(void)
{
	const struct shape *shape = this_test->argument;
	int level = shape->level;
	u64 ipa, size, esr;
	volatile u64 *d;

	buffer = take(4096);
	stage2_init(&s2, shape->granule, shape->start, shape->ipa_bits, shape->ds);
	size = stage2_leaf_size(&s2, level);
	if (shape->ipa_bits < 31)
		s2.offset = RAM_BASE;
	guest.offset = s2.offset;
	ipa = s2.offset ? 0x1000000 + 0x3000 : DATA + 0x123000;
	/* A large block holds program and data. */
	if (size < 64 << 20)
		stage2_map_code(&s2, level, READ_ONLY);
	d = stage2_map(&s2, ipa, DATA + (ipa & (size - 1) & ~0xfffull), level, CLEAN);
	stage2_use(&s2, 0, 0);
	if (!ended(run(&guest, el1_nop, 0, 0, 0, 0))) {
		skip("QEMU does not translate so, HDBSS or not");
		return;
	}
	hdbssbr_write(buffer);
	hdbssprod_write(512);
	stage2_use(&s2, VTCR_TRACK, 0);

	esr = run(&guest, el1_store, ipa + 8, 0x77, 1, 0);
	check_equal("full: refused with HDBSSF and the leaf's level",
		    esr & (ESR_HDBSSF | 0x3f), ESR_HDBSSF | (0x0c + (u64)level));
	check_equal("full: a Data Abort", ESR_EC(esr), EC_DABT);
	check_equal("full: not dirty", *d & S2AP_W, 0);
	hdbssprod_write(0);
	check("the guest goes on", ended(run_on(&guest)));
	check_equal("one entry", hdbssprod_read(), 1);
	check_equal("the leaf's IPA and level", *at(buffer),
		    (ipa & ~(size - 1)) | ((u64)level & 7) << 1 | 1);
	check_equal("dirty", *d & S2AP_W, S2AP_W);
	check("elsewhere in the leaf", ended(run(&guest, el1_store, ipa ^ 0x800, 0x78, 1, 0)));
	check_equal("no more entries", hdbssprod_read(), 1);
}

#define LEAF_AT(level_, name_, ...) {						\
	.name = name_ ".leaf" #level_, .run = leaf,				\
	.argument = &(const struct shape){ __VA_ARGS__, .level = level_ } }
/* Leaves from level 3 up to the level that the macro names */
#define LEAF_3(...)	LEAF_AT(3, __VA_ARGS__)
#define LEAF_2(...)	LEAF_3(__VA_ARGS__), LEAF_AT(2, __VA_ARGS__)
#define LEAF_1(...)	LEAF_2(__VA_ARGS__), LEAF_AT(1, __VA_ARGS__)
#define LEAF_0(...)	LEAF_1(__VA_ARGS__), LEAF_AT(0, __VA_ARGS__)

static const struct test tests[] = {
	LEAF_1("4k.start1.39bits", 12, 1, 39, false),
	LEAF_1("4k.start1.16tables.43bits", 12, 1, 43, false),
	LEAF_2("4k.start2.16tables.34bits", 12, 2, 34, false),
	LEAF_1("4k.start0.48bits", 12, 0, 48, false),
	LEAF_3("4k.start3.25bits", 12, 3, 25, false),
	LEAF_0("4k.lpa2.start-1.52bits", 12, -1, 52, true),
	LEAF_0("4k.lpa2.start0.16tables.52bits", 12, 0, 52, true),
	LEAF_1("4k.lpa2.start1.39bits", 12, 1, 39, true),
	LEAF_2("16k.start2.36bits", 14, 2, 36, false),
	LEAF_2("16k.start2.16tables.40bits", 14, 2, 40, false),
	LEAF_2("16k.start1.47bits", 14, 1, 47, false),
	LEAF_3("16k.start3.28bits", 14, 3, 28, false),
	LEAF_1("16k.lpa2.start1.16tables.51bits", 14, 1, 51, true),
	LEAF_1("16k.lpa2.start0.52bits", 14, 0, 52, true),
	LEAF_2("64k.start2.42bits", 16, 2, 42, false),
	LEAF_2("64k.start2.16tables.46bits", 16, 2, 46, false),
	LEAF_3("64k.start3.16tables.33bits", 16, 3, 33, false),
	LEAF_1("64k.start1.48bits", 16, 1, 48, false),
	LEAF_1("64k.start1.52bits", 16, 1, 52, false),
};

const struct group leaf_group = GROUP("leaf", NULL, tests);
