/*
 * snapshot.c
 *		One statement, one state of all cached tables: the backend's live cache snapshots and its pin.
 *
 * A state is a vector of sequences, one for each clock of the database. It is kept for a PostgreSQL snapshot,
 * which it holds registered so that the pointer is its identity. Scans hold references; the last one takes the
 * state with it, unless the PostgreSQL snapshot is used by an executor further out: then the state stays for
 * that statement's other calls (a STABLE function called for each row is to see the same each time).
 *
 * The backend has one pin, the minimum over its states. A writer in need may take it: at once while this backend
 * is outside of the executor (an idle cursor), else by dooming it, which is seen at the next row. Lost states
 * stay in the list, marked, until their references are gone: only who reads from them gets the error.
 *
 * Rows are read for longer than their scans are: they lie in the slots of nodes further up while functions run
 * or a cursor rests. So a plan whose state is lost does not go on, not even with its other nodes; and a state
 * that a running executor uses is held in the pin until that one has left, whoever is given the error before.
 */
#include "postgres.h"

#include "snapshot.h"

#include "snapshot_internal.h"
#include "snapshot_wait.h"

#include "guc.h"
#include "registry.h"
#include "written.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

typedef struct State
{
	dlist_node node;
	Snapshot key; /* registered; NULL: found by nobody, or by "fixed" */
	bool fixed;   /* of a transaction with one snapshot */
	volatile bool lost;
	bool held;    /* lost, and still pinned: an executor is running that has rows of it */
	bool lasting; /* outlives transactions */
	int nrefs;
	int database;   /* -1: nothing is pinned, there is nothing to read */
	uint64 written; /* kcf_written_now when it was taken */
	TimestampTz taken_at;
	KcfSeq seqs[KCF_MAX_CLOCKS];
	MemoryContext positions_cxt; /* NULL: not noted */
	List *positions;             /* of Position, for EXPLAIN */
} State;

typedef struct Position
{
	Oid relid;
	char *text;
} Position;

struct KcfSnapshot
{
	dlist_node node;
	State *state;
	const EState *estate; /* whose plan reads it; NULL: none */
	ResourceOwner owner;
};

static dlist_head states = DLIST_STATIC_INIT(states);
static dlist_head references = DLIST_STATIC_INIT(references);
static int nunused = 0; /* states that wait for an executor further out */

static bool any_held = false;
static int nlasting = 0;

/* ---- the pin ---- */

static inline bool
pinned(const State *state)
{
	return state->database >= 0 && !state->lost;
}

/* The pin follows the states that are left. What is only held does not make it older. */
static void
move_pin(void)
{
	KcfSeq least[KCF_MAX_CLOCKS];
	TimestampTz since = PG_INT64_MAX;
	bool any = false;
	dlist_iter iter;

	dlist_foreach(iter, &states)
	{
		State *state = dlist_container(State, node, iter.cur);

		if (!pinned(state) && !state->held)
			continue;
		for (int i = 0; i < KCF_MAX_CLOCKS; i++)
			least[i] = any ? Min(least[i], state->seqs[i]) : state->seqs[i];
		since = Min(since, state->held ? PG_INT64_MAX : state->taken_at);
		any = true;
	}
	if (any)
		kcf_pin_move(least, since);
	else
		kcf_pin_release();
}

/*
 * From here on the writer does not take the pin away behind our back. If it has already, all states are lost:
 * also the younger ones had no other protection. Nests.
 */
static void
hold_pin(void)
{
	dlist_iter iter;

	if (kcf_pin_enter())
		return;
	dlist_foreach(iter, &states) dlist_container(State, node, iter.cur)->lost = true;
}

/* Does an executor on the stack read it? Its slots may point to rows of this state. */
static bool
in_use(const State *state)
{
	return (state->fixed || state->key) && kcf_executor_uses(state->key);
}

void
kcf_states_executor_left(void)
{
	dlist_iter iter;

	if (!any_held)
		return;
	any_held = false;
	dlist_foreach(iter, &states)
	{
		State *state = dlist_container(State, node, iter.cur);

		state->held = state->held && in_use(state);
		any_held |= state->held;
	}
	move_pin();
}

/* A writer needs what the pin holds: give up the states that are too old, at least the oldest. */
static void
give_up_oldest(void)
{
	TimestampTz limit = GetCurrentTimestamp() - (TimestampTz) kcf_guc_max_pin_age * USECS_PER_SEC;
	TimestampTz oldest = PG_INT64_MAX;
	dlist_iter iter;

	dlist_foreach(iter, &states)
	{
		State *state = dlist_container(State, node, iter.cur);

		if (pinned(state))
			oldest = Min(oldest, state->taken_at);
	}
	limit = Max(limit, oldest);
	dlist_foreach(iter, &states)
	{
		State *state = dlist_container(State, node, iter.cur);

		if (pinned(state) && state->taken_at <= limit)
		{
			state->lost = true;
			state->held = in_use(state);
			any_held |= state->held;
		}
	}
	move_pin();
}

