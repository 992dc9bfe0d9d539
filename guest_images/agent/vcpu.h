/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A vCPU and the thread that runs it. */
#ifndef AGENT_VCPU_H
#define AGENT_VCPU_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "payload.h"

struct vm;
struct kvm_run;

enum vcpu_state {
	VCPU_ABSENT,
	VCPU_IDLE,	/* waits for a payload */
	VCPU_BUSY,	/* in KVM_RUN or about to be */
	VCPU_DONE,	/* has an outcome that nobody has collected yet */
};

enum vcpu_exit { EXIT_DOOR, EXIT_INTERRUPTED, EXIT_ERROR, EXIT_TIMEOUT };

/* How a payload ended. */
struct outcome {
	enum vcpu_exit exit;
	int err;		/* errno of KVM_RUN, or what the exit amounts to */
	const char *error;	/* the agent's word for it, or NULL */
	uint32_t reason;	/* the last KVM_EXIT_* */
	uint64_t esr, far, elr;	/* of the guest's exception, else 0 */
	uint64_t passes;	/* completed */
	uint64_t mmio;		/* accesses to addresses without (writable) memory */
	uint64_t mmio_gpa;	/* the first of them */
};

struct vcpu {
	enum vcpu_state state;	/* this and what follows under lock */
	bool stop, quit;
	struct payload payload;
	struct outcome outcome;
	uint64_t limit_ms;

	int fd;
	struct kvm_run *run;
	size_t run_bytes;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
};

void vcpu_init(struct vcpu *v);
int vcpu_create(struct vm *vm, unsigned int nr, const char **why);

/* Hand a payload to the vCPU's thread; -1 EBUSY/EINVAL. */
int vcpu_start(struct vcpu *v, const struct payload *p, uint64_t limit_ms, const char **why);

/*
 * Wait for the end of the payload, at most limit_ms, then kick it out
 * (EXIT_TIMEOUT). -1: there was nothing to wait for (EINVAL), or the vCPU did
 * not even leave KVM_RUN when kicked (ETIMEDOUT; it stays busy).
 */
int vcpu_wait(struct vcpu *v, uint64_t limit_ms, struct outcome *o, const char **why);

/* Kick the vCPU out of KVM_RUN and collect the outcome. */
int vcpu_stop(struct vcpu *v, struct outcome *o, const char **why);

/* Bind the vCPU's thread to a CPU; fifo: SCHED_FIFO, so that it is not preempted there. */
int vcpu_pin(struct vcpu *v, unsigned int cpu, bool fifo, const char **why);

/* Stop, join, close. 0 also when there is no such vCPU; -1: it is stuck. */
int vcpu_destroy(struct vcpu *v);

/* The signal that interrupts KVM_RUN; called once. */
void vcpu_signal_setup(void);

const char *vcpu_reason_name(uint32_t reason);

/* Whether a payload is going on; *failed: one has ended with an error, uncollected. */
static inline bool vcpu_busy(struct vcpu *v, bool *failed)
{
	bool busy;

	pthread_mutex_lock(&v->lock);
	busy = v->state == VCPU_BUSY;
	*failed |= v->state == VCPU_DONE && v->outcome.exit == EXIT_ERROR;
	pthread_mutex_unlock(&v->lock);
	return busy;
}

#endif
