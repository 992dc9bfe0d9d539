// SPDX-License-Identifier: GPL-2.0-or-later
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "payload.h"

void vm_init(struct vm *vm)
{
	memset(vm, 0, sizeof(*vm));
	vm->kvm = vm->fd = -1;
	for (unsigned int i = 0; i < NR_SLOTS; i++)
		vm->slots[i].lane = -1;
	for (unsigned int i = 0; i < NR_VCPUS; i++)
		vcpu_init(&vm->vcpus[i]);
}

static int open_kvm(struct vm *vm, const char **why)
{
	if (vm->kvm < 0)
		vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		*why = "no-kvm";
	return vm->kvm < 0 ? -1 : 0;
}

static int set_code_slot(struct vm *vm)
{
	struct kvm_userspace_memory_region region = {
		.slot = CODE_SLOT,
		.flags = KVM_MEM_READONLY,	/* a wild payload cannot change it */
		.guest_phys_addr = CODE_GPA,
		.memory_size = PAYLOAD_BYTES,
	};

	vm->code = mem_alloc(PAYLOAD_BYTES);
	if (!vm->code)
		return -1;
	payload_install(vm->code);
	region.userspace_addr = (uintptr_t)vm->code;
	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static int set_dirty_mode(struct vm *vm, enum dirty_mode dirty)
{
	uint64_t args[4] = { KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE };
	const char *why;

	vm->dirty = dirty;
	if (dirty == DIRTY_PLAIN)
		return 0;
	if (dirty == DIRTY_INITIALLY_SET)
		args[0] |= KVM_DIRTY_LOG_INITIALLY_SET;
	return vm_enable_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, args, &why);
}

int vm_create(struct vm *vm, enum dirty_mode dirty, const char **why)
{
	int saved;

	if (vm->fd >= 0) {
		*why = "vm-exists";
		errno = EEXIST;
		return -1;
	}
	if (open_kvm(vm, why) < 0)
		return -1;
	vm->stuck = false;
	vm->fd = ioctl(vm->kvm, KVM_CREATE_VM, 0);
	if (vm->fd < 0)
		return -1;
	if (set_code_slot(vm) == 0 && set_dirty_mode(vm, dirty) == 0)
		return 0;
	saved = errno;
	*why = "vm-setup";
	vm_destroy(vm, why);
	errno = saved;
	return -1;
}

int vm_destroy(struct vm *vm, const char **why)
{
	int ret = 0;

	if (vm->fd < 0) {
		*why = "no-vm";
		errno = EINVAL;
		return -1;
	}
	for (unsigned int i = 0; i < NR_VCPUS; i++)
		if (vcpu_destroy(&vm->vcpus[i]) < 0)
			ret = -1;
	if (ret < 0) {
		/* Its memory is still in use: keep everything, tell, and go on. */
		*why = "vcpu-stuck";
		errno = ETIMEDOUT;
		return -1;
	}
	close(vm->fd);
	vm->fd = -1;
	for (unsigned int i = 0; i < NR_SLOTS; i++)
		slot_release(&vm->slots[i]);
	mem_free(vm->code, PAYLOAD_BYTES);
	vm->code = NULL;
	return 0;
}

/* CAP_HDBSS stands for the number that the program's `uapi` line gave. */
static int resolve_cap(const struct vm *vm, uint64_t *cap, const char **why)
{
	if (*cap != CAP_HDBSS)
		return 0;
	*cap = vm->hdbss_cap;
	if (*cap)
		return 0;
	*why = "no-uapi";
	errno = EOPNOTSUPP;
	return -1;
}

int vm_enable_cap(struct vm *vm, uint64_t cap, uint32_t flags, const uint64_t args[4],
		  const char **why)
{
	struct kvm_enable_cap enable = { .flags = flags };

	if (vm->fd < 0) {
		*why = "no-vm";
		errno = EINVAL;
		return -1;
	}
	if (resolve_cap(vm, &cap, why) < 0)
		return -1;
	enable.cap = (uint32_t)cap;
	memcpy(enable.args, args, sizeof(enable.args));
	return ioctl(vm->fd, KVM_ENABLE_CAP, &enable);
}

int vm_check_cap(struct vm *vm, uint64_t cap, const char **why)
{
	if (open_kvm(vm, why) < 0 || resolve_cap(vm, &cap, why) < 0)
		return -1;
	/* Without a VM the question goes to KVM as such. */
	return ioctl(vm->fd >= 0 ? vm->fd : vm->kvm, KVM_CHECK_EXTENSION, (unsigned long)cap);
}
