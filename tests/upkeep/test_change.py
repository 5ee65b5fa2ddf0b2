"""Experts are added, removed, merged and verified as commands; every change is whole or has not happened."""

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ir3de import files
from ir3de.commands import COMMANDS
from ir3de.routers import KNNRouter, LogisticRegressionRouter, RidgeRouter, TokenMeans, load_router
from ir3de.routers.artifact import changing
from ir3de.statistics.feature_rows import DomainRows, FeatureRows
from ir3de.upkeep.certificate import certify
from ir3de.upkeep.change import add_expert, merge, remove_expert
from ir3de.upkeep.inspect import inspect
from ir3de.upkeep.verify import verify
from tests.helpers.counts import random_share, share, statistics
from tests.helpers.models import save_model
from tests.helpers.text import embeddings

ROOT = Path(__file__).parents[2]


def write_texts(folder, words, *, documents=40, seed=0):
    """Write text files of the given word numbers."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    for i in range(documents):
        (folder / f"{i}.txt").write_text(" ".join(f"w{rng.choice(words)}" for _ in range(40)))
    return str(folder)


def save(folder, shares, **router):
    """Save a router of some shares, with the certificate of its fit."""
    fitted = RidgeRouter(embeddings=embeddings(), **router)
    fitted.fit(statistics(shares))
    fitted.save_pretrained(folder)
    certify(folder, "fit")
    return str(folder)


def hashes(folder):
    """Return the SHA-256 of the files that are the router; certificates and card tell its history."""
    paths = [path for path in Path(folder).iterdir() if path.is_file() and path.name != "README.md"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture
def router(tmp_path):
    return save(tmp_path / "router", {"code": random_share(0), "law": random_share(1)})


def test_an_expert_is_added_routed_to_removed_and_proved_to_be_gone(tmp_path, router):
    before = hashes(router)
    data = write_texts(tmp_path / "biology", [3, 7, 11])
    added = add_expert(router, "biology", data, expert="hub/biology", block_length=8, cache_dir=str(tmp_path / "cache"))
    loaded = load_router(router)
    assert loaded.expert_names == ("biology", "code", "law")
    assert loaded.route(["w3 w7 w7 w11"]).names == ["biology"]
    assert loaded.models == {"biology": "hub/biology"}
    assert loaded.unchecked == [], "its validation split is kept, and was chosen on"
    assert added.name == "0001-add-biology.json"
    failed = [check.what for check in verify(router, str(added.parent / "0000-fit.json")) if check.holds is False]
    assert "counts of biology" in failed
    remove_expert(router, "biology")
    assert hashes(router) == before
    assert all(check.holds for check in verify(router, str(added.parent / "0000-fit.json")))


@pytest.mark.parametrize("make", [KNNRouter, LogisticRegressionRouter])
def test_a_router_on_vectors_goes_through_the_same_commands(tmp_path, make, capsys):
    fitted = make(features=TokenMeans(save_model(tmp_path / "model")))
    generator = np.random.default_rng(0)
    shares = {name: DomainRows(generator.random((9, 16), "f4"), generator.random((4, 16), "f4")) for name in ("a", "b")}
    fitted.fit(FeatureRows(shares, fitted.basis()))
    router = str(tmp_path / "router")
    fitted.save_pretrained(router)
    before, certificate = hashes(router), str(certify(Path(router), "fit"))
    text = write_texts(tmp_path / "text", range(5, 15))
    COMMANDS["add-expert"](["--router", router, "--name", "new", "--data", text])
    assert load_router(router).expert_names == ("a", "b", "new")
    COMMANDS["inspect"](["--router", router])
    assert "new" in capsys.readouterr().out
    COMMANDS["remove-expert"](["--router", router, "--name", "new"])
    COMMANDS["verify"](["--router", router, "--against", certificate])
    assert hashes(router) == before
    assert "verified" in capsys.readouterr().out


def test_adding_is_the_fit_that_knew_it_all_along(tmp_path, router):
    data = write_texts(tmp_path / "biology", [3, 7, 11])
    add_expert(router, "biology", data, block_length=8, cache_dir=str(tmp_path / "cache"))
    counts = load_router(router).statistics
    together = save(tmp_path / "together", dict(reversed(counts.shares.items())))
    assert hashes(router) == hashes(together)
    assert all(check.holds for check in verify(router, together))


def test_routers_of_two_teams_merge_to_the_router_of_all_their_text(tmp_path):
    shares = [random_share(i) for i in range(4)]
    teams = [
        save(tmp_path / "a", {"code": shares[0], "law": shares[1]}),
        save(tmp_path / "b", {"code": shares[2], "maths": shares[3]}),
    ]
    merge(teams, str(tmp_path / "ab"))
    merge(teams[::-1], str(tmp_path / "ba"))
    everything = {"code": shares[0] + shares[2], "law": shares[1], "maths": shares[3]}
    expected = hashes(save(tmp_path / "all", everything))
    assert hashes(tmp_path / "ab") == hashes(tmp_path / "ba") == expected


def test_inspection_tells_experts_and_their_tokens(tmp_path):
    shares = {"code": share([9, 0, 90] + [1] * 17), "law": share([0, 99, 0] + [1] * 17)}
    summary = inspect(save(tmp_path / "router", shares, selector="mean"))
    telling = {one.name: one.telling for one in summary.experts}
    assert (telling["code"], telling["law"]) == (["w2", "w0"], ["w1"])
    assert [one.facts["tokens"] for one in summary.experts] == [116, 116]
    assert summary.effective_regularization > 0


@pytest.mark.parametrize("arguments, message", [
    (["add-expert", "--name", "code", "--data", "nowhere"], "`code` exists already"),
    (["add-expert", "--name", "x", "--data", "nowhere"], "Expected a file or a folder at `nowhere`"),
    (["remove-expert", "--name", "x"], "there is no `x`"),
])  # fmt: skip
def test_mistakes_change_nothing(router, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = hashes(router)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        COMMANDS[arguments[0]](["--router", router, *arguments[1:]])
    assert hashes(router) == before
    assert len(list(Path(router, "certificates").iterdir())) == 1


def test_the_last_expert_stays(tmp_path):
    router = save(tmp_path / "router", {"code": random_share(0)})
    with pytest.raises(ValueError, match="`code` is the last one"):
        remove_expert(router, "code")


@pytest.mark.parametrize("other, message", [
    ({"regularization": 3.0}, "with the same settings"),
    ({"embeddings": embeddings(seed=1)}, "they differ in embeddings"),
    ({"embeddings": embeddings(21)}, "they differ in tokenizer and vocab_size and embeddings"),
], ids=["settings", "table", "tokenizer"])  # fmt: skip
def test_routers_that_were_not_made_alike_do_not_merge(tmp_path, router, other, message):
    fitted = RidgeRouter(**{"embeddings": embeddings()} | other)
    words = len(fitted.embeddings.table_VD)
    fitted.fit(
        statistics({"x": random_share(5, num_words=words), "y": random_share(6, num_words=words)}, num_words=words)
    )
    fitted.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=message):
        merge([router, str(tmp_path / "other")], str(tmp_path / "merged"))
    assert not (tmp_path / "merged").exists()


def test_text_that_was_read_already_is_refused(tmp_path, router):
    shutil.copytree(router, tmp_path / "copy")
    with pytest.raises(ValueError, match="4 of 4 sources of `code` have been read already, for `code`"):
        merge([router, str(tmp_path / "copy")], str(tmp_path / "merged"))


def test_a_certificate_that_does_not_match_is_told_apart(tmp_path, router):
    certificate = Path(router, "certificates", "0000-fit.json")
    content = json.loads(certificate.read_text())
    content["identity"]["experts"]["law"]["counts"] = "0" * 64
    content["identity_hash"] = "0" * 64
    (tmp_path / "forged.json").write_text(json.dumps(content))
    failed = {check.what for check in verify(router, str(tmp_path / "forged.json")) if check.holds is False}
    assert failed == {"counts of law", "identity"}
    with pytest.raises(ValueError, match=r"is not the router of .*forged.json`: counts of law, identity differ"):
        COMMANDS["verify"](["--router", router, "--against", str(tmp_path / "forged.json")])
    (tmp_path / "forged.json").write_text("{}")
    with pytest.raises(ValueError, match="it holds none"):
        verify(router, str(tmp_path / "forged.json"))


def test_on_another_platform_the_counts_are_proved_and_the_bytes_are_not_promised(tmp_path, router):
    certificate = Path(router, "certificates", "0000-fit.json")
    content = json.loads(certificate.read_text()) | {"platform": {"machine": "abacus"}, "router_hash": "0" * 64}
    certificate.write_text(json.dumps(content))
    checks = {check.what: check.holds for check in verify(router, str(certificate))}
    assert checks.pop("solved router, byte for byte") is None
    assert set(checks.values()) == {True}


def test_a_router_that_was_not_solved_from_its_counts_is_found_out(tmp_path, router):
    loaded = load_router(router)
    loaded.weight_DE = loaded.weight_DE + 1e-9
    loaded.save_pretrained(tmp_path / "changed")
    failed = {check.what for check in verify(str(tmp_path / "changed"), router) if check.holds is False}
    assert failed == {"solved again from its counts, here", "solved router, byte for byte"}


def test_two_commands_do_not_change_a_router_at_once(router):
    with changing(Path(router)), pytest.raises(ValueError, match="Another command is changing the router"):
        remove_expert(router, "law")
    remove_expert(router, "law")


def test_a_full_disk_leaves_the_old_router(tmp_path, router, monkeypatch):
    before, written = hashes(router), []

    def full(handle):
        written.append(handle)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        remove_expert(router, "law")
    monkeypatch.undo()
    assert len(written) == 2, "one file was written whole, the second was not"
    assert hashes(router) == before
    assert [path.name for path in Path(router).iterdir() if path.name.startswith(".")] == []
    assert load_router(router).expert_names == ("code", "law")


_CHANGES = """
import sys
from ir3de.routers import load_router
from tests.helpers.counts import random_share
router = load_router(sys.argv[1])
print("ready", flush=True)
while True:
    router.add_expert("maths", random_share(2))
    router.save_pretrained(sys.argv[1])
    router.remove_expert("maths")
    router.save_pretrained(sys.argv[1])
"""


def test_a_reader_sees_the_old_router_or_the_new_one_and_so_does_who_comes_after_a_kill(router):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _CHANGES, router]
    changer = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert changer.stdout.readline() == "ready\n"
    killer = threading.Timer(random.uniform(1, 2), changer.send_signal, [signal.SIGKILL])
    killer.start()
    seen = set()
    while changer.poll() is None:
        seen.add(load_router(router).expert_names)
    assert seen == {("code", "law"), ("code", "law", "maths")}
    left = load_router(router)
    assert left.expert_names in seen
    left.save_pretrained(router)
    assert len(hashes(router)) == 6, "what the killed command left is cleared away"
