/* Bodies on the way in: hashed and sealed in one pass as they arrive, so that a transaction that
 * waits for its verdict holds ciphertext alone, and a commit only takes over memory.
 *
 * Large ones go to a file at once, under a temporary name, synced; the commit that refers to them
 * gives them their final name and syncs the directory before its frame is written. If that commit
 * fails, the file goes; if we are killed in between, it is found by its number at the next start:
 * one that was never given away.
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

static void file_temporary_name(char name[40], uint64_t number)
{
	snprintf(name, 40, "body/new-%llx", (unsigned long long)number);
}

static uint64_t large_min(const struct store *s)
{
	return MIN((uint64_t)LARGE_BODY_MIN, s->kv->options.segment_size / 8);
}

/* One pass over the chunks of the body; `fd`: where plain bytes come from when `inline_body` has
 * none; `to`: a file, or -1 for b->blob. */
static enum err chunks_seal(struct store *s, str inline_body, int fd, bool hash, struct sealed *b,
			    int to)
{
	uint64_t chunks = b->size ? (b->size + BODY_CHUNK - 1) / BODY_CHUNK : 1, at = 0;
	char *plain = inline_body.n || !b->size ? NULL : malloc(BODY_CHUNK);
	char *sealed = to >= 0 ? malloc(BODY_CHUNK + BODY_TAG) : NULL;
	enum err err = (b->size && !inline_body.n && !plain) || (to >= 0 && !sealed) ? ERR_NO_MEMORY
										     : ERR_OK;

	for (uint64_t i = 0; i < chunks && !err; i++) {
		size_t n = (size_t)MIN((uint64_t)BODY_CHUNK, b->size - i * BODY_CHUNK);
		str piece = plain ? str_of(plain, n)
				  : str_sub(inline_body, (size_t)(i * BODY_CHUNK), n);
		char *out = to >= 0 ? sealed : b->blob + at;

		if (plain && (err = os_pread_all(fd, plain, n, i * BODY_CHUNK)))
			break;
		if (hash && EVP_DigestUpdate(s->hasher->context, piece.p, piece.n) != 1)
			err = ERR_NO_MEMORY;
		body_seal_chunk(s->bodies, b->key, (uint32_t)i, i + 1 == chunks, piece, out);
		if (!err && to >= 0)
			err = os_pwrite_all(to, str_of(sealed, n + BODY_TAG), at);
		at += n + BODY_TAG;
	}
	free(plain);
	free(sealed);
	return err == ERR_EOF ? ERR_PROTOCOL : err;
}

static enum err file_seal(struct store *s, str inline_body, int fd, bool hash, struct sealed *b)
{
	char name[40];
	int to;
	enum err err;

	b->file = ++s->file_number;
	file_temporary_name(name, b->file);
	if ((err = os_open(s->options.dir, name, OS_WRITE | OS_CREATE | OS_TRUNCATE, &to)))
		return err;
	err = chunks_seal(s, inline_body, fd, hash, b, to);
	if (!err)
		err = os_fsync(to);
	os_close(to);
	return err;
}

enum err body_take(struct store *s, str inline_body, int fd, uint64_t size, bool hash,
		   struct sealed *out)
{
	uint64_t actual = inline_body.n;
	unsigned n = sizeof(out->hash);
	enum err err;

	*out = (struct sealed){ .size = size, .stored = body_stored_size(size) };
	if (!inline_body.n && fd > 0 && (err = os_memfd_check(fd, &actual)))
		return err;
	if (actual != size)
		return ERR_PROTOCOL;
	if (size > BODY_SIZE_MAX)
		return ERR_TOO_LONG;
	os_random(out->key, sizeof(out->key));
	if (hash && EVP_DigestInit_ex2(s->hasher->context, s->hasher->algorithm, NULL) != 1)
		return ERR_NO_MEMORY;
	if (size >= large_min(s)) {
		err = file_seal(s, inline_body, fd, hash, out);
	} else {
		out->blob = malloc((size_t)out->stored);
		err = out->blob ? chunks_seal(s, inline_body, fd, hash, out, -1) : ERR_NO_MEMORY;
	}
	if (!err && hash && EVP_DigestFinal_ex(s->hasher->context, out->hash, &n) != 1)
		err = ERR_NO_MEMORY;
	if (err)
		sealed_drop(s, out);
	return err;
}

