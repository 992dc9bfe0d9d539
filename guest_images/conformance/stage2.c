// SPDX-License-Identifier: GPL-2.0-or-later
/* Memory for tables and buffers, and stage 2 translations built in it. */
#include "bare.h"

#define CODE		0x40000000ull		/* the program lies in this 2 MB */
#define CODE_END	0x40200000ull

static u64 heap = HEAP;

u64 take(u64 size)
{
	u64 start = (heap + size - 1) & ~(size - 1), i;

	for (i = 0; i < size; i += 8)
		*at(start + i) = 0;
	heap = start + size;
	return start;
}

void take_anew(void)
{
	heap = HEAP;
}

/* Input address bits below a level's index */
static unsigned int level_low(const struct stage2 *s2, int level)
{
	return s2->granule + (s2->granule - 3) * (unsigned int)(3 - level);
}

u64 stage2_leaf_size(const struct stage2 *s2, int level)
{
	return 1ull << level_low(s2, level);
}

void stage2_init(struct stage2 *s2, unsigned int granule, int start, unsigned int ipa_bits,
		 bool ds)
{
	u64 tg0 = granule == 12 ? 0 : granule == 16 ? 1 : 2;
	u64 sl0 = (u64)((granule == 12 ? 2 : 3) - start), sl2 = 0;
	unsigned int resolved;

	if (granule == 12 && start == 3)
		sl0 = 3;
	if (granule == 12 && start == -1) {
		sl0 = 0;
		sl2 = 1;
	}
	s2->granule = granule;
	s2->ipa_bits = ipa_bits;
	s2->start = start;
	s2->ds = ds;
	s2->offset = 0;
	resolved = ipa_bits - level_low(s2, start);
	s2->root = take(8ull << resolved < 64 ? 64 : 8ull << resolved);
	s2->vtcr = VTCR_RES1 | (u64)ds << 32 | sl2 << 33 | sl0 << 6 | tg0 << 14 | 3 << 12 |
		   1 << 10 | 1 << 8 | (ds || ipa_bits > 48 ? 6ull : 5ull) << 16 | (64 - ipa_bits);
}

volatile u64 *stage2_map(struct stage2 *s2, u64 ipa, u64 pa, int level, u64 attributes)
{
	u64 table = s2->root;
	unsigned int high = s2->ipa_bits;
	int i;

	/* With DS=1 bits [9:8] are an address, not shareability. */
	if (s2->ds)
		attributes &= ~SH_INNER;
	for (i = s2->start;; i++) {
		unsigned int low = level_low(s2, i);
		u64 index = (ipa & ((1ull << high) - 1)) >> low;
		volatile u64 *descriptor = at(table) + index;

		if (i == level) {
			*descriptor = (pa & ~((1ull << low) - 1)) | attributes |
				      (level == 3 ? 3 : 1);
			return descriptor;
		}
		if (!*descriptor)
			*descriptor = take(1ull << s2->granule) | 3;
		table = *descriptor & 0x0000fffffffff000ull & ~((1ull << s2->granule) - 1);
		high = low;
	}
}

void stage2_map_code(struct stage2 *s2, int level, u64 attributes)
{
	u64 size = stage2_leaf_size(s2, level), ipa;

	for (ipa = CODE & ~(size - 1); ipa < CODE_END; ipa += size)
		stage2_map(s2, ipa - s2->offset, ipa, level, attributes);
}

void tlb_flush(void)
{
	asm volatile("dsb sy\n\ttlbi alle1is\n\tdsb sy\n\tisb" : : : "memory");
}

void stage2_use(const struct stage2 *s2, u64 vtcr_bits, u64 hcr_bits)
{
	sysreg_write(vttbr_el2, s2->root);
	sysreg_write(vtcr_el2, s2->vtcr | vtcr_bits);
	sysreg_write(hcr_el2, HCR_RW | HCR_VM | hcr_bits);
	tlb_flush();
}
