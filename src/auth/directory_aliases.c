/* Aliases: rows of (address, target); an address with several rows has several targets.
 *
 * "@domain" is stored as it is: no address can be spelt so, since a local part is never empty. A
 * target in a domain that is ours when it is added is stored by its key; a remote one keeps its
 * local part's case (RFC 5321 2.4). resolve.c parses it again, so a domain that becomes ours later
 * is no trouble.
 */
#include "auth/directory_priv.h"

enum { SCRATCH_SIZE = 8192 };

/* "@domain" or an address; `key` and `domain` are canonical. */
static enum err alias_address(str text, struct arena *a, str *key, str *domain)
{
	struct auth_address address;
	enum err err;

	if (text.n && text.p[0] == '@') {
		if ((err = auth_domain_parse(str_from(text, 1), a, domain)))
			return err;
		*key = arena_printf(a, "@%.*s", STR_ARGS(*domain));
		return key->p ? ERR_OK : ERR_NO_MEMORY;
	}
	if ((err = auth_address_parse(text, a, &address)))
		return err;
	*key = address.key;
	*domain = address.domain;
	return ERR_OK;
}

static enum err target_form(struct directory *d, str text, struct arena *a, str *target)
{
	struct auth_address address;
	enum err err = auth_address_parse(text, a, &address);

	if (err)
		return err;
	err = directory_domain_find(d, address.domain);
	*target = err == ERR_OK ? address.key : address.whole;
	return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static enum err pair_exists(struct directory *d, str key, str target)
{
	struct query q = query_begin(d, QUERY_ALIAS_PAIR);
	enum err err;

	query_text(&q, 1, key);
	query_text(&q, 2, target);
	err = query_step(&q);
	query_end(&q);
	return err;
}

/* ERR_OK when this pair may be added. */
static enum err alias_may_be(struct directory *d, str key, str domain, str target)
{
	int64_t count;
	enum err err = require_domain(d, domain);

	if (err)
		return err;
	if (str_eq(key, target))
		return ERR_CONFLICT;
	if ((err = query_one(d, QUERY_ACCOUNT_EXISTS, key, NULL)) == ERR_NOT_FOUND)
		err = pair_exists(d, key, target);
	if (err != ERR_NOT_FOUND)
		return err ? err : ERR_EXISTS;
	if ((err = query_one(d, QUERY_ALIAS_COUNT, key, &count)))
		return err;
	return count < DIRECTORY_TARGETS_MAX ? ERR_OK : ERR_TOO_MANY;
}

static enum err alias_insert(struct directory *d, str key, str domain, str target)
{
	struct query q;
	enum err err = alias_may_be(d, key, domain, target);

	if (err)
		return err;
	q = query_begin(d, QUERY_ALIAS_ADD);
	query_text(&q, 1, key);
	query_text(&q, 2, domain);
	query_text(&q, 3, target);
	return query_change(&q);
}

enum err directory_alias_add(struct directory *d, str address, str target)
{
	struct arena *scratch = arena_new(SCRATCH_SIZE);
	enum err err = scratch ? ERR_OK : ERR_NO_MEMORY;
	str key, domain, form;

	if (!err && !(err = alias_address(address, scratch, &key, &domain)) &&
	    !(err = write_begin(d))) {
		err = target_form(d, target, scratch, &form);
		if (!err)
			err = alias_insert(d, key, domain, form);
		err = write_end(d, err);
	}
	arena_free(scratch);
	return err;
}

static enum err alias_delete(struct directory *d, str key, str target)
{
	struct query q = query_begin(d, target.n ? QUERY_ALIAS_REMOVE : QUERY_ALIAS_REMOVE_ALL);

	query_text(&q, 1, key);
	if (target.n)
		query_text(&q, 2, target);
	return query_change(&q);
}

/* The target may have been added before its domain became ours, or the other way round: both
 * forms. */
static enum err alias_delete_forms(struct directory *d, str key, const struct auth_address *target)
{
	enum err err = alias_delete(d, key, target->key);

	return err == ERR_NOT_FOUND ? alias_delete(d, key, target->whole) : err;
}

enum err directory_alias_remove(struct directory *d, str address, str target)
{
	struct arena *scratch = arena_new(SCRATCH_SIZE);
	enum err err = scratch ? ERR_OK : ERR_NO_MEMORY;
	struct auth_address parsed;
	str key, domain;

	if (!err)
		err = alias_address(address, scratch, &key, &domain);
	if (!err && target.n)
		err = auth_address_parse(target, scratch, &parsed);
	if (!err && !(err = write_begin(d)))
		err = write_end(d, target.n ? alias_delete_forms(d, key, &parsed)
					    : alias_delete(d, key, STR_EMPTY));
	arena_free(scratch);
	return err;
}

enum err directory_alias_list(struct directory *d, str domain, const struct directory_alias *after,
			      struct arena *a, struct directory_aliases *out)
{
	struct directory_alias *rows = arena_array(a, DIRECTORY_PAGE_MAX, sizeof(*rows));
	struct query q = query_begin(d, domain.n ? QUERY_ALIAS_LIST_DOMAIN : QUERY_ALIAS_LIST);
	enum err err;

	if (!rows)
		return ERR_NO_MEMORY;
	*out = (struct directory_aliases){ .aliases = rows };
	if (domain.n && (err = auth_domain_parse(domain, a, &domain)))
		return err;
	query_text(&q, 1, after ? after->address : STR_EMPTY);
	query_text(&q, 2, after ? after->target : STR_EMPTY);
	query_number(&q, 3, DIRECTORY_PAGE_MAX);
	if (domain.n)
		query_text(&q, 4, domain);
	while (!(err = query_step(&q)) &&
	       !(err = query_column(&q, 0, a, &rows[out->count].address)) &&
	       !(err = query_column(&q, 1, a, &rows[out->count].target)))
		out->count++;
	query_end(&q);
	return err == ERR_NOT_FOUND ? ERR_OK : err;
}

enum err directory_alias_targets(struct directory *d, str key, struct arena *a,
				 struct directory_names *out)
{
	struct query q = query_begin(d, QUERY_ALIAS_TARGETS);
	str first, *names = NULL;
	enum err err;

	*out = (struct directory_names){ 0 };
	query_text(&q, 1, key);
	/* One more than may be added: rows that a shell added are not dropped in silence. */
	query_number(&q, 2, DIRECTORY_TARGETS_MAX + 1);
	while (!(err = query_step(&q)) && !(err = query_column(&q, 0, a, &first))) {
		if (out->count == DIRECTORY_TARGETS_MAX) {
			err = ERR_TOO_MANY;
			break;
		}
		/* Doubled when full: most aliases have one target. */
		if ((out->count & (out->count - 1)) == 0) {
			str *more = arena_array(a, out->count ? out->count * 2 : 1, sizeof(*more));

			if (!more) {
				err = ERR_NO_MEMORY;
				break;
			}
			if (out->count)
				memcpy(more, names, out->count * sizeof(*more));
			out->names = names = more;
		}
		names[out->count++] = first;
	}
	query_end(&q);
	if (err != ERR_NOT_FOUND)
		return err;
	return out->count ? ERR_OK : ERR_NOT_FOUND;
}