void sealed_drop(struct store *s, struct sealed *b)
{
	char name[40];

	free(b->blob);
	b->blob = NULL;
	if (!b->file)
		return;
	file_temporary_name(name, b->file);
	if (os_unlink(s->options.dir, name) && s->options.log)
		log_warn(s->options.log, "store-file-left", "file=%s", name);
	b->file = 0;
}

static bool is_left_over(str name, uint64_t next)
{
	uint64_t id = 0;

	if (str_starts(name, S("new-")))
		return true;
	if (name.n != 16)
		return false;
	for (size_t i = 0; i < name.n; i++) {
		int digit = ascii_hex_value(name.p[i]);

		if (digit < 0)
			return false;
		id = id << 4 | (uint64_t)digit;
	}
	return id >= next;
}

/* Those with a lower number are left to fsck: a file that only seems to be nobody's, because
 * something else is damaged, must not be removed. */
void body_files_sweep(struct store *s)
{
	struct arena *a = arena_new(256 * 1024 * 1024);
	uint64_t next = body_ids_end(s);
	size_t count = 0, removed = 0;
	char name[64];
	str *names;
	int fd;

	if (a && next && os_open(s->options.dir, "body", OS_READ | OS_DIRECTORY, &fd) == ERR_OK) {
		if (os_list(fd, a, &names, &count))
			count = 0;
		os_close(fd);
	}
	for (size_t i = 0; i < count; i++) {
		if (!is_left_over(names[i], next))
			continue;
		snprintf(name, sizeof(name), "body/%.*s", STR_ARGS(names[i]));
		removed += os_unlink(s->options.dir, name) == ERR_OK;
	}
	if (removed && s->options.log)
		log_info(s->options.log, "store-files-swept", "count=%zu", removed);
	arena_free(a);
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

enum err body_commit(struct store *s, struct pending *p, struct sealed *b, uint64_t references,
		     uint64_t *id)
{
	struct body d = { .stored = b->stored, .size = b->size, .references = references };
	char from[40], to[40];
	struct key k;
	enum err err;

	*id = next_body(s);
	k = key_make1(KIND_BODY, *id);
	if (!b->file)
		d.place = PLACE_UNKNOWN;
	buf_clear(&s->value);
	body_put(&s->value, &d);
	if (b->file) {
		file_temporary_name(from, b->file);
		body_file_name(to, *id);
		if ((err = os_rename(s->options.dir, from, to)))
			return err;
		b->file = 0;
		p->made = *id;
		if ((err = directory_sync(s)))
			return err;
		kv_put(s->kv, &k, buf_str(&s->value));
	} else {
		unsigned blob = kv_blob(s->kv, b->blob, u32_of(b->stored));

		b->blob = NULL;
		kv_put_placed(s->kv, &k, buf_str(&s->value), blob);
	}
	return ERR_OK;
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
	if ((err = body_commit(s, c->pending, b, 1, &n.body)))
		return err;
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

enum err store_append(struct store *s, uint64_t account, const struct msg_st_append *in,
		      store_done *done, void *arg)
{
	struct pending *p;
	struct sealed b;
	struct change c;
	enum err err = body_take(s, in->inline_body, in->body, in->size, false, &b);

	if (err)
		return err;
	p = pending_new(s, done, arg);
	err = p ? kv_begin(s->kv, false) : ERR_NO_MEMORY;
	if (!err) {
		err = change_begin(s, p, account, false, &c);
		if (!err)
			err = append_row(&c, in, &b);
		if (err)
			kv_cancel(s->kv);
	}
	sealed_drop(s, &b);
	if (err) {
		pending_free(p);
		return err;
	}
	change_end(&c);
	return pending_end(p);
}
