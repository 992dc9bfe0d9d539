// SPDX-License-Identifier: GPL-2.0-or-later
#include "walk.h"

#define GRANULE_4K	12
#define GRANULE_16K	14
#define GRANULE_64K	16

/* What VTCR_EL2 says, decoded. Sizes are numbers of address bits. */
struct regime {
	unsigned int granule;		/* page size */
	unsigned int stride;		/* resolved at each level but the first */
	unsigned int ipa_bits;
	unsigned int pa_bits;
	int start;			/* level of the first lookup */
	bool ds;			/* 52-bit addresses with 4K or 16K */
};

static unsigned int field(uint64_t value, unsigned int shift, unsigned int width)
{
	return (unsigned int)(value >> shift & ((1u << width) - 1));
}

static uint64_t bits(uint64_t value, unsigned int high, unsigned int low)
{
	return value & (~0ull >> (63 - high)) & (~0ull << low);
}

/* AArch64.S2StartLevel and AArch64.S2InvalidSL; false for a reserved SL0/SL2. */
static bool start_level(uint64_t vtcr, struct regime *r)
{
	unsigned int sl0 = field(vtcr, 6, 2);

	switch (r->granule) {
	case GRANULE_4K:
		if (r->ds && vtcr & VTCR_SL2) {
			r->start = -1;
			return sl0 == 0;
		}
		r->start = sl0 == 3 ? 3 : 2 - (int)sl0;
		return true;
	case GRANULE_16K:
		r->start = 3 - (int)sl0;
		return sl0 < 3 || r->ds;
	default:
		r->start = 3 - (int)sl0;
		return sl0 < 3;
	}
}

static bool decode_regime(uint64_t vtcr, struct regime *r)
{
	static const unsigned int granules[4] = { GRANULE_4K, GRANULE_64K, GRANULE_16K, 0 };
	static const unsigned int pa_sizes[8] = { 32, 36, 40, 42, 44, 48, 52, 52 };
	unsigned int t0sz = field(vtcr, 0, 6);
	int resolved;

	if (vtcr & (VTCR_S2PIE | VTCR_D128))
		return false;
	r->granule = granules[field(vtcr, 14, 2)];
	if (!r->granule)
		return false;
	r->stride = r->granule - 3;
	r->ds = r->granule != GRANULE_64K && vtcr & VTCR_DS;
	r->pa_bits = pa_sizes[field(vtcr, 16, 3)];
	if (r->granule != GRANULE_64K && !r->ds && r->pa_bits > 48)
		r->pa_bits = 48;

	/* FEAT_TTST gives the upper limit, FEAT_LPA and FEAT_LPA2 the lower one. */
	if (t0sz < (r->ds || r->granule == GRANULE_64K ? 12 : 16) ||
	    t0sz > (r->granule == GRANULE_64K ? 47 : 48))
		return false;
	r->ipa_bits = 64 - t0sz;

	if (!start_level(vtcr, r))
		return false;
	/* AArch64.S2InconsistentSL: 2 entries .. 16 concatenated tables. */
	resolved = (int)r->ipa_bits - (int)r->granule - (int)r->stride * (3 - r->start);
	return resolved >= 1 && resolved <= (int)r->stride + 4;
}

/* Output address of a descriptor; the bits below low are no part of it. */
static uint64_t output_address(const struct regime *r, uint64_t descriptor, unsigned int low)
{
	if (r->ds)
		return bits(descriptor, 49, low) | (uint64_t)field(descriptor, 8, 2) << 50;
	if (r->granule == GRANULE_64K)
		return bits(descriptor, 47, low) | (uint64_t)field(descriptor, 12, 4) << 48;
	return bits(descriptor, 47, low);
}

static bool block_allowed(const struct regime *r, int level)
{
	switch (r->granule) {
	case GRANULE_4K:
		return level == 1 || level == 2 || (level == 0 && r->ds);
	case GRANULE_16K:
		return level == 2 || (level == 1 && r->ds);
	default:
		/* FEAT_LPA; QEMU's cpu "max" has 52-bit physical addresses. */
		return level == 2 || level == 1;
	}
}

enum walk_result stage2_walk(const struct memory *mem, uint64_t vttbr, uint64_t vtcr,
			     uint64_t ipa, struct leaf *leaf)
{
	struct regime r;
	uint64_t table;
	unsigned int top;
	int level;

	*leaf = (struct leaf){ 0 };
	if (!decode_regime(vtcr, &r))
		return WALK_UNSUPPORTED;
	if (ipa >> r.ipa_bits)
		return WALK_TRANSLATION;

	/* The first table is as long as the bits that it resolves, and aligned to that. */
	top = r.ipa_bits;
	table = bits(vttbr, 47, top - r.granule - r.stride * (unsigned int)(3 - r.start) + 3);
	if (r.pa_bits > 48)
		table = bits(table, 47, 6) | (uint64_t)field(vttbr, 2, 4) << 48;
	else if (table >> r.pa_bits)
		return WALK_ADDRESS_SIZE;

	for (level = r.start; level <= 3; level++) {
		unsigned int low = r.granule + r.stride * (unsigned int)(3 - level);

		leaf->level = level;
		leaf->size = 1ull << low;
		leaf->pa = table + (bits(ipa, top - 1, low) >> low) * 8;
		if (!memory_read(mem, leaf->pa, &leaf->descriptor))
			return WALK_OUTSIDE_RAM;
		if (!(leaf->descriptor & DESC_VALID))
			return WALK_TRANSLATION;
		if (level == 3 || !(leaf->descriptor & DESC_TABLE)) {
			if (level == 3 ? !(leaf->descriptor & DESC_TABLE) :
					 !block_allowed(&r, level))
				return WALK_TRANSLATION;
			return output_address(&r, leaf->descriptor, low) >> r.pa_bits ?
				       WALK_ADDRESS_SIZE : WALK_LEAF;
		}
		table = output_address(&r, leaf->descriptor, r.granule);
		if (table >> r.pa_bits)
			return WALK_ADDRESS_SIZE;
		top = low;
	}
	return WALK_TRANSLATION;	/* not reached: level 3 returns */
}
