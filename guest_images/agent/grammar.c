// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The operations and their arguments, as data. S is a slot 0..127, V a vCPU
 * 0..7, [x] may be left out, numbers are 64-bit unless a limit is given below.
 *
 *	uapi cap=N			number of the HDBSS capability, 0 = none
 *	vm [dirty=plain|manual|initially-set]
 *	vcpu V
 *	create V cpu=C			the same by a thread of its own on that CPU,
 *					beside the program
 *	created V [limit=MS]		wait until `create` has ended; its result
 *	slot S gpa=G pages=P mem=anon|thp|memfd|alias:M [lane=L] [ro] [log]
 *	log S on|off			KVM_MEM_LOG_DIRTY_PAGES
 *	unslot S			delete it; its memory stays for a new `slot S`
 *	destroy
 *	hdbss on order=K | hdbss off [order=K]
 *	enable-cap cap=N|hdbss [flags=F] [a0=A] [a1=A] [a2=A] [a3=A]
 *	check-cap cap=N|hdbss		ret is what KVM_CHECK_EXTENSION says
 *	pin agent cpu=C | pin [fifo] vcpu=V cpu=C
 *					fifo: SCHED_FIFO, otherwise SCHED_OTHER
 *	run V KIND ... [loops=N] [limit=MS] [spin]
 *	start V KIND ... [loops=N] [limit=MS] [spin]
 *					loops=0: until stopped
 *					spin: N passes, then stay in the guest without
 *					an access until stopped
 *	wait V [limit=MS]		otherwise the limit of `start`
 *	stop V
 *	get S				KVM_GET_DIRTY_LOG
 *	clear S [first=P] [pages=P]	KVM_CLEAR_DIRTY_LOG with the bitmap of the last get
 *	snapshot S			take the copy that `compare` compares with
 *	compare S			and bring the copy up to date
 *	await S page=P [limit=MS]	until that page differs from the copy; ECANCELED when
 *					payloads have failed and none goes on
 *					After a limit that ran out, the next ones are
 *					half a second at most, until the guest has got on.
 *	precopy S			copy all to a destination
 *	precopy-round S			get, clear in the manual modes, copy those pages
 *	precopy-final S			the same, then compare destination and source
 *	sleep ms=MS
 *	clock				CLOCK_MONOTONIC
 *	klog [level=L]			kernel log since the last klog: records of level
 *					<= L, 0..7, otherwise 4; the others are passed over
 *	hog				take all memory that the kernel calls available
 *	unhog				and give it back
 *	cpu C on|off			CPU hot-plug
 *	fail-alloc nth=N [order=K]	the Nth allocation of 2^K pages or more by this program
 *					(as ioctls of the VM) fails, once; nth=0: none
 *
 * Kinds of payload. NEST is `gpa=G count=N stride=B [ocount=N] [ostride=B]
 * [offset=B | lane=L]`: the accesses are at gpa + offset + outer * ostride +
 * inner * stride; lane=L is offset=8*L.
 *	stride NEST value=X [width=8|1]	stores
 *	random gpa=G pages=P count=N seed=X value=X [offset=B | lane=L]
 *					per store: seed ^= seed << 13, seed ^= seed >> 7,
 *					seed ^= seed << 17; page seed % P
 *	atomic NEST how=ldadd|swp|cas|stxr value=X
 *	read NEST
 *	exec NEST			calls a RET that the agent has put there
 * The value grows by 1 after each pass, with `random` also after each store.
 */
#include "grammar_limits.h"
#include "program.h"

#define ANY 0, UINT64_MAX
#define NUM(n, ...) { .name = (n), .type = ARG_NUMBER, LIMITS(__VA_ARGS__) }
#define LIMITS(lo, hi) .min = (lo), .max = (hi)
#define NUM_REQ(n, ...) \
	{ .name = (n), .type = ARG_NUMBER, .required = true, LIMITS(__VA_ARGS__) }
