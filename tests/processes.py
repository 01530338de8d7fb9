"""The processes below one that a test has started, by the names they give themselves."""

from pathlib import Path


def below(pid: int) -> list[int]:
    """Every process that a process has begun, and those they have, dead ones aside."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = [int(one) for one in (task / "children").read_text().split()]
        except OSError:  # it has just ended
            continue
        for child in children:
            found += [child] if runs(child) else []
            found += below(child)
    return found


def named(pid: int, name: str) -> list[int]:
    """Those of a name: ``pacs-worker``, ``pacs-listener``, ``pacs-nursery``."""
    return sorted(one for one in below(pid) if _name(one) == name)


def workers(pid: int) -> list[int]:
    """Those that run jobs."""
    return named(pid, "pacs-worker")


def listeners(pid: int) -> list[int]:
    """Those that hold associations."""
    return named(pid, "pacs-listener")


def runs(pid: int) -> bool:
    """Tell that it is there and has not ended, collected or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
