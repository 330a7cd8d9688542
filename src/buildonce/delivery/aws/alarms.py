"""CloudWatch as watches: alarms by their state, metrics by their figures since the first shift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from buildonce.config import EnvironmentConfig
from buildonce.config.aws import CloudMetricConfig
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.watch import Verdict, Watch

_PERIOD = 60  # seconds; CloudWatch's own grain


def watches_of(
    aws: AwsSession, environment: EnvironmentConfig, *, names: Sequence[str]
) -> list[Watch]:
    """The watches of an environment: all alarms in one call, and each metric.

    Args:
        names: of the alarms that the environment's stack made.
    """
    alarms = tuple(dict.fromkeys((*names, *environment.rollout.alarms)))
    since = aws.clock.now()
    watches: list[Watch] = [AlarmWatch(aws, alarms)] if alarms else []
    watches.extend(MetricWatch(aws, metric, since) for metric in environment.metrics)
    return watches


@dataclass(frozen=True)
class AlarmWatch:
    """Alarms by name: one in ALARM is a breach; one that has no data, or is gone, says nothing."""

    aws: AwsSession
    names: Sequence[str]

    @property
    def name(self) -> str:
        return "alarms"

    async def look(self) -> Verdict:
        found: dict[str, tuple[str, str]] = {}
        token: dict[str, str] = {}
        while True:
            answer = await self.aws.call(
                "cloudwatch",
                "DescribeAlarms",
                AlarmNames=list(self.names),
                AlarmTypes=["MetricAlarm", "CompositeAlarm"],
                **token,
            )
            for one in (*answer.get("MetricAlarms", ()), *answer.get("CompositeAlarms", ())):
                found[one["AlarmName"]] = (one["StateValue"], one.get("StateReason", ""))
            if not answer.get("NextToken"):
                break
            token = {"NextToken": answer["NextToken"]}
        ringing = [f"{name}: {why}" for name, (state, why) in found.items() if state == "ALARM"]
        if ringing:
            return Verdict("breach", "; ".join(sorted(ringing)))
        silent = [
            f"{name} {'is gone' if name not in found else 'has no data'}"
            for name in self.names
            if name not in found or found[name][0] != "OK"
        ]
        if silent:
            return Verdict("inconclusive", "; ".join(silent))
        return Verdict("ok", f"{len(self.names)} alarm{'s' * (len(self.names) != 1)} OK")


@dataclass(frozen=True)
class MetricWatch:
    """One measurement since the watch was made; with too few samples it says nothing."""

    aws: AwsSession
    metric: CloudMetricConfig
    since: datetime

    @property
    def name(self) -> str:
        return f"{self.metric.namespace} {self.metric.name}"

    async def look(self) -> Verdict:
        wanted = self.metric
        # Whole periods: the one that is under way counts with what it has.
        start = self.since.replace(second=0, microsecond=0)
        answer = await self.aws.call(
            "cloudwatch",
            "GetMetricStatistics",
            Namespace=wanted.namespace,
            MetricName=wanted.name,
            Dimensions=[
                {"Name": name, "Value": v} for name, v in sorted(wanted.dimensions.items())
            ],
            StartTime=start,
            EndTime=self.aws.clock.now() + timedelta(seconds=_PERIOD),
            Period=_PERIOD,
            Statistics=sorted({"SampleCount", wanted.statistic}),
        )
        points = answer.get("Datapoints", [])
        samples = int(sum(point["SampleCount"] for point in points))
        if samples < wanted.samples:
            why = f"{self.name}: {samples} samples since the first shift, {wanted.samples} wanted"
            return Verdict("inconclusive", why, samples)
        value = _combined(wanted.statistic, points)
        figures = f"{self.name}: {wanted.statistic} {value:g} of {samples} samples"
        if wanted.above is not None and value > wanted.above:
            return Verdict("breach", f"{figures}, above {wanted.above:g}", samples)
        if wanted.below is not None and value < wanted.below:
            return Verdict("breach", f"{figures}, below {wanted.below:g}", samples)
        return Verdict("ok", figures, samples)


def _combined(statistic: str, points: Sequence[dict[str, float]]) -> float:
    values = [point[statistic] for point in points]
    if statistic == "Average":
        counts = [point["SampleCount"] for point in points]
        pairs = zip(values, counts, strict=True)
        return sum(value * count for value, count in pairs) / sum(counts)
    if statistic == "Minimum":
        return min(values)
    return max(values) if statistic == "Maximum" else sum(values)
