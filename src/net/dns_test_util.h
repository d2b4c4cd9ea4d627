/* For tests: DNS packets, written by hand. */
#ifndef NET_DNS_TEST_UTIL_H
#define NET_DNS_TEST_UTIL_H

#include "base/buf.h"

static inline void put_be16(struct buf *b, unsigned v)
{
	buf_add_char(b, (char)(v >> 8));
	buf_add_char(b, (char)v);
}

/* "a.b." or "a.b"; labels have no escapes. */
static inline void put_name(struct buf *b, str name)
{
	while (name.n) {
		str label = str_cut(&name, '.');

		buf_add_char(b, (char)label.n);
		buf_add(b, label);
	}
	buf_add_char(b, '\0');
}

/* A header with one question. flags: 0x8180 is an answer of a resolver. */
static inline void put_head(struct buf *b, unsigned id, unsigned flags, unsigned answers,
			    unsigned authorities, str name, unsigned type)
{
	put_be16(b, id);
	put_be16(b, flags);
	put_be16(b, 1);
	put_be16(b, answers);
	put_be16(b, authorities);
	put_be16(b, 0);
	put_name(b, name);
	put_be16(b, type);
	put_be16(b, 1);
}

static inline void put_record(struct buf *b, str name, unsigned type, unsigned ttl, str data)
{
	put_name(b, name);
	put_be16(b, type);
	put_be16(b, 1);
	put_be16(b, ttl >> 16);
	put_be16(b, ttl & 0xffff);
	put_be16(b, (unsigned)data.n);
	buf_add(b, data);
}

#endif
