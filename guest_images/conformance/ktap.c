// SPDX-License-Identifier: GPL-2.0-or-later
/* Runs the selected tests of the program's groups and reports them as KTAP. */
#include <stddef.h>

#include "bare.h"
#include "ktap.h"
#include "parameters.h"

#define REASON_SIZE	400
#define TOLD_MAX	10		/* failed checks of one test that are told */

const struct test *this_test;

static struct {
	unsigned int failures;
	bool skipped, expected;
	char reason[REASON_SIZE];	/* of the first failure, the skip, the known failure */
	unsigned int length;
	uint32_t lock;			/* several PEs may fail at once */
} state;

static void *escape[5];			/* of __builtin_setjmp */

static void reason_add(const char *text)
{
	while (*text && state.length + 1 < REASON_SIZE)
		state.reason[state.length++] = *text++;
	state.reason[state.length] = '\0';
}

static const char *hex(u64 value, char digits[19])
{
	unsigned int length = 1, i;

	while (length < 16 && value >> (4 * length))
		length++;
	digits[0] = '0';
	digits[1] = 'x';
	for (i = 0; i < length; i++)
		digits[2 + i] = "0123456789abcdef"[value >> (4 * (length - 1 - i)) & 15];
	digits[2 + length] = '\0';
	return digits;
}

static void reason_add_hex(const char *text, u64 value)
{
	char digits[19];

	reason_add(text);
	reason_add(hex(value, digits));
}

void say_hex(const char *text, u64 value)
{
	char digits[19];

	say(text);
	say(hex(value, digits));
}

static void say_number(unsigned int value)
{
	char digits[11];
	unsigned int at = sizeof(digits) - 1;

	digits[at] = '\0';
	do
		digits[--at] = (char)('0' + value % 10);
	while (value /= 10);
	say(digits + at);
}

static void lock(void)
{
	while (__atomic_exchange_n(&state.lock, 1, __ATOMIC_ACQUIRE))
		asm volatile("yield");
}

static void unlock(void)
{
	__atomic_store_n(&state.lock, 0, __ATOMIC_RELEASE);
}

/* @wanted NULL: there is nothing to compare */
static void fail(const char *required, u64 seen, const u64 *wanted, const u64 *other)
{
	lock();
	if (state.failures++ == 0 && !state.skipped) {
		state.length = 0;
		reason_add(required);
		if (wanted) {
			reason_add_hex(": required ", *wanted);
			if (other)
				reason_add_hex(" or ", *other);
			reason_add_hex(", seen ", seen);
		}
	} else if (state.failures <= TOLD_MAX) {
		say("# also: ");
		say(required);
		if (wanted) {
			say_hex(": required ", *wanted);
			if (other)
				say_hex(" or ", *other);
			say_hex(", seen ", seen);
		}
		say("\n");
	}
	unlock();
}

void check(const char *required, bool good)
{
	if (!good)
		fail(required, 0, NULL, NULL);
}

void check_equal(const char *required, u64 seen, u64 wanted)
{
	if (seen != wanted)
		fail(required, seen, &wanted, NULL);
}

void check_either(const char *required, u64 seen, u64 one, u64 other)
{
	if (seen != one && seen != other)
		fail(required, seen, &one, &other);
}

void skip(const char *reason)
{
	state.skipped = true;
	state.length = 0;
	reason_add(reason);
}

static const char *known_reason;

void expect_failure(const char *reason)
{
	state.expected = true;
	known_reason = reason;
}

/* Called from start.S */
void ktap_unexpected(u64 esr, u64 elr)
{
	lock();
	state.skipped = state.expected = false;
	if (state.failures++ == 0) {
		state.length = 0;
		reason_add_hex("no unexpected exception at EL2: seen ESR_EL2 ", esr);
		reason_add_hex(" at ", elr);
	}
	unlock();
	if (!(sysreg_read(mpidr_el1) & 0xff) && this_test)	/* TPIDR_EL2 may be anything */
		__builtin_longjmp(escape, 1);
	say("Bail out! ");
	say(state.reason);
	say("\n");
	power_off();
}

/* What a test may find of the one before it */
static void registers_anew(void)
{
	sysreg_write(hcr_el2, HCR_RW);
	sysreg_write(vtcr_el2, 0);
	sysreg_write(sctlr_el1, SCTLR_EL1_OFF);
	tlb_flush();
	take_anew();
}

static void run_test(const struct group *group, const struct test *test)
{
	state.failures = 0;
	state.skipped = state.expected = false;
	state.length = 0;
	state.reason[0] = '\0';
	this_test = test;
	if (test->pes > cpu_count()) {
		skip("it needs more PEs");
		return;
	}
	if (__builtin_setjmp(escape))
		return;
	registers_anew();
	if (group->begin)
		group->begin();
	test->run();
}

static bool selected(const struct group *group, const struct test *test)
{
	return parameter_selects(group->name, test->name);
}

void ktap_run(void)
{
	enum { PASS, FAIL, XFAIL, SKIP, OUTCOMES };
	unsigned int total = 0, number = 0, counts[OUTCOMES] = { 0 }, i;
	const struct group *const *each, *group;

	say("KTAP version 1\n# parameters: ");
	say(parameters_text());
	say("\n");
	for (each = groups; (group = *each); each++)
		for (i = 0; i < group->count; i++)
			total += selected(group, &group->tests[i]);
	say("1..");
	say_number(total);
	say("\n");
	for (each = groups; (group = *each); each++)
		for (i = 0; i < group->count; i++) {
			const struct test *test = &group->tests[i];
			unsigned int outcome;

			if (!selected(group, test))
				continue;
			run_test(group, test);
			this_test = NULL;
			outcome = state.skipped ? SKIP : !state.failures ? PASS :
				  state.expected ? XFAIL : FAIL;
			counts[outcome]++;
			say(outcome == FAIL ? "not ok " : "ok ");
			say_number(++number);
			say(" ");
			say(group->name);
			say(".");
			say(test->name);
			if (outcome == SKIP)
				say(" # SKIP ");
			else if (outcome == XFAIL) {
				say(" # XFAIL ");
				say(known_reason);
				say("; ");
			} else if (outcome == FAIL)
				say(" # ");
			if (outcome != PASS)
				say(state.reason);
			say("\n");
		}
	say("# Totals: pass:");
	say_number(counts[PASS]);
	say(" fail:");
	say_number(counts[FAIL]);
	say(" xfail:");
	say_number(counts[XFAIL]);
	say(" xpass:0 skip:");
	say_number(counts[SKIP]);
	say(" error:0\n");
}
