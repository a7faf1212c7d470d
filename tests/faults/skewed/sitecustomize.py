"""A machine whose clock goes wrong by FAULTS_SKEW seconds: what Python says of the time of day is off, as on such a machine."""

import os
import time

_SKEW = float(os.environ.get("FAULTS_SKEW", "0"))
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _SKEW
time.time_ns = lambda: _time_ns() + int(_SKEW * 1e9)
