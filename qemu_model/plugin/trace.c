// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The file is an array of 64-byte units: unit 0 is the header, unit n is record
 * n. It grows by chunks that are allocated on disk before they are mapped, so
 * that a full disk is an error here and not a SIGBUS. A chunk's last unit is
 * written only once there is a next chunk; if there cannot be one, it is END.
 * A chunk whose records are all written is unmapped: memory stays bounded
 * however long the trace is.
 * "kind" is stored last, so a reader always sees whole records, even when this
 * process is killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "trace.h"

#define UNIT		64u
#define CHUNK_UNITS	16384u			/* 1 MiB: a multiple of any page size */
#define CHUNK_BYTES	((size_t)CHUNK_UNITS * UNIT)
#define CLOSED		(1ull << 62)		/* beyond any limit */

/* END.a */
#define END_CLEAN	0
#define END_LIMIT	1
#define END_NO_SPACE	2

struct header {
	char magic[8];
	uint32_t version;
	uint32_t record_size;
	uint64_t ram_base;
	uint64_t ram_size;
	uint32_t nr_pes;
	uint32_t zero;
	char writer[8];
	uint8_t zeros[16];
};

struct record {
	uint64_t seq;
	uint16_t kind;
	uint16_t pe;
	uint32_t flags;
	uint64_t fields[6];
};

_Static_assert(sizeof(struct header) == UNIT, "header");
_Static_assert(sizeof(struct record) == UNIT, "record");

struct chunk {
	_Atomic(struct record *) units;
	atomic_uint written;
};

struct trace {
	int fd;
	uint64_t limit;
	_Atomic uint64_t next;		/* sequence number of the next record */
	atomic_bool broken;		/* the file could not grow */
	pthread_mutex_t growing;
	uint64_t nr_chunks;
	struct chunk chunks[];
};

/* The chunk's units; NULL once the file cannot grow any more. */
static struct record *trace_chunk(struct trace *trace, uint64_t number)
{
	struct chunk *chunk = &trace->chunks[number];
	struct record *units = atomic_load_explicit(&chunk->units, memory_order_acquire);
	off_t offset = (off_t)(number * CHUNK_BYTES);
	int error;

	if (units)
		return units;
	pthread_mutex_lock(&trace->growing);
	units = atomic_load(&chunk->units);
	if (!units && !atomic_load(&trace->broken)) {
		do {
			error = posix_fallocate(trace->fd, offset, (off_t)CHUNK_BYTES);
		} while (error == EINTR);
		if (!error) {
			units = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
				     trace->fd, offset);
			if (units == MAP_FAILED) {
				error = errno;
				units = NULL;
			}
		}
		if (units) {
			atomic_store_explicit(&chunk->units, units, memory_order_release);
		} else {
			atomic_store(&trace->broken, true);
			fprintf(stderr, "hdbss: the trace ends at record %llu: %s\n",
				(unsigned long long)(number ? number * CHUNK_UNITS - 1 : 0),
				strerror(error));
		}
	}
	pthread_mutex_unlock(&trace->growing);
	return units;
}

/* One more unit of the chunk is complete; nobody needs a complete chunk. */
static void trace_unit_done(struct trace *trace, uint64_t number, struct record *units)
{
	if (atomic_fetch_add(&trace->chunks[number].written, 1) + 1 == CHUNK_UNITS)
		munmap(units, CHUNK_BYTES);
}

static void trace_put(struct trace *trace, uint64_t seq, enum trace_kind kind, unsigned int pe,
		      uint32_t flags, const uint64_t fields[6])
{
	uint64_t number = seq / CHUNK_UNITS;
	struct record *units = trace_chunk(trace, number);
	uint64_t no_space[6] = { END_NO_SPACE, seq };
	struct record *record;

	if (!units)
		return;
	if (seq % CHUNK_UNITS == CHUNK_UNITS - 1 && kind != TRACE_END &&
	    !trace_chunk(trace, number + 1)) {
		kind = TRACE_END;
		pe = flags = 0;
		fields = no_space;
	}
	record = &units[seq % CHUNK_UNITS];
	record->seq = seq;
	record->pe = (uint16_t)pe;
	record->flags = flags;
	memcpy(record->fields, fields, sizeof(record->fields));
	__atomic_store_n(&record->kind, (uint16_t)kind, __ATOMIC_RELEASE);
	trace_unit_done(trace, number, units);
}

struct trace *trace_open(const char *file, uint64_t limit, uint32_t nr_pes,
			 char *error, unsigned int size)
{
	uint64_t nr_chunks = limit / CHUNK_UNITS + 1;
	struct header header = {
		.magic = "HDBSSTRC",
		.version = 1,
		.record_size = UNIT,
		.nr_pes = nr_pes,
		.writer = "plugin",
	};
	struct record *units;
	struct trace *trace;

	trace = calloc(1, sizeof(*trace) + nr_chunks * sizeof(struct chunk));
	if (!trace) {
		snprintf(error, size, "no memory for a trace of %llu records",
			 (unsigned long long)limit);
		return NULL;
	}
	pthread_mutex_init(&trace->growing, NULL);
	trace->limit = limit;
	trace->nr_chunks = nr_chunks;
	trace->fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (trace->fd < 0) {
		snprintf(error, size, "cannot write trace=%s: %s", file, strerror(errno));
		free(trace);
		return NULL;
	}
	units = trace_chunk(trace, 0);
	if (!units) {
		snprintf(error, size, "cannot write trace=%s", file);
		close(trace->fd);
		free(trace);
		return NULL;
	}
	memcpy(units, &header, sizeof(header));
	trace_unit_done(trace, 0, units);
	atomic_store(&trace->next, 1);
	trace_record(trace, TRACE_BEGIN, 0, 0, 1);
	return trace;
}

void trace_set_ram(struct trace *trace, uint64_t base, uint64_t size)
{
	struct header header;
	bool done;

	/* By the file, not by the mapping: that may be gone by now. */
	done = pread(trace->fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header);
	header.ram_base = base;
	header.ram_size = size;
	if (!done || pwrite(trace->fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header))
		fprintf(stderr, "hdbss: cannot complete the header of the trace: %s\n",
			strerror(errno));
}

void trace_write(struct trace *trace, enum trace_kind kind, unsigned int pe, uint32_t flags,
		 const uint64_t fields[6])
{
	uint64_t seq;

	if (!trace || atomic_load_explicit(&trace->broken, memory_order_relaxed))
		return;
	seq = atomic_fetch_add(&trace->next, 1);
	if (seq < trace->limit)
		trace_put(trace, seq, kind, pe, flags, fields);
	else if (seq == trace->limit)
		trace_put(trace, seq, TRACE_END, 0, 0, (const uint64_t[6]){ END_LIMIT, seq });
}

uint64_t trace_next(struct trace *trace)
{
	return trace ? atomic_load(&trace->next) : 0;
}

void trace_close(struct trace *trace)
{
	uint64_t seq = atomic_exchange(&trace->next, CLOSED);
	uint64_t units;

	if (seq >= CLOSED)
		return;
	if (seq <= trace->limit)
		trace_put(trace, seq, TRACE_END, 0, 0, (const uint64_t[6]){ END_CLEAN, seq });
	units = (seq <= trace->limit ? seq : trace->limit) + 1;
	/* A broken trace has its END in the last unit of its last chunk. */
	if (!atomic_load(&trace->broken) && ftruncate(trace->fd, (off_t)(units * UNIT)) < 0)
		fprintf(stderr, "hdbss: cannot cut the trace to its length: %s\n",
			strerror(errno));
}
