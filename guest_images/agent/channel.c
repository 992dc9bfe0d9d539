// SPDX-License-Identifier: GPL-2.0-or-later
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

#include "bits.h"
#include "frame.h"

static int channel_fd = -1;
static uint64_t channel_seq;
static pthread_mutex_t channel_lock = PTHREAD_MUTEX_INITIALIZER;

int channel_open(void)
{
	static const char *const ports[] = { "/dev/ttyAMA1", "/dev/ttyAMA0" };
	struct termios tio;

	for (unsigned int i = 0; channel_fd < 0 && i < 2; i++)
		channel_fd = open(ports[i], O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (channel_fd < 0)
		return -1;
	if (tcgetattr(channel_fd, &tio) == 0) {
		cfmakeraw(&tio);
		tio.c_cflag |= CLOCAL;
		cfsetspeed(&tio, B115200);
		tcsetattr(channel_fd, TCSANOW, &tio);
	}
	return 0;
}

static void write_all(const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(channel_fd, buf, len);

		if (n < 0 && errno != EINTR)
			return;	/* nobody to tell; the reader sees the gap in seq */
		if (n > 0) {
			buf += n;
			len -= (size_t)n;
		}
	}
}

void channel_send(unsigned int line, const char *fmt, ...)
{
	static char body[FRAME_BODY_MAX + 1], frame[FRAME_MAX];
	va_list ap;

	pthread_mutex_lock(&channel_lock);
	va_start(ap, fmt);
	vsnprintf(body, sizeof(body), fmt, ap);
	va_end(ap);
	write_all(frame, frame_build(frame, ++channel_seq, line, body));
	pthread_mutex_unlock(&channel_lock);
}

void channel_pages(unsigned int line, unsigned int slot, const char *what,
		   const uint64_t *bits, uint64_t nr)
{
	char list[FRAME_BODY_MAX - 64];	/* 64: `pages slot=N what=... list=` */
	uint64_t from = 0;

	do {
		bits_list(bits, nr, &from, list, sizeof(list));
		channel_send(line, "pages slot=%u what=%s list=%s", slot, what, list);
	} while (from < nr);
}

void channel_drain(void)
{
	tcdrain(channel_fd);
}
