// SPDX-License-Identifier: GPL-2.0-or-later
/* VTCR_EL2 as PEs have cached it, and what makes them forget. */
#include "decode.h"
#include "pe.h"
#include "unit.h"
#include "walk.h"

#define OFF	(0x3540ull | VTCR_HA)
#define ON	(OFF | VTCR_HD | VTCR_HDBSS)
#define VTTBR(vmid)	((uint64_t)(vmid) << 48 | 0x40001000ull)

static struct pe pes[2];

static void begin(bool lazy)
{
	unsigned int i;

	memset(pes, 0, sizeof(pes));
	for (i = 0; i < 2; i++) {
		pes[i].choices.lazy = lazy;
		pe_reset(&pes[i], OFF);
	}
}

static uint64_t seen(unsigned int pe, unsigned int vmid)
{
	uint64_t vtcr;

	tlb_lock(&pes[pe]);
	vtcr = tlb_vtcr(&pes[pe], VTTBR(vmid));
	tlb_unlock(&pes[pe]);
	return vtcr;
}

static void invalidate(unsigned int pe, bool all, uint16_t vmid, bool broadcast)
{
	tlb_lock(&pes[pe]);
	tlb_invalidate(&pes[pe], all, vmid, broadcast);
	tlb_unlock(&pes[pe]);
}

static void at_once(void)
{
	begin(false);
	EXPECT_EQUAL(seen(0, 1), OFF);
	pes[0].vtcr = ON;
	EXPECT_EQUAL(seen(0, 1), ON);
}

static void until_a_tlbi_of_the_vmid(void)
{
	begin(true);
	EXPECT_EQUAL(seen(0, 1), OFF);
	EXPECT_EQUAL(seen(0, 2), OFF);
	pes[0].vtcr = ON;
	EXPECT_EQUAL(seen(0, 1), OFF);
	EXPECT_EQUAL(seen(0, 3), ON);
	invalidate(0, false, 1, false);
	EXPECT_EQUAL(seen(0, 1), ON);
	EXPECT_EQUAL(seen(0, 2), OFF);
	invalidate(0, true, 0, false);
	EXPECT_EQUAL(seen(0, 2), ON);
}

static void nothing_but_three_bits_is_cached(void)
{
	begin(true);
	seen(0, 1);
	pes[0].vtcr = (ON & ~VTCR_HA) | 1ull << 40;
	EXPECT_EQUAL(seen(0, 1), OFF | 1ull << 40);
}

static void of_all_pes_or_of_one(void)
{
	begin(true);
	seen(0, 1);
	seen(1, 1);
	seen(1, 2);
	pes[0].vtcr = pes[1].vtcr = ON;
	invalidate(0, false, 1, false);
	EXPECT_EQUAL(seen(0, 1), ON);
	EXPECT_EQUAL(seen(1, 1), OFF);
	invalidate(0, false, 1, true);
	EXPECT_EQUAL(seen(1, 1), ON);
	EXPECT_EQUAL(seen(1, 2), OFF);
	invalidate(0, true, 0, true);
	EXPECT_EQUAL(seen(1, 2), ON);
}

static void a_slot_is_shared_and_reset(void)
{
	begin(true);
	seen(0, 1);
	pes[0].vtcr = ON;
	EXPECT_EQUAL(seen(0, 1 + TLB_VMIDS), ON);
	EXPECT_EQUAL(seen(0, 1), ON);	/* it had to make room */
	pe_reset(&pes[0], OFF);
	EXPECT_EQUAL(seen(0, 1), OFF);
	EXPECT_EQUAL(seen(0, 0xffff), OFF);
}

/* As GNU as has them */
static void decoding(void)
{
	static const struct {
		uint32_t word;
		bool found, all, broadcast;
	} words[] = {
		{ 0xd50c87df, true, false, false },	/* tlbi vmalls12e1 */
		{ 0xd50c83df, true, false, true },	/* tlbi vmalls12e1is */
		{ 0xd50c81df, true, false, true },	/* tlbi vmalls12e1os */
		{ 0xd50c93df, true, false, true },	/* tlbi vmalls12e1isnxs */
		{ 0xd50c879f, true, true, false },	/* tlbi alle1 */
		{ 0xd50c839f, true, true, true },	/* tlbi alle1is */
		{ 0xd508871f, false, false, false },	/* tlbi vmalle1 */
		{ 0xd50c871f, false, false, false },	/* tlbi alle2 */
		{ 0xd50c8020, false, false, false },	/* tlbi ipas2e1is, x0 */
		{ 0xd50c8040, false, false, false },	/* tlbi ripas2e1is, x0 */
		{ 0xd51c87df, false, false, false },	/* an MSR */
	};
	unsigned int i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		EXPECT_EQUAL(insn_is_tlbi_stage2(words[i].word), words[i].found);
		if (words[i].found) {
			EXPECT_EQUAL(tlbi_is_of_all(words[i].word), words[i].all);
			EXPECT_EQUAL(tlbi_is_broadcast(words[i].word), words[i].broadcast);
		}
	}
}

int main(void)
{
	at_once();
	until_a_tlbi_of_the_vmid();
	nothing_but_three_bits_is_cached();
	of_all_pes_or_of_one();
	a_slot_is_shared_and_reset();
	decoding();
	return unit_result("tlb");
}
