/* Says what src/mime makes of a message: the program behind tests/vectors/mime-dovecot.
 *
 *	mime-dump FILE [SECTION...]
 *
 * prints ENVELOPE, BODY, BODYSTRUCTURE and BODY[SECTION] of the message in FILE, each as a line
 *"NAME LENGTH", that many bytes and a line end; the length is -1 where the answer is NIL. With
 *--time instead of sections it prints how long one parse with envelope and structure takes. */
#include "mime/envelope.h"
#include "mime/section.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MESSAGE_MAX = 256 * 1024 * 1024, BUDGET = 64 * 1024 * 1024, ROUNDS = 20000 };

static bool read_file(const char *path, struct buf *out)
{
	FILE *f = fopen(path, "rb");
	size_t n = 0;

	if (!f)
		return false;
	do {
		char *to = buf_reserve(out, 65536);

		if (!to)
			break;
		n = fread(to, 1, 65536, f);
		buf_added(out, n);
	} while (n);
	fclose(f);
	return !buf_failed(out);
}

static void show(const char *name, str value, bool nil)
{
	printf("%s %ld\n", name, nil ? -1L : (long)value.n);
	if (!nil)
		fwrite(value.p ? value.p : "", 1, value.n, stdout);
	putchar('\n');
}

/* Fields for the two forms with a list: "HEADER.FIELDS (a b)". */
static size_t read_list(str rest, str *names, size_t max)
{
	size_t n = 0;

	if (!rest.n)
		return 0;
	rest = str_sub(rest, 2, rest.n - 3);
	while (rest.n && n < max)
		names[n++] = str_cut(&rest, ' ');
	return n;
}

static void show_section(const struct mime_part *root, str message, const char *text)
{
	char name[1024];
	str rest = str_from_c(text), names[32], value = STR_EMPTY;
	struct section section;
	struct buf built;
	bool nil;

	buf_init(&built, MESSAGE_MAX);
	if (section_parse(&rest, &section)) {
		fprintf(stderr, "mime-dump: bad section %s\n", text);
		exit(2);
	}
	section.fields = names;
	section.field_count = read_list(rest, names, ARRAY_LEN(names));
	nil = section_find(root, message, &section, &built, &value) != ERR_OK;
	snprintf(name, sizeof(name), "BODY[%s]", text);
	show(name, value, nil);
	buf_free(&built);
}

static void measure(str message, struct arena *a)
{
	struct timespec from, to;
	struct mime_part *root;
	struct buf out;
	double ns;

	buf_init(&out, BUDGET);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (int i = 0; i < ROUNDS; i++) {
		arena_reset(a);
		buf_clear(&out);
		if (mime_parse(message, a, &root))
			exit(2);
		mime_write_envelope(root->envelope, &out);
		mime_write_structure(root, true, &out);
		mime_write_structure(root, false, &out);
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	ns = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
	printf("%zu bytes: %.2f microseconds\n", message.n, ns / ROUNDS / 1000);
	buf_free(&out);
}

int main(int argc, char **argv)
{
	struct arena *a = arena_new(BUDGET);
	struct mime_part *root;
	struct buf message, out;

	buf_init(&message, MESSAGE_MAX);
	buf_init(&out, BUDGET);
	if (argc < 2 || !a || !read_file(argv[1], &message) ||
	    mime_parse(buf_str(&message), a, &root)) {
		fprintf(stderr, "usage: mime-dump FILE [--time | SECTION...]\n");
		return 2;
	}
	if (argc > 2 && str_eq(str_from_c(argv[2]), S("--time"))) {
		measure(buf_str(&message), a);
		return 0;
	}
	mime_write_envelope(root->envelope, &out);
	show("ENVELOPE", buf_str(&out), false);
	buf_clear(&out);
	mime_write_structure(root, false, &out);
	show("BODY", buf_str(&out), false);
	buf_clear(&out);
	mime_write_structure(root, true, &out);
	show("BODYSTRUCTURE", buf_str(&out), buf_failed(&out));
	for (int i = 2; i < argc; i++)
		show_section(root, buf_str(&message), argv[i]);
	buf_free(&message);
	buf_free(&out);
	arena_free(a);
	return 0;
}
