/*
 * product_compute.c
 *		Running a product's function, and its result as a document.
 *
 * The call is a query of its own, run through SPI: so a function in SQL is planned as part of it, privileges are
 * checked as everywhere, and a changed function is noticed. Whoever waits for the row must not decide what is in it:
 * the owner's rights, fixed settings, and a snapshot of now, since the record says that it is of now. A transaction
 * that has been open for an hour would otherwise put into the topic what was true an hour ago.
 */
#include "postgres.h"

#include "product_compute.h"

#include "codec_write.h"
#include "rowmap.h"
#include "rowmap_write.h"
#include "snapshot.h"

#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* What is prepared for a product; lives with its definition. */
typedef struct KcfProductRun
{
	SPIPlanPtr plan;
	SPIPlanPtr augment_plan;
	KcfPrinter **printers; /* of the result's columns */
	const char **names;    /* "name": as JSON has it */
	KcfRowWriter *writer;  /* of mapped columns; NULL: there are none */
	Bitmapset *written;    /* which of them a row sets, as kcf_row_rewrite takes it */
	KcfPrinter *jsonb;
	MemoryContextCallback freed;
} KcfProductRun;

/* A computation under way in this backend. */
typedef struct Frame
{
	const KcfTableDef *def;
	const Datum *key;
	uint64 hash;
	const char *function;
	int depth;
	struct Frame *outer;
} Frame;

static Frame *innermost = NULL;

/* ---- what is prepared ---- */

static void
free_plans(void *arg)
{
	KcfProductRun *run = arg;

	if (run->plan != NULL)
		SPI_freeplan(run->plan);
	if (run->augment_plan != NULL)
		SPI_freeplan(run->augment_plan);
}

/* The member's name in front of its value. */
static const char *
quoted_name(const char *name)
{
	StringInfoData buf;

	initStringInfo(&buf);
	kcf_print_string(name, strlen(name), &buf);
	appendStringInfoChar(&buf, ':');
	return buf.data;
}

static KcfProductRun *
prepare(KcfTableDef *def, KcfProduct *product)
{
	MemoryContext old;
	KcfProductRun *run;

	if (product->run != NULL)
		return product->run;
	old = MemoryContextSwitchTo(def->mcxt);
	run = palloc0(sizeof(KcfProductRun));
	run->printers = palloc(sizeof(KcfPrinter *) * Max(product->nfields, 1));
	run->names = palloc(sizeof(char *) * Max(product->nfields, 1));
	for (int i = 0; i < product->nfields; i++)
	{
		run->printers[i] = kcf_printer_create(product->fields[i].type);
		run->names[i] = quoted_name(product->fields[i].name);
		if (product->fields[i].column > 0)
			run->written = bms_add_member(run->written, product->fields[i].column -
															FirstLowInvalidHeapAttributeNumber);
	}
	for (int i = 0; i < def->desc->natts && product->shape == KCF_SHAPE_ROW; i++)
	{
		if (def->columns[i].kind == KCF_COLUMN_KEY && def->columns[i].json_path != NULL)
			run->written = bms_add_member(run->written, i + 1 - FirstLowInvalidHeapAttributeNumber);
	}
	if (run->written != NULL)
		run->writer = kcf_row_writer_create(def, def->mcxt);
	run->freed.func = free_plans;
	run->freed.arg = run;
	MemoryContextRegisterResetCallback(def->mcxt, &run->freed);
	MemoryContextSwitchTo(old);
	product->run = run;
	return run;
}

/* ---- the document ---- */

/* A json or jsonb that is null says as little as NULL does. */
static bool
is_null_json(Oid type, Datum value)
{
	if (type == JSONBOID)
	{
		Jsonb *jsonb = DatumGetJsonbP(value);
		JsonbValue scalar;

		return JB_ROOT_IS_SCALAR(jsonb) && JsonbExtractScalar(&jsonb->root, &scalar) &&
			   scalar.type == jbvNull;
	}
	if (type == JSONOID)
	{
		text *json = DatumGetTextPP(value);
		KcfSlice slice = { VARDATA_ANY(json), VARSIZE_ANY_EXHDR(json) };

		return kcf_document_is_null(&slice);
	}
	return false;
}

