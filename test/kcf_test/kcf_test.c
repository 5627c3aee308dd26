/*
 * kcf_test.c
 *		The decoder and its inverse as SQL functions, for tests and measurements. Never installed.
 *
 * The module has its own copy of the extension's objects, bound to itself, so it needs the extension for its
 * catalog objects only.
 */
#include "postgres.h"

#include <time.h>

#include "rowmap.h"
#include "rowmap_write.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/typcache.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(kcf_test_row);
PG_FUNCTION_INFO_V1(kcf_test_fault);
PG_FUNCTION_INFO_V1(kcf_test_key);
PG_FUNCTION_INFO_V1(kcf_test_bench);
PG_FUNCTION_INFO_V1(kcf_test_write);
PG_FUNCTION_INFO_V1(kcf_test_rewrite);
PG_FUNCTION_INFO_V1(kcf_test_write_bench);

typedef struct Decoder
{
	Oid relid;
	uint64 changes;
	KcfTableDef *def;
	KcfRowmap *map;
} Decoder;

/* A few tables at a time; a change of any definition makes new ones. */
static Decoder *
decoder(Oid relid)
{
	static Decoder decoders[256];
	Decoder *d = &decoders[relid % lengthof(decoders)];

	if (d->map == NULL || d->relid != relid || d->changes != kcf_catalog_changes())
	{
		d->map = NULL;
		d->def = kcf_catalog_table(relid, TopMemoryContext);
		d->map = kcf_rowmap_create(d->def, d->def->mcxt);
		d->relid = relid;
		d->changes = kcf_catalog_changes();
	}
	return d;
}

static KcfSlice
slice(Datum datum)
{
	bytea *bytes = DatumGetByteaPP(datum);
	KcfSlice result = { VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes) };
	char *copy;

	/* exactly as long as it is, so that valgrind or a sanitizer would see a read beyond it */
	copy = palloc(result.len == 0 ? 1 : result.len);
	memcpy(copy, result.data, result.len);
	result.data = copy;
	return result;
}

/* The record from arguments: key, value, partition, offset, time, headers (names and values in turn). */
static KcfRecord
record_arg(FunctionCallInfo fcinfo)
{
	KcfRecord rec = { 0 };

	if (!PG_ARGISNULL(1))
		rec.key = slice(PG_GETARG_DATUM(1));
	rec.value = slice(PG_GETARG_DATUM(2));
	rec.partition = PG_GETARG_INT32(3);
	rec.offset = PG_GETARG_INT64(4);
	rec.timestamp = PG_GETARG_INT64(5);
	if (!PG_ARGISNULL(6))
	{
		Datum *elems;
		bool *nulls;
		int n;
		KcfHeader *headers;

		deconstruct_array(PG_GETARG_ARRAYTYPE_P(6), BYTEAOID, -1, false, TYPALIGN_INT, &elems,
						  &nulls, &n);
		headers = palloc0(sizeof(KcfHeader) * (n / 2 + 1));
		for (int i = 0; i + 1 < n; i += 2)
		{
			headers[i / 2].name = slice(elems[i]);
			if (!nulls[i + 1])
				headers[i / 2].value = slice(elems[i + 1]);
		}
		rec.headers = headers;
		rec.nheaders = n / 2;
	}
	return rec;
}

/* Key and row; an error of the server's functions is classified, in a subtransaction of its own. */
static KcfReason
decode(Decoder *d, const KcfRecord *rec, KcfDecodedKey *key, Datum *values, bool *isnull,
	   KcfFault *fault)
{
	MemoryContext mcxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile KcfReason reason = KCF_OK;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(mcxt);
	PG_TRY();
	{
		reason = kcf_rowmap_key(d->map, rec, key, fault);
		if (reason == KCF_OK)
			reason = kcf_rowmap_row(d->map, rec, key, values, isnull, fault);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(mcxt);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData *edata;

		MemoryContextSwitchTo(mcxt);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(mcxt);
		CurrentResourceOwner = owner;
		if (!kcf_rowmap_classify(d->map, edata, fault))
			ReThrowError(edata);
		reason = fault->reason;
	}
	PG_END_TRY();
	return reason;
}

