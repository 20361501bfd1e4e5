"""What no linter sees of alarms: that none is missing, that each watches what there is, and what they cost."""

import re

import pytest

from local.template import REPOSITORY
from tests import stack

OPERATE = REPOSITORY / "docs" / "operate.md"
ALARMS = stack.of_type("AWS::CloudWatch::Alarm")
FREE_ALARMS = 10  # CloudWatch's always-free tier, https://aws.amazon.com/cloudwatch/pricing/
OVERDUE, DEAD_CALLBACKS = ALARMS["OverdueJobsAlarm"], ALARMS["DeadCallbacksAlarm"]
OPEN_CIRCUITS = ALARMS["OpenCircuitsAlarm"]
OF_OUR_OWN_METRICS = (OVERDUE, DEAD_CALLBACKS, OPEN_CIRCUITS)
DEAD_LETTERS = {
    stack.the_one(alarm["Dimensions"]): alarm for alarm in ALARMS.values() if alarm not in OF_OUR_OWN_METRICS
}


def dead_letter_queues() -> set[str]:
    """Where anything in the template puts what failed."""
    queues = stack.of_type("AWS::SQS::Queue").values()
    dead = {stack.the_one(queue["RedrivePolicy"]) for queue in queues if "RedrivePolicy" in queue}
    sources = stack.of_type("AWS::Lambda::EventSourceMapping").values()
    return dead | {name for source in sources for name in stack.resources_in(source.get("DestinationConfig", {}))}


def test_each_dead_letter_queue_has_an_alarm_of_its_own() -> None:
    assert set(DEAD_LETTERS) == dead_letter_queues()
    assert len(ALARMS) == len(DEAD_LETTERS) + len(OF_OUR_OWN_METRICS)


@pytest.mark.parametrize("queue", DEAD_LETTERS)
def test_a_single_dead_letter_raises_its_alarm_and_an_empty_queue_does_not(queue: str) -> None:
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


def test_a_circuit_that_is_open_for_ten_minutes_raises_an_alarm() -> None:
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


def test_a_single_dead_callback_raises_an_alarm_whoever_has_given_it_up() -> None:
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
def test_an_alarm_says_what_it_means_and_tells_the_topic_where_there_is_one(alarm: str) -> None:
    assert ALARMS[alarm]["AlarmDescription"]
    told = {"Fn::If": ["AlarmsAreTold", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    assert ALARMS[alarm]["AlarmActions"] == told


def test_the_alarms_cost_what_the_docs_say() -> None:
    assert len(ALARMS) <= FREE_ALARMS
    (told,) = re.findall(r"CloudWatch, (\d+) alarms .* \$0\.10 \| ([\d.]+) \|", OPERATE.read_text())
    assert told == (str(len(ALARMS)), f"{len(ALARMS) * 0.10:.2f}")
