/*
 * metrics_show.c
 *		The view kafka_cache.metrics, and metrics_text(): the same in Prometheus' text format.
 *
 * Both go through the definitions in their order, and for each through its subjects, so that all of
 * one name stand together, as the text format wants them.
 */
#include "postgres.h"

#include <math.h>

#include "metrics.h"

#include "compat.h"

#include "common/shortest_dec.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(kafka_cache_metrics);
PG_FUNCTION_INFO_V1(kafka_cache_metrics_text);

static const char *const kinds[] = {
	[KCF_METRIC_COUNTER] = "counter",
	[KCF_METRIC_GAUGE] = "gauge",
	[KCF_METRIC_HISTOGRAM] = "histogram",
};

/* Its subject's labels and two of its own. */
#define MAX_LABELS (KCF_METRIC_LABELS + 2)

typedef struct Sample
{
	const KcfMetric *metric;
	const char *suffix; /* of the name */
	KcfMetricLabel labels[MAX_LABELS];
	int nlabels;
	double value;
} Sample;

typedef void (*Receiver)(void *arg, const Sample *sample);

static char *
print_double(double value)
{
	char *text = palloc(DOUBLE_SHORTEST_DECIMAL_LEN);

	if (isnan(value))
		return "NaN";
	if (isinf(value))
		return value > 0 ? "+Inf" : "-Inf";
	if (value == floor(value) && fabs(value) < 1e15)
		return psprintf(INT64_FORMAT, (int64) value);
	double_to_shortest_decimal_buf(value, text);
	return text;
}

/* ---- walking ------------------------------------------------------------------------------- */

static void
add_label(Sample *sample, const char *name, const char *value)
{
	Assert(sample->nlabels < MAX_LABELS);
	sample->labels[sample->nlabels++] = (KcfMetricLabel){ name, value };
}

static void
give(const Sample *sample, const char *suffix, double value, Receiver receiver, void *arg)
{
	Sample copy = *sample;

	copy.suffix = suffix;
	copy.value = value;
	receiver(arg, &copy);
}

/* Counts are of all that is not longer than the bound. */
static void
give_durations(const Sample *sample, const KcfDurations *durations, Receiver receiver, void *arg)
{
	uint64 count = 0;

	for (int i = 0; i <= KCF_HISTOGRAM_BOUNDS; i++)
	{
		Sample bucket = *sample;

		count += durations->counts[i];
		add_label(&bucket, "le",
				  i < KCF_HISTOGRAM_BOUNDS ? print_double((double) kcf_histogram_bounds[i] / 1e6)
										   : "+Inf");
		give(&bucket, "_bucket", (double) count, receiver, arg);
	}
	give(sample, "_sum", (double) durations->sum / 1e6, receiver, arg);
	give(sample, "_count", (double) count, receiver, arg);
}

static void
give_figures(const KcfMetric *metric, const char *figures, Receiver receiver, void *arg)
{
	const KcfFigures *head = (const KcfFigures *) figures;
	const double *values = (const double *) (figures + metric->at);
	Sample sample = { .metric = metric, .suffix = "" };

	for (int i = 0; i < KCF_METRIC_LABELS && head->labels[i].name; i++)
		add_label(&sample, head->labels[i].name, head->labels[i].value);
	if (metric->kind == KCF_METRIC_HISTOGRAM)
		give_durations(&sample, (const KcfDurations *) (figures + metric->at), receiver, arg);
	else if (metric->label == NULL)
	{
		/* What is not known is left out. */
		if (!isnan(*values))
			give(&sample, "", *values, receiver, arg);
	}
	else
	{
		const char *value;

		for (int i = 0; (value = metric->value(i)) != NULL; i++)
		{
			Sample one = sample;

			add_label(&one, metric->label, value);
			give(&one, "", values[i], receiver, arg);
		}
	}
}

/* All samples of a metric; what the receiver allocates is gone after each subject. */
static void
give_metric(const KcfReading *reading, const KcfMetric *metric, Receiver receiver, void *arg)
{
	MemoryContext each =
		AllocSetContextCreate(CurrentMemoryContext, "kafka_cache metric", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(each);

	for (int i = 0; i < reading->of[metric->of].n; i++)
	{
		give_figures(metric, reading->of[metric->of].figures + i * reading->of[metric->of].size,
					 receiver, arg);
		MemoryContextReset(each);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(each);
}

/* ---- the view ------------------------------------------------------------------------------ */

static void
push_string(JsonbParseState **state, JsonbIteratorToken token, const char *text)
{
	JsonbValue value;

	value.type = jbvString;
	value.val.string.val = (char *) text;
	value.val.string.len = (int) strlen(text);
	pushJsonbValue(state, token, &value);
}

static Jsonb *
labels_as_jsonb(const Sample *sample)
{
	JsonbParseState *state = NULL;
	JsonbValue *object;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < sample->nlabels; i++)
	{
		push_string(&state, WJB_KEY, sample->labels[i].name);
		push_string(&state, WJB_VALUE, sample->labels[i].value);
	}
	object = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(object);
}

static void
put_row(void *arg, const Sample *sample)
{
	ReturnSetInfo *rsinfo = arg;
	Datum values[5];
	bool nulls[5] = { false };

	values[0] = CStringGetTextDatum(psprintf("%s%s", sample->metric->name, sample->suffix));
	values[1] = CStringGetTextDatum(kinds[sample->metric->kind]);
	values[2] = JsonbPGetDatum(labels_as_jsonb(sample));
	values[3] = Float8GetDatum(sample->value);
	values[4] = CStringGetTextDatum(sample->metric->help);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
kafka_cache_metrics(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	KcfReading *reading = kcf_metrics_read();

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < kcf_nmetrics; i++)
		give_metric(reading, &kcf_metrics[i], put_row, rsinfo);
	return (Datum) 0;
}

/* ---- the text ------------------------------------------------------------------------------ */

static void
append_label(StringInfo out, const KcfMetricLabel *label)
{
	appendStringInfo(out, "%s=\"", label->name);
	for (const char *c = label->value; *c; c++)
	{
		if (*c == '\n')
			appendStringInfoString(out, "\\n");
		else
		{
			if (*c == '\\' || *c == '"')
				appendStringInfoChar(out, '\\');
			appendStringInfoChar(out, *c);
		}
	}
	appendStringInfoChar(out, '"');
}

static void
put_line(void *arg, const Sample *sample)
{
	StringInfo out = arg;

	appendStringInfo(out, "%s%s", sample->metric->name, sample->suffix);
	for (int i = 0; i < sample->nlabels; i++)
	{
		appendStringInfoChar(out, i == 0 ? '{' : ',');
		append_label(out, &sample->labels[i]);
	}
	appendStringInfo(out, "%s %s\n", sample->nlabels > 0 ? "}" : "", print_double(sample->value));
}

Datum
kafka_cache_metrics_text(PG_FUNCTION_ARGS)
{
	KcfReading *reading = kcf_metrics_read();
	StringInfoData out;

	initStringInfo(&out);
	for (int i = 0; i < kcf_nmetrics; i++)
	{
		const KcfMetric *metric = &kcf_metrics[i];

		if (reading->of[metric->of].n == 0)
			continue;
		appendStringInfo(&out, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help,
						 metric->name, kinds[metric->kind]);
		give_metric(reading, metric, put_line, &out);
	}
	PG_RETURN_TEXT_P(cstring_to_text_with_len(out.data, out.len));
}
