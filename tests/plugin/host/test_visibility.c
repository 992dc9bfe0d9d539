// SPDX-License-Identifier: GPL-2.0-or-later
/* Choices by their names, and entries that wait for a barrier. */
#include "append.h"
#include "choices.h"
#include "decode.h"
#include "unit.h"
#include "visibility.h"

#define BUFFER	0x40010000ull

static struct fake fake;
static struct memory memory;
static struct pe pe;

static uint64_t slot(unsigned int index)
{
	return *fake_at(&fake, BUFFER + 8 * index);
}

static void begin(bool late)
{
	free(fake.words);
	memory = fake_memory(&fake);
	memset(&pe, 0, sizeof(pe));
	pe.choices.late = late;
	pe.hdbssbr = BUFFER;
}

static void append(unsigned int index)
{
	EXPECT(visibility_entry(&pe, &memory, BUFFER + 8 * index, 0x1001 + index));
	pe.hdbssprod++;
	visibility_bound(&pe, &memory);
}

static void at_once(void)
{
	begin(false);
	append(0);
	EXPECT_EQUAL(slot(0), 0x1001);
	EXPECT_EQUAL(visibility_prod(&pe), 1);
	EXPECT_EQUAL(visibility_dsb(&pe, &memory), 0);
	EXPECT(!visibility_synchronize(&pe));
	EXPECT(!visibility_entry(&pe, &memory, 0x1000, 1));
}

static void late(void)
{
	unsigned int i;

	begin(true);
	append(0);
	append(1);
	EXPECT(!visibility_synchronize(&pe));
	EXPECT_EQUAL(slot(0), 0);
	EXPECT_EQUAL(visibility_prod(&pe), 0);
	EXPECT_EQUAL(visibility_dsb(&pe, &memory), 2);
	EXPECT_EQUAL(slot(1), 0x1002);
	EXPECT_EQUAL(visibility_prod(&pe), 0);
	EXPECT(visibility_synchronize(&pe));
	EXPECT_EQUAL(visibility_prod(&pe), 2);
	EXPECT(!visibility_synchronize(&pe));
	EXPECT(!visibility_entry(&pe, &memory, 0x1000, 1));

	/* what software writes it sees, and what was outstanding still arrives */
	append(2);
	pe_write(&pe, SYS_HDBSSPROD_EL2, 7);
	EXPECT_EQUAL(visibility_prod(&pe), 7);
	EXPECT(!visibility_synchronize(&pe));
	EXPECT_EQUAL(visibility_dsb(&pe, &memory), 1);
	EXPECT_EQUAL(slot(2), 0x1003);

	/* bounded; taken back */
	begin(true);
	for (i = 0; i < OUTSTANDING_MAX + 3; i++)
		append(i);
	EXPECT_EQUAL(pe.nr_outstanding, OUTSTANDING_MAX);
	EXPECT_EQUAL(slot(2), 0x1003);
	EXPECT_EQUAL(slot(3), 0);
	visibility_synchronize(&pe);
	EXPECT_EQUAL(visibility_prod(&pe), 3);
	EXPECT(visibility_entry(&pe, &memory, BUFFER, 5));
	visibility_take_back(&pe);
	EXPECT_EQUAL(visibility_dsb(&pe, &memory), OUTSTANDING_MAX);
	visibility_synchronize(&pe);
	EXPECT_EQUAL(visibility_prod(&pe), OUTSTANDING_MAX + 3);

	/* the room for one access is never left, whoever forgets the bound */
	for (i = 0; i < 3 * OUTSTANDING_ROOM; i++)
		EXPECT(visibility_entry(&pe, &memory, BUFFER + 8 * (i % 512), i));
	EXPECT_EQUAL(pe.nr_outstanding, OUTSTANDING_ROOM);
	pe_reset(&pe, 0);
	EXPECT_EQUAL(visibility_dsb(&pe, &memory), 0);
}

static void barriers(void)
{
	static const uint32_t dsb[] = {
		0xd5033f9f, 0xd503379f, 0xd5033b9f, 0xd503339f,	/* SY NSH ISH OSH */
		0xd5033e3f,					/* SYnXS */
	};
	static const uint32_t other[] = {
		0xd5033d9f, 0xd5033e9f,		/* DSB LD, ST */
		0xd5033fbf,			/* DMB SY */
		0xd503309f,			/* SSBB */
		0xd503201f,			/* NOP */
	};
	unsigned int i;

	for (i = 0; i < sizeof(dsb) / sizeof(dsb[0]); i++)
		EXPECT(insn_is_dsb(dsb[i]) && !insn_is_isb(dsb[i]));
	for (i = 0; i < sizeof(other) / sizeof(other[0]); i++)
		EXPECT(!insn_is_dsb(other[i]) && !insn_is_isb(other[i]));
	EXPECT(insn_is_isb(0xd5033fdf) && !insn_is_dsb(0xd5033fdf));
}

static void choosing(void)
{
	struct choices choices = { 0 };

	EXPECT(choices_known("visibility") && !choices_known("visib") && !choices_known(""));
	EXPECT(choices_set(&choices, "visibility", "dsb") && choices.late);
	EXPECT(choices_set(&choices, "visibility", "at-once") && !choices.late);
	EXPECT(choices_set(&choices, "lost_cas_keeps_entry", "no"));
	EXPECT(choices.lost_cas_takes_back);
	EXPECT(choices_set(&choices, "external_abort", "precise"));
	EXPECT(choices.external_abort_precise && !choices.gpf_precise);
	EXPECT(choices_set(&choices, "zero_ahead", "262144"));
	EXPECT_EQUAL(choices.zero_ahead, 262144);
	EXPECT_EQUAL(choices.fsc_delay, 0);
	EXPECT(!choices_set(&choices, "zero_ahead", "262145"));
	EXPECT(!choices_set(&choices, "zero_ahead", ""));
	EXPECT(!choices_set(&choices, "zero_ahead", "-1"));
	EXPECT(!choices_set(&choices, "zero_ahead", "1x"));
	EXPECT(!choices_set(&choices, "visibility", "yes"));
	EXPECT(!choices_set(&choices, "no_such", "yes"));
}

int main(void)
{
	at_once();
	late();
	barriers();
	choosing();
	free(fake.words);
	return unit_result("visibility");
}
