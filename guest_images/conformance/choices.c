// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the architecture leaves open. Each test asserts the permitted set, and of it what
 * the program was told that the PE has chosen. Sections 9a, 10 and 13 of the digest.
 */
#include <stddef.h>

#include "groups.h"
#include "world.h"

#define CANARY		0xdeadbeefull
#define FSC_ABORT	(0x10ull << 26)
#define ESR_FSC_SEA	0x17		/* of a walk or update, at level 3 */

static bool late(void)
{
	return parameter_is("visibility", "dsb");
}

/* C14 R_CGCHP, I_XXFYP: entry and INDEX may come late, but not later than DSB and ISB */
static void visibility(void)
{
	u64 entry, prod, entry_after_dsb, prod_after_dsb;

	page(0, CLEAN);
	guest.no_barrier = 1;
	check("the guest ends", ended(run(&guest, el1_store, PAGE(0), 5, 1, 0)));
	guest.no_barrier = 0;
	entry = *(volatile u64 *)buffer;
	prod = hdbssprod_read();
	asm volatile("dsb sy" : : : "memory");
	entry_after_dsb = *(volatile u64 *)buffer;
	prod_after_dsb = hdbssprod_read();
	asm volatile("isb" : : : "memory");
	check_either("the entry before DSB", entry, late() ? 0 : PAGE(0) | 7, PAGE(0) | 7);
	check_either("INDEX before ISB", prod, late() ? 0 : 1, 1);
	check_equal("the entry after DSB", entry_after_dsb, PAGE(0) | 7);
	check_either("INDEX after DSB, before ISB", prod_after_dsb, late() ? 0 : 1, 1);
	check_equal("INDEX after DSB and ISB", hdbssprod_read(), 1);
}

/* The PE really is late if it has said so, or the test above could not fail. */
static void visibility_late(void)
{
	if (!late()) {
		skip("visibility is at-once");
		return;
	}
	page(0, CLEAN);
	guest.no_barrier = 1;
	check("the guest ends", ended(run(&guest, el1_store, PAGE(0), 5, 1, 0)));
	guest.no_barrier = 0;
	check_equal("no entry yet", *(volatile u64 *)buffer, 0);
	check_equal("no INDEX yet", hdbssprod_read(), 0);
	asm volatile("isb" : : : "memory");
	check_equal("an ISB alone shows nothing", hdbssprod_read(), 0);
	barrier();
	check_equal("INDEX after DSB and ISB", hdbssprod_read(), 1);
}

/* C1 R_HKCCN: slots from INDEX on may be zeroed, those before it and behind the end never */
static void zero_ahead(void)
{
	u64 ahead = parameter_number("zero_ahead", 0), first, i;

	/* The last run is at the end of the buffer. */
	for (first = 0; first <= 508; first += 254) {
		u64 wrong = 0, zeroed = 0;

		for (i = 0; i < 513; i++)
			at(buffer)[i] = CANARY;
		for (i = 0; i < 3; i++)
			page((unsigned int)i, CLEAN);
		hdbssprod_write(first);
		check("the guest ends", ended(run(&guest, el1_store, PAGE(0), 5, 3, 4096)));
		check_equal("INDEX", hdbssprod_read(), first + 3);
		for (i = 0; i < first; i++)
			wrong += at(buffer)[i] != CANARY;
		check_equal("slots before the first entry", wrong, 0);
		for (i = 0; i < 3; i++)
			check_equal("an entry", at(buffer)[first + i], PAGE(i) | 7);
		for (i = first + 3; i < 512; i++) {
			zeroed += !at(buffer)[i];
			wrong += at(buffer)[i] && at(buffer)[i] != CANARY;
		}
		check_equal("slots ahead are kept or zero", wrong, 0);
		check_equal("as many are zero as the PE has chosen", zeroed,
			    ahead < 509 - first ? ahead : 509 - first);
		check_equal("nothing behind the buffer", at(buffer)[512], CANARY);
	}
}

/*
 * C10, C12, C14 ~R_JHHQW, ~R_QNJKV, I_LMSZL: a guest stores to page after page while every
 * HDBSS write takes an External abort. It gets to some page; what it has dirtied until
 * then has no entry, and software has been told, precisely or by FSC.
 */
