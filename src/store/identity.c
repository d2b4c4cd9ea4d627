/* The store's identity: its id, and the key that seals what lies in the log. Without the key no
 * message that was ever acknowledged can be found again, so it is kept three times, each copy with a
 * CRC:
 *
 *	identity	where it is looked for
 *	log/identity	goes with the segments when somebody copies or restores them
 *	index/data.mdb	in the index's own record, for the day when both files are gone
 *
 * A copy that is missing or damaged is made again from a good one, and its name is logged. Where
 * two good ones differ (somebody restored one file of another store), the segments say which is
 * theirs. A new identity is made only where there is no segment: beside segments it would make a
 * heap of noise out of them.
 */
#include "store/kv_priv.h"

#define IDENTITY_FILE "identity"
#define IDENTITY_COPY "log/identity"

struct copy {
	const char *name, *new_name;
	struct identity id;
	enum err state;
};

static enum err copy_read(int dir, const char *name, struct identity *id)
{
	char bytes[IDENTITY_SIZE + 1];
	size_t n = 0;
	int fd;
	enum err err = os_open(dir, name, OS_READ, &fd);

	if (err)
		return err;
	err = os_pread(fd, bytes, sizeof(bytes), 0, &n);
	os_close(fd);
	if (err && err != ERR_EOF)
		return err;
	return n < IDENTITY_SIZE ? ERR_DAMAGED : identity_get(str_of(bytes, n), id);
}

static enum err copy_write(int dir, const struct copy *c, const struct identity *id)
{
	char bytes[IDENTITY_SIZE];
	int fd;
	enum err err;

	identity_put(bytes, id);
	if ((err = os_open(dir, c->new_name, OS_WRITE | OS_CREATE | OS_TRUNCATE, &fd)))
		return err;
	if (!(err = os_pwrite_all(fd, str_of(bytes, sizeof(bytes)), 0)))
		err = os_fsync(fd);
	os_close(fd);
	if (!err)
		err = os_rename(dir, c->new_name, c->name);
	if (!err)
		err = os_fsync(dir);
	return err ? err : segment_sync_directory(dir);
}

static bool same(const struct identity *a, const struct identity *b)
{
	return memcmp(a->store, b->store, sizeof(a->store)) == 0 &&
	       memcmp(a->key, b->key, sizeof(a->key)) == 0;
}

/* The id of the store that wrote the newest segment that says so. ERR_NOT_FOUND: there are no
 * segments; ERR_DAMAGED: none can say. */
static enum err segments_owner(int dir, uint8_t store[STORE_ID_SIZE])
{
	struct arena *a = arena_new(64 * 1024 * 1024);
	char name[SEGMENT_NAME_SIZE], bytes[SEGMENT_HEADER_SIZE];
	struct segment_header h;
	uint32_t *numbers;
	size_t count = 0;
	enum err err = a ? segment_list(dir, a, &numbers, &count) : ERR_NO_MEMORY;

	if (!err)
		err = count ? ERR_DAMAGED : ERR_NOT_FOUND;
	while (err == ERR_DAMAGED && count-- > 0) {
		int fd;

		segment_name(name, numbers[count]);
		if (os_open(dir, name, OS_READ, &fd))
			continue;
		if (!os_pread_all(fd, bytes, sizeof(bytes), 0) &&
		    segment_header_get(str_of(bytes, sizeof(bytes)), &h) == ERR_OK) {
			memcpy(store, h.store, STORE_ID_SIZE);
			err = ERR_OK;
		}
		os_close(fd);
	}
	arena_free(a);
	return err;
}

static bool owns(const struct identity *id, const uint8_t store[STORE_ID_SIZE])
{
	return memcmp(id->store, store, STORE_ID_SIZE) == 0;
}

/* Which of the copies is right, once it is known whose the segments are. */
static const struct identity *choose(struct copy *copies, size_t n, enum err owner,
				     const uint8_t store[STORE_ID_SIZE])
{
	for (size_t i = 0; i < n; i++)
		if (copies[i].state == ERR_OK && (owner || owns(&copies[i].id, store)))
			return &copies[i].id;
	return NULL;
}

static enum err create(int dir, struct copy *copies, size_t n, struct identity *out)
{
	enum err err = ERR_OK;

	os_random(out->store, sizeof(out->store));
	os_random(out->key, sizeof(out->key));
	/* The first file last: where it is, the other one is. */
	while (n-- > 0 && !err)
		err = copy_write(dir, &copies[n], out);
	return err;
}

/* Copies that are not the right one are made again. That this failed is said, and no reason to
 * stand still. */
