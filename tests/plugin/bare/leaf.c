// SPDX-License-Identifier: GPL-2.0-or-later
/* Granules, start levels, concatenated tables, LPA2, and a leaf at every level. */
#include "bare.h"

struct shape {
	const char *name;
	unsigned int granule;
	int start;
	unsigned int ipa_bits;
	bool ds;
	int highest;		/* the lowest level number at which a leaf may stand */
};

static const struct shape shapes[] = {
	{ "4K, level 1, 39 bits", 12, 1, 39, false, 1 },
	{ "4K, level 1, 16 tables, 43 bits", 12, 1, 43, false, 1 },
	{ "4K, level 2, 16 tables, 34 bits", 12, 2, 34, false, 2 },
	{ "4K, level 0, 48 bits", 12, 0, 48, false, 1 },
	{ "4K, level 3, 25 bits", 12, 3, 25, false, 3 },
	{ "4K LPA2, level -1, 52 bits", 12, -1, 52, true, 0 },
	{ "4K LPA2, level 0, 16 tables, 52 bits", 12, 0, 52, true, 0 },
	{ "4K LPA2, level 1, 39 bits", 12, 1, 39, true, 1 },
	{ "16K, level 2, 36 bits", 14, 2, 36, false, 2 },
	{ "16K, level 2, 16 tables, 40 bits", 14, 2, 40, false, 2 },
	{ "16K, level 1, 47 bits", 14, 1, 47, false, 2 },
	{ "16K, level 3, 28 bits", 14, 3, 28, false, 3 },
	{ "16K LPA2, level 1, 16 tables, 51 bits", 14, 1, 51, true, 1 },
	{ "16K LPA2, level 0, 52 bits", 14, 0, 52, true, 1 },
	{ "64K, level 2, 42 bits", 16, 2, 42, false, 2 },
	{ "64K, level 2, 16 tables, 46 bits", 16, 2, 46, false, 2 },
	{ "64K, level 3, 16 tables, 33 bits", 16, 3, 33, false, 3 },
	{ "64K, level 1, 48 bits", 16, 1, 48, false, 1 },
	{ "64K, level 1, 52 bits", 16, 1, 52, false, 1 },
};

static struct guest guest;

static void leaf(const struct shape *shape, int level)
{
	struct stage2 s2;
	u64 buffer, ipa, size, esr, expected;
	volatile u64 *d;

	take_anew();
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
	hdbssbr_write(buffer);
	hdbssprod_write(512);
	stage2_use(&s2, VTCR_TRACK, 0);

	esr = run(&guest, guest_store, ipa + 8, 0x77, 1, 0);
	check_equal("full: refused with HDBSSF and the leaf's level",
		    esr & (ESR_HDBSSF | 0x3f), ESR_HDBSSF | (0x0c + (u64)level));
	check_equal("full: not dirty", *d & S2AP_W, 0);
	hdbssprod_write(0);
	check("the guest goes on", ended(run_on(&guest)));
	check_equal("one entry", hdbssprod_read(), 1);
	expected = (ipa & ~(size - 1)) | ((u64)level & 7) << 1 | 1;
	check_equal("the leaf's IPA and level", *at(buffer), expected);
	check_equal("dirty", *d & S2AP_W, S2AP_W);
	check("elsewhere in the leaf", ended(run(&guest, guest_store, ipa ^ 0x800, 0x78, 1, 0)));
	check_equal("no more entries", hdbssprod_read(), 1);
}

void main(void)
{
	unsigned int i;
	int level;

	for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		for (level = 3; level >= shapes[i].highest && level >= shapes[i].start; level--) {
			say("# ");
			say(shapes[i].name);
			say_hex(", leaf at ", (u64)level);
			leaf(&shapes[i], level);
		}
}
