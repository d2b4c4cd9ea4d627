/* BODY[section] of IMAP (RFC 3501 and RFC 9051 6.4.5). */
#ifndef MIME_SECTION_H
#define MIME_SECTION_H

#include "mime/part.h"

enum section_what {
	SECTION_ALL,	    /* no name: the part's body, or the whole message */
	SECTION_HEADER,	    /* of a message: the root or a message/rfc822 part */
	SECTION_FIELDS,	    /* HEADER.FIELDS (list) */
	SECTION_FIELDS_NOT, /* HEADER.FIELDS.NOT (list) */
	SECTION_TEXT,
	SECTION_MIME, /* a part's own header; needs numbers */
};

struct section {
	enum section_what what;
	uint32_t path[MIME_DEPTH_MAX];
	size_t depth; /* 0: the message itself */
	const str *fields;
	size_t field_count;
};

/* Reads "1.2.HEADER", "TEXT", "" and so on; for the two FIELDS forms, *rest is left at the space
 * before the list, which the caller reads and puts into the section. Otherwise *rest is left behind
 * the section. ERR_SYNTAX. */
MUST_USE enum err section_parse(str *rest, struct section *out);

/* The bytes of a section. *out borrows from the message, or for the FIELDS forms from `built`,
 * where the bytes are added. ERR_NOT_FOUND when the message has no such part (NIL to the client),
 * ERR_NO_MEMORY. */
MUST_USE enum err section_find(const struct mime_part *root, str message, const struct section *s,
			       struct buf *built, str *out);

/* What the FIELDS forms take from the message's header block, for a caller that has no more of the
 * message than that. */
void section_select(str block, const struct section *s, struct buf *out);

/* The part that the numbers name, NULL when there is none. With no numbers it is the root. */
const struct mime_part *section_part(const struct mime_part *root, const uint32_t *path,
				     size_t depth);

#endif
