// SPDX-License-Identifier: GPL-2.0-or-later
#include <stddef.h>

#include "append.h"
#include "visibility.h"
#include "walk.h"

/*
 * Attempts of one access while other PEs or the kernel keep changing the leaf;
 * a real PE has no limit, but a plugin must not hang on a hostile kernel.
 */
#define ATTEMPTS	64

/*
 * Retries of one access in one guest entry, without any append. Each is right when
 * another PE has just made the leaf writable; so many in a row mean that QEMU
 * faults for a reason of its own.
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

static enum verdict retry(struct pe *pe, struct trace *trace, const struct abort *abort,
			  uint64_t descriptor)
{
	if (pe->retried.elr != abort->elr || pe->retried.far != abort->far ||
	    pe->retried.entry != pe->entries_to_guest) {
		pe->retried.elr = abort->elr;
		pe->retried.far = abort->far;
		pe->retried.entry = pe->entries_to_guest;
		pe->fruitless = 0;
	}
	if (++pe->fruitless <= FRUITLESS)
		return VERDICT_RETRY;
	pe->fruitless = 0;
	anomaly(pe, trace, ANOMALY_WALK_DISAGREES, abort_ipa(abort), descriptor);
	return VERDICT_KERNEL;
}

static const struct injection *meet(struct pe *pe, enum inject_event event,
				    const struct abort *abort)
{
	return inject_meet(pe->injector, event, pe->index, abort->vttbr, abort_ipa(abort));
}

static void record_injection(struct pe *pe, struct trace *trace,
			     const struct injection *injection, uint64_t ipa, uint64_t pa)
{
	uint32_t flags = (injection->precise ? TRACE_PRECISE : 0) |
			 (injection->dirty ? TRACE_DIRTY : 0);

	trace_record(trace, TRACE_INJECT, pe->index, flags, injection->what, ipa,
		     inject_number(pe->injector, injection), pe->hdbssprod, injection->late, pa);
}

static enum verdict refuse(struct pe *pe, const struct memory *mem, struct trace *trace,
			   struct abort *abort, const struct leaf *leaf)
{
	uint64_t af = leaf->descriptor | DESC_AF;
	const struct injection *injection;

	pe->refusals++;
	pe->fruitless = 0;
	if (pe->choices.af_with_refusal && af != leaf->descriptor)
		memory_cas(mem, leaf->pa, leaf->descriptor, af);
	/* The level of our walk: the tables may have changed since QEMU's. */
	abort->esr = (abort->esr & ~ESR_FSC_LEVEL) | (uint64_t)leaf->level | ESR_HDBSSF;
	injection = meet(pe, EVENT_REFUSAL, abort);
	if (injection) {
		/* As of a stage 1 walk that has to update its table. */
		if (!(abort->esr & ESR_S1PTW))
			abort->esr = (abort->esr & ~ESR_ISS_OF_ACCESS) | ESR_S1PTW;
		if (injection->what == INJECT_FETCH &&
		    ESR_EC(abort->esr) != ESR_EC_IABT_LOWER) {
			abort->esr &= ~(0x3full << ESR_EC_SHIFT | ESR_WNR | ESR_CM);
			abort->esr |= (uint64_t)ESR_EC_IABT_LOWER << ESR_EC_SHIFT;
		}
		record_injection(pe, trace, injection, abort_ipa(abort), leaf->pa);
	}
	trace_record(trace, TRACE_REFUSE, pe->index, 0, abort_ipa(abort), abort->esr,
		     pe->hdbssprod, leaf->pa, leaf->descriptor, pe->hdbssbr);
	return VERDICT_REFUSED;
}

/* R_HKCCN (C1): slots from INDEX on, never beyond the buffer. */
static void zero_ahead(struct pe *pe, const struct memory *mem)
{
	uint64_t first = pe->hdbssprod & HDBSSPROD_INDEX, index;
	uint64_t end = first + pe->choices.zero_ahead, capacity = hdbssbr_capacity(pe->hdbssbr);

	for (index = first; index < end && index < capacity; index++)
		memory_write(mem, hdbssbr_slot(pe->hdbssbr, index), 0);
}

