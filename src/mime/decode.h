/* The text of a part: transfer encoding and charset undone, as UTF-8, for SEARCH BODY and TEXT, for
 * indexing and for filters.
 *
 * The bytes of the part may come in pieces of any size, and what is written is the same as for the
 * whole. `budget` bounds what one part may become: past it the decoder writes nothing more and says
 * so. */
#ifndef MIME_DECODE_H
#define MIME_DECODE_H

#include "mime/part.h"

struct mime_decoder;

/* NULL without memory. An unknown charset is read as UTF-8 with bad bytes replaced; for parts that
 * are not text the transfer encoding alone is undone. */
struct mime_decoder *mime_decoder_new(const struct mime_part *p, size_t budget);
void mime_decoder_free(struct mime_decoder *d); /* NULL is allowed */

/* Adds what the piece becomes to out. ERR_TOO_LONG once the budget is used up; ERR_NO_MEMORY when
 * out or memory is full. */
MUST_USE enum err mime_decoder_feed(struct mime_decoder *d, str piece, struct buf *out);
MUST_USE enum err mime_decoder_end(struct mime_decoder *d, struct buf *out);

/* A whole part at once. */
MUST_USE enum err mime_decode(const struct mime_part *p, str message, size_t budget,
			      struct buf *out);

#endif
