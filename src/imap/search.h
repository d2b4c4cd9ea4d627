/* Does a message match a SEARCH? Over anything that can give its row, header and text, so that it
 * can be tested without a store. */
#ifndef IMAP_SEARCH_H
#define IMAP_SEARCH_H

#include "imap/search_keys.h"
#include "imap/view.h"
#include "mime/part.h"

struct imap_candidate {
	const struct imap_row *row;
	uint32_t seq;
	bool is_recent;
	/* The header block; all of the message and its tree. Called when needed; may wait. */
	enum err (*header)(void *arg, str *out);
	enum err (*tree)(void *arg, str *message, struct mime_part **root);
	/* The folded subject if it is known without reading the message; p NULL when not. */
	str (*subject)(void *arg);
	/* The number of a keyword, 0 when nobody has it. */
	unsigned (*keyword)(void *arg, str name);
	void *arg;
};

MUST_USE enum err imap_search_match(const struct imap_search_key *key, struct imap_candidate *c,
				    bool *out);

/* A field's text as SEARCH compares it: encoded words decoded, white space joined, folded. */
void imap_search_fold_header(str value, struct buf *out);

#endif
