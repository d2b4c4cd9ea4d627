/* The role checkpoint: the store's helper, the only writer of the index.
 *
 * It brings the index up to the position that the store names, which is durable, and may take its
 * time. It is a process of its own so that the pages it copies, and the disk it
 * waits for, are not those of the event loop that answers `250`. If it dies, the store asks its
 * successor for the same again. What the store removed is closed here, so that the freeing of
 * blocks, too, does not hold up that loop. Before its first run it reads the whole index and checks
 * it; what is wrong there is for the store to act on.
 *
 * Sandbox: files below the store's directory.
 */
#include "roles/role.h"
#include "store/engine.h"

#include <stdlib.h>

struct checkpoint {
	int dir;
	char path[OS_FD_PATH_SIZE];
	struct store_index *index; /* NULL: not open */
	struct buf items, blobs;
};

static enum err checkpoint_init(struct role *r)
{
	struct checkpoint *c = calloc(1, sizeof(*c));

	if (!c)
		return ERR_NO_MEMORY;
	c->dir = -1;
	buf_init(&c->items, 49152);
	buf_init(&c->blobs, 32 * 1024 * 1024);
	r->state = c;
	return ERR_OK;
}

static enum err checkpoint_file(struct role *r, str name, str path UNUSED, int fd)
{
	struct checkpoint *c = r->state;

	if (!str_eq(name, S("store")) || c->dir >= 0) {
		os_close(fd);
		return ERR_UNSUPPORTED;
	}
	c->dir = fd;
	os_fd_path(fd, c->path);
	return ERR_OK;
}

static enum err checkpoint_prepare(struct role *r)
{
	struct checkpoint *c = r->state;

	return c->dir < 0 ? ERR_CONFIG : ERR_OK;
}

static enum err index_open(struct role *r)
{
	struct checkpoint *c = r->state;
	struct store_options options = { .dir = c->dir, .path = c->path, .log = &r->log };
	enum err err;

	if (c->index)
		return ERR_OK;
	err = store_index_open(&options, &c->index);
	/* Once for each store that begins: what nobody reads for a year must not be found spoilt
	 * then. */
	if (!err && (err = store_index_check(c->index))) {
		store_index_close(c->index);
		c->index = NULL;
	}
	return err;
}

static enum err run(struct role *r, uint64_t position, struct msg_cp_done *out)
{
	struct checkpoint *c = r->state;
	enum err err = index_open(r);

	if (!err) {
		err = store_index_run(c->index, position, &out->position, &out->records);
		/* If the index is to blame, the next run's look at it says so. */
		if (err == ERR_DAMAGED || err == ERR_NOT_FOUND)
			err = ERR_TEMPORARY;
	}
	if (err) {
		/* Whatever is wrong with it, the next run looks anew. */
		store_index_close(c->index);
		c->index = NULL;
	}
	return err;
}

static enum err plan(struct role *r, struct chan *from, uint32_t id, const struct msg_cp_plan *in)
{
	struct checkpoint *c = r->state;
	struct msg_cp_planned out;
	enum err err = index_open(r);

	buf_clear(&c->items);
	if (!err)
		err = store_index_plan(c->index, in, &c->items, &out);
	return err ? err : chan_reply(from, id, MSG_cp_planned, &out);
}

static enum err step(struct role *r, struct chan *from, uint32_t id, const struct msg_cp_step *in)
{
	struct checkpoint *c = r->state;
	struct msg_cp_items out = { .blobs = -1 };
	enum err err =
		c->index ? store_index_step(c->index, in->bytes, &c->items, &c->blobs, &out.more)
			 : ERR_STALE;

	out.items = buf_str(&c->items);
	if (!err && buf_len(&c->blobs))
		err = os_memfd(buf_str(&c->blobs), true, &out.blobs);
	if (!err)
		err = chan_reply(from, id, MSG_cp_items, &out);
	os_close(out.blobs);
	return err;
}

static void checkpoint_message(struct role *r, struct chan *from, struct msg *m)
{
	struct msg_cp_done done = { .position = 0 };
	enum err err = ERR_DENIED;

	if (m->type == MSG_cp_removed)
		return; /* closed with the message */
	if (m->type == MSG_cp_plan) {
		err = plan(r, from, m->id, &m->u.cp_plan);
	} else if (m->type == MSG_cp_step) {
		err = step(r, from, m->id, &m->u.cp_step);
	} else if (m->type == MSG_cp_run) {
		err = run(r, m->u.cp_run.position, &done);
		if (!err)
			err = chan_reply(from, m->id, MSG_cp_done, &done);
	}
	if (err && REPLY_FAILED(from, m->id, err, str_from_c(err_text(err))))
		log_warn(&r->log, "checkpoint-reply-lost", "error=%s", err_name(err));
}

/* A new store may have found the index damaged and made another one. */
static void checkpoint_peer_up(struct role *r, struct chan *peer)
{
	struct checkpoint *c = r->state;

	if (chan_peer(peer) != ROLE_STORE)
		return;
	store_index_close(c->index);
	c->index = NULL;
}

static void checkpoint_stop(struct role *r, unsigned seconds)
{
	struct checkpoint *c = r->state;

	(void)seconds;
	store_index_close(c->index);
	os_close(c->dir);
	buf_free(&c->items);
	buf_free(&c->blobs);
	free(c);
	r->state = NULL;
	loop_stop(r->loop);
}

const struct role_ops role_checkpoint_ops = {
	.kind = ROLE_CHECKPOINT,
	.sandbox = SANDBOX_FILES | SANDBOX_SYNC | SANDBOX_MEMFD,
	.init = checkpoint_init,
	.file = checkpoint_file,
	.prepare = checkpoint_prepare,
	.message = checkpoint_message,
	.peer_up = checkpoint_peer_up,
	.stop = checkpoint_stop,
};
