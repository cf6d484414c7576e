"""Lightning modules, and what they are made of."""

import logging

# bitsandbytes, which peft imports, says on processors that an optional kernel is missing.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
