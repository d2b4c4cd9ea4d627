/* Decoding a part in pieces: transfer encoding, then charset.
 *
 * Each stage keeps its own unfinished bytes. Between the stages lies one small buffer, emptied for
 * every piece, and pieces are cut to PIECE bytes, so memory does not depend on what a message
 * holds. */
#include "mime/decode.h"

#include "text/base64.h"
#include "text/charset.h"
#include "text/qp.h"

#include <stdlib.h>

enum { PIECE = 16 * 1024, BETWEEN_MAX = 2 * PIECE };

enum transfer { TRANSFER_NONE, TRANSFER_BASE64, TRANSFER_QP };

struct mime_decoder {
	enum transfer transfer;
	struct base64_decoder base64;
	struct qp_decoder qp;
	struct charset *charset; /* NULL: the bytes are passed on */
	struct buf between;
	size_t left; /* of the budget */
};

static str charset_of(const struct mime_part *p)
{
	for (size_t i = 0; i < p->params.count; i++)
		if (str_case_eq(p->params.items[i].name, S("charset")))
			return str_trim(p->params.items[i].value);
	return S("us-ascii");
}

struct mime_decoder *mime_decoder_new(const struct mime_part *p, size_t budget)
{
	struct mime_decoder *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->left = budget;
	buf_init(&d->between, BETWEEN_MAX);
	if (str_case_eq(p->encoding, S("base64")))
		d->transfer = TRANSFER_BASE64;
	else if (str_case_eq(p->encoding, S("quoted-printable")))
		d->transfer = TRANSFER_QP;
	if (p->kind != MIME_TEXT)
		return d;
	d->charset = charset_new(charset_of(p));
	if (!d->charset)
		d->charset = charset_new(S("utf-8"));
	if (!d->charset) {
		mime_decoder_free(d);
		return NULL;
	}
	return d;
}

void mime_decoder_free(struct mime_decoder *d)
{
	if (!d)
		return;
	charset_free(d->charset);
	buf_free(&d->between);
	free(d);
}

/* Passes bytes on through the charset, within the budget. */
static enum err pass_on(struct mime_decoder *d, str bytes, bool end, struct buf *out)
{
	size_t before = buf_len(out), added;

	if (!d->charset) {
		buf_add(out, bytes);
	} else {
		charset_feed(d->charset, bytes, out);
		if (end)
			charset_end(d->charset, out);
	}
	if (buf_failed(out))
		return ERR_NO_MEMORY;
	added = buf_len(out) - before;
	if (added > d->left) {
		buf_truncate(out, before + d->left);
		d->left = 0;
		return ERR_TOO_LONG;
	}
	d->left -= added;
	return ERR_OK;
}

static enum err feed_piece(struct mime_decoder *d, str piece, struct buf *out)
{
	if (d->transfer == TRANSFER_NONE)
		return pass_on(d, piece, false, out);
	buf_clear(&d->between);
	if (d->transfer == TRANSFER_BASE64)
		base64_decode_piece(&d->base64, piece, &d->between);
	else
		qp_decode_piece(&d->qp, piece, &d->between);
	return buf_failed(&d->between) ? ERR_NO_MEMORY
				       : pass_on(d, buf_str(&d->between), false, out);
}

enum err mime_decoder_feed(struct mime_decoder *d, str piece, struct buf *out)
{
	enum err err = ERR_OK;

	while (piece.n && !err) {
		if (d->left == 0)
			return ERR_TOO_LONG;
		err = feed_piece(d, str_head(piece, PIECE), out);
		piece = str_from(piece, PIECE);
	}
	return err;
}

enum err mime_decoder_end(struct mime_decoder *d, struct buf *out)
{
	buf_clear(&d->between);
	if (d->transfer == TRANSFER_BASE64)
		base64_decode_end(&d->base64, &d->between);
	else if (d->transfer == TRANSFER_QP)
		qp_decode_end(&d->qp, &d->between);
	return buf_failed(&d->between) ? ERR_NO_MEMORY
				       : pass_on(d, buf_str(&d->between), true, out);
}

enum err mime_decode(const struct mime_part *p, str message, size_t budget, struct buf *out)
{
	struct mime_decoder *d = mime_decoder_new(p, budget);
	enum err err;

	if (!d)
		return ERR_NO_MEMORY;
	err = mime_decoder_feed(d, mime_part_body(p, message), out);
	if (!err)
		err = mime_decoder_end(d, out);
	mime_decoder_free(d);
	return err;
}
