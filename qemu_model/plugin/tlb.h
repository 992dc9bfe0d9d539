/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the TLB of a PE holds of VTCR_EL2 (choice caching). VTCR_EL2.{HA,HD,HDBSS}
 * may be cached with the translations that they were used for. With caching=lazy
 * a PE keeps them for a VMID from the first time that it runs a guest with it
 * until a TLBI of the whole VMID, by this PE or by one that broadcasts. Only such
 * a TLBI: of single IPAs others may be left.
 *
 * qemu_model/model/tlb.py has the same, slot for slot, so that a trace can be
 * replayed. Therefore what fills a TLB and what empties it happens in the order
 * of the trace: from tlb_lock() to tlb_unlock() both it and its record.
 */
#ifndef HDBSS_TLB_H
#define HDBSS_TLB_H

#include <stdbool.h>
#include <stdint.h>

#define TLB_VMIDS	64	/* a VMID has the slot of its number modulo this */

struct tlb {
	struct {
		uint64_t control;	/* HA, HD, HDBSS */
		uint32_t generation;
		uint16_t vmid;
		bool held;
	} slots[TLB_VMIDS];
};

struct pe;

/* Nothing at all with caching=at-once */
void tlb_lock(const struct pe *pe);
void tlb_unlock(const struct pe *pe);

/*
 * VTCR_EL2 as it is in effect in the guest of @vttbr, now cached if it was not.
 * The caller has the lock.
 */
uint64_t tlb_vtcr(struct pe *pe, uint64_t vttbr);

/* A TLBI of one VMID or of all, on this PE or on all. The caller has the lock. */
void tlb_invalidate(struct pe *pe, bool all, uint16_t vmid, bool broadcast);

#endif
