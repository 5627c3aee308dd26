/*
 * catalog_product.c
 *		What makes a table a data product: its function, found and compared with the columns.
 *
 * Names are looked up under one search path for everybody: who asks must not decide what is computed. The result's
 * columns are those that PostgreSQL's own analysis of the call finds, so that polymorphic functions and all ways of
 * saying RETURNS are what they are elsewhere.
 */
#include "postgres.h"

#include "catalog_product.h"

#include "catalog_internal.h"
#include "compat.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parse_coerce.h"
#include "parser/parse_func.h"
#include "parser/parser.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

/* ---- settings ---- */

int
kcf_product_settings_fix(void)
{
	static const char *const settings[][2] = {
		{ "search_path", KCF_PRODUCT_SEARCH_PATH },
		{ "timezone", "UTC" },
		{ "datestyle", "ISO, MDY" },
		{ "intervalstyle", "postgres" },
		{ "extra_float_digits", "1" },
		{ "bytea_output", "hex" },
		{ "lc_monetary", "C" },
		{ "lc_numeric", "C" },
		{ "lc_time", "C" },
		{ "xmlbinary", "base64" },
		{ "row_security", "on" },
	};
	int level = NewGUCNestLevel();

	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return level;
}

void
kcf_product_settings_restore(int level)
{
	/* What the function has set by itself, too. */
	AtEOXact_GUC(false, level);
}

void
kcf_product_query_position(const char *query)
{
	int position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(query);
	}
}

#define HINT_OF_NAMES                                                                              \
	"Names are looked up with search_path \"" KCF_PRODUCT_SEARCH_PATH                              \
	"\": write them with their schemas."

/* ---- what is being looked at, for messages ---- */

typedef struct Subject
{
	ErrorContextCallback callback;
	const KcfTableDef *def;
	const char *option;
	const char *arguments; /* what they are, of the option's function */
	const char *query;     /* being analyzed, NULL: none */
	Oid user;              /* who we were, and under which settings */
	int security;
	int level;
} Subject;

static void
tell_subject(void *arg)
{
	const Subject *subject = arg;

	if (subject->query != NULL)
		kcf_product_query_position(subject->query);
	errcontext("option \"%s\" of foreign table %s", subject->option, subject->def->name);
	if (geterrcode() == ERRCODE_UNDEFINED_OBJECT ||
		(subject->query != NULL &&
		 (geterrcode() == ERRCODE_UNDEFINED_TABLE || geterrcode() == ERRCODE_UNDEFINED_FUNCTION)))
		errhint(HINT_OF_NAMES);
}

/* From here on names are those that the owner may look up, as the computation will. */
static void
begin_subject(Subject *subject, const KcfTableDef *def, const char *option)
{
	subject->def = def;
	subject->option = option;
	subject->arguments = "Its arguments are the key columns, in their order.";
	subject->query = NULL;
	subject->callback.callback = tell_subject;
	subject->callback.arg = subject;
	subject->callback.previous = error_context_stack;
	error_context_stack = &subject->callback;
	GetUserIdAndSecContext(&subject->user, &subject->security);
	SetUserIdAndSecContext(def->owner, subject->security | SECURITY_RESTRICTED_OPERATION);
	subject->level = kcf_product_settings_fix();
}

static void
end_subject(Subject *subject)
{
	kcf_product_settings_restore(subject->level);
	SetUserIdAndSecContext(subject->user, subject->security);
	error_context_stack = subject->callback.previous;
}

static Query *
analyze(Subject *subject, const char *text, const Oid *params, int nparams)
{
	List *raw;
	Query *query;

	subject->query = text;
	raw = raw_parser(text, RAW_PARSE_DEFAULT);
	if (list_length(raw) != 1)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("option \"%s\" is not one query", subject->option)));
	query =
		parse_analyze_fixedparams(linitial_node(RawStmt, raw), text, (Oid *) params, nparams, NULL);
	subject->query = NULL;
	return query;
}

/* ---- the function ---- */

