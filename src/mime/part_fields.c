/* The fields that MIME parts and envelopes are made of (RFC 2045 3, RFC 2183, RFC 2557, RFC 1864,
 * RFC 3282).
 *
 * A Content- field that comes twice counts once, the first time; an address field that comes twice
 * is read as one long list, so that what a filter sees is what every reader sees; of the other
 * fields of an envelope the last one counts. That is how Dovecot has it. */
#include "mime/lexer.h"
#include "mime/part_priv.h"
#include "text/utf8.h"

/* More parameters of one field than this are not read. */
enum { PARAMS_MAX = 1000, LANGUAGES_MAX = 100 };

static str keep(struct part_fields *pf, size_t from)
{
	return buf_failed(&pf->scratch) ? STR_EMPTY
					: arena_str(pf->a, str_from(buf_str(&pf->scratch), from));
}

/* RFC 2045 5.1: parameter := attribute "=" value. LEX_END when there is nothing more to read. */
static enum lex read_param(struct part_fields *pf, struct lexer *x, size_t *name_end)
{
	struct buf *b = &pf->scratch;
	enum lex l;

	buf_clear(b);
	if (x->p == x->end)
		return LEX_END;
	if (*x->p++ != ';')
		return x->p--, LEX_BROKEN;
	if (lexer_skip(x) != LEX_MORE || lexer_token(x, b) != LEX_MORE || *x->p != '=')
		return LEX_BROKEN;
	x->p++;
	*name_end = buf_len(b);
	if ((l = lexer_skip(x)) != LEX_MORE)
		return l == LEX_BROKEN ? l : LEX_MORE;
	if (*x->p == '"')
		return lexer_quoted(x, b) == LEX_BROKEN ? LEX_BROKEN : LEX_MORE;
	if (*x->p == '=') {
		/* name==?utf-8?b?...?= : an encoded word without quotes, as many programs write it
		 */
		while (x->p != x->end && *x->p != ';' && !ascii_is_space(*x->p))
			buf_add_char(b, *x->p++);
		return LEX_MORE;
	}
	return lexer_token(x, b) == LEX_BROKEN ? LEX_BROKEN : LEX_MORE;
}

static enum err read_params(struct part_fields *pf, struct lexer *x, struct mime_params *out)
{
	const char *from = x->p;
	struct param *items = NULL;
	size_t count = 0, room = 0, name_end;
	enum lex l;
	enum err err;

	while ((l = read_param(pf, x, &name_end)) != LEX_END && count < PARAMS_MAX &&
	       pf->items < MIME_ITEMS_MAX) {
		if (l == LEX_BROKEN) {
			if (x->p == x->end)
				break;
			/* Go on behind the fault; a ';' that was reached may begin a good one. */
			if (x->p == from || *x->p != ';')
				x->p++;
			from = x->p;
			continue;
		}
		from = x->p;
		if (count == room) {
			struct param *more = arena_array(pf->a, room * 2 + 4, sizeof(*more));

			if (!more)
				return ERR_NO_MEMORY;
			if (count)
				memcpy(more, items, count * sizeof(*more));
			items = more;
			room = room * 2 + 4;
		}
		items[count].value = keep(pf, name_end);
		buf_truncate(&pf->scratch, name_end);
		items[count].name = keep(pf, 0);
		if (!items[count].name.p || !items[count].value.p)
			return ERR_NO_MEMORY;
		count++;
		pf->items++;
	}
	if ((err = rfc2231_join(items, &count, pf->a)))
		return err;
	*out = (struct mime_params){ items, count };
	return ERR_OK;
}

static void set_kind(struct mime_part *p)
{
	if (str_case_eq(p->type, S("message")) && str_case_eq(p->subtype, S("rfc822"))) {
		p->kind = MIME_MESSAGE;
	} else if (str_case_eq(p->type, S("multipart")) && p->subtype.n) {
		p->kind = MIME_MULTIPART;
		p->is_digest = str_case_eq(p->subtype, S("digest"));
	} else if (!str_case_eq(p->type, S("text"))) {
		p->kind = MIME_OTHER;
	}
}

/* RFC 2045 5.1: type "/" subtype, to the end or a ';'. A type alone is taken as one of unknown
 * subtype. */
static bool read_type_name(struct part_fields *pf, struct mime_part *p, struct lexer *x)
{
	enum lex l;

	buf_clear(&pf->scratch);
	if (lexer_skip(x) != LEX_MORE)
		return false;
	l = lexer_token(x, &pf->scratch);
	p->type = keep(pf, 0);
	p->subtype = S("");
	if (l == LEX_END)
		return p->type.n > 0;
	if (l != LEX_MORE || *x->p != '/' || p->type.n == 0)
		return false;
	x->p++;
	buf_clear(&pf->scratch);
	if (lexer_skip(x) != LEX_MORE)
		return false;
	l = lexer_token(x, &pf->scratch);
	p->subtype = keep(pf, 0);
	return p->subtype.n && (l == LEX_END || (l == LEX_MORE && *x->p == ';'));
}

static enum err read_type(struct part_fields *pf, struct mime_part *p, struct lexer *x)
{
	enum err err;

