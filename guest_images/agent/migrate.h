/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pre-copy migration of one slot into a second buffer, as a VMM does it: copy
 * all, then in rounds what the dirty log reports, then compare. With a lane
 * only the lane's 8 bytes of each page are migrated.
 */
#ifndef AGENT_MIGRATE_H
#define AGENT_MIGRATE_H

#include "vm.h"

int migrate_begin(struct vm *vm, unsigned int nr, const char **why);

/* KVM_GET_DIRTY_LOG into slot->dirty, clear it in the manual modes, copy. */
int migrate_round(struct vm *vm, unsigned int nr, const char **why);

/* Compare destination and source into slot->diff; the migration stays open. */
int migrate_compare(struct vm *vm, unsigned int nr, const char **why);

#endif
