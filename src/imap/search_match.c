/* Evaluating SEARCH for one message (RFC 3501 6.4.4).
 *
 * Strings are compared folded (i;unicode-casemap), headers after RFC 2047, bodies after their
 * transfer encoding and charset. What is searched in a body is what people read: parts of type
 * text, and the headers of messages inside it; attachments are not, as in the servers clients know.
 * Dates disregard time and zone: the day as written. The keys stand in order of cost, so that a
 * flag that does not match saves opening the message.
 */
#include "imap/search.h"
#include "mime/decode.h"
#include "mime/header.h"
#include "store/types.h"
#include "text/date.h"
#include "text/fold.h"
#include "text/rfc2047.h"

enum {
	HEADER_TEXT_MAX = 1024 * 1024,	  /* of one field, folded */
	PART_TEXT_MAX = 16 * 1024 * 1024, /* of one part that is searched, decoded */
};

static enum err match(const struct imap_search_key *key, struct imap_candidate *c, bool *out);

/* ---- headers ---- */

void imap_search_fold_header(str value, struct buf *out)
{
	struct buf decoded, joined;
	bool in_space = true;

	buf_init(&decoded, HEADER_TEXT_MAX);
	buf_init(&joined, HEADER_TEXT_MAX);
	rfc2047_decode(value, &decoded);
	for (size_t i = 0; i < buf_len(&decoded); i++) {
		char x = buf_str(&decoded).p[i];
		bool is_space = ascii_is_space(x);

		if (!is_space || !in_space)
			buf_add_char(&joined, is_space ? ' ' : x);
		in_space = is_space;
	}
	fold_casemap(buf_str(&joined), out);
	buf_free(&decoded);
	buf_free(&joined);
}

static bool field_has(str value, str text)
{
	struct buf folded;
	bool found;

	if (text.n == 0)
		return true; /* RFC 3501 6.4.4: any message that has the field */
	buf_init(&folded, HEADER_TEXT_MAX);
	imap_search_fold_header(value, &folded);
	found = str_find(buf_str(&folded), text) != STR_NONE;
	buf_free(&folded);
	return found;
}

static enum err match_field(struct imap_candidate *c, str name, str text, bool *out)
{
	struct header_field f;
	enum err err;
	str rest;

	*out = false;
	if (str_case_eq(name, S("Subject")) && c->subject && text.n) {
		str subject = c->subject(c->arg);

		if (subject.p) {
			*out = str_find(subject, text) != STR_NONE;
			return ERR_OK;
		}
	}
	if ((err = c->header(c->arg, &rest)))
		return err;
	while (!*out && header_next(&rest, &f))
		*out = f.has_colon && str_case_eq(f.name, name) && field_has(f.value, text);
	return ERR_OK;
}

static bool header_block_has(str block, str text)
{
	struct header_field f;

	while (header_next(&block, &f))
		if (field_has(f.raw, text))
			return true;
	return false;
}

static enum err match_sent(const struct imap_search_key *key, struct imap_candidate *c, bool *out)
{
	struct header_field f;
	struct date date;
	enum err err;
	int32_t day;
	str header;

	*out = false;
	if ((err = c->header(c->arg, &header)))
		return err;
	if (!header_find(header, S("Date"), &f) || date_parse_rfc5322(f.value, &date))
		return ERR_OK;
	day = date_local_day(date);
	*out = key->op == IMAP_SEARCH_sentbefore ? day < key->day
	       : key->op == IMAP_SEARCH_senton	 ? day == key->day
						 : day >= key->day;
	return ERR_OK;
}

/* ---- bodies ---- */

static enum err part_has(const struct mime_part *p, str message, str text, bool *out)
{
	struct buf decoded, folded;
	enum err err;

	buf_init(&decoded, PART_TEXT_MAX * 4ul);
	buf_init(&folded, PART_TEXT_MAX * 8ul);
	err = mime_decode(p, message, PART_TEXT_MAX, &decoded);
	/* What does not fit the budget is searched as far as it goes. */
	if (err == ERR_TOO_LONG)
		err = ERR_OK;
	if (!err) {
		fold_casemap(buf_str(&decoded), &folded);
		*out = str_find(buf_str(&folded), text) != STR_NONE;
	}
	buf_free(&decoded);
	buf_free(&folded);
	return err;
}

/* The next part in the order of the message. */
static const struct mime_part *next_part(const struct mime_part *p)
{
	if (p->children)
		return p->children;
	while (p && !p->next)
		p = p->parent;
	return p ? p->next : NULL;
}

static enum err match_body(struct imap_candidate *c, str text, bool with_header, bool *out)
{
	struct mime_part *root;
	enum err err;
	str message;

	*out = text.n == 0;
	if (*out)
		return ERR_OK;
	if ((err = c->tree(c->arg, &message, &root)))
		return err;
	for (const struct mime_part *p = root; p && !*out && !err; p = next_part(p)) {
		bool is_message = p == root ? with_header : p->parent->kind == MIME_MESSAGE;

		if (is_message)
			*out = header_block_has(mime_part_header(p, message), text);
		if (!*out && p->kind == MIME_TEXT)
			err = part_has(p, message, text, out);
	}
	return err;
}

