"""Each measurement in a process of its own."""

import os
import subprocess
import sys


def in_a_process(module, *arguments, **variables):
    """Return the numbers that ``python -m module --one arguments`` prints."""
    command = [sys.executable, "-m", module, "--one", *map(str, arguments)]
    environment = os.environ | variables
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [float(each) for each in result.stdout.split()]