static void external_abort(void)
{
	u64 hdbssbr = *(const u64 *)this_test->argument, esr, reached, i, dirty = 0, prod;
	bool precise = parameter_is("external_abort", "precise");
	bool dirties = parameter_is("dirty_after_external_abort", "yes");
	u64 delay = precise ? 0 : parameter_number("fsc_delay", 0);
	volatile u64 *d[8];
	const u64 pages = sizeof(d) / sizeof(d[0]);

	for (i = 0; i < pages; i++)
		d[i] = page((unsigned int)i, CLEAN);
	hdbssbr_write(hdbssbr);
	esr = run(&guest, el1_store, PAGE(0), 5, pages, 4096);
	prod = hdbssprod_read();
	check_equal("INDEX is kept", prod & HDBSSPROD_INDEX, 0);
	if (ended(esr)) {
		reached = pages;
		check("FSC may not be later than the PE has chosen", delay >= pages);
		check_equal("but with the DSB it is there", prod, FSC_ABORT);
	} else {
		reached = (guest.far - PAGE(0)) / 4096;
		check_equal("a Data Abort with HDBSSF and the code of its kind",
			    esr & (ESR_HDBSSF | 0x3f),
			    ESR_HDBSSF | (precise ? ESR_FSC_SEA : 0x0f));
		check_equal("FSC as chosen", prod, precise ? 0 : FSC_ABORT);
		check_equal("pages until then as chosen", reached,
			    precise ? 0 : delay ? delay + 1 : dirties ? 1 : 0);
	}
	for (i = 0; i < pages; i++)
		dirty += *d[i] >> 7 & 1;
	for (i = 0; i < reached; i++)
		check_equal("a page that was passed is dirty", *d[i] & S2AP_W, S2AP_W);
	check_equal("dirty pages as chosen", dirty, reached + (precise && dirties));

	/* With a buffer, and after software has seen FSC, it goes on. */
	hdbssbr_write(buffer);
	hdbssprod_write(0);
	if (!ended(esr))
		check("with a buffer it goes on", ended(run_on(&guest)));
	check_equal("entries of the rest", hdbssprod_read(), pages - dirty);
	for (i = 0; i < pages; i++)
		check_equal("dirty at last", *d[i] & S2AP_W, S2AP_W);
}

static void switch_to(u64 vtcr_bits)
{
	sysreg_write(vtcr_el2, s2.vtcr | vtcr_bits);
	asm volatile("isb" : : : "memory");
}

/* A store after HD went without a TLBI: as it was before, if that is what is cached. */
static void store_after_off(unsigned int number, const volatile u64 *d)
{
	bool lazy = parameter_is("caching", "lazy");
	u64 esr = run(&guest, el1_store, PAGE(number), 5, 1, 0);

	if (lazy)
		check("off, before a TLBI: as if it were on", ended(esr));
	else
		check_equal("off: an ordinary fault", esr & (ESR_HDBSSF | 0x3f), 0x0f);
	check_equal("dirty as chosen", *d & S2AP_W, lazy ? S2AP_W : 0);
}

/* 2: VTCR_EL2.{HA,HD,HDBSS} may be in effect as they were until a TLBI, but not after it. */
static void caching(void)
{
	bool lazy = parameter_is("caching", "lazy");
	volatile u64 *d[6];
	u64 esr;
	unsigned int i;

	for (i = 0; i < 6; i++)
		d[i] = page(i, CLEAN);
	check_equal("an entry while HDBSS is on", entries_of(el1_store, PAGE(0)), 1);
	switch_to(VTCR_HA);
	store_after_off(1, d[1]);
	check_equal("entries as chosen", hdbssprod_read(), 1 + lazy);
	tlb_flush();
	esr = run(&guest, el1_store, PAGE(2), 5, 1, 0);
	check_equal("off, after a TLBI: an ordinary fault", esr & (ESR_HDBSSF | 0x3f), 0x0f);
	check_equal("no entry", hdbssprod_read(), 1 + lazy);

	/* And on again: what is cached faults or dirties as if it were off. */
	switch_to(VTCR_TRACK);
	esr = run(&guest, el1_store, PAGE(3), 5, 1, 0);
	if (lazy)
		check_equal("on, before a TLBI: a fault", esr & (ESR_HDBSSF | 0x3f), 0x0f);
	else
		check("on: the guest ends", ended(esr));
	check_equal("entries as chosen", hdbssprod_read(), 2);
	tlb_flush();
	check_equal("an entry after a TLBI", entries_of(el1_store, PAGE(4)), 1);
	check_equal("dirty", *d[4] & S2AP_W, S2AP_W);
}

