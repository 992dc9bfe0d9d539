// SPDX-License-Identifier: GPL-2.0-or-later
#include "watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/reboot.h>

#include "channel.h"
#include "clock.h"

#define GRACE_MS 120000u	/* beyond the operation's own limit */
#define PERIOD_NS 1000000000u

static atomic_uint_fast64_t deadline_ns;	/* 0 = not armed */
static _Atomic unsigned int armed_line;
static const char *_Atomic armed_op;

static void *watch(void *arg)
{
	(void)arg;
	for (;;) {
		uint64_t deadline = atomic_load(&deadline_ns);

		if (deadline && clock_ns() > deadline)
			break;
		clock_sleep_until(clock_ns() + PERIOD_NS);
	}
	channel_send(armed_line, "result op=%s ret=-1 errno=%d errname=ETIMEDOUT error=stuck",
		     armed_op, ETIMEDOUT);
	channel_send(0, "fatal text=operation-stuck-in-the-kernel");
	/* Not channel_drain(): the port may be what is stuck. */
	clock_sleep_until(clock_ns() + PERIOD_NS);
	reboot(RB_POWER_OFF);
	return NULL;
}

int watchdog_start(void)
{
	pthread_t thread;
	int err = pthread_create(&thread, NULL, watch, NULL);

	errno = err;
	return err ? -1 : 0;
}

void watchdog_arm(unsigned int line, const char *op, uint64_t limit_ms)
{
	armed_line = line;
	armed_op = op;
	atomic_store(&deadline_ns, clock_ns() + (limit_ms + GRACE_MS) * 1000000u);
}

void watchdog_disarm(void)
{
	atomic_store(&deadline_ns, 0);
}