static void
print_field(const KcfProduct *product, const KcfProductRun *run, int i, HeapTuple row,
			TupleDesc desc, StringInfo buf)
{
	bool isnull;
	Datum value = SPI_getbinval(row, desc, i + 1, &isnull);

	if (isnull || is_null_json(getBaseType(product->fields[i].type), value))
		appendStringInfoString(buf, "null");
	else
		kcf_print_json(run->printers[i], value, buf);
}

/* The fields that are no columns, as an object. */
static void
print_object(const KcfProduct *product, const KcfProductRun *run, HeapTuple row, TupleDesc desc,
			 StringInfo buf)
{
	bool first = true;

	appendStringInfoChar(buf, '{');
	for (int i = 0; i < product->nfields; i++)
	{
		if (product->fields[i].column > 0)
			continue;
		if (!first)
			appendStringInfoChar(buf, ',');
		first = false;
		appendStringInfoString(buf, run->names[i]);
		print_field(product, run, i, row, desc, buf);
	}
	appendStringInfoChar(buf, '}');
}

/* Put the fields that are columns where the table has them. */
static void
write_columns(const KcfTableDef *def, const KcfProduct *product, const KcfProductRun *run,
			  const Datum *key, HeapTuple row, TupleDesc desc, StringInfo buf)
{
	int natts = def->desc->natts;
	Datum *values = palloc0(sizeof(Datum) * natts);
	bool *isnull = palloc(sizeof(bool) * natts);
	KcfSlice document = { buf->data, buf->len };
	KcfRecord rec = { 0 };

	memset(isnull, true, sizeof(bool) * natts);
	for (int i = 0; i < def->key.nkeys; i++)
	{
		values[def->key.keys[i].attnum - 1] = key[i];
		isnull[def->key.keys[i].attnum - 1] = false;
	}
	for (int i = 0; i < product->nfields; i++)
	{
		const KcfProductField *field = &product->fields[i];
		int column = field->column - 1;

		if (column < 0)
			continue;
		values[column] = SPI_getbinval(row, desc, i + 1, &isnull[column]);
		isnull[column] |= !isnull[column] && is_null_json(getBaseType(field->type), values[column]);
	}
	kcf_row_rewrite(run->writer, &document, values, isnull, run->written, &rec);
	/* its bytes are the writer's, or what we have given it */
	if (rec.value.data != buf->data)
	{
		resetStringInfo(buf);
		appendBinaryStringInfo(buf, rec.value.data, rec.value.len);
	}
}

static bool
is_null_row(HeapTuple row, TupleDesc desc)
{
	for (int i = 1; i <= desc->natts; i++)
	{
		bool isnull;

		(void) SPI_getbinval(row, desc, i, &isnull);
		if (!isnull)
			return false;
	}
	return true;
}

/* All that the query has yielded. */
static void
print_result(const KcfTableDef *def, const KcfProduct *product, const KcfProductRun *run,
			 const Datum *key, const SPITupleTable *rows, StringInfo buf)
{
	TupleDesc desc = rows->tupdesc;
	HeapTuple row = rows->numvals > 0 ? rows->vals[0] : NULL;

	if (row == NULL || (product->shape != KCF_SHAPE_SET && is_null_row(row, desc)))
	{
		appendStringInfoString(buf, "null");
		return;
	}
	switch (product->shape)
	{
		case KCF_SHAPE_SET:
			for (uint64 i = 0; i < rows->numvals; i++)
			{
				CHECK_FOR_INTERRUPTS();
				appendStringInfoChar(buf, i == 0 ? '[' : ',');
				if (product->bare)
					print_field(product, run, 0, rows->vals[i], desc, buf);
				else
					print_object(product, run, rows->vals[i], desc, buf);
			}
			appendStringInfoChar(buf, ']');
			break;
		case KCF_SHAPE_ROW:
			print_object(product, run, row, desc, buf);
			if (run->writer != NULL)
				write_columns(def, product, run, key, row, desc, buf);
			break;
		case KCF_SHAPE_SCALAR:
			print_field(product, run, 0, row, desc, buf);
			break;
	}
}

