// SPDX-License-Identifier: GPL-2.0-or-later
/* The full buffer and FSC: refusal, HDBSSF and how long it lasts. Sections 8 and 9. */
#include "groups.h"
#include "world.h"

#define PAGES	600

static void clean_pages(void)
{
	unsigned int i;

	for (i = 0; i < PAGES; i++)
		stage2_map(&s2, PAGE(i), PAGE(i), 3, CLEAN);
	tlb_flush();
}

static void begin(void)
{
	world_begin();
	clean_pages();
}

/* R_RXCMY, R_YHLRY, R_STJMN */
static void fill(void)
{
	u64 i, wrong = 0;

	*at(buffer + 4096) = 0x600d;
	check("the store after the last slot is refused",
	      refused(run(&guest, el1_store, DATA, 5, PAGES, 4096)));
	check_equal("INDEX has stopped at the capacity", hdbssprod_read(), 512);
	check_equal("FAR_EL2 is the refused page", guest.far, PAGE(512));
	check_equal("nothing behind the buffer", *at(buffer + 4096), 0x600d);
	for (i = 0; i < 512; i++)
		wrong += *at(buffer + i * 8) != (PAGE(i) | 7);
	check_equal("all entries are right", wrong, 0);
	check("the same again", refused(run_on(&guest)));
	hdbssprod_write(0);
	check("after a drain the guest goes on", ended(run_on(&guest)));
	check_equal("with the rest", hdbssprod_read(), PAGES - 512);
	check_equal("in slot 0", *at(buffer), PAGE(512) | 7);
}

/* R_STJMN: only an access that needs the update is refused */
static void only_what_needs_it(void)
{
	volatile u64 *d;

	check("one page dirty", ended(run(&guest, el1_store, DATA, 5, 1, 0)));
	hdbssprod_write(512);
	check("a load goes", ended(run(&guest, el1_load, PAGE(1), 0, 0, 0)));
	check("a dirty page goes", ended(run(&guest, el1_store, DATA, 6, 1, 0)));
	page(1, READ_ONLY);
	check_equal("read-only faults without HDBSSF",
		    run(&guest, el1_store, PAGE(1), 6, 1, 0) & ESR_HDBSSF, 0);
	check_equal("unmapped faults without HDBSSF",
		    run(&guest, el1_store, PAGE(PAGES), 6, 1, 0) & (ESR_HDBSSF | 0x3f), 0x07);
	d = page(2, CLEAN & ~AF);
	check("a load may set AF", ended(run(&guest, el1_load, PAGE(2), 0, 0, 0)));
	check_equal("AF is set", *d & (AF | S2AP_W), AF);
	check_equal("INDEX is kept", hdbssprod_read(), 512);
}

/* C15: AF of a refused dirty update, as the PE chooses; dirty with AF=0 never */
static void access_flag(void)
{
	volatile u64 *d = page(2, CLEAN & ~AF);

	hdbssprod_write(512);
	check("refused", refused(run(&guest, el1_store, PAGE(2), 5, 1, 0)));
	check_equal("not dirty", *d & S2AP_W, 0);
	check_equal("AF as the PE has chosen", *d & AF,
		    parameter_is("af_with_refusal", "yes") ? AF : 0);
	hdbssprod_write(0);
	check("after a drain the guest goes on", ended(run_on(&guest)));
	check_equal("AF and dirty are set", *d & (AF | S2AP_W), AF | S2AP_W);
	check_equal("one entry", hdbssprod_read(), 1);
}

/* 9: HDBSSF is a part of ESR_EL2, as long as that is not replaced */
static void syndrome(void)
{
	u64 esr;

	interrupts_init();
	stage2_use(&s2, VTCR_TRACK, HCR_IMO);
	hdbssprod_write(512);
	sysreg_write(esr_el1, 0);
	esr = run(&guest, el1_store, DATA, 5, 1, 0);
	check("refused", refused(esr));
	check_equal("E2H=0: ESR_EL1 is the guest's", guest.esr_el1, 0);
	sysreg_write(esr_el1, 0x5678);
	check_equal("to write that one does not lose HDBSSF", sysreg_read(esr_el2), esr);
	asm volatile("mrs xzr, esr_el2");
	interrupt_self();
	check_equal("an interrupt does not lose it", sysreg_read(esr_el2), esr);
	asm volatile("hvc #0");
	check_equal("another exception replaces it", sysreg_read(esr_el2) & ESR_HDBSSF, 0);
	check_equal("and is the one to be read", ESR_EC(sysreg_read(esr_el2)), EC_HVC);

	check("refused again", refused(run_on(&guest)));
	sysreg_write(esr_el2, 0x1234);
	check_equal("software can replace it", sysreg_read(esr_el2), 0x1234);
	check("refused once more", refused(run_on(&guest)));
	esr = run(&guest, el1_nop, 0, 0, 0, 0);
	check_equal("a later exit has no HDBSSF", esr & ESR_HDBSSF, 0);
}

static void syndrome_e2h(void)
{
	u64 esr;

	stage2_use(&s2, VTCR_TRACK, HCR_E2H);
	hdbssprod_write(512);
	esr = run(&guest, el1_store, DATA, 5, 1, 0);
	check("E2H=1: refused", refused(esr));
	check_equal("E2H=1: ESR_EL1 is ESR_EL2", guest.esr_el1, esr);
	sysreg_write(esr_el1, 0x5678);
	check_equal("E2H=1: and to write it replaces that", sysreg_read(esr_el2), 0x5678);
}

/* R_STJMN: any FSC but 0 refuses, and is sticky */
static void fault_status(void)
{
	static const u64 fsc[] = { 0x10, 0x28, 0x3f };
	unsigned int i;

	for (i = 0; i < 3; i++) {
		clean_pages();
		hdbssprod_write(fsc[i] << 26);
		check("FSC != 0 refuses", refused(run(&guest, el1_store, DATA, 5, 1, 0)));
		check_equal("and stays", hdbssprod_read(), fsc[i] << 26);
		hdbssprod_write(0);
		check("FSC = 0 lets it go on", ended(run_on(&guest)));
		check_equal("one entry", hdbssprod_read(), 1);
	}
}

static const struct test tests[] = {
	{ .name = "fill", .run = fill },
	{ .name = "only_what_needs_it", .run = only_what_needs_it },
	{ .name = "access_flag", .run = access_flag },
	{ .name = "syndrome", .run = syndrome },
	{ .name = "syndrome_e2h", .run = syndrome_e2h },
	{ .name = "fault_status", .run = fault_status },
};

const struct group full_group = GROUP("full", begin, tests);
