/*
 * product_memo.c
 *		What a statement was told of keys that it missed: it is told the same again.
 *
 * What a miss has computed is not in the statement's state of the cache, so each look is a miss again. A transaction
 * with a fixed snapshot keeps what it was told to its end: reading twice gives the same. But what it was told of its own
 * changes is the statement's, since they may be rolled back to a savepoint.
 */
#include "postgres.h"

#include "product_internal.h"

#include "snapshot.h"

#include "access/htup_details.h"
#include "common/hashfn.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/memutils.h"

typedef struct Told
{
	uint64 id; /* of table and key */
	Oid relid;
	uint64 fingerprint;
	HeapTuple key; /* other columns are null */
	KcfAnswer answer;
	char status; /* of the hash table */
} Told;

#define SH_PREFIX told
#define SH_ELEMENT_TYPE Told
#define SH_KEY_TYPE uint64
#define SH_KEY id
#define SH_HASH_KEY(tb, key) ((uint32) (key) ^ (uint32) ((key) >> 32))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE

#include "lib/simplehash.h"

typedef struct Memo
{
	dlist_node node;
	const EState *estate; /* NULL: the transaction */
	MemoryContext mcxt;
	MemoryContextCallback gone;
	told_hash *told;
} Memo;

static dlist_head memos = DLIST_STATIC_INIT(memos);

static void
forget(void *arg)
{
	dlist_delete(&((Memo *) arg)->node);
}

static Memo *
memo_of(EState *estate, bool fixed)
{
	MemoryContext mcxt;
	MemoryContext old;
	Memo *memo;
	dlist_iter iter;

	dlist_foreach(iter, &memos)
	{
		memo = dlist_container(Memo, node, iter.cur);
		if (memo->estate == (fixed ? NULL : estate))
			return memo;
	}
	mcxt = AllocSetContextCreate(fixed ? TopTransactionContext : estate->es_query_cxt,
								 "kafka_cache computed rows", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(mcxt);
	memo = palloc0(sizeof(Memo));
	memo->estate = fixed ? NULL : estate;
	memo->mcxt = mcxt;
	memo->told = told_create(mcxt, 16, NULL);
	memo->gone.func = forget;
	memo->gone.arg = memo;
	dlist_push_head(&memos, &memo->node);
	MemoryContextRegisterResetCallback(mcxt, &memo->gone);
	MemoryContextSwitchTo(old);
	return memo;
}

static void
copy_answer(const KcfTableDef *def, const KcfAnswer *from, KcfAnswer *to)
{
	int natts = def->desc->natts;

	*to = *from;
	if (!from->found)
		return;
	to->values = palloc(natts * sizeof(Datum));
	to->isnull = palloc(natts * sizeof(bool));
	memcpy(to->isnull, from->isnull, natts * sizeof(bool));
	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(def->desc, i);

		to->values[i] = (Datum) 0;
		if (!from->isnull[i])
			to->values[i] = datumCopy(from->values[i], attr->attbyval, attr->attlen);
	}
}

static HeapTuple
key_tuple(const KcfTableDef *def, const Datum *key)
{
	Datum *values = palloc0(def->desc->natts * sizeof(Datum));
	bool *isnull = palloc(def->desc->natts * sizeof(bool));
	HeapTuple tuple;

	memset(isnull, true, def->desc->natts * sizeof(bool));
	for (int i = 0; i < def->key.nkeys; i++)
	{
		values[def->key.keys[i].attnum - 1] = key[i];
		isnull[def->key.keys[i].attnum - 1] = false;
	}
	tuple = heap_form_tuple(def->desc, values, isnull);
	pfree(values);
	pfree(isnull);
	return tuple;
}

static bool
is_of(const Told *told, const KcfTableDef *def, const Datum *key)
{
	return told->relid == def->relid && told->fingerprint == def->fingerprint &&
		   kcf_key_equals(&def->key, key, told->key->t_data);
}

/* Of a transaction, it may have become too old for a later statement. */
static bool
is_good(const Told *told, const KcfTableDef *def, TimestampTz since)
{
	return kcf_product_age_at(def->options, !told->answer.found, told->answer.timestamp,
							  kcf_product_millis(since)) != KCF_AGE_EXPIRED;
}

static Told *
find(const Memo *memo, const KcfTableDef *def, const Datum *key, uint64 id, TimestampTz since)
{
	Told *told = told_lookup(memo->told, id);

	return told && is_of(told, def, key) && (memo->estate || is_good(told, def, since)) ? told
																						: NULL;
}

void
kcf_product_answer(EState *estate, KcfTableDef *def, const Datum *key, uint64 hash,
				   TimestampTz since, KcfAnswer *answer)
{
	Memo *memo = memo_of(estate, kcf_executor_uses_fixed());
	uint64 id = hash_combine64(hash, def->relid);
	Told *told = find(memo, def, key, id, since);
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext work;
	bool found;

	if (told == NULL && memo->estate == NULL && !kcf_product_is_clean())
	{
		memo = memo_of(estate, false);
		told = find(memo, def, key, id, since);
	}
	if (told)
	{
		*answer = told->answer;
		answer->computed = false; /* not for this answer */
		return;
	}

	work = AllocSetContextCreate(caller, "kafka_cache miss", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(work);
	kcf_product_prime(def, key, since, answer);
	if (MemoryContextMemAllocated(memo->mcxt, true) < (Size) work_mem * 1024)
	{
		Told note = { .relid = def->relid, .fingerprint = def->fingerprint };

		/* The table last: an error before leaves it as it was. The function may have used it, too. */
		MemoryContextSwitchTo(memo->mcxt);
		note.key = key_tuple(def, key);
		copy_answer(def, answer, &note.answer);
		told = told_insert(memo->told, id, &found);
		told->relid = note.relid;
		told->fingerprint = note.fingerprint;
		told->key = note.key;
		told->answer = note.answer;
		*answer = note.answer;
	}
	else
	{
		KcfAnswer copy;

		MemoryContextSwitchTo(caller);
		copy_answer(def, answer, &copy);
		*answer = copy;
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(work);
}
