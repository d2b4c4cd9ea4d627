/* The log's files: segments, their names, the writer's place, reading frames back. */
#ifndef STORE_LOG_PRIV_H
#define STORE_LOG_PRIV_H

#include "base/log.h"
#include "base/os.h"
#include "store/format_priv.h"

enum {
#ifdef POSTHORN_SIM /* so that segments turn over */
	SEGMENT_SIZE = 256 * 1024,
#else
	SEGMENT_SIZE = 64 * 1024 * 1024,
#endif
	SEGMENT_SIZE_MIN = 256 * 1024, /* tests */
	SEGMENT_NAME_SIZE = 32,
	SEGMENTS_MAX = 1 << 20,
	SEGMENTS_FREE_MAX = 4, /* recycled ones kept for use */
	LOG_AHEAD = 64 * 1024, /* zeros behind a small frame */
	LOG_SMALL = 8 * 1024,
};

/* Both may be NULL. */
static inline void store_log(const struct log *log, enum log_level level, const char *event,
			     str detail)
{
	if (log)
		log_write(log, level, event, "%.*s", STR_ARGS(detail));
}

/* A segment that compaction emptied keeps its header, which says where the one before validly
 * ends, and nothing else. */
static inline bool segment_is_emptied(uint64_t file_size)
{
	return file_size == SEGMENT_HEADER_SIZE;
}

void segment_name(char name[SEGMENT_NAME_SIZE], uint32_t segment);
/* The numbers of the segments in the directory, ascending. */
MUST_USE enum err segment_list(int dir, struct arena *a, uint32_t **numbers, size_t *count);
/* "log", synced: for what was created, renamed or removed in it. */
MUST_USE enum err segment_sync_directory(int dir);

/* The place where the next frame goes. */
struct log_place {
	uint64_t position; /* 0: there is no segment yet */
	uint64_t number;   /* of the last frame before it */
	uint32_t chain;	   /* its CRC */
};

struct log_writer {
	int dir;
	int fd; /* -1: the next frame opens a segment */
	uint32_t segment_size;
	uint32_t recycled; /* segments waiting to be used again */
	bool has_reserve;
	bool names_unsynced; /* a file may have another name on the disk than here */
	uint32_t written;    /* below this offset the segment's blocks hold something */
	struct log_place place;
	uint64_t durable;
	const struct identity *identity;
	const struct log *log;
};

/* Goes on at `place` (in the segment that is there). */
MUST_USE enum err log_writer_open(struct log_writer *w, const struct log_place *place);
void log_writer_close(struct log_writer *w);
/* Makes room for a frame of `size` bytes, in the next segment if need be; that one is synced with
 * its directory when this returns. `may_use_reserve`: for what frees space. ERR_FULL, ERR_IO. */
MUST_USE enum err log_writer_room(struct log_writer *w, uint64_t size, bool may_use_reserve);
/* How many zeros to write behind a frame of `size` bytes: see segment.c. */
uint32_t log_writer_ahead(const struct log_writer *w, uint64_t size);
/* A frame and so many zeros are in the file. */
void log_writer_wrote(struct log_writer *w, uint64_t size, uint32_t ahead);
/* Nothing more is written into this segment: what lies behind `end` in it never happened. */
void log_writer_abandon(struct log_writer *w, const struct log_place *end);
/* Creates the reserve segment if it is not there. ERR_FULL when it cannot. */
MUST_USE enum err log_writer_make_reserve(struct log_writer *w);
/* Gives the oldest segment, which holds nothing alive, to later use, or back to the system. The
 * names in the directory are synced by log_writer_settle. */
MUST_USE enum err log_writer_recycle(struct log_writer *w, uint32_t segment, bool may_keep);
/* The same for one with older ones before it: its header stays. */
MUST_USE enum err log_writer_empty(struct log_writer *w, uint32_t segment);
/* Syncs the names that those two changed. Until it could, no file is used again. */
MUST_USE enum err log_writer_settle(struct log_writer *w);

/* Reading frames in order. */
struct log_reader;

struct log_frame {
	struct frame_header header;
	uint64_t end; /* position behind it */
	str records;  /* opened; until the next call */
};

struct log_damage {
	uint64_t from, to; /* positions */
};

/* `from`: its position is where to begin (0: the oldest segment). `limit`: everything below it is
 * known to be durable, and nothing beyond is read (UINT64_MAX: to the tail). */
MUST_USE enum err log_reader_new(int dir, const struct identity *id, const struct log *log,
				 const struct log_place *from, uint64_t limit,
				 struct log_reader **out);
void log_reader_free(struct log_reader *r);
/* ERR_EOF at the end of the log. */
MUST_USE enum err log_reader_next(struct log_reader *r, struct log_frame *f);
/* After ERR_EOF: where to go on writing. */
struct log_place log_reader_place(const struct log_reader *r);
bool log_reader_was_torn(const struct log_reader *r); /* something incomplete lay behind the end */
unsigned log_reader_damages(const struct log_reader *r);
uint64_t log_reader_bytes(const struct log_reader *r); /* size of all segments */

/* One frame, its header and records checked; the records stay sealed. `bound`: where the segment
 * ends. ERR_DAMAGED: there is none. */
MUST_USE enum err frame_load(int fd, uint64_t store, uint64_t position, uint32_t bound,
			     struct buf *records, struct frame_header *h);
/* The blobs of a frame that was loaded; `window`: room for 1 MB. ERR_DAMAGED. */
MUST_USE enum err frame_blobs_check(int fd, const struct frame_header *h, struct buf *window);

#endif