#define NUM_DEF(n, def, ...) \
	{ .name = (n), .type = ARG_NUMBER, .fallback = (def), LIMITS(__VA_ARGS__) }
#define POS_NUM(n, lo, hi) \
	{ .name = (n), .type = ARG_NUMBER, .positional = true, .required = true, \
	  .min = (lo), .max = (hi) }
#define POS_CHOICE(n, req, list) \
	{ .name = (n), .type = ARG_CHOICE, .positional = true, .required = (req), \
	  .choices = (list) }
#define CHOICE(n, req, list) \
	{ .name = (n), .type = ARG_CHOICE, .required = (req), .choices = (list) }
#define FLAG(n) { .name = (n), .type = ARG_FLAG }
#define CAP(n) { .name = (n), .type = ARG_CAP, .required = true }
#define END { .name = NULL }

#define POS_SLOT POS_NUM("slot", 0, NR_SLOTS - 1)
#define POS_VCPU POS_NUM("vcpu", 0, NR_VCPUS - 1)
#define OPT_LIMIT(def) NUM_DEF("limit", def, 1, LIMIT_MAX_MS)

static const char *const on_off[] = { "on", "off", NULL };
static const char *const dirty_modes[] = { "plain", "manual", "initially-set", NULL };
static const char *const kinds[] = { "stride", "random", "atomic", "read", "exec", NULL };
static const char *const hows[] = { "ldadd", "swp", "cas", "stxr", NULL };
static const char *const pin_modes[] = { "agent", "fifo", NULL };

static const struct arg_spec no_args[] = { END };
static const struct arg_spec slot_only[] = { POS_SLOT, END };
static const struct arg_spec vcpu_only[] = { POS_VCPU, END };
static const struct arg_spec vm_args[] = { CHOICE("dirty", false, dirty_modes), END };
static const struct arg_spec slot_args[] = {
	POS_SLOT, NUM_REQ("gpa", ANY), NUM_REQ("pages", 1, PAGES_MAX),
	{ .name = "mem", .type = ARG_MEM, .required = true },
	NUM("lane", 0, LANE_MAX), FLAG("ro"), FLAG("log"), END
};
static const struct arg_spec log_args[] = {
	POS_SLOT, POS_CHOICE("state", true, on_off), END
};
static const struct arg_spec hdbss_args[] = {
	POS_CHOICE("state", true, on_off), NUM("order", ANY), END
};
static const struct arg_spec uapi_args[] = { NUM_REQ("cap", 0, UINT32_MAX), END };
static const struct arg_spec enable_cap_args[] = {
	CAP("cap"), NUM("flags", 0, UINT32_MAX), NUM("a0", ANY), NUM("a1", ANY),
	NUM("a2", ANY), NUM("a3", ANY), END
};
static const struct arg_spec check_cap_args[] = { CAP("cap"), END };
static const struct arg_spec pin_args[] = {
	POS_CHOICE("mode", false, pin_modes), NUM("vcpu", 0, NR_VCPUS - 1),
	NUM_REQ("cpu", 0, CPU_MAX), END
};
static const struct arg_spec run_args[] = {
	POS_VCPU, POS_CHOICE("kind", true, kinds), NUM_DEF("loops", 1, ANY),
	OPT_LIMIT(LIMIT_DEFAULT_MS), FLAG("spin"), END
};
static const struct arg_spec create_args[] = {
	POS_VCPU, NUM_REQ("cpu", 0, CPU_MAX), END
};
static const struct arg_spec wait_args[] = { POS_VCPU, OPT_LIMIT(LIMIT_DEFAULT_MS), END };
static const struct arg_spec clear_args[] = {
	POS_SLOT, NUM("first", ANY), NUM("pages", 0, UINT32_MAX), END
};
static const struct arg_spec await_args[] = {
	POS_SLOT, NUM_REQ("page", 0, PAGES_MAX - 1), OPT_LIMIT(LIMIT_DEFAULT_MS), END
};
static const struct arg_spec klog_args[] = {
	NUM_DEF("level", KLOG_LEVEL_DEFAULT, 0, 7), END
};
static const struct arg_spec cpu_args[] = {
	POS_NUM("cpu", 0, CPU_MAX), POS_CHOICE("state", true, on_off), END
};
static const struct arg_spec fail_alloc_args[] = {
	NUM_REQ("nth", 0, UINT32_MAX), NUM("order", 0, 63), END
};
static const struct arg_spec sleep_args[] = { NUM_REQ("ms", 0, LIMIT_MAX_MS), END };

