// SPDX-License-Identifier: GPL-2.0-or-later
/* Operations on memory slots: place, log, dirty log, truth, migration. */
#include "ops.h"

#include <errno.h>
#include <inttypes.h>

#include "bits.h"
#include "clock.h"
#include "migrate.h"
#include "truth.h"

#define AWAIT_STEP_NS 200000u
#define AWAIT_OTHERS_NS 5000000000u

static unsigned int nr_of(const struct op *op)
{
	return (unsigned int)op_value(op, "slot");
}

static struct slot *slot_of(struct vm *vm, const struct op *op)
{
	return &vm->slots[nr_of(op)];
}

static void report_set(struct result *r, unsigned int nr, const char *what,
		       const struct slot *slot, const uint64_t *bits)
{
	result_pages(r, what, nr, bits, slot->pages);
	result_add(r, " %s=%" PRIu64, what, bits_count(bits, slot->pages));
}

void op_slot(struct vm *vm, const struct op *op, struct result *r)
{
	const struct slot *slot = slot_of(vm, op);

	result_syscall(r, slot_set(vm, nr_of(op), op, &r->error));
	if (r->ret == 0 && slot->kind == MEM_THP)
		result_add(r, " huge_kb=%" PRIu64, slot_huge_kb(slot));
}

void op_log(struct vm *vm, const struct op *op, struct result *r)
{
	result_syscall(r, slot_log(vm, nr_of(op), op_value(op, "state") == 0, &r->error));
}

void op_unslot(struct vm *vm, const struct op *op, struct result *r)
{
	result_syscall(r, slot_delete(vm, nr_of(op), &r->error));
}

void op_get(struct vm *vm, const struct op *op, struct result *r)
{
	const struct slot *slot = slot_of(vm, op);

	result_syscall(r, slot_get_dirty(vm, nr_of(op), &r->error));
	if (r->ret == 0)
		report_set(r, nr_of(op), "reported", slot, slot->dirty);
}

void op_clear(struct vm *vm, const struct op *op, struct result *r)
{
	const struct slot *slot = slot_of(vm, op);
	uint64_t first = op_value(op, "first");
	uint64_t rest = first < slot->pages ? slot->pages - first : 0;

	result_syscall(r, slot_clear_dirty(vm, nr_of(op), first,
					   op_given(op, "pages") ? op_value(op, "pages") : rest,
					   &r->error));
	if (r->ret == 0)
		report_set(r, nr_of(op), "cleared", slot, slot->cleared);
}

void op_snapshot(struct vm *vm, const struct op *op, struct result *r)
{
	struct slot *slot = slot_of(vm, op);

	if (!slot->dirty) {
		result_fail(r, EINVAL, "no-slot");
		return;
	}
	if (slot_need_buffer(slot, &slot->copy) < 0) {
		result_fail(r, errno, "no-memory");
		return;
	}
	truth_copy(slot->mem, slot->pages, slot->lane, slot->copy, NULL);
}

void op_compare(struct vm *vm, const struct op *op, struct result *r)
{
	struct slot *slot = slot_of(vm, op);

	if (!slot->copy) {
		result_fail(r, EINVAL, "no-snapshot");
		return;
	}
	truth_diff(slot->mem, slot->pages, slot->lane, slot->copy, true, slot->diff);
	report_set(r, nr_of(op), "changed", slot, slot->diff);
}

/* Whether payloads have failed; and whether others go on. */
static bool payloads_failed(struct vm *vm, bool *busy)
{
	bool failed = false;

	*busy = false;
	for (unsigned int i = 0; i < NR_VCPUS; i++)
		*busy |= vcpu_busy(&vm->vcpus[i], &failed);
	return failed;
}

/* Wait until a page differs from the copy: a started payload has come so far. */
void op_await(struct vm *vm, const struct op *op, struct result *r)
{
	const struct slot *slot = slot_of(vm, op);
	uint64_t page = op_value(op, "page");
	uint64_t until = clock_ns() + vm_patience(vm, op_value(op, "limit")) * 1000000u;
	bool failed = false, busy = false;

	if (!slot->copy || page >= slot->pages) {
		result_fail(r, EINVAL, slot->copy ? "no-such-page" : "no-snapshot");
		return;
	}
	while (!truth_page_differs(slot->mem, page, slot->lane, slot->copy)) {
		uint64_t now = clock_ns();

		if (payloads_failed(vm, &busy) && !failed) {
			/* Others may still come to that page, but soon. */
			failed = true;
			if (!busy)
				until = 0;
			else if (until > now + AWAIT_OTHERS_NS)
				until = now + AWAIT_OTHERS_NS;
			continue;	/* to come so far may have been its last deed */
		}
		if (now > until) {
			vm->stuck |= !failed;
			result_fail(r, failed ? ECANCELED : ETIMEDOUT,
				    failed ? "payload-failed" : "page-unchanged");
			return;
		}
		clock_sleep_until(now + AWAIT_STEP_NS);
	}
	vm->stuck = false;
}

void op_precopy(struct vm *vm, const struct op *op, struct result *r)
{
	result_syscall(r, migrate_begin(vm, nr_of(op), &r->error));
}

void op_precopy_round(struct vm *vm, const struct op *op, struct result *r)
{
	const struct slot *slot = slot_of(vm, op);

	result_syscall(r, migrate_round(vm, nr_of(op), &r->error));
	if (r->ret == 0)
		report_set(r, nr_of(op), "reported", slot, slot->dirty);
}

void op_precopy_final(struct vm *vm, const struct op *op, struct result *r)
{
	const struct slot *slot = slot_of(vm, op);

	op_precopy_round(vm, op, r);
	if (r->ret < 0)
		return;
	result_syscall(r, migrate_compare(vm, nr_of(op), &r->error));
	report_set(r, nr_of(op), "differs", slot, slot->diff);
}