/* ---- what is in memory ---- */

static bool match_keyword(const struct imap_search_key *key, struct imap_candidate *c)
{
	unsigned number = c->keyword(c->arg, key->name);

	return number && (c->row->flags[number / 64] >> (number % 64) & 1);
}

static bool match_received(const struct imap_search_key *key, const struct imap_row *row)
{
	int64_t seconds = row->received_us / 1000000 - (row->received_us % 1000000 < 0);
	int32_t day = date_local_day((struct date){ .seconds = seconds, .zone = row->zone });

	return key->op == IMAP_SEARCH_before ? day < key->day
	       : key->op == IMAP_SEARCH_on   ? day == key->day
					     : day >= key->day;
}

static bool match_hot(const struct imap_search_key *key, struct imap_candidate *c)
{
	const struct imap_row *row = c->row;
	uint64_t flags = row->flags[0];

	switch (key->op) {
	case IMAP_SEARCH_SEQUENCE:
		return imap_set_has(&key->set, c->seq);
	case IMAP_SEARCH_uid:
		return imap_set_has(&key->set, row->uid);
	case IMAP_SEARCH_answered:
		return flags & MSG_FLAG_ANSWERED;
	case IMAP_SEARCH_unanswered:
		return !(flags & MSG_FLAG_ANSWERED);
	case IMAP_SEARCH_deleted:
		return flags & MSG_FLAG_DELETED;
	case IMAP_SEARCH_undeleted:
		return !(flags & MSG_FLAG_DELETED);
	case IMAP_SEARCH_draft:
		return flags & MSG_FLAG_DRAFT;
	case IMAP_SEARCH_undraft:
		return !(flags & MSG_FLAG_DRAFT);
	case IMAP_SEARCH_flagged:
		return flags & MSG_FLAG_FLAGGED;
	case IMAP_SEARCH_unflagged:
		return !(flags & MSG_FLAG_FLAGGED);
	case IMAP_SEARCH_seen:
		return flags & MSG_FLAG_SEEN;
	case IMAP_SEARCH_unseen:
		return !(flags & MSG_FLAG_SEEN);
	case IMAP_SEARCH_recent:
		return c->is_recent;
	case IMAP_SEARCH_old:
		return !c->is_recent;
	case IMAP_SEARCH_new:
		return c->is_recent && !(flags & MSG_FLAG_SEEN);
	case IMAP_SEARCH_larger:
		return row->size > key->size;
	case IMAP_SEARCH_smaller:
		return row->size < key->size;
	case IMAP_SEARCH_keyword:
		return match_keyword(key, c);
	case IMAP_SEARCH_unkeyword:
		return !match_keyword(key, c);
	case IMAP_SEARCH_before:
	case IMAP_SEARCH_on:
	case IMAP_SEARCH_since:
		return match_received(key, row);
	default:
		return key->op == IMAP_SEARCH_all;
	}
}

/* ---- the tree ---- */

static enum err match_children(const struct imap_search_key *key, struct imap_candidate *c,
			       bool *out)
{
	bool is_or = key->op == IMAP_SEARCH_OR, hit = !is_or;
	enum err err;

	for (const struct imap_search_key *child = key->children; child && hit != is_or;
	     child = child->next)
		if ((err = match(child, c, &hit)))
			return err;
	*out = hit;
	return ERR_OK;
}

static enum err match(const struct imap_search_key *key, struct imap_candidate *c, bool *out)
{
	enum err err;

	switch (key->op) {
	case IMAP_SEARCH_AND:
	case IMAP_SEARCH_OR:
		return match_children(key, c, out);
	case IMAP_SEARCH_NOT:
		err = match(key->children, c, out);
		*out = !*out;
		return err;
	case IMAP_SEARCH_bcc:
		return match_field(c, S("Bcc"), key->text, out);
	case IMAP_SEARCH_cc:
		return match_field(c, S("Cc"), key->text, out);
	case IMAP_SEARCH_from:
		return match_field(c, S("From"), key->text, out);
	case IMAP_SEARCH_to:
		return match_field(c, S("To"), key->text, out);
	case IMAP_SEARCH_subject:
		return match_field(c, S("Subject"), key->text, out);
	case IMAP_SEARCH_header:
		return match_field(c, key->name, key->text, out);
	case IMAP_SEARCH_sentbefore:
	case IMAP_SEARCH_senton:
	case IMAP_SEARCH_sentsince:
		return match_sent(key, c, out);
	case IMAP_SEARCH_body:
		return match_body(c, key->text, false, out);
	case IMAP_SEARCH_text:
		return match_body(c, key->text, true, out);
	default:
		*out = match_hot(key, c);
		return ERR_OK;
	}
}

enum err imap_search_match(const struct imap_search_key *key, struct imap_candidate *c, bool *out)
{
	*out = false;
	return match(key, c, out);
}
