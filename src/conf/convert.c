/* Typed values from expanded text: what a setting means, or the problem with it.
 *
 * One function for each type, found through a table. A value is checked here once; whoever reads it
 * later gets what its type promises.
 */
#include "conf/conf_priv.h"

#include <stdio.h>

enum { HOST_MAX = 255, LABEL_MAX = 63 };

struct unit {
	const char *name;
	uint64_t factor;
};

/* The number and unit of "64k": the unit's factor times the number. */
static enum err parse_with_unit(str s, const struct unit *units, size_t n, uint64_t *out)
{
	size_t digits = 0;
	uint64_t number;
	enum err err;
	str unit;

	while (digits < s.n && ascii_is_digit(s.p[digits]))
		digits++;
	if ((err = str_to_u64(str_head(s, digits), UINT64_MAX, &number)))
		return err;
	unit = str_from(s, digits);
	for (size_t i = 0; i < n; i++)
		if (str_case_eq(unit, str_from_c(units[i].name)))
			return __builtin_mul_overflow(number, units[i].factor, out) ? ERR_RANGE
										    : ERR_OK;
	return ERR_SYNTAX;
}

enum err conf_parse_size(str s, uint64_t *out)
{
	static const struct unit units[] = {
		{ "", 1 }, { "k", 1024 }, { "m", 1048576 }, { "g", 1073741824 }
	};

	return parse_with_unit(s, units, ARRAY_LEN(units), out);
}

enum err conf_parse_time(str s, uint64_t *ns)
{
	static const struct unit units[] = {
		{ "", 1000000000 },
		{ "ms", 1000000 },
		{ "s", 1000000000 },
		{ "m", 60 * 1000000000ull },
		{ "h", 3600 * 1000000000ull },
		{ "d", 86400 * 1000000000ull },
		{ "w", 604800 * 1000000000ull },
	};
	enum err err = parse_with_unit(s, units, ARRAY_LEN(units), ns);

	return !err && *ns > INT64_MAX ? ERR_RANGE : err;
}

str conf_next_item(str *rest)
{
	unsigned depth = 0;
	size_t n = 0;
	str item;

	while (rest->n > 0 && (ascii_is_space(rest->p[0]) || rest->p[0] == ','))
		*rest = str_from(*rest, 1);
	if (rest->n == 0)
		return STR_EMPTY;
	for (; n < rest->n; n++) {
		char c = rest->p[n];

		if (c == '{')
			depth++;
		else if (c == '}' && depth > 0)
			depth--;
		else if (depth == 0 && (c == ',' || ascii_is_space(c)))
			break;
	}
	item = str_head(*rest, n);
	*rest = str_from(*rest, n);
	return item;
}

/* What converts a value: false when it reported a problem. */
struct conversion {
	struct conf_parser *p;
	enum conf_id id;
	struct conf_value *v;
};

static void bad_value(const struct conversion *c, const char *wanted)
{
	conf_problem(c->p, c->v->line, "%s must be %s, not \"%.*s\"", conf_info(c->id)->name,
		     wanted, STR_ARGS(str_head(c->v->text, 100)));
}

static enum err parse_plain(str s, uint64_t *out)
{
	return str_to_u64(s, UINT64_MAX, out);
}

/* A number in the type's notation, between the row's limits. */
static void convert_number(const struct conversion *c, enum err (*parse)(str, uint64_t *),
			   const char *wanted)
{
	str limits = str_from_c(conf_info(c->id)->limits);
	size_t dots = str_find(limits, S(".."));
	uint64_t least, greatest;

	if (parse(c->v->text, &c->v->number)) {
		bad_value(c, wanted);
		return;
	}
	if (dots == STR_NONE)
		return;
	if (parse(str_head(limits, dots), &least) || parse(str_from(limits, dots + 2), &greatest))
		panic("conf.def: limits of %s", conf_info(c->id)->name);
	if (c->v->number < least || c->v->number > greatest)
		conf_problem(c->p, c->v->line, "%s must be between %.*s and %.*s, not %.*s",
			     conf_info(c->id)->name, STR_ARGS(str_head(limits, dots)),
			     STR_ARGS(str_from(limits, dots + 2)),
			     STR_ARGS(str_head(c->v->text, 100)));
}

