/* Doubly linked lists whose links live in what they join; a ring with a head that is in nothing. */
#ifndef QUEUE_LIST_H
#define QUEUE_LIST_H

#include "base/str.h"

struct link {
	struct link *prev, *next; /* both NULL: in no list */
};

static inline void list_init(struct link *head)
{
	head->prev = head->next = head;
}

static inline bool list_is_empty(const struct link *head)
{
	return head->next == head;
}

static inline bool link_is_in(const struct link *l)
{
	return l->next != NULL;
}

static inline void list_append(struct link *head, struct link *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}

/* Nothing when it is in no list. */
static inline void link_remove(struct link *l)
{
	if (!l->next)
		return;
	l->prev->next = l->next;
	l->next->prev = l->prev;
	l->prev = l->next = NULL;
}

#define LIST_FIRST(head, type, member) CONTAINER_OF((head)->next, type, member)

#endif
