/* Reading messages (store/body.h): row -> location -> segment descriptor -> bytes.
 *
 * Locations are fetched for a run of messages at once, because a client that reads one reads its
 * neighbours. The prefix (Return-Path, Delivered-To) is in the cold row and is asked for only where
 * the row's size says that there is one. A body that does not open, or whose segment is gone, may
 * have been moved by the store: the location is forgotten and asked for again, once. Then the
 * message is expunged or damaged; the latter is logged with its name and told to the client; what
 * did not verify is never sent.
 */
#include "imap/message.h"

#include "mime/header.h"
#include "mime/part.h"

#include <stdlib.h>

enum {
	LOCATE_AHEAD = 300,  /* rows asked for at once, about what fits an answer */
	HEADER_FIRST = 4096, /* most headers end within it */
};

static enum err find(struct imap_view *v, uint32_t uid, size_t *index)
{
	*index = imap_view_find(v, uid);
	if (*index == v->count || v->rows[*index].uid != uid)
		return ERR_NOT_FOUND;
	return imap_view_locate(v);
}

/* ---- locations ---- */

static enum err take_prefix(struct imap_view *v, struct imap_located *l, str cold)
{
	struct rec_row_cold r;
	enum err err;

	if (cold.n == 0 || l->has_prefix)
		return ERR_OK;
	if ((err = rec_row_cold_get(&cold, &r)))
		return err;
	if (r.prefix.n) {
		if (!(l->prefix = malloc(r.prefix.n)))
			return ERR_NO_MEMORY;
		memcpy(l->prefix, r.prefix.p, r.prefix.n);
	}
	l->prefix_size = r.prefix.n;
	v->located_bytes += r.prefix.n;
	l->has_prefix = true;
	return ERR_OK;
}

static enum err take_locations(struct imap_view *v, str rows)
{
	struct rec_row r;
	enum err err;
	size_t index;

	while (!(err = rec_row_get(&rows, &r))) {
		struct imap_located *l;
		str location = r.location;

		if (find(v, r.uid, &index))
			continue;
		l = &v->located[index];
		if (location.n) {
			if ((err = rec_body_location_get(&location, &l->at)))
				return err;
			l->is_known = true;
		}
		if ((err = take_prefix(v, l, r.cold)))
			return err;
	}
	return err == ERR_EOF ? ERR_OK : err;
}

static enum err ask_locations(struct imap_account *a, struct imap_view *v, uint32_t uid,
			      uint8_t columns)
{
	struct arena *arena = arena_new(IMAP_COMMAND_BUDGET);
	struct msg_st_rows_reply reply;
	enum err err;

	if (!arena)
		return ERR_NO_MEMORY;
	err = CALL(a->store, st_rows, st_rows_reply, &reply, arena, imap_account_deadline(a),
		   .mailbox = v->mailbox, .uid_from = uid,
		   .uid_to = uid + MIN((uint32_t)LOCATE_AHEAD, UINT32_MAX - uid),
		   .columns = columns);
	if (!err)
		err = take_locations(v, reply.rows);
	arena_free(arena);
	return err;
}

/* Location and prefix of one message are in memory afterwards. */
static enum err locate(struct imap_account *a, struct imap_view *v, uint32_t uid, size_t *index)
{
	struct imap_located *l;
	enum err err;

	if ((err = find(v, uid, index)))
		return err;
	if (!v->located[*index].is_known) {
		if ((err = ask_locations(a, v, uid, ROW_LOCATION)) || (err = find(v, uid, index)))
			return err;
		if (!v->located[*index].is_known)
			return ERR_NOT_FOUND;
	}
	l = &v->located[*index];
	if (l->has_prefix || v->rows[*index].size == l->at.size)
		return ERR_OK;
	if (v->located_bytes > IMAP_LOCATED_BYTES) {
		imap_view_forget_located(v);
		if ((err = imap_view_locate(v)))
			return err;
	}
	if ((err = ask_locations(a, v, uid, ROW_COLD | ROW_LOCATION)) ||
	    (err = find(v, uid, index)))
		return err;
	l = &v->located[*index];
	return l->is_known && l->has_prefix ? ERR_OK : ERR_NOT_FOUND;
}

/* ---- segments ---- */

static struct imap_segment *segment_slot(struct imap_account *a, const struct imap_located *l,
					 uint64_t body)
{
	struct imap_segment *oldest = &a->segments[0];

	for (size_t i = 0; i < IMAP_SEGMENTS_MAX; i++) {
		struct imap_segment *s = &a->segments[i];

		if (s->fd >= 0 && s->number == l->at.segment &&
		    (s->number != 0 || s->body == body)) {
			s->used = ++a->segment_uses;
			return s;
		}
		if (s->used < oldest->used)
			oldest = s;
	}
	os_close(oldest->fd);
	*oldest = (struct imap_segment){ .fd = -1 };
	return oldest;
}

static enum err segment_fd(struct imap_account *a, const struct imap_located *l, uint64_t body,
			   int *fd)
{
	struct imap_segment *s = segment_slot(a, l, body);
	uint32_t number = l->at.segment;
	struct msg_st_segment_reply reply;
	struct arena *arena;
	enum err err;

	if (s->fd >= 0) {
		*fd = s->fd;
		return ERR_OK;
	}
	if (!(arena = arena_new(MSG_MAX)))
		return ERR_NO_MEMORY;
	err = CALL(a->store, st_segment, st_segment_reply, &reply, arena, imap_account_deadline(a),
		   .segment = number, .body = number ? 0 : body);
	arena_free(arena);
	if (err)
		return err;
	if (reply.file <= 0)
		return ERR_PROTOCOL;
	/* Another fiber may have taken the slot, or opened the same segment, while this one waited.
	 */
	s = segment_slot(a, l, body);
	os_close(s->fd);
	*s = (struct imap_segment){
		.number = number, .body = body, .fd = reply.file, .used = ++a->segment_uses
	};
	*fd = s->fd;
	return ERR_OK;
}

