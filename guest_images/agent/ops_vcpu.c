// SPDX-License-Identifier: GPL-2.0-or-later
/* Operations on vCPUs: create, pin, run payloads. */
#include "ops.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>

#include "creator.h"

#define AARCH64_RET 0xd65f03c0u
#define PLANTED_MAX (1u << 20)	/* RETs for one payload */

static struct vcpu *vcpu_of(struct vm *vm, const struct op *op)
{
	return &vm->vcpus[op_value(op, "vcpu")];
}

void op_vcpu(struct vm *vm, const struct op *op, struct result *r)
{
	result_syscall(r, vcpu_create(vm, (unsigned int)op_value(op, "vcpu"), &r->error));
}

void op_create(struct vm *vm, const struct op *op, struct result *r)
{
	result_syscall(r, creator_start(vm, (unsigned int)op_value(op, "vcpu"),
					(unsigned int)op_value(op, "cpu"), &r->error));
}

void op_created(struct vm *vm, const struct op *op, struct result *r)
{
	(void)vm;
	result_syscall(r, creator_wait(op_value(op, "limit"), &r->error));
}

void op_pin(struct vm *vm, const struct op *op, struct result *r)
{
	unsigned int cpu = (unsigned int)op_value(op, "cpu");
	cpu_set_t set;

	if (op_given(op, "vcpu")) {
		result_syscall(r, vcpu_pin(vcpu_of(vm, op), cpu, op_given(op, "mode"), &r->error));
		return;
	}
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	result_syscall(r, sched_setaffinity(0, sizeof(set), &set));
}

/* `exec` calls a RET at each address; put it there. -1 EINVAL: no memory there; E2BIG. */
static int plant_code(struct vm *vm, const struct op *op)
{
	uint64_t base = op_value(op, "gpa") + op_value(op, "offset") + 8 * op_value(op, "lane");

	if (op_value(op, "count") * op_value(op, "ocount") > PLANTED_MAX) {
		errno = E2BIG;
		return -1;
	}
	for (uint64_t outer = 0; outer < op_value(op, "ocount"); outer++) {
		uint64_t gpa = base + outer * op_value(op, "ostride");

		for (uint64_t inner = 0; inner < op_value(op, "count"); inner++)
			if (slot_poke(vm, gpa + inner * op_value(op, "stride"), AARCH64_RET) < 0)
				return -1;
	}
	return 0;
}

static int start_payload(struct vm *vm, const struct op *op, struct result *r)
{
	struct payload p;

	if (op_value(op, "kind") == PAYLOAD_EXEC && plant_code(vm, op) < 0) {
		result_fail(r, errno, errno == E2BIG ? "too-many" : "no-memory-there");
		return -1;
	}
	payload_prepare(&p, op);
	if (vcpu_start(vcpu_of(vm, op), &p, op_value(op, "limit"), &r->error) == 0)
		return 0;
	result_fail(r, errno, r->error);
	return -1;
}

static void report_outcome(struct result *r, const struct outcome *o)
{
	static const char *const exits[] = {
		[EXIT_DOOR] = "door",
		[EXIT_INTERRUPTED] = "interrupted",
		[EXIT_ERROR] = "error",
		[EXIT_TIMEOUT] = "timeout",
	};
	const char *name = vcpu_reason_name(o->reason);

	if (o->exit == EXIT_ERROR || o->exit == EXIT_TIMEOUT)
		result_fail(r, o->err, o->error);
	result_add(r, " exit=%s", exits[o->exit]);
	if (name)
		result_add(r, " reason=%s", name);
	else
		result_add(r, " reason=%u", o->reason);
	result_add(r, " esr=0x%" PRIx64 " iterations=%" PRIu64 " mmio=%" PRIu64, o->esr, o->passes,
		   o->mmio);
	if (o->mmio)
		result_add(r, " mmio_gpa=%#" PRIx64, o->mmio_gpa);
	if (o->esr)
		result_add(r, " far=%#" PRIx64 " elr=%#" PRIx64, o->far, o->elr);
}

static void collect(struct vm *vm, struct result *r, int ret, const struct outcome *o)
{
	if (ret < 0) {
		result_fail(r, errno, r->error);
		return;
	}
	if (o->exit == EXIT_TIMEOUT || o->exit == EXIT_DOOR)
		vm->stuck = o->exit == EXIT_TIMEOUT;
	report_outcome(r, o);
}

void op_run(struct vm *vm, const struct op *op, struct result *r)
{
	struct outcome o;
	struct vcpu *v = vcpu_of(vm, op);

	if (start_payload(vm, op, r) == 0)
		collect(vm, r, vcpu_wait(v, vm_patience(vm, op_value(op, "limit")), &o, &r->error),
			&o);
}

void op_start(struct vm *vm, const struct op *op, struct result *r)
{
	start_payload(vm, op, r);
}

void op_wait(struct vm *vm, const struct op *op, struct result *r)
{
	struct outcome o;
	struct vcpu *v = vcpu_of(vm, op);

	collect(vm, r, vcpu_wait(v, vm_patience(vm, vm_limit(vm, op)), &o, &r->error), &o);
}

void op_stop(struct vm *vm, const struct op *op, struct result *r)
{
	struct outcome o;
	struct vcpu *v = vcpu_of(vm, op);

	collect(vm, r, vcpu_stop(v, &o, &r->error), &o);
}
