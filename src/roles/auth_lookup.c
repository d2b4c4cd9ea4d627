/* Password hashes, computed by the lookup workers: one at a time in each, the rest in a queue here.
 *
 * A hash takes 15 ms of a core and 19 MiB. There is a worker for each core; more at once would only
 * make every one slower and use more memory. Whatever needs no hash (a remembered login, RCPT,
 * SCRAM) never waits behind one, since the loop of auth only hands jobs out. A job that waited too
 * long is answered with a temporary error: its client has given up by then, and computing for it
 * would delay the others.
 */
#include "roles/auth_priv.h"

#include <stdlib.h>

static void job_free(struct auth_job *j)
{
	if (j->password.p)
		explicit_bzero((void *)(uintptr_t)j->password.p, j->password.n);
	free((void *)(uintptr_t)j->password.p);
	free((void *)(uintptr_t)j->stored.p);
	free((void *)(uintptr_t)j->scheme.p);
	free(j);
}

static void job_end(struct auth_job *j, enum err err, const struct msg_lookup_hash_reply *made)
{
	j->done(j->arg, err, made);
	job_free(j);
}

void auth_jobs_init(struct auth_role *a)
{
	a->jobs.end = &a->jobs.first;
}

/* What password_make refuses, of which the administrator is told. */
static bool is_about_the_password(enum err err)
{
	return err == ERR_SYNTAX || err == ERR_TOO_LONG || err == ERR_RANGE ||
	       err == ERR_UNSUPPORTED;
}

/* The worker's answer. A worker that died or sent nonsense has not said "wrong": that is a
 * temporary error. */
static void job_answered(void *arg, enum err err, struct msg *reply)
{
	struct auth_job *j = arg;
	struct auth_role *a = j->auth;
	const struct msg_lookup_hash_reply *made = NULL;

	a->jobs.running[j->worker] = NULL;
	a->jobs.computed++;
	if (!err && j->is_hash && reply->type == MSG_lookup_hash_reply)
		made = &reply->u.lookup_hash_reply;
	else if (!err && !j->is_hash && reply->type == MSG_lookup_password_reply)
		err = reply->u.lookup_password_reply.err < ERR_COUNT
			      ? (enum err)reply->u.lookup_password_reply.err
			      : ERR_TEMPORARY;
	else if (!err || !j->is_hash || !is_about_the_password(err))
		err = ERR_TEMPORARY;
	job_end(j, err, made);
	auth_jobs_run(a);
}

static enum err job_start(struct auth_job *j, struct chan *worker)
{
	if (j->is_hash)
		return chan_call_async(worker, MSG_lookup_hash,
				       &(struct msg_lookup_hash){ .scheme = j->scheme,
								  .password = j->password },
				       j->deadline, job_answered, j);
	return chan_call_async(worker, MSG_lookup_password,
			       &(struct msg_lookup_password){ .stored = j->stored,
							      .password = j->password },
			       j->deadline, job_answered, j);
}

static struct auth_job *job_take(struct auth_role *a)
{
	struct auth_job *j = a->jobs.first;

	a->jobs.first = j->next;
	if (!a->jobs.first)
		a->jobs.end = &a->jobs.first;
	a->jobs.count--;
	return j;
}

/* A worker that is up and has nothing to do; AUTH_INDEX_MAX when there is none. */
static unsigned idle_worker(struct auth_role *a)
{
	unsigned n = MIN(role_peers(a->role, ROLE_LOOKUP), (unsigned)AUTH_INDEX_MAX);

	for (unsigned i = 0; i < n; i++) {
		struct chan *c = role_peer(a->role, ROLE_LOOKUP, i);

		if (!a->jobs.running[i] && c && chan_is_up(c))
			return i;
	}
	return AUTH_INDEX_MAX;
}

void auth_jobs_run(struct auth_role *a)
{
	while (a->jobs.first) {
		unsigned worker = idle_worker(a);
		struct auth_job *j;

		if (a->jobs.first->deadline <= loop_now(a->role->loop)) {
			job_end(job_take(a), ERR_TIMEOUT, NULL);
			continue;
		}
		if (worker == AUTH_INDEX_MAX)
			return;
		j = job_take(a);
		j->worker = worker;
		a->jobs.running[worker] = j;
		if (job_start(j, role_peer(a->role, ROLE_LOOKUP, worker))) {
			a->jobs.running[worker] = NULL;
			job_end(j, ERR_TEMPORARY, NULL);
		}
	}
}

/* A copy on the heap. False when there is no memory. */
static bool copy(str s, str *out)
{
	char *p = malloc(s.n + 1);

	if (!p)
		return false;
	memcpy(p, s.n ? s.p : "", s.n);
	*out = str_of(p, s.n);
	return true;
}

static enum err job_add(struct auth_role *a, const struct auth_job *wanted)
{
	struct auth_job *j;

	if (a->jobs.count >= AUTH_JOBS_MAX)
		return ERR_BUSY;
	j = calloc(1, sizeof(*j));
	if (!j)
		return ERR_NO_MEMORY;
	*j = *wanted;
	j->stored = j->scheme = j->password = STR_EMPTY;
	if (!copy(wanted->stored, &j->stored) || !copy(wanted->scheme, &j->scheme) ||
	    !copy(wanted->password, &j->password)) {
		job_free(j);
		return ERR_NO_MEMORY;
	}
	j->auth = a;
	j->deadline = loop_now(a->role->loop) + SECONDS(AUTH_JOB_SECONDS);
	*a->jobs.end = j;
	a->jobs.end = &j->next;
	a->jobs.count++;
	auth_jobs_run(a);
	return ERR_OK;
}

enum err auth_job_verify(struct auth_role *a, str stored, str password,
			 void (*done)(void *, enum err, const struct msg_lookup_hash_reply *),
			 void *arg)
{
	return job_add(a,
		       &(struct auth_job){
			       .stored = stored, .password = password, .done = done, .arg = arg });
}

enum err auth_job_hash(struct auth_role *a, str scheme, str password,
		       void (*done)(void *, enum err, const struct msg_lookup_hash_reply *),
		       void *arg)
{
	return job_add(a, &(struct auth_job){ .is_hash = true,
					      .scheme = scheme,
					      .password = password,
					      .done = done,
					      .arg = arg });
}
