// SPDX-License-Identifier: GPL-2.0-or-later
/* What each kind of instruction that writes, or only seems to, does to clean pages. */
#include <stddef.h>

#include "groups.h"
#include "world.h"

/* One instruction that writes, and what is in memory after it */
struct write {
	const char *code;
	u64 after;		/* at the address, where 0 was */
	bool el0;
};

/* R_TYCNM: a write that is architecturally performed dirties, and once */
static void writes(void)
{
	const struct write *write = this_test->argument;
	volatile u64 *d = page(16, CLEAN);
	u64 address = PAGE(16) + 64, esr;

	at(address)[0] = at(address)[1] = write->code == el1_zva ? ~0ull : 0;
	sysreg_write(vbar_el1, (u64)el1_vectors);
	esr = run_at(&guest, write->code, write->el0 ? SPSR_EL0T : SPSR_EL1H, address, 0x1234, 1,
		     0);
	/* EL0 has no HVC: its end is UNDEFINED, and EL1 tells. */
	check_equal("the guest ends", esr & 0xffff, write->el0 ? 3 : 1);
	check_equal("by HVC", ESR_EC(esr), EC_HVC);
	check_equal("one entry", hdbssprod_read(), 1);
	check_equal("of this page", *at(buffer), PAGE(16) | 7);
	check_equal("dirty", *d & S2AP_W, S2AP_W);
	check_equal("the write was made", *at(address), write->after);
}

/*
 * C2, C8: whether a compare-and-swap that fails, or an STXR without a monitor, dirties is
 * open. An entry without a dirty page may be, and a dirty page without one not.
 */
static void may_write(void)
{
	const char *code = this_test->argument;
	volatile u64 *d = page(16, CLEAN);
	u64 dirty;

	at(PAGE(16))[0] = at(PAGE(16))[1] = 0x77;
	check("the guest ends", ended(run(&guest, code, PAGE(16), 0x1234, 1, 0)));
	dirty = *d >> 7 & 1;
	check_either("entries", hdbssprod_read(), dirty, 1);
	if (hdbssprod_read())
		check_equal("of this page", *at(buffer), PAGE(16) | 7);
	check_equal("nothing was written", at(PAGE(16))[0], 0x77);
	check_equal("nor behind it", at(PAGE(16))[1], 0x77);
}

/* R_DYCFD, R_ZYGHJ, R_RKMHW: prefetches and cache maintenance never dirty. */
static void never_writes(void)
{
	const char *code = this_test->argument;
	volatile u64 *d = page(16, CLEAN);
	u64 before = *d;

	*at(PAGE(16)) = 0x77;
	check("the guest ends", ended(run(&guest, code, PAGE(16), 0x1234, 1, 0)));
	check_equal("the descriptor is what it was", *d, before);
	check_equal("no entry", hdbssprod_read(), 0);
	hdbssprod_write(512);
	check("the guest ends with the buffer full",
	      ended(run(&guest, code, PAGE(16), 0x1234, 1, 0)));
	check_equal("the memory is what it was", *at(PAGE(16)), 0x77);
}

/* The access of a test about the border of pages 18 and 19, 8 bytes on each side or less */
struct border {
	const char *code;
	u64 before;		/* bytes of the first page */
	u64 hcr;
};

static bool border_begin(void)
{
	const struct border *border = this_test->argument;

	if (border->code == el1_sve_store) {
		if (!(sysreg_read(id_aa64pfr0_el1) >> 32 & 15)) {
			skip("the PE has no FEAT_SVE");
			return false;
		}
		sysreg_write(cptr_el2, 0x22ff);		/* RES1, no traps, SVE either */
		sysreg_write(cpacr_el1, 3 << 20 | 3 << 16);
		barrier();
	}
	stage2_use(&s2, VTCR_TRACK, border->hcr);
	return true;
}

static u64 border_address(void)
{
	return PAGE(19) - ((const struct border *)this_test->argument)->before;
}

static u64 border_run(void)
{
	return run(&guest, ((const struct border *)this_test->argument)->code, border_address(),
		   0x1111111111111111ull, 1, 0);
}

/* Two pages, two updates, two entries */
static void over_a_border(void)
{
	volatile u64 *first = page(18, CLEAN), *second = page(19, CLEAN);
	u64 pages;

	if (!border_begin())
		return;
	check("the guest ends", ended(border_run()));
	check_equal("two entries", hdbssprod_read(), 2);
	pages = at(buffer)[0] ^ at(buffer)[1];
	check_equal("one of each page", pages, (PAGE(18) | 7) ^ (PAGE(19) | 7));
	check("the first", at(buffer)[0] == (PAGE(18) | 7) || at(buffer)[1] == (PAGE(18) | 7));
	check_equal("both dirty", *first & *second & S2AP_W, S2AP_W);
	check_equal("stored in the first page", *(volatile uint8_t *)border_address(), 0x11);
	check_equal("stored in the second page", *(volatile uint8_t *)PAGE(19), 0x11);
}

