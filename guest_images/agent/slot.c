// SPDX-License-Identifier: GPL-2.0-or-later
#include "slot.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "bits.h"
#include "truth.h"
#include "vm.h"

#define HUGE_BYTES (2ULL << 20)
#define SPARE_BYTES (32ULL << 20)

/* An address range of `bytes`, 2 MB aligned, reserved but not accessible. */
static void *reserve(size_t bytes)
{
	struct sysinfo si;
	uint8_t *p, *aligned;
	size_t head, tail;

	/* PID 1 must not meet the OOM killer: that is a panic. */
	if (sysinfo(&si) == 0 && bytes + SPARE_BYTES > (uint64_t)si.freeram * si.mem_unit) {
		errno = ENOMEM;
		return NULL;
	}
	p = mmap(NULL, bytes + HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		 -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	aligned = (uint8_t *)(((uintptr_t)p + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1));
	head = (size_t)(aligned - p);
	tail = HUGE_BYTES - head;
	if (head)
		munmap(p, head);
	if (tail)
		munmap(aligned + bytes, tail);
	return aligned;
}

static void *map_over(void *at, size_t bytes, int flags, int fd)
{
	void *p = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_FIXED | flags, fd, 0);

	if (p != MAP_FAILED)
		return p;
	mem_free(at, bytes);
	return NULL;
}

void *mem_alloc(size_t bytes)
{
	void *at = reserve(bytes);

	return at ? map_over(at, bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1) : NULL;
}

void mem_free(void *mem, size_t bytes)
{
	int saved = errno;

	if (mem)
		munmap(mem, bytes);
	errno = saved;
}

static void *alloc_guest(enum mem_kind kind, size_t bytes)
{
	void *mem;
	int fd;

	if (kind == MEM_MEMFD) {
		fd = memfd_create("slot", MFD_CLOEXEC);
		if (fd < 0)
			return NULL;
		mem = ftruncate(fd, (off_t)bytes) == 0 ? reserve(bytes) : NULL;
		if (mem)
			mem = map_over(mem, bytes, MAP_SHARED, fd);
		close(fd);
	} else {
		mem = mem_alloc(bytes);
	}
	if (!mem)
		return NULL;
	/* A kernel without THP says EINVAL; slot_huge_kb() tells what came of it. */
	madvise(mem, bytes, kind == MEM_THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(mem, 0, bytes);
	return mem;
}

static struct slot *need(struct vm *vm, unsigned int nr, bool present, const char **why)
{
	struct slot *slot = &vm->slots[nr];

	if (vm->fd < 0) {
		*why = "no-vm";
		errno = EINVAL;
		return NULL;
	}
	if (present && !slot->present) {
		*why = "no-slot";
		errno = EINVAL;
		return NULL;
	}
	return slot;
}

static int set_region(struct vm *vm, unsigned int nr, const struct slot *slot, uint64_t bytes)
{
	struct kvm_userspace_memory_region region = {
		.slot = nr,
		.flags = slot->flags,
		.guest_phys_addr = slot->gpa,
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)slot->mem,
	};

	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static void drop_readings(struct slot *slot)
{
	size_t truth = truth_bytes(slot->pages, slot->lane);

	free(slot->dirty);
	free(slot->cleared);
	free(slot->diff);
	mem_free(slot->copy, truth);
	mem_free(slot->dest, truth);
	slot->dirty = slot->cleared = slot->diff = NULL;
	slot->copy = slot->dest = NULL;
}

static int alloc_bitmaps(struct slot *slot)
{
	size_t words = bits_words(slot->pages);

	slot->dirty = calloc(words, 8);
	slot->cleared = calloc(words, 8);
	slot->diff = calloc(words, 8);
	if (slot->dirty && slot->cleared && slot->diff)
		return 0;
	errno = ENOMEM;
	return -1;
}

/* Memory for the first use of a slot; later uses must fit what is there. */
static int slot_memory(struct vm *vm, struct slot *slot, uint64_t mem, size_t bytes,
		       const char **why)
{
	enum mem_kind kind = MEM_VALUE_KIND(mem);
	const struct slot *other = &vm->slots[MEM_VALUE_SLOT(mem)];

	if (slot->mem) {
		if (kind == slot->kind && MEM_VALUE_SLOT(mem) == slot->alias_of &&
		    bytes <= slot->mem_bytes)
			return 0;
		*why = "memory-differs";
		errno = EINVAL;
		return -1;
	}
	if (kind == MEM_ALIAS) {
		if (!other->mem || bytes > other->mem_bytes) {
			*why = "bad-alias";
			errno = EINVAL;
			return -1;
		}
		slot->mem = other->mem;
	} else {
		slot->mem = alloc_guest(kind, bytes);
		if (!slot->mem) {
			*why = "no-memory";
			return -1;
		}
		slot->owner = true;
	}
	slot->kind = kind;
	slot->alias_of = MEM_VALUE_SLOT(mem);
	slot->mem_bytes = bytes;
	return 0;
}

int slot_set(struct vm *vm, unsigned int nr, const struct op *op, const char **why)
{
	struct slot *slot = need(vm, nr, false, why);
	uint64_t pages = op_value(op, "pages");
	int lane = op_given(op, "lane") ? (int)op_value(op, "lane") : -1;
	struct slot now;

	if (!slot || slot_memory(vm, slot, op_value(op, "mem"), pages * PAGE_BYTES, why) < 0)
		return -1;
	if (!slot->dirty || pages != slot->pages || lane != slot->lane) {
		/* While KVM has it, the geometry is not ours to change. */
		if (slot->present) {
			*why = "slot-exists";
			errno = EEXIST;
			return -1;
		}
		drop_readings(slot);
		slot->pages = pages;
		slot->lane = lane;
		if (alloc_bitmaps(slot) < 0) {
			drop_readings(slot);
			*why = "no-memory";
			return -1;
		}
	}
	now = *slot;
	now.gpa = op_value(op, "gpa");
	now.flags = (op_given(op, "ro") ? KVM_MEM_READONLY : 0) |
		    (op_given(op, "log") ? KVM_MEM_LOG_DIRTY_PAGES : 0);
	if (set_region(vm, nr, &now, pages * PAGE_BYTES) < 0) {
		int saved = errno;

		/* There is no such slot: nothing that reads it may go on. */
		if (!slot->present)
			drop_readings(slot);
		errno = saved;
		return -1;
	}
	now.present = true;
	*slot = now;
	return 0;
}

int slot_log(struct vm *vm, unsigned int nr, bool on, const char **why)
{
	struct slot *slot = need(vm, nr, true, why);
	uint32_t before;

	if (!slot)
		return -1;
	before = slot->flags;
	slot->flags &= ~(uint32_t)KVM_MEM_LOG_DIRTY_PAGES;
	if (on)
		slot->flags |= KVM_MEM_LOG_DIRTY_PAGES;
	if (set_region(vm, nr, slot, slot->pages * PAGE_BYTES) == 0)
		return 0;
	slot->flags = before;
	return -1;
}

int slot_delete(struct vm *vm, unsigned int nr, const char **why)
{
	struct slot *slot = need(vm, nr, true, why);

	if (!slot || set_region(vm, nr, slot, 0) < 0)
		return -1;
	slot->present = false;
	return 0;
}

int slot_get_dirty(struct vm *vm, unsigned int nr, const char **why)
{
	struct slot *slot = need(vm, nr, true, why);
	struct kvm_dirty_log log = { .slot = nr };

	if (!slot)
		return -1;
	log.dirty_bitmap = slot->dirty;
	memset(slot->dirty, 0, bits_words(slot->pages) * 8);
	return ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log);
}

