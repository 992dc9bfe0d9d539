// SPDX-License-Identifier: GPL-2.0-or-later
#include <stdlib.h>

#include "regs.h"
#include "vcpu.h"

static struct vcpu *vcpus;
static unsigned int nr_vcpus;
static struct trace *reset_trace;
static atomic_uint nr_faulted;
static atomic_bool round_robin;	/* one host thread runs several vCPUs */
static __thread struct vcpu *own;	/* not in round-robin mode */
static bool doubtful;		/* round-robin mode: somebody could not be told apart */

bool vcpus_init(unsigned int count, struct trace *trace)
{
	unsigned int i;

	vcpus = calloc(count, sizeof(*vcpus));
	if (!vcpus)
		return false;
	nr_vcpus = count;
	reset_trace = trace;
	vcpus[0].on = true;
	for (i = 0; i < count; i++)
		vcpus[i].pe.index = i;
	return true;
}

unsigned int vcpus_count(void)
{
	return nr_vcpus;
}

struct vcpu *vcpu_at(unsigned int index)
{
	return index < nr_vcpus ? &vcpus[index] : NULL;
}

void vcpu_bind(unsigned int index)
{
	if (own && own != &vcpus[index])
		atomic_store(&round_robin, true);
	own = &vcpus[index];
}

static struct vcpu *vcpu_by_tpidr(uint64_t tpidr)
{
	struct vcpu *known = NULL, *fresh = NULL;
	unsigned int nr_known = 0, nr_fresh = 0, i;

	for (i = 0; i < nr_vcpus; i++) {
		struct vcpu *vcpu = &vcpus[i];

		if (vcpu->tpidr_known && vcpu->tpidr == tpidr) {
			known = vcpu;
			nr_known++;
		} else if (vcpu->on && !vcpu->tpidr_known) {
			fresh = vcpu;
			nr_fresh++;
		}
	}
	/* 0, the value after reset, is also that of a PE that has just come up. */
	if (nr_known == 1 && (tpidr || !nr_fresh))
		return known;
	if (!nr_known && nr_fresh == 1)
		return fresh;
	doubtful = true;
	return NULL;
}

struct vcpu *vcpu_current(void)
{
	unsigned int i;

	if (!atomic_load_explicit(&round_robin, memory_order_relaxed)) {
		vcpu_reset_if_pending(own);
		return own;
	}
	/* This is the thread of all of them, and TPIDR_EL2 of a PE that was reset is new. */
	for (i = 0; i < nr_vcpus; i++)
		vcpu_reset_if_pending(&vcpus[i]);
	return vcpu_by_tpidr(reg_read(REG_TPIDR_EL2));
}

struct vcpu *vcpu_current_with_hdbssf(void)
{
	unsigned int i;

	if (!atomic_load_explicit(&round_robin, memory_order_relaxed)) {
		vcpu_reset_if_pending(own);
		return own->hdbssf ? own : NULL;
	}
	for (i = 0; i < nr_vcpus; i++)
		if (vcpus[i].hdbssf) {
			struct vcpu *vcpu = vcpu_current();

			return vcpu && vcpu->hdbssf ? vcpu : NULL;
		}
	return NULL;
}

bool vcpu_at_el2(const struct vcpu *vcpu)
{
	return !(vcpu && (vcpu->in_guest || vcpu->in_aarch32)) && reg_current_el() == 2;
}

static void vcpu_set_tpidr(struct vcpu *vcpu, uint64_t value)
{
	vcpu->on = true;
	vcpu->tpidr = value;
	vcpu->tpidr_known = true;
}

void vcpu_learn(struct vcpu *vcpu)
{
	/* What is known stays right, because every write to TPIDR_EL2 is seen. */
	if (atomic_load_explicit(&round_robin, memory_order_relaxed) &&
	    (!vcpu->tpidr_known || doubtful))
		vcpu_set_tpidr(vcpu, reg_read(REG_TPIDR_EL2));
}

void vcpu_tpidr_written(uint64_t value)
{
	struct vcpu *vcpu;

	if (!atomic_load_explicit(&round_robin, memory_order_relaxed))
		return;
	vcpu = vcpu_current();
	if (vcpu && vcpu_at_el2(vcpu))
		vcpu_set_tpidr(vcpu, value);
}

void vcpu_switched_on(uint64_t affinity)
{
	uint64_t index = (affinity >> 8) * 16 + (affinity & 15);

	if (atomic_load_explicit(&round_robin, memory_order_relaxed) && !(affinity & 0xf0) &&
	    index < nr_vcpus)
		vcpus[index].on = true;
}

void vcpu_set_faulted(struct vcpu *vcpu, bool faulted)
{
	if (vcpu->faulted == faulted)
		return;
	vcpu->faulted = faulted;
	if (faulted)
		atomic_fetch_add(&nr_faulted, 1);
	else
		atomic_fetch_sub(&nr_faulted, 1);
}

bool vcpus_faulted(void)
{
	return atomic_load_explicit(&nr_faulted, memory_order_relaxed);
}

void vcpu_reset_registers(struct vcpu *vcpu, uint64_t vtcr, struct trace *trace)
{
	const struct injection *injection;
	struct pe *pe = &vcpu->pe;

	pe_reset(pe, vtcr);
	injection = pe_inject_unknown(pe);
	if (injection)
		trace_record(trace, TRACE_INJECT, pe->index, 0, injection->what, 0,
			     inject_number(pe->injector, injection), pe->hdbssprod);
	trace_record(trace, TRACE_RESET, pe->index, 0, pe->hdbssbr, pe->hdbssprod, pe->vtcr);
	vcpu->entered = false;
}

void vcpu_reset(struct vcpu *vcpu)
{
	vcpu->in_guest = false;
	vcpu->in_aarch32 = false;
	vcpu->hdbssf = false;
	vcpu->consumed = false;
	vcpu->eret_known = false;
	vcpu->retrying = false;
	vcpu_set_faulted(vcpu, false);
	vcpu->restore = false;
	vcpu->on = false;
	vcpu->tpidr_known = false;
	vcpu_reset_registers(vcpu, 0, reset_trace);
}

void vcpus_reset(void)
{
	unsigned int i;

	for (i = 0; i < nr_vcpus; i++)
		atomic_store(&vcpus[i].reset_pending, true);
}

void vcpu_reset_if_pending(struct vcpu *vcpu)
{
	if (!atomic_load_explicit(&vcpu->reset_pending, memory_order_relaxed) ||
	    !atomic_exchange(&vcpu->reset_pending, false))
		return;
	vcpu_reset(vcpu);
	vcpu->on = vcpu->pe.index == 0;		/* the others wait for CPU_ON */
}
