"""Tests run in two processes, one thread each: more threads than cores are several times slower."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
