/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writer of the trace, format version 1: qemu_model/trace.py defines it, field
 * by field. Any thread may write; a record's sequence number is its place.
 */
#ifndef HDBSS_TRACE_H
#define HDBSS_TRACE_H

#include <stdbool.h>
#include <stdint.h>

enum trace_kind {
	TRACE_BEGIN = 1,
	TRACE_RESET = 2,
	TRACE_WRITE = 3,
	TRACE_READ = 4,
	TRACE_ENTRY = 5,
	TRACE_EXIT = 6,
	TRACE_APPEND = 7,
	TRACE_REFUSE = 8,
	TRACE_ANOMALY = 9,
	TRACE_INJECT = 10,
	TRACE_END = 11,
	TRACE_MARK = 12,
	TRACE_BARRIER = 13,
	TRACE_LOST = 14,
	TRACE_LATE = 15,
	TRACE_TLBI = 16,
};

/* BARRIER.a */
enum barrier {
	BARRIER_DSB = 0,
	BARRIER_CONTEXT = 1,
};

enum anomaly {
	ANOMALY_TABLE_OUTSIDE_RAM = 1,
	ANOMALY_WALK_UNSUPPORTED = 2,
	ANOMALY_BUFFER_OUTSIDE_RAM = 3,
	ANOMALY_RESERVED_SZ = 4,
	ANOMALY_WALK_DISAGREES = 5,
	ANOMALY_RETRY_LIMIT = 6,
	ANOMALY_UNKNOWN_PE = 8,
	ANOMALY_REGISTER_UNREADABLE = 9,
};

#define TRACE_CAS_LOST		(1u << 24)	/* in the flags of APPEND */
#define TRACE_PRECISE		(1u << 0)	/* in those of INJECT */
#define TRACE_DIRTY		(1u << 1)
#define TRACE_LIMIT_DEFAULT	(16ull << 20)
#define TRACE_LIMIT_MAX		(1ull << 32)

struct trace;

/*
 * Create FILE and write its first record, BEGIN. @limit: records, END included.
 * NULL with the reason in error (at most size bytes) if that is impossible.
 */
struct trace *trace_open(const char *file, uint64_t limit, uint32_t nr_pes,
			 char *error, unsigned int size);

/* Complete the header, once RAM is known. */
void trace_set_ram(struct trace *trace, uint64_t base, uint64_t size);

/*
 * Write one record. A NULL trace, a full one and one that broke take no more. One
 * that breaks, because the file cannot grow, has ended with END then.
 */
void trace_write(struct trace *trace, enum trace_kind kind, unsigned int pe, uint32_t flags,
		 const uint64_t fields[6]);

#define trace_record(trace, kind, pe, flags, ...) \
	trace_write(trace, kind, pe, flags, (const uint64_t[6]){ __VA_ARGS__ })

/* Number of the next record, whoever writes it; 0 without a trace. */
uint64_t trace_next(struct trace *trace);

/* END, and the file gets its exact length. */
void trace_close(struct trace *trace);

#endif
