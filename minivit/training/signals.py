"""Ctrl-C that asks first: the loop finishes its step and saves; a second Ctrl-C ends the process at once."""

import os
import signal
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Context manager: inside, the first SIGINT or SIGTERM only sets ``requested``, and the next one kills.

    Python lets the main thread alone handle signals; in another thread this does nothing.
    """

    def __init__(self):
        self.requested = False
        self._outer = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._outer = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *exc):
        for number, handler in self._outer.items():
            signal.signal(number, handler)

    def _ask(self, number, frame):
        self.requested = True
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        # os.write, because a handler may run in the middle of somebody else's print.
        os.write(2, b"\nstopping after this step, then saving; once more stops at once\n")
