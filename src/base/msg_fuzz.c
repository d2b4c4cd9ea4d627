/* Any bytes as a datagram, from every role to every role, and as a list of every record. What
 * decodes is encoded again and must give the same bytes: so there is one encoding of each message,
 * no byte that is ignored, and no limit that encoder and decoder see differently. Who may send it
 * to whom changes nothing but the permission. The first byte: how many descriptors came with it. */
#include "base/msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const int fds[MSG_FDS_MAX + 1] = { 1001, 1002, 1003 };

static void encode_again(str datagram, const struct msg *m, unsigned nfds)
{
	char room[MSG_MAX];
	struct buf b = { .p = room, .size = sizeof(room), .max = sizeof(room) };
	int out[MSG_FDS_MAX];
	unsigned n;

	if (msg_encode(&b, m->type, m->id, m->is_reply, m->acked, &m->u, out, &n))
		panic("%s decodes, but does not encode", msg_name(m->type));
	if (!str_eq(buf_str(&b), datagram))
		panic("%s: other bytes", msg_name(m->type));
	if (n != nfds || (n && memcmp(out, fds, n * sizeof(int)) != 0))
		panic("%s: other descriptors", msg_name(m->type));
}

static void decode_all(str datagram, unsigned nfds)
{
	struct msg m;
	enum err first = ERR_DENIED;

	for (unsigned from = 0; from < ROLE_COUNT; from++)
		for (unsigned to = 0; to < ROLE_COUNT; to++) {
			enum err err = msg_decode(datagram, (enum role_kind)from,
						  (enum role_kind)to, fds, nfds, &m);

			if (err == ERR_DENIED)
				continue;
			if (first != ERR_DENIED && err != first)
				panic("%s: %s, then %s", msg_name(m.type), err_name(first),
				      err_name(err));
			if (first == ERR_DENIED && err == ERR_OK)
				encode_again(datagram, &m, nfds);
			first = err;
		}
}

#define MSG_FIELDS_NOTHING
#define RECORD(name)                                                                 \
	static void list_of_##name(str list)                                         \
	{                                                                            \
		str rest = list;                                                     \
		struct rec_##name r;                                                 \
		struct buf b;                                                        \
                                                                                     \
		buf_init(&b, list.n + 1);                                            \
		while (rec_##name##_get(&rest, &r) == ERR_OK) {                      \
			rec_##name##_put(&b, &r);                                    \
			if (!str_eq(buf_str(&b), str_head(list, list.n - rest.n)) || \
			    buf_failed(&b))                                          \
				panic("record %s: other bytes", #name);              \
		}                                                                    \
		buf_free(&b);                                                        \
	}
#include "base/msg_gen.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	str bytes = str_of(data, size);

	if (size == 0 || size > MSG_MAX)
		return 0;
	decode_all(str_from(bytes, 1), data[0] % (MSG_FDS_MAX + 2));
#define MSG_FIELDS_NOTHING
#define RECORD(name) list_of_##name(bytes);
#include "base/msg_gen.h"
	return 0;
}
