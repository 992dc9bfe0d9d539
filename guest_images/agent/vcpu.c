// SPDX-License-Identifier: GPL-2.0-or-later
#include "vcpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clock.h"
#include "vm.h"

#define KICK_LIMIT_MS 10000u
#define STACK_BYTES (128u << 10)

#define CORE_REG(field) \
	(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | \
	 (offsetof(struct kvm_regs, field) / sizeof(uint32_t)))
#define X_REG(n) (CORE_REG(regs.regs[0]) + 2ULL * (n))
#define SYS_REG(crn, crm, op2) ARM64_SYS_REG(3, 0, crn, crm, op2)
#define PSTATE_EL1H_MASKED 0x3c5ULL	/* DAIF set, EL1h */

static void on_kick(int sig)
{
	(void)sig;
}

void vcpu_signal_setup(void)
{
	struct sigaction sa = { .sa_handler = on_kick };	/* no SA_RESTART */

	sigaction(SIGUSR1, &sa, NULL);
}

void vcpu_init(struct vcpu *v)
{
	pthread_condattr_t attr;

	memset(v, 0, sizeof(*v));
	v->fd = -1;
	pthread_mutex_init(&v->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&v->cond, &attr);
	pthread_condattr_destroy(&attr);
}

static int set_reg(const struct vcpu *v, uint64_t id, uint64_t value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)&value };

	return ioctl(v->fd, KVM_SET_ONE_REG, &reg);
}

static uint64_t get_reg(const struct vcpu *v, uint64_t id)
{
	uint64_t value = 0;
	struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)&value };

	ioctl(v->fd, KVM_GET_ONE_REG, &reg);
	return value;
}

static int load_payload(const struct vcpu *v)
{
	for (unsigned int i = 0; i < PAYLOAD_NR_REGS; i++)
		if (set_reg(v, X_REG(i), v->payload.x[i]) < 0)
			return -1;
	/* What an earlier payload left must not count, should this one not begin. */
	if (set_reg(v, X_REG(PAYLOAD_PASSES_REG), 0) < 0 ||
	    set_reg(v, CORE_REG(regs.pstate), PSTATE_EL1H_MASKED) < 0)
		return -1;
	return set_reg(v, CORE_REG(regs.pc), v->payload.pc);
}

/*
 * KVM completes an MMIO access at the next KVM_RUN, by advancing the PC. Let
 * it do so without entering the guest, before anybody sets the PC.
 */
static void complete_mmio(struct vcpu *v)
{
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	ioctl(v->fd, KVM_RUN, 0);
}

/* True when the payload is over; else the access is one to go on from. */
static bool mmio_ends(struct vcpu *v, struct outcome *o)
{
	struct kvm_run *run = v->run;
	uint64_t gpa = run->mmio.phys_addr;

	if (run->mmio.is_write && gpa == DOOR_GPA) {
		o->exit = EXIT_DOOR;
		return true;
	}
	if (run->mmio.is_write && gpa == DOOR_EXCEPTION_GPA) {
		o->exit = EXIT_ERROR;
		o->err = EFAULT;
		o->error = "guest-exception";
		o->esr = get_reg(v, SYS_REG(5, 2, 0));
		o->far = get_reg(v, SYS_REG(6, 0, 0));
		o->elr = get_reg(v, CORE_REG(elr_el1));
		return true;
	}
	/* As a VMM with no device there: writes are ignored, reads are zero. */
	if (o->mmio++ == 0)
		o->mmio_gpa = gpa;
	memset(run->mmio.data, 0, sizeof(run->mmio.data));
	return false;
}