static void
report_lost(const State *state)
{
	long secs = (GetCurrentTimestamp() - state->taken_at) / USECS_PER_SEC;

	ereport(ERROR, (errcode(MAKE_SQLSTATE('7', '2', '0', '0', '0')), errmsg("snapshot too old"),
					errdetail("The snapshot of the cached tables was taken %ld seconds ago and "
							  "stood in the way of memory.",
							  secs),
					errhint("End statements, cursors and transactions sooner, or raise "
							"\"kafka_cache.max_pin_age\" or \"kafka_cache.memory\".")));
}

void
kcf_snapshot_lost(const KcfSnapshot *snapshot)
{
	if (kcf_pin_doomed())
		give_up_oldest();
	if (snapshot->state->lost)
		report_lost(snapshot->state);
}

const volatile bool *
kcf_snapshot_lost_flag(const KcfSnapshot *snapshot)
{
	return &snapshot->state->lost;
}

/* ---- states ---- */

static void
free_state(State *state)
{
	bool had_pin = pinned(state) || state->held;

	if (state->nrefs == 0 && state->key && !state->fixed)
		nunused--;
	if (state->lasting)
		nlasting--;
	dlist_delete(&state->node);
	if (state->key)
		UnregisterSnapshotFromOwner(state->key, TopTransactionResourceOwner);
	if (state->positions_cxt)
		MemoryContextDelete(state->positions_cxt);
	pfree(state);
	if (had_pin)
	{
		/* Outside of the executor the pin may be gone; then it must not come back. */
		hold_pin();
		move_pin();
		kcf_pin_leave();
	}
}

/* States that nobody refers to and whose statement has gone without an end, in a subtransaction that failed. */
static void
free_forgotten(void)
{
	dlist_mutable_iter iter;

	if (nunused == 0)
		return;
	dlist_foreach_modify(iter, &states)
	{
		State *state = dlist_container(State, node, iter.cur);

		if (state->nrefs == 0 && state->key && state->key->regd_count == 1 &&
			state->key->active_count == 0)
			free_state(state);
	}
}

static State *
find_state(Snapshot key, bool fixed)
{
	dlist_iter iter;

	dlist_foreach(iter, &states)
	{
		State *state = dlist_container(State, node, iter.cur);

		if (fixed ? state->fixed : (state->key == key && key != NULL))
			return state;
	}
	return NULL;
}

static State *
new_state(Snapshot key, bool fixed)
{
	State *state = MemoryContextAllocZero(TopMemoryContext, sizeof(State));

	state->fixed = fixed;
	state->database = -1;
	if (key && !fixed)
	{
		state->key = RegisterSnapshotOnOwner(key, TopTransactionResourceOwner);
		Assert(state->key == key);
		nunused++;
	}
	dlist_push_tail(&states, &state->node);
	return state;
}

/* Pin the present state of the database. */
static void
pin_state(State *state, int database)
{
	dlist_iter iter;

	hold_pin();
	if (kcf_pin_doomed())
		give_up_oldest();
	dlist_foreach(iter, &states)
	{
		State *other = dlist_container(State, node, iter.cur);

		/* The database had another place: nothing is left there to be read. */
		other->lost |= pinned(other) && other->database != database;
	}
	move_pin();
	state->taken_at = GetCurrentTimestamp();
	kcf_pin_set(database, state->seqs, state->taken_at);
	state->database = database;
	kcf_pin_leave();
}

/* Pin what the leader's statement sees. false: the leader shows nothing. */
static bool
pin_state_of_leader(State *state)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!kcf_pin_of_leader(state->seqs, now))
		return false;
	state->taken_at = now;
	state->database = kcf_my_database();
	return true;
}

static bool
note_position(Oid relid, void *arg)
{
	State *state = arg;
	Position *position = palloc(sizeof(Position));

	position->relid = relid;
	position->text = kcf_relation_position(relid);
	state->positions = lappend(state->positions, position);
	return true;
}

static bool
are_newest(const State *state)
{
	/* A consumer shows a position when it has published what belongs to it. */
	pg_memory_barrier();
	for (int i = 0; i < KCF_MAX_CLOCKS; i++)
	{
		if (kcf_clock_published(state->database, i) != state->seqs[i])
			return false;
	}
	return true;
}

