"""`python killed.py FOLDER STEP CONFIG`: trains there, and is killed with -9 after those steps."""

import json
import os
import signal
import sys

from vix_flax.launch import train
from vix_flax.training import TrainConfig


def main(folder, step, config):
    taken = iter(range(1, 10**9))

    def on_step(steps):
        if next(taken) == int(step):
            os.kill(os.getpid(), signal.SIGKILL)

    train(TrainConfig(**json.loads(config)), folder, on_step=on_step)


if __name__ == "__main__":
    main(*sys.argv[1:])
