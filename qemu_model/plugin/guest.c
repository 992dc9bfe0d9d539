// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest's context: the way in (ERET), the way out (exceptions to EL2), and the
 * stage 2 faults that a PE with HDBSS would not have taken.
 *
 * Such a fault has already put QEMU's PE to its EL2 vector. At the vector's
 * first instruction the PE does what it should have done instead, and is sent to
 * the ERET by which this guest was entered: ELR_EL2 and SPSR_EL2 still hold the
 * guest's state, so the access is simply made again. EL2 software sees nothing:
 * only ESR_EL2, FAR_EL2 and HPFAR_EL2 have changed, and what they held before the
 * guest was entered is of no use after it.
 *
 * Limits: no EL3, Non-secure state, Direct permissions (VTCR_EL2.{S2PIE,D128} are
 * 0). AT S12E1W reports a fault for a writable-clean page, because QEMU sees HD=0.
 */
#include "decode.h"
#include "interceptor.h"
#include "regs.h"
#include "visibility.h"

#define VECTOR_OFFSET	0x7ffull
#define VECTOR_LOWER	0x400ull	/* from a lower Exception level */
#define VECTOR_TYPE	0x180ull
#define VECTOR_SYNC	0x000ull
#define VECTOR_SERROR	0x180ull

#define SCTLR_EE	(1ull << 25)
#define SPSR_AARCH32	(1ull << 4)

/* Whether an ERET with these leads to EL1 or EL0; otherwise it is illegal, or to EL2. */
static bool returns_below(uint64_t spsr, uint64_t hcr)
{
	/* User, FIQ, IRQ, Supervisor, Abort, Undefined, System */
	const uint32_t aarch32_modes = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 7 | 1 << 11 |
				       1u << 15;
	unsigned int mode = spsr & 15;

	if (spsr & SPSR_AARCH32)
		return aarch32_modes >> mode & 1 && (mode == 0 || !(hcr & HCR_RW));
	/* EL0t, EL1t, EL1h */
	return (mode == 0 || mode == 4 || mode == 5) && hcr & HCR_RW;
}

/* VTCR_EL2 as it is in effect for the guest that was entered last. Needs tlb_lock(). */
static uint64_t guest_vtcr(struct vcpu *vcpu)
{
	return tlb_vtcr(&vcpu->pe, vcpu->entry_vttbr);
}

/* The same, for a look that may be old by the time it is used */
static uint64_t guest_vtcr_now(struct vcpu *vcpu)
{
	uint64_t vtcr;

	tlb_lock(&vcpu->pe);
	vtcr = guest_vtcr(vcpu);
	tlb_unlock(&vcpu->pe);
	return vtcr;
}

/* Whether HD, which QEMU does not see, is in effect as software wrote it or as it is cached */
static bool guest_has_hidden_hd(struct vcpu *vcpu)
{
	const struct pe *pe = &vcpu->pe;
	uint64_t vtcr;

	if (vtcr_for_qemu(pe, pe->vtcr) != pe->vtcr)
		return true;
	vtcr = guest_vtcr_now(vcpu);
	return vtcr_for_qemu(pe, vtcr) != vtcr;
}

static void record_exit(struct vcpu *vcpu, uint64_t vector)
{
	const struct abort *abort = &vcpu->abort;

	if (!vcpu->pe.choices.late)
		pe_set_late_fsc(&vcpu->pe, interceptor.trace);
	visibility_synchronize(&vcpu->pe);
	tlb_lock(&vcpu->pe);
	guest_vtcr(vcpu);	/* until now the TLB could be filled */
	trace_record(interceptor.trace, TRACE_EXIT, vcpu->pe.index, 0, abort->esr, abort->far,
		     abort->hpfar, vcpu->pe.hdbssprod, vector & VECTOR_OFFSET, abort->elr);
	tlb_unlock(&vcpu->pe);
}

/* The vector's first instruction never came: software has the fault as it is. */
static void fault_unanswered(struct vcpu *vcpu)
{
	vcpu_set_faulted(vcpu, false);
	record_exit(vcpu, vcpu->vector);
}

static void record_barrier(struct vcpu *vcpu, enum barrier what, unsigned int entries, uint64_t pc)
{
	trace_record(interceptor.trace, TRACE_BARRIER, vcpu->pe.index, 0, what, entries,
		     visibility_prod(&vcpu->pe), pc);
}

/* DSB for loads and stores, at any EL (~R_TCJKB) */
void on_dsb(unsigned int index, void *site)
{
	struct vcpu *vcpu = vcpu_current();
	unsigned int count;

	(void)index;
	if (!vcpu)
		return;
	pe_set_late_fsc(&vcpu->pe, interceptor.trace);
	count = visibility_dsb(&vcpu->pe, &interceptor.memory);
	if (count)
		record_barrier(vcpu, BARRIER_DSB, count, site_pc(site));
}

