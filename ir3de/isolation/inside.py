"""What runs inside the isolation: process 1, which waits, and the program as its child.

The text of this file is handed to the interpreter there, which has the standard library alone.
"""

import os
import resource
import sys
import types

SECRET_BYTES = 32
NO_CORE = 1  # with 0 the kernel still feeds a crashed process to the host's crash handler; with 1 it does not


def main() -> None:
    """Run the program of standard input in a child, and exit as it does; that ends every process that it left."""
    user, cpu_seconds, memory_bytes, file_bytes, processes, secret_fd, report_fd = map(int, sys.argv[1:])
    with open(0, "rb", closefd=False) as file:
        source = file.read()
    child = os.fork()
    while child:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)

    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_CORE, NO_CORE),
    ):
        resource.setrlimit(limit, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))  # a signal that says why; then the end
    if user >= 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.write(report_fd, b"started\n")

    program = types.ModuleType("program")
    sys.modules["program"] = program  # dataclasses and pickle look names up there
    sys.argv = ["program"]
    exec(compile(source.decode(), "<program>", "exec"), program.__dict__)
    # Only now does this interpreter see the secret: who exits earlier, with whatever status, cannot have passed it on.
    os.write(report_fd, os.read(secret_fd, SECRET_BYTES))


if __name__ == "__main__":
    main()
