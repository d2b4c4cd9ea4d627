/* What part.c and part_fields.c share. */
#ifndef MIME_PART_PRIV_H
#define MIME_PART_PRIV_H

#include "mime/header.h"
#include "mime/part.h"

struct part_fields {
	struct arena *a;
	struct buf scratch;
	struct mime_envelope *envelope; /* where the part is a message's beginning, else NULL */
	size_t items;			/* MIME_ITEMS_MAX: so far, in the whole message */
	bool has_type;
	str boundary; /* of a multipart, p NULL when it names none */
};

/* Takes note of one field of the part. */
MUST_USE enum err part_field(struct part_fields *pf, struct mime_part *p,
			     const struct header_field *f);

#endif