static void convert_plain_number(const struct conversion *c)
{
	convert_number(c, parse_plain, "a number");
}

static void convert_size(const struct conversion *c)
{
	convert_number(c, conf_parse_size, "a number of bytes, like 10240, 64k, 50m or 1g");
}

static void convert_time(const struct conversion *c)
{
	convert_number(c, conf_parse_time, "a time, like 30, 30s, 5m, 4h, 5d or 1w");
}

static void convert_text(const struct conversion *c UNUSED)
{
}

static void convert_bool(const struct conversion *c)
{
	if (str_case_eq(c->v->text, S("yes")))
		c->v->truth = true;
	else if (!str_case_eq(c->v->text, S("no")))
		bad_value(c, "yes or no");
}

static void convert_choice(const struct conversion *c)
{
	str words = str_from_c(conf_info(c->id)->limits);
	char wanted[120];

	for (uint64_t i = 0; words.n > 0; i++) {
		str word = conf_next_item(&words);

		if (!str_case_eq(word, c->v->text))
			continue;
		c->v->number = i;
		c->v->text = arena_str(c->p->arena, word); /* in the table's spelling */
		c->p->no_memory |= !c->v->text.p;
		return;
	}
	(void)snprintf(wanted, sizeof(wanted), "one of %s", conf_info(c->id)->limits);
	bad_value(c, wanted);
}

/* RFC 1123 2.1: labels of letters, digits and hyphens. */
static bool is_host(str s)
{
	if (s.n == 0 || s.n > HOST_MAX)
		return false;
	while (s.n > 0) {
		bool more = str_find_char(s, '.') != STR_NONE;
		str label = str_cut(&s, '.');

		if (label.n == 0 || label.n > LABEL_MAX || label.p[0] == '-' ||
		    label.p[label.n - 1] == '-' || (more && s.n == 0))
			return false;
		for (size_t i = 0; i < label.n; i++)
			if (!ascii_is_alnum(label.p[i]) && label.p[i] != '-')
				return false;
	}
	return true;
}

static void convert_host(const struct conversion *c)
{
	if (!is_host(c->v->text))
		bad_value(c, "a host name");
}

static void convert_path(const struct conversion *c)
{
	if (c->v->text.n > 0 && c->v->text.p[0] != '/')
		bad_value(c, "an absolute path (it may begin with $config_directory)");
}

static size_t count_items(str s)
{
	size_t n = 0;

	while (conf_next_item(&s).n > 0)
		n++;
	return n;
}

/* Room for as many items as the value has. NULL: none, or no memory. */
static void *new_items(const struct conversion *c, str s, size_t size)
{
	size_t n = count_items(s);
	void *items = n > 0 ? arena_array(c->p->arena, n, size) : NULL;

	c->p->no_memory |= n > 0 && !items;
	c->v->items = items;
	c->v->count = items ? n : 0;
	return items;
}

static void convert_list(const struct conversion *c)
{
	str rest = c->v->text;
	str *items = new_items(c, rest, sizeof(*items));

	for (size_t i = 0; i < c->v->count; i++)
		items[i] = conf_next_item(&rest);
}

/* 192.0.2.0/24, [2001:db8::]/32 (Postfix's way to write it) or 2001:db8::/32; without /bits one
 * address. */
static bool parse_net(str s, struct conf_net *net)
{
	size_t slash = str_find_char(s, '/');
	str ip = str_head(s, slash);
	uint64_t bits, most;

	if (ip.n > 2 && ip.p[0] == '[' && ip.p[ip.n - 1] == ']')
		ip = str_sub(ip, 1, ip.n - 2);
	if (addr_parse_ip(ip, &net->address))
		return false;
	most = net->address.family == ADDR_IP4 ? 32 : 128;
	bits = most;
	if (slash != STR_NONE && str_to_u64(str_from(s, slash + 1), most, &bits))
		return false;
	net->bits = (unsigned)bits;
	return true;
}

/* A network written with bits set behind its prefix is most often a mistake; Postfix refuses it
 * too. */
