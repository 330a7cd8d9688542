"""The stack of a function: a role that may do little, an alarm on its alias, logs that stay."""

from __future__ import annotations

from tests.infrastructure.rendering import Stack, as_list, render

SECRET = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:shop/database"
PARAMETER = "arn:aws:ssm:eu-west-1:111122223333:parameter/shop/level"


def function(**more: str) -> Stack:
    return render("service-lambda", Name="shop", Url="https://shop.example.test", **more)


def test_nothing_is_allowed_on_everything() -> None:
    stack = function(SecretArns=f"{SECRET}-a,{SECRET}-b", ParameterArns=PARAMETER)
    assert stack.everywhere() == set()
    may = {
        action: statement["Resource"]
        for statement in stack.statements("ExecutionRole")
        for action in as_list(statement["Action"])
    }
    logs = {"Fn::GetAtt": ["Logs", "Arn"]}
    assert may == {
        "logs:CreateLogStream": logs,
        "logs:PutLogEvents": logs,
        "secretsmanager:GetSecretValue": [f"{SECRET}-a", f"{SECRET}-b"],
        "ssm:GetParameters": [PARAMETER],
    }


def test_a_function_without_secrets_may_write_its_log_and_no_more() -> None:
    (statement,) = function().statements("ExecutionRole")
    assert statement["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]


def test_the_role_is_taken_by_lambda_alone() -> None:
    (trust,) = function().one("AWS::IAM::Role")["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "lambda.amazonaws.com"}


def test_the_alarm_watches_the_alias_that_has_the_traffic() -> None:
    stack = function(Alias="production", ErrorsPerMinute="2")
    alarm = stack.one("AWS::CloudWatch::Alarm")
    dimensions = {one["Name"]: one["Value"] for one in alarm["Dimensions"]}
    assert dimensions == {"FunctionName": "shop", "Resource": "shop:production"}
    assert (alarm["MetricName"], alarm["Statistic"], alarm["Threshold"]) == ("Errors", "Sum", "2")
    assert alarm["TreatMissingData"] == "notBreaching"
    assert stack.outputs["Alarms"] == {"Ref": "ErrorsAlarm"}


def test_logs_outlive_the_stack_and_end_some_day() -> None:
    logs = function(LogDays="7").one("AWS::Logs::LogGroup")
    assert logs.outlives_its_stack
    assert logs["RetentionInDays"] == "7"


def test_the_releases_are_not_in_the_stack() -> None:
    assert not [one for one in function().resources.values() if "::Lambda::" in one.kind]
