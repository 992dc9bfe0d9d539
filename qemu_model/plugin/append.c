// SPDX-License-Identifier: GPL-2.0-or-later
#include "append.h"
#include "visibility.h"
#include "walk.h"

/*
 * Attempts of one access while other PEs or the kernel keep changing the leaf;
 * a real PE has no limit, but a plugin must not hang on a hostile kernel.
 */
#define ATTEMPTS	64

/*
 * Retries without any append. Each is right when another PE has just made the
 * leaf writable; so many in a row mean that QEMU faults for a reason of its own.
 */
#define FRUITLESS	256

bool abort_is_candidate(uint64_t esr)
{
	unsigned int ec = ESR_EC(esr);

	if ((esr & ESR_FSC_TYPE) != ESR_FSC_PERM)
		return false;
	if (esr & ESR_S1PTW)	/* also of a load or an instruction fetch */
		return ec == ESR_EC_DABT_LOWER || ec == ESR_EC_IABT_LOWER;
	/* Cache maintenance never dirties (R_ZYGHJ). */
	return ec == ESR_EC_DABT_LOWER && (esr & ESR_WNR) && !(esr & ESR_CM);
}

static void anomaly(struct pe *pe, struct trace *trace, enum anomaly reason, uint64_t b,
		    uint64_t c)
{
	pe->anomalies++;
	trace_record(trace, TRACE_ANOMALY, pe->index, 0, reason, b, c);
}

static uint64_t abort_ipa(const struct abort *abort)
{
	return (abort->hpfar & 0x0000fffffffffff0ull) << 8;
}

/* HCR_EL2.PTW: stage 1 tables in Device memory fault, whatever S2AP says. */
static bool protected_table_walk(const struct abort *abort, uint64_t descriptor)
{
	uint64_t device = abort->hcr & HCR_FWB ? 1ull << 4 : 3ull << 4;

	return (abort->hcr & HCR_PTW) && !(descriptor & device);
}

static enum verdict retry(struct pe *pe, struct trace *trace, uint64_t ipa, uint64_t descriptor)
{
	if (++pe->fruitless <= FRUITLESS)
		return VERDICT_RETRY;
	pe->fruitless = 0;
	anomaly(pe, trace, ANOMALY_WALK_DISAGREES, ipa, descriptor);
	return VERDICT_KERNEL;
}

static enum verdict refuse(struct pe *pe, const struct memory *mem, struct trace *trace,
			   struct abort *abort, const struct leaf *leaf)
{
	uint64_t af = leaf->descriptor | DESC_AF;

	pe->refusals++;
	if (pe->choices.af_with_refusal && af != leaf->descriptor)
		memory_cas(mem, leaf->pa, leaf->descriptor, af);
	/* The level of our walk: the tables may have changed since QEMU's. */
	abort->esr = (abort->esr & ~ESR_FSC_LEVEL) | (uint64_t)leaf->level | ESR_HDBSSF;
	trace_record(trace, TRACE_REFUSE, pe->index, 0, abort_ipa(abort), abort->esr,
		     pe->hdbssprod, leaf->pa, leaf->descriptor, pe->hdbssbr);
	return VERDICT_REFUSED;
}

/* One 64-bit write at INDEX; false: it aborted, reported in FSC (~R_JHHQW, B). */
static bool write_entry(struct pe *pe, const struct memory *mem, struct trace *trace,
			uint64_t slot, uint64_t entry)
{
	if (hdbssbr_sz_reserved(pe->hdbssbr))
		anomaly(pe, trace, ANOMALY_RESERVED_SZ, pe->hdbssbr, 0);
	else if (!visibility_entry(pe, mem, slot, entry))
		anomaly(pe, trace, ANOMALY_BUFFER_OUTSIDE_RAM, slot, 0);
	else
		return true;
	pe->hdbssprod = HDBSSPROD_FSC_ABORT | (pe->hdbssprod & HDBSSPROD_INDEX);
	return false;
}

