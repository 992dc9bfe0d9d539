/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One QEMU vCPU: the PE that it is, and what the interceptor has to remember
 * between two callbacks. Only the vCPU's own thread touches it, but for
 * reset_pending.
 */
#ifndef HDBSS_VCPU_H
#define HDBSS_VCPU_H

#include <stdatomic.h>

#include "append.h"
#include "pe.h"
#include "trace.h"

struct vcpu {
	struct pe pe;

	atomic_bool reset_pending;	/* the machine was reset, by any PE */

	bool in_guest;		/* at EL1/EL0 under stage 2 */
	bool in_aarch32;	/* below EL2, and not under stage 2: a program of the host */
	bool hdbssf;		/* ESR_EL2 is abort.esr, with HDBSSF; QEMU's copy has none */

	/* An ERET that has entered a guest here: where an access is retried from. */
	uint64_t eret_pc;
	bool eret_known;
	bool eret_is_plain;
	bool retrying;		/* on the way to that ERET: transparent to software */

	/* With what it entered the guest last; entries were consumed since the last return. */
	bool entered;		/* a guest, since its reset */
	uint64_t entry_hdbssbr;
	uint64_t entry_vttbr;
	bool appended;		/* since then */
	bool consumed;

	/* A fault to decide on at the first instruction of its vector. */
	bool faulted;		/* changed by vcpu_set_faulted() only */
	uint64_t vector;
	struct abort abort;

	/* MSR VTCR_EL2 is using a changed source register. */
	bool restore;
	unsigned int restore_rt;
	uint64_t restore_value;

	/* Round-robin mode only: see vcpu_current(). */
	bool on;
	uint64_t tpidr;
	bool tpidr_known;
};

/* Space for @count vCPUs, whose resets go to @trace; false if there is no memory. */
bool vcpus_init(unsigned int count, struct trace *trace);
unsigned int vcpus_count(void);
struct vcpu *vcpu_at(unsigned int index);

/* In the vCPU's init callback: remember which host thread runs it. */
void vcpu_bind(unsigned int index);

/*
 * The vCPU that executes this instruction callback, or NULL if that is not
 * known. The index that QEMU passes there must not be used: in round-robin mode
 * translated blocks are shared, and with them the index of whoever came first.
 * So there TPIDR_EL2 tells; software gives every PE a value of its own. Before
 * it has done so, a PE is known when it is the only such PE that is on.
 */
struct vcpu *vcpu_current(void);

/* The same, but NULL unless it has HDBSSF to deliver: mostly without asking QEMU. */
struct vcpu *vcpu_current_with_hdbssf(void);

/*
 * Whether an instruction callback is at EL2; vcpu is who executes it, or NULL. In a
 * guest, or in AArch32, PSTATE is not asked: in AArch32 it is still that of EL2.
 */
bool vcpu_at_el2(const struct vcpu *vcpu);

/* In a discontinuity callback, where the index is right: learn TPIDR_EL2. */
void vcpu_learn(struct vcpu *vcpu);

/* In the callback of MSR TPIDR_EL2: the current vCPU is about to write it. */
void vcpu_tpidr_written(uint64_t value);

/* PSCI CPU_ON of the PE with this MPIDR_EL1 affinity, as machine "virt" gives them. */
void vcpu_switched_on(uint64_t affinity);

/* Remember that there is a fault to decide on, or forget it. */
void vcpu_set_faulted(struct vcpu *vcpu, bool faulted);

/* Whether any vCPU has such a fault: mostly not. */
bool vcpus_faulted(void);

/* The PE comes out of reset, with this VTCR_EL2 or UNKNOWN registers: writes RESET. */
void vcpu_reset_registers(struct vcpu *vcpu, uint64_t vtcr, struct trace *trace);

/*
 * The PE is reset, and off: nothing of the past holds. VTCR_EL2 becomes 0, as in
 * QEMU. Writes the RESET record.
 */
void vcpu_reset(struct vcpu *vcpu);

/*
 * The machine is reset: each PE is, at the beginning of the next callback in its
 * own thread. vcpu_current() sees to that; who has a vCPU by its index calls
 * vcpu_reset_if_pending() first.
 */
void vcpus_reset(void);
void vcpu_reset_if_pending(struct vcpu *vcpu);

#endif
