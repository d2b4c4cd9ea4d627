/* Role lookup: computes password hashes, one at a time, for auth.
 *
 * It blocks while it computes, which is what it is for: there is one of it for each core, and auth
 * sends a job only when the last is answered. It has no file and no network; what it sees is one
 * stored text and one password at a time. Keeping this out of auth means that a crash in a hash
 * library costs one login.
 */
#include "auth/password.h"
#include "base/os.h"
#include "roles/role.h"

enum { LOOKUP_ARENA = 64 * 1024 };

static void verify(struct chan *from, const struct msg *m)
{
	const struct msg_lookup_password *job = &m->u.lookup_password;
	enum err err = job->stored.n == 0 ? password_verify_nobody(job->password)
					  : password_verify(job->stored, job->password);

	/* A reply that cannot be sent: the channel is going down, and auth's call ends with it. */
	err = REPLY(from, m->id, lookup_password_reply, .err = (uint16_t)err);
	(void)err;
}

static void hash(struct chan *from, const struct msg *m)
{
	const struct msg_lookup_hash *job = &m->u.lookup_hash;
	struct arena *a = arena_new(LOOKUP_ARENA);
	uint8_t random[PASSWORD_RANDOM_SIZE];
	enum password_scheme scheme;
	struct password_record made;
	enum err err;

	os_random(random, sizeof(random));
	err = a ? password_scheme_find(job->scheme, &scheme) : ERR_NO_MEMORY;
	if (!err)
		err = password_make(scheme, job->password, random, a, &made);
	if (err)
		err = REPLY_FAILED(from, m->id, err, STR_EMPTY);
	else
		err = REPLY(from, m->id, lookup_hash_reply, .stored = made.hash,
			    .scram = made.scram);
	(void)err;
	arena_free(a);
}

static void lookup_message(struct role *r, struct chan *from, struct msg *m)
{
	if (m->type == MSG_lookup_password)
		verify(from, m);
	else if (m->type == MSG_lookup_hash)
		hash(from, m);
	else
		log_error(&r->log, "unexpected-message", "type=%s", msg_name(m->type));
}

const struct role_ops role_lookup_ops = {
	.kind = ROLE_LOOKUP,
	.message = lookup_message,
};
