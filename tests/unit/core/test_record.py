"""Record: a msgspec Struct that takes faust's class options, or refuses them by name."""

from __future__ import annotations

import gc
import inspect
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, Optional

import faust
import msgspec
import pytest
from faust.models.fields import StringField

from headwater.core.errors import MisuseError, ValueRefusedError
from headwater.core.record import Record
from headwater.core.record_meta import RecordMeta
from headwater.core.values import codec_for


class Click(Record):
    user: str
    amount: float
    tags: list[str] = []  # noqa: RUF012 (msgspec copies it for each record)


def test_a_record_is_built_compared_and_shown() -> None:
    click = Click("u1", amount=3.5)
    assert click == Click(user="u1", amount=3.5, tags=[])
    assert click.tags is not Click("u2", 1.0).tags
    assert repr(click) == "Click(user='u1', amount=3.5, tags=[])"
    assert click.asdict() == click.to_representation() == {"user": "u1", "amount": 3.5, "tags": []}
    with pytest.raises(TypeError, match="amount"):
        Click("u1")  # type: ignore[call-arg]


def test_a_record_goes_to_bytes_and_back_as_in_faust() -> None:
    click = Click("u1", 3.5, ["a"])
    data = click.dumps()
    assert data == b'{"user":"u1","amount":3.5,"tags":["a"]}'
    assert Click.loads(data) == Click.loads(data.decode()) == click
    assert Click.loads(b'{"user":"u1","amount":3.5,"tags":["a"],"new":1,"__faust":{"ns":"x"}}') == click
    assert Click.from_data({"user": "u1", "amount": 3.5, "tags": ["a"], "new": 1}) == click
    assert Click.from_data(click) is click
    with pytest.raises(ValueRefusedError, match="amount"):
        Click.loads(b'{"user":"u1"}')
    with pytest.raises(ValueRefusedError, match="amount"):
        Click.from_data({"user": "u1", "amount": "x"})


def test_derive_changes_a_copy() -> None:
    click = Click("u1", 3.5)
    assert click.derive(amount=4.0) == Click("u1", 4.0)
    assert click.derive(Click("u2", 5.0), amount=6.0) == Click("u2", 6.0)
    assert click == Click("u1", 3.5)


def test_validate_says_what_is_wrong_with_a_record_made_by_hand() -> None:
    good, bad = Click("u1", 3.5), Click(7, 3.5)  # type: ignore[arg-type]
    assert (good.is_valid(), good.validate(), good.validation_errors) == (True, [], [])
    assert not bad.is_valid()
    assert "user" in str(bad.validation_errors[0])
    good.validate_or_raise()
    with pytest.raises(ValueRefusedError, match="user"):
        bad.validate_or_raise()


def test_the_options_of_faust_that_mean_the_same_are_taken() -> None:
    class Order(
        Record, serializer="json", namespace="shop.Order", include_metadata=False, isodates=True, decimals=True,
        coerce=True, validation=True, abstract=False, allow_blessed_key=False, polymorphic_fields=False, date_parser=None,
        coercions=None, lazy_creation=False,
    ):  # fmt: skip
        at: datetime
        price: Decimal
        count: int

    options = Order.__record_options__  # type: ignore[attr-defined]
    assert (options.namespace, options.serializer, options.coerce, options.validation) == (
        "shop.Order",
        "json",
        True,
        True,
    )
    order = Order.loads(b'{"at":"2013-10-01T04:00:00Z","price":"1.10","count":"3"}')
    assert order == Order(datetime(2013, 10, 1, 4, tzinfo=UTC), Decimal("1.10"), 3)
    assert Order.loads(order.dumps()) == order


def test_options_are_inherited_as_in_faust_but_for_the_name() -> None:
    class Lax(Record, coerce=True, namespace="lax"):
        count: int

    class Child(Lax):
        more: int

    assert Child.loads(b'{"count":"1","more":"2"}') == Child(1, 2)
    assert Child.__record_options__.namespace.endswith("Child")  # type: ignore[attr-defined]

    class Strict(Lax, coerce=False):
        pass

    with pytest.raises(ValueRefusedError, match="count"):
        Strict.loads(b'{"count":"1"}')


def test_validation_implies_coerce_as_in_faust() -> None:
    class Checked(Record, validation=True):
        count: int

    assert Checked.loads(b'{"count":"1"}') == Checked(1)


