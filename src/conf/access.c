/* Reading a configuration: typed access, and the checks that need more than one setting. */
#include "conf/conf_priv.h"

static const struct conf_value *value_of(const struct conf *c, enum conf_id id, unsigned types)
{
	if (!(types & (1u << conf_info(id)->type)))
		panic("conf: %s is read as another type than it has", conf_info(id)->name);
	return &c->values[id];
}

#define TYPE(t) (1u << CONF_TYPE_##t)

str conf_str(const struct conf *c, enum conf_id id)
{
	return value_of(c, id, TYPE(TEXT) | TYPE(HOST) | TYPE(PATH) | TYPE(CHOICE))->text;
}

bool conf_bool(const struct conf *c, enum conf_id id)
{
	return value_of(c, id, TYPE(BOOL))->truth;
}

uint64_t conf_u64(const struct conf *c, enum conf_id id)
{
	return value_of(c, id, TYPE(NUMBER))->number;
}

uint64_t conf_size(const struct conf *c, enum conf_id id)
{
	return value_of(c, id, TYPE(SIZE))->number;
}

int64_t conf_time_ns(const struct conf *c, enum conf_id id)
{
	return (int64_t)value_of(c, id, TYPE(TIME))->number;
}

unsigned conf_choice(const struct conf *c, enum conf_id id)
{
	return (unsigned)value_of(c, id, TYPE(CHOICE))->number;
}

const str *conf_list(const struct conf *c, enum conf_id id, size_t *n)
{
	const struct conf_value *v = value_of(c, id, TYPE(LIST));

	*n = v->count;
	return v->items;
}

const struct conf_net *conf_nets(const struct conf *c, enum conf_id id, size_t *n)
{
	const struct conf_value *v = value_of(c, id, TYPE(NETS));

	*n = v->count;
	return v->items;
}

const struct addr *conf_addrs(const struct conf *c, enum conf_id id, size_t *n)
{
	const struct conf_value *v = value_of(c, id, TYPE(ADDRS));

	*n = v->count;
	return v->items;
}

const struct conf_pair *conf_table(const struct conf *c, enum conf_id id, size_t *n)
{
	const struct conf_value *v = value_of(c, id, TYPE(TABLE));

	*n = v->count;
	return v->items;
}

enum err conf_table_find(const struct conf *c, enum conf_id id, str key, str *value)
{
	size_t n;
	const struct conf_pair *pairs = conf_table(c, id, &n);

	for (size_t i = 0; i < n; i++) {
		if (str_case_eq(pairs[i].key, key)) {
			*value = pairs[i].value;
			return ERR_OK;
		}
	}
	return ERR_NOT_FOUND;
}

const struct conf_listen *conf_listens(const struct conf *c, size_t *n)
{
	*n = c->listen_count;
	return c->listens;
}

bool conf_nets_contain(const struct conf *c, enum conf_id id, const struct addr *a)
{
	size_t n;
	const struct conf_net *nets = conf_nets(c, id, &n);

	for (size_t i = 0; i < n; i++)
		if (addr_in_net(a, &nets[i].address, nets[i].bits))
			return true;
	return false;
}

str conf_path(const struct conf *c)
{
	return c->path;
}

unsigned conf_line(const struct conf *c, enum conf_id id)
{
	return c->values[id].line;
}

str conf_raw(const struct conf *c, enum conf_id id)
{
	return c->values[id].raw;
}

str conf_text(const struct conf *c, enum conf_id id)
{
	return c->values[id].text;
}

bool conf_needs_restart(const struct conf *old, const struct conf *new, struct buf *names)
{
	bool any = false;

	for (enum conf_id id = 0; id < CONF_COUNT; id++) {
		if (conf_info(id)->is_reloadable ||
		    str_eq(old->values[id].text, new->values[id].text))
			continue;
		any = true;
		if (names)
			buf_printf(names, "%s\n", conf_info(id)->name);
	}
	return any;
}

enum err conf_check(const struct conf *c, struct buf *problems)
{
	/* Nothing is changed through this. */
	struct conf_parser p = { .conf = (struct conf *)(uintptr_t)c, .problems = problems };

	if (c->values[CONF_myhostname].line == 0)
		conf_problem(&p, 0, "myhostname must be set: the full name of this host");
	if (conf_time_ns(c, CONF_minimal_backoff_time) > conf_time_ns(c, CONF_maximal_backoff_time))
		conf_problem(&p, conf_line(c, CONF_minimal_backoff_time),
			     "minimal_backoff_time must not be greater than maximal_backoff_time");
	for (size_t i = 0; i < c->listen_count; i++) {
		const struct conf_listen *l = &c->listens[i];
		char text[ADDR_TEXT_MAX];

		if (conf_service_is_tls(l->service) && c->values[CONF_tls_cert_file].text.n == 0)
			conf_problem(&p, l->line,
				     "tls_cert_file must be set: %.*s needs a certificate",
				     STR_ARGS(l->service));
		for (size_t j = 0; j < i; j++)
			if (addr_ip_eq(&l->address, &c->listens[j].address) &&
			    l->address.family != ADDR_UNIX &&
			    l->address.port == c->listens[j].address.port)
				conf_problem(&p, l->line, "listen: %.*s is there twice",
					     STR_ARGS(addr_text(&l->address, text)));
	}
	return p.is_bad ? ERR_CONFIG : ERR_OK;
}
