from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_lungfm._core.config import parse_model, read_yaml
from napari_lungfm._core.exceptions import ConfigError, InputFileError


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(default=1, ge=1)


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = "a"
    parts: tuple[Part, ...] = ()

    @model_validator(mode="after")
    def _named(self) -> "Whole":
        if self.name == "b":
            msg = "b is taken"
            raise ValueError(msg)
        return self


def test_values_become_a_model() -> None:
    assert parse_model(Whole, {"parts": [{"size": 3}]}, "x.yaml").parts == (Part(size=3),)


def test_every_wrong_key_is_named_with_its_place_in_one_line() -> None:
    with pytest.raises(ConfigError) as problem:
        parse_model(Whole, {"nam": "a", "parts": [{"size": 1}, {"size": 0}]}, "x.yaml")
    message = str(problem.value)
    assert message.startswith("x.yaml: ")
    assert "parts.1.size: it must be greater" in message
    assert "; there is no key 'nam'; did you mean 'name'?" in message
    assert "\n" not in message


class Round(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Literal["round"] = "round"
    radius: float = 1.0


class Square(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Literal["square"] = "square"
    side: float = 1.0


class Drawing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    shape: Annotated[Round | Square, Field(discriminator="name")]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"name": "round", "radiu": 2}, "shape has no key 'radiu'; did you mean 'radius'?"),
        ({"name": "round", "side": 2}, "shape has no key 'side'; its keys: name, radius"),
        ({"name": "square", "side": "x"}, "shape.side: write a number, not 'x'"),
        ({"name": "oval"}, "shape: there is no name 'oval', only 'round', 'square'"),
        ({"side": 2}, "shape: say its name"),
    ],
)
def test_a_key_is_looked_for_in_the_kind_that_was_chosen(shape, said) -> None:
    with pytest.raises(ConfigError) as problem:
        parse_model(Drawing, {"shape": shape}, "x.yaml")
    assert str(problem.value) == f"x.yaml: {said}"


def test_what_fits_not_together_is_said_without_a_place() -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml: b is taken$"):
        parse_model(Whole, {"name": "b"}, "x.yaml")


def test_other_things_than_mappings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^a list: write a mapping, .*, not a list$"):
        parse_model(Whole, [1], "a list")


def test_a_file_of_settings_is_a_mapping_or_is_refused_in_one_line(tmp_path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("a: [1, 2]\n", encoding="utf-8")
    assert read_yaml(file) == {"a": [1, 2]}
    for content, problem in (
        (b"- 1\n", "a mapping of keys to values is expected"),
        (b"", "a mapping"),
        (b"a: [", "is not valid YAML"),
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=problem) as error:
            read_yaml(file)
        assert "\n" not in str(error.value)
    file.write_bytes(b"\xff\xfe\x00")
    for path in (file, tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputFileError, match="cannot be read"):
            read_yaml(path)