/* The positions of the state's tables; false: they may be younger than the state. */
static bool
note_positions(State *state, const KcfScope *scope)
{
	MemoryContext old;

	state->positions_cxt =
		AllocSetContextCreate(TopMemoryContext, "kafka_cache positions", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(state->positions_cxt);
	(void) kcf_scope_visit(scope, note_position, state);
	MemoryContextSwitchTo(old);
	return are_newest(state);
}

const char *
kcf_snapshot_position(const KcfSnapshot *snapshot, Oid relid)
{
	ListCell *lc;

	foreach (lc, snapshot->state->positions)
	{
		Position *position = lfirst(lc);

		if (position->relid == relid)
			return position->text;
	}
	return NULL;
}

/* Is there no state that lacks anything? Of one that outlives transactions nobody asks for what was written. */
static bool
nothing_taken(void)
{
	dlist_iter iter;

	dlist_foreach(iter, &states)
	{
		if (!dlist_container(State, node, iter.cur)->lasting)
			return false;
	}
	return true;
}

/* Take the present state once all tables of the scope can be read, and see that they still can. */
static State *
take_state(const KcfScope *scope, Snapshot key, bool fixed)
{
	TimestampTz deadline = 0;
	State *state;

	free_forgotten();
	for (;;)
	{
		int database = kcf_scope_wait(scope, fixed || key, &deadline);

		/* Older states may lack it; where there are none, nobody does. */
		if (kcf_written_any && nothing_taken())
			kcf_written_forget();
		state = new_state(key, fixed);
		state->written = kcf_written_now;
		if (database < 0)
			return state;
		pin_state(state, database);
		if (kcf_scope_readable(scope, state->seqs) &&
			(scope->estate == NULL || scope->estate->es_instrument == 0 ||
			 note_positions(state, scope)))
			return state;
		/* Withdrawn between the look and the pin: wait on, in what is left of the time. */
		free_state(state);
	}
}

static KcfSnapshot *
refer(State *state, const EState *estate)
{
	KcfSnapshot *ref = MemoryContextAlloc(TopMemoryContext, sizeof(KcfSnapshot));

	if (state->nrefs++ == 0 && state->key)
		nunused--;
	ref->state = state;
	ref->estate = estate;
	ref->owner = CurrentResourceOwner;
	dlist_push_head(&references, &ref->node);
	return ref;
}

KcfSnapshot *
kcf_snapshot_acquire(EState *estate)
{
	return kcf_snapshot_acquire_for(estate, InvalidOid);
}

KcfSnapshot *
kcf_snapshot_acquire_for(EState *estate, Oid relid)
{
	KcfScope scope = { .estate = estate, .relid = relid };
	bool fixed = kcf_executor_uses_fixed();
	Snapshot key = estate->es_snapshot;
	State *state = find_state(key, fixed);

	if (state)
	{
		hold_pin();
		kcf_pin_leave();
		if (pinned(state) && state->database != kcf_my_database())
			state->lost = true;
		if (state->lost)
			report_lost(state);
		kcf_scope_check(&scope, state->seqs);
		if (unlikely(kcf_written_any))
			kcf_scope_check_written(&scope, state->written, fixed);
	}
	else if (IsParallelWorker() && (fixed || kcf_executor_is_leaders(key)))
	{
		state = new_state(key, fixed);
		if (!pin_state_of_leader(state))
		{
			free_state(state);
			state = take_state(&scope, key, fixed);
		}
	}
	else
		state = take_state(&scope, key, fixed);
	return refer(state, estate);
}

KcfSnapshot *
kcf_snapshot_acquire_relation(Oid relid)
{
	KcfScope scope = { .relid = relid };

	return refer(take_state(&scope, NULL, false), NULL);
}

/* An executor has registered the snapshot twice, for its query and its state; we have, once. */
#define REGISTERED_BY_ONE_EXECUTOR 2

KcfSnapshot *
kcf_snapshot_hold(void)
{
	int database = kcf_my_database();
	State *state;
	KcfSnapshot *ref;

	if (database < 0)
		return NULL;
	state = new_state(NULL, false);
	state->lasting = true;
	nlasting++;
	pin_state(state, database);
	ref = refer(state, NULL);
	ref->owner = NULL;
	return ref;
}

bool
kcf_snapshot_is_lost(const KcfSnapshot *snapshot)
{
	return snapshot->state->lost;
}

bool
kcf_snapshot_peek(const KcfSnapshot *snapshot, Oid relid, KcfView *view)
{
	return !snapshot->state->lost && kcf_relation_view(relid, snapshot->state->seqs, view) &&
		   view->store != NULL && !view->partial;
}

bool
kcf_snapshot_is_newest(const KcfSnapshot *snapshot)
{
	return are_newest(snapshot->state);
}

void
kcf_snapshot_renew(KcfSnapshot *snapshot)
{
	hold_pin();
	if (!snapshot->state->lost && are_newest(snapshot->state))
	{
		snapshot->state->taken_at = GetCurrentTimestamp();
		move_pin();
	}
	kcf_pin_leave();
}

void
kcf_snapshot_release(KcfSnapshot *snapshot)
{
	State *state = snapshot->state;

	dlist_delete(&snapshot->node);
	pfree(snapshot);
	if (--state->nrefs > 0)
		return;
	if (state->key)
	{
		nunused++;
		if (!state->lost && state->key->regd_count > REGISTERED_BY_ONE_EXECUTOR + 1)
			return;
	}
	else if (state->fixed)
		return;
	free_state(state);
}

void
kcf_snapshot_view(const KcfSnapshot *snapshot, Oid relid, KcfView *view)
{
	KcfScope scope = { .relid = relid };

	/* Another look may find what this one did not: only an error ends it without a view. */
	while (!kcf_relation_view(relid, snapshot->state->seqs, view))
	{
		CHECK_FOR_INTERRUPTS();
		kcf_scope_check(&scope, snapshot->state->seqs);
	}
}

/* ---- ends of transactions, subtransactions and portals ---- */

static void
free_all(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &references)
	{
		KcfSnapshot *ref = dlist_container(KcfSnapshot, node, iter.cur);

		if (ref->state->lasting)
			continue;
		ref->state->nrefs--;
		if (ref->state->nrefs == 0 && ref->state->key)
			nunused++;
		dlist_delete(iter.cur);
		pfree(ref);
	}
	dlist_foreach_modify(iter, &states)
	{
		State *state = dlist_container(State, node, iter.cur);

		if (!state->lasting)
			free_state(state);
	}
	Assert(nunused == 0);
}

