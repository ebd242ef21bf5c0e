"""Lets the tests of this folder import what lies beside them: tests are no packages (pytest's importlib mode)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
