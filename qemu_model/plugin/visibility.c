// SPDX-License-Identifier: GPL-2.0-or-later
#include <string.h>

#include "visibility.h"

static void publish_oldest(struct pe *pe, const struct memory *mem)
{
	/* In memory's byte order already; RAM does not go away. */
	mem->write64(mem->ctx, pe->outstanding[0].slot, pe->outstanding[0].bytes);
	pe->nr_outstanding--;
	memmove(&pe->outstanding[0], &pe->outstanding[1],
		pe->nr_outstanding * sizeof(pe->outstanding[0]));
	if (pe->uncounted > pe->nr_outstanding)
		pe->uncounted = pe->nr_outstanding;
}

bool visibility_entry(struct pe *pe, const struct memory *mem, uint64_t slot, uint64_t entry)
{
	uint64_t old;

	if (!pe->choices.late)
		return memory_write(mem, slot, entry);
	if (!mem->read64(mem->ctx, slot, &old))
		return false;
	if (pe->nr_outstanding == sizeof(pe->outstanding) / sizeof(pe->outstanding[0]))
		publish_oldest(pe, mem);
	pe->outstanding[pe->nr_outstanding].slot = slot;
	pe->outstanding[pe->nr_outstanding].bytes = memory_bytes(mem, entry);
	pe->nr_outstanding++;
	pe->uncounted++;
	return true;
}

void visibility_take_back(struct pe *pe)
{
	if (!pe->choices.late)
		return;
	pe->nr_outstanding--;
	pe->uncounted--;
}

void visibility_bound(struct pe *pe, const struct memory *mem)
{
	while (pe->nr_outstanding > OUTSTANDING_MAX)
		publish_oldest(pe, mem);
}

unsigned int visibility_dsb(struct pe *pe, const struct memory *mem)
{
	unsigned int count = pe->nr_outstanding;

	while (pe->nr_outstanding)
		publish_oldest(pe, mem);
	return count;
}

bool visibility_synchronize(struct pe *pe)
{
	uint64_t before = pe->visible_prod;

	pe->visible_prod = pe->hdbssprod - pe->uncounted;
	return pe->choices.late && pe->visible_prod != before;
}

uint64_t visibility_prod(const struct pe *pe)
{
	return pe->choices.late ? pe->visible_prod : pe->hdbssprod;
}
