/* Collects commands (RFC 3501 4.3 literals, RFC 7888 non-synchronising ones).
 *
 * The bytes of a command are kept as they came, so that the parser sees one slice and the log, the
 * tests and the fuzzer the same one. A literal is announced at the end of a line, outside of
 * quotes; its bytes are counted, not looked at. The invariant: whatever the client sends, the
 * collector stays in step with it, because a literal that is refused is either not sent
 * (synchronising) or counted away (not synchronising). A literal inside a line that is already too
 * long is counted away as well; otherwise its content would be read as commands.
 *
 * A state machine over bytes was turned down for one over lines: memchr finds the line's end, and
 * only the last few bytes of a line decide what comes next.
 */
#include "imap/input.h"

void imap_input_init(struct imap_input *in)
{
	*in = (struct imap_input){ .discard_max = IMAP_DISCARD_MAX };
	buf_init(&in->collected, IMAP_LINE_MAX + 2);
}

void imap_input_free(struct imap_input *in)
{
	buf_free(&in->collected);
}

void imap_input_next(struct imap_input *in)
{
	if (in->collected.size <= 4096)
		buf_clear(&in->collected);
	else
		buf_release(&in->collected);
	*in = (struct imap_input){ .collected = in->collected, .discard_max = in->discard_max };
}

bool imap_input_is_idle(const struct imap_input *in)
{
	return buf_len(&in->collected) == 0 && in->parts == 0 && !in->is_too_long &&
	       in->discard == 0;
}

/* Is the end of `line` outside of a quoted string? */
static bool outside_quotes(str line)
{
	bool quoted = false;

	for (size_t i = 0; i < line.n; i++) {
		if (line.p[i] == '"')
			quoted = !quoted;
		else if (quoted && line.p[i] == '\\')
			i++;
	}
	return !quoted;
}

/* "... {123}" or "... {123+}" at the end of a line without its CRLF. */
static bool literal_at_end(str line, uint64_t *size, bool *is_sync)
{
	size_t open;
	str digits;
	enum err err;

	if (line.n < 3 || line.p[line.n - 1] != '}' ||
	    (open = str_rfind_char(line, '{')) == STR_NONE)
		return false;
	digits = str_sub(line, open + 1, line.n - open - 2);
	*is_sync = !str_ends(digits, S("+"));
	if (!*is_sync)
		digits.n--;
	err = str_to_u64(digits, UINT32_MAX, size);
	/* Larger than any literal may be (RFC 3501 9: number), but one all the same, to be counted
	 * away. */
	if (err == ERR_RANGE)
		*size = UINT64_MAX;
	return err != ERR_SYNTAX && outside_quotes(str_head(line, open));
}

/* RFC 3501 6.3.11: "tag APPEND mailbox ... {n}". The first literal is the mailbox's name if nothing
 * but the command's word stands before it. */
static bool is_message(const struct imap_input *in, str text)
{
	size_t open = str_rfind_char(text, '{');
	str head = str_head(text, open), tag, word;

	if (in->parts)
		return true;
	tag = str_cut(&head, ' ');
	word = str_cut(&head, ' ');
	return tag.n && str_case_eq(word, S("APPEND")) && str_trim(head).n;
}

static str without_line_end(str line)
{
	if (line.n && line.p[line.n - 1] == '\n')
		line.n--;
	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	return line;
}

static bool discard_count(struct imap_input *in, uint64_t n)
{
	in->discarded += n;
	return in->discarded <= in->discard_max;
}

static enum imap_input_step finish(struct imap_input *in, str text)
{
	in->text = text;
	return in->is_too_long ? IMAP_INPUT_TOO_LONG : IMAP_INPUT_COMMAND;
}

/* A whole line (with its end) was collected, from in->line_start on. */
static enum imap_input_step line_done(struct imap_input *in)
{
	str all = buf_str(&in->collected);
	str line = without_line_end(str_from(all, in->line_start)), text;
	uint64_t size = 0;
	bool is_sync = true;

