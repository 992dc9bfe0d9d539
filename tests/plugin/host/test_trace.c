// SPDX-License-Identifier: GPL-2.0-or-later
/* argv[1]: directory for files, which test_host.py reads again with trace.py. */
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <signal.h>

#include "trace.h"
#include "unit.h"

#define THREADS	4
#define EACH	20000u
#define CHUNK_UNITS	16384u	/* as in trace.c: what a file grows by */

static char error[512];

/* A trace is never freed: a record may come late, from another thread. */
static struct trace *kept[8];
static unsigned int nr_kept;

static const char *path(const char *directory, const char *name)
{
	static char buffer[4096];

	snprintf(buffer, sizeof(buffer), "%s/%s", directory, name);
	return buffer;
}

struct writer {
	struct trace *trace;
	unsigned int pe;
};

static void *write_many(void *data)
{
	struct writer *writer = data;
	unsigned int i;

	for (i = 0; i < EACH; i++)
		trace_record(writer->trace, TRACE_MARK, writer->pe, i, i, 1, 2, 3, 4, writer->pe);
	return NULL;
}

static void threads(const char *directory, const char *name, uint64_t limit)
{
	struct trace *trace = trace_open(path(directory, name), limit, THREADS, error,
					 sizeof(error));
	struct writer writers[THREADS];
	pthread_t ids[THREADS];
	unsigned int i;

	EXPECT(trace);
	if (!trace)
		return;
	kept[nr_kept++] = trace;
	trace_set_ram(trace, 0x40000000, 0x1000000);
	for (i = 0; i < THREADS; i++) {
		writers[i] = (struct writer){ trace, i };
		pthread_create(&ids[i], NULL, write_many, &writers[i]);
	}
	for (i = 0; i < THREADS; i++)
		pthread_join(ids[i], NULL);
	trace_close(trace);
	/* a second end and late records change nothing */
	trace_record(trace, TRACE_MARK, 0, 0, 1);
	trace_close(trace);
}

/* Killed in the middle: what was written is there, without END. */
static void killed(const char *directory)
{
	pid_t child = fork();
	int status;

	if (!child) {
		struct trace *trace = trace_open(path(directory, "killed.trace"), 1000, 1, error,
						 sizeof(error));

		trace_record(trace, TRACE_MARK, 0, 0, 1);
		raise(SIGKILL);
	}
	waitpid(child, &status, 0);
	EXPECT(WIFSIGNALED(status));
}

/* The disk is full (a limit on the size of files): it ends, nothing crashes. */
static void full_disk(const char *directory, const char *name, rlim_t chunks)
{
	struct rlimit limit = { chunks << 20, chunks << 20 };
	pid_t child = fork();
	int status;

	if (!child) {
		signal(SIGXFSZ, SIG_IGN);
		setrlimit(RLIMIT_FSIZE, &limit);
		threads(directory, name, 1000000);
		_exit(failures);
	}
	waitpid(child, &status, 0);
	EXPECT(WIFEXITED(status) && !WEXITSTATUS(status));
}

/* As many records as fill the first chunk, END included: no second one is needed. */
static void last_unit(const char *directory)
{
	struct trace *trace = trace_open(path(directory, "chunk.trace"), 1000000, 1, error,
					 sizeof(error));
	unsigned int i;

	for (i = 2; i < CHUNK_UNITS - 1; i++)
		trace_record(trace, TRACE_MARK, 0, 0, i);
	trace_close(trace);
	kept[nr_kept++] = trace;
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	EXPECT(!trace_open(path(argv[1], "no/such/directory"), 10, 1, error, sizeof(error)));
	EXPECT(strstr(error, "no/such/directory"));
	trace_record(NULL, TRACE_MARK, 0, 0, 1);
	threads(argv[1], "whole.trace", 1000000);
	threads(argv[1], "limited.trace", 50000);
	threads(argv[1], "tiny.trace", 2);
	killed(argv[1]);
	full_disk(argv[1], "full1.trace", 1);
	full_disk(argv[1], "full2.trace", 2);
	full_disk(argv[1], "full4.trace", 4);
	last_unit(argv[1]);
	return unit_result("trace");
}
