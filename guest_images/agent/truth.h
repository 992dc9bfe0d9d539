/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The truth about dirty pages: guest memory compared with an earlier copy of
 * it. With a lane only the 8 bytes at offset 8 * lane of each page count, so
 * that slots which share one memory have a truth each; the copy then holds one
 * word a page. lane = -1: whole pages. `mem` may be written by vCPUs meanwhile.
 */
#ifndef AGENT_TRUTH_H
#define AGENT_TRUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096ULL
#define PAGE_WORDS (PAGE_BYTES / 8)

/* Bytes that a copy of `pages` pages needs. */
size_t truth_bytes(uint64_t pages, int lane);

/* Bring the copy up to date, all pages or those in the bitmap `only`. */
void truth_copy(const void *mem, uint64_t pages, int lane, void *copy, const uint64_t *only);

/*
 * Set in diff (bits_words(pages) words, overwritten) the pages that differ
 * from the copy; `update` also brings the copy up to date, in such a way that
 * a store during the comparison is found now or the next time, never lost.
 */
void truth_diff(const void *mem, uint64_t pages, int lane, void *copy, bool update, uint64_t *diff);

/* Whether one page differs from the copy. */
bool truth_page_differs(const void *mem, uint64_t page, int lane, const void *copy);

#endif
