/* Encoders and decoders of the messages, made from messages.def by including it once for each. */
#include "base/msg.h"

#include "base/os.h"

struct encoder {
	struct buf *out;
	int *fds;
	unsigned nfds;
	bool is_bad;
};

struct decoder {
	str rest;
	const int *fds;
	unsigned nfds, fds_used;
	bool is_bad;
};

static void put_bytes(struct encoder *e, str s, size_t max)
{
	if (s.n > max)
		e->is_bad = true;
	buf_add_le32(e->out, (uint32_t)s.n);
	buf_add(e->out, s);
}

static void put_fd(struct encoder *e, int fd)
{
	buf_add_char(e->out, fd > 0 ? 1 : 0);
	if (fd <= 0)
		return;
	if (!e->fds || e->nfds == MSG_FDS_MAX)
		e->is_bad = true;
	else
		e->fds[e->nfds++] = fd;
}

static const char *get_fixed(struct decoder *d, size_t n)
{
	static const char zeros[32];
	const char *p = d->rest.p;

	if (d->rest.n < n) {
		d->is_bad = true;
		return zeros;
	}
	d->rest = str_from(d->rest, n);
	return p;
}

static str get_bytes(struct decoder *d, size_t max)
{
	size_t n = get_le32(get_fixed(d, 4));
	str s = str_head(d->rest, n);

	if (n > max || s.n < n) {
		d->is_bad = true;
		return STR_EMPTY;
	}
	d->rest = str_from(d->rest, n);
	return s;
}

static bool get_flag(struct decoder *d)
{
	char c = *get_fixed(d, 1);

	if (c != 0 && c != 1)
		d->is_bad = true;
	return c == 1;
}

static int get_fd(struct decoder *d)
{
	if (!get_flag(d) || d->is_bad)
		return -1;
	if (d->fds_used == d->nfds) {
		d->is_bad = true;
		return -1;
	}
	return d->fds[d->fds_used++];
}

