/*
 * store_compare.c
 *		What differs between two states of a store.
 *
 * Whatever becomes of a key makes a version that is born then: a tombstone too, and another partition's record that
 * comes back to light. So what differs are the rows born after the earlier state which the later one sees, and each
 * leads to the version that the earlier one saw (store_write.c says why that is still there). Slabs in which nothing was
 * born since are passed over, so a few changes of a large table are found at once.
 */
#include "postgres.h"

#include "store_internal.h"

/* The row that a state sees of a key, when it does not see this younger version. */
static const KcfRow *
row_before(const KcfRow *row, KcfSeq seq)
{
	while (row != NULL && kcf_row_birth(row) > seq)
		row = kcf_row_prev(row);
	if (row == NULL || !kcf_row_visible(row, seq) || (kcf_row_flags(row) & KCF_ROW_TOMBSTONE))
		return NULL;
	return row;
}

static inline bool
same_record(const KcfRow *a, const KcfRow *b)
{
	return a->partition == b->partition && a->offset == b->offset;
}

void
kcf_store_compare(const KcfStore *store, KcfSeq before, KcfSeq after, KcfDifference receiver,
				  void *arg)
{
	KcfStoreScan scan;

	kcf_store_scan_begin(&scan, store, after);
	for (uint32 slab = 0; kcf_store_scan_slab(&scan, slab); slab++)
	{
		if (scan.pos == NULL || ((KcfSlab *) (scan.pos - KCF_SLAB_HEADER))->youngest <= before)
			continue;
		for (char *pos = scan.pos; pos < scan.end;)
		{
			const KcfRow *row = (const KcfRow *) pos;
			const KcfRow *old;

			pos += kcf_row_size(row);
			if (kcf_row_birth(row) <= before || !kcf_row_visible(row, after))
				continue;
			old = row_before(kcf_row_prev(row), before);
			if (kcf_row_flags(row) & KCF_ROW_TOMBSTONE)
				row = NULL;
			/* A row may only have been moved. */
			if (row != old && (row == NULL || old == NULL || !same_record(row, old)))
				receiver(arg, old, row);
		}
	}
}
