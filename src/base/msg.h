/* Typed messages between roles, made from base/messages.def.
 *
 * For each MESSAGE(x, ...) there is `struct msg_x`, MSG_x, and an encoding: a header of MSG_HEADER
 * bytes, then the fields in their order, integers little-endian, STR and BYTES as a 32-bit length
 * and the bytes. For each RECORD(x): `struct rec_x`, `rec_x_put` and `rec_x_get`. A decoder refuses
 * what is longer than its limit, what ends too early and what has bytes left over; it derives every
 * size itself.
 *
 * Decoded slices point into what was decoded.
 */
#ifndef BASE_MSG_H
#define BASE_MSG_H

#include "base/buf.h"

enum role_kind {
	ROLE_NONE,
	ROLE_SUPERVISOR,
	ROLE_FRONT,
	ROLE_KEYS,
	ROLE_AUTH,
	ROLE_LOOKUP,
	ROLE_STORE,
	ROLE_CHECKPOINT,
	ROLE_SESSION, /* index 0: the zygote */
	ROLE_FILTER,
	ROLE_QUEUE,
	ROLE_OUT,
	ROLE_DNS,
	ROLE_ADMIN,
	ROLE_TOOL, /* the posthorn command; speaks to admin alone */
	ROLE_COUNT
};

const char *role_name(enum role_kind r);
/* ROLE_NONE when there is no such name. */
enum role_kind role_from_name(str name);

#define R_SUPERVISOR (1u << ROLE_SUPERVISOR)
#define R_FRONT	     (1u << ROLE_FRONT)
#define R_KEYS	     (1u << ROLE_KEYS)
#define R_AUTH	     (1u << ROLE_AUTH)
#define R_LOOKUP     (1u << ROLE_LOOKUP)
#define R_STORE	     (1u << ROLE_STORE)
#define R_CHECKPOINT (1u << ROLE_CHECKPOINT)
#define R_SESSION    (1u << ROLE_SESSION)
#define R_FILTER     (1u << ROLE_FILTER)
#define R_QUEUE	     (1u << ROLE_QUEUE)
#define R_OUT	     (1u << ROLE_OUT)
#define R_DNS	     (1u << ROLE_DNS)
#define R_ADMIN	     (1u << ROLE_ADMIN)
#define R_TOOL	     (1u << ROLE_TOOL)
#define R_ALL	     ((1u << ROLE_COUNT) - 2)

enum {
	MSG_MAX = 64 * 1024, /* a datagram, header included */
	MSG_INLINE_MAX =
		48 * 1024, /* bodies travel inside a message up to here, as a descriptor above */
	MSG_FDS_MAX = 2,
	MSG_HEADER = 8,
	MSG_RECORD_MAX = MSG_MAX,
};

enum msg_type {
	MSG_none = 0,
#define MESSAGE(name, number, from, to, text) MSG_##name = number,
#define MSG_FIELDS_NOTHING
#include "base/msg_gen.h"
	MSG_TYPE_LIMIT = 160
};

#define MSG_FIELDS_STRUCT
#define MESSAGE(name, number, from, to, text) struct msg_##name {
#define RECORD(name)			      struct rec_##name {
#define END \
	}   \
	;
#include "base/msg_gen.h"

/* Records: put appends one; get takes the first off *rest: ERR_EOF when there is none left,
 * ERR_PROTOCOL when the bytes are wrong. */
#define MSG_FIELDS_NOTHING
#define RECORD(name)                                                      \
	void rec_##name##_put(struct buf *b, const struct rec_##name *r); \
	MUST_USE enum err rec_##name##_get(str *rest, struct rec_##name *r);
#include "base/msg_gen.h"

/* A received message. */
struct msg {
	enum msg_type type;
	uint32_t id; /* a call's number; 0 one-way */
	bool is_reply;
	uint32_t acked;
	union {
#define MSG_FIELDS_NOTHING
#define MESSAGE(name, number, from, to, text) struct msg_##name name;
#include "base/msg_gen.h"
	} u;
};

/* The header: type (2 bytes), the sender's acknowledgement (15 bits) with the reply bit, id (4). */
MUST_USE enum err msg_encode(struct buf *out, enum msg_type type, uint32_t id, bool is_reply,
			     uint32_t acked, const void *m, int fds[MSG_FDS_MAX], unsigned *nfds);
/* Changes the acknowledgement of an encoded message. */
void msg_set_acked(char *datagram, uint32_t acked);
/* `from`, `to`: the roles of sender and receiver, for the permission. ERR_DENIED, ERR_PROTOCOL. The
 * descriptors go into the struct's FD fields; on error they stay the caller's. */
MUST_USE enum err msg_decode(str datagram, enum role_kind from, enum role_kind to, const int *fds,
			     unsigned nfds, struct msg *out);
/* The descriptors of a decoded message that were not taken: closes them. */
void msg_close_fds(struct msg *m);

const char *msg_name(enum msg_type t);
size_t msg_size(enum msg_type t); /* of its struct */

#endif