int slot_clear_dirty(struct vm *vm, unsigned int nr, uint64_t first, uint64_t pages,
		     const char **why)
{
	struct slot *slot = need(vm, nr, true, why);
	struct kvm_clear_dirty_log log = {
		.slot = nr,
		.first_page = first,
		.num_pages = (uint32_t)pages,
	};
	int ret;

	if (!slot)
		return -1;
	/* An illegal range is the kernel's to refuse; it still gets a pointer. */
	log.dirty_bitmap = slot->dirty + (first < slot->pages ? first / 64 : 0);
	memset(slot->cleared, 0, bits_words(slot->pages) * 8);
	ret = ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &log);
	if (ret == 0) {
		memcpy(slot->cleared, slot->dirty, bits_words(slot->pages) * 8);
		bits_keep(slot->cleared, slot->pages, first, pages);
	}
	return ret;
}

int slot_need_buffer(const struct slot *slot, void **buffer)
{
	if (!*buffer)
		*buffer = mem_alloc(truth_bytes(slot->pages, slot->lane));
	return *buffer ? 0 : -1;
}

static void poke(void *base, uint64_t offset, uint32_t word)
{
	if (base)
		memcpy((uint8_t *)base + offset, &word, 4);
}

/* The same word in a copy or destination, where a lane keeps 8 bytes a page. */
static void poke_buffer(const struct slot *slot, void *base, uint64_t offset, uint32_t word)
{
	uint64_t page = offset / PAGE_BYTES, in_page = offset % PAGE_BYTES;

	if (slot->lane < 0)
		poke(base, offset, word);
	else if (in_page / 8 == (uint64_t)slot->lane)
		poke(base, page * 8 + in_page % 8, word);
}

int slot_poke(struct vm *vm, uint64_t gpa, uint32_t word)
{
	const struct slot *slot = NULL;
	uint8_t *target;
	uint32_t there;

	for (unsigned int i = 0; !slot && i < NR_SLOTS; i++) {
		const struct slot *s = &vm->slots[i];
		uint64_t bytes = s->pages * PAGE_BYTES;

		if (s->present && gpa >= s->gpa && gpa - s->gpa < bytes &&
		    bytes - (gpa - s->gpa) >= 4)
			slot = s;
	}
	if (!slot || gpa % 4) {
		errno = EINVAL;
		return -1;
	}
	target = slot->mem + (gpa - slot->gpa);
	memcpy(&there, target, 4);
	if (there == word)
		return 0;
	poke(target, 0, word);
	__builtin___clear_cache((char *)target, (char *)target + 4);
	/* Every slot that shows this memory knows where the word came from. */
	for (unsigned int i = 0; i < NR_SLOTS; i++) {
		const struct slot *s = &vm->slots[i];

		if (s->mem && target >= s->mem && target < s->mem + s->pages * PAGE_BYTES) {
			poke_buffer(s, s->copy, (uint64_t)(target - s->mem), word);
			poke_buffer(s, s->dest, (uint64_t)(target - s->mem), word);
		}
	}
	return 0;
}

uint64_t slot_huge_kb(const struct slot *slot)
{
	uint64_t kb = 0, value;
	uintptr_t lo, hi;
	bool inside = false;
	char line[256];
	FILE *f = fopen("/proc/self/smaps", "re");

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &lo, &hi) == 2)
			inside = (uintptr_t)slot->mem < hi &&
				 (uintptr_t)slot->mem + slot->mem_bytes > lo;
		else if (inside && sscanf(line, "AnonHugePages: %" SCNu64, &value) == 1)
			kb += value;
	}
	if (f)
		fclose(f);
	return kb;
}

void slot_release(struct slot *slot)
{
	drop_readings(slot);
	if (slot->owner)
		mem_free(slot->mem, slot->mem_bytes);
	memset(slot, 0, sizeof(*slot));
	slot->lane = -1;
}
