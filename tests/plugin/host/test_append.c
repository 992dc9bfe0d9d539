// SPDX-License-Identifier: GPL-2.0-or-later
/* The dirty update: append, refusal, races, and what a hostile kernel may set up. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "decode.h"
#include "tables.h"

static struct fake fake;
static struct memory memory;
static struct pe pe;
static struct abort fault;

static uint64_t *word(uint64_t pa)
{
	return fake_at(&fake, pa);
}

static uint64_t *leaf(void)
{
	return tables_leaf(&fake, IPA);
}

static void begin(uint64_t descriptor)
{
	free(fake.words);
	memory = fake_memory(&fake);
	tables_link(&fake, &pe, &fault);
	*leaf() = descriptor;
}

static enum verdict update(void)
{
	return pe_dirty_update(&pe, &memory, NULL, &fault);
}

static void appends(void)
{
	begin(CLEAN);
	EXPECT_EQUAL(update(), VERDICT_RETRY);
	EXPECT_EQUAL(*word(BUFFER), IPA | 7);
	EXPECT_EQUAL(*leaf(), CLEAN | DESC_S2AP_W);
	EXPECT_EQUAL(pe.hdbssprod, 1);
	/* the other PE of a race finds it dirty */
	EXPECT_EQUAL(update(), VERDICT_RETRY);
	EXPECT_EQUAL(pe.hdbssprod, 1);

	begin(CLEAN & ~DESC_AF);
	EXPECT_EQUAL(update(), VERDICT_RETRY);
	EXPECT_EQUAL(*leaf(), CLEAN | DESC_S2AP_W);

	begin(CLEAN);
	*word(LEVEL2) = (CLEAN & ~0xffffull) | 0x400 | 1;
	EXPECT_EQUAL(update(), VERDICT_RETRY);
	EXPECT_EQUAL(*word(BUFFER), 0x5);

	begin(CLEAN);
	memory.big_endian = true;
	*word(ROOT) = __builtin_bswap64(*word(ROOT));
	*word(LEVEL2) = __builtin_bswap64(*word(LEVEL2));
	*leaf() = __builtin_bswap64(*leaf());
	EXPECT_EQUAL(update(), VERDICT_RETRY);
	EXPECT_EQUAL(*word(BUFFER), __builtin_bswap64(IPA | 7));
	EXPECT_EQUAL(*leaf(), __builtin_bswap64(CLEAN | DESC_S2AP_W));
}

static void leaves_alone(void)
{
	begin(CLEAN & ~DESC_DBM);
	EXPECT_EQUAL(update(), VERDICT_KERNEL);
	begin((CLEAN & ~DESC_DBM) | DESC_S2AP_W);
	EXPECT_EQUAL(update(), VERDICT_RETRY);	/* made writable meanwhile */
	begin(0);
	EXPECT_EQUAL(update(), VERDICT_RETRY);	/* unmapped meanwhile */
	/* a stage 1 walk reads its table before it writes to it */
	begin(CLEAN & ~DESC_S2AP_R);
	fault.esr |= ESR_S1PTW;
	EXPECT_EQUAL(update(), VERDICT_KERNEL);
	begin(CLEAN & ~0x3cull);
	fault.esr |= ESR_S1PTW;
	fault.hcr |= HCR_PTW;
	EXPECT_EQUAL(update(), VERDICT_KERNEL);
	EXPECT_EQUAL(pe.hdbssprod, 0);
	EXPECT_EQUAL(fault.esr, ESR | ESR_S1PTW);
	begin(CLEAN);
	fault.esr |= ESR_S1PTW;
	fault.hcr |= HCR_PTW;
	EXPECT_EQUAL(update(), VERDICT_RETRY);
	EXPECT_EQUAL(pe.hdbssprod, 1);
}

