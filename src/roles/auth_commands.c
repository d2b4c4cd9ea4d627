/* `posthorn domain|user|alias ...` while the server runs: the commands of auth/commands.h, run here
 * and not in the tool, so that what auth remembers is dropped with the change and the next login or
 * RCPT sees it.
 *
 * Each command runs on a fiber, for two of them wait: for a worker's hash of a new password, and
 * for the store's word on how much an account uses. Whoever asked may be gone by then; the change
 * counts all the same.
 */
#include "roles/auth_priv.h"

#include <stdlib.h>

/* A command runs on a fiber, since it may wait for a worker's hash. */
struct running_command {
	struct auth_caller caller;
	struct buf args, input;
	uint64_t cursor;
	struct fiber *fiber;
	struct arena *arena;
	enum err hash_err;
	struct password_record made;
	bool is_made;
};

enum { ASK_STORE_SECONDS = 10 };

static void command_hashed(void *arg, enum err err, const struct msg_lookup_hash_reply *made)
{
	struct running_command *r = arg;

	r->hash_err = err;
	if (!err) {
		r->made.hash = arena_str(r->arena, made->stored);
		r->made.scram = arena_str(r->arena, made->scram);
		if (!r->made.hash.p || !r->made.scram.p)
			r->hash_err = ERR_NO_MEMORY;
	}
	r->is_made = true;
	fiber_wake(r->caller.auth->role->loop, r->fiber);
}

static enum err command_make_password(void *arg, enum password_scheme scheme, str password,
				      struct arena *arena, struct password_record *out)
{
	struct running_command *r = arg;
	struct auth_role *a = r->caller.auth;
	enum err err;

	r->arena = arena;
	r->is_made = false;
	r->fiber = fiber_current(a->role->loop);
	err = auth_job_hash(a, password_scheme_name(scheme), password, command_hashed, r);
	/* The job always ends: by its answer, its deadline or its worker's death. */
	while (!err && !r->is_made) {
		enum err waited = fiber_suspend(a->role->loop, LOOP_NEVER);

		if (waited && waited != ERR_CANCELLED)
			panic("a wait without a deadline ended: %s", err_name(waited));
	}
	if (!err)
		err = r->hash_err;
	if (!err)
		*out = r->made;
	return err;
}

/* A copy of what is stored would be out of date; the store is asked. */
static enum err command_usage(void *arg, uint64_t account, uint64_t *used)
{
	struct running_command *r = arg;
	struct auth_role *a = r->caller.auth;
	struct msg_account_usage_reply reply;
	enum err err = CALL(role_peer(a->role, ROLE_STORE, 0), account_usage, account_usage_reply,
			    &reply, r->arena, loop_now(a->role->loop) + SECONDS(ASK_STORE_SECONDS),
			    .account = account);

	*used = 0;
	if (err == ERR_NOT_FOUND) /* it never had mail */
		return ERR_OK;
	if (!err)
		*used = reply.used;
	return err;
}

/* The store goes by the new quota at once, and not from the account's next login or message on. */
static enum err command_tell_quota(void *arg, uint64_t account, uint64_t quota)
{
	struct running_command *r = arg;
	struct auth_role *a = r->caller.auth;
	struct msg_done done;
	enum err err = CALL(role_peer(a->role, ROLE_STORE, 0), account_quota, done, &done, r->arena,
			    loop_now(a->role->loop) + SECONDS(ASK_STORE_SECONDS),
			    .account = account, .quota = quota);

	return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static size_t split_args(str joined, str *args, size_t max)
{
	size_t n = 0;

	while (joined.n > 0 && n < max)
		args[n++] = str_cut(&joined, '\0');
	return n;
}

static void command_run(void *arg)
{
	struct running_command *r = arg;
	struct auth_role *a = r->caller.auth;
	struct directory_command c = { .directory = a->directory,
				       .scheme = a->scheme,
				       .make_password = command_make_password,
				       .usage = command_usage,
				       .tell_quota = command_tell_quota,
				       .arg = r };
	struct directory_result result = { .exit = 0 };
	struct arena *arena = arena_new(DIRECTORY_COMMAND_ARENA);
	str args[128];
	enum err err = arena ? ERR_OK : ERR_NO_MEMORY;

	r->arena = arena;
	buf_init(&result.out, DIRECTORY_COMMAND_OUT);
	buf_init(&result.err, DIRECTORY_COMMAND_ERR);
	if (!err)
		directory_command_run(&c, args,
				      split_args(buf_str(&r->args), args, ARRAY_LEN(args)),
				      buf_str(&r->input), r->cursor, arena, &result);
	auth_mechanisms_check(a); /* an account that came or went may decide it */
	auth_grants_check(a);
	if (auth_caller_is_there(&r->caller))
		err = err ? REPLY_FAILED(r->caller.chan, r->caller.id, err, STR_EMPTY)
			  : REPLY(r->caller.chan, r->caller.id, command_output,
				  .out = buf_str(&result.out), .err = buf_str(&result.err),
				  .exit = (uint8_t)result.exit, .more = result.more,
				  .cursor = result.cursor);
	if (err)
		log_warn(&a->role->log, "command-answer-lost", "error=%s", err_name(err));
	arena_free(arena);
	buf_free(&result.out);
	buf_free(&result.err);
	if (r->input.p)
		explicit_bzero(r->input.p, r->input.size);
	buf_free(&r->args);
	buf_free(&r->input);
	free(r);
}

void auth_command(struct auth_role *a, struct chan *from, uint32_t id, const struct msg_command *m)
{
	struct running_command *r = calloc(1, sizeof(*r));
	enum err err = ERR_NO_MEMORY;

	if (r) {
		r->caller = auth_caller(a, from, id);
		r->cursor = m->cursor;
		buf_init(&r->args, m->args.n + 1);
		buf_init(&r->input, m->input.n + 1);
		buf_add(&r->args, m->args);
		buf_add(&r->input, m->input);
		err = buf_failed(&r->args) || buf_failed(&r->input)
			      ? ERR_NO_MEMORY
			      : fiber_spawn(a->role->loop, command_run, r);
		if (err) {
			buf_free(&r->args);
			buf_free(&r->input);
			free(r);
		}
	}
	if (err && (err = REPLY_FAILED(from, id, err, STR_EMPTY)))
		log_warn(&a->role->log, "command-answer-lost", "error=%s", err_name(err));
}
