"""System calls that would lead around the isolation are refused."""

import ast
import os

import pytest

from ir3de.isolation import Status, run_isolated
from ir3de.isolation.filter import CLONE, CLONE3, DENIED, MACHINES
from tests.helpers.isolation import LIMITS, needs_bwrap

pytestmark = needs_bwrap

LIBC = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
    return errno.errorcode.get(ctypes.get_errno(), "ok") if result < 0 else "ok"
"""


def test_system_calls_around_the_isolation_are_refused(way):
    column = MACHINES[os.uname().machine][0]
    numbers = {name: numbers[column] for name, numbers in DENIED.items()}
    program = (
        LIBC
        + f"""
print({{name: call(number, 0, 0, 0, 0, 0) for name, number in {numbers!r}.items()}})
for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
    print(call({CLONE[column]}, flag | 17, 0, 0, 0, 0))
print(call({CLONE3}, 0, 0))
"""
    )
    outcome = run_isolated(program, limits=LIMITS)
    assert (outcome.status, outcome.detail) == (Status.PASSED, "")
    first, *clones, last = outcome.output.splitlines()
    assert ast.literal_eval(first) == dict.fromkeys(DENIED, "EPERM")
    assert clones == ["EPERM"] * 7
    assert last == "ENOSYS"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="a second set of system calls is a matter of x86-64")
def test_the_other_set_of_system_calls_is_no_way_around():
    outcome = run_isolated(LIBC + "call(0x40000000 + 39)", limits=LIMITS)
    assert (outcome.status, outcome.detail) == (Status.FAILED, "ended by SIGSYS")


def test_there_are_no_capabilities(way):
    program = f"""{LIBC}
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capget(header, data) == 0
effective, permitted, _ = zip(data[:3], data[3:])
print(effective, permitted, "no new privileges" if libc.prctl(39, 0, 0, 0, 0) == 1 else "")
for change in (lambda: os.setuid(0), lambda: os.setgroups([0]), lambda: os.chroot("/tmp"), lambda: os.nice(-1)):
    try:
        change()
        print("changed")
    except OSError as error:
        assert error.errno in (errno.EPERM, errno.EINVAL), error  # a namespace of users may not have that user
for mount in (libc.mount(b"x", b"/tmp", b"tmpfs", 0, None), libc.umount2(b"/tmp", 0)):
    assert (mount, ctypes.get_errno()) == (-1, errno.EPERM)
"""
    outcome = run_isolated(program, limits=LIMITS)
    assert (outcome.status, outcome.detail) == (Status.PASSED, "")
    assert outcome.output == "(0, 0) (0, 0) no new privileges\n"