/* C6 R_QDRWL: the part that faults not may dirty its page, with an entry */
static void into_a_fault(void)
{
	volatile u64 *first = page(18, CLEAN), *second = page(19, READ_ONLY);
	u64 esr, entries;

	if (!border_begin())
		return;
	*at(PAGE(19)) = 0;
	esr = border_run();
	check_equal("the second page faults, without HDBSSF",
		    esr & (ESR_HDBSSF | 0x3f), 0x0f);
	check_equal("at its beginning", guest.far & ~0xfffull, PAGE(19));
	entries = hdbssprod_read();
	check_either("entries of the first page", entries, *first >> 7 & 1, 1);
	check_equal("the second page is what it was", *second, PAGE(19) | READ_ONLY | 3);
	check_equal("nothing was stored there", *at(PAGE(19)), 0);
	page(19, CLEAN);
	check("the same access goes on", ended(run_on(&guest)));
	check("each page has an entry", hdbssprod_read() >= 2);
	check_equal("both are dirty", *first & *second & S2AP_W, S2AP_W);
}

/* C6 with one slot left: the first page has it, the second is refused; a retry adds it alone */
static void one_slot_left(void)
{
	volatile u64 *first = page(18, CLEAN), *second = page(19, CLEAN);

	if (!border_begin())
		return;
	hdbssprod_write(511);
	check("refused", refused(border_run()));
	check_equal("INDEX has stopped at the capacity", hdbssprod_read(), 512);
	check_equal("one of the pages is dirty", (*first ^ *second) & S2AP_W, S2AP_W);
	check_equal("it has the last slot", at(buffer)[511],
		    (*first & S2AP_W ? PAGE(18) : PAGE(19)) | 7);
	check_equal("FAR_EL2 is the other page", guest.far & ~0xfffull,
		    *first & S2AP_W ? PAGE(19) : PAGE(18));
	hdbssprod_write(0);
	check("after a drain the guest goes on", ended(run_on(&guest)));
	check_equal("with one entry", hdbssprod_read(), 1);
	check_equal("both are dirty", *first & *second & S2AP_W, S2AP_W);
}

/* C7: a write with an alignment fault may dirty; the fault is EL1's */
static void misaligned(void)
{
	volatile u64 *d = page(16, CLEAN);
	u64 esr;

	sysreg_write(vbar_el1, (u64)el1_vectors);
	sysreg_write(sctlr_el1, SCTLR_EL1_OFF | SCTLR_A);
	esr = run(&guest, el1_store, PAGE(16) + 1, 1, 1, 0);
	check_equal("taken to EL1", esr & 0xffff, 2);
	check_equal("as an alignment fault", ESR_FSC(guest.x[1]), 0x21);
	check_either("entries", hdbssprod_read(), *d >> 7 & 1, 1);
	hdbssprod_write(512);
	page(16, CLEAN);
	esr = run(&guest, el1_store, PAGE(16) + 1, 1, 1, 0);
	check_equal("with the buffer full it is taken to EL1 too", esr & 0xffff, 2);
	check_equal("as the same", ESR_FSC(guest.x[1]), 0x21);
}

#define WRITE(name_, after_, ...) {						\
	.name = #name_, .run = writes,						\
	.argument = &(const struct write){ .code = el1_##name_, .after = after_, __VA_ARGS__ } }
#define MAY(name_)	{ .name = #name_, .run = may_write, .argument = el1_##name_ }
#define NEVER(name_)	{ .name = #name_, .run = never_writes, .argument = el1_##name_ }
#define BORDER(run_, name_, ...) {						\
	.name = name_ "." #run_, .run = run_,					\
	.argument = &(const struct border){ __VA_ARGS__ } }
#define BORDERS(name_, ...)							\
	BORDER(over_a_border, name_, __VA_ARGS__), BORDER(into_a_fault, name_, __VA_ARGS__), \
	BORDER(one_slot_left, name_, __VA_ARGS__)

static const struct test tests[] = {
	WRITE(store, 0x1234),
	{ .name = "store_at_el0", .run = writes,
	  .argument = &(const struct write){ el1_store, 0x1234, true } },
	WRITE(stlr, 0x1234), WRITE(stp, 0x1234), WRITE(ldadd, 0x1234), WRITE(swp, 0x1234),
	WRITE(cas, 0x1234), WRITE(stxr, 0x1234), WRITE(stxp, 0x1234), WRITE(zva, 0),
	MAY(cas_differs), MAY(casp_differs), MAY(stxr_alone),
	NEVER(prfm), NEVER(clean), NEVER(invalidate),
	BORDERS("stp", el1_stp, 8, 0), BORDERS("unaligned", el1_store, 3, HCR_DC),
	BORDERS("sve", el1_sve_store, 8, HCR_DC),
	{ .name = "misaligned", .run = misaligned },
};

const struct group instructions_group = GROUP("instructions", world_begin, tests);