/* Types as its callers will give them, for messages: "uuid, text". */
static char *
type_list(const Oid *types, int n)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < n; i++)
		appendStringInfo(&buf, "%s%s", i > 0 ? ", " : "", format_type_be(types[i]));
	return buf.data;
}

/*
 * The function of this name that takes these arguments. Named with argument types it is that one; else the one that a
 * call with such arguments would find.
 */
static Oid
find_function(Subject *subject, const char *name, const Oid *types, int ntypes)
{
	Oid result = InvalidOid;
	char kind;

	if (strchr(name, '(') != NULL)
	{
		Oid *arguments;
		int narguments;

		result = DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(name)));
		(void) get_func_signature(result, &arguments, &narguments);
		if (narguments != ntypes || !can_coerce_type(ntypes, types, arguments, COERCION_IMPLICIT))
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
							errmsg("function %s does not take the arguments of option \"%s\"",
								   format_procedure(result), subject->option),
							errdetail("It will be called with (%s).", type_list(types, ntypes)),
							errhint("%s", subject->arguments)));
	}
	else
	{
		List *names = textToQualifiedNameList(cstring_to_text(name));
		Oid type;
		bool is_set;
		int nvariadic;
		Oid variadic;
		Oid *declared;
		FuncDetailCode found =
			func_get_detail(names, NIL, NIL, ntypes, (Oid *) types, false, false, false, &result,
							&type, &is_set, &nvariadic, &variadic, &declared, NULL);

		if (found == FUNCDETAIL_MULTIPLE)
			ereport(ERROR, (errcode(ERRCODE_AMBIGUOUS_FUNCTION),
							errmsg("function %s(%s) is not unique", NameListToString(names),
								   type_list(types, ntypes)),
							errhint("Write its arguments' types behind its name.")));
		if (found == FUNCDETAIL_NOTFOUND || found == FUNCDETAIL_COERCION)
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
							errmsg("function %s(%s) does not exist", NameListToString(names),
								   type_list(types, ntypes)),
							list_length(names) == 1 ? errhint(HINT_OF_NAMES)
													: errhint("%s", subject->arguments)));
	}
	if (isAnyTempNamespace(get_func_namespace(result)))
		ereport(ERROR, (errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
						errmsg("function %s is temporary", name),
						errdetail("Other sessions do not have it."),
						errhint("Create it in a schema that lasts.")));
	kind = get_func_prokind(result);
	if (kind != PROKIND_FUNCTION)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("%s is not an ordinary function", format_procedure(result))));
	return result;
}

/*
 * A call that finds this function and no other: qualified, and the arguments brought to the types it declares, where
 * these are types of values.
 */
static void
append_call(StringInfo buf, Oid function)
{
	Oid *types;
	int ntypes;

	(void) get_func_signature(function, &types, &ntypes);
	appendStringInfo(buf, "%s(",
					 quote_qualified_identifier(get_namespace_name(get_func_namespace(function)),
												get_func_name(function)));
	for (int i = 0; i < ntypes; i++)
	{
		appendStringInfo(buf, "%s$%d", i > 0 ? ", " : "", i + 1);
		if (get_typtype(types[i]) != TYPTYPE_PSEUDO)
			appendStringInfo(
				buf, "::%s",
				format_type_extended(types[i], -1,
									 FORMAT_TYPE_INVALID_AS_NULL | FORMAT_TYPE_FORCE_QUALIFY));
	}
	appendStringInfoChar(buf, ')');
}

/* ---- its result, and the columns ---- */

/* Columns that the document fills: whole, or by its members. */
typedef struct Columns
{
	AttrNumber value;
	int nmapped;
	AttrNumber mapped; /* the first of them */
} Columns;

static void
find_columns(const KcfTableDef *def, Columns *columns)
{
	memset(columns, 0, sizeof(Columns));
	for (int i = def->desc->natts; i > 0; i--)
	{
		const KcfColumnOptions *column = &def->columns[i - 1];

		if (column->kind == KCF_COLUMN_VALUE)
			columns->value = i;
		else if (column->json_path != NULL)
		{
			columns->nmapped++;
			columns->mapped = i;
		}
	}
}

