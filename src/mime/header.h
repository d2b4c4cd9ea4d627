/* Header fields of a raw header block.
 *
 * Everything is a view into the block: no byte is copied, changed or lost, and the raw slices of
 * all fields and the blank line, put together, are the block again. Line ends are CRLF or LF. A line
 * without a colon that is not a continuation is a field of its own whose name is the whole line and
 * whose `value` is empty; such lines are common in broken mail and end nothing.
 *
 *	str rest = block;
 *	struct header_field f;
 *	while (header_next(&rest, &f))
 *		if (str_case_eq(f.name, S("subject"))) ...
 */
#ifndef MIME_HEADER_H
#define MIME_HEADER_H

#include "base/arena.h"
#include "base/buf.h"

struct header_field {
	str raw;   /* the field with its line ends */
	str name;  /* without white space before the colon */
	str value; /* behind the colon and the white space there; folds as they are; no last line
		      end */
	bool has_colon;
};

/* The length of the header block at the front of a message, its blank line included. */
size_t header_block_length(str message);

/* Does the block end with its blank line? */
bool header_has_end(str block);

/* The next field; false at the blank line or the end. *rest then begins with the blank line. */
bool header_next(str *rest, struct header_field *f);

/* The first field of that name; false when there is none. */
bool header_find(str block, str name, struct header_field *f);

/* The value on one line: CR and LF are removed, the white space of the fold stays. Without folds it
 * is the value itself; otherwise a copy in the arena, with p NULL when there is no room. */
str header_unfold(str value, struct arena *a);

/* RFC 3501 6.4.5: HEADER.FIELDS and HEADER.FIELDS.NOT. The fields that are (`keep`) or are not
 * (!keep) named, byte for byte, in their order, and the block's blank line if it has one. A line
 * without a colon has no name. */
void header_select(str block, const str *names, size_t count, bool keep, struct buf *out);

#endif
