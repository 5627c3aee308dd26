/*
 * proc_producer.h
 *		The producer's flushes and clients, for proc_producer*.c alone.
 *
 * Process:  a producer worker.
 * Locks:    none held while waiting.
 * Memory:   TopMemoryContext.
 * Errors:   what is wrong with a flush becomes its reply; anything else is thrown.
 * Waits:    never but in slices of a Kafka transaction's end.
 */
#ifndef KCF_PROC_PRODUCER_H
#define KCF_PROC_PRODUCER_H

#include "kafka_producer.h"
#include "sendq.h"

#endif /* KCF_PROC_PRODUCER_H */