static char *
column_name(const KcfTableDef *def, AttrNumber column)
{
	return NameStr(TupleDescAttr(def->desc, column - 1)->attname);
}

/* The column of this name that is a member of the document. */
static AttrNumber
mapped_column(const KcfTableDef *def, const char *name)
{
	for (int i = 0; i < def->desc->natts; i++)
	{
		if (def->columns[i].kind == KCF_COLUMN_JSON &&
			strcmp(NameStr(TupleDescAttr(def->desc, i)->attname), name) == 0)
			return i + 1;
	}
	return 0;
}

pg_noreturn static void
refuse_shape(const KcfTableDef *def, const KcfProduct *product, const char *detail,
			 const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					errmsg("the result of function %s does not fit foreign table %s",
						   product->function_name, def->name),
					errdetail_internal("%s", detail), errhint("%s", hint)));
}

/* What helps where a column is a member of an object, and the result is none. */
static const char *
hint_of_mapped(const Columns *columns)
{
	return columns->value != 0 ? "Drop the column, or let the function return one row."
							   : "Let the column be of type jsonb with OPTIONS (value 'true'), or "
								 "the function return one row.";
}

/* Fields of one row: by their names they are columns, the others are members of the value column's document. */
static void
match_fields(const KcfTableDef *def, KcfProduct *product, const Columns *columns)
{
	bool *filled = palloc0(sizeof(bool) * (def->desc->natts + 1));

	for (int i = 0; i < product->nfields; i++)
	{
		KcfProductField *field = &product->fields[i];
		Form_pg_attribute attr;

		field->column = mapped_column(def, field->name);
		if (field->column == 0)
		{
			if (columns->value == 0)
				refuse_shape(
					def, product,
					psprintf("Its result's column \"%s\" is no column of the table.", field->name),
					"Add that column to the table, or a value column for the whole "
					"result.");
			continue;
		}
		attr = TupleDescAttr(def->desc, field->column - 1);
		if (getBaseType(field->type) != getBaseType(attr->atttypid) &&
			!IsBinaryCoercible(field->type, attr->atttypid))
			refuse_shape(def, product,
						 psprintf("Column \"%s\" has type %s, the function's is of type %s.",
								  NameStr(attr->attname), format_type_be(attr->atttypid),
								  format_type_be(field->type)),
						 "Give both the same type.");
		filled[field->column] = true;
	}
	for (int i = 1; i <= def->desc->natts; i++)
	{
		if (def->columns[i - 1].kind != KCF_COLUMN_JSON)
			continue;
		/* which would be computed for INSERT only */
		if (TupleDescAttr(def->desc, i - 1)->attgenerated)
			refuse_shape(def, product, psprintf("Column \"%s\" is generated.", column_name(def, i)),
						 "Drop it from the table; let the function compute it.");
		if (!filled[i])
			refuse_shape(def, product,
						 psprintf("Column \"%s\" is no column of its result.", column_name(def, i)),
						 "Drop it from the table, or add it to the function's result.");
	}
	pfree(filled);
}

static bool
is_json(Oid type)
{
	type = getBaseType(type);
	return type == JSONOID || type == JSONBOID;
}

