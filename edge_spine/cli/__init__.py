"""The command `edge-spine`; the door is `main.main`."""

import os

# before NumPy is imported, here and in worker processes: on small matrices OpenBLAS's threads wait for each other
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