/* caching=lazy: the guest ran with this VTCR_EL2 before, and no TLBI followed */
static void begin_cached(uint64_t before, uint64_t now)
{
	begin(CLEAN);
	pe.choices.lazy = true;
	pe.vtcr = before;
	tlb_lock(&pe);
	tlb_vtcr(&pe, ROOT);
	tlb_unlock(&pe);
	pe.vtcr = now;
}

static void old_translations(void)
{
	const uint64_t off = VTCR & ~(VTCR_HD | VTCR_HDBSS), dirty = VTCR & ~VTCR_HDBSS;

	begin_cached(off, VTCR);
	EXPECT_EQUAL(update(), VERDICT_KERNEL);
	EXPECT_EQUAL(*leaf(), CLEAN);
	begin_cached(dirty, VTCR);
	EXPECT_EQUAL(update(), VERDICT_RETRY);
	EXPECT_EQUAL(*leaf(), CLEAN | DESC_S2AP_W);
	EXPECT_EQUAL(pe.hdbssprod, 0);
	begin_cached(VTCR, off);
	EXPECT_EQUAL(update(), VERDICT_RETRY);
	EXPECT_EQUAL(*word(BUFFER), IPA | 7);
	EXPECT_EQUAL(pe.hdbssprod, 1);
	begin_cached(dirty, off);
	EXPECT_EQUAL(update(), VERDICT_RETRY);
	EXPECT_EQUAL(*leaf(), CLEAN | DESC_S2AP_W);
	begin_cached(off, dirty);
	EXPECT_EQUAL(update(), VERDICT_KERNEL);
	EXPECT_EQUAL(*leaf(), CLEAN);
	begin_cached(VTCR, dirty);
	EXPECT_EQUAL(update(), VERDICT_RETRY);
	EXPECT_EQUAL(pe.hdbssprod, 1);
}

/* Another PE's TLBI: it has to wait until the update that it meets is over. */
static atomic_bool invalidated;
static pthread_t invalidating;

static void *invalidate(void *unused)
{
	(void)unused;
	tlb_lock(&pe);
	atomic_store(&invalidated, true);
	tlb_unlock(&pe);
	return NULL;
}

static void other_tlbi(struct fake *f, uint64_t pa)
{
	(void)pa;
	if (f->times++)
		return;
	pthread_create(&invalidating, NULL, invalidate, NULL);
	usleep(100000);
	EXPECT(!atomic_load(&invalidated));
}

static void no_tlbi_in_between(void)
{
	begin_cached(VTCR, VTCR);
	fake.interfere = other_tlbi;
	EXPECT_EQUAL(update(), VERDICT_RETRY);
	pthread_join(invalidating, NULL);
	EXPECT(atomic_load(&invalidated));
}

static void candidates(void)
{
	EXPECT(abort_is_candidate(ESR));
	EXPECT(abort_is_candidate(0x9200004c));			/* level 0 */
	EXPECT(!abort_is_candidate(ESR & ~ESR_WNR));		/* a load */
	EXPECT(abort_is_candidate((ESR & ~ESR_WNR) | ESR_S1PTW));
	EXPECT(!abort_is_candidate(ESR | ESR_CM));
	EXPECT(!abort_is_candidate((ESR & ~0x3full) | 0x07));	/* Translation fault */
	EXPECT(!abort_is_candidate((ESR & ~0x3full) | 0x0b));	/* Access flag fault */
	EXPECT(!abort_is_candidate(0x8200000f));		/* a fetch */
	EXPECT(abort_is_candidate(0x8200008f));			/* its stage 1 walk */
	EXPECT(!abort_is_candidate(0x9600004f));		/* from EL2 itself */
	EXPECT(!abort_is_candidate(0x5a000000));		/* HVC */
}