/* One 64-bit write at INDEX, and INDEX counts it; false: it aborted. */
static bool write_entry(struct pe *pe, const struct memory *mem, struct trace *trace,
			uint64_t entry)
{
	uint64_t slot = hdbssbr_slot(pe->hdbssbr, pe->hdbssprod & HDBSSPROD_INDEX);

	if (hdbssbr_sz_reserved(pe->hdbssbr)) {
		anomaly(pe, trace, ANOMALY_RESERVED_SZ, pe->hdbssbr, 0);
		return false;
	}
	if (!visibility_entry(pe, mem, slot, entry)) {
		anomaly(pe, trace, ANOMALY_BUFFER_OUTSIDE_RAM, slot, 0);
		return false;
	}
	pe->hdbssprod++;	/* FSC is 0, INDEX below its maximum */
	pe->entries++;
	pe->fruitless = 0;
	zero_ahead(pe, mem);
	return true;
}

static void record_append(struct pe *pe, struct trace *trace, const struct abort *abort,
			  const struct leaf *leaf, uint64_t entry, bool won)
{
	uint64_t index = (pe->hdbssprod & HDBSSPROD_INDEX) - 1;

	trace_record(trace, TRACE_APPEND, pe->index,
		     (uint32_t)index | (won ? 0 : TRACE_CAS_LOST), abort_ipa(abort), entry,
		     hdbssbr_slot(pe->hdbssbr, index), leaf->pa, leaf->descriptor,
		     leaf->descriptor | DESC_S2AP_W | DESC_AF);
}

/* Injection "fill": entries as of lost races, until one slot is left. false: one aborted. */
static bool fill(struct pe *pe, const struct memory *mem, struct trace *trace,
		 const struct abort *abort, const struct leaf *leaf, uint64_t entry,
		 const struct injection *injection)
{
	uint64_t capacity = hdbssbr_capacity(pe->hdbssbr);

	while (injection && injection->what == INJECT_FILL &&
	       (pe->hdbssprod & HDBSSPROD_INDEX) + 1 < capacity) {
		if (!write_entry(pe, mem, trace, entry))
			return false;
		record_append(pe, trace, abort, leaf, entry, false);
	}
	return true;
}

/* A fault of the write of an entry, and how the PE deals with it */
struct fault {
	bool gpf, precise, dirty;
	uint64_t late;
};

static struct fault fault_as_chosen(const struct choices *choices)
{
	return (struct fault){
		.precise = choices->external_abort_precise,
		.dirty = choices->dirty_after_external_abort,
		.late = choices->fsc_delay,
	};
}

enum after_fault {
	FAULT_REPORTED,		/* precisely: the abort is software's */
	FAULT_REFUSES,		/* FSC is set, the access is refused */
	FAULT_LOSES,		/* the descriptor is updated, the entry is lost */
};

static enum after_fault fail(struct pe *pe, const struct fault *fault)
{
	uint64_t fsc = fault->gpf ? HDBSSPROD_FSC_GPF : HDBSSPROD_FSC_ABORT;

	if (fault->precise)
		return FAULT_REPORTED;
	if (fault->late) {
		pe->late_fsc = fsc;
		pe->late_updates = fault->late;
		return FAULT_LOSES;
	}
	pe->hdbssprod = fsc | (pe->hdbssprod & HDBSSPROD_INDEX);
	return fault->dirty ? FAULT_LOSES : FAULT_REFUSES;
}

bool pe_set_late_fsc(struct pe *pe, struct trace *trace)
{
	if (!pe->late_fsc)
		return false;
	pe->hdbssprod = pe->late_fsc | (pe->hdbssprod & HDBSSPROD_INDEX);
	pe->late_fsc = 0;
	trace_record(trace, TRACE_LATE, pe->index, 0, pe->hdbssprod);
	return true;
}

/* R_PQJJR: AF in the same update, dirty with AF=0 is forbidden. */
static enum cas_result make_dirty(const struct memory *mem, const struct leaf *leaf)
{
	return memory_cas(mem, leaf->pa, leaf->descriptor,
			  leaf->descriptor | DESC_S2AP_W | DESC_AF);
}

/* A page has become dirty without an entry. */
static void record_lost(struct pe *pe, struct trace *trace, const struct abort *abort,
			const struct leaf *leaf)
{
	trace_record(trace, TRACE_LOST, pe->index, 0, abort_ipa(abort), leaf->pa,
		     leaf->descriptor, leaf->descriptor | DESC_S2AP_W | DESC_AF);
}

