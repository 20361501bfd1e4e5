"""Alarms, beyond linters: none is missing, each watches an existing metric, and the docs state their cost."""

import re

import pytest

from local.template import REPOSITORY
from tests import stack

OPERATE = REPOSITORY / "docs" / "operate.md"
ALARMS = stack.of_type("AWS::CloudWatch::Alarm")
FREE_ALARMS = 10  # CloudWatch's always-free tier, https://aws.amazon.com/cloudwatch/pricing/
OVERDUE, DEAD_CALLBACKS = ALARMS["OverdueJobsAlarm"], ALARMS["DeadCallbacksAlarm"]
OPEN_CIRCUITS = ALARMS["OpenCircuitsAlarm"]
ON_GATEWAY_METRICS = (OVERDUE, DEAD_CALLBACKS, OPEN_CIRCUITS)
DEAD_LETTERS = {
    stack.single_resource(alarm["Dimensions"]): alarm for alarm in ALARMS.values() if alarm not in ON_GATEWAY_METRICS
}


def dead_letter_queues() -> set[str]:
    """Return every dead letter queue and failure destination of the template."""
    queues = stack.of_type("AWS::SQS::Queue").values()
    dead = {stack.single_resource(queue["RedrivePolicy"]) for queue in queues if "RedrivePolicy" in queue}
    sources = stack.of_type("AWS::Lambda::EventSourceMapping").values()
    return dead | {name for source in sources for name in stack.resources_in(source.get("DestinationConfig", {}))}


def test_each_dead_letter_queue_has_an_alarm() -> None:
    assert set(DEAD_LETTERS) == dead_letter_queues()
    assert len(ALARMS) == len(DEAD_LETTERS) + len(ON_GATEWAY_METRICS)


@pytest.mark.parametrize("queue", DEAD_LETTERS)
def test_one_dead_letter_raises_its_alarm_and_an_empty_queue_does_not(queue: str) -> None:
    alarm = DEAD_LETTERS[queue]
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": {"Fn::GetAtt": [queue, "QueueName"]}}]
    assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/SQS", "ApproximateNumberOfMessagesVisible")
    assert (alarm["Statistic"], alarm["ComparisonOperator"], alarm["Threshold"]) == (
        "Maximum",
        "GreaterThanThreshold",
        0,
    )
    assert alarm["TreatMissingData"] == "notBreaching"


def test_ten_minutes_without_a_sweep_raise_an_alarm() -> None:
    assert OVERDUE["TreatMissingData"] == "breaching"
    assert OVERDUE["Period"] * OVERDUE["EvaluationPeriods"] == 600
    variables = stack.variables("SweepFunction")
    assert variables["POWERTOOLS_METRICS_NAMESPACE"] == OVERDUE["Namespace"]
    assert {"Name": "service", "Value": variables["POWERTOOLS_SERVICE_NAME"]} in OVERDUE["Dimensions"]


def test_circuit_that_is_open_for_ten_minutes_raises_an_alarm() -> None:
    assert (OPEN_CIRCUITS["MetricName"], OPEN_CIRCUITS["Statistic"], OPEN_CIRCUITS["Threshold"]) == (
        "OpenCircuits",
        "Maximum",
        0,
    )
    assert OPEN_CIRCUITS["Period"] * OPEN_CIRCUITS["EvaluationPeriods"] == 600
    assert OPEN_CIRCUITS["TreatMissingData"] == "notBreaching"
    variables = stack.variables("SweepFunction")
    assert variables["POWERTOOLS_METRICS_NAMESPACE"] == OPEN_CIRCUITS["Namespace"]
    assert {"Name": "service", "Value": variables["POWERTOOLS_SERVICE_NAME"]} in OPEN_CIRCUITS["Dimensions"]


def test_one_dead_callback_raises_an_alarm() -> None:
    """Both functions that give up callbacks publish the metric."""
    assert (DEAD_CALLBACKS["MetricName"], DEAD_CALLBACKS["Statistic"], DEAD_CALLBACKS["Threshold"]) == (
        "DeadCallbacks",
        "Sum",
        0,
    )
    assert DEAD_CALLBACKS["TreatMissingData"] == "notBreaching"
    for function in ("ReplyFunction", "SweepFunction"):
        variables = stack.variables(function)
        assert variables["POWERTOOLS_METRICS_NAMESPACE"] == DEAD_CALLBACKS["Namespace"]
        assert {"Name": "service", "Value": variables["POWERTOOLS_SERVICE_NAME"]} in DEAD_CALLBACKS["Dimensions"]


@pytest.mark.parametrize("alarm", ALARMS)
def test_alarm_has_a_description_and_notifies_the_configured_topic(alarm: str) -> None:
    assert ALARMS[alarm]["AlarmDescription"]
    actions = {"Fn::If": ["AlarmsAreTold", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    assert ALARMS[alarm]["AlarmActions"] == actions


def test_alarms_cost_what_the_docs_state() -> None:
    assert len(ALARMS) <= FREE_ALARMS
    (cost,) = re.findall(r"CloudWatch, (\d+) alarms .* \$0\.10 \| ([\d.]+) \|", OPERATE.read_text())
    assert cost == (str(len(ALARMS)), f"{len(ALARMS) * 0.10:.2f}")
