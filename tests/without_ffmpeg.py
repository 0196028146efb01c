"""Run a command for which FFmpeg's shared libraries do not exist, on a machine that has them.

    python tests/without_ffmpeg.py COMMAND [ARGUMENT ...]

The dynamic linker looks into ``LD_LIBRARY_PATH`` first, and fails at an empty file that has the name it looks for.
PyAV and decord bring libraries of their own under other names, so only torchcodec is without. The exit status is the
command's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Each of torchcodec's core libraries is linked with those of one FFmpeg version; all of them need this one.
_NEEDED = "libavutil.so."
_CHECK = """
from mote_fast.data import available_backends
raise SystemExit(available_backends()["torchcodec"] is None)
"""


def main(command: list[str]) -> int:
    """Run ``command`` and return its exit status; 3 if torchcodec serves all the same."""
    with tempfile.TemporaryDirectory(prefix="no_ffmpeg_") as folder:
        for number in range(50, 80):
            (Path(folder) / f"{_NEEDED}{number}").touch()
        path = os.pathsep.join(filter(None, (folder, os.environ.get("LD_LIBRARY_PATH"))))
        environment = os.environ | {"LD_LIBRARY_PATH": path}
        if subprocess.run([sys.executable, "-c", _CHECK], env=environment).returncode:
            sys.stderr.write("torchcodec still serves: it finds FFmpeg's libraries in another way\n")
            return 3
        return subprocess.run(command, env=environment).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
