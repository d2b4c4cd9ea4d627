/* Judging a message: what role `filter` computes, apart from how it is asked.
 *
 *	err = filter_new(&f);
 *	filter_judge(f, body, &verdict);	// slices live until the next call
 *	filter_free(f);
 *
 * For now every message passes. Its bytes are bound to the verdict by their SHA-256, so that what
 * was judged is what is stored; and while the message is parsed anyway, IMAP's ENVELOPE and
 * BODYSTRUCTURE are made, which are then never computed again. The parse is hostile input, which is
 * why it is done here and not in `store`.
 *
 * A message that cannot be parsed within the budget, or whose envelope or structure is too large
 * for a verdict, gets has_parse = false: both are made when somebody reads them. That is no reason
 * to refuse mail.
 */
#ifndef FILTER_FILTER_H
#define FILTER_FILTER_H

#include "base/arena.h"
#include "base/buf.h"

enum {
	/* As in messages.def, txn_verdict. */
	FILTER_ENVELOPE_MAX = 16384,
	FILTER_STRUCTURE_MAX = 24576,
	FILTER_MESSAGE_ID_MAX = 1024,
	FILTER_SUBJECT_MAX = 512,
	FILTER_PARSE_MEMORY = 16 * 1024 * 1024, /* see mime/part.h */
};

struct filter;

struct filter_verdict {
	uint8_t hash[32]; /* SHA-256 */
	uint16_t code;	  /* 250, or the refusal */
	str status, text;
	bool has_parse;
	str envelope, structure; /* IMAP's */
	str message_id;	  /* with its brackets, as written, without white space; empty: none */
	str subject_base; /* RFC 5256, in UTF-8 */
};

MUST_USE enum err filter_new(struct filter **out);
void filter_free(struct filter *f);
void filter_judge(struct filter *f, str body, struct filter_verdict *out);

/* The base subject (RFC 5256 2.1) of a Subject field's raw value, at most FILTER_SUBJECT_MAX bytes
 * of it. */
void filter_subject_base(str subject, struct buf *out);

#endif
