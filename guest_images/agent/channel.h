/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent's channel: frames on a serial port that printk does not use
 * (/dev/ttyAMA1), else on the console's. Frames of several threads do not mix.
 */
#ifndef AGENT_CHANNEL_H
#define AGENT_CHANNEL_H

#include <stdint.h>

/* 0, or -1 with errno when there is no serial port at all. */
int channel_open(void);

/* Send `<kind> key=value...` for a program line; 0 = the agent itself. */
void channel_send(unsigned int line, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* `pages` frames for a bitmap of nr pages; an empty set is one `list=-`. */
void channel_pages(unsigned int line, unsigned int slot, const char *what,
		   const uint64_t *bits, uint64_t nr);

/* Wait until all bytes have left. */
void channel_drain(void);

#endif
