"""The leases' stack: a table that nobody loses by mistake."""

from __future__ import annotations

from tests.infrastructure.rendering import render

TABLE = "AWS::DynamoDB::Table"


def test_the_table_outlives_its_stack_and_can_be_brought_back() -> None:
    table = render("leases").one(TABLE)
    assert table.outlives_its_stack
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_the_table_is_encrypted() -> None:
    assert render("leases").one(TABLE)["SSESpecification"]["SSEEnabled"] is True


def test_an_environment_has_one_lease() -> None:
    table = render("leases").one(TABLE)
    assert table["KeySchema"] == [{"AttributeName": "environment", "KeyType": "HASH"}]
    assert table["AttributeDefinitions"] == [{"AttributeName": "environment", "AttributeType": "S"}]


def test_nobody_pays_for_a_table_that_is_at_rest() -> None:
    assert render("leases").one(TABLE)["BillingMode"] == "PAY_PER_REQUEST"


def test_the_stack_makes_nothing_else_and_names_the_table() -> None:
    stack = render("leases", Table="their-leases")
    assert list(stack.resources) == ["Leases"]
    assert stack.one(TABLE)["TableName"] == "their-leases"
    assert stack.outputs["Table"] == {"Ref": "Leases"}
