/* Bodies on the way in: hashed and sealed in one pass as they arrive, so that a transaction that
 * waits for its verdict holds ciphertext alone, and a commit only takes over memory.
 *
 * Large ones (body_job.c) go to a file, under a temporary name, `new-` and the id that the body
 * will have. When it is synced it gets its final name as a second one, the directory is synced, and
 * then comes the commit that refers to it. When that is durable the temporary name goes. So at the
 * next start a temporary name says of which file nobody may have been told: it goes, unless the
 * commit is there. (If it is there, but damaged: the body's key was in it too.)
 */
#include "store/store_priv.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

struct hasher {
	EVP_MD *algorithm;
	EVP_MD_CTX *context;
};

struct hasher *hasher_new(void)
{
	struct hasher *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->algorithm = EVP_MD_fetch(NULL, "SHA256", NULL);
	h->context = EVP_MD_CTX_new();
	if (h->algorithm && h->context)
		return h;
	hasher_free(h);
	return NULL;
}

void hasher_free(struct hasher *h)
{
	if (!h)
		return;
	EVP_MD_CTX_free(h->context);
	EVP_MD_free(h->algorithm);
	free(h);
}

void body_file_name(char name[40], uint64_t body)
{
	snprintf(name, 40, "body/%016llx", (unsigned long long)body);
}

void body_file_marker(char name[40], uint64_t body)
{
	snprintf(name, 40, "body/new-%llx", (unsigned long long)body);
}

static uint64_t large_min(const struct store *s)
{
	return MIN((uint64_t)LARGE_BODY_MIN, s->kv->options.segment_size / 8);
}

bool body_is_large(const struct store *s, uint64_t size)
{
	return size > BODY_AT_ONCE_MAX || size >= large_min(s);
}

static enum err room_make(struct store *s, struct sealed *b, struct sealing *x)
{
	char name[40];

	if (x->from.size < large_min(s)) {
		b->blob = malloc((size_t)b->stored);
		return b->blob ? ERR_OK : ERR_NO_MEMORY;
	}
	if (!(x->sealed = malloc(BODY_CHUNK + BODY_TAG)))
		return ERR_NO_MEMORY;
	b->file = body_reserve(s);
	body_file_marker(name, b->file);
	return os_open(s->options.dir, name, OS_WRITE | OS_CREATE | OS_TRUNCATE, &x->to);
}

enum err sealing_begin(struct store *s, const struct body_source *from, struct hasher *hasher,
		       struct sealed *b, struct sealing *x)
{
	uint64_t actual = from->inline_body.n;
	enum err err;

	*b = (struct sealed){ .size = from->size, .stored = body_stored_size(from->size) };
	*x = (struct sealing){ .from = *from, .hasher = hasher, .to = -1 };
	if (!actual && from->fd > 0 && (err = os_memfd_check(from->fd, &actual)))
		return err;
	if (actual != from->size)
		return ERR_PROTOCOL;
	if (from->size > BODY_SIZE_MAX)
		return ERR_TOO_LONG;
	if (!from->inline_body.n && from->size && !(x->plain = malloc(BODY_CHUNK)))
		return ERR_NO_MEMORY;
	os_random(b->key, sizeof(b->key));
	return room_make(s, b, x);
}

void sealing_end(struct sealing *x)
{
	free(x->plain);
	free(x->sealed);
	x->plain = x->sealed = NULL;
	os_close(x->to);
	x->to = -1;
}

static enum err hash_more(struct sealing *x, str piece, bool is_last, struct sealed *b)
{
	struct hasher *h = x->hasher;
	unsigned n = sizeof(b->hash);

	if (!h)
		return ERR_OK;
	if ((x->next == 0 && EVP_DigestInit_ex2(h->context, h->algorithm, NULL) != 1) ||
	    EVP_DigestUpdate(h->context, piece.p, piece.n) != 1 ||
	    (is_last && EVP_DigestFinal_ex(h->context, b->hash, &n) != 1))
		return ERR_NO_MEMORY;
	return ERR_OK;
}

enum err sealing_step(struct store *s, struct sealing *x, struct sealed *b)
{
	uint64_t at = x->next * BODY_CHUNK, place = x->next * (BODY_CHUNK + BODY_TAG);
	size_t n = (size_t)MIN((uint64_t)BODY_CHUNK, x->from.size - at);
	bool is_last = at + n == x->from.size;
	str piece = x->plain ? str_of(x->plain, n) : str_sub(x->from.inline_body, (size_t)at, n);
	char *out = x->sealed ? x->sealed : b->blob + place;
	enum err err = x->plain ? os_pread_all(x->from.fd, x->plain, n, at) : ERR_OK;

