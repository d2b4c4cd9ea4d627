/* SEARCH (RFC 3501 6.4.4): walks the mailbox and gives each message to search_match.c.
 *
 * Subjects are kept, folded, beside the row once they were read, because clients search for a
 * subject letter by letter as it is typed. A message that cannot be read does not match and is
 * logged; the search goes on.
 */
#include "imap/search.h"

#include "imap/message.h"
#include "imap/session_priv.h"
#include "mime/header.h"

#include <stdlib.h>

/* Others get their turn after so many messages were opened. */
enum { YIELD_AFTER = 32 };

struct search {
	struct imap_session *s;
	struct imap_row row;
	struct arena *arena; /* of one message's header */
	struct imap_message *message;
	str header;
	bool has_header;
	uint32_t opened;
};

static enum err search_header(void *arg, str *out)
{
	struct search *x = arg;
	enum err err = ERR_OK;

	if (!x->has_header) {
		x->opened++;
		err = imap_message_header(x->s->account, x->s->selected.view, x->row.uid, x->arena,
					  &x->header);
	}
	x->has_header = !err;
	*out = x->header;
	return err;
}

static enum err search_tree(void *arg, str *message, struct mime_part **root)
{
	struct search *x = arg;
	enum err err;

	x->opened++;
	if (!x->message &&
	    (err = imap_message_open(x->s->account, x->s->selected.view, x->row.uid, &x->message)))
		return err;
	*message = x->message->bytes;
	return imap_message_tree(x->message, root);
}

/* Reads the header and keeps the subject of a message beside its row. */
static bool keep_subject(struct search *x)
{
	struct imap_view *v = x->s->selected.view;
	struct header_field f;
	struct buf folded;
	str header;
	size_t index;
	char *copy;

	if (v->located_bytes > IMAP_LOCATED_BYTES || search_header(x, &header))
		return false;
	index = imap_view_find(v, x->row.uid);
	if (index == v->count || v->rows[index].uid != x->row.uid || imap_view_locate(v) ||
	    v->located[index].subject)
		return false;
	buf_init(&folded, MSG_MAX);
	/* Several subjects are rare and not kept: each of them may match. */
	while (header_next(&header, &f))
		if (f.has_colon && str_case_eq(f.name, S("Subject"))) {
			if (buf_len(&folded))
				folded.failed = true;
			imap_search_fold_header(f.value, &folded);
		}
	copy = buf_failed(&folded) ? NULL : malloc(buf_len(&folded) + 1);
	if (copy) {
		if (buf_len(&folded))
			memcpy(copy, buf_str(&folded).p, buf_len(&folded));
		v->located[index].subject = copy;
		v->located[index].subject_size = buf_len(&folded);
		v->located_bytes += buf_len(&folded);
	}
	buf_free(&folded);
	return copy != NULL;
}

static str search_subject(void *arg)
{
	struct search *x = arg;
	struct imap_view *v = x->s->selected.view;

	for (int again = 0; again < 2; again++) {
		size_t index = imap_view_find(v, x->row.uid);

		if (v->located && index < v->count && v->rows[index].uid == x->row.uid &&
		    v->located[index].subject)
			return str_of(v->located[index].subject, v->located[index].subject_size);
		if (!again && !keep_subject(x))
			break;
	}
	return STR_EMPTY;
}

static unsigned search_keyword(void *arg, str name)
{
	struct search *x = arg;
	unsigned number;

	return imap_account_keyword(x->s->account, name, false, &number) ? 0 : number;
}

static enum err search_one(struct search *x, const struct imap_search_key *root, uint32_t seq,
			   bool *hit)
{
	struct imap_session *s = x->s;
	struct imap_candidate c = {
		.row = &x->row,
		.seq = seq,
		.header = search_header,
		.tree = search_tree,
		.subject = search_subject,
		.keyword = search_keyword,
		.arg = x,
	};
	enum err err;

	x->row = *imap_selected_row(&s->selected, seq);
	*hit = false;
	if (x->row.is_gone)
		return ERR_OK;
	c.is_recent = imap_selected_is_recent(&s->selected, x->row.uid);
	err = imap_search_match(root, &c, hit);
	if (x->has_header || x->message)
		arena_reset(x->arena);
	imap_message_release(x->message);
	x->message = NULL;
	x->has_header = false;
	/* One that is gone or damaged matches nothing. */
	if (err == ERR_NOT_FOUND || err == ERR_DAMAGED || err == ERR_IO || err == ERR_EOF ||
	    err == ERR_RANGE) {
		*hit = false;
		err = ERR_OK;
	}
	if (x->opened >= YIELD_AFTER) {
		x->opened = 0;
		fiber_yield(s->account->loop);
	}
	return err;
}

static enum err search_all(struct search *x, const struct imap_command *c)
{
	struct imap_session *s = x->s;
	enum err err = ERR_OK;
	bool hit;

	buf_add(&s->out, S("* SEARCH"));
	for (uint32_t seq = 1; seq <= s->selected.exists && !err; seq++) {
		if ((err = search_one(x, c->search.root, seq, &hit)) || !hit)
			continue;
		buf_add_char(&s->out, ' ');
		buf_add_u64(&s->out, c->is_uid ? x->row.uid : seq);
	}
	buf_add(&s->out, S("\r\n"));
	return err;
}

void imap_do_search(struct imap_session *s, const struct imap_command *c)
{
	struct search x = { .s = s };
	enum err err;

	if (c->search.bad_charset) {
		/* RFC 3501 7.1: the charsets that are known; iconv's list is too long to be told.
		 */
		imap_no(s, "[BADCHARSET (US-ASCII UTF-8 ISO-8859-1)] Unknown charset.");
		return;
	}
	imap_search_resolve(c->search.root, s->selected.exists,
			    imap_selected_max_uid(&s->selected));
	if (!(x.arena = arena_new(imap_message_header_budget(s->account))))
		err = ERR_NO_MEMORY;
	else
		err = search_all(&x, c);
	arena_free(x.arena);
	if (!err)
		err = imap_send(s);
	buf_clear(&s->out);
	if (err)
		imap_failed(s, err);
	else
		imap_ok(s, "Search completed.");
}