static void repair(int dir, struct copy *copies, size_t n, const struct identity *id,
		   const struct log *log)
{
	for (size_t i = 0; i < n; i++) {
		struct copy *c = &copies[i];
		enum err err;

		if (c->state == ERR_OK && same(&c->id, id))
			continue;
		err = copy_write(dir, c, id);
		if (log)
			log_error(log, "store-identity-damaged", "file=%s what=%s action=%s",
				  c->name, c->state ? err_name(c->state) : "another-store",
				  err ? err_name(err) : "restored");
	}
}

enum err kv_identity_prepare(int dir, const char *path, const struct log *log, struct identity *out)
{
	enum { FILES = 2, COPIES = 3 };
	struct copy copies[COPIES] = { { .name = IDENTITY_FILE, .new_name = "identity.new" },
				       { .name = IDENTITY_COPY, .new_name = "log/identity.new" },
				       { .name = "index/data.mdb" } };
	uint8_t store[STORE_ID_SIZE];
	enum err owner = segments_owner(dir, store);
	const struct identity *id;
	bool is_new = true;

	if (owner && owner != ERR_NOT_FOUND && owner != ERR_DAMAGED)
		return owner;
	for (size_t i = 0; i < FILES; i++) {
		copies[i].state = copy_read(dir, copies[i].name, &copies[i].id);
		is_new = is_new && copies[i].state == ERR_NOT_FOUND;
		if (copies[i].state == ERR_UNSUPPORTED)
			return ERR_UNSUPPORTED;
	}
	if (is_new && owner == ERR_NOT_FOUND)
		return create(dir, copies, FILES, out);
	copies[FILES].state = ERR_NOT_FOUND;
	if (!choose(copies, FILES, owner, store))
		copies[FILES].state = index_identity(path, &copies[FILES].id);
	id = choose(copies, COPIES, owner, store);
	if (!id) {
		/* A store that never had a segment has lost nothing with its key. */
		if (owner == ERR_NOT_FOUND)
			return create(dir, copies, FILES, out);
		if (log)
			log_error(log, "store-identity-lost",
				  "file=%s what=%s copy=%s copy_what=%s", IDENTITY_FILE,
				  err_name(copies[0].state), IDENTITY_COPY,
				  err_name(copies[1].state));
		return ERR_DAMAGED;
	}
	repair(dir, copies, FILES, id, log);
	*out = *id;
	return ERR_OK;
}

enum err kv_identity_survey(int dir, str from_index, enum err states[IDENTITY_COPIES],
			    struct identity *out)
{
	struct copy copies[IDENTITY_COPIES] = { { .name = IDENTITY_FILE }, { .name = IDENTITY_COPY } };
	uint8_t store[STORE_ID_SIZE];
	enum err owner = segments_owner(dir, store);
	const struct identity *id;
	bool is_new = owner == ERR_NOT_FOUND;

	if (owner && owner != ERR_NOT_FOUND && owner != ERR_DAMAGED)
		return owner;
	for (size_t i = 0; i < IDENTITY_COPIES; i++) {
		if (copies[i].name)
			copies[i].state = copy_read(dir, copies[i].name, &copies[i].id);
		else
			copies[i].state = from_index.n ? identity_get(from_index, &copies[i].id)
						       : ERR_NOT_FOUND;
		is_new = is_new && copies[i].state == ERR_NOT_FOUND;
		if (copies[i].state == ERR_UNSUPPORTED)
			return ERR_UNSUPPORTED;
	}
	id = choose(copies, IDENTITY_COPIES, owner, store);
	for (size_t i = 0; i < IDENTITY_COPIES; i++)
		states[i] = !copies[i].state && id && !same(&copies[i].id, id) ? ERR_CONFLICT
									       : copies[i].state;
	if (!id)
		return is_new ? ERR_NOT_FOUND : ERR_DAMAGED;
	*out = *id;
	return ERR_OK;
}

enum err kv_identity_restore(int dir, const struct identity *id)
{
	struct copy copies[] = { { .name = IDENTITY_FILE, .new_name = "identity.new" },
				 { .name = IDENTITY_COPY, .new_name = "log/identity.new" } };
	enum err err = copy_write(dir, &copies[1], id);

	return err ? err : copy_write(dir, &copies[0], id);
}

enum err kv_identity(int dir, struct identity *out)
{
	enum err err = copy_read(dir, IDENTITY_FILE, out);

	return err == ERR_NOT_FOUND || err == ERR_DAMAGED ? copy_read(dir, IDENTITY_COPY, out)
							  : err;
}
