// SPDX-License-Identifier: GPL-2.0-or-later
/* argv[1]: directory for files. The mapped RAM file and its bounds. */
#include <fcntl.h>
#include <unistd.h>

#include "ram.h"
#include "unit.h"

#define SIZE	0x10000u

int main(int argc, char **argv)
{
	static const uint64_t outside[] = {
		0, RAM_BASE - 8, RAM_BASE + SIZE, RAM_BASE + SIZE - 4, RAM_BASE + 4, ~7ull, ~0ull,
		RAM_BASE | 1ull << 63,
	};
	char file[4096], error[512];
	struct memory memory;
	struct ram ram = { 0 };
	uint64_t value = 7;
	unsigned int i;
	int fd;

	if (argc != 2)
		return 2;
	EXPECT(!ram_map(&ram, "/no/such/file", error, sizeof(error)));
	EXPECT(strstr(error, "/no/such/file"));
	EXPECT(!ram_map(&ram, argv[1], error, sizeof(error)));
	snprintf(file, sizeof(file), "%s/ram", argv[1]);
	fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0600);
	EXPECT(!ram_map(&ram, file, error, sizeof(error)));	/* empty */
	EXPECT(!ftruncate(fd, SIZE));
	EXPECT(ram_map(&ram, file, error, sizeof(error)));
	memory = ram_memory(&ram);

	for (i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
		EXPECT(!memory_read(&memory, outside[i], &value));
		EXPECT(!memory_write(&memory, outside[i], 1));
		EXPECT_EQUAL(memory_cas(&memory, outside[i], 0, 1), CAS_OUTSIDE);
	}
	EXPECT(memory_write(&memory, RAM_BASE + SIZE - 8, 0x0102030405060708));
	EXPECT_EQUAL(pread(fd, &value, 8, SIZE - 8), 8);
	EXPECT_EQUAL(value, 0x0102030405060708);
	EXPECT_EQUAL(memory_cas(&memory, RAM_BASE + SIZE - 8, 5, 6), CAS_LOST);
	EXPECT_EQUAL(memory_cas(&memory, RAM_BASE + SIZE - 8, 0x0102030405060708, 6), CAS_WON);
	memory.big_endian = true;
	EXPECT(memory_read(&memory, RAM_BASE + SIZE - 8, &value));
	EXPECT_EQUAL(value, 6ull << 56);
	close(fd);
	return unit_result("ram");
}
