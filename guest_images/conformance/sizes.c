// SPDX-License-Identifier: GPL-2.0-or-later
/* Every size of the buffer, SZ 0 to 9: to the last slot and one more. R_BWVKS, I_SXBYL. */
#include <stddef.h>

#include "groups.h"
#include "world.h"

#define IPA	0x100000000ull		/* as many pages as entries, all of one page of RAM */
#define AT(i)	(IPA + (i) * 4096)

static u64 capacity, big;

static void begin(void)
{
	u64 sz = (u64)(*(const char *)this_test->argument - '0');

	world_begin();
	capacity = 512ull << sz;
	big = take(capacity * 8);
	if (take(4096) != big + capacity * 8)
		check("RAM behind the buffer", false);
	*at(big + capacity * 8) = 0x600d;
	hdbssbr_write(big | sz);
}

/* R_RXCMY at the border alone: INDEX = N-1, N, N+1 and the greatest */
static void last_slot(void)
{
	page(0, CLEAN);
	page(1, CLEAN);
	hdbssprod_write(capacity - 1);
	check("the last slot is used, then it is full",
	      refused(run(&guest, el1_store, DATA, 5, 2, 4096)));
	check_equal("one entry", hdbssprod_read(), capacity);
	check_equal("in the last slot", *at(big + capacity * 8 - 8), DATA | 7);
	check_equal("none behind", *at(big + capacity * 8), 0x600d);
	hdbssprod_write(capacity + 1);
	check("more than full is full", refused(run_on(&guest)));
	hdbssprod_write(HDBSSPROD_INDEX);
	check("the greatest INDEX is full", refused(run_on(&guest)));
	check_equal("and is kept", hdbssprod_read(), HDBSSPROD_INDEX);
}

/* All of it, in one go of the guest */
static void every_slot(void)
{
	u64 i, wrong = 0;

	if (capacity > 512 && parameter_is("stops", "yes")) {
		skip("each of the entries would be a stop of the debugger");
		return;
	}
	for (i = 0; i <= capacity; i++)
		stage2_map(&s2, AT(i), DATA, 3, CLEAN);
	tlb_flush();
	check("the store after the last slot is refused",
	      refused(run(&guest, el1_store, IPA, 5, capacity + 2, 4096)));
	check_equal("INDEX has stopped at the capacity", hdbssprod_read(), capacity);
	check_equal("FAR_EL2 is the refused page", guest.far, AT(capacity));
	check_equal("nothing behind the buffer", *at(big + capacity * 8), 0x600d);
	for (i = 0; i < capacity; i++)
		wrong += *at(big + i * 8) != (AT(i) | 7);
	check_equal("all entries are right", wrong, 0);
	hdbssprod_write(0);
	check_equal("after a drain the store is made, and the next page is unmapped",
		    ESR_FSC(run_on(&guest)), 0x07);
	check_equal("with one entry", hdbssprod_read(), 1);
	check_equal("in slot 0", *at(big), AT(capacity) | 7);
}

static const struct test tests[] = {
#define SZ(n)	{ .name = "last_slot.sz" n, .run = last_slot, .argument = n }, \
		{ .name = "every_slot.sz" n, .run = every_slot, .argument = n }
	SZ("0"), SZ("1"), SZ("2"), SZ("3"), SZ("4"), SZ("5"), SZ("6"), SZ("7"), SZ("8"), SZ("9"),
#undef SZ
};

const struct group sizes_group = GROUP("sizes", begin, tests);