/* kcf_test_row(NULL::users, key, value, ...) RETURNS users: NULL when it is a bad record. */
Datum
kcf_test_row(PG_FUNCTION_ARGS)
{
	Oid typid = get_fn_expr_argtype(fcinfo->flinfo, 0);
	Decoder *d = decoder(get_typ_typrelid(typid));
	KcfRecord rec = record_arg(fcinfo);
	KcfDecodedKey key;
	KcfFault fault;
	Datum *values = palloc(sizeof(Datum) * d->def->desc->natts);
	bool *isnull = palloc(sizeof(bool) * d->def->desc->natts);
	TupleDesc desc;
	HeapTuple tuple;

	if (decode(d, &rec, &key, values, isnull, &fault) != KCF_OK)
		PG_RETURN_NULL();
	desc = lookup_rowtype_tupdesc(typid, -1);
	tuple = heap_form_tuple(desc, values, isnull);
	ReleaseTupleDesc(desc);
	PG_RETURN_DATUM(HeapTupleGetDatum(tuple));
}

/* "reason column: message", NULL when the record is good. */
Datum
kcf_test_fault(PG_FUNCTION_ARGS)
{
	Decoder *d = decoder(PG_GETARG_OID(0));
	KcfRecord rec = record_arg(fcinfo);
	KcfDecodedKey key;
	KcfFault fault;
	Datum *values = palloc(sizeof(Datum) * d->def->desc->natts);
	bool *isnull = palloc(sizeof(bool) * d->def->desc->natts);

	if (decode(d, &rec, &key, values, isnull, &fault) == KCF_OK)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf(
		"%s %s: %s", kcf_reason_name(fault.reason),
		fault.column > 0 ? NameStr(TupleDescAttr(d->def->desc, fault.column - 1)->attname) : "-",
		fault.message)));
}

/* Is the key canonical, and its hash; NULL when it is bad. */
Datum
kcf_test_key(PG_FUNCTION_ARGS)
{
	Decoder *d = decoder(PG_GETARG_OID(0));
	KcfRecord rec = { 0 };
	KcfDecodedKey key;
	KcfFault fault;

	rec.key = slice(PG_GETARG_DATUM(1));
	if (kcf_rowmap_key(d->map, &rec, &key, &fault) != KCF_OK)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(
		psprintf("%s " UINT64_FORMAT, key.canonical ? "canonical" : "raw", key.hash)));
}

/* The scanner alone, with the table's paths. */
static void
scan_only(KcfTableDef *def, const KcfRecord *recs, int n)
{
	KcfJsonPath *paths = palloc0(sizeof(KcfJsonPath) * def->desc->natts);
	KcfJsonSlice *slots = palloc0(sizeof(KcfJsonSlice) * def->desc->natts);
	KcfJsonPaths *compiled;
	KcfJsonResult result;
	int npaths = 0;

	for (int i = 0; i < def->desc->natts; i++)
	{
		if (def->columns[i].json_path != NULL)
			paths[npaths++].text = def->columns[i].json_path;
	}
	compiled = kcf_json_paths_init(palloc(kcf_json_paths_size(paths, npaths)), paths, npaths);
	for (int i = 0; i < n; i++)
	{
		if (kcf_json_scan(compiled, recs[i].value.data, recs[i].value.len, slots, &result) !=
			KCF_JSON_VALID)
			elog(ERROR, "not JSON");
	}
}

/*
 * Nanoseconds a record, of rounds through all of them. What: 'scan' for the scanner alone, 'decode'
 * for keys and values to Datums, 'form' for heap tuples in a buffer as well, as the store does it.
 */
