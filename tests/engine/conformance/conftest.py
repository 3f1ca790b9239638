"""Every test of this room runs for every engine that is here."""

from collections.abc import Iterator

import pytest

from p2pnode.engine.base import Engine
from tests.engine.conformance.engines import ENGINES, EngineCase, why_absent
from tests.engine.conformance.loader import Loader

_HERE = [case for case in ENGINES if not case.missing]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Function) -> None:
    """Skip an engine whose library does not load."""
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("engine_loader") if callspec else None
    if case and (reason := why_absent(case)):
        item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", params=_HERE, ids=lambda case: case.name)
def engine_loader(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loader]:
    loader = Loader(request.param, tmp_path_factory.mktemp("conformance"))
    yield loader
    loader.shut()


@pytest.fixture
def loader(engine_loader: Loader) -> Iterator[Loader]:
    yield engine_loader
    engine_loader.end_test()


@pytest.fixture
def case(loader: Loader) -> EngineCase:
    return loader.case


@pytest.fixture
def engine(loader: Loader) -> Engine:
    """The main model, whole."""
    return loader.shared()


@pytest.fixture
def middle(loader: Loader) -> Engine:
    """Layers 1 and 2 of the main model."""
    return loader.shared(layers=range(1, 3))
