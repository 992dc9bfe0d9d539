// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Guest RAM through a mapping of the file that backs it (share=on). QEMU's own
 * way in, qemu_plugin_write_memory_hwaddr(), is not atomic against the other
 * vCPUs; on the mapping a descriptor update is a real compare-and-swap.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ram.h"

bool ram_map(struct ram *ram, const char *file, char *error, unsigned int size)
{
	struct stat st;
	void *host;
	int fd;

	fd = open(file, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		snprintf(error, size, "cannot open ram=%s: %s", file, strerror(errno));
		return false;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < 8) {
		snprintf(error, size,
			 "ram=%s is not the machine's RAM: name the mem-path= of its memory-backend-file",
			 file);
		close(fd);
		return false;
	}
	host = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (host == MAP_FAILED) {
		snprintf(error, size, "cannot map ram=%s: %s", file, strerror(errno));
		close(fd);
		return false;
	}
	close(fd);
	ram->base = RAM_BASE;
	ram->size = (uint64_t)st.st_size;
	ram->host = host;
	return true;
}

/* A line of /proc/self/maps */
struct mapping {
	uintptr_t start, end;
	char access[5];
	uint64_t offset;
	unsigned int major, minor;
	uint64_t inode;
};

static bool next_mapping(FILE *maps, struct mapping *m)
{
	int got = fscanf(maps, "%" SCNxPTR "-%" SCNxPTR " %4s %" SCNx64 " %x:%x %" SCNu64 "%*[^\n]",
			 &m->start, &m->end, m->access, &m->offset, &m->major, &m->minor,
			 &m->inode);

	return got == 7;
}

/* By what the kernel prints of both: stat() may name another device. */
static bool same_file(const struct mapping *one, const struct mapping *other)
{
	return one->major == other->major && one->minor == other->minor &&
	       one->inode == other->inode;
}

/*
 * The mapping of our file that is not our own, from the file's beginning on; the
 * kernel may list it in pieces. Its length, 0 if there is none.
 */
static uint64_t mapped_by_qemu(FILE *maps, uintptr_t own_start, bool *shared)
{
	struct mapping m, own = { 0 };
	uint64_t length = 0;
	uintptr_t end = 0;

	while (!own.end && next_mapping(maps, &m))
		if (m.start == own_start)
			own = m;
	rewind(maps);
	while (own.end && next_mapping(maps, &m)) {
		if (m.start == own_start || !same_file(&m, &own) || m.offset != length ||
		    (length && m.start != end))
			continue;
		*shared = m.access[3] == 's';
		length += m.end - m.start;
		end = m.end;
	}
	return length;
}

bool ram_is_shared(struct ram *ram, const char *file, char *error, unsigned int size)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	bool shared = false;
	uint64_t length;

	if (!maps) {
		snprintf(error, size, "cannot read /proc/self/maps: %s", strerror(errno));
		return false;
	}
	length = mapped_by_qemu(maps, (uintptr_t)ram->host, &shared);
	fclose(maps);
	if (!length || !shared) {
		snprintf(error, size,
			 length ? "ram=%s is not shared: give its memory-backend-file share=on" :
				  "ram=%s is not the machine's RAM: name the mem-path= of its memory-backend-file",
			 file);
		return false;
	}
	if (length < ram->size)
		ram->size = length;	/* the file is longer */
	return true;
}

/* Written so that no PA can overflow it: a guest chooses PA freely. */
static uint64_t *ram_at(struct ram *ram, uint64_t pa)
{
	if (pa % 8 || pa < ram->base || pa - ram->base > ram->size - 8)
		return NULL;
	return (uint64_t *)(ram->host + (pa - ram->base));
}

static bool ram_read64(void *ctx, uint64_t pa, uint64_t *value)
{
	uint64_t *at = ram_at(ctx, pa);

	if (!at)
		return false;
	*value = __atomic_load_n(at, __ATOMIC_ACQUIRE);
	return true;
}

static bool ram_write64(void *ctx, uint64_t pa, uint64_t value)
{
	uint64_t *at = ram_at(ctx, pa);

	if (!at)
		return false;
	__atomic_store_n(at, value, __ATOMIC_RELEASE);
	return true;
}

static enum cas_result ram_cas64(void *ctx, uint64_t pa, uint64_t old, uint64_t new)
{
	uint64_t *at = ram_at(ctx, pa);

	if (!at)
		return CAS_OUTSIDE;
	if (__atomic_compare_exchange_n(at, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return CAS_WON;
	return CAS_LOST;
}

struct memory ram_memory(struct ram *ram)
{
	return (struct memory){
		.ctx = ram,
		.read64 = ram_read64,
		.write64 = ram_write64,
		.cas64 = ram_cas64,
	};
}
