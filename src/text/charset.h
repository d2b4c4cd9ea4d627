/* Any charset to UTF-8, through iconv.
 *
 * Bytes that the charset does not have become U+FFFD, one for each run that iconv rejects byte by
 * byte; nothing is lost silently and nothing fails but for a full buffer.
 *
 * glibc loads a charset's code from a file when it is first used. A role that will not be able to
 * open files calls charset_preload before it locks itself in, and keeps the result. */
#ifndef TEXT_CHARSET_H
#define TEXT_CHARSET_H

#include "base/buf.h"

#define CHARSET_NAME_MAX 64

/* ASCII and UTF-8 are known without iconv. A name that is empty, too long or not made of letters,
 * digits and ". _ : + -" is unknown. */
bool charset_is_known(str name);

/* The whole of `bytes`. ERR_UNSUPPORTED when the charset is unknown (nothing is written). */
MUST_USE enum err charset_to_utf8(str name, str bytes, struct buf *out);

/* A stream. `charset_new` returns NULL for an unknown charset or without memory. */
struct charset;
struct charset *charset_new(str name);
void charset_free(struct charset *c); /* NULL is allowed */
void charset_feed(struct charset *c, str piece, struct buf *out);
void charset_end(struct charset *c, struct buf *out); /* an unfinished character becomes U+FFFD */

/* Loads the charsets that mail uses; they stay loaded until charset_preload_free. NULL without
 * memory.
 */
struct charset_preload;
struct charset_preload *charset_preload(void);
void charset_preload_free(struct charset_preload *p);

#endif
