/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The form of a frame: `@HDBSS <seq> <crc> <line> <kind> <key=value>...\n`, at
 * most FRAME_MAX bytes with the newline. crc is the CRC-32 of zlib, 8 hex
 * digits, over `<seq> <line> <kind> <key=value>...`.
 */
#ifndef AGENT_FRAME_H
#define AGENT_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define FRAME_MAX 4096
#define FRAME_HEAD_MAX 64		/* `@HDBSS ` + seq + crc + line + blanks */
#define FRAME_BODY_MAX (FRAME_MAX - FRAME_HEAD_MAX)

uint32_t frame_crc32(const void *data, size_t len);

/*
 * Build a frame in out (FRAME_MAX bytes, not NUL-terminated) from the body
 * `<kind> <key=value>...`; a longer body than FRAME_BODY_MAX is cut. A byte
 * that is not printable ASCII becomes `?`. Returns the frame's length.
 */
size_t frame_build(char *out, uint64_t seq, unsigned int line, const char *body);

/*
 * Percent-encode len bytes of text (everything but letters, digits and
 * -._~/:+) into out, cut to what fits in size with its NUL. Returns strlen(out).
 */
size_t frame_encode(char *out, size_t size, const char *text, size_t len);

#endif
