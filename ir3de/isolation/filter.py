"""The system calls that an isolated program may not make, as a filter that the kernel runs (seccomp, classic BPF).

Namespaces hide files, processes and interfaces; these calls would go around them, or take memory that nobody counts.
"""

import errno
import platform
import struct

# Numbers on x86-64 and on 64-bit ARM, from the kernel's unistd.h.
DENIED = {
    "unshare": (272, 97),  # a user namespace of its own would give back every capability inside it
    "setns": (308, 268),
    "socket": (41, 198),  # some families ignore network namespaces: vsock leads from a guest to its host
    "io_uring_setup": (425, 425),  # makes sockets without the call above
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "memfd_create": (319, 279),  # memory that belongs to no process and no file system
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "add_key": (248, 217),  # the caller's keyring is inherited
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),  # large parts of the kernel that a benchmark's program has no business with
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
}
CLONE = (56, 220)
CLONE3 = 435
NEW_NAMESPACE = 0x7E020000  # every CLONE_NEW flag that clone takes
X32_CALLS = 0x40000000  # the second set of numbers that x86-64 has
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH constant

ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, EQUAL, AT_LEAST, HAS_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
CALL_NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in the kernel's seccomp_data, little-endian


def seccomp_filter() -> bytes:
    """Return the filter for this machine, as bubblewrap reads it.

    Raises:
        ValueError: If the numbers of this machine's system calls are not known here.
    """
    machine = platform.machine()
    if machine not in MACHINES:
        raise ValueError(
            f"Programs cannot be isolated on {machine}: the filter of system calls knows {' and '.join(MACHINES)}."
            " Run this part on such a machine."
        )
    column, architecture = MACHINES[machine]
    steps = [
        _step(LOAD, ARCHITECTURE),
        *_unless(EQUAL, architecture, KILL),
        _step(LOAD, CALL_NUMBER),
        *_when(AT_LEAST, X32_CALLS, KILL),
        *_when(EQUAL, CLONE3, REFUSE | errno.ENOSYS),  # its flags are out of a filter's sight; libraries fall back
    ]
    for numbers in DENIED.values():
        steps += _when(EQUAL, numbers[column], REFUSE | errno.EPERM)
    steps += [
        *_unless(EQUAL, CLONE[column], ALLOW),
        _step(LOAD, FIRST_ARGUMENT),
        *_when(HAS_BITS, NEW_NAMESPACE, REFUSE | errno.EPERM),
        _step(RETURN, ALLOW),
    ]
    return b"".join(steps)


def _when(test: int, value: int, answer: int) -> list[bytes]:
    return [_step(test, value, skip_if_true=0, skip_if_false=1), _step(RETURN, answer)]


def _unless(test: int, value: int, answer: int) -> list[bytes]:
    return [_step(test, value, skip_if_true=1, skip_if_false=0), _step(RETURN, answer)]


def _step(code: int, value: int, *, skip_if_true: int = 0, skip_if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, skip_if_true, skip_if_false, value)
