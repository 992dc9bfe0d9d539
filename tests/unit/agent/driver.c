// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The pure parts of the agent, driven from pytest: `driver WHAT ARGS < input`.
 * Built with ASan and UBSan; inputs are copied into exact heap blocks, so that
 * one byte too far is seen.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bits.h"
#include "frame.h"
#include "klog_record.h"
#include "program.h"
#include "truth.h"

static char *input;
static size_t input_len;

static void *exact(const void *from, size_t len)
{
	void *p = malloc(len ? len : 1);

	if (!p)
		abort();
	memcpy(p, from, len);
	return p;
}

static void read_input(void)
{
	size_t size = 1 << 16, n;
	char *buf = malloc(size);

	while (buf && (n = fread(buf + input_len, 1, size - input_len, stdin)) > 0) {
		input_len += n;
		if (input_len == size)
			buf = realloc(buf, size *= 2);
	}
	if (!buf)
		abort();
	input = exact(buf, input_len);
	free(buf);
}

static uint64_t number(const char *s)
{
	return strtoull(s, NULL, 0);
}

/* For each line: `LINE empty`, `LINE bad WHY` or `LINE OP name=value...`. */
static void parse(void)
{
	size_t pos = 0, len;
	const char *line, *why;
	unsigned int nr = 0;
	struct op op;

	while (program_next_line(input, input_len, &pos, &line, &len)) {
		char *copy = exact(line, len);
		enum program_status status = program_parse_line(copy, len, &op, &why);

		printf("%u ", ++nr);
		if (status == PROGRAM_EMPTY)
			printf("empty");
		else if (status == PROGRAM_BAD)
			printf("bad %s", why);
		else
			printf("%s", op.spec->name);
		for (unsigned int i = 0; status == PROGRAM_OP && i < op.nr_args; i++) {
			const char *name = op.args[i].spec->name;

			printf(" %s%s=%" PRIu64, op_given(&op, name) ? "" : "~", name,
			       op_value(&op, name));
		}
		printf("\n");
		free(copy);
	}
}

static void list(uint64_t nr, size_t size)
{
	uint64_t *bits = exact(input, bits_words(nr) * 8), from = 0;

	printf("%" PRIu64 "\n", bits_count(bits, nr));
	do {
		char *buf = malloc(size);
		size_t len = bits_list(bits, nr, &from, buf, size);

		printf("%.*s\n", (int)len, buf);
		free(buf);
	} while (from < nr);
	free(bits);
}

static void keep(uint64_t nr, uint64_t first, uint64_t pages)
{
	uint64_t *bits = exact(input, bits_words(nr) * 8), from = 0;
	char buf[4096];

	bits_keep(bits, nr, first, pages);
	bits_list(bits, nr, &from, buf, sizeof(buf));
	printf("%s\n", buf);
	free(bits);
}

/* Input: the memory, then the copy. Output: the pages that differ, then the copy. */
static void truth(uint64_t pages, int lane, const char *what)
{
	size_t bytes = truth_bytes(pages, lane);
	void *mem = exact(input, pages * PAGE_BYTES);
	void *copy = exact(input + pages * PAGE_BYTES, bytes);
	uint64_t *diff = malloc(bits_words(pages) * 8), from = 0;
	char buf[4096];

	memset(diff, 0xff, bits_words(pages) * 8);
	if (strcmp(what, "copy-all") == 0) {
		truth_copy(mem, pages, lane, copy, NULL);
	} else if (strcmp(what, "copy-odd") == 0) {
		memset(diff, 0xaa, bits_words(pages) * 8);
		truth_copy(mem, pages, lane, copy, diff);
	} else if (strcmp(what, "pages") == 0) {
		memset(diff, 0, bits_words(pages) * 8);
		for (uint64_t page = 0; page < pages; page++)
			if (truth_page_differs(mem, page, lane, copy))
				bits_set(diff, page);
	} else {
		truth_diff(mem, pages, lane, copy, strcmp(what, "update") == 0, diff);
	}
	bits_list(diff, pages, &from, buf, sizeof(buf));
	printf("%s\n", buf);
	fwrite(copy, 1, bytes, stdout);
	free(mem);
	free(copy);
	free(diff);
}

static void frame(uint64_t seq, unsigned int line)
{
	char *body = calloc(1, input_len + 1), *out = malloc(FRAME_MAX);

	memcpy(body, input, input_len);
	fwrite(out, 1, frame_build(out, seq, line, body), stdout);
	free(body);
	free(out);
}

static void encode(size_t size)
{
	char *out = malloc(size);

	fwrite(out, 1, frame_encode(out, size, input, input_len), stdout);
	free(out);
}

/* One record, as the operation in `line` counts it. */
static void klog(const char *line)
{
	const char *text, *why;
	unsigned int level;
	struct op op;
	size_t len;

	if (program_parse_line(line, strlen(line), &op, &why) != PROGRAM_OP)
		abort();
	if (klog_record(input, input_len, (unsigned int)op_value(&op, "level"), &level, &text,
			&len))
		printf("%u %.*s\n", level, (int)len, text);
	else
		printf("no\n");
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	read_input();
	if (strcmp(what, "parse") == 0)
		parse();
	else if (strcmp(what, "crc") == 0)
		printf("%08" PRIx32 "\n", frame_crc32(input, input_len));
	else if (strcmp(what, "frame") == 0 && argc == 4)
		frame(number(argv[2]), (unsigned int)number(argv[3]));
	else if (strcmp(what, "encode") == 0 && argc == 3)
		encode(number(argv[2]));
	else if (strcmp(what, "list") == 0 && argc == 4)
		list(number(argv[2]), number(argv[3]));
	else if (strcmp(what, "keep") == 0 && argc == 5)
		keep(number(argv[2]), number(argv[3]), number(argv[4]));
	else if (strcmp(what, "truth") == 0 && argc == 5)
		truth(number(argv[2]), atoi(argv[3]), argv[4]);
	else if (strcmp(what, "klog") == 0 && argc == 3)
		klog(argv[2]);
	else if (strcmp(what, "read-too-far") == 0)	/* must be caught by ASan */
		printf("%d\n", ((volatile char *)input)[input_len]);
	else
		return 2;
	free(input);
	return 0;
}
