"""That a request's trace goes on as it came, and that nothing else is taken for one."""

from contextvars import Context

import pytest

from servicekit.trace_context import add_trace_id, enter_trace, onward_trace

ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{ID}-b7ad6b7169203331-01"


def told_of(*headers: str) -> tuple[tuple[tuple[str, str], ...], object]:
    def run() -> tuple[tuple[tuple[str, str], ...], object]:
        # A connection's next request may run in what is left of the one before.
        enter_trace(["00-11111111111111111111111111111111-2222222222222222-00"])
        enter_trace(headers)
        return onward_trace(), add_trace_id(None, "info", {}).get("trace_id")

    return Context().run(run)


@pytest.mark.parametrize("parent", [PARENT, PARENT[:-1] + "0", f"cc-{PARENT[3:]}", f"cc-{PARENT[3:]}-more"])
def test_goes_on_as_it_came(parent: str) -> None:
    assert told_of(parent) == ((("traceparent", parent),), ID)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("",),
        (PARENT, PARENT),
        (f"{PARENT}-more",),
        (f"{PARENT} ",),
        (PARENT.upper(),),
        (f"ff-{PARENT[3:]}",),
        (PARENT.replace(ID, "0" * 32),),
        (PARENT.replace("b7ad6b7169203331", "0" * 16),),
        (f"cc-{PARENT[3:]}-{'a' * 300}",),
        (f"cc-{PARENT[3:]}-é",),
        ("nonsense",),
    ],
)
def test_takes_nothing_else_for_a_trace(headers: tuple[str, ...]) -> None:
    assert told_of(*headers) == ((), None)


def test_is_none_outside_of_requests() -> None:
    assert Context().run(onward_trace) == ()
