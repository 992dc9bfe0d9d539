// SPDX-License-Identifier: GPL-2.0-or-later
/* Injections: their words, what they count, and what a PE then does. */
#include "inject.h"
#include "tables.h"

#define ISV	(1ull << 24 | 3ull << 16)

static struct fake fake;
static struct memory memory;
static struct injector injector;
static struct pe pe;
static struct abort fault;

static uint64_t *word(uint64_t pa)
{
	return fake_at(&fake, pa);
}

static uint64_t *leaf(unsigned int page)
{
	return tables_leaf(&fake, IPA + page * 4096);
}

static bool add(const char *spec)
{
	char text[128];

	snprintf(text, sizeof(text), "%s", spec);
	return inject_add(&injector, text);
}

static void begin(const char *spec)
{
	unsigned int page;

	free(fake.words);
	memory = fake_memory(&fake);
	tables_link(&fake, &pe, &fault);
	for (page = 0; page < 8; page++)
		*leaf(page) = CLEAN;
	memset(&injector, 0, sizeof(injector));
	pe.injector = &injector;
	EXPECT(add(spec));
}

static enum verdict store(unsigned int page)
{
	fault = (struct abort){
		.esr = ESR | ISV, .hpfar = (IPA + page * 4096) >> 8, .vttbr = ROOT, .hcr = HCR_VM,
	};
	return pe_dirty_update(&pe, &memory, NULL, &fault);
}

static void words(void)
{
	static const char *const bad[] = {
		"", "abord", "abort=1", "index", "index=5", "abort:append", "abort:append=0",
		"abort:append=x", "abort:append=1x", "abort:entry=1", "abort:report=both",
		"abort:dirty=1", "abort:append=99999999999999999999", "abort::",
	};
	unsigned int i;

	memset(&injector, 0, sizeof(injector));
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		EXPECT(!add(bad[i]));
	EXPECT_EQUAL(injector.nr, 0);
	EXPECT(add("abort:append=3:times=2:pe=1:vmid=7:ipa=0x40005000:report=precise:dirty=yes:late=4"));
	EXPECT_EQUAL(injector.list[0].at, 3);
	EXPECT_EQUAL(injector.list[0].ipa, 0x40005000);
	EXPECT(injector.list[0].precise && injector.list[0].dirty);
	EXPECT(add("unknown:reset=1:times=0:seed=9"));
	EXPECT(add("index=max:entry=2"));
	EXPECT_EQUAL(injector.list[2].preset, PRESET_MAX);
	while (injector.nr < INJECTIONS_MAX)
		EXPECT(add("fill"));
	EXPECT(!add("fill"));
}

static void counts(void)
{
	const struct injection *met;
	unsigned int i;

	begin("abort:append=2:times=2:pe=0:vmid=7:ipa=0x5000");
	EXPECT(!inject_meet(&injector, EVENT_APPEND, 1, 7ull << 48, 0x5000));
	EXPECT(!inject_meet(&injector, EVENT_APPEND, 0, 8ull << 48, 0x5000));
	EXPECT(!inject_meet(&injector, EVENT_APPEND, 0, 7ull << 48, 0x6000));
	EXPECT(!inject_meet(&injector, EVENT_REFUSAL, 0, 7ull << 48, 0x5000));
	for (i = 1; i <= 4; i++) {
		met = inject_meet(&injector, EVENT_APPEND, 0, 7ull << 48, 0x5ff8);
		EXPECT_EQUAL(met != NULL, i == 2 || i == 3);
	}
	EXPECT(!inject_meet(NULL, EVENT_APPEND, 0, 0, 0));
	begin("unknown:times=0");
	for (i = 0; i < 3; i++)
		EXPECT(inject_meet(&injector, EVENT_RESET, i, 0, 0));
	/* as in tests/unit/model/test_injection.py */
	EXPECT_EQUAL(inject_unknown(7, 1, 2, 0), 0xbf66eb24cf6e1a56ull);
	EXPECT_EQUAL(inject_unknown(7, 1, 2, 1), 0x194b2813e05c0035ull);
	EXPECT_EQUAL(inject_unknown(7, 1, 2, 2), 0x6c3e50d9840c3818ull);
}

static void faults(void)
{
	begin("abort:append=2");
	EXPECT_EQUAL(store(0), VERDICT_RETRY);
	EXPECT_EQUAL(store(1), VERDICT_REFUSED);
	EXPECT_EQUAL(fault.esr, ESR | ISV | ESR_HDBSSF);
	EXPECT_EQUAL(pe.hdbssprod, HDBSSPROD_FSC_ABORT | 1);
	EXPECT_EQUAL(*leaf(1), CLEAN);

	begin("abort:dirty=yes");
	EXPECT_EQUAL(store(0), VERDICT_RETRY);
	EXPECT_EQUAL(*leaf(0), CLEAN | DESC_S2AP_W);
	EXPECT_EQUAL(pe.hdbssprod, HDBSSPROD_FSC_ABORT);
	EXPECT_EQUAL(*word(BUFFER), 0);
	EXPECT_EQUAL(store(1), VERDICT_REFUSED);

	begin("abort:report=precise:dirty=yes");
	EXPECT_EQUAL(store(0), VERDICT_REFUSED);
	EXPECT_EQUAL(fault.esr, 0x92000057ull | ESR_HDBSSF);
	EXPECT_EQUAL(*leaf(0), CLEAN | DESC_S2AP_W);
	EXPECT_EQUAL(pe.hdbssprod, 0);

	begin("gpf:report=precise");
	EXPECT_EQUAL(store(0), VERDICT_REFUSED);
	EXPECT_EQUAL(fault.esr, 0x92000067ull | ESR_HDBSSF);
	EXPECT_EQUAL(*leaf(0), CLEAN);

	begin("gpf");
	EXPECT_EQUAL(store(0), VERDICT_REFUSED);
	EXPECT_EQUAL(pe.hdbssprod, HDBSSPROD_FSC_GPF);

	begin("abort:late=2");
	EXPECT_EQUAL(store(0), VERDICT_RETRY);
	EXPECT_EQUAL(store(1), VERDICT_RETRY);
	EXPECT_EQUAL(pe.hdbssprod, 0);
	EXPECT_EQUAL(store(2), VERDICT_RETRY);
	EXPECT_EQUAL(pe.hdbssprod, HDBSSPROD_FSC_ABORT);
	EXPECT_EQUAL(store(3), VERDICT_REFUSED);

	begin("abort:late=9");
	EXPECT_EQUAL(store(0), VERDICT_RETRY);
	EXPECT(pe_set_late_fsc(&pe, NULL));
	EXPECT(!pe_set_late_fsc(&pe, NULL));
	EXPECT_EQUAL(pe.hdbssprod, HDBSSPROD_FSC_ABORT);
}

