/* Following an address to its final recipients.
 *
 * A queue of addresses, begun with the one that was asked for. Each is looked up once: an account
 * or a remote address becomes a recipient, an alias adds its targets one level deeper. What was
 * seen before is skipped, so loops end by themselves and a diamond of aliases costs no more than
 * its distinct addresses; breadth first means that the depth at which an address is met is the
 * least one. Recursion was turned down: its depth would be the data's, and "seen" would have to be
 * told from "being expanded".
 *
 * A target that does not exist here does not spoil the others: refusing the mail of a whole team
 * for one removed member would lose more. It is counted, and if nothing at all is left, the address
 * is unknown.
 */
#include "auth/resolve_priv.h"

enum { SEEN_FIRST = 64 };

struct pending {
	struct auth_address address;
	str detail; /* handed down: who is behind "team+news" gets "news" */
	unsigned depth;
	struct pending *next;
};

/* A set of byte strings: open addressing, at most half full. */
struct seen {
	str *slots;
	size_t size, count;
};

struct expansion {
	struct resolver *r;
	struct arena *a; /* the result's */
	struct pending *first, *last;
	struct seen addresses, recipients;
	struct resolved_recipient *found;
	size_t room, count, unknown, disabled;
	enum resolved_by by;
};

static bool seen_find(const struct seen *s, uint64_t hash, str key, size_t *at)
{
	for (*at = hash & (s->size - 1); s->slots[*at].p; *at = (*at + 1) & (s->size - 1))
		if (str_eq(s->slots[*at], key))
			return true;
	return false;
}

/* ERR_EXISTS when it is there already. The key is borrowed. */
static enum err seen_add(struct expansion *x, struct seen *s, str key)
{
	uint64_t hash = siphash(x->r->cache.seed, key);
	size_t at;

	if (s->count * 2 >= s->size) {
		struct seen larger = { .size = s->size ? s->size * 2 : SEEN_FIRST,
				       .count = s->count };

		larger.slots = arena_array(x->r->scratch, larger.size, sizeof(*larger.slots));
		if (!larger.slots)
			return ERR_NO_MEMORY;
		for (size_t i = 0; i < s->size; i++)
			if (s->slots[i].p &&
			    !seen_find(&larger, siphash(x->r->cache.seed, s->slots[i]), s->slots[i],
				       &at))
				larger.slots[at] = s->slots[i];
		*s = larger;
	}
	if (seen_find(s, hash, key, &at))
		return ERR_EXISTS;
	s->slots[at] = key;
	s->count++;
	return ERR_OK;
}

/* Queues an address once. */
static enum err enqueue(struct expansion *x, const struct auth_address *address, str detail,
			unsigned depth)
{
	struct pending *p;
	enum err err;

	/* By `whole`: two spellings of one of ours meet again at the account, and remote ones may
	 * differ by case. */
	if ((err = seen_add(x, &x->addresses, address->whole)))
		return err == ERR_EXISTS ? ERR_OK : err;
	if (depth > RESOLVE_DEPTH_MAX || x->addresses.count > RESOLVE_ADDRESSES_MAX)
		return ERR_TOO_MANY;
	p = ARENA_NEW(x->r->scratch, struct pending);
	if (!p)
		return ERR_NO_MEMORY;
	*p = (struct pending){ .address = *address, .detail = detail, .depth = depth };
	*(x->last ? &x->last->next : &x->first) = p;
	x->last = p;
	return ERR_OK;
}

static enum err add_recipient(struct expansion *x, const struct resolved_recipient *recipient)
{
	struct resolved_recipient *to;
	enum err err = seen_add(x, &x->recipients, recipient->address);

	if (err)
		return err == ERR_EXISTS ? ERR_OK : err;
	if (x->count == RESOLVE_RECIPIENTS_MAX)
		return ERR_TOO_MANY;
	if (x->count == x->room) {
		size_t room = x->room ? x->room * 2 : 1;

		to = arena_array(x->a, room, sizeof(*to));
		if (!to)
			return ERR_NO_MEMORY;
		if (x->count)
			memcpy(to, x->found, x->count * sizeof(*to));
		x->found = to;
		x->room = room;
	}
	to = &x->found[x->count++];
	*to = *recipient;
	to->address = arena_str(x->a, recipient->address);
	to->detail = recipient->detail.n ? arena_str(x->a, recipient->detail) : STR_EMPTY;
	return to->address.p && (to->detail.p || !recipient->detail.n) ? ERR_OK : ERR_NO_MEMORY;
}

static enum err try_account(struct expansion *x, str key, str detail)
{
	struct directory_account account;
	enum err err = directory_account_find_key(x->r->d, key, x->r->scratch, &account);
	struct resolved_recipient recipient = { .detail = detail };

	if (err)
		return err;
	if (!account.enabled) {
		x->disabled++;
		return ERR_OK;
	}
	recipient.account = account.id;
	recipient.quota = account.quota;
	recipient.address = account.address;
	return add_recipient(x, &recipient);
}

