"""`python -m torchgguf`: the command line."""

import sys

from torchgguf.cli import main

sys.exit(main())