	if (!read_type_name(pf, p, x)) {
		/* Broken: neither text nor anything else that somebody should show. */
		p->type = p->subtype = S("");
		p->kind = MIME_OTHER;
		return ERR_OK;
	}
	if (!p->type.p || !p->subtype.p)
		return ERR_NO_MEMORY;
	set_kind(p);
	if ((err = read_params(pf, x, &p->params)))
		return err;
	for (size_t i = 0; i < p->params.count && !pf->boundary.p; i++)
		if (str_case_eq(p->params.items[i].name, S("boundary")))
			pf->boundary = str_head(p->params.items[i].value, MIME_BOUNDARY_MAX);
	return ERR_OK;
}

static enum err read_encoding(struct part_fields *pf, struct mime_part *p, struct lexer *x)
{
	buf_clear(&pf->scratch);
	(void)lexer_skip(x);
	if (lexer_token(x, &pf->scratch) == LEX_END && buf_len(&pf->scratch))
		p->encoding = keep(pf, 0);
	return ERR_OK;
}

static enum err read_disposition(struct part_fields *pf, struct mime_part *p, struct lexer *x)
{
	buf_clear(&pf->scratch);
	(void)lexer_skip(x);
	if (lexer_token(x, &pf->scratch) == LEX_BROKEN)
		return ERR_OK;
	p->disposition = keep(pf, 0);
	return read_params(pf, x, &p->disposition_params);
}

/* RFC 3282 2: Language-List = Language-Tag *("," Language-Tag) */
static enum err read_languages(struct part_fields *pf, struct mime_part *p, struct lexer *x)
{
	str tags[LANGUAGES_MAX], *kept;
	size_t count = 0;

	(void)lexer_skip(x);
	while (count < LANGUAGES_MAX && pf->items < MIME_ITEMS_MAX) {
		enum lex l;

		buf_clear(&pf->scratch);
		if ((l = lexer_atom(x, &pf->scratch)) == LEX_BROKEN)
			break;
		tags[count] = keep(pf, 0);
		if (!tags[count++].p)
			return ERR_NO_MEMORY;
		pf->items++;
		if (l == LEX_END || *x->p != ',')
			break;
		x->p++;
		(void)lexer_skip(x);
	}
	if (!count)
		return ERR_OK;
	if (!(kept = arena_array(pf->a, count, sizeof(*kept))))
		return ERR_NO_MEMORY;
	memcpy(kept, tags, count * sizeof(*kept));
	p->languages = kept;
	p->language_count = count;
	return ERR_OK;
}

static enum err set_once(struct part_fields *pf, str *to, str value)
{
	if (to->p)
		return ERR_OK;
	*to = header_unfold(value, pf->a);
	if (!to->p && value.n)
		return ERR_NO_MEMORY;
	if (!to->p)
		*to = S("");
	return ERR_OK;
}

static enum err content_field(struct part_fields *pf, struct mime_part *p, str name, str value)
{
	struct lexer x = lexer_of(value);

	if (str_case_eq(name, S("Type"))) {
		if (pf->has_type)
			return ERR_OK;
		pf->has_type = p->is_mime = true;
		return read_type(pf, p, &x);
	}
	if (str_case_eq(name, S("Transfer-Encoding")))
		return p->encoding.p ? ERR_OK : read_encoding(pf, p, &x);
	if (str_case_eq(name, S("Disposition")))
		return p->disposition_params.count ? ERR_OK : read_disposition(pf, p, &x);
	if (str_case_eq(name, S("ID")))
		return set_once(pf, &p->id, value);
	if (str_case_eq(name, S("Description")))
		return set_once(pf, &p->description, value);
	if (str_case_eq(name, S("MD5")))
		return set_once(pf, &p->md5, value);
	if (str_case_eq(name, S("Location")))
		return set_once(pf, &p->location, value);
	if (str_case_eq(name, S("Language")))
		return p->language_count ? ERR_OK : read_languages(pf, p, &x);
	return ERR_OK;
}

static enum err read_addresses(struct part_fields *pf, str value, struct address_list *list)
{
	size_t before = list->count;
	enum err err;

	if (pf->items >= MIME_ITEMS_MAX)
		return ERR_OK;
	err = address_list_parse(value, pf->a, list);
	pf->items += list->count - before;
	return err;
}

static enum err envelope_field(struct part_fields *pf, str name, str value)
{
	struct mime_envelope *e = pf->envelope;
	const struct {
		str name;
		str *text;
		struct address_list *list;
	} fields[] = {
		{ S("Date"), &e->date, NULL },
		{ S("Subject"), &e->subject, NULL },
		{ S("From"), NULL, &e->from },
		{ S("Sender"), NULL, &e->sender },
		{ S("Reply-To"), NULL, &e->reply_to },
		{ S("To"), NULL, &e->to },
		{ S("Cc"), NULL, &e->cc },
		{ S("Bcc"), NULL, &e->bcc },
		{ S("In-Reply-To"), &e->in_reply_to, NULL },
		{ S("Message-ID"), &e->message_id, NULL },
	};

	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		if (!str_case_eq(name, fields[i].name))
			continue;
		if (fields[i].list)
			return read_addresses(pf, value, fields[i].list);
		*fields[i].text = value.p ? value : S("");
	}
	return ERR_OK;
}

enum err part_field(struct part_fields *pf, struct mime_part *p, const struct header_field *f)
{
	if (!f->has_colon)
		return ERR_OK;
	if (str_case_starts(f->name, S("Content-")))
		return content_field(pf, p, str_from(f->name, 8), f->value);
	if (str_case_eq(f->name, S("MIME-Version")))
		p->is_mime = true;
	return pf->envelope ? envelope_field(pf, f->name, f->value) : ERR_OK;
}
