// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the program was told to be injected, in guests of VMID 2, whose events count. Each
 * test makes the events of one kind, and requires that the injection is met just when it is
 * due, that what it does is permitted, and that nothing else happens.
 */
#include <stddef.h>

#include "groups.h"
#include "world.h"

#define VMID		(2ull << 48)	/* INJECT_VMID in qemu_model/conformance.py */
#define EVENTS_MAX	300
#define RACES_MAX	60		/* that the interceptors let an access lose */
#define CAPACITY	512

static void begin(void)
{
	world_begin();
	sysreg_write(vttbr_el2, s2.root | VMID);
	tlb_flush();
}

/* Whether the event number @event, from 1, meets the injection. */
static bool due(u64 event, const char *key)
{
	u64 first = injection_number(key, 1), times = injection_number("times", 1);

	return event >= first && (!times || event - first < times);
}

/* How many events to make: some behind the last one that is due */
static u64 events(const char *key)
{
	u64 count = injection_number(key, 1) + injection_number("times", 1) + 6;

	return count < EVENTS_MAX ? count : EVENTS_MAX;
}

static bool none_of(const char *const *kinds)
{
	for (; *kinds; kinds++)
		if (injected(*kinds))
			return false;
	skip("nothing of this kind is injected");
	return true;
}

static volatile u64 *stored;	/* descriptor of the page of the last store */

static u64 store(u64 i)
{
	stored = page((unsigned int)i, CLEAN);
	return run(&guest, el1_store, PAGE(i), 5, 1, 0);
}

/* What the exit of a guest has to look like whose append has met a fault */
static void faulted(u64 esr, u64 dirty)
{
	bool gpf = injected("gpf"), precise = injection_is("report", "precise");
	u64 fsc = (gpf ? 0x28ull : 0x10ull) << 26;

	if (precise) {
		check_equal("an abort of the walk with HDBSSF", esr & (ESR_HDBSSF | 0x3f),
			    ESR_HDBSSF | (gpf ? 0x27 : 0x17));
		check_equal("and no FSC", hdbssprod_read(), 0);
		check_equal("dirty as told", dirty, injection_is("dirty", "yes"));
	} else if (injection_number("late", 0)) {
		/* The DSB that follows the guest's exit sets it at the latest. */
		check("the store is made", ended(esr));
		check_equal("FSC after a DSB", hdbssprod_read(), fsc);
		check_equal("dirty without an entry", dirty, 1);
	} else if (injection_is("dirty", "yes")) {
		check("the store is made", ended(esr));
		check_equal("FSC", hdbssprod_read(), fsc);
		check_equal("dirty without an entry", dirty, 1);
	} else {
		check("refused", refused(esr));
		check_equal("FSC", hdbssprod_read(), fsc);
		check_equal("clean", dirty, 0);
	}
	check_equal("no entry", *at(buffer), 0);
}

/* abort, gpf, cas-lost and fill count appends */
static void appends(void)
{
	static const char *const kinds[] = { "abort", "gpf", "cas-lost", "fill", NULL };
	bool fault = injected("abort") || injected("gpf"), fill = injected("fill");
	u64 count = events("append"), event = 0, i;

	if (none_of(kinds))
		return;
	if (injected("cas-lost") && injection_number("times", 1) - 1 >= RACES_MAX) {
		skip("a PE that loses every race has no end");
		return;
	}
	for (i = 0; event < count; i++) {
		u64 esr, entries, dirty, wrong = 0, slot;
		bool met;

		for (slot = 0; slot < CAPACITY; slot++)
			at(buffer)[slot] = 0;
		hdbssprod_write(0);
		met = due(++event, "append");
		esr = store(i);
		dirty = *stored >> 7 & 1;
		if (met && fault) {
			faulted(esr, dirty);
			continue;
		}
		check("the guest ends", ended(esr));
		check_equal("dirty", dirty, 1);
		entries = hdbssprod_read();
		if (!met)
			check_equal("one entry", entries, 1);
		else if (fill)
			check_equal("the buffer is full", entries, CAPACITY);
		else if (parameter_is("lost_cas_keeps_entry", "no"))
			check_equal("the entry of the lost race was taken back", entries, 1);
		else
			check("an entry more", entries >= 2);
		/* A lost race is another try, which is another append. */
		if (met && injected("cas-lost"))
			while (due(++event, "append"))
				;
		for (slot = 0; slot < entries && slot < CAPACITY; slot++)
			wrong += at(buffer)[slot] != (PAGE(i) | 7);
		check_equal("all entries are of the page", wrong, 0);
	}
}

/* s1ptw and fetch count refusals */
static void refusals(void)
{
	static const char *const kinds[] = { "s1ptw", "fetch", NULL };
	u64 count = events("refusal"), event;

	if (none_of(kinds))
		return;
	for (event = 1; event <= count; event++) {
		bool met = due(event, "refusal");
		u64 esr;

		hdbssprod_write(CAPACITY);
		esr = store(0);
		check_equal("refused", esr & (ESR_HDBSSF | 0x3f), ESR_HDBSSF | 0x0f);
		check_equal("with S1PTW as injected", esr & ESR_S1PTW, met ? ESR_S1PTW : 0);
		check_equal("as injected", ESR_EC(esr),
			    met && injected("fetch") ? EC_IABT : EC_DABT);
		check_equal("clean", *stored & S2AP_W, 0);
		check_equal("INDEX is kept", hdbssprod_read(), CAPACITY);
	}
}

/* index=V counts guest entries with an empty buffer */
static void index_at_entry(void)
{
	static const char *const kinds[] = { "index=0", "index=last", "index=full", "index=max",
					     NULL };
	u64 count = events("entry"), event, preset;

	if (none_of(kinds))
		return;
	preset = injected("index=last") ? CAPACITY - 1 : injected("index=full") ? CAPACITY :
		 injected("index=max") ? HDBSSPROD_INDEX : 0;
	for (event = 1; event <= count; event++) {
		u64 index = due(event, "entry") ? preset : 0, esr;

		hdbssprod_write(0);
		*at(buffer) = at(buffer)[CAPACITY - 1] = 0;
		esr = store(0);
		if (index >= CAPACITY) {
			check("refused, it is full", refused(esr));
			check_equal("INDEX is what was injected", hdbssprod_read(), index);
			continue;
		}
		check("the guest ends", ended(esr));
		check_equal("INDEX goes on from what was injected", hdbssprod_read(), index + 1);
		check_equal("the entry is there", at(buffer)[index], PAGE(0) | 7);
	}
}

/* Without any of them: nothing happens to VMID 2 */
static void nothing(void)
{
	u64 i;

	if (injected("")) {
		skip("something is injected");
		return;
	}
	for (i = 0; i < 10; i++) {
		hdbssprod_write(0);
		check("the guest ends", ended(store(i)));
		check_equal("one entry", hdbssprod_read(), 1);
	}
	for (i = 0; i < 10; i++) {
		hdbssprod_write(CAPACITY);
		check("refused", refused(store(i)));
	}
}

static const struct test tests[] = {
	{ .name = "nothing", .run = nothing },
	{ .name = "appends", .run = appends },
	{ .name = "refusals", .run = refusals },
	{ .name = "index_at_entry", .run = index_at_entry },
};

const struct group inject_group = GROUP("inject", begin, tests);
