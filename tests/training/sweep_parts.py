"""A stand-in for ``minivit.train`` in sweeps: it does no work, but has the same files, lock, signals and exit codes."""

import json
import shutil
import sys
import time
from pathlib import Path

from minivit.errors import MinivitError, UsageError
from minivit.training.run_folder import RunFolder
from minivit.training.signals import StopRequest

ROOT = Path(__file__).parents[2]


def row(epoch, seed=0):
    """The line of the log of that epoch."""
    accuracy = 10.0 * epoch + seed
    return {"epoch": epoch, "train_loss": 3.0 / epoch + 0.01 * seed, "test_loss": 2.0 / epoch, "test_top1": accuracy,
            "test_top5": 90.0, "lr": 1e-3, "images_per_second": 100.0, "seconds": 6.0}  # fmt: skip


def train(config, path, resume, mode):
    """Train for ``config["epochs"]`` epochs of ``mode["seconds"]``; returns the exit code."""
    if resume:
        folder = RunFolder.existing(path)
    else:
        folder = RunFolder.create(path, config["model"], config["data"])
    with folder.locked(), StopRequest() as stop:
        if resume:
            done = json.loads(folder.last.read_text())
        else:
            folder.write_config(config, {"threads": 1})
            done = 0
            folder.last.write_text("0")
        if mode.get("error"):
            raise MinivitError(mode["error"])
        folder.write_log([row(epoch, config["seed"]) for epoch in range(1, done + 1)])
        while done < config["epochs"]:
            until = time.monotonic() + mode.get("seconds", 0)
            while time.monotonic() < until and not stop.requested:
                time.sleep(0.005)
            if stop.requested:
                return 130
            done += 1
            folder.last.write_text(str(done))
            folder.append_log(row(done, config["seed"]))
        if "checkpoint" in mode:
            shutil.copy(mode["checkpoint"], folder.best)
        else:
            folder.best.write_text(f"best of seed {config['seed']} lr {config['lr']}")
        time.sleep(mode.get("at the end", 0))
    print("done")
    return 0


def main():
    config, path, resume, mode = json.loads(sys.argv[1])
    print(f"pretending to train in {path}", flush=True)
    try:
        return train(config, path, resume, mode)
    except MinivitError as error:
        print(f"minivit.train: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


if __name__ == "__main__":
    sys.exit(main())
