"""The stack of a service on ECS: roles that may do little, doors for one caller, alarms."""

from __future__ import annotations

import pytest

from tests.infrastructure.rendering import BadParameter, Resource, Stack, as_list, render

ROLE, ALARM = "AWS::IAM::Role", "AWS::CloudWatch::Alarm"
GROUP, TARGETS = "AWS::EC2::SecurityGroup", "AWS::ElasticLoadBalancingV2::TargetGroup"
REPOSITORY = "arn:aws:ecr:eu-west-1:111122223333:repository/shop"
SECRET = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:shop/database"
PARAMETER = "arn:aws:ssm:eu-west-1:111122223333:parameter/shop/level"


def service(**more: str) -> Stack:
    given = {
        "Name": "shop",
        "Vpc": "vpc-1",
        "PrivateSubnets": "subnet-3,subnet-4",
        "Cluster": "shop",
        "Listener": "arn:aws:elasticloadbalancing:eu-west-1:111122223333:listener/app/shop/1/2",
        "Balancer": "app/shop/1",
        "BalancerGroup": "sg-balancer",
        "Url": "https://shop.example.test",
    }
    return render("service-ecs", **{**given, **more})


def everything() -> Stack:
    return service(Repository=REPOSITORY, SecretArns=SECRET, ParameterArns=PARAMETER)


def allowed(stack: Stack, role: str) -> dict[str, list[object]]:
    """What a role may do, and to what."""
    return {
        action: as_list(statement["Resource"])
        for statement in stack.statements(role)
        for action in as_list(statement["Action"])
    }


def test_only_what_aws_cannot_narrow_is_allowed_on_everything() -> None:
    assert everything().everywhere() == {
        "ecr:GetAuthorizationToken",
        "elasticloadbalancing:DescribeListeners",
        "elasticloadbalancing:DescribeRules",
        "elasticloadbalancing:DescribeTargetGroups",
        "elasticloadbalancing:DescribeTargetHealth",
    }


def test_roles_are_taken_by_ecs_and_for_this_account_alone() -> None:
    for role in everything().of(ROLE):
        (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Principal"]["Service"] in ("ecs-tasks.amazonaws.com", "ecs.amazonaws.com")
        assert trust["Condition"] == {
            "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
        }, role.name


def test_what_a_task_is_started_with_is_named() -> None:
    may = allowed(everything(), "ExecutionRole")
    assert may.pop("ecr:GetAuthorizationToken") == ["*"]
    assert may == {
        "logs:CreateLogStream": [{"Fn::GetAtt": ["Logs", "Arn"]}],
        "logs:PutLogEvents": [{"Fn::GetAtt": ["Logs", "Arn"]}],
        "ecr:BatchGetImage": [REPOSITORY],
        "ecr:GetDownloadUrlForLayer": [REPOSITORY],
        "secretsmanager:GetSecretValue": [SECRET],
        "ssm:GetParameters": [PARAMETER],
    }


def test_a_service_without_secrets_may_read_none() -> None:
    assert set(allowed(service(), "ExecutionRole")) == {"logs:CreateLogStream", "logs:PutLogEvents"}


def test_the_release_itself_may_do_nothing() -> None:
    assert everything().statements("TaskRole") == []


def test_ecs_moves_this_services_traffic_and_no_other() -> None:
    may = allowed(service(), "BalancerRole")
    assert may["elasticloadbalancing:ModifyRule"][1] == {"Ref": "Rule"}
    assert may["elasticloadbalancing:RegisterTargets"] == [
        {"Ref": "TargetGroupA"},
        {"Ref": "TargetGroupB"},
    ]


def test_tasks_are_reached_by_the_balancer_alone_and_on_their_port() -> None:
    (rule,) = service(Port="9000").one(GROUP)["SecurityGroupIngress"]
    assert rule["SourceSecurityGroupId"] == "sg-balancer"
    assert not {"CidrIp", "CidrIpv6", "SourcePrefixListId"} & rule.keys()
    assert (rule["FromPort"], rule["ToPort"]) == ("9000", "9000")


def test_both_sides_are_checked_alike_and_only_one_has_traffic() -> None:
    stack = service(HealthPath="/ready")
    blue, green = ({**group.properties, "Name": ""} for group in stack.of(TARGETS))
    assert blue == green
    assert blue["HealthCheckPath"] == "/ready"
    (action,) = stack.one("AWS::ElasticLoadBalancingV2::ListenerRule")["Actions"]
    weights = [group["Weight"] for group in action["ForwardConfig"]["TargetGroups"]]
    assert weights == [100, 0]


def _watched(alarm: Resource) -> tuple[str, str]:
    dimensions = {one["Name"]: one["Value"] for one in alarm["Dimensions"]}
    target = dimensions.get("TargetGroup", {"Fn::GetAtt": ["all"]})
    return alarm["MetricName"], target["Fn::GetAtt"][0]


def test_errors_and_the_health_of_both_sides_are_alarms_that_a_rollout_is_told_of() -> None:
    stack = service(ErrorsPerMinute="9")
    alarms = stack.of(ALARM)
    assert {_watched(alarm) for alarm in alarms} == {
        ("HTTPCode_Target_5XX_Count", "all"),
        ("UnHealthyHostCount", "TargetGroupA"),
        ("UnHealthyHostCount", "TargetGroupB"),
    }
    assert stack.resources["ErrorsAlarm"]["Threshold"] == "9"
    # A service that nobody asks anything is no reason to roll back.
    assert {alarm["TreatMissingData"] for alarm in alarms} == {"notBreaching"}
    told = {one["Ref"] for one in stack.outputs["Alarms"]["Fn::Join"][1]}
    assert told == {alarm.name for alarm in alarms}


def test_logs_outlive_the_stack_and_end_some_day() -> None:
    logs = service(LogDays="90").one("AWS::Logs::LogGroup")
    assert logs.outlives_its_stack
    assert logs["RetentionInDays"] == "90"


@pytest.mark.parametrize(
    ("parameter", "wrong"), [("LogDays", "2"), ("Repository", "shop"), ("Name", "x" * 31)]
)
def test_what_aws_would_refuse_half_way_is_refused_before(parameter: str, wrong: str) -> None:
    with pytest.raises(BadParameter, match=parameter):
        service(**{parameter: wrong})
