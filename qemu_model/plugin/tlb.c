// SPDX-License-Identifier: GPL-2.0-or-later
#include <pthread.h>

#include "pe.h"
#include "tlb.h"
#include "walk.h"

#define CONTROL	(VTCR_HA | VTCR_HD | VTCR_HDBSS)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Broadcasts: a slot that is older than the last one of its VMID holds nothing. */
static uint32_t broadcasts, vmid_broadcasts[1 << 16];

static uint32_t generation_of(uint16_t vmid)
{
	return broadcasts + vmid_broadcasts[vmid];
}

void tlb_lock(const struct pe *pe)
{
	if (pe->choices.lazy)
		pthread_mutex_lock(&lock);
}

void tlb_unlock(const struct pe *pe)
{
	if (pe->choices.lazy)
		pthread_mutex_unlock(&lock);
}

uint64_t tlb_vtcr(struct pe *pe, uint64_t vttbr)
{
	uint16_t vmid = (uint16_t)(vttbr >> 48);
	unsigned int i = vmid % TLB_VMIDS;

	if (!pe->choices.lazy)
		return pe->vtcr;
	if (!pe->tlb.slots[i].held || pe->tlb.slots[i].vmid != vmid ||
	    pe->tlb.slots[i].generation != generation_of(vmid)) {
		pe->tlb.slots[i].held = true;
		pe->tlb.slots[i].vmid = vmid;
		pe->tlb.slots[i].generation = generation_of(vmid);
		pe->tlb.slots[i].control = pe->vtcr & CONTROL;
	}
	return (pe->vtcr & ~CONTROL) | pe->tlb.slots[i].control;
}

void tlb_invalidate(struct pe *pe, bool all, uint16_t vmid, bool broadcast)
{
	unsigned int i;

	if (broadcast && all)
		broadcasts++;
	else if (broadcast)
		vmid_broadcasts[vmid]++;
	for (i = 0; i < TLB_VMIDS; i++)
		if (all || pe->tlb.slots[i].vmid == vmid)
			pe->tlb.slots[i].held = false;
}
