// SPDX-License-Identifier: GPL-2.0-or-later
/* What each kind of instruction that writes, or only seems to, does to clean pages. */
#include "groups.h"
#include "world.h"

static void ldadd(void)
{
	page(16, CLEAN);
	*at(PAGE(16)) = 0;
	check_equal("LDADD appends once", entries_of(el1_ldadd, PAGE(16)), 1);
	check_equal("and adds once", *at(PAGE(16)), 0x1234);
}

static void stxr(void)
{
	page(17, CLEAN);
	*at(PAGE(17)) = 0;
	check_equal("LDXR and STXR append once", entries_of(el1_stxr, PAGE(17)), 1);
	check_equal("and store once", *at(PAGE(17)), 0x1234);
}

static void stp(void)
{
	page(18, CLEAN);
	page(19, CLEAN);
	check_equal("STP over two pages appends twice", entries_of(el1_stp, PAGE(19) - 8), 2);
	check_equal("the first half was stored", *at(PAGE(19) - 8), 0x1234);
	check_equal("the second half was stored", *at(PAGE(19)), 0x1234);
}

static void dc_zva(void)
{
	page(20, CLEAN);
	*at(PAGE(20)) = ~0ull;
	check_equal("DC ZVA appends once", entries_of(el1_zva, PAGE(20)), 1);
	check_equal("and zeroes", *at(PAGE(20)), 0);
}

static const struct test tests[] = {
	{ .name = "ldadd", .run = ldadd },
	{ .name = "stxr", .run = stxr },
	{ .name = "stp_over_a_page_border", .run = stp },
	{ .name = "dc_zva", .run = dc_zva },
};

const struct group instructions_group = GROUP("instructions", world_begin, tests);
