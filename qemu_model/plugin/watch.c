// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "watch.h"

struct message {
	uint32_t kind;
	uint32_t pe;
	uint64_t number;
	uint64_t missed;
	struct watch_stop stop;
};

_Static_assert(sizeof(struct message) == 64, "message");

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool active;
static int watcher = -1;
static uint64_t number, missed;

void watch_open(int fd)
{
	watcher = fd;
	number = missed = 0;
	atomic_store(&active, true);
}

bool watch_active(void)
{
	return atomic_load_explicit(&active, memory_order_relaxed);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool send_message(enum watch_kind kind, unsigned int pe, const struct watch_stop *stop)
{
	struct message message = { kind, pe, ++number, missed, *stop };
	ssize_t sent;

	do {
		sent = send(watcher, &message, sizeof(message), MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	return sent == (ssize_t)sizeof(message);
}

enum answer { ANSWERED, MISSED, GONE };

/* An answer to an earlier message comes late: it is not the one. */
static enum answer await_answer(void)
{
	int64_t end = now_ms() + WATCH_PATIENCE_MS, left;
	struct pollfd wait = { .fd = watcher, .events = POLLIN };
	uint8_t byte;
	ssize_t got;

	while ((left = end - now_ms()) > 0) {
		int ready = poll(&wait, 1, (int)left);

		if (ready < 0 && errno != EINTR)
			return GONE;
		if (ready <= 0)
			continue;
		got = recv(watcher, &byte, 1, MSG_DONTWAIT);
		if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN))
			return GONE;
		if (got == 1 && byte == (uint8_t)number)
			return ANSWERED;
	}
	return MISSED;
}

static void give_up(const char *why)
{
	atomic_store(&active, false);
	fprintf(stderr, "hdbss: flushes are not watched any more: %s\n", why);
}

void watch_tell(enum watch_kind kind, unsigned int pe, const struct watch_stop *stop)
{
	pthread_mutex_lock(&turn);
	if (watch_active()) {
		enum answer answer = GONE;

		if (send_message(kind, pe, stop))
			answer = await_answer();
		if (answer == MISSED && !missed++)
			fprintf(stderr, "hdbss: the watcher did not answer within %d ms\n",
				WATCH_PATIENCE_MS);
		if (answer == GONE)
			give_up("the watcher has gone");
		else if (missed >= WATCH_MISSES_MAX)
			give_up("the watcher is too slow");
	}
	pthread_mutex_unlock(&turn);
}

void watch_close(void)
{
	const struct watch_stop none = { 0 };

	pthread_mutex_lock(&turn);
	if (watcher >= 0) {
		send_message(WATCH_END, 0, &none);
		close(watcher);
	}
	watcher = -1;
	atomic_store(&active, false);
	pthread_mutex_unlock(&turn);
}
