/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory that is in use so that nobody else gets it. */
#ifndef AGENT_HOG_H
#define AGENT_HOG_H

#include <stdint.h>

/*
 * Take memory until the kernel calls none available any more (MemAvailable: without
 * swapping and without going below its watermarks). What is left is enough for single
 * pages, and for nobody who wants many MB. Returns the bytes taken, -1 with errno.
 */
int64_t hog_take(const char **why);

/* Give it all back. -1 EINVAL: there is none. */
int hog_release(const char **why);

#endif
