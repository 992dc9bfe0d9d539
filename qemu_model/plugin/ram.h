/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef HDBSS_RAM_H
#define HDBSS_RAM_H

#include "memory.h"

#define RAM_BASE	0x40000000ull	/* of QEMU's machine "virt" */

/* The RAM of the machine, mapped from the file of its memory-backend-file. */
struct ram {
	uint64_t base;	/* guest physical address of the first byte */
	uint64_t size;	/* bytes */
	unsigned char *host;
};

/* Map FILE; false with the reason in error (at most size bytes) if it cannot be. */
bool ram_map(struct ram *ram, const char *file, char *error, unsigned int size);

/*
 * Whether this process, QEMU, has FILE mapped too, so that both see the same. If so,
 * RAM is no longer than that mapping, however long the file is. Else the reason.
 */
bool ram_is_shared(struct ram *ram, const char *file, char *error, unsigned int size);

/* The accessor on it. */
struct memory ram_memory(struct ram *ram);

#endif
