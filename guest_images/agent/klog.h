/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel's log since the agent started. */
#ifndef AGENT_KLOG_H
#define AGENT_KLOG_H

/* Start reading at the end of what is there; -1 with errno. */
int klog_open(void);

/*
 * Read what is new, without waiting: returns the number of the kernel's
 * records of level <= max, sends the first of them as `line` frames for the
 * program line; *lost counts overruns of the log buffer.
 */
int klog_report(unsigned int line, unsigned int max, unsigned int *lost);

#endif
