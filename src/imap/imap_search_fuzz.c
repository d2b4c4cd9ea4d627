/* SEARCH: the keys before the first LF, evaluated against the message behind it. */
#include "imap/search.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct subject {
	str message;
	struct mime_part *root;
	struct arena *arena;
};

static enum err header(void *arg, str *out)
{
	*out = ((const struct subject *)arg)->message;
	return ERR_OK;
}

static enum err tree(void *arg, str *message, struct mime_part **root)
{
	struct subject *s = arg;
	enum err err = s->root ? ERR_OK : mime_parse(s->message, s->arena, &s->root);

	*message = s->message;
	*root = s->root;
	return err;
}

static str no_subject(void *arg)
{
	(void)arg;
	return STR_EMPTY;
}

static unsigned keyword(void *arg, str name)
{
	(void)arg;
	return name.n > 3 ? 17 : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *a = arena_new(IMAP_COMMAND_BUDGET),
		     *message_arena = arena_new(MIME_BUDGET(size));
	str message = str_of(data, size), keys = str_cut(&message, '\n');
	struct imap_parser p = { .rest = keys, .arena = a };
	struct subject subject = { .message = message, .arena = message_arena };
	struct imap_row row = { .uid = 7, .size = size, .flags = { 3 + (1 << 17), 0 } };
	struct imap_candidate c = { .row = &row,
				    .seq = 3,
				    .header = header,
				    .tree = tree,
				    .subject = no_subject,
				    .keyword = keyword,
				    .arg = &subject };
	struct imap_search search;
	bool hit, again;

	if (!a || !message_arena || size >= 20000 || imap_parse_search(&p, &search))
		goto out;
	imap_search_resolve(search.root, 10, 100);
	if (!imap_search_match(search.root, &c, &hit)) {
		subject.root = NULL;
		arena_reset(message_arena);
		if (imap_search_match(search.root, &c, &again) || again != hit)
			panic("a search that changes its mind");
	}
out:
	arena_free(a);
	arena_free(message_arena);
	return 0;
}
