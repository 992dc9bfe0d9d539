/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FEAT_HDBSS by interception: sysregs.c gives the PEs the registers, guest.c
 * gives stage 2 faults the meaning that they have with HDBSS, plugin.c connects
 * both to QEMU.
 */
#ifndef HDBSS_INTERCEPTOR_H
#define HDBSS_INTERCEPTOR_H

#include "qemu_api.h"
#include "ram.h"
#include "trace.h"
#include "vcpu.h"
#include "watch.h"

struct interceptor {
	struct ram ram;
	struct memory memory;
	struct trace *trace;	/* NULL: none is wanted */
	struct choices choices;
	struct injector injector;
};

extern struct interceptor interceptor;

/* What a callback at one instruction gets from translation, in a pointer's bits. */
static inline void *site_pack(uint32_t insn, uint64_t vaddr)
{
	return (void *)(uintptr_t)((uint64_t)insn << 12 | (vaddr & 0xfff));
}

static inline uint32_t site_insn(const void *site)
{
	return (uint32_t)((uintptr_t)site >> 12);
}

/*
 * Address of the instruction. The address at translation may be another one: a
 * block is shared between all mappings of its page. QEMU's PC is that of an
 * earlier instruction of the block, and blocks are shorter than a page.
 */
uint64_t site_pc(const void *site);

/* Write an ANOMALY record; vcpu may be NULL. */
void report_anomaly(struct vcpu *vcpu, enum anomaly reason, uint64_t b);

/* sysregs.c: callbacks by instruction; see there for what each does */
void on_mrs(unsigned int index, void *site);
void on_mrs_esr(unsigned int index, void *site);
void on_msr_esr(unsigned int index, void *site);
void on_msr_hdbss(unsigned int index, void *site);
void on_msr_vtcr(unsigned int index, void *site);
void on_after_msr_vtcr(unsigned int index, void *site);
void on_msr_tpidr(unsigned int index, void *site);
void on_smc(unsigned int index, void *site);
void on_flush_return(unsigned int index, void *site);

/* Let the watcher, if there is one, look at the buffer that HDBSSBR_EL2 names now. */
void watch_buffer(struct vcpu *vcpu, enum watch_kind kind, uint64_t pc);

/* Give Xt of an MSR VTCR_EL2 its value back, if that is still to be done. */
void vtcr_source_restore(struct vcpu *vcpu);

/* guest.c */
void on_eret(unsigned int index, void *site);
void on_vector(unsigned int index, void *site);
void on_dsb(unsigned int index, void *site);
void on_isb(unsigned int index, void *site);
void on_tlbi(unsigned int index, void *site);
void on_hint(unsigned int index, void *site);
void on_discontinuity(unsigned int index, enum qemu_plugin_discon_type type, uint64_t from_pc,
		      uint64_t to_pc, void *userdata);

#endif