/* ---- running ---- */

static bool
same_key(const KcfTableDef *def, const Datum *a, const Datum *b)
{
	for (int i = 0; i < def->key.nkeys; i++)
	{
		const KcfKeyColumn *column = &def->key.keys[i];

		if (!DatumGetBool(
				OidFunctionCall2Coll(get_opcode(column->eq_opr), column->collation, a[i], b[i])))
			return false;
	}
	return true;
}

/* Whoever asks for what is being computed for him would wait for himself. */
static void
refuse_cycle(const Frame *frame)
{
	if (frame->depth > KCF_PRODUCT_MAX_DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
				 errmsg("data products are nested more than %d deep", KCF_PRODUCT_MAX_DEPTH)));
	for (const Frame *other = frame->outer; other; other = other->outer)
	{
		if (other->def->relid == frame->def->relid && other->hash == frame->hash &&
			same_key(frame->def, other->key, frame->key))
			ereport(ERROR, (errcode(ERRCODE_INVALID_RECURSION),
							errmsg("a row of data product %s needs itself", frame->def->name),
							errhint("Function %s reads the row that it is to compute, perhaps by "
									"way of other products.",
									frame->function)));
	}
}

static void
tell_frame(void *arg)
{
	const Frame *frame = arg;

	errcontext("computation of data product %s by function %s", frame->def->name, frame->function);
	if (geterrcode() == ERRCODE_UNDEFINED_TABLE || geterrcode() == ERRCODE_UNDEFINED_FUNCTION)
		errhint("The function runs with search_path \"%s\": write names with their schemas, or "
				"give it a search_path of its own by ALTER FUNCTION ... SET.",
				KCF_PRODUCT_SEARCH_PATH);
}

static SPIPlanPtr
plan_of(SPIPlanPtr *kept, const char *query, int nparams, Oid *types, bool reads_only)
{
	SPIPlanPtr plan;

	if (*kept != NULL)
		return *kept;
	/* a function in SQL may be a large query, which is planned as part of this one */
	plan = SPI_prepare_cursor(query, nparams, types, reads_only ? CURSOR_OPT_PARALLEL_OK : 0);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", query, SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	*kept = plan;
	return plan;
}

/* Its rows in SPI_tuptable; between SPI_connect and SPI_finish. */
static void
execute(SPIPlanPtr plan, Datum *values, bool reads_only)
{
	/* While there are parallel workers nobody may take another one than theirs. */
	Snapshot snapshot = IsInParallelMode() ? GetActiveSnapshot() : GetLatestSnapshot();
	int result =
		SPI_execute_snapshot(plan, values, NULL, snapshot, InvalidSnapshot, reads_only, true, 0);

	if (result != SPI_OK_SELECT)
		elog(ERROR, "computation failed: %s", SPI_result_code_string(result));
}

/* The function may have been changed since the definition was read. */
static void
check_result(const KcfProduct *product, TupleDesc desc)
{
	bool same = desc->natts == product->nfields;

	for (int i = 0; same && i < desc->natts; i++)
		same = TupleDescAttr(desc, i)->atttypid == product->fields[i].type;
	if (!same)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("the result of function %s has changed", product->function_name),
						errhint("Run the statement again.")));
}

