/*
 * json_paths.c
 *		Compiles the paths of a table's columns into a tree of names.
 *
 * Everything lies in one piece of memory: the paths, the nodes, hash tables of nodes with many
 * children, and room to resolve an escaped name. Texts are those of the caller.
 */
#include "json_internal.h"

#include <string.h>

/* Up to so many children are compared one after the other. */
#define FEW_CHILDREN 4

#define ALIGN16(size) (((size) + 15) & ~(size_t) 15)

/* One name of a path. Returns what follows it, NULL: malformed. *array: it has [] behind it. */
static const char *
next_name(const char *p, size_t *len, bool *array)
{
	*len = strcspn(p, ".[]");
	if (*len == 0)
		return NULL;
	p += *len;
	*array = p[0] == '[' && p[1] == ']';
	if (*array)
		p += 2;
	if (*p == '.' && p[1] != '\0')
		return p + 1;
	return *p == '\0' ? p : NULL;
}

/* Number of names up to the first [], 0: malformed. */
static int
count_names(const KcfJsonPath *path)
{
	const char *p = path->text;
	bool in_tail = false;
	int before = 0;
	int all = 0;

	if (path->plain)
		return *p != '\0';
	do
	{
		size_t len;
		bool array;

		p = next_name(p, &len, &array);
		if (p == NULL || ++all > KCF_JSON_MAX_NAMES)
			return 0;
		before += !in_tail;
		in_tail |= array;
	} while (*p != '\0');
	return before;
}

/* Where the parts lie in the memory; the return value is its size. */
static size_t
layout(const KcfJsonPath *paths, int npaths, size_t *max_name, size_t *tables, size_t *scratch)
{
	size_t nnodes = 1;
	size_t size;

	*max_name = 0;
	for (int i = 0; i < npaths; i++)
	{
		int n = count_names(&paths[i]);
		size_t len = strlen(paths[i].text);

		if (n == 0 || len > UINT32_MAX / 8)
			return 0;
		nnodes += n;
		if (len > *max_name)
			*max_name = len;
	}
	if (nnodes > UINT16_MAX)
		return 0;
	size = ALIGN16(sizeof(KcfJsonPaths)) + nnodes * sizeof(KcfJsonNode);
	*tables = size;
	size += 4 * nnodes * sizeof(uint16_t);
	*scratch = size;
	/* malloc's alignment may be 8, the patterns want 16 */
	return size + 6 * *max_name + 16;
}

size_t
kcf_json_paths_size(const KcfJsonPath *paths, int npaths)
{
	size_t max_name;
	size_t tables;
	size_t scratch;

	return layout(paths, npaths, &max_name, &tables, &scratch);
}

static inline uint32_t
name_hash(const char *text, size_t len)
{
	uint32_t h = (uint32_t) len * 0x9e3779b1u;

	if (len > 0)
		h ^= ((uchar) text[0] * 0x85ebca6bu) ^ ((uchar) text[len - 1] * 0xc2b2ae35u) ^
			 ((uchar) text[len / 2] * 0x27d4eb2fu);
	return h ^ h >> 15;
}

int
kcf_json_find(const KcfJsonPaths *paths, const KcfJsonNode *node, const char *text, size_t len)
{
	const KcfJsonNode *nodes = paths->nodes;

	if (node->table_mask == 0)
	{
		for (int i = node->child; i != 0; i = nodes[i].sibling)
		{
			if (nodes[i].len == len && memcmp(nodes[i].text, text, len) == 0)
				return i;
		}
		return 0;
	}
	for (uint32_t h = name_hash(text, len);; h++)
	{
		int i = node->table[h & node->table_mask];

		if (i == 0 || (nodes[i].len == len && memcmp(nodes[i].text, text, len) == 0))
			return i;
	}
}

int
kcf_json_find_escaped(const KcfJsonPaths *paths, const KcfJsonNode *node, const char *text,
					  size_t len)
{
	if (len > 6 * paths->max_name)
		return 0;
	len = kcf_json_unescape(text, len, paths->scratch);
	return len == SIZE_MAX ? 0 : kcf_json_find(paths, node, paths->scratch, len);
}

