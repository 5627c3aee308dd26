/*
 * proc_consumer_group.c
 *		A consumer's positions, shown to lag tools: one client for each server and user mapping that
 *		names a group.
 *
 * What is shown is never read back, so nothing here may stand in the way of reading: whatever goes
 * wrong is told once, counted and tried again, at last every minute.
 */
#include "postgres.h"

#include "proc_consumer.h"

#include "kafka_group.h"
#include "proc.h"
#include "registry.h"

#include "utils/memutils.h"

/* Positions that have changed are shown after that. */
#define INTERVAL SECONDS(5)
/* ... and all of them after that: what is not repeated expires, and others may have removed it. */
#define REPEAT SECONDS(30)
#define MAX_RETRY SECONDS(60)
/* What may pass is told when it has not: brokers that are away are the tables' own to report anyway. */
#define TELL_PASSING SECONDS(60)
/* However often it comes and goes. */
#define TELL_AGAIN SECONDS(600)

typedef struct GroupTopic
{
	char *name;
	int n;
	int capacity;
	bool wanted;     /* some table has it, as of the last look */
	int64 *next;     /* positions by then, of the table that is farthest behind */
	int64 *asked;    /* in the commit that is under way; -1: not in it */
	int64 *accepted; /* what the brokers have taken; -1: not known */
} GroupTopic;

typedef struct Group
{
	uint64 fingerprint; /* of its client: server and user mapping */
	char *id;
	bool wanted;
	KcfKafkaGroup *kafka; /* NULL: to be made */
	List *topics;         /* of GroupTopic */
	bool under_way;
	KcfMoment due;
	KcfMoment repeat_due;
	int64 retry; /* back-off, while it does not work */

	KcfKafkaFault fault;
	KcfMoment failing_since; /* 0: it works */
	KcfMoment told_at;       /* that it does not */
	bool told;               /* ... and nobody was told that it does again */
} Group;

static List *groups = NIL; /* TopMemoryContext, as all that they hold */

/* ---- which there are ----------------------------------------------------------------------- */

static bool
belongs_to(const KcfConsumerTable *table, const Group *group)
{
	return table->def && table->server && table->def->client_fingerprint == group->fingerprint;
}

static void
free_topic(GroupTopic *topic)
{
	if (topic->capacity > 0)
	{
		pfree(topic->next);
		pfree(topic->asked);
		pfree(topic->accepted);
	}
	pfree(topic->name);
	pfree(topic);
}

static void
free_group(Group *group)
{
	ListCell *lc;

	if (group->kafka)
		kcf_kafka_group_end(group->kafka);
	foreach (lc, group->topics)
		free_topic(lfirst(lc));
	list_free(group->topics);
	pfree(group->id);
	pfree(group);
}

static Group *
find_group(uint64 fingerprint)
{
	ListCell *lc;

	foreach (lc, groups)
		if (((Group *) lfirst(lc))->fingerprint == fingerprint)
			return lfirst(lc);
	return NULL;
}

void
kcf_consumer_define_groups(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ListCell *lc;

	foreach (lc, groups)
		((Group *) lfirst(lc))->wanted = false;
	foreach (lc, kcf_consumer.tables)
	{
		KcfConsumerTable *table = lfirst(lc);
		const char *id = table->def && table->server ? kcf_kafka_group_id(table->server) : NULL;
		Group *group;

		if (id == NULL)
			continue;
		group = find_group(table->def->client_fingerprint);
		if (group == NULL)
		{
			group = palloc0(sizeof(Group));
			group->fingerprint = table->def->client_fingerprint;
			group->id = pstrdup(id);
			groups = lappend(groups, group);
		}
		group->wanted = true;
	}
	foreach (lc, groups)
	{
		Group *group = lfirst(lc);

		if (!group->wanted)
		{
			groups = foreach_delete_current(groups, lc);
			free_group(group);
		}
	}
	MemoryContextSwitchTo(old);
}

const char *
kcf_consumer_group_trouble(void)
{
	ListCell *lc;

	foreach (lc, groups)
	{
		const Group *group = lfirst(lc);

		if (group->failing_since != 0)
			return group->fault.text;
	}
	return NULL;
}

/* ---- what is shown ------------------------------------------------------------------------- */