static void
compute(const Frame *frame, KcfProduct *product, StringInfo buf)
{
	KcfTableDef *def = (KcfTableDef *) frame->def;
	KcfProductRun *run = prepare(def, product);
	Datum values[KCF_MAX_KEYS];
	Oid types[KCF_MAX_KEYS];

	for (int i = 0; i < def->key.nkeys; i++)
	{
		values[i] = frame->key[i];
		types[i] = TupleDescAttr(def->desc, def->key.keys[i].attnum - 1)->atttypid;
	}
	SPI_connect();
	execute(plan_of(&run->plan, product->call, def->key.nkeys, types, product->reads_only), values,
			product->reads_only);
	check_result(product, SPI_tuptable->tupdesc);
	print_result(def, product, run, frame->key, SPI_tuptable, buf);
	SPI_finish();
}

static void
augment(const Frame *frame, KcfProduct *product, Datum old, Datum hints, StringInfo buf)
{
	KcfTableDef *def = (KcfTableDef *) frame->def;
	KcfProductRun *run = prepare(def, product);
	int nkeys = def->key.nkeys;
	Datum values[KCF_MAX_KEYS + 2];
	Oid types[KCF_MAX_KEYS + 2];
	Datum value;
	bool isnull;

	for (int i = 0; i < nkeys; i++)
	{
		values[i] = frame->key[i];
		types[i] = TupleDescAttr(def->desc, def->key.keys[i].attnum - 1)->atttypid;
	}
	values[nkeys] = old;
	values[nkeys + 1] = hints;
	types[nkeys] = types[nkeys + 1] = JSONBOID;
	SPI_connect();
	execute(plan_of(&run->augment_plan, product->augment_call, nkeys + 2, types,
					product->augment_reads_only),
			values, product->augment_reads_only);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		appendStringInfoString(buf, "null");
	else
		kcf_print_document(value, buf);
	SPI_finish();
}

/*
 * Around either of them: whose rights, which settings, and who is under way. An error restores rights and settings
 * with its transaction, the rest here.
 */
static KcfSlice
run_as_owner(KcfTableDef *def, KcfProduct *product, const Datum *key, bool augmenting, Datum old,
			 Datum hints)
{
	Frame frame = { def, key, kcf_key_hash(&def->key, key), product->function_name, 1, innermost };
	ErrorContextCallback context = { error_context_stack, tell_frame, &frame };
	StringInfoData buf;
	Oid user;
	int security;
	int level;
	bool afresh;

	if (augmenting)
		frame.function = product->augment_name;
	if (innermost != NULL)
		frame.depth = innermost->depth + 1;
	check_stack_depth();
	initStringInfo(&buf);
	error_context_stack = &context;
	refuse_cycle(&frame);

	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(def->owner, security | SECURITY_RESTRICTED_OPERATION);
	level = kcf_product_settings_fix();
	innermost = &frame;
	afresh = kcf_snapshot_set_afresh(true);
	PG_TRY();
	{
		if (augmenting)
			augment(&frame, product, old, hints, &buf);
		else
			compute(&frame, product, &buf);
	}
	PG_FINALLY();
	{
		innermost = frame.outer;
		(void) kcf_snapshot_set_afresh(afresh);
	}
	PG_END_TRY();
	kcf_product_settings_restore(level);
	SetUserIdAndSecContext(user, security);

	if (product->of_members && buf.data[0] != '{' &&
		!kcf_document_is_null(&(KcfSlice){ buf.data, buf.len }))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the document is not a JSON object"),
						errdetail("Columns of foreign table %s are members of it.", def->name)));
	error_context_stack = context.previous;
	return (KcfSlice){ buf.data, buf.len };
}

KcfSlice
kcf_product_compute(KcfTableDef *def, const Datum *key)
{
	return run_as_owner(def, kcf_catalog_product(def), key, false, (Datum) 0, (Datum) 0);
}

KcfSlice
kcf_product_augment(KcfTableDef *def, const Datum *key, Datum old, Datum hints)
{
	KcfProduct *product = kcf_catalog_product(def);

	Assert(OidIsValid(product->augment));
	return run_as_owner(def, product, key, true, old, hints);
}
