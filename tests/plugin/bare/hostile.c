// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * EL2 software at its worst. What counts is that every run comes back, that
 * nothing outside RAM is touched, and that the trace tells (pytest looks at it).
 * Flash at 0x04000000 holds a table of writable-clean pages.
 */
#include <stddef.h>

#include "bare.h"
#include "ktap.h"

#define FLASH	0x04000000ull

static struct guest guest;
static struct stage2 s2;
static u64 seed = 0x9e3779b97f4a7c15ull;

static u64 random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static u64 store(void)
{
	stage2_map(&s2, DATA, DATA, 3, CLEAN);
	tlb_flush();
	return run(&guest, el1_store, DATA, 1, 1, 0);
}

static void aborted(const char *name, u64 hdbssbr)
{
	u64 esr;

	hdbssbr_write(hdbssbr);
	hdbssprod_write(0);
	esr = store();
	check_equal(name, esr & (ESR_HDBSSF | 0x3f), ESR_HDBSSF | 0x0f);
	check_equal("FSC tells of an external abort, INDEX is kept", hdbssprod_read(),
		    0x10ull << 26);
	check_equal("again refused", run_on(&guest) & ESR_HDBSSF, ESR_HDBSSF);
	hdbssbr_write(HEAP);
	hdbssprod_write(0);
	*at(HEAP) = 0;
	check("with a buffer it goes on", ended(run_on(&guest)));
	check_equal("one entry", *at(HEAP), DATA | 7);
}

static void buffers(void)
{
	u64 sz;

	aborted("buffer at 0", 0);
	aborted("buffer in a device", 0x09000000);
	aborted("buffer behind RAM", 0x00fffffffffff000);
	aborted("buffer at the end of the address space of RAM", RAM_BASE + (256 << 20));
	for (sz = 10; sz <= 15; sz++)
		aborted("reserved SZ", HEAP | sz);
	/* the last page of RAM, with an index that leads out of it */
	hdbssbr_write((RAM_BASE + (256 << 20) - 4096) | 0);
	hdbssprod_write(511);
	check("the last 8 bytes of RAM are a buffer", ended(store()));
	check_equal("with an entry", *at(RAM_BASE + (256 << 20) - 8), DATA | 7);
}

static void tables(void)
{
	volatile u64 *d = stage2_map(&s2, DATA, DATA, 3, CLEAN);
	volatile u64 *root = at(s2.root), kept;
	u64 esr;

	/* The entry overwrites the very descriptor that is to be made dirty. */
	hdbssbr_write((u64)d & ~0xfffull);
	hdbssprod_write(((u64)d & 0xfff) / 8);
	store();
	hdbssbr_write(HEAP);
	hdbssprod_write(0);
	stage2_map(&s2, DATA, DATA, 3, CLEAN);

	/* A table that is its own next level, and looks like a clean page at level 3 */
	root[3] = s2.root | CLEAN | 3;
	tlb_flush();
	esr = run(&guest, el1_store, 0xc0000000ull | 3ull << 21 | 3ull << 12 | 0x800, 1, 1, 0);
	check("a looping table comes back", ended(esr) || ESR_EC(esr) == EC_DABT);
	root[3] = 0;

	/* A table outside RAM that QEMU can read: it faults, we cannot look. */
	kept = root[DATA >> 30];
	root[2] = take(4096) | 3;
	at(root[2] & ~0xfffull)[0] = FLASH | 3;
	tlb_flush();
	esr = run(&guest, el1_store, 0x80000000, 1, 1, 0);
	check_equal("a table in flash: an ordinary fault", esr & (ESR_HDBSSF | 0x3f), 0x0f);
	root[DATA >> 30] = kept;

	sysreg_write(vttbr_el2, 0x0000fffffffff000ull);
	tlb_flush();
	esr = store();
	check("a wild VTTBR_EL2 comes back", ESR_EC(esr) == EC_IABT || ESR_EC(esr) == EC_DABT);
	sysreg_write(vttbr_el2, s2.root);
	tlb_flush();
}

static void noise(void)
{
	unsigned int i;

	for (i = 0; i < 400; i++) {
		u64 noise = random();

		hdbssbr_write(random() & (i & 1 ? ~0ull : 0x0000000047fff00full));
		hdbssprod_write(random() & (i & 2 ? ~0ull : 0x1ff));
		if (i & 4)
			stage2_use(&s2, VTCR_TRACK, 0);
		else
			stage2_use(&s2, (noise & 0x3f0007ff0fffffull) | VTCR_TRACK, 0);
		/* Any page of the table may become anything. */
		if (i & 8)
			sysreg_write(vttbr_el2, (s2.root + (random() & 0x3ff000)) |
						(random() & 1) << 48);
		stage2_map(&s2, DATA, DATA, 3, random() & 0x00780000000007fcull);
		tlb_flush();
		run(&guest, el1_store, DATA, 1, 1, 0);
	}
}

static void begin(void)
{
	take(4096);		/* HEAP itself: the good buffer */
	guest = (struct guest){ 0 };
	stage2_init(&s2, 12, 1, 39, false);
	stage2_map_code(&s2, 3, READ_ONLY);
	stage2_use(&s2, VTCR_TRACK, 0);
}

static const struct test tests[] = {
	{ .name = "buffers", .run = buffers },
	{ .name = "tables", .run = tables },
	{ .name = "noise", .run = noise },
};

static const struct group hostile = GROUP("hostile", begin, tests);
const struct group *const groups[] = { &hostile, NULL };
