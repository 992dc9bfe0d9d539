/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtual machine: its slots, its vCPUs and the payload's own memory. */
#ifndef AGENT_VM_H
#define AGENT_VM_H

#include <stdbool.h>
#include <stdint.h>

#include "grammar_limits.h"
#include "program.h"
#include "slot.h"
#include "vcpu.h"

#define CODE_SLOT 511u
#define CODE_GPA 0x10000000ULL
#define DOOR_GPA 0x0f000000ULL		/* no memslot: a store here ends a payload */
#define DOOR_EXCEPTION_GPA (DOOR_GPA + 8)	/* the payload took an exception */
#define STUCK_LIMIT_MS 500u

struct vm {
	int kvm;		/* /dev/kvm, -1 = not opened */
	int fd;			/* -1 = no VM */
	enum dirty_mode dirty;
	uint64_t hdbss_cap;	/* of the line `uapi`, 0 = none */
	bool stuck;		/* the last wait for the guest ran out of its limit */
	void *code;		/* memory of CODE_SLOT */
	struct slot slots[NR_SLOTS];
	struct vcpu vcpus[NR_VCPUS];
};

void vm_init(struct vm *vm);
int vm_create(struct vm *vm, enum dirty_mode dirty, const char **why);

/*
 * What is left of a limit in ms: a guest that got nowhere for all of one has
 * little of the next, until it gets somewhere.
 */
static inline uint64_t vm_patience(const struct vm *vm, uint64_t limit_ms)
{
	return vm->stuck && limit_ms > STUCK_LIMIT_MS ? STUCK_LIMIT_MS : limit_ms;
}

/* How long an operation may take by its own words, in ms: `wait` by those of `start`. */
static inline uint64_t vm_limit(const struct vm *vm, const struct op *op)
{
	if (op->spec->id == OP_WAIT && !op_given(op, "limit"))
		return vm->vcpus[op_value(op, "vcpu")].limit_ms;
	return op_value(op, "limit") + op_value(op, "ms");
}

/* Stop and close everything. -1 ETIMEDOUT: a vCPU did not leave KVM_RUN. */
int vm_destroy(struct vm *vm, const char **why);

int vm_enable_cap(struct vm *vm, uint64_t cap, uint32_t flags, const uint64_t args[4],
		  const char **why);
int vm_check_cap(struct vm *vm, uint64_t cap, const char **why);

#endif
