"""The foreign tools the tests talk to: where they are, and which package brings what is missing.

Run as ``python -m tests.peers`` it says what is missing on this machine. It
uses the standard library only. With CI=true or PACS_REQUIRE_PEERS=1 a missing
tool is a failure, otherwise the tests that need it are skipped.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

PACKAGES: Mapping[str, str] = {
    "echoscu": "dcmtk",
    "storescu": "dcmtk",
    "findscu": "dcmtk",
    "movescu": "dcmtk",
    "getscu": "dcmtk",
    "storescp": "dcmtk",
    "dcmqrscp": "dcmtk",
    "dcmdump": "dcmtk",
    "dcmcjpeg": "dcmtk",
    "dcmcjpls": "dcmtk",
    "dcmdjpeg": "dcmtk",
    "dcmdjpls": "dcmtk",
    "dcmdrle": "dcmtk",
    "gdcmconv": "libgdcm-tools",
    "dciodvfy": "dicom3tools",
    "openssl": "openssl",
    "Orthanc": "orthanc",
    "initdb": "postgresql",
    "pg_ctl": "postgresql",
    "rabbitmq-server": "rabbitmq-server",
    "redis-server": "redis-server",
    "strace": "strace",
    "rsyslogd": "rsyslog-gnutls",
}
"""Tool → the Debian package that holds it."""


def find(tool: str) -> str | None:
    """Give the path of a tool, also where Debian keeps it off the PATH.

    Our own environment is passed over: pynetdicom puts tools of DCMTK's names there.
    """
    own = Path(sys.prefix, "bin")
    places = [one for one in os.environ.get("PATH", "").split(os.pathsep) if Path(one) != own]
    clusters = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    return shutil.which(tool, path=os.pathsep.join([*places, "/usr/sbin", *clusters]))


def missing() -> dict[str, str]:
    """Map each tool that is not on this machine to its package."""
    return {tool: package for tool, package in PACKAGES.items() if find(tool) is None}


def required() -> bool:
    """Tell whether a missing tool is a failure instead of a skip."""
    return os.environ.get("CI", "").lower() == "true" or os.environ.get("PACS_REQUIRE_PEERS") == "1"


def reason(tool: str) -> str:
    """Say what is missing and how to get it."""
    return f"{tool} is missing: sudo apt-get install {PACKAGES[tool]}"


def main() -> int:
    """Print what is missing and how to install it; fail only where everything is required."""
    absent = missing()
    if not absent:
        print("All foreign DICOM tools and servers for the tests are installed.")
        return 0
    packages = sorted(set(absent.values()))
    print(f"Missing system packages: {', '.join(packages)} (for {', '.join(sorted(absent))}).")
    print(f"Install them: sudo apt-get install --no-install-recommends {' '.join(packages)}")
    print(
        "They are required here."
        if required()
        else "The tests that need them are skipped; all others run."
    )
    return 1 if required() else 0


if __name__ == "__main__":
    sys.exit(main())
