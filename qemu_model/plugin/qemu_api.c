// SPDX-License-Identifier: GPL-2.0-or-later
#include <stdio.h>
#include <string.h>

#include "qemu_api.h"

QEMU_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

bool qemu_api_usable(const qemu_info_t *info)
{
	if (info->version.min > QEMU_PLUGIN_VERSION || info->version.cur < QEMU_PLUGIN_VERSION) {
		fprintf(stderr,
			"hdbss: this QEMU offers plugin API versions %d to %d, the plugin needs %d: use QEMU 11.1\n",
			info->version.min, info->version.cur, QEMU_PLUGIN_VERSION);
		return false;
	}
	if (!info->system_emulation || strcmp(info->target_name, "aarch64")) {
		fprintf(stderr,
			"hdbss: this is QEMU for %s, the plugin needs qemu-system-aarch64\n",
			info->target_name);
		return false;
	}
	return true;
}
