/*
 * compat.h
 *		What differs between versions of the server and of librdkafka, and nothing else.
 *
 * Process:  all.
 * Locks:    none.
 * Memory:   none.
 * Errors:   refuses to compile on what is not supported.
 * Waits:    never.
 */
#ifndef KCF_COMPAT_H
#define KCF_COMPAT_H

#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_proc.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif
#include "fmgr.h"
#include "funcapi.h"
#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#endif
#include "utils/acl.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 150000
#error "kafka_cache_fdw needs PostgreSQL 15 or newer"
#endif

/* 18 has a word for functions that do not return, which stands in front. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* 16 has one function for the ownership of everything. */
#if PG_VERSION_NUM >= 160000
#define kcf_owns_database(oid, role) object_ownercheck(DatabaseRelationId, oid, role)
#define kcf_owns_relation(oid, role) object_ownercheck(RelationRelationId, oid, role)
#define kcf_function_aclcheck(oid, role)                                                           \
	object_aclcheck(ProcedureRelationId, oid, role, ACL_EXECUTE)
#else
#define kcf_owns_database(oid, role) pg_database_ownercheck(oid, role)
#define kcf_owns_relation(oid, role) pg_class_ownercheck(oid, role)
#define kcf_function_aclcheck(oid, role) pg_proc_aclcheck(oid, role, ACL_EXECUTE)
#endif

/* 17 numbers the processes from 0 by another name. */
#if PG_VERSION_NUM >= 170000
#define kcf_my_proc_number() ((int) MyProcNumber)
#else
#define kcf_my_proc_number() (MyProc->pgprocno)
#endif

/* 17 has wait event sets that belong to somebody; ours live as long as the process. */
#if PG_VERSION_NUM >= 170000
#define kcf_create_wait_event_set(events) CreateWaitEventSet(NULL, events)
#else
#define kcf_create_wait_event_set(events) CreateWaitEventSet(TopMemoryContext, events)
#endif

/* Of utils/pg_locale.h, which asks for the headers of ICU: a server's development package need not bring them. */
extern PGDLLIMPORT char *locale_monetary;

/* 17 and 18 want to know more of a foreign path; a path that its setting disables is only counted since 18. */
#if PG_VERSION_NUM >= 180000
#define kcf_create_foreignscan_path(root, rel, rows, enabled, startup, total, outer, private)      \
	create_foreignscan_path(root, rel, NULL, rows, (enabled) ? 0 : 1, startup, total, NIL, outer,  \
							NULL, NIL, private)
#elif PG_VERSION_NUM >= 170000
#define kcf_create_foreignscan_path(root, rel, rows, enabled, startup, total, outer, private)      \
	create_foreignscan_path(root, rel, NULL, rows, (startup) + ((enabled) ? 0 : disable_cost),     \
							(total) + ((enabled) ? 0 : disable_cost), NIL, outer, NULL, NIL,       \
							private)
#else
#define kcf_create_foreignscan_path(root, rel, rows, enabled, startup, total, outer, private)      \
	create_foreignscan_path(root, rel, NULL, rows, (startup) + ((enabled) ? 0 : disable_cost),     \
							(total) + ((enabled) ? 0 : disable_cost), NIL, outer, NULL, private)
#endif

/* To be taken only where there is no other path. Since 18 what is disabled counts for more than any cost. */
#if PG_VERSION_NUM >= 180000
#define kcf_path_penalize(path, penalty)                                                           \
	((path)->startup_cost += (penalty), (path)->total_cost += (penalty),                           \
	 (path)->disabled_nodes += (penalty) > 1e20 ? 10000 : 100)
#else
#define kcf_path_penalize(path, penalty)                                                           \
	((path)->startup_cost += (penalty), (path)->total_cost += (penalty))
#endif

/* 17 asks the statistics for the length of an array. */
#if PG_VERSION_NUM >= 170000
#define kcf_estimate_array_length(root, array) estimate_array_length(root, array)
#else
#define kcf_estimate_array_length(root, array) estimate_array_length(array)
#endif

