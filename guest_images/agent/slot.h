/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A memory slot: guest memory, its place in the VM, and what was read of it. */
#ifndef AGENT_SLOT_H
#define AGENT_SLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "program.h"

struct vm;

struct slot {
	bool present;		/* KVM has the memslot now */
	bool owner;		/* of mem; an alias is not */
	enum mem_kind kind;
	unsigned int alias_of;
	uint8_t *mem;		/* NULL: this slot was never used */
	size_t mem_bytes;
	uint64_t gpa, pages;
	uint32_t flags;		/* KVM_MEM_* */
	int lane;		/* -1: whole pages */
	uint64_t *dirty;	/* the last KVM_GET_DIRTY_LOG; all bitmaps have `pages` bits;
				 * NULL: KVM never took this slot, or not when last asked */
	uint64_t *cleared;	/* the part of it that was cleared last */
	uint64_t *diff;		/* the last comparison */
	void *copy;		/* the truth's copy, NULL before `snapshot` */
	void *dest;		/* the migration's destination, NULL without one */
};

/* Zeroed anonymous memory, 2 MB aligned; NULL with errno. */
void *mem_alloc(size_t bytes);
void mem_free(void *mem, size_t bytes);

/*
 * The operations return 0 (or a system call's value), -1 with errno, and in
 * *why the agent's own reason when it was not the kernel that said no.
 */
int slot_set(struct vm *vm, unsigned int nr, const struct op *op, const char **why);
int slot_log(struct vm *vm, unsigned int nr, bool on, const char **why);
int slot_delete(struct vm *vm, unsigned int nr, const char **why);
int slot_get_dirty(struct vm *vm, unsigned int nr, const char **why);
int slot_clear_dirty(struct vm *vm, unsigned int nr, uint64_t first, uint64_t pages,
		     const char **why);

/* Make sure that the slot has a copy buffer / a destination; -1 with errno. */
int slot_need_buffer(const struct slot *slot, void **buffer);

/*
 * Put a 32-bit word into guest memory from outside, together with the copy and
 * the destination: it is not the guest who changed it. -1: no slot there.
 */
int slot_poke(struct vm *vm, uint64_t gpa, uint32_t word);

/* kB of the slot's memory that are transparent huge pages now. */
uint64_t slot_huge_kb(const struct slot *slot);

void slot_release(struct slot *slot);

#endif