static void run_payload(struct vcpu *v, struct outcome *o)
{
	bool over = false;

	memset(o, 0, sizeof(*o));
	o->exit = EXIT_ERROR;
	if (load_payload(v) < 0) {
		o->err = errno;
		o->error = "set-registers";
		return;
	}
	while (!over) {
		int ret = ioctl(v->fd, KVM_RUN, 0);
		int err = ret < 0 ? errno : 0;

		o->reason = v->run->exit_reason;
		if (err == EINTR) {
			over = __atomic_load_n(&v->stop, __ATOMIC_SEQ_CST);
			if (over)
				o->exit = EXIT_INTERRUPTED;
		} else if (err || o->reason != KVM_EXIT_MMIO) {
			o->err = err;
			o->error = err ? "kvm-run" : "unexpected-exit";
			over = true;
		} else if (mmio_ends(v, o)) {
			complete_mmio(v);
			over = true;
		}
	}
	o->passes = get_reg(v, X_REG(PAYLOAD_PASSES_REG));
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;
	struct outcome o;

	pthread_mutex_lock(&v->lock);
	while (!v->quit) {
		if (v->state != VCPU_BUSY) {
			pthread_cond_wait(&v->cond, &v->lock);
			continue;
		}
		pthread_mutex_unlock(&v->lock);
		run_payload(v, &o);
		pthread_mutex_lock(&v->lock);
		v->outcome = o;
		v->state = VCPU_DONE;
		pthread_cond_broadcast(&v->cond);
	}
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

static int setup_vcpu(struct vm *vm, struct vcpu *v)
{
	struct kvm_vcpu_init init;
	pthread_attr_t attr;
	void *run;
	int ret = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

	if (ret < 0)
		return -1;
	v->run_bytes = (size_t)ret;
	run = mmap(NULL, v->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (run == MAP_FAILED)
		return -1;
	v->run = run;
	memset(&init, 0, sizeof(init));
	if (ioctl(vm->fd, KVM_ARM_PREFERRED_TARGET, &init) < 0 ||
	    ioctl(v->fd, KVM_ARM_VCPU_INIT, &init) < 0)
		return -1;
	v->stop = v->quit = false;
	v->state = VCPU_IDLE;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	ret = pthread_create(&v->thread, &attr, vcpu_thread, v);
	pthread_attr_destroy(&attr);
	if (ret == 0)
		return 0;
	v->state = VCPU_ABSENT;
	errno = ret;
	return -1;
}

static void close_vcpu(struct vcpu *v)
{
	int saved = errno;

	if (v->run)
		munmap(v->run, v->run_bytes);
	close(v->fd);
	v->run = NULL;
	v->fd = -1;
	v->state = VCPU_ABSENT;
	errno = saved;
}

int vcpu_create(struct vm *vm, unsigned int nr, const char **why)
{
	struct vcpu *v = &vm->vcpus[nr];

	if (vm->fd < 0 || v->state != VCPU_ABSENT) {
		*why = vm->fd < 0 ? "no-vm" : "vcpu-exists";
		errno = vm->fd < 0 ? EINVAL : EEXIST;
		return -1;
	}
	v->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)nr);
	if (v->fd < 0)
		return -1;
	if (setup_vcpu(vm, v) == 0)
		return 0;
	*why = "vcpu-setup";
	close_vcpu(v);
	return -1;
}

int vcpu_start(struct vcpu *v, const struct payload *p, uint64_t limit_ms, const char **why)
{
	int err = 0;

	pthread_mutex_lock(&v->lock);
	if (v->state == VCPU_IDLE) {
		v->payload = *p;
		v->limit_ms = limit_ms;
		v->stop = false;
		v->run->immediate_exit = 0;
		v->state = VCPU_BUSY;
		pthread_cond_broadcast(&v->cond);
	} else {
		*why = v->state == VCPU_ABSENT ? "no-vcpu" : "vcpu-started";
		err = v->state == VCPU_ABSENT ? EINVAL : EBUSY;
	}
	pthread_mutex_unlock(&v->lock);
	errno = err;
	return err ? -1 : 0;
}

/* Under the lock: wait until the vCPU is not busy; false when time is up. */
static bool wait_not_busy(struct vcpu *v, uint64_t limit_ms)
{
	struct timespec until = clock_timespec(clock_ns() + limit_ms * 1000000u);

	while (v->state == VCPU_BUSY)
		if (pthread_cond_timedwait(&v->cond, &v->lock, &until) == ETIMEDOUT)
			return v->state != VCPU_BUSY;
	return true;
}

/* Under the lock. */
static bool kick(struct vcpu *v)
{
	if (v->state == VCPU_BUSY) {
		__atomic_store_n(&v->stop, true, __ATOMIC_SEQ_CST);
		__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		pthread_kill(v->thread, SIGUSR1);
	}
	return wait_not_busy(v, KICK_LIMIT_MS);
}

