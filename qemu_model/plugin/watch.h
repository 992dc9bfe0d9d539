/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The watcher: a process at the other end of a socket that looks into the
 * kernel's memory while a PE stands still: at a flush of its HDBSS buffer, and
 * where it gets a buffer, writes to it, or has it no longer.
 * qemu_model/machine/flushservice.py is that other end and defines the messages.
 */
#ifndef HDBSS_WATCH_H
#define HDBSS_WATCH_H

#include <stdbool.h>
#include <stdint.h>

enum watch_kind {
	WATCH_DRAIN_BEGINS = 1,	/* MRS HDBSSPROD_EL2, INDEX is not 0 */
	WATCH_FLUSH = 2,	/* MSR HDBSSPROD_EL2 makes INDEX 0, which it was not */
	WATCH_RETURNED = 3,	/* the function that completes a flush returns */
	WATCH_END = 4,		/* QEMU ends */
	WATCH_ANNOUNCED = 5,	/* after MSR HDBSSBR_EL2, BADDR is not 0 */
	WATCH_APPENDED = 6,	/* after the first entry since the guest was entered */
	WATCH_WITHDRAWN = 7,	/* MSR VTCR_EL2 or HDBSSBR_EL2 takes the guest's buffer away */
};

/* How long a PE stands still at most, and how often that may come to nothing. */
#ifndef WATCH_PATIENCE_MS	/* the unit tests have less */
#define WATCH_PATIENCE_MS	2000
#endif
#define WATCH_MISSES_MAX	3

struct watch_stop {
	uint64_t seq;		/* of the next trace record */
	uint64_t pc;
	uint64_t hdbssbr;	/* up to WATCH_RETURNED: at the last guest entry; else now */
	uint64_t hdbssprod;
	uint64_t vttbr;		/* at the last guest entry */
};

/* Talk to the watcher by this socket; before any PE runs. */
void watch_open(int fd);

/* Whether there is a watcher, so that a stop is worth its price. */
bool watch_active(void);

/*
 * Let the watcher look; returns when it has, or when patience ends. PEs take
 * turns. After too many misses, or without the other end, there is no watcher.
 */
void watch_tell(enum watch_kind kind, unsigned int pe, const struct watch_stop *stop);

/* Tell the watcher how many answers were missed, and let go of it. */
void watch_close(void);

#endif