def test_an_inner_class_of_options_is_read_as_in_faust() -> None:
    class Old(Record):
        count: int

        class Options:
            coerce = True

    assert Old.loads(b'{"count":"1"}') == Old(1)
    assert Old.__struct_fields__ == ("count",)


@pytest.mark.parametrize(
    ("option", "value", "instead"),
    [
        ("include_metadata", True, "leave the option out"),
        ("allow_blessed_key", True, "tag=True"),
        ("polymorphic_fields", True, "tag=True"),
        ("lazy_creation", True, "leave the option out"),
        ("coercions", {int: int}, "property"),
        ("date_parser", datetime.fromisoformat, "ISO 8601"),
        ("serializer", "pickle", "value_type=bytes"),
    ],
)
def test_the_options_of_faust_that_mean_something_else_are_refused_by_name(
    option: str, value: Any, instead: str
) -> None:
    with pytest.raises(MisuseError, match=f"class Wrong: Record can't have {option}") as caught:
        RecordMeta(
            "Wrong", (Record,), {"__annotations__": {"a": int}, "__module__": __name__}, **{option: value}
        )
    assert instead in str(caught.value)


def test_every_class_option_of_faust_is_known_here() -> None:
    for option in inspect.signature(faust.Record.__init_subclass__).parameters:
        if option == "kwargs":
            continue
        RecordMeta("Made", (Record,), {"__annotations__": {}, "__module__": __name__}, **{option: None})
    with pytest.raises(TypeError):
        RecordMeta("Made", (Record,), {"__annotations__": {}, "__module__": __name__}, cooerce=True)


def test_a_faust_field_descriptor_is_refused_with_what_to_write() -> None:
    with pytest.raises(MisuseError, match=r"field 'name' is a faust StringField; .*msgspec\.Meta"):

        class Wrong(Record):
            name: str = StringField(max_length=3)


def test_an_abstract_record_has_no_instances_but_its_subclasses_have() -> None:
    class Base(Record, abstract=True):
        user: str

    class Child(Base):
        amount: float

    assert Child("u", 1.0) == Child.loads(b'{"user":"u","amount":1}')
    with pytest.raises(MisuseError, match="Base is declared abstract"):
        Base("u")
    with pytest.raises(ValueRefusedError):
        codec_for(Base).decode(b'{"user":"u"}')


def test_the_options_of_msgspec_go_through_and_gc_is_off_unless_asked_for() -> None:
    class Frozen(Record, frozen=True, order=True, rename="camel", omit_defaults=True):
        first_name: str
        age: int = 0

    assert Frozen("a").dumps() == b'{"firstName":"a"}'
    assert hash(Frozen("a")) == hash(Frozen("a"))
    assert Frozen("a") < Frozen("b")
    with pytest.raises(AttributeError):
        Frozen("a").age = 3  # type: ignore[misc]

    class Tracked(Record, gc=True):
        items: list[int]

    assert not gc.is_tracked(Click("u", 1.0, ["a"]))
    assert gc.is_tracked(Tracked([1]))


def test_records_of_several_types_share_a_topic_by_tags() -> None:
    class Opened(Record, tag=True):
        user: str

    class Closed(Record, tag=True):
        user: str

    codec = codec_for(Opened | Closed)
    assert codec.decode(codec.encode(Closed("u"))) == Closed("u")


def test_optional_fields_need_not_be_given_as_in_faust() -> None:
    class Loose(Record):
        first: Optional[str]  # noqa: UP045 (as faust apps write it)
        second: int
        third: int | None
        fourth: ClassVar[int] = 4

    class Stock(faust.Record):
        first: Optional[str]  # noqa: UP045
        second: int

    # The required ones come first in the signature, in both.
    assert Stock(2).asdict() == {"first": None, "second": 2}
    loose: Any = Loose
    assert loose(2).asdict() == {"first": None, "second": 2, "third": None}
    assert loose.loads(b'{"second":2}') == loose(2)


def test_a_subclass_may_add_required_fields_below_defaults() -> None:
    class Child(Click):
        extra: int  # type: ignore[misc]  # type checkers don't know that it is keyword-only

    assert Child("u", 1.0, extra=3) == Child.loads(b'{"user":"u","amount":1,"extra":3}')


def test_a_record_nested_in_others_comes_back() -> None:
    class Basket(Record):
        owner: str
        clicks: list[Click]
        best: Click | None = None

    basket = Basket("o", [Click("u", 1.0)], Click("v", 2.0))
    assert Basket.loads(basket.dumps()) == basket
    assert isinstance(basket, msgspec.Struct)
