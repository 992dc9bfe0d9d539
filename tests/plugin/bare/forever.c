// SPDX-License-Identifier: GPL-2.0-or-later
/* Never ends: guests come and go until QEMU is told to stop. */
#include <stddef.h>

#include "bare.h"
#include "ktap.h"

static void forever(void)
{
	static struct guest guest;
	struct stage2 s2;

	stage2_init(&s2, 12, 1, 39, false);
	stage2_map_code(&s2, 3, READ_ONLY);
	hdbssbr_write(take(4096));
	for (;;) {
		hdbssprod_write(0);
		stage2_map(&s2, DATA, DATA, 3, CLEAN);
		stage2_use(&s2, VTCR_TRACK, 0);
		run(&guest, el1_store, DATA, 1, 1, 0);
	}
}

static const struct test tests[] = {
	{ .name = "forever", .run = forever },
};

static const struct group group = GROUP("forever", NULL, tests);
const struct group *const groups[] = { &group, NULL };
