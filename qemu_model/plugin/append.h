/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef HDBSS_APPEND_H
#define HDBSS_APPEND_H

#include "memory.h"
#include "pe.h"
#include "trace.h"

/* A stage 2 Permission fault as QEMU reports it; esr becomes what software gets. */
struct abort {
	uint64_t esr;
	uint64_t far;
	uint64_t hpfar;
	uint64_t elr;
	uint64_t vttbr;
	uint64_t hcr;
};

enum verdict {
	VERDICT_KERNEL,		/* an ordinary fault: EL2 software gets it unchanged */
	VERDICT_RETRY,		/* a real PE would not have faulted: do the access again */
	VERDICT_REFUSED,	/* EL2 software gets it, with HDBSSF */
};

/*
 * Whether this abort can be one that HD=1 would have prevented: a store, or a
 * stage 1 walk whose descriptor update needs write permission.
 */
bool abort_is_candidate(uint64_t esr);

/*
 * What a PE with HDBSS in effect does at this access: append and dirty the leaf,
 * or refuse, or fault. Writes APPEND, REFUSE and ANOMALY records.
 */
enum verdict pe_dirty_update(struct pe *pe, const struct memory *mem, struct trace *trace,
			     struct abort *abort);

/* Set an FSC that is late, if there is one; writes a LATE record. */
bool pe_set_late_fsc(struct pe *pe, struct trace *trace);

#endif
