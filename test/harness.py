"""What the test programs share: an unprivileged user, guarded processes, temporary folders.

Nothing here outlives its owner. A guarded process belongs to an owner (by default the process that
called the script); a small guardian waits for the end of either, stops the process in order and
removes its folder. That works after `kill -9` of the owner too.
"""

import ctypes
import os
import pathlib
import pwd
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parent.parent
BUILD = TOP / "build"
BIN = BUILD / "bin"

# Absolute, and for our children too: a private server's own pg_config comes first on their path.
PG_CONFIG = shutil.which(os.environ.get("PG_CONFIG", "pg_config")) or "pg_config"
os.environ["PG_CONFIG"] = PG_CONFIG

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die(message):
    sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {message}")


# --- who runs it ---------------------------------------------------------------------------------


def test_user():
    """The user that servers and tests run as: ourselves, or nobody when we are root.

    PostgreSQL refuses to run as root. `nobody` rather than `postgres`, so that no mistake of a test
    can reach a cluster of the machine.
    """
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def become(user):
    """Drop root for good (between fork and exec)."""
    if os.geteuid() == 0 and user.pw_uid != 0:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)


def die_with_parent(sig=signal.SIGKILL):
    _libc.prctl(PR_SET_PDEATHSIG, sig)


def as_test_user(argv, **kwargs):
    """subprocess.run() as the test user; the process dies with us."""
    user = test_user()

    def prepare():
        become(user)
        die_with_parent(signal.SIGTERM)

    return subprocess.run(argv, preexec_fn=prepare, **kwargs)


def temporary_folder(prefix="kcf-"):
    """A new folder below /tmp (short, because of the limit on socket paths), the test user's own."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    if os.geteuid() == 0:
        user = test_user()
        os.chown(folder, user.pw_uid, user.pw_gid)
    return folder


def readable_by_test_user(path):
    """Can the test user reach and read this file? (A checkout of root may lie in a closed folder.)"""
    if os.geteuid() != 0:
        return os.access(path, os.R_OK)
    user = test_user()
    path = pathlib.Path(path).resolve()
    for part in [path, *path.parents]:
        mode = part.stat()
        need = stat.S_IXOTH if part.is_dir() and part != path else stat.S_IROTH
        if mode.st_uid != user.pw_uid and not mode.st_mode & need:
            return False
    return True


# --- guarded processes ---------------------------------------------------------------------------


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_readable(fd, seconds):
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def guard(argv, folder, owner, log, stop_signal=signal.SIGTERM, grace=20, user=None, env=None,
          keep_folder=False):
    """Start argv under a guardian and return at once; without argv, guard the folder alone.

    The guardian's process id lies in folder/guardian.pid, the process's in folder/guarded.pid;
    folder/ended appears when the process ended by itself. What is guarded in folders below the
    folder ends before it.
    """
    folder = pathlib.Path(folder)
    try:
        owner_fd = os.pidfd_open(owner)
    except ProcessLookupError:
        die(f"the owning process {owner} is gone")

    ready_r, ready_w = os.pipe()
    if os.fork() != 0:
        os.close(ready_w)
        os.close(owner_fd)
        if os.read(ready_r, 1) != b"+":
            die(f"could not start {argv[0]}")
        os.close(ready_r)
        os.wait()
        return

    # A second fork: the guardian is nobody's child, so nobody needs to wait for it.
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    status = 1
    try:
        os.close(ready_r)
        _guardian(argv, folder, owner_fd, log, stop_signal, grace, user, env, keep_folder, ready_w)
        status = 0
    finally:
        os._exit(status)


def _guardian(argv, folder, owner_fd, log, stop_signal, grace, user, env, keep_folder, ready_w):
    stop_r, stop_w = os.pipe()
    os.set_blocking(stop_w, False)
    signal.set_wakeup_fd(stop_w)
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sig, lambda *_: None)

    null = os.open(os.devnull, os.O_RDWR)
    child = None
    if argv is not None:
        (folder / "ended").unlink(missing_ok=True)
        child = _start_child(argv, folder, log, user, env, null)
        (folder / "guarded.pid").write_text(f"{child.pid}\n")
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    (folder / "guardian.pid").write_text(f"{os.getpid()}\n")
    os.write(ready_w, b"+")
    os.close(ready_w)

    child_fd = os.pidfd_open(child.pid) if child else -1
    poller = select.poll()
    for fd in (owner_fd, child_fd, stop_r):
        if fd >= 0:
            poller.register(fd, select.POLLIN)
    events = {fd for fd, _ in poller.poll()}
    if child is not None:
        if child_fd not in events:
            child.send_signal(stop_signal)
            child.send_signal(signal.SIGCONT)
            wait_readable(child_fd, grace)
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        if child_fd in events:
            # It ended by itself: its log is left to whoever asks why, until the owner ends.
            (folder / "ended").touch()
            poller.unregister(child_fd)
            poller.poll()
    for part in folder.glob("*/guardian.pid"):
        stop_guarded(part.parent)
    if keep_folder:
        (folder / "guardian.pid").unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _start_child(argv, folder, log, user, env, null):
    def prepare():
        if user is not None:
            become(user)
        die_with_parent(signal.SIGKILL)

    with open(log, "ab") as out:
        return subprocess.Popen(argv, stdin=null, stdout=out, stderr=out, env=env, cwd=folder,
                                start_new_session=True, preexec_fn=prepare)


def guardian_of(folder):
    try:
        return int((pathlib.Path(folder) / "guardian.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None


def stop_guarded(folder):
    """Stop what guard() started in this folder and wait until it and the folder are gone."""
    pid = guardian_of(folder)
    if pid is None:
        return False
    try:
        fd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    wait_readable(fd, 60)
    os.close(fd)
    return True