static int collect(struct vcpu *v, bool stop, uint64_t limit_ms, struct outcome *o,
		   const char **why)
{
	bool in_time = true;
	int err = 0;

	pthread_mutex_lock(&v->lock);
	if (v->state == VCPU_ABSENT || v->state == VCPU_IDLE) {
		*why = v->state == VCPU_ABSENT ? "no-vcpu" : "not-started";
		err = EINVAL;
	} else {
		if (!stop)
			in_time = wait_not_busy(v, limit_ms);
		if (!kick(v)) {
			*why = "vcpu-stuck";
			err = ETIMEDOUT;
		} else {
			*o = v->outcome;
			v->state = VCPU_IDLE;
			if (!in_time && o->exit == EXIT_INTERRUPTED) {
				o->exit = EXIT_TIMEOUT;
				o->err = ETIMEDOUT;
			}
		}
	}
	pthread_mutex_unlock(&v->lock);
	errno = err;
	return err ? -1 : 0;
}

int vcpu_wait(struct vcpu *v, uint64_t limit_ms, struct outcome *o, const char **why)
{
	return collect(v, false, limit_ms, o, why);
}

int vcpu_stop(struct vcpu *v, struct outcome *o, const char **why)
{
	return collect(v, true, 0, o, why);
}

int vcpu_pin(struct vcpu *v, unsigned int cpu, bool fifo, const char **why)
{
	struct sched_param param = { .sched_priority = fifo ? 1 : 0 };
	cpu_set_t set;
	int err;

	if (v->state == VCPU_ABSENT) {
		*why = "no-vcpu";
		errno = EINVAL;
		return -1;
	}
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	err = pthread_setaffinity_np(v->thread, sizeof(set), &set);
	if (!err)
		err = pthread_setschedparam(v->thread, fifo ? SCHED_FIFO : SCHED_OTHER, &param);
	errno = err;
	return err ? -1 : 0;
}

int vcpu_destroy(struct vcpu *v)
{
	struct timespec until;
	bool left;

	pthread_mutex_lock(&v->lock);
	left = v->state == VCPU_ABSENT || kick(v);
	v->quit = true;
	pthread_cond_broadcast(&v->cond);
	pthread_mutex_unlock(&v->lock);
	if (v->state == VCPU_ABSENT)
		return 0;
	/* pthread_timedjoin_np() wants CLOCK_REALTIME; the clock variant does not. */
	until = clock_timespec(clock_ns() + KICK_LIMIT_MS * 1000000ULL);
	if (!left || pthread_clockjoin_np(v->thread, NULL, CLOCK_MONOTONIC, &until) != 0)
		return -1;
	close_vcpu(v);
	return 0;
}

const char *vcpu_reason_name(uint32_t reason)
{
	static const struct {
		uint32_t reason;
		const char *name;
	} names[] = {
		{ KVM_EXIT_UNKNOWN, "KVM_EXIT_UNKNOWN" },
		{ KVM_EXIT_HYPERCALL, "KVM_EXIT_HYPERCALL" },
		{ KVM_EXIT_DEBUG, "KVM_EXIT_DEBUG" },
		{ KVM_EXIT_MMIO, "KVM_EXIT_MMIO" },
		{ KVM_EXIT_SHUTDOWN, "KVM_EXIT_SHUTDOWN" },
		{ KVM_EXIT_FAIL_ENTRY, "KVM_EXIT_FAIL_ENTRY" },
		{ KVM_EXIT_INTR, "KVM_EXIT_INTR" },
		{ KVM_EXIT_INTERNAL_ERROR, "KVM_EXIT_INTERNAL_ERROR" },
		{ KVM_EXIT_SYSTEM_EVENT, "KVM_EXIT_SYSTEM_EVENT" },
		{ KVM_EXIT_ARM_NISV, "KVM_EXIT_ARM_NISV" },
		{ KVM_EXIT_DIRTY_RING_FULL, "KVM_EXIT_DIRTY_RING_FULL" },
		{ 39, "KVM_EXIT_MEMORY_FAULT" },	/* newer than our headers */
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].reason == reason)
			return names[i].name;
	return NULL;
}
