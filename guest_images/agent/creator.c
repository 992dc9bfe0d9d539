// SPDX-License-Identifier: GPL-2.0-or-later
#include "creator.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>

#define STACK_BYTES	65536

static struct {
	pthread_t thread;
	struct vm *vm;
	unsigned int nr;
	int ret, err;
	const char *why;
	bool active;
} creator;

static void *create(void *unused)
{
	creator.ret = vcpu_create(creator.vm, creator.nr, &creator.why);
	creator.err = errno;
	return unused;
}

int creator_start(struct vm *vm, unsigned int nr, unsigned int cpu, const char **why)
{
	pthread_attr_t attr;
	cpu_set_t set;
	int err;

	if (creator.active) {
		*why = "creating";
		errno = EBUSY;
		return -1;
	}
	creator.vm = vm;
	creator.nr = nr;
	creator.why = NULL;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	err = pthread_create(&creator.thread, &attr, create, NULL);
	pthread_attr_destroy(&attr);
	creator.active = err == 0;
	errno = err;
	return err ? -1 : 0;
}

int creator_wait(uint64_t limit_ms, const char **why)
{
	/* pthread_timedjoin_np() takes CLOCK_REALTIME, which nobody sets here. */
	struct timespec until;
	uint64_t ns;
	int err;

	if (!creator.active) {
		*why = "not-creating";
		errno = EINVAL;
		return -1;
	}
	clock_gettime(CLOCK_REALTIME, &until);
	ns = (uint64_t)until.tv_nsec + limit_ms % 1000 * 1000000u;
	until.tv_sec += (time_t)(limit_ms / 1000 + ns / 1000000000u);
	until.tv_nsec = (long)(ns % 1000000000u);
	err = pthread_timedjoin_np(creator.thread, NULL, &until);
	if (err) {
		*why = "timeout";
		errno = err;
		return -1;
	}
	creator.active = false;
	if (creator.why)
		*why = creator.why;
	errno = creator.err;
	return creator.ret;
}

bool creator_active(void)
{
	return creator.active;
}