/*
 * The same with HD on all the time: what is cached of HDBSS says whether a page that
 * becomes dirty has an entry, and what is cached of HD whether it may become dirty.
 */
static void caching_hd(void)
{
	bool lazy = parameter_is("caching", "lazy");
	volatile u64 *d[5];
	unsigned int i;

	for (i = 0; i < 5; i++)
		d[i] = page(i, CLEAN);
	check_equal("an entry while HDBSS is on", entries_of(el1_store, PAGE(0)), 1);
	switch_to(VTCR_HA | VTCR_HD);
	check_equal("an entry before a TLBI as chosen", entries_of(el1_store, PAGE(1)), lazy);
	check_equal("dirty either way", *d[1] & S2AP_W, S2AP_W);
	tlb_flush();
	check_equal("no entry after a TLBI", entries_of(el1_store, PAGE(2)), 0);
	check_equal("dirty without one", *d[2] & S2AP_W, S2AP_W);
	switch_to(VTCR_HA);
	store_after_off(3, d[3]);
	tlb_flush();
	switch_to(VTCR_TRACK);
	tlb_flush();
	check_equal("an entry with HDBSS", entries_of(el1_store, PAGE(4)), 1);
	check_equal("INDEX", hdbssprod_read(), 2 + lazy);
}

/* A TLBI that is UNDEFINED makes no PE forget. */
static void caching_undefined_tlbi(void)
{
	bool lazy = parameter_is("caching", "lazy");
	volatile u64 *d;
	u64 esr;

	page(0, CLEAN);
	d = page(1, CLEAN);
	check_equal("an entry while HDBSS is on", entries_of(el1_store, PAGE(0)), 1);
	switch_to(VTCR_HA);
	/* EL1 without stage 2, as a host's own */
	sysreg_write(vbar_el1, (u64)el1_vectors);
	sysreg_write(hcr_el2, HCR_RW);
	barrier();
	esr = run(&guest, el1_tlbi, 0, 0, 0, 0);
	check_undefined("TLBI at EL1", esr, false);
	sysreg_write(hcr_el2, HCR_RW | HCR_VM);
	barrier();
	store_after_off(1, d);
	check_equal("entries as chosen", hdbssprod_read(), 1 + lazy);
}

/* Of a full buffer: without a TLBI it may refuse although HDBSS is off. */
static void caching_full(void)
{
	bool lazy = parameter_is("caching", "lazy");
	volatile u64 *d = page(0, CLEAN);
	u64 esr;

	page(1, CLEAN);
	check_equal("an entry while HDBSS is on", entries_of(el1_store, PAGE(1)), 1);
	hdbssprod_write(512);
	switch_to(VTCR_HA);
	esr = run(&guest, el1_store, PAGE(0), 5, 1, 0);
	check_equal("HDBSSF before a TLBI, as chosen", esr & (ESR_HDBSSF | 0x3f),
		    (lazy ? ESR_HDBSSF : 0) | 0x0f);
	tlb_flush();
	esr = run_on(&guest);
	check_equal("no HDBSSF after a TLBI", esr & (ESR_HDBSSF | 0x3f), 0x0f);
	check_equal("clean", *d & S2AP_W, 0);
	check_equal("INDEX is kept", hdbssprod_read(), 512);
}

static const u64 nowhere, device = 0x09000000, behind = 0x00fffffffffff000ull;

static const struct test tests[] = {
	{ .name = "visibility", .run = visibility },
	{ .name = "visibility_late", .run = visibility_late },
	{ .name = "zero_ahead", .run = zero_ahead },
	{ .name = "caching", .run = caching },
	{ .name = "caching_hd", .run = caching_hd },
	{ .name = "caching_undefined_tlbi", .run = caching_undefined_tlbi },
	{ .name = "caching_full", .run = caching_full },
	{ .name = "external_abort.nowhere", .run = external_abort, .argument = &nowhere },
	{ .name = "external_abort.device", .run = external_abort, .argument = &device },
	{ .name = "external_abort.behind_ram", .run = external_abort, .argument = &behind },
};

const struct group choices_group = GROUP("choices", world_begin, tests);
