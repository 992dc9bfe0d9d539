/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One record of /dev/kmsg: `prio,seq,usec,flags[,...];text\n[ KEY=value\n...]`. */
#ifndef AGENT_KLOG_RECORD_H
#define AGENT_KLOG_RECORD_H

#include <stdbool.h>
#include <stddef.h>

/*
 * True when the record is the kernel's own (facility 0), well formed, and of
 * level <= max: *level is its level 0..7, *text and *text_len its first line (inside rec).
 */
bool klog_record(const char *rec, size_t len, unsigned int max, unsigned int *level,
		 const char **text, size_t *text_len);

#endif