static void refuses(void)
{
	begin(CLEAN);
	pe.hdbssprod = 512;
	EXPECT_EQUAL(update(), VERDICT_REFUSED);
	EXPECT_EQUAL(fault.esr, ESR | ESR_HDBSSF);
	EXPECT_EQUAL(*leaf(), CLEAN);
	EXPECT_EQUAL(pe.hdbssprod, 512);
	EXPECT_EQUAL(pe.refusals, 1);

	begin(CLEAN);
	pe.hdbssprod = HDBSSPROD_FSC_ABORT | 3;
	EXPECT_EQUAL(update(), VERDICT_REFUSED);
	EXPECT_EQUAL(pe.hdbssprod, HDBSSPROD_FSC_ABORT | 3);

	/* only an access that needs the update is refused */
	begin(CLEAN & ~DESC_DBM);
	pe.hdbssprod = 512;
	EXPECT_EQUAL(update(), VERDICT_KERNEL);
	EXPECT_EQUAL(fault.esr, ESR);

	/* the level is that of the tables now */
	begin(CLEAN);
	*word(LEVEL2) = (CLEAN & ~0xffffull) | 0x400 | 1;
	pe.hdbssprod = 512;
	EXPECT_EQUAL(update(), VERDICT_REFUSED);
	EXPECT_EQUAL(fault.esr, (ESR & ~1ull) | ESR_HDBSSF);
}

/* Another PE dirties the leaf; the kernel cleans it again, for ever; it goes away. */
static void other_pe(struct fake *f, uint64_t pa)
{
	*fake_at(f, pa) |= DESC_S2AP_W;
}

static void restless(struct fake *f, uint64_t pa)
{
	f->times++;
	*fake_at(f, pa) ^= 1ull << 55;	/* a software bit */
}

static void once(struct fake *f, uint64_t pa)
{
	if (!f->times++)
		*fake_at(f, pa) ^= 1ull << 55;
}

static void unmapped(struct fake *f, uint64_t pa)
{
	*fake_at(f, pa) = 0;
}

static void races(void)
{
	begin(CLEAN);
	fake.interfere = other_pe;
	EXPECT_EQUAL(update(), VERDICT_RETRY);
	EXPECT_EQUAL(pe.hdbssprod, 1);		/* choice C9: the entry stays */
	EXPECT_EQUAL(*leaf(), CLEAN | DESC_S2AP_W);

	begin(CLEAN);
	fake.interfere = once;
	EXPECT_EQUAL(update(), VERDICT_RETRY);
	EXPECT_EQUAL(pe.hdbssprod, 2);
	EXPECT_EQUAL(*word(BUFFER + 8), IPA | 7);
	EXPECT_EQUAL(*leaf(), (CLEAN ^ 1ull << 55) | DESC_S2AP_W);

	begin(CLEAN);
	fake.interfere = unmapped;
	EXPECT_EQUAL(update(), VERDICT_RETRY);
	EXPECT_EQUAL(*leaf(), 0);

	begin(CLEAN);
	fake.interfere = restless;
	EXPECT_EQUAL(update(), VERDICT_KERNEL);
	EXPECT_EQUAL(pe.anomalies, 1);
	EXPECT(fake.times < 1000);

	/* full in the middle of it */
	begin(CLEAN);
	pe.hdbssprod = 510;
	fake.interfere = restless;
	EXPECT_EQUAL(update(), VERDICT_REFUSED);
	EXPECT_EQUAL(pe.hdbssprod, 512);
}

static void fruitless(void)
{
	unsigned int i;

	begin(CLEAN | DESC_S2AP_W);
	for (i = 0; i < 100000 && update() == VERDICT_RETRY; i++)
		;
	EXPECT(i > 10 && i < 1000);
	EXPECT_EQUAL(pe.anomalies, 1);
	EXPECT_EQUAL(update(), VERDICT_RETRY);
}

