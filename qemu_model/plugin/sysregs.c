// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The registers of FEAT_HDBSS at EL2. An instruction callback comes before its
 * instruction, also before one that QEMU finds UNDEFINED; setting the PC skips
 * it. At EL1 and EL0 everything is left to QEMU, which makes it UNDEFINED.
 */
#include "decode.h"
#include "interceptor.h"
#include "regs.h"
#include "visibility.h"

/*
 * Those that QEMU has, compared with all of X0 as QEMU does. PSCI 0.1 leaves its
 * numbers to the platform; these are QEMU's.
 */
#define PSCI_CPU_OFF		0x84000002ull
#define PSCI_CPU_ON		0x84000003ull
#define PSCI_CPU_ON_64		0xc4000003ull
#define PSCI_SYSTEM_RESET	0x84000009ull
#define PSCI_0_1_CPU_OFF	0x95c1ba5full
#define PSCI_0_1_CPU_ON		0x95c1ba60ull

uint64_t site_pc(const void *site)
{
	uint64_t pc = reg_read(REG_PC);

	return pc + (((uintptr_t)site - pc) & 0xfff);
}

void report_anomaly(struct vcpu *vcpu, enum anomaly reason, uint64_t b)
{
	if (vcpu)
		vcpu->pe.anomalies++;
	trace_record(interceptor.trace, TRACE_ANOMALY, vcpu ? vcpu->pe.index : 0, 0, reason, b);
}

/*
 * The PE whose register this instruction accesses: NULL if it is not at EL2, or
 * not known. Either way QEMU goes on by itself.
 */
static struct vcpu *vcpu_accessing(void)
{
	struct vcpu *vcpu = vcpu_current();

	if (!vcpu_at_el2(vcpu))
		return NULL;
	if (!vcpu)
		report_anomaly(NULL, ANOMALY_UNKNOWN_PE, reg_read(REG_TPIDR_EL2));
	if (regs_failed())
		report_anomaly(vcpu, ANOMALY_REGISTER_UNREADABLE, 0);
	return vcpu;
}

static void deliver(struct vcpu *vcpu, const void *site, uint64_t value)
{
	uint32_t insn = site_insn(site);
	uint64_t pc = site_pc(site);

	reg_write_x(insn_rt(insn), value);
	if (vcpu)
		trace_record(interceptor.trace, TRACE_READ, vcpu->pe.index, 0, insn_sysreg(insn),
			     value, 0, pc);
	qemu_plugin_set_pc(pc + 4);
}

/* The PE stands still until the watcher has looked at the kernel's memory. */
static void watch(struct vcpu *vcpu, enum watch_kind kind, uint64_t hdbssbr, uint64_t pc)
{
	const struct watch_stop stop = {
		.seq = trace_next(interceptor.trace),
		.pc = pc,
		.hdbssbr = hdbssbr,
		.hdbssprod = vcpu->pe.hdbssprod,
		.vttbr = vcpu->entry_vttbr,
	};

	watch_tell(kind, vcpu->pe.index, &stop);
}

void watch_buffer(struct vcpu *vcpu, enum watch_kind kind, uint64_t pc)
{
	if (watch_active())
		watch(vcpu, kind, vcpu->pe.hdbssbr, pc);
}

/* Only of a buffer with which a guest was entered: without that it gave no right to anything. */
static void watch_withdrawal(struct vcpu *vcpu, uint32_t reg, uint64_t value, uint64_t pc)
{
	if (vcpu->entered && vcpu->entry_hdbssbr == vcpu->pe.hdbssbr &&
	    pe_withdraws(&vcpu->pe, reg, value))
		watch_buffer(vcpu, WATCH_WITHDRAWN, pc);
}

static void watch_flush(struct vcpu *vcpu, enum watch_kind kind, const void *site)
{
	watch(vcpu, kind, vcpu->entry_hdbssbr, site_pc(site));
}

/* Whether an access to this register concerns entries that a watcher wants to look after */
static bool watched_entries(const struct vcpu *vcpu, uint32_t reg)
{
	return reg == SYS_HDBSSPROD_EL2 && watch_active() && vcpu->entered &&
	       vcpu->pe.hdbssprod & HDBSSPROD_INDEX;
}

/* MRS of ID_AA64MMFR1_EL1, HDBSSBR_EL2, HDBSSPROD_EL2 and VTCR_EL2 */
void on_mrs(unsigned int index, void *site)
{
	uint32_t reg = insn_sysreg(site_insn(site));
	struct vcpu *vcpu;

	(void)index;
	if (reg == SYS_ID_AA64MMFR1_EL1) {
		vcpu = vcpu_current();
		/* The same on every PE: delivered even where the PE is not known. */
		if (vcpu_at_el2(vcpu))
			deliver(vcpu, site,
				(reg_read(REG_ID_AA64MMFR1_EL1) & ~ID_HAFDBS) | HAFDBS_HDBSS);
		return;
	}
	vcpu = vcpu_accessing();
	if (!vcpu)
		return;
	if (watched_entries(vcpu, reg))
		watch_flush(vcpu, WATCH_DRAIN_BEGINS, site);
	deliver(vcpu, site, reg == SYS_HDBSSPROD_EL2 ? visibility_prod(&vcpu->pe) :
						       *pe_register(&vcpu->pe, reg));
}

