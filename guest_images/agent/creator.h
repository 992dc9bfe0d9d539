/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A vCPU that is created by a thread of its own, beside the program: what the
 * kernel does when userspace changes the VM at the same time. One at a time.
 */
#ifndef AGENT_CREATOR_H
#define AGENT_CREATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu.h"

/* Begin to create vCPU @nr on CPU @cpu; -1 and errno, *why if that cannot be. */
int creator_start(struct vm *vm, unsigned int nr, unsigned int cpu, const char **why);

/* Wait for it, and return what vcpu_create() did; ETIMEDOUT leaves it at work. */
int creator_wait(uint64_t limit_ms, const char **why);

/* Whether nobody has waited for it yet. The VM may not go before. */
bool creator_active(void);

#endif
