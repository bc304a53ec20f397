"""The registry: one name, one member, and an error that helps."""

import importlib
import sys

import pytest

from diffdecode.registry import Registry, UnknownName


@pytest.fixture
def fruit():
    registry = Registry("fruit")
    registry.register("pear", "yellow")
    registry.register("apple", "green")
    return registry


def test_a_member_is_registered_by_call_or_as_decorator_and_returned_unchanged():
    registry = Registry("function")

    @registry.register("double")
    def double(x):
        return 2 * x

    assert registry.register("triple", lambda x: 3 * x)(2) == 6
    assert double(2) == 4
    assert registry["double"] is double
    assert list(registry) == ["double", "triple"]


def test_it_is_a_mapping(fruit):
    assert "apple" in fruit
    assert "plum" not in fruit
    assert len(fruit) == 2
    assert dict(fruit) == {"apple": "green", "pear": "yellow"}
    assert list(fruit.items()) == [("apple", "green"), ("pear", "yellow")]
    assert fruit.get("plum") is None
    assert repr(fruit) == "<registry of fruit: apple, pear>"


def test_a_name_is_given_once(fruit):
    with pytest.raises(ValueError, match="a fruit named 'apple' exists already"):
        fruit.register("apple", "red")
    with pytest.raises(ValueError, match="a fruit named 'pear' exists already"):
        fruit.register("pear")(object())
    assert fruit["apple"] == "green"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aple", "unknown fruit 'aple'; did you mean 'apple'? known: apple, pear"),
        ("zucchini", "unknown fruit 'zucchini'; known: apple, pear"),
        (3, "unknown fruit 3; known: apple, pear"),
    ],
)
@pytest.mark.parametrize("error", [ValueError, KeyError, UnknownName])
def test_an_unknown_name_is_answered_with_the_known_ones(fruit, name, message, error):
    with pytest.raises(error) as caught:
        fruit[name]
    assert str(caught.value) == message


def test_an_empty_registry_says_so():
    with pytest.raises(UnknownName, match="unknown fruit 'apple'; known: none"):
        Registry("fruit")["apple"]


def test_a_new_file_in_the_folder_is_a_new_member(tmp_path, monkeypatch):
    folder = tmp_path / "orchard"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from diffdecode.registry import Registry, import_members\n"
        "FRUIT = Registry('fruit')\n"
        "import_members(__name__, __path__)\n"
    )
    (folder / "plum.py").write_text("from orchard import FRUIT\nFRUIT.register('plum', 'blue')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module("orchard").FRUIT["plum"] == "blue"
    monkeypatch.delitem(sys.modules, "orchard.plum")
    monkeypatch.delitem(sys.modules, "orchard")
