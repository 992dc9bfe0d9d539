/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The last limit: an operation that is stuck inside the kernel, where no
 * signal helps. The watchdog then reports ETIMEDOUT for it and powers off.
 */
#ifndef AGENT_WATCHDOG_H
#define AGENT_WATCHDOG_H

#include <stdint.h>

int watchdog_start(void);

/* The operation of this line begins; limit_ms is its own limit, if any. */
void watchdog_arm(unsigned int line, const char *op, uint64_t limit_ms);
void watchdog_disarm(void);

#endif
