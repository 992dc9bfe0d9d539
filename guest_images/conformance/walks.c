// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Stage 1 walks as writers: hardware that sets AF in a stage 1 descriptor dirties
 * the page that the descriptor is in. Section 11 of the architecture digest.
 */
#include "groups.h"
#include "stage1.h"

/* R_BDJJL: AF of a leaf for data */
static void load(void)
{
	u64 esr;

	*at(TARGET + 8) = 0xfeed;
	stage1(S1_AF, 0);
	esr = run(&guest, el1_load, TARGET + 8, 0, 0, 0);
	check("a load ends", ended(esr));
	check_equal("it has loaded", guest.x[1], 0xfeed);
	check_equal("one entry", hdbssprod_read(), 1);
	check_equal("for the table page", *at(buffer), TABLE2 | 7);
	check_equal("which is dirty", *table_page & S2AP_W, S2AP_W);
	check("and has the access flag", *stage1_target() & S1_AF);
}

/* The same for code */
static void fetch(void)
{
	stage1(0, S1_AF);
	check("a fetch ends", ended(run(&guest, el1_nop, 0, 0, 0, 0)));
	check_equal("one entry", hdbssprod_read(), 1);
	check_equal("for the table page", *at(buffer), TABLE2 | 7);
}

/* R_BDJJL, R_STJMN: a walk that needs the update is refused */
static void full(void)
{
	u64 esr;

	stage1(S1_AF, 0);
	hdbssprod_write(512);
	esr = run(&guest, el1_load, TARGET + 8, 0, 0, 0);
	check_equal("full: a load is refused", ESR_EC(esr), EC_DABT);
	check_equal("with S1PTW and HDBSSF",
		    esr & (ESR_HDBSSF | ESR_S1PTW | 0x3f), ESR_HDBSSF | ESR_S1PTW | 0x0f);
	check_equal("HPFAR_EL2 is the table page", guest.hpfar, TABLE2 >> 8);
	hdbssprod_write(0);
	check("and goes on after a drain", ended(run_on(&guest)));

	stage1(0, S1_AF);
	hdbssprod_write(512);
	esr = run(&guest, el1_nop, 0, 0, 0, 0);
	check_equal("full: a fetch is refused", ESR_EC(esr), EC_IABT);
	check_equal("with S1PTW and HDBSSF",
		    esr & (ESR_HDBSSF | ESR_S1PTW | 0x3f), ESR_HDBSSF | ESR_S1PTW | 0x0f);
	hdbssprod_write(0);
	check("and goes on after a drain", ended(run_on(&guest)));
}

/* R_XSTDV: a table page that is not writable for another reason */
static u64 read_only_tables_esr(void)
{
	stage1(S1_AF, 0);
	*table_page = TABLE2 | READ_ONLY | 3;
	tlb_flush();
	return run(&guest, el1_load, TARGET + 8, 0, 0, 0);
}

static void read_only_tables(void)
{
	check_equal("a read-only table page faults without HDBSSF",
		    read_only_tables_esr() & (ESR_HDBSSF | ESR_S1PTW | 0x3c), ESR_S1PTW | 0x0c);
	check_equal("and has no entry", hdbssprod_read(), 0);
}

static void read_only_tables_level(void)
{
	expect_failure("QEMU before version 8 tells the level of stage 1");
	check_equal("the level of stage 2", ESR_FSC(read_only_tables_esr()), 0x0f);
}

/* R_BDJJL: a store that sets AF in stage 1 and dirties its own page too */
static void store(void)
{
	volatile u64 *d = stage2_map(&s2, TARGET, TARGET, 2, CLEAN);

	stage1(S1_AF, 0);
	check("a store ends", ended(run(&guest, el1_store, TARGET + 8, 5, 1, 0)));
	check_equal("two entries", hdbssprod_read(), 2);
	check_equal("first of the table page", at(buffer)[0], TABLE2 | 7);
	check_equal("then of the block that was stored to", at(buffer)[1], TARGET | 5);
	check_equal("both are dirty", *d & *table_page & S2AP_W, S2AP_W);
}

/* The same of the dirty state of stage 1: AP[2] of a descriptor with DBM */
static void stage1_dirty(void)
{
	stage1(S1_AF, S1_AF | S1_DBM | S1_RO);
	check("a load ends", ended(run(&guest, el1_load, TARGET + 8, 0, 0, 0)));
	/* C16 R_JCXVS: it may be dirtied already. */
	check_either("entries of a load", hdbssprod_read(), *table_page >> 7 & 1, 1);
	check("a store ends", ended(run(&guest, el1_store, TARGET + 8, 5, 1, 0)));
	check_equal("stage 1 is dirty", *stage1_target() & S1_RO, 0);
	check_equal("one entry", hdbssprod_read(), 1);
	check_equal("for the table page", *at(buffer), TABLE2 | 7);
	check_equal("which is dirty", *table_page & S2AP_W, S2AP_W);
}

/* A table in a 2 MB block of stage 2: the level is the block's, refused or not */
static void table_in_a_block(void)
{
	volatile u64 *d;
	u64 esr;

	stage1(S1_AF, 0);
	d = stage2_map(&s2, TABLES & ~0x1fffffull, TABLES & ~0x1fffffull, 2, CLEAN);
	tlb_flush();
	hdbssprod_write(512);
	esr = run(&guest, el1_load, TARGET + 8, 0, 0, 0);
	check_equal("full: refused with S1PTW, HDBSSF and level 2",
		    esr & (ESR_HDBSSF | ESR_S1PTW | 0x3f), ESR_HDBSSF | ESR_S1PTW | 0x0e);
	check_equal("the block is clean", *d & S2AP_W, 0);
	hdbssprod_write(0);
	check("it goes on after a drain", ended(run_on(&guest)));
	check_equal("one entry", hdbssprod_read(), 1);
	check_equal("of the block", *at(buffer), (TABLES & ~0x1fffffull) | 5);
	check_equal("which is dirty", *d & S2AP_W, S2AP_W);
}

/* R_LXCKP: the table page needs an entry, the data page is unmapped: either fault */
static void full_and_unmapped(void)
{
	u64 esr;

	stage1(S1_AF, 0);
	*stage2_map(&s2, TARGET, TARGET, 2, 0) = 0;
	tlb_flush();
	hdbssprod_write(512);
	esr = run(&guest, el1_load, TARGET + 8, 0, 0, 0) & (ESR_HDBSSF | ESR_S1PTW | 0x3f);
	check_either("one of the two faults", esr, ESR_HDBSSF | ESR_S1PTW | 0x0f, 0x06);
	check_equal("INDEX is kept", hdbssprod_read(), 512);
	check_equal("the table page is clean", *table_page & S2AP_W, 0);
}

static const struct test tests[] = {
	{ .name = "load", .run = load },
	{ .name = "fetch", .run = fetch },
	{ .name = "store", .run = store },
	{ .name = "stage1_dirty", .run = stage1_dirty },
	{ .name = "full", .run = full },
	{ .name = "table_in_a_block", .run = table_in_a_block },
	{ .name = "full_and_unmapped", .run = full_and_unmapped },
	{ .name = "read_only_tables", .run = read_only_tables },
	{ .name = "read_only_tables_level", .run = read_only_tables_level },
};

const struct group walks_group = GROUP("walks", stage1_begin, tests);
