import os
import signal
import threading
from datetime import timedelta
from time import monotonic

import pytest

from ccat_service.stop import Stop, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_wish_to_stop_and_the_old_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), number)
        assert stop.wait(timedelta(seconds=5))
    assert signal.getsignal(number) is before


def test_a_wait_ends_with_its_time_or_with_the_wish() -> None:
    stop = Stop()
    assert not stop.wait(timedelta(milliseconds=1))
    threading.Timer(0.02, stop.request).start()
    began = monotonic()
    assert stop.wait()
    assert monotonic() - began < 5
    stop.close()


def test_the_first_wish_decides_the_exit_code() -> None:
    stop = Stop()
    stop.request(exit_code=1)
    stop.request()
    assert stop.exit_code == 1
    stop.close()