	if (!err)
		err = hash_more(x, piece, is_last, b);
	if (err)
		return err == ERR_EOF ? ERR_PROTOCOL : err;
	body_seal_chunk(s->bodies, b->key, (uint32_t)x->next, is_last, piece, out);
	if (x->sealed && (err = os_pwrite_all(x->to, str_of(out, n + BODY_TAG), place)))
		return err;
	x->next++;
	return is_last ? ERR_OK : ERR_AGAIN;
}

enum err body_take(struct store *s, const struct body_source *from, bool hash, struct sealed *out)
{
	struct sealing x;
	enum err err = sealing_begin(s, from, hash ? s->hasher : NULL, out, &x);

	while (!err && (err = sealing_step(s, &x, out)) == ERR_AGAIN)
		err = ERR_OK;
	sealing_end(&x);
	if (err)
		sealed_drop(s, out);
	return err;
}

void sealed_drop(struct store *s, struct sealed *b)
{
	char name[40], marker[40];
	enum err err;

	free(b->blob);
	b->blob = NULL;
	if (!b->file)
		return;
	body_file_name(name, b->file);
	body_file_marker(marker, b->file);
	err = os_unlink(s->options.dir, name);
	if (!err || err == ERR_NOT_FOUND)
		err = os_unlink(s->options.dir, marker);
	if (err && err != ERR_NOT_FOUND && s->options.log)
		log_warn(s->options.log, "store-file-left", "file=%s", marker);
	b->file = 0;
}

static bool hex_id(str name, uint64_t *id)
{
	*id = 0;
	for (size_t i = 0; i < name.n; i++) {
		int digit = ascii_hex_value(name.p[i]);

		if (digit < 0)
			return false;
		*id = *id << 4 | (uint64_t)digit;
	}
	return name.n > 0 && name.n <= 16;
}

/* A file whose id was never given away, or whose commit was under way and is not there. Others that
 * nobody refers to are left to fsck: a file that only seems to be nobody's, because something else
 * is damaged, must not be removed. */
static bool is_left_over(struct store *s, str name, uint64_t next, uint64_t *id)
{
	bool is_marker = str_starts(name, S("new-"));
	struct key k;
	str value;

	if (!hex_id(is_marker ? str_from(name, 4) : name, id) || (!is_marker && name.n != 16))
		return false;
	if (*id >= next)
		return true;
	k = key_make1(KIND_BODY, *id);
	return is_marker && kv_get(s->kv, KV_DURABLE, &k, &value) == ERR_NOT_FOUND;
}

static enum err directory_sync(struct store *s)
{
	int fd;
	enum err err = os_open(s->options.dir, "body", OS_READ | OS_DIRECTORY, &fd);

	if (err)
		return err;
	err = os_fsync(fd);
	os_close(fd);
	return err;
}

/* The files first: a name that says what to remove must not go before that is gone. */
static void files_sweep(struct store *s, const str *names, size_t count, uint64_t next)
{
	uint64_t removed = 0, id;
	enum err err = ERR_OK;
	char name[64];

	for (size_t i = 0; i < count; i++) {
		if (!is_left_over(s, names[i], next, &id))
			continue;
		body_file_name(name, id);
		removed += os_unlink(s->options.dir, name) == ERR_OK;
	}
	if (removed)
		err = directory_sync(s);
	for (size_t i = 0; i < count && !err; i++) {
		if (!str_starts(names[i], S("new-")))
			continue;
		snprintf(name, sizeof(name), "body/%.*s", STR_ARGS(names[i]));
		removed += os_unlink(s->options.dir, name) == ERR_OK;
	}
	if (removed && s->options.log)
		log_info(s->options.log, "store-files-swept", "count=%llu",
			 (unsigned long long)removed);
}

void body_files_sweep(struct store *s)
{
	struct arena *a = arena_new(256 * 1024 * 1024);
	uint64_t next = body_ids_end(s);
	size_t count = 0;
	str *names;
	int fd;

	if (a && next && os_open(s->options.dir, "body", OS_READ | OS_DIRECTORY, &fd) == ERR_OK) {
		if (os_list(fd, a, &names, &count))
			count = 0;
		os_close(fd);
	}
	if (count)
		files_sweep(s, names, count, next);
	kv_release(s->kv);
	arena_free(a);
}

void body_commit(struct store *s, struct pending *p, struct sealed *b, uint64_t references,
		 uint64_t *id)
{
	struct body d = { .stored = b->stored, .size = b->size, .references = references };
	struct key k;

	*id = b->file ? b->file : next_body(s);
	k = key_make1(KIND_BODY, *id);
	if (!b->file)
		d.place = PLACE_UNKNOWN;
	buf_clear(&s->value);
	body_put(&s->value, &d);
	if (b->file) {
		kv_put(s->kv, &k, buf_str(&s->value));
		body_reserved_given(s, *id);
		p->made = *id;
		b->file = 0;
	} else {
		unsigned blob = kv_blob(s->kv, b->blob, u32_of(b->stored));

		b->blob = NULL;
		kv_put_placed(s->kv, &k, buf_str(&s->value), blob);
	}
}