static GroupTopic *
get_topic(Group *group, const char *name)
{
	GroupTopic *topic;
	ListCell *lc;

	foreach (lc, group->topics)
	{
		topic = lfirst(lc);
		if (strcmp(topic->name, name) == 0)
			return topic;
	}
	topic = palloc0(sizeof(GroupTopic));
	topic->name = pstrdup(name);
	group->topics = lappend(group->topics, topic);
	return topic;
}

static void
grow_topic(GroupTopic *topic, int n)
{
	if (n > topic->capacity)
	{
		int capacity = Max(n, topic->capacity * 2);
		Size size = sizeof(int64) * capacity;

		topic->next = topic->next ? repalloc(topic->next, size) : palloc(size);
		topic->asked = topic->asked ? repalloc(topic->asked, size) : palloc(size);
		topic->accepted = topic->accepted ? repalloc(topic->accepted, size) : palloc(size);
		topic->capacity = capacity;
	}
	for (int i = topic->n; i < n; i++)
		topic->next[i] = topic->asked[i] = topic->accepted[i] = -1;
	topic->n = Max(topic->n, n);
}

/* As kafka_cache.partitions has them. We are who writes them, so there is nothing to lock. */
static void
look_at_table(Group *group, KcfTable *shared)
{
	const KcfPartitions *shown = kcf_table_is_served(shared) ? &shared->followed : &shared->load;
	GroupTopic *topic = get_topic(group, shared->topic);

	topic->wanted = true;
	grow_topic(topic, shown->n);
	for (int i = 0; i < shown->n; i++)
	{
		int64 next = (int64) pg_atomic_read_u64(&shown->array[i].next);

		if (topic->next[i] < 0 || next < topic->next[i])
			topic->next[i] = next;
	}
}

/* false: none of its tables has a partition yet. */
static bool
look(Group *group)
{
	bool any = false;
	ListCell *lc;

	foreach (lc, group->topics)
	{
		GroupTopic *topic = lfirst(lc);

		topic->wanted = false;
		for (int i = 0; i < topic->n; i++)
			topic->next[i] = -1;
	}
	foreach (lc, kcf_consumer.tables)
	{
		KcfConsumerTable *table = lfirst(lc);

		if (belongs_to(table, group))
			look_at_table(group, table->shared);
	}
	foreach (lc, group->topics)
	{
		GroupTopic *topic = lfirst(lc);

		if (!topic->wanted)
		{
			group->topics = foreach_delete_current(group->topics, lc);
			free_topic(topic);
		}
		else
			any |= topic->n > 0;
	}
	return any;
}

/* true: there is something that the brokers do not have, or all of it is to be repeated. */
static bool
choose(Group *group, bool all)
{
	bool any = false;
	ListCell *lc;

	foreach (lc, group->topics)
	{
		GroupTopic *topic = lfirst(lc);

		for (int i = 0; i < topic->n; i++)
		{
			bool now = topic->next[i] >= 0 && (all || topic->next[i] != topic->accepted[i]);

			topic->asked[i] = now ? topic->next[i] : -1;
			any |= now;
		}
	}
	return any;
}

/* ---- commits ------------------------------------------------------------------------------- */

static void
tell_failure(Group *group, KcfMoment now)
{
	bool stays = group->fault.error == KCF_KAFKA_AUTH || group->fault.error == KCF_KAFKA_CONFIG;

	if (group->told || (!stays && now - group->failing_since < TELL_PASSING) ||
		(group->told_at != 0 && now - group->told_at < TELL_AGAIN))
		return;
	group->told = true;
	group->told_at = now;
	ereport(LOG,
			(errmsg("positions cannot be shown under consumer group \"%s\": %s", group->id,
					group->fault.text),
			 errdetail("Reading does not depend on it; it is tried again all the time."),
			 group->fault.error == KCF_KAFKA_AUTH
				 ? errhint("The group needs the rights to describe and to read it, and to read "
						   "the topics; without the server's option group_id nothing is shown.")
				 : 0));
}

static void
set_failing(Group *group, const KcfKafkaFault *fault, KcfMoment now)
{
	bool first = group->failing_since == 0;

	group->fault = *fault;
	if (first)
		group->failing_since = now;
	tell_failure(group, now);
	if (first)
		kcf_consumer_say();
}

static void
set_working(Group *group)
{
	if (group->failing_since == 0)
		return;
	group->failing_since = 0;
	if (group->told)
		ereport(LOG, (errmsg("positions are shown under consumer group \"%s\" again", group->id)));
	group->told = false;
	kcf_consumer_say();
}

