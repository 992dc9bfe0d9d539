// SPDX-License-Identifier: GPL-2.0-or-later
#include "klog_record.h"

#include <string.h>

bool klog_record(const char *rec, size_t len, unsigned int max, unsigned int *level,
		 const char **text, size_t *text_len)
{
	const char *semicolon = len ? memchr(rec, ';', len) : NULL;
	const char *end;
	unsigned int prio = 0;
	size_t digits = 0;

	if (!semicolon)
		return false;
	for (; rec[digits] >= '0' && rec[digits] <= '9'; digits++) {
		prio = prio * 10 + (unsigned int)(rec[digits] - '0');
		if (prio > 7)	/* another facility, or no number at all */
			return false;
	}
	if (digits == 0 || prio > max || (rec[digits] != ',' && rec[digits] != ';'))
		return false;
	*level = prio;
	*text = semicolon + 1;
	end = memchr(*text, '\n', len - (size_t)(*text - rec));
	*text_len = (size_t)((end ? end : rec + len) - *text);
	return true;
}
