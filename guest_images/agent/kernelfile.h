/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files by which the kernel under test is told what to do besides KVM. */
#ifndef AGENT_KERNELFILE_H
#define AGENT_KERNELFILE_H

#include <stdbool.h>

/* Write a value. -1 with errno if there is no such file, or it does not take that. */
int kernelfile_write(const char *path, const char *value);

/* Take a CPU out of use, or back into it. -1 with errno. */
int kernelfile_cpu(unsigned int cpu, bool online);

/*
 * Let the nth allocation of 2^order pages or more by this thread fail, once (nth 0: none
 * any more). -1 with errno; ENOENT: the kernel has no CONFIG_FAIL_PAGE_ALLOC, or no
 * CONFIG_FAULT_INJECTION_DEBUG_FS.
 */
int kernelfile_fail_alloc(unsigned int nth, unsigned int order);

#endif
