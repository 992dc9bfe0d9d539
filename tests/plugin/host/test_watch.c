// SPDX-License-Identifier: GPL-2.0-or-later
/* A PE stands still until the watcher has answered; with a bad watcher not for ever. */
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "unit.h"
#include "watch.h"

#define THREADS	4
#define EACH	500u

static const struct watch_stop stop = { 11, 22, 33, 44, 55 };
static int theirs;

struct message {
	uint32_t kind, pe;
	uint64_t number, missed;
	struct watch_stop stop;
};

static void connect_watcher(void)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair))
		abort();
	theirs = pair[1];
	watch_open(pair[0]);
	EXPECT(watch_active());
}

static struct message next_message(void)
{
	struct message message = { 0 };

	EXPECT_EQUAL((uint64_t)recv(theirs, &message, sizeof(message), 0), sizeof(message));
	return message;
}

static void answer(uint64_t number)
{
	uint8_t byte = (uint8_t)number;

	EXPECT_EQUAL((uint64_t)send(theirs, &byte, 1, 0), 1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Answers everything, and sees that nobody speaks before his turn. */
static void *good_watcher(void *count)
{
	uint64_t i;

	for (i = 1; i <= *(uint64_t *)count; i++) {
		struct message message = next_message();
		char nothing;

		EXPECT_EQUAL(message.number, i);
		EXPECT_EQUAL(message.missed, 0);
		EXPECT(recv(theirs, &nothing, 1, MSG_DONTWAIT) < 0);
		answer(message.number + 7);	/* of some other time */
		answer(message.number);
	}
	return NULL;
}

static void *teller(void *pe)
{
	unsigned int i;

	for (i = 0; i < EACH; i++)
		watch_tell(WATCH_FLUSH, (unsigned int)(uintptr_t)pe, &stop);
	return NULL;
}

static void many_pes(void)
{
	uint64_t count = THREADS * EACH;
	pthread_t ids[THREADS], watcher;
	uintptr_t i;

	connect_watcher();
	pthread_create(&watcher, NULL, good_watcher, &count);
	for (i = 0; i < THREADS; i++)
		pthread_create(&ids[i], NULL, teller, (void *)i);
	for (i = 0; i < THREADS; i++)
		pthread_join(ids[i], NULL);
	pthread_join(watcher, NULL);
	watch_close();
	EXPECT_EQUAL(next_message().kind, WATCH_END);
	EXPECT(!watch_active());
	close(theirs);
}

static void content(void)
{
	struct message message;

	connect_watcher();
	answer(1);
	watch_tell(WATCH_DRAIN_BEGINS, 3, &stop);
	message = next_message();
	EXPECT_EQUAL(message.kind, WATCH_DRAIN_BEGINS);
	EXPECT_EQUAL(message.pe, 3);
	EXPECT_EQUAL(message.number, 1);
	EXPECT(!memcmp(&message.stop, &stop, sizeof(stop)));
	watch_close();
	close(theirs);
}

/* Patience ends, twice; a late answer is not taken for the next one; then no more. */
static void slow(void)
{
	double start;

	connect_watcher();
	start = now();
	watch_tell(WATCH_FLUSH, 0, &stop);
	EXPECT(now() - start >= WATCH_PATIENCE_MS / 1000.0);
	EXPECT(watch_active());
	EXPECT_EQUAL(next_message().missed, 0);
	answer(1);
	answer(2);
	watch_tell(WATCH_FLUSH, 0, &stop);
	EXPECT_EQUAL(next_message().missed, 1);
	watch_tell(WATCH_FLUSH, 0, &stop);
	watch_tell(WATCH_FLUSH, 0, &stop);
	EXPECT(!watch_active());
	start = now();
	watch_tell(WATCH_FLUSH, 0, &stop);
	EXPECT(now() - start < WATCH_PATIENCE_MS / 1000.0);
	EXPECT_EQUAL(next_message().missed, 1);
	EXPECT_EQUAL(next_message().missed, 2);
	watch_close();
	EXPECT_EQUAL(next_message().missed, WATCH_MISSES_MAX);
	close(theirs);
}

static void gone(void)
{
	connect_watcher();
	close(theirs);
	watch_tell(WATCH_FLUSH, 0, &stop);
	EXPECT(!watch_active());
	watch_close();
	watch_close();
	watch_tell(WATCH_FLUSH, 0, &stop);
}

int main(int argc, char **argv)
{
	(void)argv;
	if (argc != 2)
		return 2;
	EXPECT(!watch_active());
	watch_tell(WATCH_FLUSH, 0, &stop);
	content();
	many_pes();
	slow();
	gone();
	return unit_result("watch");
}
