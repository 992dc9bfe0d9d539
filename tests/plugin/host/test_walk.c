// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The walk's edges, by hand; test_walk_property.py compares it with the reference
 * walk on random tables. Here ASan and UBSan look on.
 */
#include "unit.h"
#include "walk.h"

static struct fake fake;

static uint64_t *word(uint64_t pa)
{
	return fake_at(&fake, pa);
}

static void levels(void)
{
	struct memory memory = fake_memory(&fake);
	uint64_t vtcr = 0x80053f59;	/* 4K, level 1, 39 bits, PS 48 bits */
	struct leaf leaf;

	*word(0x40000008) = 0x40001003;
	*word(0x40001010) = 0x40002003;
	*word(0x40002018) = 0x50000403;
	EXPECT_EQUAL(stage2_walk(&memory, 0x40000000, vtcr, 0x40403abc, &leaf), WALK_LEAF);
	EXPECT_EQUAL(leaf.pa, 0x40002018);
	EXPECT_EQUAL(leaf.descriptor, 0x50000403);
	EXPECT_EQUAL(leaf.size, 4096);
	EXPECT_EQUAL(leaf.level, 3);
	/* CnP and VMID are no part of the address */
	EXPECT_EQUAL(stage2_walk(&memory, 0x0012000040000001, vtcr, 0x40403abc, &leaf),
		     WALK_LEAF);
	EXPECT_EQUAL(stage2_walk(&memory, 0x40000000, vtcr, 1ull << 39, &leaf), WALK_TRANSLATION);
	*word(0x40002018) = 0x50000401;
	EXPECT_EQUAL(stage2_walk(&memory, 0x40000000, vtcr, 0x40403abc, &leaf), WALK_TRANSLATION);
	EXPECT_EQUAL(leaf.level, 3);
	*word(0x40001010) = 0x40200001;
	EXPECT_EQUAL(stage2_walk(&memory, 0x40000000, vtcr, 0x40403abc, &leaf), WALK_LEAF);
	EXPECT_EQUAL(leaf.size, 2 << 20);
	*word(0x40001010) = 0x30000003;
	EXPECT_EQUAL(stage2_walk(&memory, 0x40000000, vtcr, 0x40403abc, &leaf), WALK_OUTSIDE_RAM);
	EXPECT_EQUAL(leaf.pa, 0x30000018);
	/* PS 32 bits: address bits below a block's size do not count, those above do */
	*word(0x40000008) = 0x40001003;
	*word(0x40001010) = 0x40100001;
	EXPECT_EQUAL(stage2_walk(&memory, 0x40000000, vtcr, 0x40403abc, &leaf), WALK_LEAF);
	*word(0x40001010) = 0x100100001;
	EXPECT_EQUAL(stage2_walk(&memory, 0x40000000, vtcr & ~(7ull << 16), 0x40403abc, &leaf),
		     WALK_ADDRESS_SIZE);
	/* a table above it */
	*word(0x40001010) = 0x100000003;
	EXPECT_EQUAL(stage2_walk(&memory, 0x40000000, vtcr & ~(7ull << 16), 0x40403abc, &leaf),
		     WALK_ADDRESS_SIZE);
	EXPECT_EQUAL(stage2_walk(&memory, 0x40000000, vtcr | VTCR_S2PIE, 0, &leaf),
		     WALK_UNSUPPORTED);
	EXPECT_EQUAL(stage2_walk(&memory, 0x40000000, vtcr | VTCR_D128, 0, &leaf),
		     WALK_UNSUPPORTED);
	EXPECT_EQUAL(stage2_walk(&memory, 0x40000000, vtcr | 3 << 14, 0, &leaf),
		     WALK_UNSUPPORTED);
	free(fake.words);
}

/* Whatever VTCR_EL2 and the tables are: at most five reads. */
static void bounded(void)
{
	struct memory memory = fake_memory(&fake);
	uint64_t pattern = 88172645463325252ull;
	unsigned int i, leaves = 0;
	struct leaf leaf;

	for (i = 0; i < FAKE_WORDS; i++)
		fake.words[i] = FAKE_BASE + ((i * 0x9e3779b1u) & 0x1f000) + 3;
	for (i = 0; i < 500000; i++) {
		pattern ^= pattern << 13;
		pattern ^= pattern >> 7;
		pattern ^= pattern << 17;
		fake.accesses = 0;
		leaves += stage2_walk(&memory, FAKE_BASE | (pattern & 0x1ffff), pattern >> 8,
				      pattern * 0x9e3779b97f4a7c15ull >> (i & 63), &leaf) ==
			  WALK_LEAF;
		EXPECT(fake.accesses <= 5);
	}
	EXPECT(leaves > 1000);
	free(fake.words);
}

int main(void)
{
	levels();
	bounded();
	return unit_result("walk");
}
