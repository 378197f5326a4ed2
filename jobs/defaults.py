"""Words that the command line needs before anything else is imported."""

from __future__ import annotations

import re

DEFAULT_STORE = "./un0-data"
JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
