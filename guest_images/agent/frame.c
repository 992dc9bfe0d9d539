// SPDX-License-Identifier: GPL-2.0-or-later
#include "frame.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

uint32_t frame_crc32(const void *data, size_t len)
{
	/* The reflected polynomial 0xedb88320, four bits a step. */
	static const uint32_t table[16] = {
		0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac,
		0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
		0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
		0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
	};
	const uint8_t *p = data;
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return ~crc;
}

size_t frame_build(char *out, uint64_t seq, unsigned int line, const char *body)
{
	char text[FRAME_MAX];
	size_t len = (size_t)snprintf(text, sizeof(text), "%" PRIu64 " ", seq);
	size_t seq_len = len;

	len += (size_t)snprintf(text + len, sizeof(text) - len, "%u %.*s", line,
				FRAME_BODY_MAX, body);
	for (size_t i = 0; i < len; i++)
		if (text[i] < ' ' || text[i] > '~')
			text[i] = '?';
	return (size_t)snprintf(out, FRAME_MAX, "@HDBSS %.*s%08" PRIx32 " %s\n", (int)seq_len,
				text, frame_crc32(text, len), text + seq_len);
}

size_t frame_encode(char *out, size_t size, const char *text, size_t len)
{
	static const char plain[] = "-._~/:+";
	static const char hex[] = "0123456789abcdef";
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		int keep = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
			   (c >= 'A' && c <= 'Z') || (c && strchr(plain, c));

		if (n + (keep ? 1 : 3) >= size)
			break;
		if (keep) {
			out[n++] = (char)c;
		} else {
			out[n++] = '%';
			out[n++] = hex[c >> 4];
			out[n++] = hex[c & 15];
		}
	}
	out[n] = '\0';
	return n;
}