/* MSR HDBSSBR_EL2 and HDBSSPROD_EL2 */
void on_msr_hdbss(unsigned int index, void *site)
{
	uint32_t insn = site_insn(site), reg = insn_sysreg(insn);
	struct vcpu *vcpu;
	uint64_t value, held, pc;

	(void)index;
	vcpu = vcpu_accessing();
	if (!vcpu)
		return;
	value = reg_read_x(insn_rt(insn));
	/* Before the record: what begins after it cannot have changed what is seen now. */
	if (watched_entries(vcpu, reg) && !(value & HDBSSPROD_INDEX)) {
		watch_flush(vcpu, WATCH_FLUSH, site);
		vcpu->consumed = true;
	}
	pc = site_pc(site);
	watch_withdrawal(vcpu, reg, value, pc);
	held = pe_write(&vcpu->pe, reg, value);
	trace_record(interceptor.trace, TRACE_WRITE, vcpu->pe.index, 0, reg, value, held, pc);
	if (reg == SYS_HDBSSBR_EL2 && held & HDBSSBR_BADDR)
		watch_buffer(vcpu, WATCH_ANNOUNCED, pc);
	qemu_plugin_set_pc(pc + 4);
}

/*
 * MSR VTCR_EL2: QEMU executes it, but with HD=0 while HDBSS is or may be in effect. It
 * then takes a stage 2 Permission fault where a PE would append.
 */
void on_msr_vtcr(unsigned int index, void *site)
{
	unsigned int rt = insn_rt(site_insn(site));
	uint64_t value, seen;
	struct vcpu *vcpu;

	(void)index;
	vcpu = vcpu_accessing();
	if (!vcpu)
		return;
	vtcr_source_restore(vcpu);
	value = reg_read_x(rt);
	watch_withdrawal(vcpu, SYS_VTCR_EL2, value, site_pc(site));
	pe_write(&vcpu->pe, SYS_VTCR_EL2, value);
	trace_record(interceptor.trace, TRACE_WRITE, vcpu->pe.index, 0, SYS_VTCR_EL2, value, value,
		     site_pc(site));
	seen = vtcr_for_qemu(&vcpu->pe, value);
	if (seen == value)
		return;
	vcpu->restore = true;
	vcpu->restore_rt = rt;
	vcpu->restore_value = value;
	reg_write_x(rt, seen);
}

void vtcr_source_restore(struct vcpu *vcpu)
{
	if (!vcpu->restore)
		return;
	vcpu->restore = false;
	reg_write_x(vcpu->restore_rt, vcpu->restore_value);
}

/* The instruction that follows an MSR VTCR_EL2 in memory */
void on_after_msr_vtcr(unsigned int index, void *site)
{
	struct vcpu *vcpu = vcpu_current();

	(void)index;
	(void)site;
	if (vcpu)
		vtcr_source_restore(vcpu);
}

/* MRS of ESR_EL2, or of ESR_EL1 where that means ESR_EL2 (HCR_EL2.E2H) */
void on_mrs_esr(unsigned int index, void *site)
{
	uint32_t insn = site_insn(site);
	struct vcpu *vcpu = vcpu_current_with_hdbssf();
	uint64_t pc;

	(void)index;
	if (!vcpu || !vcpu_at_el2(vcpu))
		return;
	if (insn_sysreg(insn) == SYS_ESR_EL1 && !(reg_read(REG_HCR_EL2) & HCR_E2H))
		return;
	reg_write_x(insn_rt(insn), vcpu->abort.esr);
	pc = site_pc(site);
	qemu_plugin_set_pc(pc + 4);
}

/* MSR to the same: what software writes replaces what the abort left there */
void on_msr_esr(unsigned int index, void *site)
{
	struct vcpu *vcpu = vcpu_current_with_hdbssf();

	(void)index;
	if (!vcpu || !vcpu_at_el2(vcpu))
		return;
	if (insn_sysreg(site_insn(site)) == SYS_ESR_EL1 && !(reg_read(REG_HCR_EL2) & HCR_E2H))
		return;
	vcpu->hdbssf = false;
}

void on_msr_tpidr(unsigned int index, void *site)
{
	(void)index;
	vcpu_tpidr_written(reg_read_x(insn_rt(site_insn(site))));
}

/* A RET of the function that completes a flush, where the user has named one */
void on_flush_return(unsigned int index, void *site)
{
	struct vcpu *vcpu = vcpu_current();

	(void)index;
	if (!vcpu || !vcpu->consumed || !watch_active() || !vcpu_at_el2(vcpu))
		return;
	vcpu->consumed = false;
	watch_flush(vcpu, WATCH_RETURNED, site);
}

/*
 * SMC, QEMU's conduit of PSCI. A PE that switches itself off executes nothing
 * more until it is switched on and comes out of reset, so its reset is now. The
 * others, when one PE resets all, see to it themselves.
 */
void on_smc(unsigned int index, void *site)
{
	struct vcpu *vcpu = vcpu_current();

	(void)index;
	(void)site;
	/* UNDEFINED at EL0; at EL1 it may be trapped to EL2. */
	if (!vcpu_at_el2(vcpu) && (reg_current_el() != 1 || reg_read(REG_HCR_EL2) & HCR_TSC))
		return;
	switch (reg_read_x(0)) {
	case PSCI_CPU_ON:
	case PSCI_CPU_ON_64:
	case PSCI_0_1_CPU_ON:
		vcpu_switched_on(reg_read_x(1));
		break;
	case PSCI_CPU_OFF:
	case PSCI_0_1_CPU_OFF:
		if (vcpu)
			vcpu_reset(vcpu);
		break;
	case PSCI_SYSTEM_RESET:
		/* With -no-reboot the machine ends here and nobody sees the difference. */
		vcpus_reset();
		break;
	}
}
