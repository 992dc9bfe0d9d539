/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an operation has to tell. Frames are sent after the operation's end
 * marker, so that printing does not happen between the two markers. */
#ifndef AGENT_RESULT_H
#define AGENT_RESULT_H

#include <stdint.h>

struct page_set {
	const char *what;	/* reported, changed, cleared, differs */
	unsigned int slot;
	const uint64_t *bits;	/* owned by the slot, valid until its next operation */
	uint64_t nr;
};

struct result {
	int64_t ret;
	int err;		/* errno, 0 = none */
	const char *error;	/* one word of the agent's own, or NULL */
	struct page_set sets[2];
	unsigned int nr_sets;
	char extra[512];	/* ` key=value`... */
	unsigned int extra_len;
};

/* ret = -1 and errno; `why` is NULL or the agent's own reason. */
void result_fail(struct result *r, int err, const char *why);

/* From a system call: its return value and, when negative, errno. */
void result_syscall(struct result *r, int64_t ret);

void result_pages(struct result *r, const char *what, unsigned int slot,
		  const uint64_t *bits, uint64_t nr);

/* Append ` key=value`; cut when full. */
void result_add(struct result *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Send the page sets and the result frame. */
void result_send(const struct result *r, unsigned int line, const char *op);

#endif
