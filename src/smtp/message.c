/* A message on its way in.
 *
 * The header is held in memory until it is whole, because two things depend on it: how often the
 * message has been received already (RFC 5321 6.3, loops), and, at submission, what is missing (RFC
 * 6409 8: Message-ID and Date; From as well, from the envelope's sender, which `auth` has found to
 * be the user's own: scanners and scripts leave it out, and a 5xx would only lose their mail).
 * Missing fields go to the end of the header, as Postfix puts them.
 *
 * A message whose first line is no field has no header at all: an empty line is put before it, so
 * that what follows us cannot take text for fields. An mbox "From " line, which some old software
 * sends first, becomes a field. Nothing else is ever changed.
 *
 * What is larger than MSG_INLINE_MAX goes to a memfd, piece by piece, and is sealed at the end: the
 * receivers map it, and a sender that could still write would change it after the verdict. The sum
 * of all of them is bounded, since a memfd is memory that no limit on the heap sees.
 */
#include "smtp/message.h"

#include "mime/header.h"

void smtp_message_init(struct smtp_message *m, struct smtp_budget *budget)
{
	*m = (struct smtp_message){ .fd = -1, .budget = budget };
	buf_init(&m->memory, SMTP_MEMORY_MAX);
}

void smtp_message_free(struct smtp_message *m)
{
	os_close(m->fd);
	m->fd = -1;
	buf_free(&m->memory);
	m->budget->used -= m->charged;
	m->charged = 0;
}

void smtp_message_begin(struct smtp_message *m, const struct smtp_fix *fix)
{
	m->fix = fix;
	m->ours = m->scanned = buf_len(&m->memory);
}

uint64_t smtp_message_size(const struct smtp_message *m)
{
	return m->size + buf_len(&m->memory);
}

str smtp_message_inline(const struct smtp_message *m)
{
	return m->fd < 0 ? buf_str(&m->memory) : STR_EMPTY;
}

/* Puts s before the byte at `at`. */
static void insert(struct smtp_message *m, size_t at, str s)
{
	size_t behind = buf_len(&m->memory) - at;
	char *end = buf_reserve(&m->memory, s.n);

	if (!end)
		return; /* the buffer has failed, and says so in settle */
	memmove(end + s.n - behind, end - behind, behind);
	memcpy(end - behind, s.p, s.n);
	buf_added(&m->memory, s.n);
}

/* RFC 5322 2.2: printable ASCII but the colon, then the colon; RFC 5322 4.5 lets white space stand
 * before it. */
static bool is_field(str line)
{
	size_t n = 0;

	while (n < line.n && line.p[n] > ' ' && line.p[n] < 0x7f && line.p[n] != ':')
		n++;
	if (n == 0)
		return false;
	while (n < line.n && (line.p[n] == ' ' || line.p[n] == '\t'))
		n++;
	return n < line.n && line.p[n] == ':';
}

static void check_first_line(struct smtp_message *m)
{
	str text = str_from(buf_str(&m->memory), m->ours),
	    line = str_head(text, str_find(text, S("\r\n")));

	if (line.n == 0 || is_field(line))
		return;
	while (line.n && line.p[0] == '>')
		line = str_from(line, 1);
	insert(m, m->ours, str_starts(line, S("From ")) ? S("X-Mailbox-Line: ") : S("\r\n"));
}

enum missing { HAS_DATE = 1, HAS_MESSAGE_ID = 2, HAS_FROM = 4 };

static void add_missing(struct smtp_message *m, size_t at, unsigned has)
{
	struct buf b;

	buf_init(&b, 4096);
	if (!(has & HAS_DATE)) {
		buf_add(&b, S("Date: "));
		date_format_rfc5322(m->fix->date, &b);
		buf_add(&b, S("\r\n"));
	}
	if (!(has & HAS_FROM) && m->fix->from.n)
		buf_printf(&b, "From: <%.*s>\r\n", STR_ARGS(m->fix->from));
	if (!(has & HAS_MESSAGE_ID))
		buf_printf(&b, "Message-ID: <%.*s>\r\n", STR_ARGS(m->fix->message_id));
	if (buf_len(&b))
		insert(m, at, buf_str(&b));
	buf_free(&b);
}

/* The header is whole: `end` is where its blank line begins, or the end of the message. */
static void header_is_whole(struct smtp_message *m, size_t end)
{
	str rest = str_sub(buf_str(&m->memory), m->ours, end - m->ours);
	struct header_field f;
	unsigned has = 0;

	m->is_header_done = true;
	while (header_next(&rest, &f)) {
		m->hops += str_case_eq(f.name, S("Received"));
		has |= str_case_eq(f.name, S("Date")) ? HAS_DATE : 0u;
		has |= str_case_eq(f.name, S("From")) ? HAS_FROM : 0u;
		has |= str_case_eq(f.name, S("Message-ID")) ? HAS_MESSAGE_ID : 0u;
	}
	if (m->fix)
		add_missing(m, end, has);
}

static enum err scan_header(struct smtp_message *m)
{
	str all = buf_str(&m->memory);
	size_t at;

	if (m->scanned == m->ours) {
		if (str_find(str_from(all, m->ours), S("\r\n")) == STR_NONE)
			return ERR_OK;
		check_first_line(m);
		all = buf_str(&m->memory);
		if (str_starts(str_from(all, m->ours), S("\r\n"))) {
			header_is_whole(m, m->ours);
			return ERR_OK;
		}
	}
	at = str_find(str_from(all, m->scanned), S("\r\n\r\n"));
	if (at != STR_NONE) {
		header_is_whole(m, m->scanned + at + 2);
		return ERR_OK;
	}
	/* The last three bytes may begin what is looked for. */
	m->scanned = MAX(m->ours + 1, all.n - MIN(all.n, 3));
	return all.n - m->ours > SMTP_HEADER_MAX ? ERR_TOO_LONG : ERR_OK;
}

/* Moves what is in memory to the memfd. */
static enum err spool(struct smtp_message *m)
{
	size_t n = buf_len(&m->memory);
	enum err err;

	if (m->budget->used + n > m->budget->max)
		return ERR_FULL;
	m->budget->used += n;
	m->charged += n;
	if (m->fd < 0)
		err = os_memfd(buf_str(&m->memory), false, &m->fd);
	else
		err = os_write_all(m->fd, buf_str(&m->memory));
	m->size += n;
	buf_clear(&m->memory);
	return err;
}

enum err smtp_message_settle(struct smtp_message *m)
{
	enum err err;

	if (!m->is_header_done && (err = scan_header(m)))
		return err;
	if (buf_failed(&m->memory))
		return ERR_NO_MEMORY;
	return m->is_header_done && buf_len(&m->memory) > MSG_INLINE_MAX ? spool(m) : ERR_OK;
}

enum err smtp_message_finish(struct smtp_message *m)
{
	enum err err;

	/* BDAT's last line gets its end only now: the first line may not have been looked at. */
	if (!m->is_header_done && (err = scan_header(m)))
		return err;
	if (!m->is_header_done)
		header_is_whole(m, buf_len(&m->memory));
	if ((err = smtp_message_settle(m)))
		return err;
	if (m->fd < 0)
		return ERR_OK;
	err = buf_len(&m->memory) ? spool(m) : ERR_OK;
	return err ? err : os_memfd_seal(m->fd);
}