/*
 * A type's input function; 0, or the SQLSTATE of what it said. Before 16 nothing but ereport can say so, and
 * KCF_NO_SOFT_ERRORS asks for a look beforehand where that is cheap.
 */
#if PG_VERSION_NUM >= 160000
static inline int
kcf_soft_input(FmgrInfo *function, char *text, Oid ioparam, int32 typmod, Datum *value)
{
	ErrorSaveContext escontext = { T_ErrorSaveContext };

	escontext.details_wanted = true;
	if (InputFunctionCallSafe(function, text, ioparam, typmod, (Node *) &escontext, value))
		return 0;
	return escontext.error_data->sqlerrcode;
}
#else
#define KCF_NO_SOFT_ERRORS
static inline int
kcf_soft_input(FmgrInfo *function, char *text, Oid ioparam, int32 typmod, Datum *value)
{
	*value = InputFunctionCall(function, text, ioparam, typmod);
	return 0;
}
#endif

/* 18 no longer says whether an execution is the only one of its plan. */
#if PG_VERSION_NUM >= 180000
#define KCF_EXECUTOR_RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count
#define KCF_EXECUTE_ONCE true
#define kcf_call_executor_run(function, query, direction, count, execute_once)                     \
	((void) (execute_once), function(query, direction, count))
#else
#define KCF_EXECUTOR_RUN_PARAMETERS                                                                \
	QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once
#define KCF_EXECUTE_ONCE execute_once
#define kcf_call_executor_run(function, query, direction, count, execute_once)                     \
	function(query, direction, count, execute_once)
#endif

/* 18 asks whether it is an ANALYZE that delays. */
#if PG_VERSION_NUM >= 180000
#define kcf_vacuum_delay_point() vacuum_delay_point(true)
#else
#define kcf_vacuum_delay_point() vacuum_delay_point()
#endif

/* 18 has constraints that are not enforced. */
#if PG_VERSION_NUM >= 180000
#define kcf_check_is_enforced(check) ((check)->ccenforced)
#else
#define kcf_check_is_enforced(check) true
#endif

/* As whom a result relation is written to. 16 keeps that apart from the range table. */
#if PG_VERSION_NUM >= 160000
#define kcf_result_user(rinfo, estate) ExecGetResultRelCheckAsUser(rinfo, estate)
#else
#define kcf_rte_user(rte) (OidIsValid((rte)->checkAsUser) ? (rte)->checkAsUser : GetUserId())
#define kcf_result_user(rinfo, estate)                                                             \
	kcf_rte_user(exec_rt_fetch((rinfo)->ri_RangeTableIndex != 0                                    \
								   ? (rinfo)->ri_RangeTableIndex                                   \
								   : (rinfo)->ri_RootResultRelInfo->ri_RangeTableIndex,            \
							   estate))
#endif

/* 18 has two kinds of them. */
#if PG_VERSION_NUM >= 180000
#define kcf_check_exprs(rinfo) ((rinfo)->ri_CheckConstraintExprs)
#else
#define kcf_check_exprs(rinfo) ((rinfo)->ri_ConstraintExprs)
#endif

/* This backend's transaction, by a number that the next one does not have. After storage/proc.h. */
#if PG_VERSION_NUM >= 170000
#define kcf_my_transaction() (MyProc->vxid.lxid)
#else
#define kcf_my_transaction() (MyProc->lxid)
#endif

/* The server's name of the version it was compiled with, for kafka_cache.settings(). */
#define KCF_SERVER_VERSION PG_VERSION

/* Whether librdkafka can be told how long to pause when its queue is full; after rdkafka.h only. */
#define KCF_HAVE_FETCH_QUEUE_BACKOFF (RD_KAFKA_VERSION >= 0x02020000)

#endif /* KCF_COMPAT_H */
