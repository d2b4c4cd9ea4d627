/* The transaction of a message of our own.
 *
 * Each step is asked of the role that decides it, and the first that does not say 250 ends it:
 * whoever has heard of the transaction is told to forget it. filter and auth send their parts
 * straight to store; the body goes there from here.
 */
#include "queue/submit.h"

#include "base/os.h"

static int64_t deadline(const struct submit *s)
{
	return loop_now(s->loop) + SECONDS(SUBMIT_SECONDS);
}

static enum err said(struct submit_result *out, uint16_t code, str text)
{
	out->code = code;
	out->text = text;
	return code / 100 == 2 ? ERR_OK : code / 100 == 5 ? ERR_DENIED : ERR_TEMPORARY;
}

static enum err envelope(const struct submit *s, struct arena *a, struct submit_result *out)
{
	struct msg_auth_verdict v;
	enum err err;

	err = CALL(s->auth, auth_mail, auth_verdict, &v, a, deadline(s), .txn = s->txn,
		   .service = S("queue"), .helo = s->hostname, .smtputf8 = s->smtputf8,
		   .body = s->body_type, .size = s->message.n, .socket = -1);
	if (err)
		return said(out, 451, S("auth does not answer"));
	if ((err = said(out, v.code, v.text)))
		return err;
	/* RFC 3464 2: no notice about a notice. */
	err = CALL(s->auth, auth_rcpt, auth_verdict, &v, a, deadline(s), .txn = s->txn,
		   .address = s->rcpt, .notify = 1);
	if (err)
		return said(out, 451, S("auth does not answer"));
	return said(out, v.code, v.text);
}

static enum err content(const struct submit *s, int body, struct arena *a,
			struct submit_result *out)
{
	str inline_body = body < 0 ? s->message : STR_EMPTY;
	struct msg_txn_reply reply;
	struct rec_txn_result result;
	str rest;

	if (SEND(s->filter, filter_check, .txn = s->txn, .helo = s->hostname, .size = s->message.n,
		 .inline_body = inline_body, .body = body) ||
	    SEND(s->auth, auth_commit, .txn = s->txn, .ends = s->ends))
		return said(out, 451, S("filter or auth is not there"));
	if (CALL(s->store, txn_body, txn_reply, &reply, a, deadline(s), .txn = s->txn,
		 .size = s->message.n, .inline_body = inline_body, .body = body, .rcpts = 1))
		return said(out, 451, S("store does not answer"));
	/* There is one recipient; what is said of it alone counts before what is said of all. */
	rest = reply.rcpts;
	if (rest.n && !rec_txn_result_get(&rest, &result))
		return said(out, result.code, result.text);
	return said(out, reply.code, reply.text);
}

static void forget(const struct submit *s)
{
	/* They forget by themselves too, only later: nothing to be done when one is not there. */
	enum err auth = SEND(s->auth, auth_reset, .txn = s->txn);
	enum err store = SEND(s->store, txn_cancel, .txn = s->txn);

	(void)auth, (void)store;
}

enum err submit_message(const struct submit *s, struct arena *a, struct submit_result *out)
{
	int body = -1;
	enum err err = envelope(s, a, out);

	if (!err && s->message.n > MSG_INLINE_MAX && os_memfd(s->message, true, &body))
		err = said(out, 451, S("no memory for the body"));
	if (!err)
		err = content(s, body, a, out);
	if (err)
		forget(s);
	os_close(body);
	return err;
}
