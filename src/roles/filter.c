/* Role filter: judges each message and tells `store`, not the front that asked: a front that was
 * broken into can neither forge a verdict nor leave it out.
 *
 * It has no file and no network, and keeps nothing from one message to the next. A message arrives
 * inline or as a memfd, whose seals and size are checked before a byte is read: without its seals
 * the sender could change it after the verdict. It is read whole; messages are judged one after the
 * other.
 *
 * What cannot be judged gets a verdict of its own, a 451 at the store: never unfiltered mail, and
 * no client that waits for a timeout.
 */
#include "filter/filter.h"

#include "base/os.h"
#include "conf/conf.h"
#include "roles/role.h"

#include <stdlib.h>

struct filter_role {
	struct filter *filter;
	uint64_t judged, failed;
};

static enum err filter_role_init(struct role *r)
{
	struct filter_role *state = calloc(1, sizeof(*state));
	enum err err;

	if (!state)
		return ERR_NO_MEMORY;
	r->state = state;
	err = filter_new(&state->filter);
	return err;
}

/* The message's bytes; *memory is to be freed. */
static enum err body_of(struct role *r, const struct msg_filter_check *check, str *body,
			void **memory)
{
	uint64_t size;
	enum err err;

	*memory = NULL;
	*body = check->inline_body;
	if (check->body <= 0)
		return check->size == body->n ? ERR_OK : ERR_PROTOCOL;
	if ((err = os_memfd_check(check->body, &size)))
		return err;
	/* Our own Received field comes on top of what the client may send. */
	if (size != check->size || size > conf_size(r->conf, CONF_message_size_limit) + 1024 * 1024)
		return ERR_PROTOCOL;
	if (!(*memory = malloc((size_t)size + 1)))
		return ERR_NO_MEMORY;
	*body = str_of(*memory, (size_t)size);
	return os_pread_all(check->body, *memory, (size_t)size, 0);
}

static void send_verdict(struct role *r, uint64_t txn, const struct filter_verdict *v)
{
	struct msg_txn_verdict m = { .txn = txn,
				     .code = v->code,
				     .status = v->status,
				     .text = v->text,
				     .has_parse = v->has_parse,
				     .envelope = v->envelope,
				     .structure = v->structure,
				     .message_id = v->message_id,
				     .subject_base = v->subject_base };
	struct chan *store = role_peer(r, ROLE_STORE, 0);
	enum err err;

	memcpy(m.hash, v->hash, sizeof(m.hash));
	err = store ? chan_send(store, MSG_txn_verdict, 0, &m) : ERR_CLOSED;
	/* The store will miss it and answer 451. */
	if (err)
		log_warn(&r->log, "verdict-lost", "why=%s", err_name(err));
}

static void judge(struct role *r, const struct msg_filter_check *check)
{
	struct filter_role *state = r->state;
	struct filter_verdict v;
	char id[MSGID_TEXT + 1];
	void *memory;
	str body;
	enum err err = body_of(r, check, &body, &memory);

	if (err) {
		v = (struct filter_verdict){ .code = 451,
					     .status = S("4.3.0"),
					     .text = S("Cannot judge the message now") };
		state->failed++;
		log_error(&r->log, "filter-failed", "msg=%.*s why=%s",
			  STR_ARGS(msgid_text(check->txn, id)), err_name(err));
	} else {
		filter_judge(state->filter, body, &v);
		state->judged++;
	}
	send_verdict(r, check->txn, &v);
	free(memory);
}

static void filter_role_message(struct role *r, struct chan *from, struct msg *m)
{
	(void)from;
	if (m->type == MSG_filter_check)
		judge(r, &m->u.filter_check);
	else
		log_error(&r->log, "unexpected-message", "type=%s", msg_name(m->type));
}

static void filter_role_status(struct role *r, struct buf *out)
{
	const struct filter_role *state = r->state;

	buf_printf(out, "\"judged\":%llu,\"failed\":%llu", (unsigned long long)state->judged,
		   (unsigned long long)state->failed);
}

const struct role_ops role_filter_ops = {
	.kind = ROLE_FILTER,
	.init = filter_role_init,
	.message = filter_role_message,
	.status = filter_role_status,
};