/* A buffer outside RAM: the fault is dealt with as chosen. */
static void chosen(void)
{
	begin("fill:append=9");
	pe.hdbssbr = 0x1000;
	pe.choices.external_abort_precise = true;
	EXPECT_EQUAL(store(0), VERDICT_REFUSED);
	EXPECT_EQUAL(fault.esr, 0x92000057ull | ESR_HDBSSF);
	begin("fill:append=9");
	pe.hdbssbr = 0x1000;
	pe.choices.fsc_delay = 1;
	EXPECT_EQUAL(store(0), VERDICT_RETRY);
	EXPECT_EQUAL(store(1), VERDICT_RETRY);
	EXPECT_EQUAL(store(2), VERDICT_REFUSED);

	begin("fill:append=9");
	pe.choices.zero_ahead = 3;
	pe.hdbssprod = 509;
	memset(word(BUFFER + 8 * 508), 0xff, 8 * 8);
	EXPECT_EQUAL(store(0), VERDICT_RETRY);
	EXPECT_EQUAL(*word(BUFFER + 8 * 508), ~0ull);
	EXPECT_EQUAL(*word(BUFFER + 8 * 511), 0);
	EXPECT_EQUAL(*word(BUFFER + 8 * 512), ~0ull);

	begin("fill:append=9");
	pe.choices.af_with_refusal = true;
	pe.hdbssprod = 512;
	*leaf(0) = CLEAN & ~DESC_AF;
	EXPECT_EQUAL(store(0), VERDICT_REFUSED);
	EXPECT_EQUAL(*leaf(0), CLEAN);
}

static void races(void)
{
	unsigned int i;

	begin("cas-lost:times=3");
	EXPECT_EQUAL(store(0), VERDICT_RETRY);
	EXPECT_EQUAL(pe.hdbssprod, 4);
	EXPECT_EQUAL(*leaf(0), CLEAN | DESC_S2AP_W);
	EXPECT_EQUAL(*word(BUFFER + 24), IPA | 7);

	begin("cas-lost:times=3");
	pe.choices.lost_cas_takes_back = true;
	pe.choices.late = true;
	EXPECT_EQUAL(store(0), VERDICT_RETRY);
	EXPECT_EQUAL(pe.hdbssprod, 1);
	EXPECT_EQUAL(pe.nr_outstanding, 1);

	/* for ever: not for ever */
	begin("cas-lost:times=0");
	EXPECT_EQUAL(store(0), VERDICT_KERNEL);
	EXPECT_EQUAL(pe.anomalies, 1);

	for (i = 0; i < 2; i++) {
		begin("fill");
		pe.choices.late = i;
		EXPECT_EQUAL(store(0), VERDICT_RETRY);
		EXPECT_EQUAL(pe.hdbssprod, 512);
		EXPECT_EQUAL(*word(BUFFER), IPA | 7);
		EXPECT_EQUAL(*word(BUFFER + 4096), 0);
		EXPECT_EQUAL(store(1), VERDICT_REFUSED);
	}
}

static void reports(void)
{
	begin("s1ptw:refusal=1");
	EXPECT(add("fetch:refusal=2"));
	pe.hdbssprod = 512;
	EXPECT_EQUAL(store(0), VERDICT_REFUSED);
	EXPECT_EQUAL(fault.esr, ESR | ESR_S1PTW | ESR_HDBSSF);
	EXPECT_EQUAL(store(0), VERDICT_REFUSED);
	EXPECT_EQUAL(fault.esr, 0x8200000full | ESR_S1PTW | ESR_HDBSSF);
	EXPECT_EQUAL(store(0), VERDICT_REFUSED);
	EXPECT_EQUAL(fault.esr, ESR | ISV | ESR_HDBSSF);
}

static void unknown(void)
{
	begin("unknown:times=0:seed=7");
	pe.index = 1;
	pe.nr_resets = 2;
	pe_reset(&pe, 5);
	EXPECT(pe_inject_unknown(&pe));
	EXPECT_EQUAL(pe.hdbssbr, 0x0066eb24cf6e1006ull);
	EXPECT_EQUAL(pe.vtcr, 0x6c3e50d9840c3818ull);
	EXPECT_EQUAL(pe.visible_prod, pe.hdbssprod);
	begin("unknown:reset=2");
	pe_reset(&pe, 5);
	EXPECT(!pe_inject_unknown(&pe));
	EXPECT_EQUAL(pe.vtcr, 5);
}

int main(void)
{
	words();
	counts();
	faults();
	chosen();
	races();
	reports();
	unknown();
	free(fake.words);
	return unit_result("inject");
}
