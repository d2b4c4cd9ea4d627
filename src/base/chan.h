/* Channels: typed messages between roles over SOCK_SEQPACKET socket pairs.
 *
 * The messages are described in base/messages.def (see base/msg.h). What a channel adds:
 *  - permission: a message is taken only if messages.def allows its sender's role to send it to
 * ours; a peer that breaks this, or whose bytes do not decode, is cut off (on_down with
 * ERR_PROTOCOL);
 *  - calls: chan_call sends a request and suspends the fiber until the reply with its id;
 *  - credits: at most CHAN_WINDOW messages are under way unacknowledged; acknowledgements travel in
 * the header of whatever goes the other way. Nobody blocks on a send: what cannot be sent now waits
 * in a queue of at most CHAN_QUEUE_MAX bytes, then ERR_BUSY;
 *  - descriptors travel with the message and belong to the handler if it takes them (sets the field
 *    to -1); otherwise they are closed when it returns.
 *
 * A channel outlives its socket: when the peer dies, calls end with ERR_CLOSED and on_down is
 * called; the supervisor brings a new socket and chan_attach goes on with it. Calls made while it
 * is down wait for that until their deadline.
 *
 *	struct msg_auth_rcpt_reply reply;
 *	err = CALL(auth, auth_rcpt, auth_rcpt_reply, &reply, arena, deadline, .txn = txn, .address =
 * a);
 */
#ifndef BASE_CHAN_H
#define BASE_CHAN_H

#include "base/loop.h"
#include "base/msg.h"

enum {
	CHAN_WINDOW = 512,		   /* messages under way without an acknowledgement */
	CHAN_QUEUE_MAX = 16 * 1024 * 1024, /* bytes waiting to be sent */
	CHAN_CALLS_MAX = 8192,		   /* calls waiting for their reply */
};

struct chan;

struct chan_ops {
	/* A message that is no reply to a call of ours. Its slices last until this returns. To
	 * answer a call: chan_reply(c, in->id, ...) now or later. */
	void (*on_message)(void *arg, struct chan *c, struct msg *in);
	/* The socket is gone: ERR_CLOSED when the peer closed it, ERR_PROTOCOL when we cut it,
	 * another error when it failed here. May free the channel. */
	void (*on_down)(void *arg, struct chan *c, enum err why);
};

/* `self` and `peer`: the roles at the two ends, `peer_index`: which of several. Starts detached. */
MUST_USE enum err chan_new(struct loop *l, enum role_kind self, enum role_kind peer,
			   unsigned peer_index, const struct chan_ops *ops, void *arg,
			   struct chan **out);
void chan_free(struct chan *c); /* ends calls with ERR_CLOSED; safe inside its own callbacks */
/* Takes the socket. A socket that was there before is closed first. */
MUST_USE enum err chan_attach(struct chan *c, int fd);
bool chan_is_up(const struct chan *c);
enum role_kind chan_peer(const struct chan *c);
unsigned chan_peer_index(const struct chan *c);
/* For what nobody waits for: after a wake-up the socket is left alone for so long (nanoseconds; 0:
 * not), and what came meanwhile is taken at once. Saves both ends a wake-up for each message. */
void chan_set_pace(struct chan *c, int64_t pace);
/* For whoever owns the channel: what this end is bound to (an account, a connection). */
void chan_set_user(struct chan *c, void *user);
void *chan_user(const struct chan *c);

/* One-way. Descriptors in the message stay the caller's. ERR_BUSY, ERR_CLOSED. `m` is the message's
 * struct; use the SEND macro. */
MUST_USE enum err chan_send(struct chan *c, enum msg_type type, uint32_t id, const void *m);
/* The reply to the call `id`. */
MUST_USE enum err chan_reply(struct chan *c, uint32_t id, enum msg_type type, const void *m);
/* In a fiber alone. The reply's slices live in `arena`; its descriptors are the caller's. A reply
 * of another type than `reply_type` is ERR_PROTOCOL, but for `failed` (messages.def), whose error
 * is returned. */
MUST_USE enum err chan_call(struct chan *c, enum msg_type type, const void *m,
			    enum msg_type reply_type, void *reply, struct arena *arena,
			    int64_t deadline);
/* The same without a fiber: `done` gets the reply (NULL with an error, and `failed` is one) from
 * the loop. */
MUST_USE enum err chan_call_async(struct chan *c, enum msg_type type, const void *m,
				  int64_t deadline,
				  void (*done)(void *arg, enum err err, struct msg *reply),
				  void *arg);
/* Waits, in a fiber, until the queue is short enough to take another large message. */
MUST_USE enum err chan_wait_room(struct chan *c, int64_t deadline);

#define SEND(c, name, ...) chan_send((c), MSG_##name, 0, &(struct msg_##name){ __VA_ARGS__ })
#define REPLY(c, call_id, name, ...) \
	chan_reply((c), (call_id), MSG_##name, &(struct msg_##name){ __VA_ARGS__ })
#define CALL(c, name, reply_name, reply, arena, deadline, ...)                            \
	chan_call((c), MSG_##name, &(struct msg_##name){ __VA_ARGS__ }, MSG_##reply_name, \
		  (struct msg_##reply_name *){ (reply) }, (arena), (deadline))
/* Answers a call with an error. */
#define REPLY_FAILED(c, call_id, error, text_) \
	REPLY((c), (call_id), failed, .err = (uint16_t)(error), .text = (text_))

struct chan_counts {
	uint64_t sent, received, queued_bytes;
	uint32_t calls;
};
struct chan_counts chan_counts(const struct chan *c);

#endif
