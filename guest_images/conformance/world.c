// SPDX-License-Identifier: GPL-2.0-or-later
#include "world.h"

struct guest guest;
struct stage2 s2;
u64 buffer;

void world_begin(void)
{
	guest = (struct guest){ 0 };
	buffer = take(8192);
	stage2_init(&s2, 12, 1, 39, false);
	stage2_map_code(&s2, 3, READ_ONLY);
	hdbssbr_write(buffer);
	hdbssprod_write(0);
	stage2_use(&s2, VTCR_TRACK, 0);
}

volatile u64 *page(unsigned int number, u64 attributes)
{
	volatile u64 *descriptor = stage2_map(&s2, PAGE(number), PAGE(number), 3, attributes);

	tlb_flush();
	return descriptor;
}

u64 entries_of(const char *code, u64 address)
{
	u64 before = hdbssprod_read() & HDBSSPROD_INDEX;

	check("the guest ends", ended(run(&guest, code, address, 0x1234, 1, 4096)));
	return (hdbssprod_read() & HDBSSPROD_INDEX) - before;
}

void check_undefined(const char *what, u64 esr, bool el0)
{
	check(what, ESR_EC(esr) == EC_HVC && (esr & 0xffff) == (el0 ? 3 : 2));
	check_equal("taken to EL1 as UNDEFINED", ESR_EC(guest.x[1]), EC_UNKNOWN);
}

bool refused(u64 esr)
{
	return ESR_EC(esr) == EC_DABT &&
	       (esr & (ESR_HDBSSF | ESR_S1PTW | ESR_CM | ESR_WNR | 0x3f)) ==
		       (ESR_HDBSSF | ESR_WNR | 0x0f);
}
