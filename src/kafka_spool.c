/*
 * kafka_spool.c
 *		A queue of variable-sized pieces in large chunks of memory.
 */
#include "postgres.h"

#include "kafka_spool.h"
#include "lib/ilist.h"
#include "utils/memutils.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#define CHUNK_SIZE ((Size) 1024 * 1024)
/* A spool that held more than this has used the allocator enough to tidy that up too. */
#define MUCH ((Size) 16 * 1024 * 1024)
/* Empty chunks kept for reuse: their memory is warm, and mapping it anew costs more than copying
 * into it. */
#define MAX_SPARE 64

typedef struct Chunk
{
	slist_node link;
	Size size; /* of data */
	Size used;
	Size done; /* consumed from the front */
	char data[FLEXIBLE_ARRAY_MEMBER];
} Chunk;

struct KcfSpool
{
	MemoryContext mcxt;
	Size bytes;
	Size most;    /* bytes held at once since it was last trimmed */
	Chunk *first; /* being consumed */
	Chunk *last;  /* being filled */
	slist_head spare;
	int nspare;
};

KcfSpool *
kcf_spool_create(MemoryContext parent)
{
	MemoryContext mcxt = AllocSetContextCreate(parent, "kafka_cache spool", ALLOCSET_SMALL_SIZES);
	KcfSpool *spool = MemoryContextAllocZero(mcxt, sizeof(KcfSpool));

	spool->mcxt = mcxt;
	slist_init(&spool->spare);
	return spool;
}

void
kcf_spool_destroy(KcfSpool *spool)
{
	MemoryContextDelete(spool->mcxt);
}

static void
retire(KcfSpool *spool, Chunk *chunk)
{
	if (chunk->size == CHUNK_SIZE && spool->nspare < MAX_SPARE)
	{
		slist_push_head(&spool->spare, &chunk->link);
		spool->nspare++;
	}
	else
		pfree(chunk);
}

static void
drop_spare(KcfSpool *spool, int keep)
{
	while (spool->nspare > keep)
	{
		pfree(slist_container(Chunk, link, slist_pop_head_node(&spool->spare)));
		spool->nspare--;
	}
}

static Chunk *
next_chunk(const Chunk *chunk)
{
	return chunk->link.next ? slist_container(Chunk, link, chunk->link.next) : NULL;
}

void
kcf_spool_clear(KcfSpool *spool)
{
	while (spool->first)
	{
		Chunk *chunk = spool->first;

		spool->first = next_chunk(chunk);
		retire(spool, chunk);
	}
	spool->last = NULL;
	spool->bytes = 0;
	drop_spare(spool, 0);
}

void
kcf_spool_trim(KcfSpool *spool)
{
	if (spool->bytes > 0)
		return;
	kcf_spool_clear(spool);
#ifdef __GLIBC__
	/* What a load has gone through, the library's side included, is otherwise kept for good. */
	if (spool->most > MUCH)
		malloc_trim(0);
#endif
	spool->most = 0;
}

static Chunk *
add_chunk(KcfSpool *spool, Size need)
{
	Chunk *chunk;

	if (need <= CHUNK_SIZE && spool->nspare > 0)
	{
		chunk = slist_container(Chunk, link, slist_pop_head_node(&spool->spare));
		spool->nspare--;
	}
	else
	{
		Size size = Max(need, CHUNK_SIZE);

		chunk = MemoryContextAllocExtended(spool->mcxt, offsetof(Chunk, data) + size,
										   MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
		if (chunk == NULL)
			return NULL;
		chunk->size = size;
	}
	chunk->used = chunk->done = 0;
	chunk->link.next = NULL;
	if (spool->last)
		spool->last->link.next = &chunk->link;
	else
		spool->first = chunk;
	spool->last = chunk;
	return chunk;
}

KcfSpooled *
kcf_spool_add(KcfSpool *spool, Size extra)
{
	Size size = MAXALIGN(sizeof(KcfSpooled) + extra);
	Chunk *chunk = spool->last;
	KcfSpooled *spooled;

	if (size > PG_UINT32_MAX)
		return NULL;
	if (chunk == NULL || chunk->size - chunk->used < size)
	{
		chunk = add_chunk(spool, size);
		if (chunk == NULL)
			return NULL;
	}
	spooled = (KcfSpooled *) (chunk->data + chunk->used);
	memset(spooled, 0, sizeof(KcfSpooled));
	spooled->size = size;
	chunk->used += size;
	spool->bytes += size;
	spool->most = Max(spool->most, spool->bytes);
	return spooled;
}

Size
kcf_spool_bytes(const KcfSpool *spool)
{
	return spool->bytes;
}

int
kcf_spool_peek(KcfSpool *spool, KcfSpooled **out, int max, Size max_bytes)
{
	Chunk *chunk = spool->first;
	Size pos = chunk ? chunk->done : 0;
	Size bytes = 0;
	int n = 0;

	while (chunk && n < max)
	{
		KcfSpooled *spooled;

		if (pos == chunk->used)
		{
			chunk = next_chunk(chunk);
			pos = 0;
			continue;
		}
		spooled = (KcfSpooled *) (chunk->data + pos);
		bytes += spooled->size;
		if (n > 0 && bytes > max_bytes)
			break;
		out[n++] = spooled;
		pos += spooled->size;
	}
	return n;
}

void
kcf_spool_consume(KcfSpool *spool, int n)
{
	while (n > 0)
	{
		Chunk *chunk = spool->first;

		Assert(chunk != NULL);
		if (chunk->done < chunk->used)
		{
			Size size = ((KcfSpooled *) (chunk->data + chunk->done))->size;

			chunk->done += size;
			spool->bytes -= size;
			n--;
		}
		if (chunk->done == chunk->used && chunk != spool->last)
		{
			spool->first = next_chunk(chunk);
			retire(spool, chunk);
		}
	}

	/* Empty: start over in the one chunk left, and give back what a load has piled up. */
	if (spool->bytes == 0 && spool->last)
	{
		if (spool->last->size == CHUNK_SIZE)
			spool->last->used = spool->last->done = 0;
		else
			kcf_spool_clear(spool);
	}
}