/* Context synchronization at EL2: an ISB, an exception or a return within the host */
static void context_synchronized(const void *site)
{
	struct vcpu *vcpu;

	if (!interceptor.choices.late)
		return;
	vcpu = vcpu_current();
	if (vcpu && !vcpu->in_guest && visibility_synchronize(&vcpu->pe))
		record_barrier(vcpu, BARRIER_CONTEXT, 0, site_pc(site));
}

void on_isb(unsigned int index, void *site)
{
	(void)index;
	context_synchronized(site);
}

/* TLBI {VMALLS12E1,ALLE1}{IS,OS}{nXS} */
void on_tlbi(unsigned int index, void *site)
{
	struct vcpu *vcpu = vcpu_current();
	bool all = tlbi_is_of_all(site_insn(site)), broadcast = tlbi_is_broadcast(site_insn(site));
	uint16_t vmid;

	(void)index;
	if (!vcpu || !vcpu_at_el2(vcpu))
		return;		/* UNDEFINED */
	vmid = all ? 0 : (uint16_t)(reg_read(REG_VTTBR_EL2) >> 48);
	tlb_lock(&vcpu->pe);
	trace_record(interceptor.trace, TRACE_TLBI, vcpu->pe.index, 0, all, vmid, broadcast,
		     site_pc(site));
	tlb_invalidate(&vcpu->pe, all, vmid, broadcast);
	tlb_unlock(&vcpu->pe);
}

/* Injection "index": as if an earlier owner of the buffer had left it */
static void preset_index(struct vcpu *vcpu)
{
	const struct injection *injection;
	struct pe *pe = &vcpu->pe;
	uint64_t capacity = hdbssbr_capacity(pe->hdbssbr);

	if (!vtcr_hdbss_enabled(guest_vtcr_now(vcpu)) || pe->hdbssprod)
		return;
	injection = inject_meet(pe->injector, EVENT_ENTRY, pe->index, vcpu->entry_vttbr, 0);
	if (!injection)
		return;
	pe_write(pe, SYS_HDBSSPROD_EL2,
		 injection->preset == PRESET_MAX ? HDBSSPROD_INDEX :
		 injection->preset == PRESET_FULL ? capacity :
		 injection->preset == PRESET_LAST ? capacity - 1 : 0);
	trace_record(interceptor.trace, TRACE_INJECT, pe->index, 0, injection->what, 0,
		     inject_number(pe->injector, injection), pe->hdbssprod);
}

/* An ERET that leads to no guest: to EL2 itself, or to the host below it */
static void return_within_host(uint64_t spsr, uint64_t hcr, const void *site)
{
	context_synchronized(site);
	if (spsr & SPSR_AARCH32 && returns_below(spsr, hcr)) {
		struct vcpu *vcpu = vcpu_current();

		if (vcpu && vcpu_at_el2(vcpu))
			vcpu->in_aarch32 = true;
	}
}

/* ERET, ERETAA, ERETAB */
void on_eret(unsigned int index, void *site)
{
	uint64_t hcr = reg_read(REG_HCR_EL2), spsr = reg_read(REG_SPSR_EL2);
	struct vcpu *vcpu;
	bool plain;

	(void)index;
	if (!hcr_in_guest(hcr)) {
		return_within_host(spsr, hcr, site);
		return;
	}
	vcpu = vcpu_current();
	if (!vcpu_at_el2(vcpu) || !returns_below(spsr, hcr))
		return;
	if (!vcpu) {
		report_anomaly(NULL, ANOMALY_UNKNOWN_PE, reg_read(REG_TPIDR_EL2));
		return;
	}
	if (vcpu->faulted)
		fault_unanswered(vcpu);
	vcpu->in_guest = true;
	vcpu->hdbssf = false;
	if (vcpu->retrying) {
		vcpu->retrying = false;
		return;
	}
	/* ERETAA would authenticate ELR_EL2 with a modifier that is gone: second choice. */
	plain = site_insn(site) == INSN_ERET;
	if (plain || !vcpu->eret_known || !vcpu->eret_is_plain) {
		vcpu->eret_pc = site_pc(site);
		vcpu->eret_known = true;
		vcpu->eret_is_plain = plain;
	}
	visibility_dsb(&vcpu->pe, &interceptor.memory);
	visibility_synchronize(&vcpu->pe);
	vcpu->pe.entries_to_guest++;
	vcpu->entered = true;
	vcpu->appended = false;
	vcpu->entry_hdbssbr = vcpu->pe.hdbssbr;
	vcpu->entry_vttbr = reg_read(REG_VTTBR_EL2);
	tlb_lock(&vcpu->pe);
	guest_vtcr(vcpu);	/* from now on the TLB is filled */
	trace_record(interceptor.trace, TRACE_ENTRY, vcpu->pe.index, 0, vcpu->pe.hdbssbr,
		     vcpu->pe.hdbssprod, vcpu->pe.vtcr, vcpu->entry_vttbr, hcr,
		     reg_read(REG_ELR_EL2));
	tlb_unlock(&vcpu->pe);
	preset_index(vcpu);
}

