/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests and their report: KTAP version 1 on the console, one line a test. */
#ifndef KTAP_H
#define KTAP_H

#include <stdbool.h>
#include <stdint.h>

/* One test: passes unless a check fails in it, or something unexpected is taken to EL2. */
struct test {
	const char *name;
	void (*run)(void);
	const void *argument;
	unsigned int pes;	/* that it needs; 0: one is enough */
};

/* Tests of one subject; @begin comes before each of them. NULL where there is none. */
struct group {
	const char *name;
	void (*begin)(void);
	const struct test *tests;
	unsigned int count;
};

#define GROUP(name_, begin_, tests_) \
	{ name_, begin_, tests_, sizeof(tests_) / sizeof((tests_)[0]) }

/* A program's groups, with NULL behind the last one. */
extern const struct group *const groups[];
/* The test that runs now. */
extern const struct test *this_test;

/* What the current test requires: it fails unless @good, and says so. */
void check(const char *required, bool good);
void check_equal(const char *required, uint64_t seen, uint64_t wanted);
/* @seen must be one of two: what the architecture leaves open. */
void check_either(const char *required, uint64_t seen, uint64_t one, uint64_t other);
/* The current test cannot be made here: its failures and passes do not count. */
void skip(const char *reason);
/* The current test fails for a reason that the README tells; if it passes, it passes. */
void expect_failure(const char *reason);

/* Give the current test up, at EL2 of PE 0. */
void ktap_unexpected(uint64_t esr, uint64_t elr);
void ktap_run(void);

#endif