/* What the function gives, and whether the table has room for it. */
static void
find_shape(Subject *subject, KcfTableDef *def, KcfProduct *product, const Oid *types)
{
	StringInfoData call;
	Query *query;
	RangeTblFunction *function;
	TypeFuncClass class;
	Oid type;
	TupleDesc desc;
	Columns columns;
	bool is_set = get_func_retset(product->function);
	char *name = get_func_result_name(product->function);
	ListCell *lc;

	if (get_func_result_type(product->function, &type, &desc) == TYPEFUNC_RECORD)
		refuse_shape(def, product, "It returns record, whose columns are not known.",
					 "Declare them: RETURNS TABLE (...), OUT arguments or a composite type.");
	find_columns(def, &columns);
	product->of_members = columns.nmapped > 0;
	initStringInfo(&call);
	appendStringInfoString(&call, "SELECT * FROM ");
	append_call(&call, product->function);
	product->call = call.data;
	query = analyze(subject, product->call, types, def->key.nkeys);
	function =
		linitial_node(RangeTblFunction, linitial_node(RangeTblEntry, query->rtable)->functions);
	class = get_expr_result_type(function->funcexpr, &type, &desc);
	if (class == TYPEFUNC_SCALAR && get_typtype(type) == TYPTYPE_PSEUDO)
		refuse_shape(def, product, psprintf("It returns %s.", format_type_be(type)),
					 "Let it return a value, a row or a set of rows.");
	if (OidIsValid(type) && class != TYPEFUNC_SCALAR && type != RECORDOID)
		kcf_catalog_watch_relation(get_typ_typrelid(getBaseType(type)), false);

	product->fields = palloc0(sizeof(KcfProductField) * Max(list_length(query->targetList), 1));
	foreach (lc, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);

		if (entry->resjunk)
			continue;
		product->fields[product->nfields].name = pstrdup(entry->resname);
		product->fields[product->nfields++].type = exprType((Node *) entry->expr);
	}

	if (is_set)
	{
		product->shape = KCF_SHAPE_SET;
		product->bare = class == TYPEFUNC_SCALAR && name == NULL;
		if (columns.nmapped > 0)
			refuse_shape(def, product,
						 psprintf("It returns a set, which is one array, but column \"%s\" is a "
								  "member of an object.",
								  column_name(def, columns.mapped)),
						 hint_of_mapped(&columns));
	}
	else if (class != TYPEFUNC_SCALAR || (name != NULL && columns.value == 0))
	{
		product->shape = KCF_SHAPE_ROW;
		match_fields(def, product, &columns);
		return;
	}
	else
	{
		product->shape = KCF_SHAPE_SCALAR;
		if (columns.nmapped > 0 && !is_json(type))
			refuse_shape(
				def, product,
				psprintf("It returns one value, but column \"%s\" is a member of an object.",
						 column_name(def, columns.mapped)),
				hint_of_mapped(&columns));
		if (columns.nmapped > 0)
			return;
	}
	if (columns.value == 0)
		refuse_shape(def, product, "The table has no value column.",
					 "Give the table a column of type jsonb with OPTIONS (value 'true').");
}

/* ---- the whole ---- */

static bool
reads_only(Oid function)
{
	return func_volatile(function) != PROVOLATILE_VOLATILE;
}

static void
resolve_augment(Subject *subject, KcfTableDef *def, KcfProduct *product, const Oid *keys)
{
	Oid types[KCF_MAX_KEYS + 2];
	int nkeys = def->key.nkeys;
	StringInfoData call;

	memcpy(types, keys, sizeof(Oid) * nkeys);
	types[nkeys] = types[nkeys + 1] = JSONBOID;
	product->augment = find_function(subject, def->options->augment, types, nkeys + 2);
	kcf_catalog_watch_row(PROCOID, product->augment);
	product->augment_name = format_procedure_qualified(product->augment);
	product->augment_reads_only = reads_only(product->augment);
	if (get_func_retset(product->augment) || get_func_rettype(product->augment) != JSONBOID)
		ereport(ERROR, (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
						errmsg("function %s does not return jsonb", product->augment_name),
						errhint("It takes the key columns, the old value and the hints, both "
								"jsonb, and returns the new value.")));
	initStringInfo(&call);
	appendStringInfoString(&call, "SELECT ");
	append_call(&call, product->augment);
	product->augment_call = call.data;
}

