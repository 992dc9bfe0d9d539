// SPDX-License-Identifier: GPL-2.0-or-later
#include "kernelfile.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FAIL_PAGE_ALLOC "/sys/kernel/debug/fail_page_alloc/"

int kernelfile_write(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t written;

	if (fd < 0)
		return -1;
	written = write(fd, value, strlen(value));
	close(fd);
	return written < 0 ? -1 : 0;
}

int kernelfile_cpu(unsigned int cpu, bool online)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/online", cpu);
	return kernelfile_write(path, online ? "1" : "0");
}

int kernelfile_fail_alloc(unsigned int nth, unsigned int order)
{
	char value[16];

	/* By default smaller ones and those that may sleep are spared, and each is told of. */
	snprintf(value, sizeof(value), "%u", order);
	if (kernelfile_write(FAIL_PAGE_ALLOC "min-order", value) < 0 ||
	    kernelfile_write(FAIL_PAGE_ALLOC "ignore-gfp-wait", "N") < 0 ||
	    kernelfile_write(FAIL_PAGE_ALLOC "verbose", "0") < 0)
		return -1;
	snprintf(value, sizeof(value), "%u", nth);
	return kernelfile_write("/proc/thread-self/fail-nth", value);
}
