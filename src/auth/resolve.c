/* The resolver: the way in, the memory of answers, and who may send as whom.
 *
 * What is remembered is keyed by the folded address and true of one state of the directory: the
 * counter is read in the same transaction as the answer. When the counter that the caller refreshed
 * differs, all is forgotten; an answer of an older state is never given. Only addresses of our
 * domains that lead somewhere are remembered. "Unknown" is not, because a guesser asks for each
 * name once and would only push out the names that are used; nor is "remote", which costs one
 * query.
 *
 * An entry is one allocation: node, recipients, their texts. It is copied out to the caller's
 * arena, so that nothing borrowed outlives the entry.
 */
#include "auth/resolve_priv.h"

#include <stdlib.h>

/* For one call: a thousand targets of 254 bytes parsed three ways, and the sets. */
enum { OWN_SIZE = 8192, SCRATCH_SIZE = 32 << 20, SEND_AS_SIZE = 4 << 20 };

struct remembered {
	struct lru_node node; /* first */
	struct resolution resolution;
	struct resolved_recipient recipients[];
	/* then the bytes of all texts */
};

static const char *const send_as_texts[SEND_AS_COUNT] = {
#define SEND_AS(name, text) [SEND_AS_##name] = text,
#include "auth/send_as.def"
#undef SEND_AS
};

static enum err set_options(struct resolver *r, const struct resolver_options *options)
{
	r->delimiters = arena_str(r->own, options->delimiters);
	if (!r->delimiters.p)
		return ERR_NO_MEMORY;
	return options->postmaster.n
		       ? auth_address_parse(options->postmaster, r->own, &r->postmaster)
		       : ERR_OK;
}

enum err resolver_new(struct directory *d, const struct resolver_options *options,
		      const uint8_t seed[RESOLVE_SEED_SIZE], struct resolver **out)
{
	struct resolver *r = calloc(1, sizeof(*r));
	enum err err = ERR_NO_MEMORY;

	*out = NULL;
	if (!r)
		return ERR_NO_MEMORY;
	r->d = d;
	r->own = arena_new(OWN_SIZE);
	r->scratch = arena_new(SCRATCH_SIZE);
	if (r->own && r->scratch && !(err = set_options(r, options)))
		err = lru_init(&r->cache, options->cache_max ? options->cache_max : 1, seed);
	if (err) {
		resolver_free(r);
		return err;
	}
	*out = r;
	return ERR_OK;
}

static void forget_all(struct resolver *r)
{
	struct lru_node *n;

	while ((n = lru_oldest(&r->cache, 0)))
		free(lru_remove(&r->cache, n));
}

void resolver_free(struct resolver *r)
{
	if (!r)
		return;
	forget_all(r);
	lru_free(&r->cache);
	arena_free(r->own);
	arena_free(r->scratch);
	free(r);
}

size_t resolver_cached(const struct resolver *r)
{
	return r->cache.count;
}

/* A detail's case is the sender's: another spelling of it must not get this one's. */
static bool depends_on_case(const struct auth_address *address, enum resolved_by by)
{
	return (by == RESOLVED_DETAIL_ACCOUNT || by == RESOLVED_DETAIL_ALIAS) &&
	       !str_eq(address->whole, address->key);
}

/* False when it is not remembered. */
static bool recall(struct resolver *r, const struct auth_address *address, struct arena *a,
		   struct resolution *out, enum err *err)
{
	struct lru_node *n = lru_find(&r->cache, address->key);
	const struct resolution *had =
		n ? &CONTAINER_OF(n, struct remembered, node)->resolution : NULL;
	struct resolved_recipient *to;

	if (!had || depends_on_case(address, had->by))
		return false;
	lru_touch(&r->cache, n, 0);
	to = arena_array(a, had->count, sizeof(*to));
	*err = to ? ERR_OK : ERR_NO_MEMORY;
	for (size_t i = 0; i < had->count && !*err; i++) {
		to[i] = had->recipients[i];
		to[i].address = arena_str(a, had->recipients[i].address);
		if (to[i].detail.n)
			to[i].detail = arena_str(a, had->recipients[i].detail);
		if (!to[i].address.p || (had->recipients[i].detail.n && !to[i].detail.p))
			*err = ERR_NO_MEMORY;
	}
	*out = *had;
	out->recipients = to;
	return true;
}

static str put(char **at, str s)
{
	str copy = str_of(*at, s.n);

	if (s.n)
		memcpy(*at, s.p, s.n);
	*at += s.n;
	return copy;
}