static int
add_child(KcfJsonPaths *paths, int parent, const char *text, size_t len)
{
	KcfJsonNode *nodes = paths->nodes;
	int id = kcf_json_find(paths, &nodes[parent], text, len);
	KcfJsonNode *node;
	uint16_t *link = &nodes[parent].child;

	if (id != 0)
		return id;
	id = paths->nnodes++;
	node = &nodes[id];
	memset(node, 0, sizeof(*node));
	node->text = text;
	node->len = (uint32_t) len;
	node->slot = -1;
	node->raw = true;
	for (size_t i = 0; i < len; i++)
		node->raw &= (uchar) text[i] >= ' ' && text[i] != '"' && text[i] != '\\';
	if (node->raw && len + 2 <= sizeof(node->pattern))
	{
		node->pattern[0] = '"';
		memcpy(node->pattern + 1, text, len);
		node->pattern[len + 1] = '"';
		node->mask = (uint16_t) ((1u << (len + 2)) - 1);
	}
	/* in the order of the columns */
	while (*link != 0)
		link = &nodes[*link].sibling;
	*link = id;
	nodes[parent].nchildren++;
	return id;
}

/* Give slots to what is below a node, so that they lie together. Recursion is bounded by
 * KCF_JSON_MAX_NAMES. */
static void
number_slots(KcfJsonPaths *paths, int id)
{
	KcfJsonNode *node = &paths->nodes[id];

	node->first_slot = paths->nslots;
	for (int i = node->child; i != 0; i = paths->nodes[i].sibling)
	{
		if (paths->nodes[i].slot >= 0)
			paths->nodes[i].slot = paths->nslots++;
		number_slots(paths, i);
	}
	node->end_slot = paths->nslots;
}

KcfJsonPaths *
kcf_json_paths_init(void *memory, KcfJsonPath *paths, int npaths)
{
	KcfJsonPaths *compiled = (KcfJsonPaths *) ALIGN16((uintptr_t) memory);
	size_t tables_at;
	size_t scratch_at;
	size_t size = layout(paths, npaths, &compiled->max_name, &tables_at, &scratch_at);
	uint16_t *tables = (uint16_t *) ((char *) compiled + tables_at);

	if (size == 0)
		return NULL;
	compiled->nodes = (KcfJsonNode *) ((char *) compiled + ALIGN16(sizeof(KcfJsonPaths)));
	compiled->scratch = (char *) compiled + scratch_at;
	compiled->nslots = 0;
	compiled->nnodes = 1;
	memset(compiled->nodes, 0, sizeof(KcfJsonNode));
	compiled->nodes[0].slot = -1;

	for (int i = 0; i < npaths; i++)
	{
		const char *p = paths[i].text;
		int id = 0;

		paths[i].tail = NULL;
		if (paths[i].plain)
			id = add_child(compiled, 0, p, strlen(p));
		else
		{
			bool array = false;

			while (*p != '\0' && !array)
			{
				size_t len;
				const char *name = p;

				p = next_name(p, &len, &array);
				id = add_child(compiled, id, name, len);
			}
			if (array)
				paths[i].tail = p;
		}
		compiled->nodes[id].slot = 0;
		/* which node it is, until the slots have their numbers */
		paths[i].slot = id;
	}
	number_slots(compiled, 0);
	for (int i = 0; i < npaths; i++)
		paths[i].slot = compiled->nodes[paths[i].slot].slot;

	for (int id = 0; id < compiled->nnodes; id++)
	{
		KcfJsonNode *node = &compiled->nodes[id];
		uint32_t size = 8;

		/* before anything is learned, members are expected in the order of the columns */
		node->first = node->child;
		for (int i = node->child; i != 0; i = compiled->nodes[i].sibling)
			compiled->nodes[i].next =
				compiled->nodes[i].sibling != 0 ? compiled->nodes[i].sibling : node->child;

		if (node->nchildren <= FEW_CHILDREN)
			continue;
		while (size < 2u * node->nchildren)
			size *= 2;
		node->table = tables;
		node->table_mask = size - 1;
		memset(tables, 0, size * sizeof(uint16_t));
		tables += size;
		for (int i = node->child; i != 0; i = compiled->nodes[i].sibling)
		{
			uint32_t h = name_hash(compiled->nodes[i].text, compiled->nodes[i].len);

			while (node->table[h & node->table_mask] != 0)
				h++;
			node->table[h & node->table_mask] = i;
		}
	}
	return compiled;
}

int
kcf_json_paths_nslots(const KcfJsonPaths *paths)
{
	return paths->nslots;
}
