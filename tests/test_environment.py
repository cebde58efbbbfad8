import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
LINES = (REPOSITORY / "constraints.txt").read_text().splitlines()
ENVIRONMENT = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
GROUPS = {"base": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}


def pins(lines) -> dict[str, str]:
    pairs = (line.split("==") for line in lines)
    return {canonicalize_name(name): number for name, number in pairs}


def named(*groups: str) -> dict[str, Requirement]:
    wanted = [Requirement(text) for group in groups for text in GROUPS[group]]
    return {canonicalize_name(requirement.name): requirement for requirement in wanted}


PINS = pins(line for line in LINES if "==" in line)
DIRECT = named(*GROUPS)


def pip_lines() -> list[str]:
    (lines,) = (entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict))
    return lines


@pytest.mark.parametrize("line", LINES)
def test_a_constraint_is_a_name_and_a_public_version(line):
    assert re.fullmatch(r"[A-Za-z0-9][\w.-]*==[0-9][\w.!]*", line)  # no path, no URL, no +local version


def test_no_package_is_constrained_twice():
    assert len(PINS) == len(LINES)


@pytest.mark.parametrize("name", sorted(DIRECT))
def test_a_dependency_is_constrained_to_a_version_that_pyproject_allows(name):
    assert DIRECT[name].specifier.contains(PINS[name], prereleases=True)


@pytest.mark.parametrize("name", sorted(DIRECT))
def test_the_installed_version_is_the_constrained_one(name):
    try:
        installed = version(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    assert installed.split("+")[0] == PINS[name]


def environment() -> dict[str, Requirement]:
    pinned = [Requirement(line) for line in pip_lines() if not line.startswith("-")]
    return {canonicalize_name(requirement.name): requirement for requirement in pinned}


def test_the_environment_pins_what_base_book_and_lab_name():
    wanted = named("base", "book", "lab")
    assert environment().keys() == wanted.keys()
    assert all(environment()[name].extras == requirement.extras for name, requirement in wanted.items())


def test_the_environment_pins_the_constrained_versions():
    assert {name: str(pin.specifier) for name, pin in environment().items()} == {
        name: f"=={PINS[name]}" for name in environment()
    }


def test_the_environment_installs_this_repository_under_its_constraints():
    assert [line for line in pip_lines() if line.startswith("-")] == ["-c constraints.txt", "-e ."]


def test_the_environment_takes_nothing_but_python_from_conda():
    assert ENVIRONMENT["name"] == "txt-book"
    assert ENVIRONMENT["channels"] == ["conda-forge", "nodefaults"]
    assert [entry for entry in ENVIRONMENT["dependencies"] if isinstance(entry, str)] == ["python=3.11", "pip", "make"]


def test_the_python_of_the_environment_is_one_that_pyproject_allows():
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains("3.11.5")
