// SPDX-License-Identifier: GPL-2.0-or-later
/* All PEs dirty the same pages at the same time; nothing may be lost. */
#include <stddef.h>

#include "groups.h"
#include "world.h"

#define PAGES	480

struct amount {
	unsigned int pages, rounds, few_pages, few_rounds;
};

static struct guest guests[8];
static u64 buffers[8], indexes[8];
static volatile u64 *descriptors[PAGES];
static unsigned int pes, pages, rounds;
static unsigned int round_started, round_ready, round_released, round_finished;

static void sweep(unsigned int pe, unsigned int round)
{
	/* Each PE has 8 bytes of its own in every page. */
	u64 esr = run(&guests[pe], el1_store, DATA + 8 * pe, round, pages, 4096);

	check("a guest ends", ended(esr));
	indexes[pe] = hdbssprod_read();
	__atomic_fetch_add(&round_finished, 1, __ATOMIC_ACQ_REL);
}

static void pe_init(unsigned int pe)
{
	stage2_use(&s2, VTCR_TRACK, 0);
	hdbssbr_write(buffers[pe]);
	hdbssprod_write(0);
}

static void wait_for(unsigned int *counter, unsigned int value)
{
	while (__atomic_load_n(counter, __ATOMIC_ACQUIRE) < value)
		asm volatile("yield");
}

static void second_pe(u64 number)
{
	unsigned int pe = (unsigned int)number, round, i;

	pe_init(pe);
	__atomic_fetch_add(&round_finished, 1, __ATOMIC_ACQ_REL);
	for (round = 1; round <= rounds; round++) {
		wait_for(&round_started, round);
		for (i = 0; i < 512; i++)
			at(buffers[pe])[i] = 0;
		hdbssprod_write(0);
		barrier();
		__atomic_fetch_add(&round_ready, 1, __ATOMIC_ACQ_REL);
		wait_for(&round_released, round);
		sweep(pe, round);
	}
}

/*
 * For some hundredths of a second after its start QEMU's RCU thread kicks whichever PE
 * runs: with several of them a deterministic run is not one before that.
 */
static void let_qemu_settle(void)
{
	u64 until = sysreg_read(cntpct_el0) + sysreg_read(cntfrq_el0) / 10;

	while (sysreg_read(cntpct_el0) < until)
		for (unsigned int i = 0; i < 10000; i++)
			asm volatile("");
}

/* How often each page is in the buffers before INDEX; returns the number of strange entries. */
static unsigned int count_entries(unsigned int found[PAGES])
{
	unsigned int pe, i, strange = 0;

	for (i = 0; i < pages; i++)
		found[i] = 0;
	for (pe = 0; pe < pes; pe++)
		for (i = 0; i < indexes[pe] && i < 512; i++) {
			u64 entry = at(buffers[pe])[i];

			if ((entry & 0xfff) == 7 && entry >= DATA && entry < PAGE(pages))
				found[(entry - DATA) / 4096]++;
			else
				strange++;
		}
	return strange;
}

/* C9: a page that several PEs dirty at once has an entry of one of them, or of more */
static void same_pages(void)
{
	const struct amount *amount = this_test->argument;
	unsigned int round, i, pe, lost = 0, wrong = 0, clean = 0, most = 0, strange = 0;
	static unsigned int found[PAGES];

	pes = cpu_count();
	pages = fewer(amount->pages, amount->few_pages);
	rounds = fewer(amount->rounds, amount->few_rounds);
	round_started = round_released = round_finished = 0;
	secondary_work = second_pe;
	stage2_init(&s2, 12, 1, 39, false);
	stage2_map_code(&s2, 3, READ_ONLY);
	for (pe = 0; pe < pes; pe++)
		buffers[pe] = take(4096);
	pe_init(0);
	let_qemu_settle();
	for (pe = 1; pe < pes; pe++)
		cpu_on(pe);
	wait_for(&round_finished, pes - 1);
	for (round = 1; round <= rounds; round++) {
		round_finished = 0;
		for (i = 0; i < pages; i++)
			descriptors[i] = stage2_map(&s2, PAGE(i), PAGE(i), 3,
						    CLEAN);
		tlb_flush();
		for (i = 0; i < 512; i++)
			at(buffers[0])[i] = 0;
		hdbssprod_write(0);
		barrier();
		round_ready = 0;
		__atomic_store_n(&round_started, round, __ATOMIC_RELEASE);
		wait_for(&round_ready, pes - 1);
		__atomic_store_n(&round_released, round, __ATOMIC_RELEASE);
		sweep(0, round);
		wait_for(&round_finished, pes);
		strange += count_entries(found);
		for (i = 0; i < pages; i++) {
			lost += !found[i];
			most = found[i] > most ? found[i] : most;
			clean += !(*descriptors[i] & S2AP_W);
			for (pe = 0; pe < pes; pe++)
				wrong += at(PAGE(i))[pe] != round;
		}
	}
	check_equal("every page has an entry", lost, 0);
	check_equal("no entry of another kind", strange, 0);
	check_equal("every page is dirty", clean, 0);
	check_equal("every store was made", wrong, 0);
	check("no more entries for a page than PEs", most <= pes);
	if (parameter_is("lost_cas_keeps_entry", "no"))
		check_equal("of lost races no entry stays", most, 1);
}

static const struct test tests[] = {
	{ .name = "same_pages", .run = same_pages,
	  .argument = &(const struct amount){ PAGES, 12, 40, 2 } },
	{ .name = "same_page", .run = same_pages, .pes = 2,
	  .argument = &(const struct amount){ 1, 60, 1, 10 } },
};

const struct group smp_group = GROUP("smp", NULL, tests);
