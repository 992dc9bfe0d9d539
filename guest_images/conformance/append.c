// SPDX-License-Identifier: GPL-2.0-or-later
/* Which stage 2 updates append an entry: sections 7 and 8 of the digest. */
#include "groups.h"
#include "world.h"

/* R_WZKFT, R_PCTTC, and the entry's format */
static void one_entry(void)
{
	volatile u64 *d = page(0, CLEAN);

	check_equal("VTCR_EL2 reads as written", sysreg_read(vtcr_el2), s2.vtcr | VTCR_TRACK);
	check_equal("a store to a writable-clean page appends",
		    entries_of(el1_store, DATA + 0x128), 1);
	check_equal("the entry", *at(buffer), DATA | 7);
	check_equal("the descriptor is dirty", *d, DATA | CLEAN | S2AP_W | 3);
	check_equal("the store was made", *at(DATA + 0x128), 0x1234);
	check_equal("no entry for a dirty page", entries_of(el1_store, DATA), 0);
	check_equal("HCR_EL2 is the guest's", sysreg_read(hcr_el2) & HCR_VM, HCR_VM);
}

/* R_PZFQC, R_BRFGY: nothing that is not a transition from clean to dirty by hardware */
static void no_entry(void)
{
	page(1, READ_WRITE);
	check_equal("no entry for DBM=0", entries_of(el1_store, PAGE(1)), 0);
	page(2, READ_WRITE | DBM);
	check_equal("no entry for made dirty by software", entries_of(el1_store, PAGE(2)), 0);
	page(3, CLEAN);
	check_equal("no entry for a load", entries_of(el1_load, PAGE(3)), 0);
}

/* R_PQJJR, I_DSHLJ: AF alone, and AF in the same update */
static void access_flag(void)
{
	volatile u64 *d = page(3, CLEAN & ~AF);

	check_equal("no entry for AF alone", entries_of(el1_load, PAGE(3)), 0);
	check_equal("AF is set", *d & (AF | S2AP_W), AF);
	d = page(4, CLEAN & ~AF);
	check_equal("one entry for AF and dirty", entries_of(el1_store, PAGE(4)), 1);
	check_equal("AF and dirty are set", *d & (AF | S2AP_W), AF | S2AP_W);
}

/* R_HBFHL: S2AP 00 becomes 10 */
static void write_only(void)
{
	volatile u64 *d = page(5, CLEAN & ~S2AP_R);

	check_equal("one entry for a write-only page", entries_of(el1_store, PAGE(5)), 1);
	check_equal("it stays write-only", *d & (S2AP_R | S2AP_W), S2AP_W);
	check_equal("a load faults", ESR_FSC(run(&guest, el1_load, PAGE(5), 0, 0, 0)), 0x0f);
}

/*
 * 14 R_JKCXG, I_NFFSV: of a contiguous group another page may be dirtied without a trace
 * when one is dirty; the one that is updated has an entry of its own, not the group's.
 */
static void contiguous(void)
{
	volatile u64 *first, *second;
	unsigned int i;
	u64 dirty;

	for (i = 16; i < 32; i++)
		stage2_map(&s2, PAGE(i), PAGE(i), 3, CLEAN | CONTIGUOUS);
	first = page(18, CLEAN | CONTIGUOUS);
	second = page(21, CLEAN | CONTIGUOUS);
	check_equal("one entry for the first page", entries_of(el1_store, PAGE(18)), 1);
	check_equal("the page's own", *at(buffer), PAGE(18) | 7);
	check_equal("dirty", *first & S2AP_W, S2AP_W);
	entries_of(el1_store, PAGE(21));
	dirty = *second >> 7 & 1;
	check_equal("an entry for the second if it is dirty", hdbssprod_read(), 1 + dirty);
	if (dirty)
		check_equal("the page's own", at(buffer)[1], PAGE(21) | 7);
}

/* R_XSTDV: faults of another kind have no HDBSSF */
static void other_faults(void)
{
	u64 esr;

	page(6, READ_ONLY);
	esr = run(&guest, el1_store, PAGE(6), 1, 1, 0);
	check_equal("read-only faults", ESR_EC(esr), EC_DABT);
	check_equal("with the permission code", ESR_FSC(esr), 0x0f);
	check_equal("without HDBSSF", esr & ESR_HDBSSF, 0);
	page(6, CLEAN);
	check("the same access goes on", ended(run_on(&guest)));
	check_equal("by an append", *at(buffer), PAGE(6) | 7);
	esr = run(&guest, el1_store, DATA + 0x100000, 1, 1, 0);
	check_equal("unmapped faults with the translation code", ESR_FSC(esr), 0x07);
	check_equal("it has no HDBSSF", esr & ESR_HDBSSF, 0);
}

/* 2: HDBSS acts only with HA and HD; R_GKFDY */
static void disabled(void)
{
	static const u64 bits[] = {
		0, VTCR_HA, VTCR_HD, VTCR_HA | VTCR_HD, VTCR_HDBSS, VTCR_HDBSS | VTCR_HA,
		VTCR_HDBSS | VTCR_HD,
	};
	unsigned int i;

	for (i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		u64 before = hdbssprod_read(), esr;
		volatile u64 *d;

		stage2_use(&s2, bits[i], 0);
		check_equal("VTCR_EL2 reads as written", sysreg_read(vtcr_el2), s2.vtcr | bits[i]);
		d = page(32, CLEAN);
		esr = run(&guest, el1_store, PAGE(32), 1, 1, 0);
		check_equal("no entry unless HA, HD and HDBSS", hdbssprod_read(), before);
		if ((bits[i] & (VTCR_HA | VTCR_HD)) == (VTCR_HA | VTCR_HD)) {
			check("HA and HD alone dirty", ended(esr) && (*d & S2AP_W));
		} else {
			check_equal("else it is an ordinary fault", ESR_FSC(esr), 0x0f);
			check_equal("with no HDBSSF", esr & ESR_HDBSSF, 0);
		}
	}
}

/* The same with a full buffer: without HDBSS nothing is refused. */
static void disabled_and_full(void)
{
	hdbssprod_write(512);
	stage2_use(&s2, VTCR_HA | VTCR_HD, 0);
	page(32, CLEAN);
	check("HA and HD alone dirty", ended(run(&guest, el1_store, PAGE(32), 1, 1, 0)));
	check_equal("INDEX is kept", hdbssprod_read(), 512);
}

/* 2: no stage 2, no entries */
static void no_stage2(void)
{
	sysreg_write(hcr_el2, HCR_RW);
	page(33, CLEAN);
	check_equal("no entry with HCR_EL2.VM=0", entries_of(el1_store, PAGE(33)), 0);
	stage2_use(&s2, VTCR_TRACK, 0);
	check_equal("an entry with VM=1 again", entries_of(el1_store, PAGE(33)), 1);
}

static const struct test tests[] = {
	{ .name = "one_entry", .run = one_entry },
	{ .name = "no_entry", .run = no_entry },
	{ .name = "access_flag", .run = access_flag },
	{ .name = "write_only", .run = write_only },
	{ .name = "contiguous", .run = contiguous },
	{ .name = "other_faults", .run = other_faults },
	{ .name = "disabled", .run = disabled },
	{ .name = "disabled_and_full", .run = disabled_and_full },
	{ .name = "no_stage2", .run = no_stage2 },
};

const struct group append_group = GROUP("append", world_begin, tests);