const struct op_spec grammar_ops[] = {
	{ "vm", OP_VM, false, vm_args },
	{ "vcpu", OP_VCPU, false, vcpu_only },
	{ "create", OP_CREATE, false, create_args },
	{ "created", OP_CREATED, false, wait_args },
	{ "slot", OP_SLOT, false, slot_args },
	{ "log", OP_LOG, false, log_args },
	{ "unslot", OP_UNSLOT, false, slot_only },
	{ "destroy", OP_DESTROY, false, no_args },
	{ "hdbss", OP_HDBSS, false, hdbss_args },
	{ "uapi", OP_UAPI, false, uapi_args },
	{ "enable-cap", OP_ENABLE_CAP, false, enable_cap_args },
	{ "check-cap", OP_CHECK_CAP, false, check_cap_args },
	{ "pin", OP_PIN, false, pin_args },
	{ "run", OP_RUN, true, run_args },
	{ "start", OP_START, true, run_args },
	{ "wait", OP_WAIT, false, wait_args },
	{ "stop", OP_STOP, false, vcpu_only },
	{ "get", OP_GET, false, slot_only },
	{ "clear", OP_CLEAR, false, clear_args },
	{ "snapshot", OP_SNAPSHOT, false, slot_only },
	{ "compare", OP_COMPARE, false, slot_only },
	{ "await", OP_AWAIT, false, await_args },
	{ "precopy", OP_PRECOPY, false, slot_only },
	{ "precopy-round", OP_PRECOPY_ROUND, false, slot_only },
	{ "precopy-final", OP_PRECOPY_FINAL, false, slot_only },
	{ "sleep", OP_SLEEP, false, sleep_args },
	{ "clock", OP_CLOCK, false, no_args },
	{ "klog", OP_KLOG, false, klog_args },
	{ "hog", OP_HOG, false, no_args },
	{ "unhog", OP_UNHOG, false, no_args },
	{ "cpu", OP_CPU, false, cpu_args },
	{ "fail-alloc", OP_FAIL_ALLOC, false, fail_alloc_args },
	{ NULL, OP_VM, false, NULL },
};

#define OPT_OFFSET NUM("offset", 0, 4095), NUM("lane", 0, LANE_MAX)
#define NEST \
	NUM_REQ("gpa", ANY), NUM_REQ("count", 1, UINT32_MAX), NUM_REQ("stride", ANY), \
	NUM_DEF("ocount", 1, 1, UINT32_MAX), NUM("ostride", ANY), OPT_OFFSET

static const struct arg_spec stride_args[] = {
	NEST, NUM_REQ("value", ANY), NUM_DEF("width", 8, 1, 8), END
};
static const struct arg_spec random_args[] = {
	NUM_REQ("gpa", ANY), NUM_REQ("pages", 1, UINT32_MAX), NUM_REQ("count", 1, UINT32_MAX),
	NUM_REQ("seed", 1, UINT64_MAX), NUM_REQ("value", ANY), OPT_OFFSET, END
};
static const struct arg_spec atomic_args[] = {
	NEST, CHOICE("how", true, hows), NUM_REQ("value", ANY), END
};
static const struct arg_spec nest_args[] = { NEST, END };

const struct arg_spec *const grammar_payloads[] = {
	[PAYLOAD_STRIDE] = stride_args,
	[PAYLOAD_RANDOM] = random_args,
	[PAYLOAD_ATOMIC] = atomic_args,
	[PAYLOAD_READ] = nest_args,
	[PAYLOAD_EXEC] = nest_args,
};