static enum err try_alias(struct expansion *x, str key, str detail, unsigned depth)
{
	struct directory_names targets;
	struct auth_address target;
	enum err err = directory_alias_targets(x->r->d, key, x->r->scratch, &targets);

	for (size_t i = 0; !err && i < targets.count; i++) {
		err = auth_address_parse(targets.names[i], x->r->scratch, &target);
		if (err == ERR_SYNTAX || err == ERR_TOO_LONG) {
			x->unknown++; /* somebody wrote it into the file by hand */
			err = ERR_OK;
			continue;
		}
		if (!err)
			err = enqueue(x, &target, detail, depth + 1);
	}
	return err;
}

/* Account or alias of a key; ERR_NOT_FOUND when it is neither. */
static enum err try_key(struct expansion *x, str key, str detail, unsigned depth,
			enum resolved_by as_account, enum resolved_by as_alias)
{
	enum err err = try_account(x, key, detail);

	if (err == ERR_NOT_FOUND) {
		err = try_alias(x, key, detail, depth);
		as_account = as_alias;
	}
	if (!err && depth == 0)
		x->by = as_account;
	return err;
}

/* "user+detail": cut at the first of the delimiters that stands behind at least one character. */
static bool cut_detail(const struct resolver *r, str local, str *user, str *detail)
{
	for (size_t i = 1; i < local.n; i++) {
		if (str_find_char(r->delimiters, local.p[i]) != STR_NONE) {
			*user = str_head(local, i);
			*detail = str_from(local, i + 1);
			return true;
		}
	}
	return false;
}

static enum err try_without_detail(struct expansion *x, const struct pending *p)
{
	str user, detail, written, key;
	enum err err;

	/* A quoted local part is taken as it is: what a delimiter means in it is anybody's
	 * guess. */
	if (p->address.key_local.p[0] == '"' ||
	    !cut_detail(x->r, p->address.key_local, &user, &detail))
		return ERR_NOT_FOUND;
	/* The detail as it was written, and where there is none, the one that led here. */
	if (!cut_detail(x->r, p->address.local, &written, &detail) || detail.n == 0)
		detail = p->detail;
	if ((err = auth_address_join(user, p->address.domain, x->r->scratch, &key)))
		return err;
	return try_key(x, key, detail, p->depth, RESOLVED_DETAIL_ACCOUNT, RESOLVED_DETAIL_ALIAS);
}

static enum err try_catch_all(struct expansion *x, const struct pending *p)
{
	str key = arena_printf(x->r->scratch, "@%.*s", STR_ARGS(p->address.domain));
	enum err err = key.p ? try_alias(x, key, STR_EMPTY, p->depth) : ERR_NO_MEMORY;

	if (!err && p->depth == 0)
		x->by = RESOLVED_CATCH_ALL;
	return err;
}

/* RFC 5321 4.5.1: a server that takes mail for a domain takes it for postmaster there. */
static enum err try_postmaster(struct expansion *x, const struct pending *p)
{
	enum err err;

	if (!str_eq(p->address.key_local, S("postmaster")) || x->r->postmaster.whole.n == 0)
		return ERR_NOT_FOUND;
	err = enqueue(x, &x->r->postmaster, STR_EMPTY, p->depth + 1);
	if (!err && p->depth == 0)
		x->by = RESOLVED_POSTMASTER;
	return err;
}

static enum err expand_one(struct expansion *x, const struct pending *p)
{
	enum err err = directory_domain_find(x->r->d, p->address.domain);

	if (err == ERR_NOT_FOUND) {
		if (p->depth == 0)
			x->by = RESOLVED_REMOTE;
		return add_recipient(x,
				     &(struct resolved_recipient){ .address = p->address.whole });
	}
	if (!err)
		err = try_key(x, p->address.key, p->detail, p->depth, RESOLVED_ACCOUNT,
			      RESOLVED_ALIAS);
	if (err == ERR_NOT_FOUND)
		err = try_without_detail(x, p);
	if (err == ERR_NOT_FOUND)
		err = try_catch_all(x, p);
	if (err == ERR_NOT_FOUND)
		err = try_postmaster(x, p);
	if (err == ERR_NOT_FOUND && p->depth > 0) {
		x->unknown++;
		err = ERR_OK;
	}
	return err;
}

enum err resolve_expand(struct resolver *r, const struct auth_address *address, struct arena *a,
			struct resolution *out)
{
	struct expansion x = { .r = r, .a = a };
	enum err err = enqueue(&x, address, STR_EMPTY, 0);

	for (const struct pending *p = x.first; p && !err; p = p->next)
		err = expand_one(&x, p);
	if (err)
		return err;
	*out = (struct resolution){
		.by = x.by,
		.recipients = x.found,
		.count = x.count,
		.unresolved = x.unknown + x.disabled,
	};
	if (x.count)
		return ERR_OK;
	if (x.disabled)
		return ERR_DENIED;
	return x.unknown ? ERR_NOT_FOUND : ERR_CONFIG;
}
