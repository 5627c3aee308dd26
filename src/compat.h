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
#include "funcapi.h"
#include "utils/acl.h"

#if PG_VERSION_NUM < 150000
#error "kafka_cache_fdw needs PostgreSQL 15 or newer"
#endif

/* 16 has one function for the ownership of everything. */
#if PG_VERSION_NUM >= 160000
#define kcf_owns_database(oid, role) object_ownercheck(DatabaseRelationId, oid, role)
#define kcf_owns_relation(oid, role) object_ownercheck(RelationRelationId, oid, role)
#else
#define kcf_owns_database(oid, role) pg_database_ownercheck(oid, role)
#define kcf_owns_relation(oid, role) pg_class_ownercheck(oid, role)
#endif

/* 17 numbers the processes from 0 by another name. */
#if PG_VERSION_NUM >= 170000
#define kcf_my_proc_number() ((int) MyProcNumber)
#else
#define kcf_my_proc_number() (MyProc->pgprocno)
#endif

/* The server's name of the version it was compiled with, for kafka_cache.settings(). */
#define KCF_SERVER_VERSION PG_VERSION

/* Whether librdkafka can be told how long to pause when its queue is full; after rdkafka.h only. */
#define KCF_HAVE_FETCH_QUEUE_BACKOFF (RD_KAFKA_VERSION >= 0x02020000)

#endif /* KCF_COMPAT_H */