/* What is left of an access whose entry was not written. true: it is over. */
static bool without_entry(struct pe *pe, const struct memory *mem, struct trace *trace,
			  struct abort *abort, const struct leaf *leaf, const struct fault *fault,
			  enum after_fault after, enum verdict *verdict)
{
	if (after == FAULT_REFUSES) {
		*verdict = refuse(pe, mem, trace, abort, leaf);
		return true;
	}
	if (after == FAULT_REPORTED) {
		if (fault->dirty && make_dirty(mem, leaf) == CAS_WON)
			record_lost(pe, trace, abort, leaf);
		abort->esr &= ~(ESR_FSC | ESR_ISS_OF_ACCESS);
		abort->esr |= (fault->gpf ? ESR_FSC_GPF_WALK : ESR_FSC_SEA_WALK) |
			      (uint64_t)leaf->level | ESR_HDBSSF;
		*verdict = VERDICT_REFUSED;
		return true;
	}
	if (make_dirty(mem, leaf) != CAS_WON)
		return false;
	pe->fruitless = 0;
	record_lost(pe, trace, abort, leaf);
	if (pe->late_fsc && !pe->late_updates--)
		pe_set_late_fsc(pe, trace);
	*verdict = VERDICT_RETRY;
	return true;
}

static enum verdict dirty_update(struct pe *pe, const struct memory *mem, struct trace *trace,
				 struct abort *abort, uint64_t vtcr)
{
	uint64_t ipa = abort_ipa(abort);
	unsigned int i;

	for (i = 0; i < ATTEMPTS; i++) {
		const struct injection *injection = NULL;
		struct fault fault = { 0 };
		enum after_fault after;
		enum verdict verdict;
		bool written = false;
		enum cas_result cas;
		struct leaf leaf;
		uint64_t entry;

		switch (stage2_walk(mem, abort->vttbr, vtcr, ipa, &leaf)) {
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
			return retry(pe, trace, abort, leaf.descriptor);
		}

		if (leaf.descriptor & DESC_S2AP_W)	/* made writable meanwhile */
			return retry(pe, trace, abort, leaf.descriptor);
		if (!(leaf.descriptor & DESC_DBM))	/* R_PZFQC */
			return VERDICT_KERNEL;
		if ((abort->esr & ESR_S1PTW) && (!(leaf.descriptor & DESC_S2AP_R) ||
						 protected_table_walk(abort, leaf.descriptor)))
			return VERDICT_KERNEL;

		if (!vtcr_hdbss_enabled(vtcr)) {
			/* caching=lazy: what QEMU does not do is done here, without an entry. */
			if (!vtcr_hd_enabled(vtcr))
				return VERDICT_KERNEL;
			if (make_dirty(mem, &leaf) != CAS_WON)
				continue;
			pe->fruitless = 0;
			return VERDICT_RETRY;
		}

		if (pe_refuses(pe))			/* R_STJMN */
			return refuse(pe, mem, trace, abort, &leaf);

		entry = hdbss_entry(ipa, leaf.size, leaf.level);
		after = FAULT_LOSES;
		if (!pe->late_fsc) {			/* else I_LMSZL: entries are lost */
			injection = meet(pe, EVENT_APPEND, abort);
			if (injection && injection->what <= INJECT_GPF) {
				fault = (struct fault){
					.gpf = injection->what == INJECT_GPF,
					.precise = injection->precise,
					.dirty = injection->dirty,
					.late = injection->late,
				};
				after = fail(pe, &fault);
				record_injection(pe, trace, injection, ipa, leaf.pa);
			} else {
				if (injection)
					record_injection(pe, trace, injection, ipa, leaf.pa);
				written = fill(pe, mem, trace, abort, &leaf, entry, injection) &&
					  write_entry(pe, mem, trace, entry);
				if (!written) {
					fault = fault_as_chosen(&pe->choices);
					after = fail(pe, &fault);
				}
			}
		}
		if (!written) {
			if (without_entry(pe, mem, trace, abort, &leaf, &fault, after, &verdict))
				return verdict;
			continue;
		}

		cas = injection && injection->what == INJECT_CAS_LOST ? CAS_LOST :
								       make_dirty(mem, &leaf);
		if (cas != CAS_WON && pe->choices.lost_cas_takes_back) {
			pe->hdbssprod--;
			pe->entries--;
			visibility_take_back(pe);
			continue;
		}
		record_append(pe, trace, abort, &leaf, entry, cas == CAS_WON);
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
	enum verdict verdict;

	/* Until all is recorded that this VTCR_EL2 has led to: no TLBI comes in between. */
	tlb_lock(pe);
	verdict = dirty_update(pe, mem, trace, abort, tlb_vtcr(pe, abort->vttbr));
	tlb_unlock(pe);
	visibility_bound(pe, mem);
	return verdict;
}
