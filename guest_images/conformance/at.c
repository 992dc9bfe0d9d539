// SPDX-License-Identifier: GPL-2.0-or-later
/* Address translation instructions at EL2: section 11 of the digest. */
#include "groups.h"
#include "stage1.h"

#define PAR_F	(1ull << 0)
#define PAR_FST(par)	((par) >> 1 & 0x3f)
#define PAR_PTW	(1ull << 8)
#define PAR_S	(1ull << 9)

#define translate(how, address) ({						\
	asm volatile("at " #how ", %0\n\tisb" : : "r"((u64)(address)) : "memory"); \
	sysreg_read(par_el1); })

/* ~R_MBXNP: neither the descriptor nor the buffer shows that it was there */
static void unseen(void)
{
	volatile u64 *d = page(0, CLEAN);
	u64 before = *d;

	translate(s12e1w, PAGE(0));
	translate(s12e0w, PAGE(0));
	translate(s12e1r, PAGE(0));
	translate(s1e1w, PAGE(0));
	check_equal("the descriptor is what it was", *d, before);
	check_equal("no entry", hdbssprod_read(), 0);
	hdbssprod_write(512);
	translate(s12e1w, PAGE(0));
	translate(s12e0w, PAGE(0));
	check_equal("full: the descriptor is what it was", *d, before);
	check_equal("full: INDEX is kept", hdbssprod_read(), 512);
	hdbssprod_write(0);
	check_equal("the next store appends", entries_of(el1_store, PAGE(0)), 1);
}

/* R_RKMHW: writable-clean grants write */
static void s12e1w(void)
{
	page(0, CLEAN);
	expect_failure("the interceptors let QEMU see HD=0");
	check_equal("PAR_EL1.F of a writable-clean page", translate(s12e1w, PAGE(0)) & PAR_F, 0);
}

/* What grants a write anyway, or does not */
static void s12e1_others(void)
{
	u64 par;

	page(0, CLEAN);
	check_equal("S12E1R of a clean page", translate(s12e1r, PAGE(0)) & PAR_F, 0);
	check("a store ends", ended(run(&guest, el1_store, PAGE(0), 5, 1, 0)));
	check_equal("S12E1W of a dirty page", translate(s12e1w, PAGE(0)) & PAR_F, 0);
	page(1, READ_ONLY);
	par = translate(s12e1w, PAGE(1));
	check_equal("S12E1W of a read-only page faults", par & PAR_F, PAR_F);
	check_equal("with a permission code", PAR_FST(par), 0x0f);
	par = translate(s12e1w, DATA + 0x100000);
	check_equal("S12E1W of an unmapped page faults", par & PAR_F, PAR_F);
	check_equal("with a translation code", PAR_FST(par), 0x07);
}

/* R_XQSMX: AT may set AF in stage 1, and then the table page has an entry */
static void stage1_af(void)
{
	u64 af, dirty, par;

	stage1(S1_AF, 0);
	expect_failure("QEMU before version 8 wants to set AF, and sees HD=0");
	par = translate(s1e1r, TARGET + 8);
	check_equal("PAR_EL1.F", par & PAR_F, 0);
	af = *stage1_target() >> 10 & 1;
	dirty = *table_page >> 7 & 1;
	check("AF is set in a dirty page only", !af || dirty);
	check_equal("as many entries as dirty pages", hdbssprod_read(), dirty);
	if (dirty)
		check_equal("of the table page", *at(buffer), TABLE2 | 7);
}

/* [M]: the same while full: if it needs the update, PAR_EL1 tells of a fault of stage 2 */
static void stage1_af_full(void)
{
	u64 par;

	stage1(S1_AF, 0);
	hdbssprod_write(512);
	expect_failure("QEMU before version 8 tells the level of stage 1");
	par = translate(s1e1r, TARGET + 8);
	if (par & PAR_F) {
		check_equal("a permission fault of level 3", PAR_FST(par), 0x0f);
		check_equal("of stage 2, on a walk of stage 1", par & (PAR_PTW | PAR_S),
			    PAR_PTW | PAR_S);
	}
	check_equal("AF is not set", *stage1_target() & S1_AF, 0);
	check_equal("the table page is clean", *table_page & S2AP_W, 0);
	check_equal("INDEX is kept", hdbssprod_read(), 512);
}

static const struct test tests[] = {
	{ .name = "unseen", .run = unseen },
	{ .name = "s12e1w", .run = s12e1w },
	{ .name = "s12e1_others", .run = s12e1_others },
	{ .name = "stage1_af", .run = stage1_af },
	{ .name = "stage1_af_full", .run = stage1_af_full },
};

const struct group at_group = GROUP("at", stage1_begin, tests);
