/* Role keys: the private keys of TLS, and nothing else in the process.
 *
 * The supervisor opens the files of certificate and key (`tls_cert`, `tls_key`; further pairs have
 * a suffix: `tls_cert.2`, `tls_key.2`) and hands them over before the sandbox is locked; after
 * that the role has no file, no network, and its channels to the fronts. It gives away the
 * certificates and signs handshakes whose whole text it has seen (net/keyring.c).
 *
 * A reload hands over the files again. The new pairs are read beside the old ones, which stay if
 * anything is wrong with the new ones: a certificate that was half written must not end TLS. The
 * set before the last is kept for a short time, so that handshakes that began with it can end; a
 * later request with an old version is ERR_STALE, and makes the front ask for the chains again.
 */
#include "net/keyring.h"
#include "roles/role.h"

#include <stdlib.h>

enum {
	PREVIOUS_SECONDS = 20, /* longer than a front waits for a signature */
	EXPIRY_WARNING_DAYS = 14,
};

struct text {
	char *p; /* of the locked heap */
	size_t n;
	char path[256];
};

struct file_pair {
	char suffix[64];
	struct text certificate, key;
};

struct keys {
	struct keyring *current, *previous;
	uint32_t version; /* of current; previous is one less */
	struct timer forget;
	struct file_pair files[KEYRING_KEYS_MAX]; /* handed over, not yet read */
	size_t files_n;
};

static void text_free(struct text *t)
{
	if (t->p)
		keyring_secure_free(t->p, t->n);
	*t = (struct text){ .p = NULL };
}

static void files_free(struct keys *k)
{
	for (size_t i = 0; i < k->files_n; i++) {
		text_free(&k->files[i].certificate);
		text_free(&k->files[i].key);
	}
	k->files_n = 0;
}

static enum err keys_init(struct role *r)
{
	enum err err = keyring_secure_memory();
	struct keys *k;

	if (err == ERR_UNSUPPORTED)
		log_warn(&r->log, "keys-memory",
			 "locked=no reason=\"the limit of locked memory is too small\"");
	else if (err)
		return err;
	k = calloc(1, sizeof(*k));
	if (!k)
		return ERR_NO_MEMORY;
	r->state = k;
	return ERR_OK;
}

/* ---- files ---- */

static struct file_pair *pair_of(struct keys *k, str suffix)
{
	struct file_pair *p;

	for (size_t i = 0; i < k->files_n; i++)
		if (str_eq(str_from_c(k->files[i].suffix), suffix))
			return &k->files[i];
	if (k->files_n == KEYRING_KEYS_MAX || suffix.n >= sizeof(p->suffix))
		return NULL;
	p = &k->files[k->files_n++];
	*p = (struct file_pair){ .suffix = "" };
	if (suffix.n)
		memcpy(p->suffix, suffix.p, suffix.n);
	return p;
}

static enum err read_text(int fd, str path, struct text *t)
{
	struct os_stat st;
	enum err err = os_fstat(fd, &st);

	text_free(t);
	if (err)
		return err;
	if (!st.is_file || st.size == 0 || st.size > KEYRING_FILE_MAX)
		return ERR_CONFIG;
	t->n = (size_t)st.size;
	t->p = keyring_secure_alloc(t->n);
	if (!t->p)
		return ERR_NO_MEMORY;
	path = str_head(path, sizeof(t->path) - 1);
	if (path.n)
		memcpy(t->path, path.p, path.n);
	if ((err = os_pread_all(fd, t->p, t->n, 0)))
		text_free(t);
	return err;
}

static enum err keys_file(struct role *r, str name, str path, int fd)
{
	struct keys *k = r->state;
	bool is_key = str_starts(name, S("tls_key"));
	struct file_pair *p = NULL;
	enum err err = ERR_OK;

	if (is_key || str_starts(name, S("tls_cert")))
		p = pair_of(k, str_from(name, is_key ? S("tls_key").n : S("tls_cert").n));
	/* One that cannot be read is missed when the pair is put together: a reload keeps the old
	 * one then. */
	if (!p || (err = read_text(fd, path, is_key ? &p->key : &p->certificate)))
		log_error(&r->log, "keys-file", "name=%.*s path=%.*s err=%s", STR_ARGS(name),
			  STR_ARGS(path), err_name(p ? err : ERR_TOO_MANY));
	os_close(fd);
	return ERR_OK;
}

static enum err add_pair(struct role *r, struct keyring *ring, const struct file_pair *p)
{
	const char *why = p->key.p ? "the certificate file is missing" : "the key file is missing";
	enum err err = ERR_CONFIG;

	if (p->certificate.p && p->key.p)
		err = keyring_add(ring, str_of(p->certificate.p, p->certificate.n),
				  str_of(p->key.p, p->key.n), &why);
	if (err)
		log_error(&r->log, "keys-refused", "certificate=%s key=%s reason=\"%s\"",
			  p->certificate.path, p->key.path, why);
	return err;
}

