// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who executes an instruction, in both of QEMU's modes, and who is reset.
 * argv[1]: directory for files, which test_host.py reads again with trace.py.
 */
#include <pthread.h>

#include "regs.h"
#include "unit.h"
#include "vcpu.h"

static uint64_t tpidr;
static unsigned int reads;

uint64_t reg_read(enum reg reg)
{
	EXPECT_EQUAL(reg, REG_TPIDR_EL2);
	reads++;
	return tpidr;
}

/* The PSTATE of a guest or a program in AArch32 looks like this; nobody may ask. */
unsigned int reg_current_el(void)
{
	return 2;
}

static void at_el2(void)
{
	struct vcpu vcpu = { 0 };

	EXPECT(vcpu_at_el2(&vcpu));
	EXPECT(vcpu_at_el2(NULL));
	vcpu.in_guest = true;
	EXPECT(!vcpu_at_el2(&vcpu));
	vcpu.in_guest = false;
	vcpu.in_aarch32 = true;
	EXPECT(!vcpu_at_el2(&vcpu));
}

static int current_is(uint64_t value)
{
	struct vcpu *vcpu;

	tpidr = value;
	vcpu = vcpu_current();
	return vcpu ? (int)vcpu->pe.index : -1;
}

static void *thread_of_vcpu(void *index)
{
	vcpu_bind((unsigned int)(uintptr_t)index);
	EXPECT_EQUAL(current_is(0), (uintptr_t)index);
	vcpu_switched_on(2);	/* no effect in this mode */
	vcpu_learn(vcpu_at((unsigned int)(uintptr_t)index));
	EXPECT_EQUAL(current_is(99), (uintptr_t)index);
	return NULL;
}

static void multi_threaded(void)
{
	uintptr_t i;

	for (i = 0; i < 3; i++) {
		pthread_t id;

		pthread_create(&id, NULL, thread_of_vcpu, (void *)i);
		pthread_join(id, NULL);
	}
}

/* Where there is only a thread's own vCPU: everybody is reset, by himself. */
static void *reset_of_second(void *unused)
{
	struct vcpu *vcpu = vcpu_at(1);

	(void)unused;
	vcpu_bind(1);
	vcpu->pe.hdbssbr = 0x51000;
	vcpu->hdbssf = true;
	EXPECT(vcpu_current_with_hdbssf() == vcpu);
	vcpus_reset();
	EXPECT(!vcpu_current_with_hdbssf());
	EXPECT_EQUAL(vcpu->pe.hdbssbr, 0);
	/* and only once */
	vcpu->pe.hdbssbr = 0x52000;
	EXPECT_EQUAL(current_is(0), 1);
	EXPECT_EQUAL(vcpu->pe.hdbssbr, 0x52000);
	return NULL;
}

static void reset_multi_threaded(void)
{
	struct vcpu *first = vcpu_at(0);
	pthread_t id;

	vcpu_bind(0);
	first->pe.hdbssbr = 0x50000;
	first->in_guest = true;
	EXPECT(!vcpus_faulted());
	vcpu_set_faulted(first, true);
	vcpu_set_faulted(first, true);
	pthread_create(&id, NULL, reset_of_second, NULL);
	pthread_join(id, NULL);
	/* the other one did not touch it */
	EXPECT_EQUAL(first->pe.hdbssbr, 0x50000);
	EXPECT(first->in_guest && first->faulted && vcpus_faulted());
	EXPECT_EQUAL(current_is(0), 0);
	EXPECT_EQUAL(first->pe.hdbssbr, 0);
	EXPECT(!first->in_guest && !first->faulted && !vcpus_faulted());
	/* by its index, as at a discontinuity */
	vcpu_at(2)->pe.hdbssbr = 0x53000;
	vcpu_reset_if_pending(vcpu_at(2));
	EXPECT_EQUAL(vcpu_at(2)->pe.hdbssbr, 0);
}

