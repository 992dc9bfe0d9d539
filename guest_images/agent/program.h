/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent's program: text, one operation a line, `#` starts a comment.
 *
 *	op [positional ...] [key=value ...] [flag ...]
 *
 * Numbers are decimal or 0x hexadecimal. This half of the agent is pure: it
 * also compiles on the host, where it is tested with arbitrary bytes.
 */
#ifndef AGENT_PROGRAM_H
#define AGENT_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROGRAM_LINE_MAX 1024	/* bytes; a longer line does not parse */
#define OP_ARGS_MAX 24

enum arg_type {
	ARG_NUMBER,
	ARG_CHOICE,	/* value: index into choices */
	ARG_FLAG,	/* a bare word; value 1 */
	ARG_MEM,	/* anon|thp|memfd|alias:M; value: see MEM_* */
	ARG_CAP,	/* number, or `hdbss` = CAP_HDBSS */
};

enum mem_kind { MEM_ANON, MEM_THP, MEM_MEMFD, MEM_ALIAS };

/* An ARG_MEM value: kind in bits [7:0], the aliased slot above. */
#define MEM_VALUE(kind, slot) ((uint64_t)(slot) << 8 | (uint64_t)(kind))
#define MEM_VALUE_KIND(v) ((enum mem_kind)((v) & 0xff))
#define MEM_VALUE_SLOT(v) ((unsigned int)((v) >> 8))

#define CAP_HDBSS UINT64_MAX

struct arg_spec {
	const char *name;	/* NULL ends a list */
	enum arg_type type;
	bool positional;	/* a word without `name=`; before all others */
	bool required;
	uint64_t min, max;	/* ARG_NUMBER */
	uint64_t fallback;	/* value when not given */
	const char *const *choices;
};

enum dirty_mode { DIRTY_PLAIN, DIRTY_MANUAL, DIRTY_INITIALLY_SET };

enum payload_kind {
	PAYLOAD_STRIDE, PAYLOAD_RANDOM, PAYLOAD_ATOMIC, PAYLOAD_READ, PAYLOAD_EXEC,
};

enum atomic_how { HOW_LDADD, HOW_SWP, HOW_CAS, HOW_STXR };

enum pin_mode { PIN_AGENT, PIN_FIFO };

enum op_id {
	OP_VM, OP_VCPU, OP_CREATE, OP_CREATED, OP_SLOT, OP_LOG, OP_UNSLOT, OP_DESTROY,
	OP_HDBSS, OP_UAPI, OP_ENABLE_CAP, OP_CHECK_CAP, OP_PIN, OP_RUN, OP_START, OP_WAIT, OP_STOP,
	OP_GET, OP_CLEAR, OP_SNAPSHOT, OP_COMPARE, OP_AWAIT, OP_PRECOPY,
	OP_PRECOPY_ROUND, OP_PRECOPY_FINAL, OP_SLEEP, OP_CLOCK, OP_KLOG, OP_HOG, OP_UNHOG,
	OP_CPU, OP_FAIL_ALLOC,
};

struct op_spec {
	const char *name;	/* NULL ends the table */
	enum op_id id;
	bool payload;		/* the arguments of its payload kind follow */
	const struct arg_spec *args;
};

/* grammar.c */
extern const struct op_spec grammar_ops[];
extern const struct arg_spec *const grammar_payloads[];	/* by payload_kind */

struct arg {
	const struct arg_spec *spec;
	uint64_t value;
	bool given;
};

struct op {
	const struct op_spec *spec;
	unsigned int nr_args;
	struct arg args[OP_ARGS_MAX];
};

enum program_status { PROGRAM_EMPTY, PROGRAM_OP, PROGRAM_BAD };

/*
 * Parse one line of `len` bytes (no newline). PROGRAM_EMPTY: blank or comment.
 * PROGRAM_BAD: *why says what is wrong; op->spec is then NULL or the operation
 * that was recognised.
 */
enum program_status program_parse_line(const char *line, size_t len,
				       struct op *op, const char **why);

/* The next line of buf[*pos..len); false at the end. */
bool program_next_line(const char *buf, size_t len, size_t *pos,
		       const char **line, size_t *line_len);

/* Value of an argument that the operation's grammar has, given or fallback. */
uint64_t op_value(const struct op *op, const char *name);
bool op_given(const struct op *op, const char *name);

#endif
