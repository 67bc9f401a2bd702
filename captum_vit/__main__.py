"""``python -m captum_vit`` is ``captum-vit``."""

import sys

from captum_vit.cli import main

sys.exit(main())
