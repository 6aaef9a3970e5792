"""Ctrl-C and SIGTERM as a wish to stop: the step is finished, what it made is saved."""

import os
import signal
import threading

import jax


class StopSignals:
    """A context in which the first signal makes `asked()` true; the second Ctrl-C interrupts."""

    def __init__(self):
        self.event, self.before = threading.Event(), {}

    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.event.is_set()

    def listen(self) -> None:
        """From now on; a program that is still reading its data may be interrupted at once."""
        # Where several processes train together, JAX listens for SIGTERM and tells the others.
        alone = jax.process_count() == 1
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM) if alone else (signal.SIGINT,):
                self.before[number] = signal.signal(number, self._note)

    def _note(self, number, frame):
        if number == signal.SIGINT and self.event.is_set():
            raise KeyboardInterrupt
        self.event.set()
        # Not `print`: it may be what the signal has interrupted.
        os.write(2, b"stopping after this step (once more Ctrl-C: at once)\n")

    def __enter__(self) -> "StopSignals":
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)
