/* The parked record: version (1 byte), bits (1), the numbers in the order of the struct,
 * little-endian, then the tag (2-byte length) and the recent ranges (1-byte count, 8 bytes each).
 *
 * It travels between processes of one server and is never stored, so the version guards against one
 * thing only: a connection that lives through an upgrade.
 */
#include "imap/parked.h"

enum { BIT_READ_ONLY = 1, BIT_IDLE = 2, FIXED_SIZE = 2 + 8 + 4 * 3 + 8 + 4 * 3 + 2 };

void imap_parked_write(const struct imap_parked *p, struct buf *out)
{
	str tag = str_head(p->idle_tag, IMAP_TAG_MAX);

	buf_add_char(out, IMAP_PARKED_VERSION);
	buf_add_char(out,
		     (char)((p->is_read_only ? BIT_READ_ONLY : 0) | (p->is_idle ? BIT_IDLE : 0)));
	buf_add_le64(out, p->account);
	buf_add_le32(out, p->mailbox);
	buf_add_le32(out, p->uidvalidity);
	buf_add_le32(out, p->uidnext);
	buf_add_le64(out, p->modseq);
	buf_add_le32(out, p->exists);
	buf_add_le32(out, p->keywords);
	buf_add_le32(out, p->bad);
	buf_add_le16(out, (uint16_t)tag.n);
	buf_add(out, tag);
	buf_add_char(out, (char)p->recent_count);
	for (size_t i = 0; i < p->recent_count; i++) {
		buf_add_le32(out, p->recent[i].first);
		buf_add_le32(out, p->recent[i].last);
	}
}

static uint32_t take32(str *s)
{
	uint32_t v = get_le32(s->p);

	*s = str_from(*s, 4);
	return v;
}

static uint64_t take64(str *s)
{
	uint64_t v = get_le64(s->p);

	*s = str_from(*s, 8);
	return v;
}

static enum err read_recent(str s, struct imap_parked *out)
{
	if (s.n == 0 || (unsigned char)s.p[0] > IMAP_PARKED_RANGES_MAX)
		return ERR_PROTOCOL;
	out->recent_count = (unsigned char)s.p[0];
	s = str_from(s, 1);
	if (s.n != out->recent_count * 8)
		return ERR_PROTOCOL;
	for (size_t i = 0; i < out->recent_count; i++) {
		out->recent[i].first = take32(&s);
		out->recent[i].last = take32(&s);
		if (out->recent[i].first == 0 || out->recent[i].first > out->recent[i].last)
			return ERR_PROTOCOL;
	}
	return ERR_OK;
}

enum err imap_parked_read(str s, struct imap_parked *out)
{
	unsigned char bits;
	uint16_t n;

	*out = (struct imap_parked){ 0 };
	if (s.n < FIXED_SIZE)
		return ERR_PROTOCOL;
	if (s.p[0] != IMAP_PARKED_VERSION)
		return ERR_UNSUPPORTED;
	bits = (unsigned char)s.p[1];
	if (bits & ~(BIT_READ_ONLY | BIT_IDLE))
		return ERR_PROTOCOL;
	out->is_read_only = bits & BIT_READ_ONLY;
	out->is_idle = bits & BIT_IDLE;
	s = str_from(s, 2);
	out->account = take64(&s);
	out->mailbox = take32(&s);
	out->uidvalidity = take32(&s);
	out->uidnext = take32(&s);
	out->modseq = take64(&s);
	out->exists = take32(&s);
	out->keywords = take32(&s);
	out->bad = take32(&s);
	n = get_le16(s.p);
	s = str_from(s, 2);
	if (n > IMAP_TAG_MAX || n > s.n || (out->is_idle && n == 0))
		return ERR_PROTOCOL;
	out->idle_tag = str_head(s, n);
	return read_recent(str_from(s, n), out);
}
