// SPDX-License-Identifier: GPL-2.0-or-later
/* The full buffer: refusal, HDBSSF and how long it lasts, every size, FSC. */
#include "bare.h"

#define PAGES	600

static struct guest guest;
static struct stage2 s2;

static void clean_pages(void)
{
	unsigned int i;

	for (i = 0; i < PAGES; i++)
		stage2_map(&s2, DATA + i * 4096, DATA + i * 4096, 3, CLEAN);
	tlb_flush();
}

static u64 refused(u64 esr)
{
	return ESR_EC(esr) == EC_DABT && ESR_FSC(esr) == 0x0f && (esr & ESR_HDBSSF);
}

static void fill(u64 buffer)
{
	u64 esr, i, wrong = 0;

	clean_pages();
	*at(buffer + 4096) = 0x600d;
	hdbssbr_write(buffer);
	hdbssprod_write(0);
	esr = run(&guest, guest_store, DATA, 5, PAGES, 4096);
	check("the store after the last slot is refused", refused(esr));
	check_equal("INDEX has stopped at the capacity", hdbssprod_read(), 512);
	check_equal("FAR_EL2 is the refused page", guest.far, DATA + 512 * 4096);
	check_equal("nothing behind the buffer", *at(buffer + 4096), 0x600d);
	for (i = 0; i < 512; i++)
		wrong += *at(buffer + i * 8) != ((DATA + i * 4096) | 7);
	check_equal("all entries are right", wrong, 0);
	check("the same again", refused(run_on(&guest)));
	hdbssprod_write(0);
	check("after a drain the guest goes on", ended(run_on(&guest)));
	check_equal("with the rest", hdbssprod_read(), PAGES - 512);
	check_equal("in slot 0", *at(buffer), (DATA + 512 * 4096) | 7);
}

static void only_what_needs_it(void)
{
	clean_pages();
	check("one page dirty", ended(run(&guest, guest_store, DATA, 5, 1, 0)));
	hdbssprod_write(512);
	check("full: a load goes", ended(run(&guest, guest_load, DATA + 4096, 0, 0, 0)));
	check("full: a dirty page goes", ended(run(&guest, guest_store, DATA, 6, 1, 0)));
	stage2_map(&s2, DATA + 4096, DATA + 4096, 3, READ_ONLY);
	tlb_flush();
	check_equal("full: read-only faults without HDBSSF",
		    run(&guest, guest_store, DATA + 4096, 6, 1, 0) & ESR_HDBSSF, 0);
}

static void syndrome(void)
{
	u64 esr;

	clean_pages();
	hdbssprod_write(512);
	sysreg_write(esr_el1, 0);
	esr = run(&guest, guest_store, DATA, 5, 1, 0);
	check("refused", refused(esr));
	check_equal("E2H=0: ESR_EL1 is the guest's", guest.esr_el1, 0);
	asm volatile("mrs xzr, esr_el2");
	interrupt_self();
	check_equal("an interrupt does not lose it", sysreg_read(esr_el2), esr);
	asm volatile("hvc #0");
	check_equal("another exception replaces it", sysreg_read(esr_el2) & ESR_HDBSSF, 0);
	check_equal("and is the one to be read", ESR_EC(sysreg_read(esr_el2)), EC_HVC);

	check("refused again", refused(run_on(&guest)));
	sysreg_write(esr_el2, 0x1234);
	check_equal("software can replace it", sysreg_read(esr_el2), 0x1234);

	stage2_use(&s2, VTCR_TRACK, HCR_E2H | HCR_IMO);
	esr = run(&guest, guest_store, DATA, 5, 1, 0);
	check("E2H=1: refused", refused(esr));
	check_equal("E2H=1: ESR_EL1 is ESR_EL2", guest.esr_el1, esr);
	stage2_use(&s2, VTCR_TRACK, HCR_IMO);

	check("refused once more", refused(run_on(&guest)));
	esr = run(&guest, guest_nop, 0, 0, 0, 0);
	check_equal("a later exit has no HDBSSF", esr & ESR_HDBSSF, 0);
}

static void sizes(void)
{
	u64 buffer = take(2 << 20), sz;

	for (sz = 0; sz <= 9; sz++) {
		u64 capacity = 512ull << sz;

		clean_pages();
		*at(buffer + capacity * 8) = 0x600d;
		/* bits of BADDR below the size are RES0 */
		hdbssbr_write(buffer | sz);
		hdbssprod_write(capacity - 1);
		check("the last slot is used, then it is full",
		      refused(run(&guest, guest_store, DATA, 5, 2, 4096)));
		check_equal("one entry", hdbssprod_read(), capacity);
		check_equal("in the last slot", *at(buffer + capacity * 8 - 8), DATA | 7);
		check_equal("none behind", *at(buffer + capacity * 8), 0x600d);
		hdbssprod_write(capacity + 1);
		check("more than full is full", refused(run_on(&guest)));
		hdbssprod_write(0x7ffff);
		check("the greatest INDEX is full", refused(run_on(&guest)));
	}
}

static void fault_status(u64 buffer)
{
	static const u64 fsc[] = { 0x10, 0x28, 0x3f };
	unsigned int i;

	for (i = 0; i < 3; i++) {
		clean_pages();
		hdbssbr_write(buffer);
		hdbssprod_write(fsc[i] << 26);
		check("FSC != 0 refuses", refused(run(&guest, guest_store, DATA, 5, 1, 0)));
		check_equal("and stays", hdbssprod_read(), fsc[i] << 26);
		hdbssprod_write(0);
		check("FSC = 0 lets it go on", ended(run_on(&guest)));
		check_equal("one entry", hdbssprod_read(), 1);
	}
}

void main(void)
{
	u64 buffer = take(8192);

	interrupts_init();
	stage2_init(&s2, 12, 1, 39, false);
	stage2_map_code(&s2, 3, READ_ONLY);
	stage2_use(&s2, VTCR_TRACK, HCR_IMO);
	fill(buffer);
	only_what_needs_it();
	syndrome();
	fault_status(buffer);
	sizes();
}