/* R_HKCCN (C1): slots from INDEX on, never beyond the buffer. */
static void zero_ahead(struct pe *pe, const struct memory *mem)
{
	uint64_t first = pe->hdbssprod & HDBSSPROD_INDEX, index;
	uint64_t end = first + pe->choices.zero_ahead, capacity = hdbssbr_capacity(pe->hdbssbr);

	for (index = first; index < end && index < capacity; index++)
		memory_write(mem, hdbssbr_slot(pe->hdbssbr, index), 0);
}

static enum verdict dirty_update(struct pe *pe, const struct memory *mem, struct trace *trace,
				 struct abort *abort)
{
	uint64_t ipa = abort_ipa(abort);
	unsigned int i;

	for (i = 0; i < ATTEMPTS; i++) {
		uint64_t entry, slot, index, dirty;
		enum cas_result cas;
		struct leaf leaf;

		switch (stage2_walk(mem, abort->vttbr, pe->vtcr, ipa, &leaf)) {
		case WALK_LEAF:
			break;
		case WALK_OUTSIDE_RAM:
			anomaly(pe, trace, ANOMALY_TABLE_OUTSIDE_RAM, leaf.pa, 0);
			return VERDICT_KERNEL;
		case WALK_UNSUPPORTED:
			anomaly(pe, trace, ANOMALY_WALK_UNSUPPORTED, pe->vtcr, 0);
			return VERDICT_KERNEL;
		default:
			/* Unmapped since QEMU walked: the retry has the right fault. */
			return retry(pe, trace, ipa, leaf.descriptor);
		}

		if (leaf.descriptor & DESC_S2AP_W)	/* made writable meanwhile */
			return retry(pe, trace, ipa, leaf.descriptor);
		if (!(leaf.descriptor & DESC_DBM))	/* R_PZFQC */
			return VERDICT_KERNEL;
		if ((abort->esr & ESR_S1PTW) && (!(leaf.descriptor & DESC_S2AP_R) ||
						 protected_table_walk(abort, leaf.descriptor)))
			return VERDICT_KERNEL;

		if (pe_refuses(pe))			/* R_STJMN */
			return refuse(pe, mem, trace, abort, &leaf);
		index = pe->hdbssprod & HDBSSPROD_INDEX;
		slot = hdbssbr_slot(pe->hdbssbr, index);
		entry = hdbss_entry(ipa, leaf.size, leaf.level);
		if (!write_entry(pe, mem, trace, slot, entry))
			return refuse(pe, mem, trace, abort, &leaf);
		pe->hdbssprod++;			/* FSC is 0, INDEX below its maximum */
		pe->entries++;
		pe->fruitless = 0;
		zero_ahead(pe, mem);

		/* R_PQJJR: AF in the same update, dirty with AF=0 is forbidden. */
		dirty = leaf.descriptor | DESC_S2AP_W | DESC_AF;
		cas = memory_cas(mem, leaf.pa, leaf.descriptor, dirty);
		if (cas != CAS_WON && pe->choices.lost_cas_takes_back) {
			pe->hdbssprod--;
			pe->entries--;
			visibility_take_back(pe);
			continue;
		}
		trace_record(trace, TRACE_APPEND, pe->index,
			     (uint32_t)index | (cas == CAS_WON ? 0 : TRACE_CAS_LOST), ipa, entry,
			     slot, leaf.pa, leaf.descriptor, dirty);
		if (cas == CAS_WON)
			return VERDICT_RETRY;
		/* Lost: the entry stays (choice C9), the walk is repeated. */
	}
	anomaly(pe, trace, ANOMALY_RETRY_LIMIT, ipa, 0);
	return VERDICT_KERNEL;
}

enum verdict pe_dirty_update(struct pe *pe, const struct memory *mem, struct trace *trace,
			     struct abort *abort)
{
	enum verdict verdict = dirty_update(pe, mem, trace, abort);

	visibility_bound(pe, mem);
	return verdict;
}
