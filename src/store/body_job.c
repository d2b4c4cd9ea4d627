/* Large bodies on the way in, a chunk at a time.
 *
 * Hashing, sealing and writing a megabyte takes milliseconds, and its sync takes more; a small
 * delivery must not wait for that. So each turn of the loop does one chunk of one body, between
 * everything else that arrived, and a helper thread waits in the sync, as for the log. A thread for
 * the hashing was turned down: it would share memory with this one.
 *
 * Bodies are sealed in the order in which they came, one after the other (each is done earlier so
 * than if they took turns); the syncs of one (of the file, then of its name) go on while the next
 * is sealed. Who gives up a job is not told of it any more; a job whose sync is under way ends with
 * that.
 */
#include "store/store_priv.h"

#include "base/mutant.h"

#include <stdlib.h>

struct body_job {
	struct body_job *next;
	struct sealed body;
	struct sealing sealing;
	char *copy; /* of an inline body; or: */
	int fd;
	int folder;	  /* whose sync is under way: the file has its name; -1: not yet */
	body_taken *done; /* NULL: given up */
	void *arg;
};

struct body_jobs {
	struct hasher *hasher;
	struct os_syncer *syncer;
	struct body_job *sealing, *syncing; /* queues; the first is the one at work */
};

enum err body_jobs_new(struct body_jobs **out)
{
	struct body_jobs *j = calloc(1, sizeof(*j));
	enum err err = ERR_NO_MEMORY;

	if (!j)
		return err;
	j->hasher = hasher_new();
	if (j->hasher)
		err = os_syncer_new(&j->syncer);
	if (err)
		body_jobs_free(NULL, j);
	else
		*out = j;
	return err;
}

static void job_free(struct store *s, struct body_job *job)
{
	sealing_end(&job->sealing);
	sealed_drop(s, &job->body);
	os_close(job->fd);
	os_close(job->folder);
	free(job->copy);
	free(job);
}

static void jobs_drop(struct store *s, struct body_job **queue)
{
	while (*queue) {
		struct body_job *job = *queue;

		*queue = job->next;
		if (job->done)
			job->done(job->arg, ERR_CLOSED, NULL);
		job_free(s, job);
	}
}

void body_jobs_free(struct store *s, struct body_jobs *j)
{
	if (!j)
		return;
	os_syncer_free(j->syncer);
	jobs_drop(s, &j->sealing);
	jobs_drop(s, &j->syncing);
	hasher_free(j->hasher);
	free(j);
}

int body_jobs_fd(const struct body_jobs *j)
{
	return os_syncer_fd(j->syncer);
}

bool body_jobs_are_idle(const struct body_jobs *j)
{
	return !j->sealing && !j->syncing;
}

bool body_jobs_want_turn(const struct body_jobs *j)
{
	return j->sealing;
}

static void job_append(struct body_job **queue, struct body_job *job)
{
	while (*queue)
		queue = &(*queue)->next;
	job->next = NULL;
	*queue = job;
}

enum err body_job_start(struct store *s, const struct body_source *from, bool hash,
			body_taken *done, void *arg, struct body_job **out)
{
	struct body_job *job = calloc(1, sizeof(*job));
	struct body_source own = *from;
	enum err err = ERR_NO_MEMORY;

	if (!job)
		return err;
	job->done = done;
	job->arg = arg;
	job->fd = job->folder = job->sealing.to = -1;
	if (from->inline_body.n) {
		if ((job->copy = malloc(from->inline_body.n))) {
			memcpy(job->copy, from->inline_body.p, from->inline_body.n);
			own.inline_body.p = job->copy;
			err = ERR_OK;
		}
	} else {
		own.fd = job->fd = os_dup(from->fd);
		err = own.fd < 0 ? ERR_TOO_MANY : ERR_OK;
	}
	if (!err)
		err = sealing_begin(s, &own, hash ? s->jobs->hasher : NULL, &job->body,
				    &job->sealing);
	if (err) {
		job_free(s, job);
		return err;
	}
	job_append(&s->jobs->sealing, job);
	*out = job;
	return ERR_OK;
}

void body_job_cancel(struct body_job *job)
{
	job->done = NULL;
}

/* Takes the first from its queue and hands over what it made. */
static void job_end(struct store *s, struct body_job **queue, enum err err)
{
	struct body_job *job = *queue;

	*queue = job->next;
	if (job->done)
		job->done(job->arg, err, err ? NULL : &job->body);
	job_free(s, job);
}

static void sync_next(struct store *s)
{
	struct body_jobs *j = s->jobs;

	while (j->syncing && !j->syncing->done)
		job_end(s, &j->syncing, ERR_CANCELLED);
	if (j->syncing)
		os_sync_start(j->syncer, j->syncing->sealing.to);
}

void body_jobs_step(struct store *s)
{
	struct body_jobs *j = s->jobs;
	struct body_job *job = j->sealing;
	bool is_first = !j->syncing;
	enum err err;

	if (!job)
		return;
	err = job->done ? sealing_step(s, &job->sealing, &job->body) : ERR_CANCELLED;
	if (err == ERR_AGAIN)
		return;
	if (err || job->sealing.to < 0) {
		job_end(s, &j->sealing, err);
		return;
	}
	j->sealing = job->next;
	job_append(&j->syncing, job);
	if (is_first)
		sync_next(s);
}

/* Where the file system has no links, what a crash cuts off is left to fsck. */
static enum err job_name(struct store *s, struct body_job *job)
{
	char name[40], marker[40];
	enum err err;

	body_file_name(name, job->body.file);
	body_file_marker(marker, job->body.file);
	err = os_link(s->options.dir, marker, name);
	if (err)
		err = os_rename(s->options.dir, marker, name);
	if (!err)
		err = os_open(s->options.dir, "body", OS_READ | OS_DIRECTORY, &job->folder);
	return err;
}

void body_jobs_sync_ready(struct store *s)
{
	struct body_jobs *j = s->jobs;
	struct body_job *job = j->syncing;
	enum err err = job ? os_sync_result(j->syncer) : ERR_AGAIN;

	if (err == ERR_AGAIN)
		return;
	if (!err && job->folder < 0 && job->done) {
		err = job_name(s, job);
		if (!err && !MUTANT(body_file_not_synced)) {
			os_sync_start_folder(j->syncer, job->folder);
			return;
		}
	}
	if (err && s->options.log)
		log_error(s->options.log, "store-body-sync-failed", "error=%s", err_name(err));
	job_end(s, &j->syncing, err ? ERR_TEMPORARY : ERR_OK);
	sync_next(s);
}
