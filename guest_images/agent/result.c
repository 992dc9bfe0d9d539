// SPDX-License-Identifier: GPL-2.0-or-later
#include "result.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "channel.h"

void result_fail(struct result *r, int err, const char *why)
{
	r->ret = -1;
	r->err = err;
	r->error = why;
}

void result_syscall(struct result *r, int64_t ret)
{
	r->ret = ret;
	r->err = ret < 0 ? errno : 0;
}

void result_pages(struct result *r, const char *what, unsigned int slot,
		  const uint64_t *bits, uint64_t nr)
{
	if (r->nr_sets < sizeof(r->sets) / sizeof(r->sets[0]))
		r->sets[r->nr_sets++] = (struct page_set){ what, slot, bits, nr };
}

void result_add(struct result *r, const char *fmt, ...)
{
	size_t left = sizeof(r->extra) - r->extra_len;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(r->extra + r->extra_len, left, fmt, ap);
	va_end(ap);
	if (n > 0 && (size_t)n < left)
		r->extra_len += (unsigned int)n;
	else
		r->extra[r->extra_len] = '\0';
}

void result_send(const struct result *r, unsigned int line, const char *op)
{
	const char *name = r->err ? strerrorname_np(r->err) : NULL;

	for (unsigned int i = 0; i < r->nr_sets; i++)
		channel_pages(line, r->sets[i].slot, r->sets[i].what, r->sets[i].bits,
			      r->sets[i].nr);
	channel_send(line, "result op=%s ret=%" PRId64 " errno=%d%s%s%s%s%s", op, r->ret, r->err,
		     name ? " errname=" : "", name ? name : "",
		     r->error ? " error=" : "", r->error ? r->error : "", r->extra);
}
