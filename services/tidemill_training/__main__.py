"""`python -m tidemill_training MODEL`: train one model and deploy it. `tidemill train MODEL` runs this with the addresses of the stack."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Waiting threads of scikit-learn would spin and slow other processes, and themselves where these take the processors. To sleep at once makes boosted
    # trees take two thirds longer: of GNU's OpenMP they spin some microseconds. OpenMP reads this once, when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from tidemill.tied import tie_as_told

    tie_as_told()
    from tidemill_training.command import main

    sys.exit(main())