static KcfProduct *
resolve(KcfTableDef *def)
{
	KcfProduct *product = palloc0(sizeof(KcfProduct));
	Oid types[KCF_MAX_KEYS];
	Subject subject;

	for (int i = 0; i < def->key.nkeys; i++)
		types[i] = TupleDescAttr(def->desc, def->key.keys[i].attnum - 1)->atttypid;

	begin_subject(&subject, def, "compute");
	product->function = find_function(&subject, def->options->compute, types, def->key.nkeys);
	kcf_catalog_watch_row(PROCOID, product->function);
	product->function_name = format_procedure_qualified(product->function);
	product->reads_only = reads_only(product->function);
	find_shape(&subject, def, product, types);
	if (def->options->augment != NULL)
	{
		subject.option = "augment";
		subject.arguments =
			"Its arguments are the key columns, the old value and the hints, both jsonb.";
		resolve_augment(&subject, def, product, types);
	}
	end_subject(&subject);
	return product;
}

static char *
copy_string(MemoryContext mcxt, const char *string)
{
	return string != NULL ? MemoryContextStrdup(mcxt, string) : NULL;
}

static KcfProduct *
copy_product(const KcfProduct *from, MemoryContext mcxt)
{
	KcfProduct *product = MemoryContextAlloc(mcxt, sizeof(KcfProduct));

	*product = *from;
	product->function_name = copy_string(mcxt, from->function_name);
	product->call = copy_string(mcxt, from->call);
	product->augment_name = copy_string(mcxt, from->augment_name);
	product->augment_call = copy_string(mcxt, from->augment_call);
	product->fields = MemoryContextAlloc(mcxt, sizeof(KcfProductField) * Max(from->nfields, 1));
	for (int i = 0; i < from->nfields; i++)
	{
		product->fields[i] = from->fields[i];
		product->fields[i].name = copy_string(mcxt, from->fields[i].name);
	}
	return product;
}

KcfProduct *
kcf_catalog_product(KcfTableDef *def)
{
	if (def->product == NULL)
	{
		/* the analysis leaves much behind, and an error must not leave it with the definition */
		MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "kafka_cache product",
													  ALLOCSET_DEFAULT_SIZES);
		MemoryContext old = MemoryContextSwitchTo(scratch);

		def->product = copy_product(resolve(def), def->mcxt);
		MemoryContextSwitchTo(old);
		MemoryContextDelete(scratch);
	}
	return def->product;
}

/* The domain's query, as it would run. */
static void
check_domain(Subject *subject, KcfTableDef *def)
{
	Query *query = analyze(subject, def->options->domain, NULL, 0);
	int n = 0;
	ListCell *lc;

	if (query->commandType != CMD_SELECT || query->utilityStmt != NULL || query->hasModifyingCTE ||
		query->rowMarks != NIL)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("option \"domain\" is not a query that only reads"),
						errhint("Give a SELECT that yields the key columns.")));
	foreach (lc, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);
		Form_pg_attribute attr;
		Oid type;

		if (entry->resjunk)
			continue;
		if (n++ >= def->key.nkeys)
			continue;
		attr = TupleDescAttr(def->desc, def->key.keys[n - 1].attnum - 1);
		type = exprType((Node *) entry->expr);
		if (!can_coerce_type(1, &type, &attr->atttypid, COERCION_ASSIGNMENT))
			ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
							errmsg("option \"domain\" does not yield the key columns"),
							errdetail("Column \"%s\" has type %s, the query gives %s.",
									  NameStr(attr->attname), format_type_be(attr->atttypid),
									  format_type_be(type))));
	}
	if (n != def->key.nkeys)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("option \"domain\" does not yield the key columns"),
				 errdetail("Key columns: %d, columns of the query: %d.", def->key.nkeys, n)));
}

static void
check_execute(Oid function, Oid owner)
{
	AclResult result = kcf_function_aclcheck(function, owner);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_FUNCTION, get_func_name(function));
}

void
kcf_catalog_check_product(KcfTableDef *def)
{
	KcfProduct *product = kcf_catalog_product(def);
	Subject subject;

	begin_subject(&subject, def, "compute");
	check_execute(product->function, def->owner);
	if (OidIsValid(product->augment))
	{
		subject.option = "augment";
		check_execute(product->augment, def->owner);
	}
	if (def->options->domain != NULL)
	{
		subject.option = "domain";
		check_domain(&subject, def);
	}
	end_subject(&subject);
}
