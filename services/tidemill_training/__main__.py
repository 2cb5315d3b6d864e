"""`python -m tidemill_training MODEL`: train one model and deploy it. `tidemill train MODEL` runs this with the running stack's addresses."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Threads of scikit-learn that wait by spinning take the processor from whatever else runs here; read once, when OpenMP is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from tidemill_training.command import main

    sys.exit(main())
