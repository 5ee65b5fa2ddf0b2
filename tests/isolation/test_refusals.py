"""Where programs cannot be isolated none is run, and the message says what to do."""

import pytest

from ir3de.isolation import Limits, check_isolation, run_isolated
from ir3de.isolation.filter import seccomp_filter
from ir3de.isolation.run import advice
from tests.helpers.isolation import LIMITS


def test_without_bubblewrap_nothing_is_run(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"`bwrap` is not on the PATH.*apt install bubblewrap"):
        check_isolation()
    with pytest.raises(ValueError, match=r"`bwrap` is not on the PATH"):
        run_isolated("open('/tmp/x', 'w')", limits=LIMITS)


@pytest.mark.parametrize(
    ("complaint", "remedy"),
    [
        ("No permissions to create new namespace", r"\w+"),
        ("Unknown option --size", r"Install bubblewrap 0\.7 or newer\."),
    ],
)
def test_a_refusal_says_what_bubblewrap_said_and_what_to_do(monkeypatch, tmp_path, complaint, remedy):
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\necho 'bwrap: {complaint}' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=rf"^Programs cannot be isolated here: bwrap: {complaint}\. {remedy}"):
        check_isolation()


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("kernel/unprivileged_userns_clone", "0", "`sysctl kernel.unprivileged_userns_clone=1`"),
        ("user/max_user_namespaces", "0", "`sysctl user.max_user_namespaces=10000`"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
        ),
        ("user/max_user_namespaces", "5", "`--privileged`"),
    ],
)
def test_the_advice_fits_the_cause(tmp_path, name, value, remedy):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(f"{value}\n")
    assert remedy in advice(tmp_path, as_root=False)
    assert "`--privileged`" in advice(tmp_path, as_root=True)


def test_other_systems_and_machines_are_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(ValueError, match=r"isolated on riscv64.*x86_64 and aarch64"):
        seccomp_filter()
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(ValueError, match=r"needs Linux, and this is darwin"):
        check_isolation()


@pytest.mark.parametrize("name", ["wall_seconds", "memory_bytes", "processes"])
def test_limits_are_positive(name):
    with pytest.raises(ValueError, match=f"positive `{name}`, but got 0"):
        Limits(**{name: 0})