static void reset_of_one(void)
{
	struct vcpu *vcpu = vcpu_at(2);

	vcpu_set_faulted(vcpu, true);
	vcpu_set_faulted(vcpu_at(1), true);
	vcpu_reset(vcpu);
	EXPECT(!vcpu->faulted && vcpus_faulted());
	vcpu_set_faulted(vcpu_at(1), false);
	vcpu_set_faulted(vcpu_at(1), false);
	EXPECT(!vcpus_faulted());
}

static void round_robin(void)
{
	vcpu_bind(0);
	vcpu_bind(1);
	vcpu_bind(2);
	/* the boot PE is alone */
	EXPECT_EQUAL(current_is(0), 0);
	tpidr = 0;
	vcpu_tpidr_written(0x1000);
	EXPECT_EQUAL(current_is(0x1000), 0);
	/* what is known needs no register read at every exception */
	reads = 0;
	tpidr = 0x9999;
	vcpu_learn(vcpu_at(0));
	EXPECT_EQUAL(reads, 0);
	EXPECT(!vcpu_current_with_hdbssf());
	EXPECT_EQUAL(reads, 0);
	vcpu_at(0)->hdbssf = true;
	tpidr = 0x1000;
	EXPECT(vcpu_current_with_hdbssf() == vcpu_at(0));
	tpidr = 0;
	EXPECT(!vcpu_current_with_hdbssf());
	vcpu_at(0)->hdbssf = false;
	EXPECT_EQUAL(current_is(0), -1);
	/* from now on every exception tells */
	reads = 0;
	tpidr = 0x1000;
	vcpu_learn(vcpu_at(0));
	EXPECT_EQUAL(reads, 1);
	/* the second one comes up */
	vcpu_switched_on(1);
	EXPECT_EQUAL(current_is(0), 1);
	EXPECT_EQUAL(current_is(0x1000), 0);
	vcpu_switched_on(1ull << 32 | 2);	/* nobody */
	vcpu_switched_on(0x12);
	EXPECT_EQUAL(current_is(0), 1);
	vcpu_switched_on(2);
	EXPECT_EQUAL(current_is(0), -1);	/* 1 or 2? */
	vcpu_switched_on(0x7777);		/* no such PE */
	tpidr = 0x2000;
	vcpu_learn(vcpu_at(1));
	EXPECT_EQUAL(current_is(0x2000), 1);
	EXPECT_EQUAL(current_is(0x3000), 2);
	tpidr = 0x1000;
	vcpu_learn(vcpu_at(2));
	EXPECT_EQUAL(current_is(0x1000), -1);	/* 0 and 2 have the same */
	tpidr = 0x3000;
	vcpu_learn(vcpu_at(2));
	EXPECT_EQUAL(current_is(0x1000), 0);
	vcpu_reset(vcpu_at(2));
	EXPECT_EQUAL(current_is(0x3000), -1);
	/* after a reset of the machine the boot PE is alone again */
	vcpu_at(1)->hdbssf = true;
	vcpus_reset();
	tpidr = 0;
	EXPECT(!vcpu_current_with_hdbssf());
	EXPECT_EQUAL(current_is(0), 0);
	vcpu_switched_on(1);
	EXPECT_EQUAL(current_is(0), -1);
	/* also where the boot PE has been given the value of a PE that comes up */
	tpidr = 0;
	vcpu_learn(vcpu_at(0));
	EXPECT_EQUAL(current_is(0), -1);
	tpidr = 0x2000;
	vcpu_learn(vcpu_at(1));
	EXPECT_EQUAL(current_is(0), 0);
	EXPECT_EQUAL(current_is(0x2000), 1);
}

int main(int argc, char **argv)
{
	struct trace *trace;
	char path[4096], error[512];

	if (argc != 2)
		return 2;
	snprintf(path, sizeof(path), "%s/resets.trace", argv[1]);
	trace = trace_open(path, 1000, 3, error, sizeof(error));
	EXPECT(trace);
	EXPECT(vcpus_init(3, trace));
	EXPECT_EQUAL(vcpus_count(), 3);
	EXPECT(!vcpu_at(3));
	multi_threaded();
	reset_multi_threaded();
	reset_of_one();
	round_robin();
	at_el2();
	if (trace)
		trace_close(trace);
	free(vcpu_at(0));
	return unit_result("vcpu");
}
