import pytest

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm.benchmark.overrides import apply_overrides

VALUES = {
    "name": "a",
    "seeds": [0],
    "methods": [{"model": "x"}, {"model": "y", "options": {"k": 1}}],
}


@pytest.mark.parametrize(
    ("change", "read", "expected"),
    [
        ("name=b", lambda v: v["name"], "b"),
        ("seeds=[1, 2]", lambda v: v["seeds"], [1, 2]),
        ("seeds.0=7", lambda v: v["seeds"], [7]),
        ("methods.1.options.k=0.5", lambda v: v["methods"][1]["options"], {"k": 0.5}),
        ("methods.-1.model=z", lambda v: v["methods"][1]["model"], "z"),
        ("methods.0.options.new={a: [1]}", lambda v: v["methods"][0]["options"]["new"], {"a": [1]}),
        ("name=a=b", lambda v: v["name"], "a=b"),
        ("name=", lambda v: v["name"], None),
    ],
)
def test_a_change_is_made_where_its_key_leads(change, read, expected):
    before = repr(VALUES)
    assert read(apply_overrides(VALUES, [change])) == expected
    assert repr(VALUES) == before


def test_changes_are_made_in_order():
    changed = apply_overrides(VALUES, ["methods=[{model: p}]", "methods.0.model=q"])
    assert changed["methods"] == [{"model": "q"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("name", "write KEY=VALUE"),
        ("=1", "write KEY=VALUE"),
        ("a..b=1", "write KEY=VALUE"),
        ("seeds.3=1", r"seeds has 1 entries \(0 to 0\), no 3"),
        ("methods.two.model=x", "methods is a list; write a number .*, not 'two'"),
        ("name.first=x", "name is 'a', which has no 'first' in it"),
        ("methods.0.model.x.y=1", "methods.0.model is 'x', which has no 'x' in it"),
        ("seeds=[1", "the value is not valid YAML"),
    ],
)
def test_what_leads_nowhere_is_one_line(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        apply_overrides(VALUES, [change])
    assert "\n" not in str(caught.value)
