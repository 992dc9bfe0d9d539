// SPDX-License-Identifier: GPL-2.0-or-later
#include "migrate.h"

#include <errno.h>

#include "truth.h"

static int need_migration(const struct slot *slot, const char **why)
{
	if (slot->dest)
		return 0;
	*why = "no-precopy";
	errno = EINVAL;
	return -1;
}

int migrate_begin(struct vm *vm, unsigned int nr, const char **why)
{
	struct slot *slot = &vm->slots[nr];

	if (!slot->present) {
		*why = "no-slot";
		errno = EINVAL;
		return -1;
	}
	if (slot_need_buffer(slot, &slot->dest) < 0) {
		*why = "no-memory";
		return -1;
	}
	truth_copy(slot->mem, slot->pages, slot->lane, slot->dest, NULL);
	return 0;
}

int migrate_round(struct vm *vm, unsigned int nr, const char **why)
{
	struct slot *slot = &vm->slots[nr];
	int ret = need_migration(slot, why);

	if (ret == 0)
		ret = slot_get_dirty(vm, nr, why);
	/* Clear before copying: a store after the copy must be reported again. */
	if (ret == 0 && vm->dirty != DIRTY_PLAIN) {
		ret = slot_clear_dirty(vm, nr, 0, slot->pages, why);
		if (ret < 0)
			*why = "clear";
	}
	if (ret == 0)
		truth_copy(slot->mem, slot->pages, slot->lane, slot->dest, slot->dirty);
	return ret;
}

int migrate_compare(struct vm *vm, unsigned int nr, const char **why)
{
	struct slot *slot = &vm->slots[nr];

	if (need_migration(slot, why) < 0)
		return -1;
	truth_diff(slot->mem, slot->pages, slot->lane, slot->dest, false, slot->diff);
	return 0;
}
