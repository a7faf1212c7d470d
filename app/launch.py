"""Become another program that ends when its parent ends.

Run by path, so that nothing of the package is imported: `python -I -S launch.py PARENT SIGNAL USER COMMAND...`. `USER` is whom to
become when started as root, or `-`: Postgres refuses to run as root. It then keeps the one right that lets it pass folders closed
to others (`/root`), so that nobody's permissions have to be changed for it.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE = 1


def command(arguments: list[str], dies_by: signal.Signals, user: str | None = None) -> list[str]:
    """The command line that runs `arguments` as a child that gets the signal `dies_by` when the calling *thread* ends.

    Only Linux has that; elsewhere the child is plainly started.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(dies_by)), user or "-", *arguments]


def main() -> None:
    """Change user if asked, bind the own end to the parent's, and become the command."""
    parent, dies_by, user, *arguments = sys.argv[1:]
    if user != "-":
        _become(user)
    if sys.platform == "linux":
        # after the change of user, which clears it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(dies_by), 0, 0, 0)
        if os.getppid() != int(parent):  # it ended before we asked
            sys.exit(1)
    os.execv(arguments[0], arguments)


def _become(user: str) -> None:
    import pwd  # noqa: PLC0415 (only root needs it)

    entry = pwd.getpwnam(user)
    linux = ctypes.CDLL(None) if sys.platform == "linux" else None
    if linux:
        linux.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ["HOME"] = "/"
    if linux:
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        rights = 1 << _CAP_DAC_OVERRIDE
        linux.capset(header, (ctypes.c_uint32 * 6)(rights, rights, rights, 0, 0, 0))  # effective, permitted, inheritable
        linux.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


if __name__ == "__main__":
    main()
