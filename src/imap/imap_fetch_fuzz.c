/* FETCH items: what is accepted has labels that are accepted again and mean the same. */
#include "imap/fetch_items.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void again(const struct imap_section *s, struct arena *a)
{
	struct imap_parser p = { .rest = s->label, .arena = a };
	struct imap_fetch fetch;
	str label = s->label;

	/* The answer's "<5>" has no count, so it is not asked again; nor does it end within a
	 * literal. */
	if (s->is_partial)
		return;
	if (imap_parse_fetch(&p, &fetch) || !imap_parse_at_end(&p) || fetch.section_count != 1 ||
	    !str_eq(fetch.sections->label, label))
		panic("a label that is not understood");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *a = arena_new(IMAP_COMMAND_BUDGET);
	struct imap_parser p = { .rest = str_of(data, size), .arena = a };
	struct imap_fetch fetch;

	if (a && size < 20000 && !imap_parse_fetch(&p, &fetch))
		for (const struct imap_section *s = fetch.sections; s; s = s->next)
			again(s, a);
	arena_free(a);
	return 0;
}
