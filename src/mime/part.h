/* The MIME tree of a message (RFC 2045, 2046).
 *
 * `mime_parse` reads a whole message in one pass, in time linear in its length whatever it holds,
 * and never fails but for memory: what is not MIME is text. Slices borrow from the message or live
 * in the arena; the tree lives as long as both. Offsets are from the beginning of the message.
 *
 * The message should have CRLF line ends, as everything that Posthorn stores has; with bare LF the
 * tree is the same and sizes count the bytes that are there.
 *
 *	struct mime_part *root;
 *	if ((err = mime_parse(message, a, &root))) ...
 *	mime_write_structure(root, true, &out);
 */
#ifndef MIME_PART_H
#define MIME_PART_H

#include "mime/address.h"
#include "text/rfc2231.h"

/* How deep parts nest, and how many there are. Real mail stays below 10 and 200; what lies deeper
 * is shown as the text it is. 100 bounds the recursion of those who walk the tree and the
 * boundaries that a line is compared with; 10,000 parts are at most 5 MB of tree. Dovecot's limits
 * are the same, so the same clients meet the same structures. */
#define MIME_DEPTH_MAX 100
#define MIME_PARTS_MAX 10000

/* Parameters, languages and addresses that are read in all of a message; later ones are left out.
 * Without a limit a message made of them would need forty times its size in memory. */
#define MIME_ITEMS_MAX 50000

/* RFC 2046 5.1.1 allows 70; longer boundaries are compared by this much. */
#define MIME_BOUNDARY_MAX 80

enum mime_kind {
	MIME_TEXT,	/* text/..., or nothing that says otherwise */
	MIME_MULTIPART, /* there may be no parts all the same */
	MIME_MESSAGE,	/* message/rfc822: one child, the inner message */
	MIME_OTHER,
};

struct mime_params {
	const struct param *items;
	size_t count;
};

/* The fields that an ENVELOPE shows: values with their folds. p is NULL where there is no such
 * field. */
struct mime_envelope {
	str date, subject, in_reply_to, message_id;
	struct address_list from, sender, reply_to, to, cc, bcc;
};

struct mime_part {
	enum mime_kind kind;
	bool is_mime;	/* has MIME-Version or Content-Type, or is inside of a multipart */
	bool is_cut;	/* a boundary ended its header: there is no body */
	bool is_digest; /* multipart/digest: its parts are messages unless they say otherwise */
	/* As written, not lowered; p is NULL where absent. */
	str type, subtype;
	struct mime_params params;
	str id, description, encoding, location, md5;
	str disposition;
	struct mime_params disposition_params;
	const str *languages;
	size_t language_count;

	size_t header_at, header_len; /* the part's own fields with the blank line */
	size_t body_at, body_len;
	size_t lines; /* line ends in the body */

	const struct mime_envelope
		*envelope; /* of a message: the root and the child of MIME_MESSAGE */
	struct mime_part *parent, *next, *children, *last_child;
	uint32_t child_count;
	uint32_t depth; /* 0 for the root */
};

/* The budget that every message fits into, whatever it holds: the tree within the limits above, and
 * of a header's bytes at most four copies (a parameter of '%' alone that has to be escaped), each
 * in a block of the arena of at most twice its size. Of a usual message it is a few hundred bytes.
 */
#define MIME_BUDGET(message_size) ((size_t)32 * 1024 * 1024 + 8 * (size_t)(message_size))

/* ERR_NO_MEMORY when the arena's budget is used up, which MIME_BUDGET rules out. */
MUST_USE enum err mime_parse(str message, struct arena *a, struct mime_part **root);

static inline str mime_part_header(const struct mime_part *p, str message)
{
	return str_sub(message, p->header_at, p->header_len);
}

static inline str mime_part_body(const struct mime_part *p, str message)
{
	return str_sub(message, p->body_at, p->body_len);
}

/* The value of a Content-Type parameter as UTF-8 (extended forms decoded); p NULL when absent or
 * without memory. */
str mime_param(const struct mime_params *params, str name, struct arena *a);

/* Is the Content-Type this one? An empty subtype means any; no Content-Type is text/plain. */
bool mime_type_is(const struct mime_part *p, str type, str subtype);

#endif
