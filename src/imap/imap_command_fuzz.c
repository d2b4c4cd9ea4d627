/* The door of IMAP: any bytes, in pieces of any size, through the collector and the parser.
 * Commands come out the same whatever the pieces were; what a parsed command holds can be read to
 * its end. */
#include "imap/command.h"
#include "imap/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t touch(str s)
{
	size_t sum = s.n;

	for (size_t i = 0; i < s.n; i++)
		sum += (unsigned char)s.p[i];
	return sum;
}

static size_t parse(str text, struct arena *a)
{
	struct imap_command *c = ARENA_NEW(a, struct imap_command);
	struct imap_append_part part;
	const char *wrong;
	size_t sum = 0;

	if (!c)
		return 0;
	if (imap_command_parse(text, a, c, &wrong) == ERR_SYNTAX && !wrong)
		panic("a syntax error without a text");
	sum += touch(c->tag) + touch(c->mailbox) + touch(c->target) + touch(c->user) +
	       touch(c->pattern);
	for (const struct imap_section *s = c->fetch.sections; s; s = s->next)
		sum += touch(s->label);
	if (c->search.root)
		imap_search_resolve(c->search.root, 10, 100);
	imap_set_resolve(&c->set, 10);
	for (size_t i = 1; i < c->set.count; i++)
		if (c->set.ranges[i].first <= c->set.ranges[i - 1].last)
			panic("a resolved set is not in order");
	return sum + (imap_parse_append_part(text, true, a, &part, &wrong) == ERR_OK);
}

/* Feeds all of it in pieces of `piece` bytes; the sum stands for what came out. */
static size_t run(str bytes, size_t piece, struct arena *a)
{
	struct imap_input in;
	size_t sum = 0, used;

	imap_input_init(&in);
	while (bytes.n) {
		enum imap_input_step step = imap_input_feed(&in, str_head(bytes, piece), &used);

		bytes = str_from(bytes, used);
		sum = sum * 31 + (size_t)step;
		if (step == IMAP_INPUT_COMMAND || step == IMAP_INPUT_TOO_LONG) {
			arena_reset(a);
			sum += parse(in.text, a);
			imap_input_next(&in);
		} else if (step == IMAP_INPUT_MESSAGE && in.parts < 3 &&
			   in.message_size <= bytes.n) {
			bytes = str_from(bytes, (size_t)in.message_size);
			imap_input_message_done(&in);
		} else if (step == IMAP_INPUT_MESSAGE && imap_input_refuse(&in)) {
			imap_input_next(&in);
		} else if (step == IMAP_INPUT_FLOOD) {
			break;
		} else if (step == IMAP_INPUT_MORE) {
			sum = (sum - (size_t)step) / 31; /* how often depends on the pieces */
		}
	}
	imap_input_free(&in);
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *a = arena_new(IMAP_COMMAND_BUDGET);
	str bytes = str_of(data, size);

	if (a && size < 100000) {
		run(bytes, 1 + size, a);
		run(bytes, 1, a);
		run(bytes, 7, a);
	}
	arena_free(a);
	return 0;
}
