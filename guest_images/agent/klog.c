// SPDX-License-Identifier: GPL-2.0-or-later
#include "klog.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "channel.h"
#include "frame.h"
#include "klog_record.h"

#define LINES_MAX 64		/* frames for one klog line; all records are counted */
#define RECORDS_MAX 100000	/* a kernel that never stops logging */

static int klog_fd = -1;

int klog_open(void)
{
	klog_fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (klog_fd >= 0)
		lseek(klog_fd, 0, SEEK_END);
	return klog_fd < 0 ? -1 : 0;
}

int klog_report(unsigned int line, unsigned int max, unsigned int *lost)
{
	char rec[8192], text[3 * 1024];
	int count = 0;

	*lost = 0;
	for (int i = 0; i < RECORDS_MAX; i++) {
		ssize_t n = read(klog_fd, rec, sizeof(rec));
		const char *s;
		unsigned int level;
		size_t len;

		if (n < 0 && errno == EPIPE) {	/* overwritten before we read it */
			(*lost)++;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? count : -1;
		if (n == 0)
			break;
		if (!klog_record(rec, (size_t)n, max, &level, &s, &len))
			continue;
		if (count++ < LINES_MAX) {
			frame_encode(text, sizeof(text), s, len);
			channel_send(line, "line level=%u text=%s", level, text);
		}
	}
	return count;
}