	text = str_head(all, in->line_start + line.n);
	if (in->is_raw || !literal_at_end(line, &size, &is_sync))
		return finish(in, text);
	in->line_start = all.n;
	if (in->is_too_long || in->refused) {
		if (is_sync)
			return finish(in, text);
		in->discard = size;
		return IMAP_INPUT_MORE;
	}
	if (is_message(in, text)) {
		in->text = text;
		in->message_size = size;
		in->is_sync = is_sync;
		return IMAP_INPUT_MESSAGE;
	}
	if (size > IMAP_LINE_MAX - MIN(all.n, (size_t)IMAP_LINE_MAX)) {
		in->is_too_long = true;
		/* RFC 7888 4: the client does not send a literal that was refused. */
		if (is_sync)
			return finish(in, text);
		in->discard = size;
		return IMAP_INPUT_MORE;
	}
	in->literal = size;
	return is_sync ? IMAP_INPUT_CONTINUE : IMAP_INPUT_MORE;
}

enum { HEAD_KEPT = 1024, TAIL_KEPT = 64 };

/* Keeps what fits. Of an overlong line the beginning stays, for its tag, and enough of its tail to
 * see a literal announced there. */
static bool collect(struct imap_input *in, str piece)
{
	size_t room = IMAP_LINE_MAX + 2 - buf_len(&in->collected), kept;
	char tail[2 * TAIL_KEPT];
	str old;

	if (piece.n <= room && !in->is_too_long) {
		buf_add(&in->collected, piece);
		return true;
	}
	if (!discard_count(in, piece.n))
		return false;
	old = in->is_too_long ? str_from(buf_str(&in->collected), in->line_start) : STR_EMPTY;
	kept = MIN(old.n, (size_t)TAIL_KEPT);
	if (kept)
		memcpy(tail, old.p + old.n - kept, kept);
	in->is_too_long = true;
	in->line_start = MIN(buf_len(&in->collected), (size_t)HEAD_KEPT);
	buf_truncate(&in->collected, in->line_start);
	buf_add(&in->collected, str_of(tail, kept));
	buf_add(&in->collected, str_from(piece, piece.n > TAIL_KEPT ? piece.n - TAIL_KEPT : 0));
	return true;
}

static size_t take_counted(uint64_t *left, str bytes)
{
	size_t n = *left < bytes.n ? (size_t)*left : bytes.n;

	*left -= n;
	return n;
}

enum imap_input_step imap_input_feed(struct imap_input *in, str bytes, size_t *used)
{
	enum imap_input_step step = IMAP_INPUT_MORE;
	size_t all = bytes.n, n, end;

	*used = 0;
	while (bytes.n && step == IMAP_INPUT_MORE) {
		if (in->discard) {
			n = take_counted(&in->discard, bytes);
			if (!discard_count(in, n))
				return IMAP_INPUT_FLOOD;
		} else if (in->literal) {
			n = take_counted(&in->literal, bytes);
			buf_add(&in->collected, str_head(bytes, n));
			in->line_start = buf_len(&in->collected);
		} else {
			end = str_find_char(bytes, '\n');
			n = end == STR_NONE ? bytes.n : end + 1;
			if (!collect(in, str_head(bytes, n)))
				return IMAP_INPUT_FLOOD;
			if (end != STR_NONE)
				step = line_done(in);
		}
		bytes = str_from(bytes, n);
	}
	*used = all - bytes.n;
	return step;
}

void imap_input_message_done(struct imap_input *in)
{
	in->parts++;
	buf_clear(&in->collected);
	in->line_start = 0;
	in->text = STR_EMPTY;
}

bool imap_input_refuse(struct imap_input *in)
{
	in->refused = true;
	if (in->is_sync)
		return true;
	in->discard = in->message_size;
	buf_clear(&in->collected);
	in->line_start = 0;
	in->text = STR_EMPTY;
	return false;
}
