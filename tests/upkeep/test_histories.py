"""Whatever happened to a router, it is the one that was fitted on what is left: the same bytes."""

import hashlib
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ir3de.routers import RidgeRouter, load_router
from tests.helpers.counts import random_share, statistics
from tests.helpers.text import embeddings

NAMES = ("biology", "code", "law", "maths")
SHARES = {i: random_share(i, validation=i % 3 * 4) for i in range(8)}  # some without validation data

# Each step takes one of the shares; a share is used once, since its sources may not be read twice.
STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "merge", "save"]), st.sampled_from(NAMES), st.integers(0, 7)),
    max_size=8,
)


def _router():
    return RidgeRouter(embeddings=embeddings(), regularization=0.1)


def _fitted(shares):
    router = _router()
    router.fit(statistics(shares))
    return router


def _bytes(router, folder):
    router.save_pretrained(folder)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_any_history_ends_in_the_bytes_of_a_fit_on_what_is_left(steps):
    left = {"code": [0], "law": [1]}
    router = _fitted({name: SHARES[i] for name, (i,) in left.items()})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for kind, name, i in steps:
            used = any(i in numbers for numbers in left.values())
            if kind == "add" and name not in left and not used:
                router.add_expert(name, SHARES[i])
                left[name] = [i]
            elif kind == "remove" and name in left and len(left) > 1:
                router.remove_expert(name)
                del left[name]
            elif kind == "merge" and not used:
                router.merge(_fitted({name: SHARES[i]}))
                left.setdefault(name, []).append(i)
            elif kind == "save":
                router.save_pretrained(folder / "router")
                router = load_router(folder / "router")
        expected = {}
        for name, numbers in left.items():
            for i in reversed(numbers):
                expected[name] = SHARES[i] + expected[name] if name in expected else SHARES[i]
        assert _bytes(router, folder / "router") == _bytes(_fitted(expected), folder / "expected")
        assert router.identity_hash() == _fitted(expected).identity_hash()