static void remember(struct resolver *r, str key, const struct resolution *what)
{
	struct remembered *m;
	size_t bytes = key.n;
	char *at;

	if (what->count > RESOLVE_CACHED_RECIPIENTS)
		return;
	for (size_t i = 0; i < what->count; i++)
		bytes += what->recipients[i].address.n + what->recipients[i].detail.n;
	m = malloc(sizeof(*m) + what->count * sizeof(*m->recipients) + bytes);
	if (!m)
		return; /* remembering is a favour, not a duty */
	at = (char *)&m->recipients[what->count];
	m->resolution = *what;
	m->resolution.recipients = m->recipients;
	for (size_t i = 0; i < what->count; i++) {
		m->recipients[i] = what->recipients[i];
		m->recipients[i].address = put(&at, what->recipients[i].address);
		m->recipients[i].detail = put(&at, what->recipients[i].detail);
	}
	if (lru_is_full(&r->cache))
		free(lru_remove(&r->cache, lru_oldest(&r->cache, 0)));
	lru_insert(&r->cache, &m->node, put(&at, key), 0);
}

static void forget_what_is_old(struct resolver *r)
{
	if (r->cached_changes != directory_changes(r->d))
		forget_all(r);
	r->cached_changes = directory_changes(r->d);
}

static enum err resolve_anew(struct resolver *r, const struct auth_address *address,
			     struct arena *a, struct resolution *out)
{
	enum err err = directory_read_begin(r->d);

	if (err)
		return err;
	forget_what_is_old(r);
	err = resolve_expand(r, address, a, out);
	directory_read_end(r->d);
	if (!err && out->by != RESOLVED_REMOTE && !depends_on_case(address, out->by))
		remember(r, address->key, out);
	return err;
}

enum err resolve(struct resolver *r, str text, struct arena *a, struct resolution *out)
{
	struct auth_address address;
	enum err err = ERR_OK;

	*out = (struct resolution){ 0 };
	arena_reset(r->scratch);
	if (str_case_eq(text, S("postmaster"))) {
		if (r->postmaster.whole.n == 0)
			return ERR_NOT_FOUND;
		address = r->postmaster;
	} else if ((err = auth_address_parse(text, r->scratch, &address))) {
		return err;
	}
	forget_what_is_old(r);
	if (recall(r, &address, a, out, &err))
		return err;
	return resolve_anew(r, &address, a, out);
}

static const struct resolved_recipient *find_account(const struct resolution *found,
						     uint64_t account)
{
	for (size_t i = 0; i < found->count; i++)
		if (found->recipients[i].account == account)
			return &found->recipients[i];
	return NULL;
}

static enum send_as reason_of(const struct resolution *found, uint64_t account)
{
	if (found->by == RESOLVED_REMOTE)
		return SEND_AS_FOREIGN_DOMAIN;
	if (!find_account(found, account))
		return SEND_AS_NOT_YOURS;
	switch (found->by) {
	case RESOLVED_ACCOUNT:
		return SEND_AS_OWN;
	case RESOLVED_DETAIL_ACCOUNT:
		return SEND_AS_DETAIL;
	case RESOLVED_CATCH_ALL:
		return SEND_AS_CATCH_ALL;
	default:
		return SEND_AS_ALIAS;
	}
}

enum err may_send_as(struct resolver *r, uint64_t account, str address, enum send_as *reason)
{
	struct arena *a = arena_new(SEND_AS_SIZE);
	struct resolution found;
	enum err err = a ? resolve(r, address, a, &found) : ERR_NO_MEMORY;

	*reason = SEND_AS_UNKNOWN;
	switch (err) {
	case ERR_OK:
		*reason = account ? reason_of(&found, account) : SEND_AS_NOT_YOURS;
		break;
	case ERR_NO_MEMORY:
	case ERR_TEMPORARY:
		break;
	case ERR_SYNTAX:
	case ERR_TOO_LONG:
		*reason = SEND_AS_NOT_AN_ADDRESS;
		err = ERR_OK;
		break;
	case ERR_NOT_FOUND:
		err = ERR_OK;
		break;
	default: /* disabled, a circle, too many: nobody's for now */
		*reason = SEND_AS_NOT_YOURS;
		err = ERR_OK;
		break;
	}
	arena_free(a);
	return err;
}

bool send_as_is_allowed(enum send_as reason)
{
	return reason >= SEND_AS_OWN && reason < SEND_AS_COUNT;
}

const char *send_as_text(enum send_as reason)
{
	return send_as_texts[reason];
}