static void
at_xact_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
			if (!dlist_is_empty(&states))
				free_all();
			break;
		default:
			break;
	}
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PARALLEL_ABORT)
	{
		kcf_pin_reset(nlasting > 0);
		kcf_executor_reset();
		any_held = false;
	}
}

/* What an owner still refers to when it is released was not ended properly: a portal of a failed subtransaction. */
static void
at_owner_release(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	dlist_mutable_iter iter;

	if (phase != RESOURCE_RELEASE_BEFORE_LOCKS || dlist_is_empty(&references))
		return;
	dlist_foreach_modify(iter, &references)
	{
		KcfSnapshot *ref = dlist_container(KcfSnapshot, node, iter.cur);

		if (ref->owner == CurrentResourceOwner)
			kcf_snapshot_release(ref);
	}
}

/* ---- for the executor hooks ---- */

KcfSnapshot *
kcf_states_show(const QueryDesc *query, bool take, bool *shown)
{
	static const KcfSeq nothing[KCF_MAX_CLOCKS] = { 0 };
	bool fixed = kcf_executor_uses_fixed();
	State *state = find_state(query->estate->es_snapshot, fixed);
	KcfSnapshot *ref = NULL;

	if (state == NULL && take && kcf_my_database() >= 0)
	{
		KcfScope none = { .caller = query->plannedstmt };

		ref = refer(take_state(&none, query->estate->es_snapshot, fixed), NULL);
		state = ref->state;
	}
	/* It may have been taken away while the backend was idle. */
	kcf_states_hold();
	kcf_pin_leave();
	*shown = state && (pinned(state) || state->lost);
	if (*shown)
		kcf_pin_show(state->lost ? nothing : state->seqs);
	return ref;
}

void
kcf_states_check_resumed(const EState *estate)
{
	dlist_iter iter;

	dlist_foreach(iter, &references)
	{
		KcfSnapshot *ref = dlist_container(KcfSnapshot, node, iter.cur);

		if (ref->estate == estate && ref->state->lost)
			report_lost(ref->state);
	}
}

void
kcf_states_hold(void)
{
	hold_pin();
}

void
kcf_states_executor_ended(Snapshot key)
{
	State *state;

	if (nunused == 0 || key == NULL)
		return;
	state = find_state(key, false);
	/* Ours and the query's own */
	if (state && state->nrefs == 0 && key->regd_count <= 2)
		free_state(state);
	free_forgotten();
}

void
kcf_snapshot_init(void)
{
	RegisterXactCallback(at_xact_end, NULL);
	RegisterResourceReleaseCallback(at_owner_release, NULL);
	kcf_executor_init();
}