static str cold_encode(struct store *s, str prefix, bool has_parse, str envelope, str structure)
{
	struct rec_row_cold cold = { .prefix = prefix,
				     .has_parse = has_parse,
				     .envelope = envelope,
				     .structure = structure };

	buf_clear(&s->cold);
	if (has_parse || prefix.n)
		rec_row_cold_put(&s->cold, &cold);
	return buf_str(&s->cold);
}

static enum err append_row(struct change *c, const struct msg_st_append *in, struct sealed *b)
{
	struct store *s = c->store;
	struct mailbox m;
	struct row row;
	struct new_row n = { .size = b->size,
			     .received_us = in->received_us,
			     .zone = (int32_t)in->zone };
	uint8_t key[BODY_KEY_SIZE];
	enum err err = mailbox_load(s, KV_PENDING, c->id, in->mailbox, &m);

	if (err || m.is_gone)
		return err ? err : ERR_NOT_FOUND;
	if (in->expected && in->expected != m.uidvalidity)
		return ERR_CONFLICT;
	if (c->account.quota && c->account.used + b->size > c->account.quota)
		return ERR_QUOTA;
	n.flags.w[0] = in->flags0 & ~(uint64_t)(0xffff & ~MSG_FLAG_SYSTEM);
	n.flags.w[1] = in->flags1;
	memcpy(key, b->key, sizeof(key));
	n.key = key;
	body_commit(s, c->pending, b, 1, &n.body);
	n.cold = cold_encode(s, STR_EMPTY, in->has_parse, in->envelope, in->structure);
	if ((err = message_add(c, &m, &n, &row)))
		return err;
	mailbox_save(c, &m);
	c->pending->reply.mailbox = m.id;
	c->pending->reply.uidvalidity = m.uidvalidity;
	c->pending->reply.email = row.email;
	c->pending->reply.body = row.body;
	c->pending->reply.modseq = c->modseq;
	c->pending->reply.changed = true;
	rec_uid_range_put(&c->pending->to,
			  &(struct rec_uid_range){ .first = row.uid, .last = row.uid });
	return ERR_OK;
}

static enum err append_commit(struct store *s, uint64_t account, const struct msg_st_append *in,
			      struct sealed *b, store_done *done, void *arg)
{
	struct pending *p = pending_new(s, done, arg);
	struct change c;
	enum err err = p ? kv_begin(s->kv, false) : ERR_NO_MEMORY;

	if (!err) {
		err = change_begin(s, p, account, false, &c);
		if (!err)
			err = append_row(&c, in, b);
		if (err)
			kv_cancel(s->kv);
	}
	sealed_drop(s, b);
	if (err) {
		pending_free(p);
		return err;
	}
	change_end(&c);
	return pending_end(p);
}

/* An APPEND whose body is being sealed. */
struct append_later {
	struct store *store;
	uint64_t account;
	struct msg_st_append in;
	store_done *done;
	void *arg;
	char text[]; /* envelope, structure */
};

static void append_sealed(void *arg, enum err err, struct sealed *b)
{
	struct append_later *l = arg;

	if (!err)
		err = append_commit(l->store, l->account, &l->in, b, l->done, l->arg);
	if (err)
		l->done(l->arg, err, &(struct msg_st_commit_reply){ .changed = false });
	free(l);
}

static enum err append_later(struct store *s, uint64_t account, const struct msg_st_append *in,
			     const struct body_source *from, store_done *done, void *arg)
{
	struct append_later *l = malloc(sizeof(*l) + in->envelope.n + in->structure.n);
	struct body_job *job;
	enum err err;

	if (!l)
		return ERR_NO_MEMORY;
	*l = (struct append_later){ s, account, *in, done, arg };
	l->in.envelope.p = l->text;
	l->in.structure.p = l->text + in->envelope.n;
	if (in->envelope.n)
		memcpy(l->text, in->envelope.p, in->envelope.n);
	if (in->structure.n)
		memcpy(l->text + in->envelope.n, in->structure.p, in->structure.n);
	err = body_job_start(s, from, false, append_sealed, l, &job);
	if (err)
		free(l);
	return err;
}

enum err store_append(struct store *s, uint64_t account, const struct msg_st_append *in,
		      store_done *done, void *arg)
{
	const struct body_source from = { in->inline_body, in->body, in->size };
	struct sealed b;
	enum err err;

	if (body_is_large(s, in->size))
		return append_later(s, account, in, &from, done, arg);
	err = body_take(s, &from, false, &b);
	return err ? err : append_commit(s, account, in, &b, done, arg);
}
