// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Stage 1 walks as writers: hardware that sets AF in a stage 1 descriptor dirties
 * the page that the descriptor is in. Section 11 of the architecture digest.
 */
#include "groups.h"
#include "world.h"

#define TABLES	DATA			/* IPA = PA of the guest's stage 1 tables */
#define TARGET	(DATA + 0x200000)

#define S1_AF	(1ull << 10)
#define S1_SH	(3ull << 8)
#define S1_RW	(0ull << 6)
#define S1_UXN	(1ull << 54)

static volatile u64 *table_page;	/* stage 2 descriptor of the level 2 table */

/* Level 1 table in the first page, level 2 (2 MB blocks) in the second. */
static void stage1(u64 code_af, u64 data_af)
{
	volatile u64 *level1 = at(TABLES), *level2 = at(TABLES + 4096);

	level1[1] = (TABLES + 4096) | 3;
	level2[0] = 0x40000000 | S1_SH | S1_RW | code_af | 1;
	level2[(TARGET >> 21) & 511] = TARGET | S1_SH | S1_RW | data_af | 1;
	stage2_map(&s2, TABLES, TABLES, 3, READ_ONLY);
	table_page = stage2_map(&s2, TABLES + 4096, TABLES + 4096, 3, CLEAN);
	sysreg_write(mair_el1, 0xff);
	/* 39 bits, 4K, Normal, HA */
	sysreg_write(tcr_el1, 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2ull << 32 | 1ull << 39);
	sysreg_write(ttbr0_el1, TABLES);
	sysreg_write(sctlr_el1, 0x30d00800 | 1);
	hdbssprod_write(0);
	tlb_flush();
}

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
	check_equal("for the table page", *at(buffer), (TABLES + 4096) | 7);
	check_equal("which is dirty", *table_page & S2AP_W, S2AP_W);
	check("and has the access flag", at(TABLES + 4096)[(TARGET >> 21) & 511] & S1_AF);
}

/* The same for code */
static void fetch(void)
{
	stage1(0, S1_AF);
	check("a fetch ends", ended(run(&guest, el1_nop, 0, 0, 0, 0)));
	check_equal("one entry", hdbssprod_read(), 1);
	check_equal("for the table page", *at(buffer), (TABLES + 4096) | 7);
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
	check_equal("HPFAR_EL2 is the table page", guest.hpfar, (TABLES + 4096) >> 8);
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
	*table_page = (TABLES + 4096) | READ_ONLY | 3;
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

static void begin(void)
{
	world_begin();
	stage2_map(&s2, TARGET, TARGET, 2, READ_WRITE);
}

static const struct test tests[] = {
	{ .name = "load", .run = load },
	{ .name = "fetch", .run = fetch },
	{ .name = "full", .run = full },
	{ .name = "read_only_tables", .run = read_only_tables },
	{ .name = "read_only_tables_level", .run = read_only_tables_level },
};

const struct group walks_group = GROUP("walks", begin, tests);