/* Exceptions and interrupts, after QEMU has entered the vector */
void on_discontinuity(unsigned int index, enum qemu_plugin_discon_type type, uint64_t from_pc,
		      uint64_t to_pc, void *userdata)
{
	struct vcpu *vcpu = vcpu_at(index);
	uint64_t offset = to_pc & VECTOR_OFFSET;
	struct abort *abort;

	(void)type;
	(void)userdata;
	if (!vcpu)
		return;
	vcpu_reset_if_pending(vcpu);
	vcpu_learn(vcpu);
	vtcr_source_restore(vcpu);
	if (vcpu->faulted)
		fault_unanswered(vcpu);
	if (interceptor.choices.late && !vcpu->in_guest && !vcpu->retrying &&
	    visibility_synchronize(&vcpu->pe))
		record_barrier(vcpu, BARRIER_CONTEXT, 0, from_pc);
	if (!vcpu->in_guest && !vcpu->in_aarch32 && !vcpu->hdbssf && !vcpu->retrying)
		return;
	/* In AArch32 the EL of CPSR is stale; but no AArch32 vector is aligned like this. */
	if (offset % 0x80 || reg_current_el() != 2)
		return;
	vcpu->in_aarch32 = false;
	vcpu->retrying = false;
	if ((offset & VECTOR_TYPE) == VECTOR_SYNC || (offset & VECTOR_TYPE) == VECTOR_SERROR)
		vcpu->hdbssf = false;	/* ESR_EL2 is new */
	if (!vcpu->in_guest)
		return;

	vcpu->in_guest = false;
	abort = &vcpu->abort;
	abort->esr = reg_read(REG_ESR_EL2);
	abort->far = reg_read(REG_FAR_EL2);
	abort->hpfar = reg_read(REG_HPFAR_EL2);
	abort->elr = reg_read(REG_ELR_EL2);
	if (offset >= VECTOR_LOWER && (offset & VECTOR_TYPE) == VECTOR_SYNC &&
	    abort_is_candidate(abort->esr) && guest_has_hidden_hd(vcpu)) {
		vcpu->vector = to_pc;
		vcpu_set_faulted(vcpu, true);
		return;
	}
	record_exit(vcpu, offset);
}

/* What may be the first instruction of a vector for synchronous exceptions */
void on_vector(unsigned int index, void *site)
{
	enum verdict verdict = VERDICT_KERNEL;
	struct memory memory;
	struct vcpu *vcpu;
	uint64_t entries;

	(void)index;
	if (!vcpus_faulted())
		return;
	vcpu = vcpu_current();
	if (!vcpu || !vcpu->faulted || site_pc(site) != vcpu->vector)
		return;
	vcpu_set_faulted(vcpu, false);

	vcpu->abort.vttbr = reg_read(REG_VTTBR_EL2);
	vcpu->abort.hcr = reg_read(REG_HCR_EL2);
	entries = vcpu->pe.entries;
	memory = interceptor.memory;
	memory.big_endian = reg_read(REG_SCTLR_EL2) & SCTLR_EE;
	if (regs_failed())
		report_anomaly(vcpu, ANOMALY_REGISTER_UNREADABLE, 0);
	else if (hcr_in_guest(vcpu->abort.hcr))
		verdict = pe_dirty_update(&vcpu->pe, &memory, interceptor.trace, &vcpu->abort);
	if (vcpu->pe.entries > entries && !vcpu->appended) {
		vcpu->appended = true;
		watch_buffer(vcpu, WATCH_APPENDED, vcpu->abort.elr);
	}

	if (verdict == VERDICT_RETRY) {
		vcpu->retrying = true;
		qemu_plugin_set_pc(vcpu->eret_pc);
	}
	vcpu->hdbssf = verdict == VERDICT_REFUSED;
	record_exit(vcpu, vcpu->vector);
}

/* HINT #127, the marker of the agent's program; in a guest it is just a NOP */
void on_hint(unsigned int index, void *site)
{
	struct vcpu *vcpu = vcpu_current();

	(void)index;
	(void)site;
	if (vcpu && !vcpu->in_guest)
		trace_record(interceptor.trace, TRACE_MARK, vcpu->pe.index, 0, reg_read_x(0));
}