Datum
kcf_test_bench(PG_FUNCTION_ARGS)
{
	Decoder *d = decoder(PG_GETARG_OID(0));
	ArrayType *keys = PG_GETARG_ARRAYTYPE_P(1);
	ArrayType *documents = PG_GETARG_ARRAYTYPE_P(2);
	int rounds = PG_GETARG_INT32(3);
	char *what = text_to_cstring(PG_GETARG_TEXT_PP(4));
	bool form = strcmp(what, "form") == 0;
	TupleDesc desc = d->def->desc;
	Datum *key_datums;
	Datum *value_datums;
	int nkeys;
	int n;
	KcfRecord *recs;
	Datum *values = palloc(sizeof(Datum) * desc->natts);
	bool *isnull = palloc(sizeof(bool) * desc->natts);
	char *slab = palloc(1024 * 1024);
	Size used = 0;
	int64 bad = 0;
	struct timespec start;
	struct timespec end;
	MemoryContext batch = AllocSetContextCreate(CurrentMemoryContext, "batch", 256 * 1024,
												256 * 1024, 8 * 1024 * 1024);
	MemoryContext old;

	deconstruct_array(keys, BYTEAOID, -1, false, TYPALIGN_INT, &key_datums, NULL, &nkeys);
	deconstruct_array(documents, BYTEAOID, -1, false, TYPALIGN_INT, &value_datums, NULL, &n);
	recs = palloc0(sizeof(KcfRecord) * n);
	for (int i = 0; i < n; i++)
	{
		recs[i].key = slice(key_datums[i % nkeys]);
		recs[i].value = slice(value_datums[i]);
		recs[i].offset = i;
		recs[i].timestamp = 1700000000000;
	}

	old = MemoryContextSwitchTo(batch);
	/* of this process, so that others on the machine do not count */
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
	for (int round = 0; round < rounds; round++)
	{
		CHECK_FOR_INTERRUPTS();
		if (strcmp(what, "scan") == 0)
		{
			MemoryContextReset(batch);
			scan_only(d->def, recs, n);
			continue;
		}
		for (int i = 0; i < n; i++)
		{
			KcfDecodedKey key;
			KcfFault fault;

			if (i % 64 == 0)
				MemoryContextReset(batch);
			if (kcf_rowmap_key(d->map, &recs[i], &key, &fault) != KCF_OK ||
				kcf_rowmap_row(d->map, &recs[i], &key, values, isnull, &fault) != KCF_OK)
			{
				bad++;
				continue;
			}
			if (form)
			{
				Size size = heap_compute_data_size(desc, values, isnull);
				HeapTupleHeader tuple;
				int hoff = SizeofHeapTupleHeader;
				bool hasnull = false;
				uint16 mask = 0;

				for (int k = 0; k < desc->natts; k++)
					hasnull |= isnull[k];
				if (hasnull)
					hoff += BITMAPLEN(desc->natts);
				hoff = MAXALIGN(hoff);
				if (used + hoff + size > 1024 * 1024)
					used = 0;
				tuple = (HeapTupleHeader) (slab + used);
				memset(tuple, 0, hoff);
				tuple->t_hoff = hoff;
				heap_fill_tuple(desc, values, isnull, (char *) tuple + hoff, size, &mask,
								hasnull ? tuple->t_bits : NULL);
				tuple->t_infomask = mask;
				used += MAXALIGN(hoff + size);
			}
		}
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(batch);
	elog(DEBUG1, "%lld bad records", (long long) bad);
	PG_RETURN_FLOAT8(((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) /
					 ((double) rounds * n));
}

/* ---- writing ---- */

/* A row of a table, taken apart. */
static KcfTableDef *
row_arg(FunctionCallInfo fcinfo, int arg, Datum **values, bool **isnull)
{
	HeapTupleHeader row = PG_GETARG_HEAPTUPLEHEADER(arg);
	Oid relid = get_typ_typrelid(HeapTupleHeaderGetTypeId(row));
	Decoder *d = decoder(relid);
	HeapTupleData tuple = { 0 };

	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	tuple.t_data = row;
	*values = palloc(sizeof(Datum) * d->def->desc->natts);
	*isnull = palloc(sizeof(bool) * d->def->desc->natts);
	heap_deform_tuple(&tuple, d->def->desc, *values, *isnull);
	return d->def;
}

static Datum
bytes_of(const KcfSlice *slice)
{
	return PointerGetDatum(cstring_to_text_with_len(slice->data, (int) slice->len));
}

static Datum
record_result(FunctionCallInfo fcinfo, const KcfRecord *rec)
{
	TupleDesc desc;
	Datum values[5] = { 0 };
	bool nulls[5] = { 0 };

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (rec->key.data != NULL)
		values[0] = bytes_of(&rec->key);
	else
		nulls[0] = true;
	values[1] = bytes_of(&rec->value);
	values[2] = Int32GetDatum(rec->partition);
	values[3] = Int64GetDatum(rec->timestamp);
	if (rec->headers == NULL)
		nulls[4] = true;
	else
	{
		Datum *elems = palloc(sizeof(Datum) * (2 * rec->nheaders + 1));
		bool *elem_nulls = palloc0(sizeof(bool) * (2 * rec->nheaders + 1));
		int n = 2 * rec->nheaders;
		int lower = 1;

		for (int i = 0; i < rec->nheaders; i++)
		{
			elems[2 * i] = bytes_of(&rec->headers[i].name);
			elem_nulls[2 * i + 1] = rec->headers[i].value.data == NULL;
			if (!elem_nulls[2 * i + 1])
				elems[2 * i + 1] = bytes_of(&rec->headers[i].value);
		}
		values[4] = PointerGetDatum(construct_md_array(elems, elem_nulls, 1, &n, &lower, BYTEAOID,
													   -1, false, TYPALIGN_INT));
	}
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* kcf_test_write(users): the record that the row is written as. */
Datum
kcf_test_write(PG_FUNCTION_ARGS)
{
	Datum *values;
	bool *isnull;
	KcfTableDef *def = row_arg(fcinfo, 0, &values, &isnull);
	KcfRowWriter *writer = kcf_row_writer_create(def, CurrentMemoryContext);
	KcfRecord rec;

	kcf_row_write(writer, values, isnull, &rec);
	PG_RETURN_DATUM(record_result(fcinfo, &rec));
}

/* kcf_test_rewrite(document, users, changed columns): without a document the row's value column has it. */
Datum
kcf_test_rewrite(PG_FUNCTION_ARGS)
{
	Datum *values;
	bool *isnull;
	KcfTableDef *def = row_arg(fcinfo, 1, &values, &isnull);
	KcfRowWriter *writer = kcf_row_writer_create(def, CurrentMemoryContext);
	KcfRecord rec;
	KcfSlice document = { 0 };
	Bitmapset *changed = NULL;
	Datum *names;
	int n;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &n);
	for (int i = 0; i < n; i++)
		changed = bms_add_member(changed, get_attnum(def->relid, TextDatumGetCString(names[i])) -
											  FirstLowInvalidHeapAttributeNumber);
	if (!PG_ARGISNULL(0))
		document = slice(PG_GETARG_DATUM(0));
	else if (!kcf_row_document(writer, values, isnull, &document))
		elog(ERROR, "the row has no document");
	rec.key.data = NULL;
	kcf_row_rewrite(writer, &document, values, isnull, changed, &rec);
	PG_RETURN_DATUM(record_result(fcinfo, &rec));
}

/* Nanoseconds a row, of rounds through all of them. */
Datum
kcf_test_write_bench(PG_FUNCTION_ARGS)
{
	ArrayType *rows = PG_GETARG_ARRAYTYPE_P(0);
	int rounds = PG_GETARG_INT32(1);
	Oid typid = ARR_ELEMTYPE(rows);
	Decoder *d = decoder(get_typ_typrelid(typid));
	int natts = d->def->desc->natts;
	Datum *elems;
	int n;
	Datum **values;
	bool **isnull;
	KcfRowWriter *writer;
	KcfRecord rec;
	struct timespec start;
	struct timespec end;
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext, "row", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;

	deconstruct_array(rows, typid, -1, false, TYPALIGN_DOUBLE, &elems, NULL, &n);
	values = palloc(sizeof(Datum *) * n);
	isnull = palloc(sizeof(bool *) * n);
	for (int i = 0; i < n; i++)
	{
		HeapTupleData tuple = { 0 };

		tuple.t_data = DatumGetHeapTupleHeader(elems[i]);
		tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
		values[i] = palloc(sizeof(Datum) * natts);
		isnull[i] = palloc(sizeof(bool) * natts);
		heap_deform_tuple(&tuple, d->def->desc, values[i], isnull[i]);
	}
	writer = kcf_row_writer_create(d->def, CurrentMemoryContext);
	old = MemoryContextSwitchTo(row);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
	for (int round = 0; round < rounds; round++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < n; i++)
		{
			MemoryContextReset(row);
			kcf_row_write(writer, values[i], isnull[i], &rec);
		}
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
	MemoryContextSwitchTo(old);
	PG_RETURN_FLOAT8(((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) /
					 ((double) rounds * n));
}