/* put_x and get_x for each message and record. */
#define U8(f)	      buf_add_char(e->out, (char)m->f);
#define U16(f)	      buf_add_le16(e->out, m->f);
#define U32(f)	      buf_add_le32(e->out, m->f);
#define U64(f)	      buf_add_le64(e->out, m->f);
#define I64(f)	      buf_add_le64(e->out, (uint64_t)m->f);
#define FLAG(f)	      buf_add_char(e->out, m->f ? 1 : 0);
#define HASH(f)	      buf_add(e->out, str_of(m->f, 32));
#define TICKET(f)     buf_add(e->out, str_of(m->f, 16));
#define STR(f, max)   put_bytes(e, m->f, (max));
#define BYTES(f, max) put_bytes(e, m->f, (max));
#define FD(f)	      put_fd(e, m->f);
#define MESSAGE(name, number, from, to, text)                                 \
	static void put_##name(struct encoder *e, const struct msg_##name *m) \
	{                                                                     \
		(void)e;                                                      \
		(void)m;
#define RECORD(name)                                                              \
	static void put_rec_##name(struct encoder *e, const struct rec_##name *m) \
	{
#define END }
#include "base/msg_gen.h"

#define U8(f)	      m->f = (uint8_t)*get_fixed(d, 1);
#define U16(f)	      m->f = get_le16(get_fixed(d, 2));
#define U32(f)	      m->f = get_le32(get_fixed(d, 4));
#define U64(f)	      m->f = get_le64(get_fixed(d, 8));
#define I64(f)	      m->f = (int64_t)get_le64(get_fixed(d, 8));
#define FLAG(f)	      m->f = get_flag(d);
#define HASH(f)	      memcpy(m->f, get_fixed(d, 32), 32);
#define TICKET(f)     memcpy(m->f, get_fixed(d, 16), 16);
#define STR(f, max)   m->f = get_bytes(d, (max));
#define BYTES(f, max) m->f = get_bytes(d, (max));
#define FD(f)	      m->f = get_fd(d);
#define MESSAGE(name, number, from, to, text)                           \
	static void get_##name(struct decoder *d, struct msg_##name *m) \
	{                                                               \
		(void)d;                                                \
		(void)m;
#define RECORD(name)                                                        \
	static void get_rec_##name(struct decoder *d, struct rec_##name *m) \
	{
#define END }
#include "base/msg_gen.h"

#define MSG_FIELDS_NOTHING
#define RECORD(name)                                                     \
	void rec_##name##_put(struct buf *b, const struct rec_##name *r) \
	{                                                                \
		struct encoder e = { .out = b };                         \
                                                                         \
		put_rec_##name(&e, r);                                   \
		if (e.is_bad)                                            \
			b->failed = true;                                \
	}                                                                \
                                                                         \
	enum err rec_##name##_get(str *rest, struct rec_##name *r)       \
	{                                                                \
		struct decoder d = { .rest = *rest };                    \
                                                                         \
		if (rest->n == 0)                                        \
			return ERR_EOF;                                  \
		get_rec_##name(&d, r);                                   \
		*rest = d.rest;                                          \
		return d.is_bad ? ERR_PROTOCOL : ERR_OK;                 \
	}
#include "base/msg_gen.h"

struct msg_kind {
	const char *name;
	unsigned from, to;
	size_t size;
};

static const struct msg_kind kinds[MSG_TYPE_LIMIT] = {
#define MSG_FIELDS_NOTHING
#define MESSAGE(name_, number, from_, to_, text) \
	[number] = { #name_, (from_), (to_), sizeof(struct msg_##name_) },
#include "base/msg_gen.h"
};

const char *msg_name(enum msg_type t)
{
	return (unsigned)t < MSG_TYPE_LIMIT && kinds[t].name ? kinds[t].name : "unknown";
}

size_t msg_size(enum msg_type t)
{
	return kinds[t].size;
}

enum err msg_encode(struct buf *out, enum msg_type type, uint32_t id, bool is_reply, uint32_t acked,
		    const void *m, int fds[MSG_FDS_MAX], unsigned *nfds)
{
	struct encoder e = { .out = out, .fds = fds };

	buf_add_le16(out, (uint16_t)type);
	buf_add_le16(out, (uint16_t)((acked & 0x7fff) | (is_reply ? 0x8000 : 0)));
	buf_add_le32(out, id);
	switch (type) {
#define MSG_FIELDS_NOTHING
#define MESSAGE(name, number, from, to, text) \
	case MSG_##name:                      \
		put_##name(&e, m);            \
		break;
#include "base/msg_gen.h"
	case MSG_none:
	case MSG_TYPE_LIMIT:
	default:
		panic("msg_encode: %u is no message", (unsigned)type);
	}
	*nfds = e.nfds;
	return e.is_bad || buf_failed(out) || buf_len(out) > MSG_MAX ? ERR_TOO_LONG : ERR_OK;
}

void msg_set_acked(char *datagram, uint32_t acked)
{
	put_le16(datagram + 2, (uint16_t)((get_le16(datagram + 2) & 0x8000) | (acked & 0x7fff)));
}

enum err msg_decode(str datagram, enum role_kind from, enum role_kind to, const int *fds,
		    unsigned nfds, struct msg *out)
{
	struct decoder d = { .rest = str_from(datagram, MSG_HEADER), .fds = fds, .nfds = nfds };
	unsigned type, flags;

	if (datagram.n < MSG_HEADER)
		return ERR_PROTOCOL;
	type = get_le16(datagram.p);
	flags = get_le16(datagram.p + 2);
	if (type >= MSG_TYPE_LIMIT || !kinds[type].name)
		return ERR_PROTOCOL;
	if (!(kinds[type].from & (1u << from)) || !(kinds[type].to & (1u << to)))
		return ERR_DENIED;
	out->type = (enum msg_type)type;
	out->id = get_le32(datagram.p + 4);
	out->is_reply = flags & 0x8000;
	out->acked = flags & 0x7fff;
	switch (out->type) {
#define MSG_FIELDS_NOTHING
#define MESSAGE(name, number, from_, to_, text) \
	case MSG_##name:                        \
		get_##name(&d, &out->u.name);   \
		break;
#include "base/msg_gen.h"
	case MSG_none:
	case MSG_TYPE_LIMIT:
	default:
		return ERR_PROTOCOL;
	}
	return d.is_bad || d.rest.n || d.fds_used != nfds ? ERR_PROTOCOL : ERR_OK;
}

static void close_one(int *fd)
{
	if (*fd > 0)
		os_close(*fd);
	*fd = -1;
}

#define U8(f)
#define U16(f)
#define U32(f)
#define U64(f)
#define I64(f)
#define FLAG(f)
#define HASH(f)
#define TICKET(f)
#define STR(f, max)
#define BYTES(f, max)
#define FD(f) close_one(&m->f);
#define MESSAGE(name, number, from, to, text)          \
	static void close_##name(struct msg_##name *m) \
	{                                              \
		(void)m;
#define RECORD(name)                                              \
	UNUSED static void close_rec_##name(struct rec_##name *m) \
	{                                                         \
		(void)m;
#define END }
#include "base/msg_gen.h"

void msg_close_fds(struct msg *m)
{
	switch (m->type) {
#define MSG_FIELDS_NOTHING
#define MESSAGE(name, number, from, to, text) \
	case MSG_##name:                      \
		close_##name(&m->u.name);     \
		break;
#include "base/msg_gen.h"
	case MSG_none:
	case MSG_TYPE_LIMIT:
	default:
		break;
	}
}

static const char *const role_names[ROLE_COUNT] = {
	[ROLE_NONE] = "none",	    [ROLE_SUPERVISOR] = "supervisor",
	[ROLE_FRONT] = "front",	    [ROLE_KEYS] = "keys",
	[ROLE_AUTH] = "auth",	    [ROLE_LOOKUP] = "lookup",
	[ROLE_STORE] = "store",	    [ROLE_CHECKPOINT] = "checkpoint",
	[ROLE_SESSION] = "session", [ROLE_FILTER] = "filter",
	[ROLE_QUEUE] = "queue",	    [ROLE_OUT] = "out",
	[ROLE_DNS] = "dns",	    [ROLE_ADMIN] = "admin",
	[ROLE_TOOL] = "tool",
};

const char *role_name(enum role_kind r)
{
	return (unsigned)r < ROLE_COUNT ? role_names[r] : "unknown";
}

enum role_kind role_from_name(str name)
{
	for (unsigned r = 1; r < ROLE_COUNT; r++)
		if (str_eq(name, str_from_c(role_names[r])))
			return (enum role_kind)r;
	return ROLE_NONE;
}