static void log_pairs(struct role *r, const struct keyring *ring)
{
	for (size_t i = 0; i < keyring_count(ring); i++) {
		int days = keyring_days_left(ring, i, os_wall_us());

		if (days < EXPIRY_WARNING_DAYS)
			log_warn(&r->log, "certificate-expires", "name=%.*s days=%d",
				 STR_ARGS(keyring_name(ring, i)), days);
		else
			log_info(&r->log, "certificate", "name=%.*s days=%d",
				 STR_ARGS(keyring_name(ring, i)), days);
	}
}

/* A keyring of all that was handed over: all of it is good, or there is none. */
static enum err build(struct role *r, struct keyring **out)
{
	struct keys *k = r->state;
	struct keyring *ring;
	enum err err = keyring_new(&ring);

	for (size_t i = 0; !err && i < k->files_n; i++)
		err = add_pair(r, ring, &k->files[i]);
	files_free(k);
	if (err) {
		keyring_free(ring);
		return err;
	}
	log_pairs(r, ring);
	*out = ring;
	return ERR_OK;
}

static enum err keys_prepare(struct role *r)
{
	struct keys *k = r->state;

	/* Versions do not begin again when the role is started again: fronts keep the number. */
	k->version = (uint32_t)os_random_u64() >> 1;
	return build(r, &k->current);
}

/* ---- reload ---- */

static void forget_previous(void *arg)
{
	struct keys *k = arg;

	keyring_free(k->previous);
	k->previous = NULL;
}

static void tell_peers(struct role *r, enum role_kind kind)
{
	for (unsigned i = 0; i < role_peers(r, kind); i++) {
		struct chan *c = role_peer(r, kind, i);
		enum err err = c && chan_is_up(c) ? SEND(c, keys_changed) : ERR_OK;

		if (err)
			log_error(&r->log, "keys-changed", "peer=%s.%u err=%s", role_name(kind), i,
				  err_name(err));
	}
}

static void keys_reload(struct role *r)
{
	struct keys *k = r->state;
	struct keyring *ring = NULL;
	enum err err = build(r, &ring);

	if (err) {
		log_error(&r->log, "keys-reload-failed", "err=%s kept=old", err_name(err));
		return;
	}
	forget_previous(k);
	k->previous = k->current;
	k->current = ring;
	k->version++;
	loop_timer_set(r->loop, &k->forget, loop_now(r->loop) + SECONDS(PREVIOUS_SECONDS),
		       forget_previous, k);
	tell_peers(r, ROLE_FRONT);
	tell_peers(r, ROLE_OUT);
}

/* ---- requests ---- */

static enum err answer_chains(struct keys *k, struct chan *from, uint32_t id)
{
	struct buf chains;
	enum err err = ERR_TOO_LONG;

	buf_init(&chains, MSG_MAX);
	keyring_chains(k->current, &chains);
	if (!buf_failed(&chains))
		err = REPLY(from, id, keys_chains_reply, .version = k->version,
			    .chains = buf_str(&chains));
	buf_free(&chains);
	return err;
}

static enum err answer_sign(struct role *r, struct chan *from, uint32_t id,
			    const struct msg_keys_sign *m)
{
	struct keys *k = r->state;
	const struct keyring *ring = m->version == k->version	    ? k->current
				     : m->version == k->version - 1 ? k->previous
								    : NULL;
	unsigned char signature[KEYRING_SIGNATURE_MAX];
	size_t n = 0;
	enum err err = ERR_STALE;

	if (ring)
		err = keyring_sign(ring, m->key, m->digest, m->pss, m->text, signature, &n);
	/* No front of ours asks this: it was taken over, or has an error. */
	if (err == ERR_DENIED)
		log_error(&r->log, "keys-denied", "peer=%s.%u key=%u digest=%.*s bytes=%zu",
			  role_name(chan_peer(from)), chan_peer_index(from), m->key,
			  STR_ARGS(m->digest), m->text.n);
	return err ? err : REPLY(from, id, keys_signature, .signature = str_of(signature, n));
}

static void keys_message(struct role *r, struct chan *from, struct msg *m)
{
	enum err err = ERR_UNSUPPORTED;

	if (m->type == MSG_keys_chains)
		err = answer_chains(r->state, from, m->id);
	else if (m->type == MSG_keys_sign)
		err = answer_sign(r, from, m->id, &m->u.keys_sign);
	if (err && REPLY_FAILED(from, m->id, err, str_from_c(err_text(err))))
		log_error(&r->log, "keys-reply", "peer=%s.%u err=%s", role_name(chan_peer(from)),
			  chan_peer_index(from), err_name(err));
}

static void keys_stop(struct role *r, unsigned seconds)
{
	struct keys *k = r->state;

	(void)seconds;
	loop_timer_cancel(r->loop, &k->forget);
	files_free(k);
	forget_previous(k);
	keyring_free(k->current);
	free(k);
	r->state = NULL;
	loop_stop(r->loop);
}

static void keys_status(struct role *r, struct buf *out)
{
	const struct keys *k = r->state;

	buf_printf(out, "\"keys\":%zu,\"version\":%u", keyring_count(k->current), k->version);
}

const struct role_ops role_keys_ops = {
	.kind = ROLE_KEYS,
	.init = keys_init,
	.file = keys_file,
	.prepare = keys_prepare,
	.message = keys_message,
	.reload = keys_reload,
	.stop = keys_stop,
	.status = keys_status,
};
