// SPDX-License-Identifier: GPL-2.0-or-later
#include "hog.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

/* Small enough not to get from "some" below the kernel's reserve in one step. */
#define STEP_BYTES (256u << 10)
#define PAGE_BYTES 4096u

static uint8_t *hog;
static size_t hog_bytes;

static int available_kb(uint64_t *kb)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	int found = 0;

	if (!file)
		return -1;
	while (!found && fgets(line, sizeof(line), file))
		found = sscanf(line, "MemAvailable: %" SCNu64 " kB", kb) == 1;
	fclose(file);
	if (found)
		return 0;
	errno = ENOENT;
	return -1;
}

int64_t hog_take(const char **why)
{
	struct sysinfo si;
	uint64_t kb = 1;
	size_t taken = 0;

	if (hog) {
		*why = "hog-exists";
		errno = EEXIST;
		return -1;
	}
	if (sysinfo(&si) < 0)
		return -1;
	hog_bytes = (size_t)si.totalram * si.mem_unit;
	hog = mmap(NULL, hog_bytes, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (hog == MAP_FAILED) {
		hog = NULL;
		return -1;
	}
	/* Huge pages would leave more to others, as large pieces. */
	madvise(hog, hog_bytes, MADV_NOHUGEPAGE);
	while (taken < hog_bytes) {
		if (available_kb(&kb) < 0) {
			int saved = errno;

			hog_release(why);
			*why = "no-meminfo";
			errno = saved;
			return -1;
		}
		if (!kb)
			break;
		for (size_t end = taken + STEP_BYTES; taken < end && taken < hog_bytes;
		     taken += PAGE_BYTES)
			hog[taken] = 1;
	}
	return (int64_t)taken;
}

int hog_release(const char **why)
{
	if (!hog) {
		*why = "no-hog";
		errno = EINVAL;
		return -1;
	}
	munmap(hog, hog_bytes);
	hog = NULL;
	return 0;
}
