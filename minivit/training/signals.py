"""Ctrl-C that asks first: the loop finishes its step and saves; a second Ctrl-C ends the process at once."""

import contextlib
import os
import signal
import threading

ASKING = (signal.SIGINT, signal.SIGTERM)
HANG_UP = getattr(signal, "SIGHUP", None)  # the terminal was closed; unknown to Windows


class StopRequest:
    """Context manager: inside, the first SIGINT or SIGTERM only sets ``requested``, and the next one kills.

    SIGHUP sets ``requested`` too, but never kills: a terminal that closes may send it twice. Under ``nohup`` it stays
    ignored. Python lets the main thread alone handle signals; in another thread this does nothing.
    """

    def __init__(self):
        self.requested = False
        self._outer = {}
        self._terminals = []

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._outer = {number: signal.signal(number, self._ask) for number in ASKING}
            if HANG_UP is not None and signal.getsignal(HANG_UP) != signal.SIG_IGN:
                self._terminals = [output for output in (1, 2) if os.isatty(output)]
                self._outer[HANG_UP] = signal.signal(HANG_UP, self._leave)
        return self

    def __exit__(self, *exc):
        for number, handler in self._outer.items():
            signal.signal(number, handler)

    def _ask(self, number, frame):
        self.requested = True
        for each in ASKING:
            signal.signal(each, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            # os.write, because a handler may run in the middle of somebody else's print.
            os.write(2, b"\nstopping after this step, then saving; once more stops at once\n")

    def _leave(self, number, frame):
        self.requested = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in self._terminals:  # printing to a terminal that is gone would fail
            os.dup2(nowhere, output)
        os.close(nowhere)