static void
back_off(Group *group, KcfMoment now)
{
	group->retry = group->retry == 0 ? INTERVAL : Min(group->retry * 2, MAX_RETRY);
	group->due = now + group->retry;
	group->repeat_due = 0;
}

/* Do the clients of its tables reach the brokers? */
static bool
tables_are_well(const Group *group)
{
	ListCell *lc;

	foreach (lc, kcf_consumer.tables)
	{
		KcfConsumerTable *table = lfirst(lc);

		if (belongs_to(table, group) &&
			pg_atomic_read_u32(&table->shared->state) == KCF_TABLE_READY)
			return true;
	}
	return false;
}

/* How the commit did, for each table that had a part in it; its topics remember what was taken. */
static void
count(Group *group)
{
	ListCell *lc;

	foreach (lc, group->topics)
	{
		GroupTopic *topic = lfirst(lc);
		bool any = false;
		bool failed = false;
		ListCell *lt;

		for (int i = 0; i < topic->n; i++)
		{
			bool refused;

			if (topic->asked[i] < 0)
				continue;
			refused = group->kafka == NULL || kcf_kafka_group_failed(group->kafka, topic->name, i);
			/* What was refused for itself is repeated with all the others. */
			topic->accepted[i] = topic->asked[i];
			any = true;
			failed |= refused;
		}
		if (!any)
			continue;
		foreach (lt, kcf_consumer.tables)
		{
			KcfConsumerTable *table = lfirst(lt);

			if (!belongs_to(table, group) || strcmp(table->shared->topic, topic->name) != 0)
				continue;
			pg_atomic_fetch_add_u64(
				failed ? &table->shared->group_failures : &table->shared->group_commits, 1);
		}
	}
}

static void
answered(Group *group, KcfMoment now)
{
	const KcfKafkaFault *fault = kcf_kafka_group_fault(group->kafka);
	bool nothing = fault->error != KCF_KAFKA_OK && kcf_kafka_group_taken(group->kafka) == 0;

	group->under_way = false;
	count(group);
	if (fault->error == KCF_KAFKA_OK)
		set_working(group);
	else
		set_failing(group, fault, now);
	if (!nothing)
	{
		group->retry = 0;
		return;
	}
	back_off(group, now);
	/*
	 * The library goes on asking who was the coordinator once. Where no broker can be reached a new
	 * client would not find another one.
	 */
	if (fault->error != KCF_KAFKA_AUTH &&
		(fault->error != KCF_KAFKA_UNREACHABLE || tables_are_well(group)))
	{
		kcf_kafka_group_end(group->kafka);
		group->kafka = NULL;
	}
}

static bool
connect_group(Group *group, KcfMoment now)
{
	KcfKafkaFault fault = { 0 };
	ListCell *lc;

	foreach (lc, kcf_consumer.tables)
	{
		KcfConsumerTable *table = lfirst(lc);

		if (group->kafka == NULL && belongs_to(table, group))
		{
			group->kafka = kcf_kafka_group_create(table->server, kcf_proc_eventfd(), &fault);
			break;
		}
	}
	if (group->kafka == NULL)
	{
		count(group);
		set_failing(group, &fault, now);
		back_off(group, now);
	}
	return group->kafka != NULL;
}

static void
commit(Group *group, KcfMoment now)
{
	bool all = now >= group->repeat_due;
	ListCell *lc;

	group->due = now + INTERVAL;
	if (!look(group) || !choose(group, all) || (group->kafka == NULL && !connect_group(group, now)))
		return;
	foreach (lc, group->topics)
	{
		const GroupTopic *topic = lfirst(lc);

		for (int i = 0; i < topic->n; i++)
			if (topic->asked[i] >= 0)
				kcf_kafka_group_add(group->kafka, topic->name, i, topic->asked[i]);
	}
	kcf_kafka_group_commit(group->kafka);
	group->under_way = true;
	if (all)
		group->repeat_due = now + REPEAT;
}

void
kcf_consumer_tend_groups(KcfMoment now)
{
	MemoryContext old = CurrentMemoryContext;
	ListCell *lc;

	foreach (lc, groups)
	{
		Group *group = lfirst(lc);

		MemoryContextSwitchTo(TopMemoryContext);
		if (group->kafka && kcf_kafka_group_serve(group->kafka))
			answered(group, now);
		if (!group->under_way && now >= group->due)
			commit(group, now);
	}
	MemoryContextSwitchTo(old);
}
