/*
 * kafka_stats.c
 *		Reads the library's statistics. The only file that knows jansson: the server exports a
 *		function json_object() of its own, so nothing here may build JSON, only take it apart.
 */
#include "postgres.h"

#include "kafka_stats.h"
#include "utils/memutils.h"

#include <jansson.h>

/* Nobody leaves statistics lying for longer (us). */
#define PATIENCE INT64CONST(60000000)

static int64
number(const json_t *object, const char *name, int64 otherwise)
{
	const json_t *value = json_object_get(object, name);

	return json_is_integer(value) ? (int64) json_integer_value(value) : otherwise;
}

/* Offsets that the library does not know are negative, each in its own way. */
static int64
offset_of(const json_t *object, const char *name)
{
	return Max(number(object, name, -1), -1);
}

/* Of the partition's broker: is the connection up, when did it last answer, how often was it asked? */
static void
read_leader(const json_t *brokers, KcfPartitionStats *partition)
{
	void *iter;

	partition->leader_idle = -1;
	for (iter = json_object_iter((json_t *) brokers); iter;
		 iter = json_object_iter_next((json_t *) brokers, iter))
	{
		const json_t *broker = json_object_iter_value(iter);
		const char *state;
		int64 idle;

		if (number(broker, "nodeid", -1) != partition->leader)
			continue;
		state = json_string_value(json_object_get(broker, "state"));
		idle = number(broker, "rxidle", -1);
		if (idle >= 0 && state && strcmp(state, "UP") == 0)
			partition->leader_idle = idle / 1000;
		partition->connection = number(broker, "disconnects", 0);
		partition->fetches = number(json_object_get(broker, "req"), "Fetch", 0);
		return;
	}
}

static bool
make_room(KcfKafkaStats *stats, int n)
{
	Size size = sizeof(KcfPartitionStats) * n;
	KcfPartitionStats *array;

	if (n <= stats->capacity)
		return true;
	array = MemoryContextAllocExtended(stats->mcxt, size, MCXT_ALLOC_NO_OOM);
	if (array == NULL)
		return false;
	if (stats->partitions)
		pfree(stats->partitions);
	stats->partitions = array;
	stats->capacity = n;
	return true;
}

static int
count_partitions(const json_t *partitions)
{
	int n = 0;
	void *iter;

	for (iter = json_object_iter((json_t *) partitions); iter;
		 iter = json_object_iter_next((json_t *) partitions, iter))
		n = Max(n, (int) number(json_object_iter_value(iter), "partition", -1) + 1);
	return n;
}

static void
read_partition(const json_t *object, const json_t *brokers, KcfPartitionStats *partition)
{
	const char *state = json_string_value(json_object_get(object, "fetch_state"));

	partition->next = offset_of(object, "next_offset");
	partition->low = offset_of(object, "lo_offset");
	partition->high = offset_of(object, "hi_offset");
	partition->stable = offset_of(object, "ls_offset");
	partition->queued = number(object, "fetchq_cnt", 0);
	partition->known = !json_is_true(json_object_get(object, "unknown"));
	partition->active = state && strcmp(state, "active") == 0;
	partition->leader = number(object, "broker", -1);
	read_leader(brokers, partition);
}

/* The library's clock is ours, the machine's; should it ever be another one, they are of now. */
static KcfMoment
taken_at(const json_t *root)
{
	KcfMoment now = kcf_moment_now();
	KcfMoment at = number(root, "ts", now);

	return at <= now && now - at < PATIENCE ? at : now;
}

bool
kcf_kafka_stats_read(KcfKafkaStats *stats, const char *json, Size len, const char *topic)
{
	json_t *root = json_loadb(json, len, 0, NULL);
	const json_t *brokers = json_object_get(root, "brokers");
	const json_t *partitions =
		json_object_get(json_object_get(json_object_get(root, "topics"), topic), "partitions");
	void *iter;
	int n;

	if (root == NULL)
		return false;
	n = count_partitions(partitions);
	if (!make_room(stats, n))
	{
		json_decref(root);
		return false;
	}
	if (n > 0)
		memset(stats->partitions, 0, sizeof(KcfPartitionStats) * n);
	stats->npartitions = n;
	stats->known = 0;
	for (iter = json_object_iter((json_t *) partitions); iter;
		 iter = json_object_iter_next((json_t *) partitions, iter))
	{
		const json_t *object = json_object_iter_value(iter);
		int64 id = number(object, "partition", -1);

		if (id < 0)
			continue;
		read_partition(object, brokers, &stats->partitions[id]);
		if (stats->partitions[id].known)
			stats->known++;
	}
	stats->brokers_up = 0;
	for (iter = json_object_iter((json_t *) brokers); iter;
		 iter = json_object_iter_next((json_t *) brokers, iter))
	{
		const char *state =
			json_string_value(json_object_get(json_object_iter_value(iter), "state"));

		if (state && strcmp(state, "UP") == 0)
			stats->brokers_up++;
	}
	stats->at = taken_at(root);
	json_decref(root);
	return true;
}

const char *
kcf_jansson_version(void)
{
	return jansson_version_str();
}
