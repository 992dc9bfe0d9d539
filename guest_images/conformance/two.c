// SPDX-License-Identifier: GPL-2.0-or-later
/* Two PEs and one stage 2, one access after the other: what one has dirtied the other finds. */
#include <stddef.h>

#include "groups.h"
#include "world.h"

#define KEEP	(~0ull)

/* What the second PE is asked to do, and how it went */
static struct {
	unsigned int asked, answered;
	const char *code;	/* NULL: switch off */
	bool again;		/* the access that was refused */
	u64 address, prod, esr;
} other;
static u64 other_buffer;
static struct guest other_guest;

static void second_pe(u64 number)
{
	unsigned int request;

	(void)number;
	stage2_use(&s2, VTCR_TRACK, 0);
	hdbssbr_write(other_buffer);
	hdbssprod_write(0);
	for (request = 1;; request++) {
		while (__atomic_load_n(&other.asked, __ATOMIC_ACQUIRE) < request)
			asm volatile("yield");
		if (!other.code)
			break;
		if (other.prod != KEEP)
			hdbssprod_write(other.prod);
		other.esr = other.again ? run_on(&other_guest) :
			    run(&other_guest, other.code, other.address, 2, 1, 0);
		other.prod = hdbssprod_read();
		__atomic_store_n(&other.answered, request, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&other.answered, request, __ATOMIC_RELEASE);
}

static void request(const char *code, u64 address, u64 prod, bool again)
{
	other.code = code;
	other.address = address;
	other.prod = prod;
	other.again = again;
	__atomic_fetch_add(&other.asked, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(&other.answered, __ATOMIC_ACQUIRE) < other.asked)
		asm volatile("yield");
}

/* Let the second PE run guest code on an address; its syndrome. Then other.prod is new. */
static u64 elsewhere(const char *code, u64 address)
{
	request(code, address, KEEP, false);
	return other.esr;
}

static void begin(void)
{
	world_begin();
	other_buffer = take(4096);
	other.asked = other.answered = 0;
	other_guest = (struct guest){ 0 };
	secondary_work = second_pe;
	cpu_on(1);
}

static void end(void)
{
	request(NULL, 0, KEEP, false);
}

/* 3, 4: the registers and the buffer are the PE's own */
static void own_buffers(void)
{
	page(0, CLEAN);
	page(1, CLEAN);
	check_equal("an entry here", entries_of(el1_store, PAGE(0)), 1);
	check("the other guest ends", ended(elsewhere(el1_store, PAGE(1))));
	check_equal("an entry there", other.prod, 1);
	check_equal("none more here", hdbssprod_read(), 1);
	check_equal("the page of this PE", *at(buffer), PAGE(0) | 7);
	check_equal("the page of the other", *at(other_buffer), PAGE(1) | 7);
	end();
}

/* R_KLVVN, R_SGJBL: a TLB may say clean, but what is in memory counts */
static void stale_clean(void)
{
	volatile u64 *d = page(0, CLEAN);

	check("a load here", ended(run(&guest, el1_load, PAGE(0), 0, 0, 0)));
	check("a load there", ended(elsewhere(el1_load, PAGE(0))));
	check("a store there", ended(elsewhere(el1_store, PAGE(0))));
	check_equal("an entry there", other.prod, 1);
	check_equal("dirty", *d & S2AP_W, S2AP_W);
	check_equal("no entry for the store here", entries_of(el1_store, PAGE(0)), 0);
	end();
}

/* R_SGJBL: the descriptor has changed under a TLB that says clean */
static void stale_changed(void)
{
	volatile u64 *d = page(0, CLEAN);
	u64 esr;

	check("a load there", ended(elsewhere(el1_load, PAGE(0))));
	*d = PAGE(0) | READ_ONLY | 3;
	barrier();
	esr = elsewhere(el1_store, PAGE(0));
	check_equal("a store there faults without HDBSSF", esr & (ESR_HDBSSF | 0x3f), 0x0f);
	check_equal("the descriptor is what it was", *d, PAGE(0) | READ_ONLY | 3);
	*d = 0;
	barrier();
	esr = elsewhere(el1_store, PAGE(0));
	check_equal("or it is unmapped", esr & (ESR_HDBSSF | 0x3f), 0x07);
	check_equal("and stays so", *d, 0);
	check_equal("no entry", other.prod, 0);
	end();
}

/* R_STJMN: one PE is full, the other is not */
static void one_full(void)
{
	volatile u64 *d = page(0, CLEAN);

	request(el1_store, PAGE(0), 512, false);
	check("refused there", refused(other.esr));
	check_equal("clean", *d & S2AP_W, 0);
	check_equal("an entry here", entries_of(el1_store, PAGE(0)), 1);
	request(el1_store, PAGE(0), KEEP, true);
	check("what was refused needs no entry any more", ended(other.esr));
	check_equal("INDEX there is kept", other.prod, 512);
	check_equal("the last store is the other one's", *at(PAGE(0)), 2);
	end();
}

static const struct test tests[] = {
	{ .name = "own_buffers", .run = own_buffers, .pes = 2 },
	{ .name = "stale_clean", .run = stale_clean, .pes = 2 },
	{ .name = "stale_changed", .run = stale_changed, .pes = 2 },
	{ .name = "one_full", .run = one_full, .pes = 2 },
};

const struct group two_group = GROUP("two", begin, tests);
