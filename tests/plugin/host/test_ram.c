// SPDX-License-Identifier: GPL-2.0-or-later
/* argv[1]: directory for files. The mapped RAM file and its bounds, and who maps it too. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ram.h"
#include "unit.h"

#define SIZE	0x10000u

/* What QEMU makes of its memory-backend-file */
static unsigned char *as_qemu(int fd, size_t size, int flags)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
}

static void shared_with_qemu(struct ram *ram, const char *file, int fd)
{
	unsigned char *qemu;
	char error[512];

	EXPECT(!ram_is_shared(ram, file, error, sizeof(error)));
	EXPECT(strstr(error, file) && strstr(error, "is not the machine's RAM"));
	qemu = as_qemu(fd, SIZE, MAP_PRIVATE);
	EXPECT(!ram_is_shared(ram, file, error, sizeof(error)));
	EXPECT(strstr(error, file) && strstr(error, "share=on"));
	munmap(qemu, SIZE);

	qemu = as_qemu(fd, SIZE, MAP_SHARED);
	/* listed in three pieces */
	EXPECT(!mprotect(qemu + SIZE / 4, SIZE / 4, PROT_READ));
	EXPECT(ram_is_shared(ram, file, error, sizeof(error)));
	EXPECT_EQUAL(ram->size, SIZE);
	munmap(qemu, SIZE);

	/* the machine has less than the file */
	qemu = as_qemu(fd, SIZE / 2, MAP_SHARED);
	EXPECT(ram_is_shared(ram, file, error, sizeof(error)));
	EXPECT_EQUAL(ram->size, SIZE / 2);
	munmap(qemu, SIZE / 2);
}

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

	shared_with_qemu(&ram, file, fd);
	EXPECT(!memory_read(&memory, RAM_BASE + SIZE / 2, &value));
	EXPECT(memory_read(&memory, RAM_BASE + SIZE / 2 - 8, &value));
	close(fd);
	return unit_result("ram");
}
