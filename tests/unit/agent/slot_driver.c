// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The agent's slots against a KVM that is only its rule for memslots, and the
 * limits of what waits: a program on stdin, for each line `OP ret errno error`.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "channel.h"
#include "ops.h"

static struct vm vm;

/* As KVM: an address that is not a page's is refused with EINVAL. */
int __wrap_ioctl(int fd, unsigned long request, ...)
{
	const struct kvm_userspace_memory_region *region;
	va_list ap;

	va_start(ap, request);
	region = va_arg(ap, void *);
	va_end(ap);
	if (fd != vm.fd || request != KVM_SET_USER_MEMORY_REGION)
		abort();
	if (!(region->guest_phys_addr % 4096))
		return 0;
	errno = EINVAL;
	return -1;
}

/* The results are printed here, so nothing is sent. */
void channel_send(unsigned int line, const char *fmt, ...)
{
	(void)line;
	(void)fmt;
	abort();
}

void channel_pages(unsigned int line, unsigned int slot, const char *what,
		   const uint64_t *bits, uint64_t nr)
{
	(void)line;
	(void)slot;
	(void)what;
	(void)bits;
	(void)nr;
	abort();
}

static void execute(const struct op *op, struct result *r)
{
	switch (op->spec->id) {
	case OP_START:
		vm.vcpus[op_value(op, "vcpu")].limit_ms = op_value(op, "limit");
		return;
	case OP_RUN:
	case OP_WAIT:
	case OP_SLEEP:
		/* What `main` gives the watchdog. */
		r->ret = (int64_t)vm_limit(&vm, op);
		return;
	case OP_SLOT:		return op_slot(&vm, op, r);
	case OP_UNSLOT:		return op_unslot(&vm, op, r);
	case OP_SNAPSHOT:	return op_snapshot(&vm, op, r);
	case OP_COMPARE:	return op_compare(&vm, op, r);
	case OP_AWAIT:		return op_await(&vm, op, r);
	case OP_PRECOPY:	return op_precopy(&vm, op, r);
	default:		abort();
	}
}

int main(void)
{
	char *line = NULL;
	const char *why;
	size_t size = 0;
	ssize_t len;
	struct op op;

	vm.fd = 1000;
	for (unsigned int i = 0; i < NR_SLOTS; i++)
		vm.slots[i].lane = -1;
	while ((len = getline(&line, &size, stdin)) > 0) {
		struct result r = { 0 };

		if (line[len - 1] == '\n')
			len--;
		if (program_parse_line(line, (size_t)len, &op, &why) != PROGRAM_OP)
			abort();
		execute(&op, &r);
		printf("%s %lld %d %s\n", op.spec->name, (long long)r.ret, r.err,
		       r.error ? r.error : "-");
	}
	for (unsigned int i = 0; i < NR_SLOTS; i++)
		slot_release(&vm.slots[i]);
	free(line);
	return 0;
}
