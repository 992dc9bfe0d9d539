// SPDX-License-Identifier: GPL-2.0-or-later
/* Dispatch, and the operations on the VM as a whole or on nothing. */
#include "ops.h"

#include <errno.h>
#include <inttypes.h>

#include "clock.h"
#include "creator.h"
#include "hog.h"
#include "kernelfile.h"
#include "klog.h"

static void op_vm(struct vm *vm, const struct op *op, struct result *r)
{
	result_syscall(r, vm_create(vm, (enum dirty_mode)op_value(op, "dirty"), &r->error));
}

static void op_destroy(struct vm *vm, struct result *r)
{
	if (creator_active())
		return result_fail(r, EBUSY, "creating");
	result_syscall(r, vm_destroy(vm, &r->error));
}

static void op_hdbss(struct vm *vm, const struct op *op, struct result *r)
{
	bool on = op_value(op, "state") == 0;
	uint64_t args[4] = { op_value(op, "order"), on };

	result_syscall(r, vm_enable_cap(vm, CAP_HDBSS, 0, args, &r->error));
}

static void op_uapi(struct vm *vm, const struct op *op)
{
	vm->hdbss_cap = op_value(op, "cap");
}

static void op_enable_cap(struct vm *vm, const struct op *op, struct result *r)
{
	uint64_t args[4] = { op_value(op, "a0"), op_value(op, "a1"),
			     op_value(op, "a2"), op_value(op, "a3") };

	result_syscall(r, vm_enable_cap(vm, op_value(op, "cap"),
					(uint32_t)op_value(op, "flags"), args, &r->error));
}

static void op_check_cap(struct vm *vm, const struct op *op, struct result *r)
{
	result_syscall(r, vm_check_cap(vm, op_value(op, "cap"), &r->error));
}

static void op_klog(unsigned int line, const struct op *op, struct result *r)
{
	unsigned int lost;
	int count = klog_report(line, (unsigned int)op_value(op, "level"), &lost);

	result_syscall(r, count < 0 ? -1 : 0);
	result_add(r, " lines=%d lost=%u", count, lost);
}

static void op_hog(struct result *r)
{
	int64_t bytes = hog_take(&r->error);

	result_syscall(r, bytes < 0 ? -1 : 0);
	if (bytes >= 0)
		result_add(r, " kb=%" PRId64, bytes >> 10);
}

static void op_unhog(struct result *r)
{
	result_syscall(r, hog_release(&r->error));
}

static void op_cpu(const struct op *op, struct result *r)
{
	bool online = op_value(op, "state") == 0;

	result_syscall(r, kernelfile_cpu((unsigned int)op_value(op, "cpu"), online));
}

static void op_fail_alloc(const struct op *op, struct result *r)
{
	int ret = kernelfile_fail_alloc((unsigned int)op_value(op, "nth"),
					(unsigned int)op_value(op, "order"));

	result_syscall(r, ret);
}

void op_execute(struct vm *vm, unsigned int line, const struct op *op, struct result *r)
{
	switch (op->spec->id) {
	case OP_VM:		return op_vm(vm, op, r);
	case OP_VCPU:		return op_vcpu(vm, op, r);
	case OP_CREATE:		return op_create(vm, op, r);
	case OP_CREATED:	return op_created(vm, op, r);
	case OP_SLOT:		return op_slot(vm, op, r);
	case OP_LOG:		return op_log(vm, op, r);
	case OP_UNSLOT:		return op_unslot(vm, op, r);
	case OP_DESTROY:	return op_destroy(vm, r);
	case OP_HDBSS:		return op_hdbss(vm, op, r);
	case OP_UAPI:		return op_uapi(vm, op);
	case OP_ENABLE_CAP:	return op_enable_cap(vm, op, r);
	case OP_CHECK_CAP:	return op_check_cap(vm, op, r);
	case OP_PIN:		return op_pin(vm, op, r);
	case OP_RUN:		return op_run(vm, op, r);
	case OP_START:		return op_start(vm, op, r);
	case OP_WAIT:		return op_wait(vm, op, r);
	case OP_STOP:		return op_stop(vm, op, r);
	case OP_GET:		return op_get(vm, op, r);
	case OP_CLEAR:		return op_clear(vm, op, r);
	case OP_SNAPSHOT:	return op_snapshot(vm, op, r);
	case OP_COMPARE:	return op_compare(vm, op, r);
	case OP_AWAIT:		return op_await(vm, op, r);
	case OP_PRECOPY:	return op_precopy(vm, op, r);
	case OP_PRECOPY_ROUND:	return op_precopy_round(vm, op, r);
	case OP_PRECOPY_FINAL:	return op_precopy_final(vm, op, r);
	case OP_SLEEP:
		return clock_sleep_until(clock_ns() + op_value(op, "ms") * 1000000u);
	case OP_CLOCK:
		return result_add(r, " ns=%" PRIu64, clock_ns());
	case OP_KLOG:		return op_klog(line, op, r);
	case OP_HOG:		return op_hog(r);
	case OP_UNHOG:		return op_unhog(r);
	case OP_CPU:		return op_cpu(op, r);
	case OP_FAIL_ALLOC:	return op_fail_alloc(op, r);
	}
}