static void forget_location(struct imap_account *a, struct imap_view *v, size_t index)
{
	for (size_t i = 0; i < IMAP_SEGMENTS_MAX; i++) {
		struct imap_segment *s = &a->segments[i];

		if (s->fd >= 0 && s->number == v->located[index].at.segment) {
			os_close(s->fd);
			*s = (struct imap_segment){ .fd = -1 };
		}
	}
	v->located[index].is_known = false;
}

/* ---- reading ---- */

static enum err read_body(struct imap_account *a, struct imap_view *v, uint32_t uid, uint64_t from,
			  size_t n, char *out)
{
	struct imap_located l;
	size_t index;
	enum err err;
	int fd;

	if ((err = locate(a, v, uid, &index)))
		return err;
	l = v->located[index];
	if ((err = segment_fd(a, &l, v->rows[index].body, &fd)))
		return err;
	if (from < l.prefix_size) {
		size_t head = MIN(n, l.prefix_size - (size_t)from);

		/* The descriptor may have been waited for: find the prefix again. */
		if ((err = locate(a, v, uid, &index)))
			return err;
		memcpy(out, v->located[index].prefix + from, head);
		from += head;
		out += head;
		n -= head;
	}
	return n ? body_read(a->cipher, fd, &l.at, from - l.prefix_size, n, out) : ERR_OK;
}

enum err imap_message_read(struct imap_account *a, struct imap_view *v, uint32_t uid, uint64_t from,
			   size_t n, char *out)
{
	enum err err = read_body(a, v, uid, from, n, out);
	size_t index;

	if ((err != ERR_DAMAGED && err != ERR_IO && err != ERR_EOF && err != ERR_NOT_FOUND) ||
	    find(v, uid, &index) || !v->located[index].is_known)
		return err;
	forget_location(a, v, index);
	err = read_body(a, v, uid, from, n, out);
	if (err && err != ERR_NOT_FOUND && !find(v, uid, &index)) {
		log_error(a->log, "message-unreadable",
			  "account=%llu mailbox=%u uid=%u body=%llu segment=%u error=%s",
			  (unsigned long long)a->id, v->mailbox, uid,
			  (unsigned long long)v->rows[index].body, v->located[index].at.segment,
			  err_name(err));
	}
	return err;
}

static struct imap_message *message_new(const struct imap_row *row, uint32_t mailbox)
{
	struct imap_message *m;

	if (row->size > SIZE_MAX / 2 || !(m = calloc(1, sizeof(*m))))
		return NULL;
	m->bytes = str_of(malloc(MAX((size_t)row->size, (size_t)1)), (size_t)row->size);
	m->references = 1;
	m->mailbox = mailbox;
	m->uid = row->uid;
	m->body = row->body;
	if (!m->bytes.p) {
		free(m);
		return NULL;
	}
	return m;
}

void imap_message_release(struct imap_message *m)
{
	if (!m || --m->references)
		return;
	arena_free(m->arena);
	free((void *)(uintptr_t)m->bytes.p);
	free(m);
}

enum err imap_message_open(struct imap_account *a, struct imap_view *v, uint32_t uid,
			   struct imap_message **out)
{
	struct imap_message *m = a->last;
	enum err err;
	size_t index;

	if ((err = find(v, uid, &index)))
		return err;
	if (m && m->mailbox == v->mailbox && m->uid == uid && m->body == v->rows[index].body) {
		m->references++;
		*out = m;
		return ERR_OK;
	}
	if (!(m = message_new(&v->rows[index], v->mailbox)))
		return ERR_NO_MEMORY;
	err = imap_message_read(a, v, uid, 0, m->bytes.n, (char *)(uintptr_t)m->bytes.p);
	if (err) {
		imap_message_release(m);
		return err;
	}
	imap_message_release(a->last);
	a->last = m;
	m->references++;
	*out = m;
	return ERR_OK;
}

void imap_message_trim(struct imap_account *a)
{
	if (a->last && a->last->bytes.n > IMAP_BODY_KEPT) {
		imap_message_release(a->last);
		a->last = NULL;
	}
}

enum err imap_message_tree(struct imap_message *m, struct mime_part **root)
{
	enum err err = ERR_OK;

	if (!m->root) {
		if (!m->arena && !(m->arena = arena_new(MIME_BUDGET(m->bytes.n))))
			return ERR_NO_MEMORY;
		err = mime_parse(m->bytes, m->arena, &m->root);
	}
	*root = m->root;
	return err;
}

size_t imap_message_header_budget(const struct imap_account *a)
{
	/* The last step is all of it, the ones before are together at most 4/3 of that. */
	return IMAP_COMMAND_BUDGET + 3 * (size_t)a->config.message_size_limit;
}

enum err imap_message_header(struct imap_account *a, struct imap_view *v, uint32_t uid,
			     struct arena *arena, str *out)
{
	size_t index, have = HEADER_FIRST, size;
	enum err err;
	char *p;

	if ((err = find(v, uid, &index)))
		return err;
	size = (size_t)v->rows[index].size;
	for (;; have *= 4) {
		have = MIN(have, size);
		if (!(p = arena_alloc(arena, have)))
			return ERR_NO_MEMORY;
		if ((err = imap_message_read(a, v, uid, 0, have, p)))
			return err;
		*out = str_head(str_of(p, have), header_block_length(str_of(p, have)));
		if (out->n < have || have == size)
			return ERR_OK;
	}
}