/* Lost races of many accesses are no disagreement. */
static void fruitless_apart(void)
{
	unsigned int i;

	begin(CLEAN | DESC_S2AP_W);
	for (i = 0; i < 1000; i++) {
		fault.far += 8;
		EXPECT_EQUAL(update(), VERDICT_RETRY);
	}
	for (i = 0; i < 1000; i++) {
		fault.elr += 4;
		EXPECT_EQUAL(update(), VERDICT_RETRY);
	}
	for (i = 0; i < 1000; i++) {
		pe.entries_to_guest++;
		EXPECT_EQUAL(update(), VERDICT_RETRY);
	}
	pe.hdbssprod = 512;
	for (i = 0; i < 1000; i++) {
		fault.esr = ESR;
		*leaf() ^= DESC_S2AP_W;
		EXPECT_EQUAL(update(), i & 1 ? VERDICT_RETRY : VERDICT_REFUSED);
	}
	pe.choices.lazy = true;
	pe.vtcr &= ~VTCR_HDBSS;
	for (i = 0; i < 1000; i++) {
		if (i & 1)
			*leaf() = CLEAN;
		EXPECT_EQUAL(update(), VERDICT_RETRY);
	}
	EXPECT_EQUAL(pe.anomalies, 0);
}

static void hostile(void)
{
	static const uint64_t bad[] = {
		0, 0x3ffff000, FAKE_BASE + FAKE_WORDS * 8ull, 0x00fffffffffff000ull,
		BUFFER | 10, BUFFER | 15,
	};
	uint64_t pattern;
	unsigned int i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		begin(CLEAN);
		pe.hdbssbr = bad[i];
		pe.hdbssprod = 5;
		EXPECT_EQUAL(update(), VERDICT_REFUSED);
		EXPECT_EQUAL(pe.hdbssprod, HDBSSPROD_FSC_ABORT | 5);
		EXPECT_EQUAL(pe.anomalies, 1);
		EXPECT_EQUAL(*leaf(), CLEAN);
	}
	begin(CLEAN);
	fault.vttbr = 0x30000000;
	EXPECT_EQUAL(update(), VERDICT_KERNEL);
	EXPECT_EQUAL(pe.anomalies, 1);
	begin(CLEAN);
	pe.vtcr |= 3ull << 14;
	EXPECT_EQUAL(update(), VERDICT_KERNEL);
	EXPECT_EQUAL(pe.anomalies, 1);
	/* the buffer is the table: the entry replaces the descriptor, the CAS loses */
	begin(CLEAN);
	pe.hdbssbr = LEVEL3;
	pe.hdbssprod = 5;
	EXPECT_EQUAL(update(), VERDICT_KERNEL);
	EXPECT_EQUAL(*leaf(), IPA | 7);

	/* anything at all: comes back, and soon */
	for (i = 0, pattern = 1; i < 10000; i++) {
		unsigned int k;
		uint64_t r[8];

		for (k = 0; k < 8; k++) {
			pattern ^= pattern << 13;
			pattern ^= pattern >> 7;
			pattern ^= pattern << 17;
			r[k] = pattern;
		}
		begin(CLEAN ^ (i & 1 ? r[0] : 0));
		*word(ROOT) ^= i & 2 ? r[1] & 0x3fff8 : 0;
		pe.hdbssbr = pe_write(&pe, SYS_HDBSSBR_EL2, i & 4 ? r[2] : BUFFER);
		pe_write(&pe, SYS_HDBSSPROD_EL2, i & 8 ? r[3] : r[3] & 0x3ff);
		pe.vtcr = i & 16 ? r[4] : VTCR;
		fault.vttbr = i & 32 ? r[5] : ROOT;
		fault.hpfar = i & 64 ? r[6] : IPA >> 8;
		fault.esr ^= i & 128 ? r[7] & ESR_S1PTW : 0;
		update();
		EXPECT(fake.accesses < 1000);
	}
}

int main(void)
{
	appends();
	leaves_alone();
	old_translations();
	no_tlbi_in_between();
	candidates();
	refuses();
	races();
	fruitless();
	fruitless_apart();
	hostile();
	free(fake.words);
	return unit_result("append");
}