static bool net_has_host_bits(const struct conf_net *net)
{
	size_t size = net->address.family == ADDR_IP4 ? 4 : 16;

	for (size_t bit = net->bits; bit < size * 8; bit++)
		if (net->address.ip[bit / 8] & (0x80u >> (bit % 8)))
			return true;
	return false;
}

static void convert_nets(const struct conversion *c)
{
	str rest = c->v->text;
	struct conf_net *nets = new_items(c, rest, sizeof(*nets));

	for (size_t i = 0; i < c->v->count; i++) {
		str item = conf_next_item(&rest);

		if (!parse_net(item, &nets[i]))
			conf_problem(
				c->p, c->v->line,
				"%s: \"%.*s\" is no network like 192.0.2.0/24 or [2001:db8::]/32",
				conf_info(c->id)->name, STR_ARGS(str_head(item, 80)));
		else if (net_has_host_bits(&nets[i]))
			conf_problem(c->p, c->v->line,
				     "%s: \"%.*s\" has bits set behind its first %u",
				     conf_info(c->id)->name, STR_ARGS(str_head(item, 80)),
				     nets[i].bits);
	}
}

static void convert_addrs(const struct conversion *c)
{
	str rest = c->v->text;
	struct addr *addrs = new_items(c, rest, sizeof(*addrs));

	for (size_t i = 0; i < c->v->count; i++) {
		str item = conf_next_item(&rest);

		if (addr_parse_ip(item, &addrs[i]) && addr_parse(item, &addrs[i]))
			conf_problem(
				c->p, c->v->line,
				"%s: \"%.*s\" is no address like 192.0.2.1:53 or [2001:db8::1]:53",
				conf_info(c->id)->name, STR_ARGS(str_head(item, 80)));
	}
}

/* "{key = value}" into a pair. */
static bool parse_pair(str item, struct conf_pair *pair)
{
	size_t equals;

	if (item.n < 2 || item.p[0] != '{' || item.p[item.n - 1] != '}')
		return false;
	item = str_sub(item, 1, item.n - 2);
	equals = str_find_char(item, '=');
	pair->key = str_trim(str_head(item, equals));
	pair->value = str_trim(str_from(item, equals == STR_NONE ? item.n : equals + 1));
	return equals != STR_NONE && pair->key.n > 0;
}

/* Postfix's DATABASE_README: inline:{ key=value, { key = text with space }, ... }. */
static void convert_table(const struct conversion *c)
{
	str s = c->v->text;
	struct conf_pair *pairs;

	if (s.n == 0)
		return;
	if (!str_starts(s, S("inline:")) || s.n < 9 || s.p[7] != '{' || s.p[s.n - 1] != '}') {
		bad_value(c, "a table like inline:{ {example.com = smtp:[192.0.2.1]:25}, ... }");
		return;
	}
	s = str_sub(s, 8, s.n - 9);
	pairs = new_items(c, s, sizeof(*pairs));
	for (size_t i = 0; i < c->v->count; i++) {
		str item = conf_next_item(&s);

		if (!parse_pair(item, &pairs[i]))
			conf_problem(c->p, c->v->line, "%s: \"%.*s\" must be {key = value}",
				     conf_info(c->id)->name, STR_ARGS(str_head(item, 80)));
	}
}

void conf_convert(struct conf_parser *p, enum conf_id id)
{
	static void (*const converts[])(const struct conversion *) = {
		[CONF_TYPE_TEXT] = convert_text,	   [CONF_TYPE_HOST] = convert_host,
		[CONF_TYPE_PATH] = convert_path,	   [CONF_TYPE_BOOL] = convert_bool,
		[CONF_TYPE_NUMBER] = convert_plain_number, [CONF_TYPE_SIZE] = convert_size,
		[CONF_TYPE_TIME] = convert_time,	   [CONF_TYPE_CHOICE] = convert_choice,
		[CONF_TYPE_LIST] = convert_list,	   [CONF_TYPE_NETS] = convert_nets,
		[CONF_TYPE_ADDRS] = convert_addrs,	   [CONF_TYPE_TABLE] = convert_table,
		[CONF_TYPE_LISTEN] = convert_text,	   [CONF_TYPE_POLICY] = convert_text,
	};
	struct conversion c = { p, id, &p->conf->values[id] };

	converts[conf_info(id)->type](&c);
}
