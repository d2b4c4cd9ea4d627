/* What FETCH asks for (RFC 3501 6.4.5). */
#ifndef IMAP_FETCH_ITEMS_H
#define IMAP_FETCH_ITEMS_H

#include "imap/parser.h"
#include "mime/section.h"

enum imap_fetch_items {
	IMAP_FETCH_UID = 1,
	IMAP_FETCH_FLAGS = 2,
	IMAP_FETCH_INTERNALDATE = 4,
	IMAP_FETCH_SIZE = 8,
	IMAP_FETCH_ENVELOPE = 16,
	IMAP_FETCH_BODY = 32, /* the structure without extensions */
	IMAP_FETCH_BODYSTRUCTURE = 64,
};

enum { IMAP_SECTIONS_MAX = 100, IMAP_HEADER_NAMES_MAX = 1000 };

struct imap_section {
	struct section section;
	bool is_peek;
	bool is_partial;
	uint32_t from, count;
	str label; /* as the answer names it: "BODY[TEXT]<0>", "RFC822.HEADER" */
	struct imap_section *next;
};

struct imap_fetch {
	unsigned items; /* enum imap_fetch_items */
	struct imap_section *sections;
	size_t section_count;
};

/* One item, a macro, or a list of items in parentheses. */
MUST_USE enum err imap_parse_fetch(struct imap_parser *p, struct imap_fetch *out);

#endif
