/* The verdict: hash, parse, envelope, structure.
 *
 * A message costs one SHA-256 and one pass of the MIME parser; the context, the arena and the
 * buffers are kept from one message to the next, so that a small message allocates nothing.
 */
#include "filter/filter.h"

#include "mime/envelope.h"

#include <openssl/evp.h>
#include <stdlib.h>

struct filter {
	EVP_MD *sha256;
	EVP_MD_CTX *digest;
	struct arena *arena;
	struct buf envelope, structure, subject;
};

enum err filter_new(struct filter **out)
{
	struct filter *f = calloc(1, sizeof(*f));

	if (!f)
		return ERR_NO_MEMORY;
	f->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	f->digest = EVP_MD_CTX_new();
	f->arena = arena_new(FILTER_PARSE_MEMORY);
	buf_init(&f->envelope, FILTER_ENVELOPE_MAX);
	buf_init(&f->structure, FILTER_STRUCTURE_MAX);
	buf_init(&f->subject, FILTER_SUBJECT_MAX);
	if (!f->sha256 || !f->digest || !f->arena) {
		filter_free(f);
		return ERR_NO_MEMORY;
	}
	*out = f;
	return ERR_OK;
}

void filter_free(struct filter *f)
{
	if (!f)
		return;
	EVP_MD_free(f->sha256);
	EVP_MD_CTX_free(f->digest);
	arena_free(f->arena);
	buf_free(&f->envelope);
	buf_free(&f->structure);
	buf_free(&f->subject);
	free(f);
}

static bool hash(struct filter *f, str body, uint8_t out[32])
{
	unsigned n = 0;

	return EVP_DigestInit_ex2(f->digest, f->sha256, NULL) &&
	       EVP_DigestUpdate(f->digest, body.n ? body.p : "", body.n) &&
	       EVP_DigestFinal_ex(f->digest, out, &n) && n == 32;
}

/* RFC 5322 3.6.4: "<" id-left "@" id-right ">"; what follows the first one is noise. */
static str first_message_id(str value)
{
	size_t from = str_find_char(value, '<'), to = str_find_char(value, '>');

	if (from == STR_NONE || to == STR_NONE || to < from || to - from >= FILTER_MESSAGE_ID_MAX)
		return STR_EMPTY;
	value = str_sub(value, from, to + 1 - from);
	for (size_t i = 0; i < value.n; i++)
		if ((unsigned char)value.p[i] <= ' ' || value.p[i] == 0x7f)
			return STR_EMPTY;
	return value;
}

static void parse(struct filter *f, str body, struct filter_verdict *out)
{
	struct mime_part *root;

	if (mime_parse(body, f->arena, &root) || !root->envelope)
		return;
	mime_write_envelope(root->envelope, &f->envelope);
	mime_write_structure(root, true, &f->structure);
	out->message_id = first_message_id(root->envelope->message_id);
	filter_subject_base(root->envelope->subject, &f->subject);
	out->subject_base = buf_str(&f->subject);
	if (buf_failed(&f->envelope) || buf_failed(&f->structure))
		return;
	out->envelope = buf_str(&f->envelope);
	out->structure = buf_str(&f->structure);
	out->has_parse = true;
}

void filter_judge(struct filter *f, str body, struct filter_verdict *out)
{
	*out = (struct filter_verdict){ .code = 250, .status = S("2.0.0") };
	arena_reset(f->arena);
	buf_clear(&f->envelope);
	buf_clear(&f->structure);
	buf_clear(&f->subject);
	if (!hash(f, body, out->hash)) {
		*out = (struct filter_verdict){ .code = 451,
						.status = S("4.3.0"),
						.text = S("Cannot judge the message now") };
		return;
	}
	parse(f, body, out);
}
